"""Small multiples of curves: one panel for each data set, the same lines in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.plots.svg import (
    BANNER_HEIGHT,
    DASHES,
    MARKERS,
    Drawing,
    Palette,
    above_legend,
    legend_height,
    write_banner,
)
from trustvlm.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_COLUMNS = 3
_ALONE, _WIDE, _ROW, _BELOW = (420, 270), 720, 190, 34


@dataclass(frozen=True)
class Curve:
    """A line, and the half width of the band around it; NaN where there is nothing to draw."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Panel:
    """Curves by label under a title; `top` ends the y axis early, where spikes would flatten it."""

    title: str
    curves: Mapping[str, Curve]
    top: float = math.nan


def small_multiples(
    panels: Sequence[Panel],
    *,
    name: str,
    title: str,
    caption: str,
    x_label: str,
    y_label: str,
    highlight: str = "",
    ticks: Mapping[float, str] | None = None,
    markers: bool = False,
    banner: str = "",
    marked: float | None = None,
    zero: bool = False,
) -> Drawing:
    """Draw panels of curves; a label has the same colour, dash and marker in every panel.

    Parameters
    ----------
    panels
        At least one; a single one is drawn larger, without its title.
    name, title, caption
        As of `Drawing`.
    x_label, y_label
        Written once.
    highlight
        The label that is drawn boldest and on top.
    ticks
        Places on the x axis and what stands there; chosen by Matplotlib otherwise.
    markers
        Whether the points of the curves are marked.
    banner
        A warning that is part of the figure, wherever that is copied to.
    marked
        Place on the x axis that has a vertical line in every panel.
    zero
        Whether every panel has a line at zero.

    Raises
    ------
    InputError
        Without panels, or with more labels than there are colours.

    Examples
    --------
    >>> curve = Curve(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    >>> labels = {"name": "n", "title": "T", "caption": "C.", "x_label": "x", "y_label": "y"}
    >>> small_multiples([Panel("pets", {"msp": curve})], **labels).svg()[:4]
    '<svg'
    """
    labels = list(dict.fromkeys(label for panel in panels for label in panel.curves))
    if not panels or not 1 <= len(labels) <= len(MARKERS):
        raise InputError(
            f"Expected panels of 1 to {len(MARKERS)} curves, "
            f"but got {len(panels)} panels of {len(labels)}."
        )
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    alone = len(panels) == 1
    width = _ALONE[0] if alone else _WIDE * columns / _COLUMNS
    body = (_ALONE[1] if alone else rows * _ROW + _BELOW) + (BANNER_HEIGHT if banner else 0)

    def draw(figure: Figure, palette: Palette) -> None:
        upper, fill_legend = above_legend(figure, labels)
        write_banner(upper, palette, banner)
        grid = upper.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.remove()
                continue
            _panel(axes, panels[place], labels, palette, highlight, markers=markers)
            if not alone:
                axes.set_title(shortened(panels[place].title, 26), fontsize=12, loc="left")
            if marked is not None:
                axes.axvline(marked, color=palette.muted, linestyle=":", linewidth=2, zorder=1)
            if zero:
                axes.axhline(0, color=palette.ink, linewidth=1, zorder=2)
            if ticks is not None:
                axes.set_xticks(list(ticks), list(ticks.values()))
            axes.tick_params(labelsize=13 if alone else 11)
        upper.supxlabel(x_label, fontsize=13)
        upper.supylabel(y_label, fontsize=13)
        fill_legend([_line(label, labels, palette, highlight, markers=markers) for label in labels])

    return Drawing(name, title, caption, width, body + legend_height(width, labels), draw)


def _panel(
    axes: Axes,
    panel: Panel,
    labels: Sequence[str],
    palette: Palette,
    highlight: str,
    *,
    markers: bool,
) -> None:
    for label, curve in panel.curves.items():
        axes.plot(curve.x, curve.y, **_style(label, labels, palette, highlight, markers=markers))
        if curve.spread is not None:
            half = np.nan_to_num(curve.spread)
            colour = palette.series[labels.index(label)]
            axes.fill_between(
                curve.x, curve.y - half, curve.y + half, color=colour, alpha=0.18, linewidth=0
            )
    if all(np.isnan(curve.y).all() for curve in panel.curves.values()):
        axes.text(0.5, 0.5, "undefined", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
    if not math.isnan(panel.top):
        axes.set_ylim(0, panel.top)


def _style(
    label: str, labels: Sequence[str], palette: Palette, highlight: str, *, markers: bool
) -> dict[str, Any]:
    rank, own = labels.index(label), label == highlight
    return {
        "color": palette.series[rank],
        "linestyle": "-" if own else DASHES[rank],
        "linewidth": 2.6 if own else 1.4,
        "marker": MARKERS[rank] if markers else None,
        "markersize": 5,
        "zorder": 4 if own else 3,
    }


def _line(
    label: str, labels: Sequence[str], palette: Palette, highlight: str, *, markers: bool
) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **_style(label, labels, palette, highlight, markers=markers))
