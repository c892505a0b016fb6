"""Curves: one panel, or one for each data set with the same lines in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.plots.figure import DASHES, INK, MARKERS, MUTED, SERIES, Figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from trustvlm.tables.table import Spread

_COLUMNS = 3
_ALONE, _WIDE, _ROW, _BELOW = (420, 300), 720, 190, 34
# Of the titles of panels: size, room for a line, and what a second line takes.
_TITLE, _TITLE_ROOM, _TITLE_LINE = 12, 190, 15


@dataclass(frozen=True)
class Curve:
    """A line.

    Attributes
    ----------
    x, y
        `(k,)`; NaN where there is nothing to draw.
    low, high
        `(k,)` ends of a pale band behind it; None for none.
    style
        How Matplotlib draws it, for what is no series with a colour of its own.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    style: Mapping[str, Any] | None = None

    @classmethod
    def of_spreads(cls, x: Sequence[float], spreads: Sequence[Spread], scale: float = 1) -> Curve:
        """Draw means, with a band of one standard deviation to each side.

        Examples
        --------
        >>> from trustvlm.tables.table import Spread
        >>> curve = Curve.of_spreads([16], [Spread(0.5, 0.25, 5)], 100)
        >>> curve.y, curve.low, curve.high
        (array([50.]), array([25.]), array([75.]))
        """
        mean = scale * np.array([spread.mean for spread in spreads])
        half = np.nan_to_num(scale * np.array([spread.sd for spread in spreads]))
        return cls(np.array(x, dtype=np.float64), mean, mean - half, mean + half)


@dataclass(frozen=True)
class Panel:
    """Curves by label under a title; `ends` are those of both axes, which then begin at zero."""

    title: str
    curves: Mapping[str, Curve]
    ends: tuple[float, float] | None = None


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
    notes: str = "",
    marked: float | None = None,
    zero: bool = False,
) -> Figure:
    """Draw panels of curves; a label has the same colour, dash and marker in every panel.

    Parameters
    ----------
    panels
        At least one; a single one is drawn larger, without its title.
    name, title, caption, banner, notes
        As of `Figure`.
    x_label, y_label
        Written once.
    highlight
        The label that is drawn boldest and on top.
    ticks
        Positions on the x axis and what stands there; chosen by Matplotlib otherwise.
    markers
        Whether the points of the curves are marked.
    marked
        Position on the x axis that has a vertical line in every panel.
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
    curves = {label: curve for panel in panels for label, curve in panel.curves.items()}
    series = [label for label, curve in curves.items() if curve.style is None]
    if not panels or not 1 <= len(series) <= len(SERIES):
        raise InputError(
            f"Expected panels of 1 to {len(SERIES)} curves, "
            f"but got {len(panels)} panels of {len(series)}."
        )
    styles = {
        label: curve.style or _style(series.index(label), own=label == highlight, marker=markers)
        for label, curve in curves.items()
    }
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    alone = len(panels) == 1
    titles = {panel.title: wrap(panel.title, _TITLE_ROOM, _TITLE)[:2] for panel in panels}
    deepest = max(map(len, titles.values()))

    def draw(body: FigureBase) -> Sequence[Any]:
        from matplotlib.lines import Line2D

        grid = body.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, panel, styles)
            if not alone:
                axes.set_title("\n".join(titles[panel.title]), fontsize=_TITLE, loc="left")
            if marked is not None:
                axes.axvline(marked, color=MUTED, linestyle=":", linewidth=2, zorder=1)
            if zero:
                axes.axhline(0, color=INK, linewidth=1, zorder=2)
            if ticks is not None:
                axes.set_xticks(list(ticks), list(ticks.values()))
            axes.tick_params(labelsize=13 if alone else 11)
        body.supxlabel(x_label, fontsize=13)
        body.supylabel(y_label, fontsize=13)
        return [Line2D([], [], **style) for style in styles.values()]

    return Figure(
        name,
        title,
        caption,
        width=_ALONE[0] if alone else _WIDE * columns / _COLUMNS,
        height=_ALONE[1] if alone else rows * (_ROW + (deepest - 1) * _TITLE_LINE) + _BELOW,
        draw=draw,
        labels=tuple(styles),
        banner=banner,
        notes=notes,
    )


def _style(rank: int, *, own: bool, marker: bool) -> Mapping[str, Any]:
    return {
        "color": SERIES[rank],
        "linestyle": "-" if own else DASHES[rank],
        "linewidth": 2.6 if own else 1.4,
        "marker": MARKERS[rank] if marker else None,
        "markersize": 5,
        "zorder": 4 if own else 3,
    }


def _draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, Mapping[str, Any]]) -> None:
    for label, curve in panel.curves.items():
        axes.plot(curve.x, curve.y, **styles[label])
        if curve.low is not None and curve.high is not None:
            axes.fill_between(
                curve.x,
                curve.low,
                curve.high,
                color=styles[label]["color"],
                # Two bands on each other stay paler than any line, and text on both readable.
                alpha=0.16,
                linewidth=0,
                zorder=1,
            )
    if all(np.isnan(curve.y).all() for curve in panel.curves.values()):
        axes.text(0.5, 0.5, "undefined", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
    if panel.ends is not None:
        axes.set_xlim(0, panel.ends[0])
        axes.set_ylim(0, panel.ends[1])
