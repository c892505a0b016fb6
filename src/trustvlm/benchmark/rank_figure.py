"""The critical-difference diagram: which scores can be told apart by their average ranks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import figure_words, friedman_words
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.ranks import RankComparison
from trustvlm.benchmark.table import slug
from trustvlm.benchmark.theme import Palette
from trustvlm.exceptions import InputError
from trustvlm.report.wording import counted, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["rank_figure"]

# In CSS pixels: the figure, the axis in it, and the distances of what hangs below it.
_WIDTH, _LEFT, _RIGHT = 640, 200, 440
_AXIS, _GROUP, _LABEL = 62, 7, 19


def rank_figure(analysis: Analysis, metric: str) -> Drawing:
    """Draw average ranks over the data sets; bars join scores that cannot be told apart.

    Raises
    ------
    InputError
        Below two scores or two data sets.

    Notes
    -----
    Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", figure 1.
    """
    ranks, column = analysis.ranks[metric], METRIC_COLUMNS[metric]
    if math.isnan(ranks.critical_difference):
        raise InputError(
            "Expected at least 2 scores and 2 data sets with values, "
            f"but got {len(ranks.scores)} and {len(ranks.datasets)}."
        )
    bars = _stacked(ranks)
    top = _AXIS + 14 + _GROUP * (1 + max((level for _, _, level in bars), default=0))
    half = -(-len(ranks.scores) // 2)
    height = top + half * _LABEL + 14

    def draw(figure: Figure, palette: Palette) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, _WIDTH)
        axes.set_ylim(height, 0)
        _scale(axes, ranks, palette)
        for low, high, level in bars:
            y = _AXIS + 12 + _GROUP * level
            axes.plot(
                [_x(low, ranks) - 3, _x(high, ranks) + 3],
                [y, y],
                color=palette.ink,
                linewidth=3,
                solid_capstyle="butt",
            )
        order = sorted(ranks.scores, key=lambda score: (ranks.rank_of(score), score))
        for place, score in enumerate(order):
            left = place < half
            y = top + _LABEL * (place if left else len(order) - 1 - place)
            own = score == analysis.results.reference
            _leader(axes, score, ranks, y, palette, left=left, own=own)

    return Drawing(
        name=f"ranks-{slug(metric)}",
        title=f"Average ranks by {column.title}",
        caption=f"Average rank by {column.title} over {counted(len(ranks.datasets), 'data set')}, "
        f"1 is best, of means over draws. {figure_words(analysis)} {friedman_words(ranks)} A bar "
        "joins scores whose ranks differ by less than the critical difference, CD. Data sets are "
        "taken to be independent of one another.",
        width=_WIDTH,
        height=height,
        draw=draw,
    )


def _x(rank: float, ranks: RankComparison) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (rank - 1) / max(1, len(ranks.scores) - 1)


def _stacked(ranks: RankComparison) -> list[tuple[float, float, int]]:
    """Return the ends of each group's bar, and the lowest level at which it touches no other."""
    bars: list[tuple[float, float, int]] = []
    for group in ranks.groups():
        low, high = ranks.rank_of(group[0]), ranks.rank_of(group[-1])
        taken = {level for _, end, level in bars if end >= low}
        level = next(level for level in range(len(bars) + 1) if level not in taken)
        bars.append((low, high, level))
    return bars


def _scale(axes: Axes, ranks: RankComparison, palette: Palette) -> None:
    k = len(ranks.scores)
    axes.plot([_LEFT, _RIGHT], [_AXIS, _AXIS], color=palette.ink, linewidth=1)
    step = max(1, round(k / 8))
    for rank in range(1, k + 1):
        x, shown = _x(rank, ranks), (rank - 1) % step == 0
        axes.plot([x, x], [_AXIS, _AXIS - (7 if shown else 4)], color=palette.ink, linewidth=1)
        if shown:
            axes.text(x, _AXIS - 10, str(rank), ha="center", va="bottom", fontsize=12)
    # As long as the critical difference, or cut where it is longer than the axis.
    length = min(ranks.critical_difference, k - 1)
    ends = [_LEFT, _x(1 + length, ranks)]
    axes.plot(ends, [16, 16], color=palette.ink, linewidth=1.5)
    for end in ends:
        axes.plot([end, end], [12, 20], color=palette.ink, linewidth=1.5)
    over = ", longer than the axis" if ranks.critical_difference > length else ""
    words = f"CD {ranks.critical_difference:.2f}{over}"
    axes.text(ends[1] + 8, 16, words, ha="left", va="center", fontsize=12)


def _leader(
    axes: Axes,
    score: str,
    ranks: RankComparison,
    y: float,
    palette: Palette,
    *,
    left: bool,
    own: bool,
) -> None:
    x, edge = _x(ranks.rank_of(score), ranks), _LEFT - 18 if left else _RIGHT + 18
    axes.plot(
        [x, x, edge],
        [_AXIS, y, y],
        color=palette.series[0] if own else palette.muted,
        linewidth=2 if own else 1,
        zorder=3 if own else 2,
    )
    number = f"{ranks.rank_of(score):.2f}"
    name = shortened(score, 22)
    axes.text(
        edge + (-6 if left else 6),
        y,
        f"{name}  {number}" if left else f"{number}  {name}",
        ha="right" if left else "left",
        va="center",
        fontsize=12.5,
        fontweight="bold" if own else "normal",
    )
