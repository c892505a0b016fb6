"""The texts of figures: what is written, what would be cut, what lies on something else."""

from __future__ import annotations

import warnings
from itertools import combinations
from xml.etree import ElementTree

from matplotlib.axes import Axes
from matplotlib.text import Text

from trustvlm.plots.figure import Figure, _style


def words(svg: str) -> list[str]:
    """Every text of an SVG, line by line."""
    tags = ElementTree.fromstring(svg).iter()
    return ["".join(e.itertext()) for e in tags if e.tag.rpartition("}")[2] == "text"]


def boxes(figure: Figure):
    """The figure's own box, and those of its texts as they are drawn."""
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        drawn = figure._drawn()
        drawn.draw_without_rendering()
        texts = [t for t in drawn.findobj(Text) if t.get_visible() and t.get_text().strip()]
        # Ticks outside of the limits have labels that are never drawn.
        undrawn = {label for axes in drawn.findobj(Axes) for label in _undrawn(axes)}
        return drawn.bbox, [(t, t.get_window_extent()) for t in texts if t not in undrawn]


def _undrawn(axes) -> list[Text]:
    texts = []
    for axis in (axes.xaxis, axes.yaxis):
        drawn = axis._update_ticks() if axes.axison else []
        for tick in (*axis.majorTicks, *axis.minorTicks):
            texts += [] if tick in drawn else [tick.label1, tick.label2]
    return texts


def cut(figure: Figure) -> list[str]:
    """Texts that reach out of the figure."""
    whole, texts = boxes(figure)
    return [
        text.get_text()
        for text, box in texts
        if min(box.x0, box.y0) < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of level texts that lie on each other by more than two pixels."""
    _, texts = boxes(figure)
    level = [(text, box) for text, box in texts if not text.get_rotation() % 90]
    return [
        (a.get_text(), b.get_text())
        for (a, one), (b, other) in combinations(level, 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 2
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 2
    ]
