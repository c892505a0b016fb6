"""The terminal table of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustvlm.report.columns import NARROW_COLUMNS, by_aurc, number
from trustvlm.report.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["table"]


def table(evaluation: EvaluationResult) -> Table:
    """Build the terminal table of all scores, best AURC first; it fits 80 columns.

    The AURC family is shown times 1000 and the others in percent, as in Dong et al. 2025
    (arXiv 2505.23745); the two AUPR are in the page alone. The model's own score is marked. Only
    ASCII is used beside the names, so that the table survives pipes and terminals of any encoding.

    Parameters
    ----------
    evaluation
        What `trustvlm evaluate` found.

    Returns
    -------
    rich.table.Table
        Print it with `rich.print` or a `rich.console.Console`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = by_aurc(evaluation.metrics)
    result = Table(
        title=Text(_title(evaluation), style="bold"),
        caption=Text(_caption(evaluation)),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    result.add_column("Score\n", no_wrap=True, overflow="ellipsis")
    for column in NARROW_COLUMNS:
        title = "Acc." if column.key == "accuracy" else column.title
        result.add_column(
            f"{title}\n{column.unit}", justify="right", no_wrap=True, min_width=len(title)
        )
    for name in names:
        own = name == evaluation.score
        cells = [
            number(column.value(evaluation.metrics[name]), undefined="-")
            for column in NARROW_COLUMNS
        ]
        result.add_row(Text(f"{'*' if own else ' '} {name}"), *cells, style="bold" if own else None)
    return result


def _title(evaluation: EvaluationResult) -> str:
    shots = f"{counted(evaluation.shots, 'shot')} per class"
    return (
        f"{evaluation.dataset}: {counted(len(evaluation.labels), 'image')}, {shots}, "
        f"convention {evaluation.convention}"
    )


def _caption(evaluation: EvaluationResult) -> str:
    lines = ["* the model's own score. Best AURC first."]
    if any(
        number(column.value(found)) == "undefined"
        for column in NARROW_COLUMNS
        for found in evaluation.metrics.values()
    ):
        lines.append("- undefined on these images.")
    if evaluation.failures:
        lines.append(f"{counted(len(evaluation.failures), 'image')} could not be read.")
    if evaluation.excluded:
        lines.append(f"{counted(len(evaluation.excluded), 'image')} left out: among the shots.")
    return "\n".join(lines)
