"""A heat map of means by two settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.benchmark.basis import basis_words
from trustvlm.benchmark.captions import capitalised
from trustvlm.benchmark.drawing import BANNER_HEIGHT, Drawing, write_banner
from trustvlm.benchmark.matrix import NOTHING, Matrix, matrix, plainly
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, unit_words
from trustvlm.benchmark.results import Row
from trustvlm.benchmark.table import UNDEFINED
from trustvlm.benchmark.theme import Palette, ink_on
from trustvlm.exceptions import InputError
from trustvlm.report.columns import MetricColumn
from trustvlm.report.wording import shortened

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
    of: str = "",
    banner: str = "",
    shade_columns: bool = False,
    convention: str = "exact",
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
    column, found = METRIC_COLUMNS[metric], matrix(rows, metric, keys)
    _check(rows, keys, of)
    caption = [
        f"{banner}." if banner else "",
        f"{capitalised(unit_words(column))}, of {of or rows[0]['score']}: {words[0]} (lines) by "
        f"{words[1]} (columns).",
        basis_words(rows, convention),
        "Means over the draws" + ("." if "dataset" in keys else " and data sets."),
        found.told,
        "Lighter is better" + (" within a column." if shade_columns else "."),
        "The frame marks the default, which nothing was tuned for." if framed else "",
    ]

    def draw(figure: Figure, palette: Palette) -> None:
        from matplotlib.patches import Rectangle

        write_banner(figure, palette, banner)
        axes = figure.subplots()
        axes.set_xlim(0, len(found.columns))
        axes.set_ylim(len(found.lines), 0)
        for y, one in enumerate(found.lines):
            for x, other in enumerate(found.columns):
                value = found.cells.get((one, other), NOTHING).mean
                colour = _shade(value, _compared(found, other if shade_columns else None), column)
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
        xs, ys = (np.arange(len(found.columns)) + 0.5, np.arange(len(found.lines)) + 0.5)
        axes.set_xticks(xs, [shortened(plainly(c), 22) for c in found.columns])
        axes.set_yticks(ys, [shortened(plainly(c), 22) for c in found.lines])
        headline = (of or str(rows[0]["score"])).partition(",")[0]
        axes.set_title(shortened(headline, 40), fontsize=12.5, loc="left")
        if max(len(plainly(c)) for c in found.columns) > 7:
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
        caption=" ".join(filter(None, caption)),
        width=max(320.0, _CELL[0] * len(found.columns) + 170.0),
        # A single line has to leave room for the name of its axis.
        height=max(_CELL[1] * len(found.lines), 100.0) + 130.0 + (BANNER_HEIGHT if banner else 0),
        draw=draw,
    )


def _compared(found: Matrix, column: Any | None) -> list[float]:
    return [cell.mean for key, cell in found.cells.items() if column is None or key[1] == column]


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


def _check(rows: Sequence[Row], keys: tuple[str, str], of: str) -> None:
    for key in ("score", "shots"):
        found = sorted({str(row[key]) for row in rows})
        if len(found) > 1 and key not in keys and not of:
            raise InputError(f"Expected rows of one {key.rstrip('s')}, but got {', '.join(found)}.")
