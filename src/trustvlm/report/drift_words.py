"""What the drift monitor found, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trustvlm.decisions.drift import ENOUGH_TO_WATCH
from trustvlm.report.wording import counted

if TYPE_CHECKING:
    from trustvlm.decisions.streams import Stream
    from trustvlm.pipeline.monitoring import Watched

__all__ = ["drift_caution", "drift_sentence"]

_MEANING = {
    "confidence": "the confidence of the verdicts",
    "text_confidence": "the confidence of the text",
    "typicality": "the similarity to the examples",
}


def drift_sentence(found: Watched) -> str:
    """Say whether incoming images drifted, what changed, and how sure that is."""
    monitor = found.monitor
    images = f"{counted(found.new, 'new image')}, {counted(monitor.n, 'image')} in all"
    if found.repeated:
        images += f" ({counted(found.repeated, 'image')} seen before left out)"
    if not monitor.drifted:
        strongest = max(stream.bettor.peak for stream in monitor.streams.values())
        return (
            f"No drift: {images}; they look like the {found.calibrated_on}. Evidence of a change "
            f"was at most {_capital(strongest)}, the alarm is raised at "
            f"{_capital(math.log(monitor.alarm_at))}."
        )
    changed = [
        f"{_MEANING.get(name, name)} {_change(stream, found.latest[name])}, noticed after "
        f"{counted(after, 'image')}"
        for name, stream in monitor.streams.items()
        if (after := stream.drifted_after) is not None
    ]
    return (
        f"Drift: incoming images no longer look like the {found.calibrated_on}: "
        f"{'; '.join(changed)} ({images}). The chance of such an alarm without a change is at most "
        f"1 in {1 / monitor.false_alarm:,.0f}. Look at recent images, and label some to calibrate "
        "again."
    )


def drift_caution(found: Watched) -> str:
    """Say what the alarm cannot be relied on for; "" if there is nothing to add."""
    few = min(len(stream.calibration) for stream in found.monitor.streams.values())
    if few < ENOUGH_TO_WATCH:
        return (
            f"with {counted(few, 'image')} to compare with, even a complete change may go "
            f"unnoticed; {ENOUGH_TO_WATCH} or more are wanted"
        )
    return ""


def _change(stream: Stream, latest: float) -> str:
    now = stream.lately if math.isnan(latest) else latest
    verb = "fell" if now < stream.usual else "rose"
    if math.isclose(now, stream.usual, abs_tol=0.005):
        verb = "changed"
    return f"{verb} (median {now:.2f}, usually {stream.usual:.2f})"


def _capital(log_capital: float) -> str:
    """Write evidence, the factor by which a bet of 1 would have grown.

    Examples
    --------
    >>> _capital(0.0), _capital(9.9)
    ('1.0', '19,930')
    """
    value = math.exp(min(log_capital, 700.0))
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}" if value < 1e9 else "over 10^9"
