"""Means of a metric by two settings, as tables and heat maps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.benchmark.captions import describe_basis
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.statistics import NOTHING, spread_over_draws
from trustvlm.exceptions import InputError
from trustvlm.plots.figure import INK, WRONG, Figure, ink_on
from trustvlm.tables.metrics import METRIC_COLUMNS, MetricColumn, describe_unit
from trustvlm.tables.table import UNDEFINED, Head, Line, Spread, Table, spread_cell
from trustvlm.text import shortened

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase


# Means of a metric by two keys of the rows, over what all cells share.


@dataclass(frozen=True)
class Matrix:
    """A metric by two keys.

    Attributes
    ----------
    lines, columns
        Values of the two keys: numbers ascending, names in the order of the rows.
    cells
        Mean and spread over draws by (line, column); those without values are absent.
    remark
        What the means are over, as a sentence; empty if that goes without saying.
    """

    lines: Sequence[Any]
    columns: Sequence[Any]
    cells: Mapping[tuple[Any, Any], Spread]
    remark: str


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
    remark = ""
    if not shared:
        remark = "The cells share no data set and draw."
    elif "dataset" not in keys and len(datasets) < len({row["dataset"] for row in rows}):
        remark = f"Means are over the data sets that all cells have: {', '.join(sorted(datasets))}."
    cells = {}
    for cell, by_unit in values.items() if shared else ():
        of_units = [(draw, by_unit[draw, dataset]) for draw, dataset in sorted(shared)]
        mean = float(np.mean([value for _, value in of_units]))
        cells[cell] = replace(spread_over_draws(of_units), mean=mean)
    lines, columns = (_ordered([row[key] for row in rows]) for key in keys)
    return Matrix(lines, columns, cells, remark)


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
    column, means = METRIC_COLUMNS[metric], matrix(rows, metric, keys)
    caption = [caution, f"{_describe_cells(rows, column, words, of)}; mean ± SD over draws."]
    notes = [
        describe_basis(rows, convention),
        "Mean ± standard deviation over the draws; without ± where all draws agree.",
        means.remark,
    ]
    return Table(
        name=name,
        title=title,
        caption=" ".join(filter(None, caption)),
        notes=" ".join(filter(None, notes)),
        heads=(
            Head(words[0][:1].upper() + words[0][1:]),
            *(Head(plainly(one), falling=column.higher_is_better) for one in means.columns),
        ),
        lines=tuple(
            Line(
                plainly(line),
                tuple(
                    spread_cell(means.cells.get((line, one), NOTHING), column.scale)
                    for one in means.columns
                ),
            )
            for line in means.lines
        ),
    )


def _describe_cells(
    rows: Sequence[Row], column: MetricColumn, words: tuple[str, str], of: str
) -> str:
    return (
        f"{describe_unit(column)}, of {of or rows[0]['score']}: {words[0]} (lines) by "
        f"{words[1]} (columns)"
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


# A heat map of means by two settings.

# Width and height of a cell in CSS pixels.
_CELL = (58, 34)


def heat_map(
    rows: Sequence[Row],
    metric: str,
    *,
    keys: tuple[str, str],
    words: tuple[str, str],
    name: str,
    title: str,
    framed: tuple[Any, Any] | None = None,
    of: str = "",
    banner: str = "",
    shade_columns: bool = False,
    convention: str = "exact",
) -> Figure:
    """Write means of a metric by two keys of the rows into cells, and shade these by them.

    Means are over the data sets and draws that every cell with values has, so that cells can be
    compared; a data set that one of them lacks counts for none.

    Parameters
    ----------
    rows
        As of `Results`, with both keys.
    metric
        Its name.
    keys, words
        Of lines and of columns, and what the axes call them.
    name, title
        As of `Figure`.
    framed
        Line and column of a cell with a frame.
    of
        What is measured; by default the one score that the rows have.
    banner
        A warning that is part of the figure, wherever that is copied to.
    shade_columns
        Whether each column is shaded by itself, where columns cannot be compared.
    convention
        Of the metric.

    Raises
    ------
    InputError
        Without rows, if a row lacks a key, or if rows of several scores or shots are mixed.
    """
    column, means = METRIC_COLUMNS[metric], matrix(rows, metric, keys)
    _check(rows, keys, of)
    caption = [
        f"{banner}." if banner else "",
        f"{_describe_cells(rows, column, words, of)}.",
        "Lighter is better" + (" within a column." if shade_columns else "."),
        "Frame: the default." if framed else "",
    ]
    notes = [
        describe_basis(rows, convention),
        "Means over the draws" + ("." if "dataset" in keys else " and data sets."),
        means.remark,
        "Nothing was tuned for the default." if framed else "",
    ]

    # What each cell is shaded against: all of them, or those of its column.
    compared = {
        other: [
            cell.mean for key, cell in means.cells.items() if not shade_columns or key[1] == other
        ]
        for other in means.columns
    }

    def draw(body: FigureBase) -> None:
        from matplotlib.patches import Rectangle

        axes = body.subplots()
        axes.set_xlim(0, len(means.columns))
        axes.set_ylim(len(means.lines), 0)
        for y, one in enumerate(means.lines):
            for x, other in enumerate(means.columns):
                value = means.cells.get((one, other), NOTHING).mean
                colour = _shade(value, compared[other], column)
                if colour is not None:
                    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, linewidth=0))
                axes.text(
                    x + 0.5,
                    y + 0.5,
                    UNDEFINED if colour is None else f"{column.scale * value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=12,
                    color=INK if colour is None else ink_on(*colour),
                )
                if framed == (one, other):
                    frame = Rectangle((x, y), 1, 1, fill=False, edgecolor=WRONG)
                    frame.set(linewidth=3, clip_on=False, zorder=5)
                    axes.add_patch(frame)
        xs, ys = (np.arange(len(means.columns)) + 0.5, np.arange(len(means.lines)) + 0.5)
        axes.set_xticks(xs, [shortened(plainly(c), 22) for c in means.columns])
        axes.set_yticks(ys, [shortened(plainly(c), 22) for c in means.lines])
        headline = (of or str(rows[0]["score"])).partition(",")[0]
        axes.set_title(shortened(headline, 40), fontsize=12.5, loc="left")
        if max(len(plainly(c)) for c in means.columns) > 7:
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.tick_params(length=0, labelsize=12)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(words[0])
        axes.set_xlabel(words[1])

    return Figure(
        name=name,
        title=title,
        caption=" ".join(filter(None, caption)),
        notes=" ".join(filter(None, notes)),
        width=max(320.0, _CELL[0] * len(means.columns) + 170.0),
        # A single line has to leave room for the name of its axis.
        height=max(_CELL[1] * len(means.lines), 100.0) + 130.0,
        draw=draw,
        banner=banner,
    )


def _shade(
    value: float, values: Sequence[float], column: MetricColumn
) -> tuple[float, float, float] | None:
    from matplotlib import colormaps

    if math.isnan(value):
        return None
    low, high = min(values), max(values)
    share = (value - low) / (high - low) if high > low else 0.5
    red, green, blue, _ = colormaps["cividis"](share if column.higher_is_better else 1 - share)
    return float(red), float(green), float(blue)


def _check(rows: Sequence[Row], keys: tuple[str, str], of: str) -> None:
    for key in ("score", "shots"):
        values = sorted({str(row[key]) for row in rows})
        if len(values) > 1 and key not in keys and not of:
            raise InputError(
                f"Expected rows of one {key.rstrip('s')}, but got {', '.join(values)}."
            )
