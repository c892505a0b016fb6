"""The terminal table of a benchmark: every score's means over test sets and draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["print_means"]


def print_means(every: Sequence[Mapping[str, Any]], of: str = "") -> None:
    """Print each score's means over the test sets and draws, at the most shots, best AURC first.

    Parameters
    ----------
    every
        Rows of the study, as fractions; undefined metrics are None and count for nothing.
    of
        What the rows are of, such as the models' names.
    """
    from rich.console import Console
    from rich.table import Table

    from trustvlm.report.columns import NARROW_COLUMNS, number

    if not every:
        return
    largest = max(row["shots"] for row in every)
    rows = [row for row in every if row["shots"] == largest]
    sets, draws = (len({row[key] for row in rows}) for key in ("dataset", "draw"))
    table = Table(
        title=f"{of + ': ' if of else ''}mean of {sets} test sets, {largest} shots, {draws} draws",
        box=None,
        title_justify="left",
    )
    table.add_column("Score")
    for column in NARROW_COLUMNS:
        title = "Acc." if column.key == "accuracy" else column.title
        table.add_column(f"{title} %" if column.scale == 100 else title, justify="right")
    means = {
        score: {
            column.key: column.scale * _mean([r[column.key] for r in rows if r["score"] == score])
            for column in NARROW_COLUMNS
        }
        for score in dict.fromkeys(row["score"] for row in rows)
    }
    for score, values in sorted(means.items(), key=lambda item: _last_if_nan(item[1]["aurc"])):
        table.add_row(score, *(number(v, undefined="-") for v in values.values()))
    Console().print(table)


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else math.nan


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
