"""A heat map of means by two settings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.benchmark.captions import capitalised
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, unit_words
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.table import UNDEFINED
from trustvlm.benchmark.theme import Palette, ink_on
from trustvlm.exceptions import InputError
from trustvlm.report.columns import MetricColumn
from trustvlm.report.wording import counted, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat_map"]

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
) -> Drawing:
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
        As of `Drawing`.
    framed
        Line and column of a cell with a frame.

    Raises
    ------
    InputError
        Without rows, if a row lacks a key, or if rows of two scores or shots are mixed.
    """
    column = METRIC_COLUMNS[metric]
    _check(rows, keys)
    lines, columns = (_ordered([row[key] for row in rows]) for key in keys)
    means, told = _means(rows, metric, keys)
    rule = "Lighter is better." + " The frame marks the setting used." * (framed is not None)

    def draw(figure: Figure, palette: Palette) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(lines), 0)
        for y, one in enumerate(lines):
            for x, other in enumerate(columns):
                value = means.get((one, other), math.nan)
                colour = _shade(value, list(means.values()), column)
                if colour is not None:
                    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, linewidth=0))
                axes.text(
                    x + 0.5,
                    y + 0.5,
                    UNDEFINED if colour is None else f"{column.scale * value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=12,
                    color=palette.ink if colour is None else ink_on(*colour),
                )
                if framed == (one, other):
                    frame = Rectangle((x, y), 1, 1, fill=False, edgecolor=palette.series[1])
                    frame.set(linewidth=3, clip_on=False, zorder=5)
                    axes.add_patch(frame)
        axes.set_xticks(np.arange(len(columns)) + 0.5, [shortened(str(c), 22) for c in columns])
        axes.set_yticks(np.arange(len(lines)) + 0.5, [shortened(str(c), 22) for c in lines])
        if max(len(str(c)) for c in columns) > 7:
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.tick_params(length=0, labelsize=12)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(words[0])
        axes.set_xlabel(words[1])

    return Drawing(
        name=name,
        title=title,
        caption=f"{capitalised(unit_words(column))}, of {rows[0]['score']} with "
        f"{counted(int(rows[0]['shots']), 'shot')} per class: {words[0]} (lines) by {words[1]} "
        f"(columns). {told} {rule}",
        width=max(320.0, _CELL[0] * len(columns) + 170.0),
        height=_CELL[1] * len(lines) + 110.0,
        draw=draw,
    )


def _means(
    rows: Sequence[Row], metric: str, keys: tuple[str, str]
) -> tuple[dict[tuple[Any, Any], float], str]:
    cells: dict[tuple[Any, Any], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        value = value_of(row, metric)
        if not math.isnan(value):
            unit = ("" if "dataset" in keys else str(row["dataset"]), int(row["draw"]))
            cells[row[keys[0]], row[keys[1]]][unit] = value
    shared = set.intersection(*map(set, cells.values())) if cells else set()
    datasets, draws = len({unit[0] for unit in shared}), len({unit[1] for unit in shared})
    told = f"Mean over {counted(draws, 'draw')}"
    if "dataset" not in keys:
        told += f" and {counted(datasets, 'data set')}"
    if not shared:
        return {}, "The cells share no data set and draw."
    return {
        cell: float(np.mean([values[unit] for unit in sorted(shared)]))
        for cell, values in cells.items()
    }, f"{told}."


def _shade(
    value: float, values: Sequence[float], column: MetricColumn
) -> tuple[float, float, float] | None:
    from matplotlib import colormaps

    if math.isnan(value):
        return None
    low, high = min(values), max(values)
    place = (value - low) / (high - low) if high > low else 0.5
    red, green, blue, _ = colormaps["cividis"](place if column.higher_is_better else 1 - place)
    return float(red), float(green), float(blue)


def _ordered(values: Sequence[Any]) -> list[Any]:
    distinct = list(dict.fromkeys(values))
    numbers = all(isinstance(value, int | float) for value in distinct)
    return sorted(distinct) if numbers else distinct


def _check(rows: Sequence[Row], keys: tuple[str, str]) -> None:
    if not rows or any(key not in row for row in rows for key in keys):
        raise InputError(f"Expected rows that have {' and '.join(f'`{key}`' for key in keys)}.")
    for key in ("score", "shots"):
        found = sorted({str(row[key]) for row in rows})
        if len(found) > 1 and key not in keys:
            raise InputError(f"Expected rows of one {key.rstrip('s')}, but got {', '.join(found)}.")
