"""What the terminal shows of evaluations, advice and drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trustvlm.monitoring.drift import ENOUGH_TO_WATCH
from trustvlm.tables.metrics import by_aurc, narrow_cells, narrow_columns
from trustvlm.text import counted, percent, printable

if TYPE_CHECKING:
    from rich.table import Table

    from trustvlm.data_quality.checks import Health
    from trustvlm.data_quality.label_next import Advice, CoverageGain
    from trustvlm.monitoring.martingale import Stream
    from trustvlm.pipeline.evaluate import EvaluationResult
    from trustvlm.pipeline.monitor import DriftReport


# The terminal table of an evaluation.


def table(evaluation: EvaluationResult) -> Table:
    """Build the terminal table of all scores, best AURC first; it fits 80 columns.

    The AURC family is shown times 1000 and the others in percent, as in Dong et al. 2025
    (arXiv 2505.23745); the two AUPR are in the page alone. The model's own score is marked. Only
    ASCII is used beside the names, so that the table survives pipes and terminals of any encoding.

    Parameters
    ----------
    evaluation
        The results of `trustvlm evaluate`.

    Returns
    -------
    rich.table.Table
        Print it with `rich.print` or a `rich.console.Console`.
    """
    from rich.text import Text

    shots = f"{counted(evaluation.shots, 'shot')} per class"
    result = empty_table(
        f"{evaluation.dataset}: {counted(len(evaluation.labels), 'image')}, {shots}, "
        f"convention {evaluation.convention}",
        _caption(evaluation),
    )
    result.add_column("Score\n", no_wrap=True, overflow="ellipsis")
    for column in narrow_columns():
        title = column.short_title
        result.add_column(
            f"{title}\n{column.unit}", justify="right", no_wrap=True, min_width=len(title)
        )
    for name in by_aurc(evaluation.metrics):
        own = name == evaluation.score
        cells = narrow_cells(evaluation.metrics[name])
        result.add_row(Text(f"{'*' if own else ' '} {name}"), *cells, style="bold" if own else None)
    return result


def empty_table(title: str, caption: str) -> Table:
    """Build a table without columns, in the style of this room."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(printable(title), style="bold"),
        caption=Text(printable(caption, keep="\n")),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def _caption(evaluation: EvaluationResult) -> str:
    lines = ["* the model's own score. Best AURC first."]
    if evaluation.given_labels:
        lines.append("Judged are labels from elsewhere (--given-labels).")
    if any(
        math.isnan(column.value(values))
        for column in narrow_columns()
        for values in evaluation.metrics.values()
    ):
        lines.append("- undefined on these images.")
    if evaluation.failures:
        lines.append(f"{counted(len(evaluation.failures), 'image')} could not be read.")
    if evaluation.excluded:
        lines.append(f"{counted(len(evaluation.excluded), 'image')} left out: among the shots.")
    return "\n".join(lines)


# Which class to label next, in words.


def by_labelled_images(advice: Advice, class_names: Sequence[str], most: int = 5) -> list[str]:
    """Say what trying labelled images as examples showed, best class first."""
    risk = percent(advice.risk)
    tried = f"tried out on {counted(advice.n, 'labelled image')}"
    if not advice.classes:
        return [f"Label next: of no class did further examples help, {tried}."]
    lines = [f"Label next, {tried}; accepted means at most {risk} of errors among them:"]
    lines += [
        f"  {rank}. '{class_names[one.label]}': {counted(round(one.added), 'more example')}, "
        f"accepted {_change(one.coverage)}"
        for rank, one in enumerate(advice.classes[:most], 1)
    ]
    if advice.together is not None and advice.n_together > 1:
        lines.append(
            f"  The best {advice.n_together} at once: accepted {_change(advice.together)}. Ranked "
            "on other images than it is measured on: expect this rather than the figures above."
        )
    return lines


def by_examples_alone(health: Health, class_names: Sequence[str], most: int = 3) -> list[str]:
    """Say which prototypes are least reliable, for want of labelled images."""
    ranked = sorted(health.certainties, key=lambda one: one.reliability)[:most]
    lines = ["Label next, by the examples alone (name labelled images to try what more would buy):"]
    lines += [
        f"  {rank}. '{class_names[one.label]}': reliability {one.reliability:.2f} with "
        f"{counted(one.shots, 'example')}"
        for rank, one in enumerate(ranked, 1)
    ]
    return lines


def _change(gain: CoverageGain) -> str:
    return (
        f"{percent(gain.before)} -> {percent(gain.after)} ({100 * gain.gain:+.1f}; 95 % "
        f"interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    )


# The drift monitor in words.

_MEANING = {
    "confidence": "the confidence of the verdicts",
    "text_confidence": "the confidence of the text",
    "typicality": "the similarity to the examples",
}


def drift_sentence(drift: DriftReport) -> str:
    """Say whether incoming images drifted, what changed, and how sure that is."""
    monitor = drift.monitor
    images = f"{counted(drift.new, 'new image')}, {counted(monitor.n, 'image')} in all"
    if drift.repeated:
        images += f" ({counted(drift.repeated, 'image')} seen before left out)"
    if not monitor.drifted:
        strongest = max(stream.martingale.peak for stream in monitor.streams.values())
        return (
            f"No drift: {images}; they look like the {drift.calibrated_on}. Evidence of a change "
            f"was at most {_capital(strongest)}, the alarm is raised at "
            f"{_capital(math.log(monitor.alarm_at))}."
        )
    changed = [
        f"{_MEANING.get(name, name)} {_drift_change(stream, drift.latest[name])}, noticed after "
        f"{counted(after, 'image')}"
        for name, stream in monitor.streams.items()
        if (after := stream.drifted_after) is not None
    ]
    return (
        f"Drift: incoming images no longer look like the {drift.calibrated_on}: "
        f"{'; '.join(changed)} ({images}). The chance of such an alarm without a change is at most "
        f"1 in {1 / monitor.false_alarm:,.0f}. Look at recent images, and label some to calibrate "
        "again."
    )


def drift_caution(drift: DriftReport) -> str:
    """Say what the alarm cannot be relied on for; "" if there is nothing to add."""
    few = min(len(stream.calibration) for stream in drift.monitor.streams.values())
    if few < ENOUGH_TO_WATCH:
        return (
            f"with {counted(few, 'image')} to compare with, even a complete change may go "
            f"unnoticed; {ENOUGH_TO_WATCH} or more are wanted"
        )
    return ""


def _drift_change(stream: Stream, latest: float) -> str:
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
