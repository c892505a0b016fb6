"""Means of a metric by two keys of the rows, over what all cells share."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trustvlm.benchmark.basis import basis_words
from trustvlm.benchmark.captions import capitalised
from trustvlm.benchmark.draws import Spread, spread
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, unit_words
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.table import Head, Line, Table, spread_cell
from trustvlm.exceptions import InputError

__all__ = ["NOTHING", "Matrix", "matrix", "matrix_table", "plainly"]

NOTHING = Spread(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Matrix:
    """A metric by two keys.

    Attributes
    ----------
    lines, columns
        Values of the two keys: numbers ascending, names in the order of the rows.
    cells
        Mean and spread over draws by (line, column); those without values are absent.
    told
        What the means are over, as a sentence; empty if that goes without saying.
    """

    lines: Sequence[Any]
    columns: Sequence[Any]
    cells: Mapping[tuple[Any, Any], Spread]
    told: str


def matrix(rows: Sequence[Row], metric: str, keys: tuple[str, str]) -> Matrix:
    """Average a metric over the data sets and draws that every cell with values has.

    A data set or draw that one of the cells lacks counts for none: cells can then be compared.

    Parameters
    ----------
    rows
        As of `Results`, with both keys; `dataset` may be one of them.
    metric
        Its name.
    keys
        Of lines and of columns.

    Raises
    ------
    InputError
        Without rows, or if a row lacks a key.

    Examples
    --------
    >>> about = {"score": "trustvlm", "shots": 1, "dataset": "pets"}
    >>> rows = [{**about, "draw": i, "r": 1.0, "T": 0.1, "aurc": 0.2 + 0.1 * i} for i in (0, 1)]
    >>> matrix(rows, "aurc", ("r", "T")).cells[1.0, 0.1].mean
    0.25
    """
    if not rows or any(key not in row for row in rows for key in keys):
        raise InputError(f"Expected rows that have {' and '.join(f'`{key}`' for key in keys)}.")
    values: dict[tuple[Any, Any], dict[tuple[int, str], float]] = defaultdict(dict)
    for row in rows:
        value = value_of(row, metric)
        if not math.isnan(value):
            unit = (int(row["draw"]), "" if "dataset" in keys else str(row["dataset"]))
            values[row[keys[0]], row[keys[1]]][unit] = value
    shared = set.intersection(*map(set, values.values())) if values else set()
    datasets = {dataset for _, dataset in shared}
    told = ""
    if not shared:
        told = "The cells share no data set and draw."
    elif "dataset" not in keys and len(datasets) < len({row["dataset"] for row in rows}):
        told = f"Means are over the data sets that all cells have: {', '.join(sorted(datasets))}."
    cells = {}
    for cell, found in values.items() if shared else ():
        by_draw: dict[int, list[float]] = defaultdict(list)
        for draw, dataset in sorted(shared):
            by_draw[draw].append(found[draw, dataset])
        over_draws = spread([float(np.mean(v)) for v in by_draw.values()])
        cells[cell] = Spread(
            float(np.mean([found[unit] for unit in sorted(shared)])), over_draws.sd, over_draws.n
        )
    lines, columns = (_ordered([row[key] for row in rows]) for key in keys)
    return Matrix(lines, columns, cells, told)


def matrix_table(
    rows: Sequence[Row],
    metric: str,
    *,
    keys: tuple[str, str],
    words: tuple[str, str],
    name: str,
    title: str,
    of: str = "",
    caution: str = "",
    convention: str = "exact",
) -> Table:
    """Write the means of a metric by two keys, with their spread over draws.

    Parameters
    ----------
    rows, metric, keys
        As of `matrix`.
    words
        What lines and columns are.
    name, title
        As of `Table`.
    of
        What is measured; by default the score of the rows.
    caution
        A sentence that readers must not miss, before all others.
    convention
        Of the metric.
    """
    column, found = METRIC_COLUMNS[metric], matrix(rows, metric, keys)
    caption = [
        caution,
        f"{capitalised(unit_words(column))}, of {of or rows[0]['score']}: {words[0]} (lines) by "
        f"{words[1]} (columns).",
        basis_words(rows, convention),
        "Mean ± standard deviation over the draws; without ± where all draws agree.",
        found.told,
    ]
    return Table(
        name=name,
        title=title,
        caption=" ".join(filter(None, caption)),
        heads=(
            Head(capitalised(words[0])),
            *(Head(plainly(one), falling=column.higher_is_better) for one in found.columns),
        ),
        lines=tuple(
            Line(
                plainly(line),
                tuple(
                    spread_cell(found.cells.get((line, one), NOTHING), column.scale)
                    for one in found.columns
                ),
            )
            for line in found.lines
        ),
    )


def plainly(value: Any) -> str:
    """Write a name as it is, and a number without needless digits.

    Examples
    --------
    >>> plainly("pets"), plainly(10.0), plainly(0.03)
    ('pets', '10', '0.03')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ordered(values: Sequence[Any]) -> list[Any]:
    distinct = list(dict.fromkeys(values))
    numbers = all(isinstance(value, int | float) for value in distinct)
    return sorted(distinct) if numbers else distinct
