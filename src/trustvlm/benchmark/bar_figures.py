"""Figures that set a few scores side by side on each data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import capitalised, figure_words
from trustvlm.benchmark.drawing import MARKERS, Drawing, above_legend, legend_height
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, axis_words, unit_words
from trustvlm.benchmark.table import UNDEFINED, slug
from trustvlm.benchmark.theme import Palette
from trustvlm.exceptions import InputError
from trustvlm.report.accepting import Acceptance
from trustvlm.report.columns import number
from trustvlm.report.wording import percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["equal_coverage_figure", "modality_figure", "modality_labels"]

_BAR, _GAP = 11, 12


def modality_labels(scores: Sequence[str], reference: str = "trustvlm") -> dict[str, str]:
    """Return the scores that read text only, images only, and both, with what each one reads.

    Examples
    --------
    >>> modality_labels(["trustvlm", "msp", "knn"])
    {'msp': 'text only (msp)', 'trustvlm': 'both (trustvlm)'}
    """
    labels = {
        "msp": "text only (msp)",
        "image_similarity": "image only (image_similarity)",
        reference: f"both ({reference})",
        f"{reference}_star": f"both, may change labels ({reference}_star)",
    }
    return {score: label for score, label in labels.items() if score in scores}


def modality_figure(analysis: Analysis, metric: str, labels: Mapping[str, str]) -> Drawing:
    """Bars of a metric for a few scores on each data set, whiskers for the spread over draws.

    Parameters
    ----------
    analysis, metric
        What is drawn, at the largest number of shots.
    labels
        By score, what the legend calls it; at most 8.

    Raises
    ------
    InputError
        Without scores, or for too many.
    """
    _check(labels)
    datasets, column = analysis.results.datasets, METRIC_COLUMNS[metric]
    group = len(labels) * _BAR + _GAP
    width = 560.0

    def draw(figure: Figure, palette: Palette) -> None:
        upper, fill_legend = above_legend(figure, list(labels.values()))
        axes = upper.subplots()
        handles = []
        for place, score in enumerate(labels):
            found = [analysis.spread(metric, dataset, score) for dataset in datasets]
            means = column.scale * np.array([point.mean for point in found])
            spreads = column.scale * np.nan_to_num([point.sd for point in found])
            at = np.arange(len(datasets)) * group + place * _BAR
            handles.append(
                axes.barh(
                    at,
                    means,
                    height=_BAR * 0.88,
                    color=palette.series[place],
                    xerr=spreads,
                    error_kw={"ecolor": palette.ink, "elinewidth": 1},
                )
            )
            for y, mean, end in zip(at, means, np.nan_to_num(means + spreads), strict=True):
                # Small values make bars that cannot be seen; the numbers can.
                words = number(float(mean), 1, undefined=UNDEFINED)
                axes.annotate(
                    words, (end, y), (4, 0), textcoords="offset points", va="center", fontsize=9
                )
        axes.margins(x=0.08)
        _rows(axes, datasets, group, group / 2 - _GAP / 2 - _BAR / 2)
        axes.set_xlabel(axis_words(column))
        fill_legend(handles)

    return Drawing(
        name=f"modalities-{slug(metric)}",
        title=f"Text only, image only, both: {column.title}",
        caption=f"{capitalised(unit_words(column))}. {figure_words(analysis)} Bars are means over "
        "the draws, whiskers one standard deviation to each side.",
        width=width,
        height=len(datasets) * group + 60 + legend_height(width, list(labels.values())),
        draw=draw,
    )


def equal_coverage_figure(
    analysis: Analysis, scores: Sequence[str], coverages: Sequence[float] = (1.0, 0.8, 0.5)
) -> Drawing:
    """Share right among the accepted, when every score accepts the same share of the images.

    Parameters
    ----------
    analysis
        With samples.
    scores
        At most 8; those without samples on a data set are not drawn there.
    coverages
        Shares accepted, in (0, 1], one panel each.

    Raises
    ------
    InputError
        Without scores or samples, or for too many scores.
    """
    _check(scores)
    results = analysis.results
    accuracy = {
        (dataset, score): [Acceptance.of(*sample).accuracy_at(c) for c in coverages]
        for dataset in results.datasets
        for score, sample in results.samples_of(dataset).items()
        if score in scores and len(np.asarray(sample[1]))
    }
    datasets = list(dict.fromkeys(dataset for dataset, _ in accuracy))
    if not datasets:
        raise InputError(f"Expected samples of {', '.join(scores)}, but there are none.")
    nothing = [math.nan] * len(coverages)
    step, width = 22, 720.0

    def draw(figure: Figure, palette: Palette) -> None:
        upper, fill_legend = above_legend(figure, list(scores))
        grid = upper.subplots(1, len(coverages), sharey=True, squeeze=False)[0]
        for panel, (axes, coverage) in enumerate(zip(grid, coverages, strict=True)):
            _rows(axes, datasets, step, 0)
            axes.set_title(f"{percent(coverage, 0)} accepted", fontsize=12, loc="left")
            handles = [
                axes.plot(
                    [100 * accuracy.get((d, score), nothing)[panel] for d in datasets],
                    np.arange(len(datasets)) * step,
                    linestyle="none",
                    marker=MARKERS[place],
                    markersize=6.5,
                    color=palette.series[place],
                    alpha=0.9,
                )[0]
                for place, score in enumerate(scores)
            ]
            for y, dataset in enumerate(datasets):
                values = [100 * accuracy.get((dataset, score), nothing)[panel] for score in scores]
                ends = np.nanmin(values), np.nanmax(values)
                axes.hlines(y * step, *ends, color=palette.muted, zorder=1)
        upper.supxlabel("right among the accepted (%)", fontsize=13)
        fill_legend(handles)

    return Drawing(
        name="equal-coverage",
        title="Accuracy at equal coverage",
        caption="Share right among the accepted images when every score accepts the same share, "
        f"its most trusted. {figure_words(analysis, draw=0)} No test is made here: intervals are "
        "in the tables.",
        width=width,
        height=len(datasets) * step + 80 + legend_height(width, list(scores)),
        draw=draw,
    )


def _rows(axes: Axes, datasets: Sequence[str], step: float, middle: float) -> None:
    axes.set_yticks(np.arange(len(datasets)) * step + middle, [shortened(d, 28) for d in datasets])
    axes.tick_params(axis="y", length=0, labelsize=12)
    axes.set_ylim(len(datasets) * step - step / 2 + middle, -step / 2 + middle)
    axes.grid(visible=False, axis="y")


def _check(scores: Sequence[str] | Mapping[str, str]) -> None:
    if not 1 <= len(scores) <= len(MARKERS):
        raise InputError(f"Expected 1 to {len(MARKERS)} scores, but got {len(scores)}.")
