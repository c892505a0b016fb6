"""Which class to label next, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trustvlm.report.wording import counted, percent

if TYPE_CHECKING:
    from trustvlm.decisions.advice import Advice
    from trustvlm.decisions.coverage_gain import CoverageGain
    from trustvlm.decisions.health import Health

__all__ = ["by_examples_alone", "by_labelled_images"]


def by_labelled_images(advice: Advice, class_names: Sequence[str], most: int = 5) -> list[str]:
    """Say what trying labelled images as examples showed, best class first."""
    risk = percent(advice.risk)
    tried = f"tried out on {counted(advice.n, 'labelled image')}"
    if not advice.classes:
        return [f"Label next: of no class did further examples help, {tried}."]
    lines = [f"Label next, {tried}; accepted means at most {risk} of errors among them:"]
    lines += [
        f"  {place}. '{class_names[found.label]}': {counted(round(found.added), 'more example')}, "
        f"accepted {_change(found.coverage)}"
        for place, found in enumerate(advice.classes[:most], 1)
    ]
    if advice.together is not None and advice.n_together > 1:
        lines.append(
            f"  The best {advice.n_together} at once: accepted {_change(advice.together)}. Ranked "
            "on other images than it is measured on: expect this rather than the figures above."
        )
    return lines


def by_examples_alone(health: Health, class_names: Sequence[str], most: int = 3) -> list[str]:
    """Say which prototypes are least certain, for want of labelled images."""
    ranked = sorted(health.certainties, key=lambda found: found.certainty)[:most]
    lines = ["Label next, by the examples alone (name labelled images to try what more would buy):"]
    lines += [
        f"  {place}. '{class_names[found.label]}': certainty {found.certainty:.2f} with "
        f"{counted(found.shots, 'example')}"
        for place, found in enumerate(ranked, 1)
    ]
    return lines


def _change(found: CoverageGain) -> str:
    return (
        f"{percent(found.before)} -> {percent(found.after)} ({100 * found.gain:+.1f}; 95 % "
        f"interval {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    )
