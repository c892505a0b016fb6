"""Figures of a study: bars, curves and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm import metrics
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import (
    describe_mean,
    describe_ranks,
    describe_results,
    describe_units_of_ranks,
)
from trustvlm.benchmark.results import Samples
from trustvlm.benchmark.statistics import LEVEL, RankComparison
from trustvlm.exceptions import InputError
from trustvlm.plots.figure import INK, MARKERS, MUTED, SERIES, Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.plots.risk_coverage import risk_coverage_panel
from trustvlm.report.page import perfect_curve
from trustvlm.report.summary import Acceptance
from trustvlm.tables.metrics import METRIC_COLUMNS, describe_unit, label_axis, number
from trustvlm.tables.table import UNDEFINED, slug
from trustvlm.text import counted, join_names, percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


# Figures that set a few scores side by side on each data set.

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


def modality_figure(analysis: Analysis, metric: str, labels: Mapping[str, str]) -> Figure:
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

    def draw(body: FigureBase) -> list[Any]:
        axes = body.subplots()
        handles = []
        for rank, score in enumerate(labels):
            spreads = [analysis.spread(metric, dataset, score) for dataset in datasets]
            means = column.scale * np.array([spread.mean for spread in spreads])
            sds = column.scale * np.nan_to_num([spread.sd for spread in spreads])
            at = np.arange(len(datasets)) * group + rank * _BAR
            handles.append(
                axes.barh(
                    at,
                    means,
                    height=_BAR * 0.88,
                    color=SERIES[rank],
                    xerr=sds,
                    error_kw={"ecolor": INK, "elinewidth": 1},
                )
            )
            for y, mean, end in zip(at, means, np.nan_to_num(means + sds), strict=True):
                # Small values make bars that cannot be seen; the numbers can.
                words = number(float(mean), 1, undefined=UNDEFINED)
                axes.annotate(
                    words, (end, y), (4, 0), textcoords="offset points", va="center", fontsize=9
                )
        axes.margins(x=0.08)
        _rows(axes, datasets, group, group / 2 - _GAP / 2 - _BAR / 2)
        axes.set_xlabel(label_axis(column))
        return handles

    return Figure(
        name=f"modalities-{slug(metric)}",
        title=f"Text only, image only, both: {column.title}",
        caption=f"{describe_unit(column)}. Bars are means over the draws, whiskers one standard "
        "deviation to each side.",
        notes=describe_results(analysis),
        width=width,
        height=len(datasets) * group + 60,
        draw=draw,
        labels=tuple(labels.values()),
    )


def equal_coverage_figure(
    analysis: Analysis, scores: Sequence[str], coverages: Sequence[float] = (1.0, 0.8, 0.5)
) -> Figure:
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

    def draw(body: FigureBase) -> list[Any]:
        grid = body.subplots(1, len(coverages), sharey=True, squeeze=False)[0]
        for panel, (axes, coverage) in enumerate(zip(grid, coverages, strict=True)):
            _rows(axes, datasets, step, 0)
            axes.set_title(f"{percent(coverage, 0)} accepted", fontsize=12, loc="left")
            handles = [
                axes.plot(
                    [100 * accuracy.get((d, score), nothing)[panel] for d in datasets],
                    np.arange(len(datasets)) * step,
                    linestyle="none",
                    marker=MARKERS[rank],
                    markersize=6.5,
                    color=SERIES[rank],
                    alpha=0.9,
                )[0]
                for rank, score in enumerate(scores)
            ]
            for y, dataset in enumerate(datasets):
                values = [100 * accuracy.get((dataset, score), nothing)[panel] for score in scores]
                ends = np.nanmin(values), np.nanmax(values)
                axes.hlines(y * step, *ends, color=MUTED, zorder=1)
        body.supxlabel("right among the accepted (%)", fontsize=13)
        return handles

    return Figure(
        name="equal-coverage",
        title="Accuracy at equal coverage",
        caption="Share right among the accepted images when every score accepts the same share, "
        "its most trusted.",
        notes=f"{describe_results(analysis, draw=0)} No test is made here: intervals are in the "
        "tables.",
        width=width,
        height=len(datasets) * step + 80,
        draw=draw,
        labels=tuple(scores),
    )


def _rows(axes: Axes, datasets: Sequence[str], step: float, middle: float) -> None:
    axes.set_yticks(np.arange(len(datasets)) * step + middle, [shortened(d, 36) for d in datasets])
    axes.tick_params(axis="y", length=0, labelsize=12)
    axes.set_ylim(len(datasets) * step - step / 2 + middle, -step / 2 + middle)
    axes.grid(visible=False, axis="y")


def _check(scores: Sequence[str] | Mapping[str, str]) -> None:
    if not 1 <= len(scores) <= len(MARKERS):
        raise InputError(f"Expected 1 to {len(MARKERS)} scores, but got {len(scores)}.")


# Figures of curves: metrics by shots, and risk by coverage.


def leading_scores(analysis: Analysis, metric: str, limit: int = 6) -> list[str]:
    """Return what is worth drawing: text only, image only, both, and the best by average rank.

    The first ones come in the order of `modality_labels`, so that they have one colour in all
    figures.

    Examples
    --------
    >>> from trustvlm.benchmark import analysis, results
    >>> rows = [
    ...     {"dataset": "pets", "score": name, "shots": 16, "draw": 0, "aurc": 0.1}
    ...     for name in ("msp", "knn", "trustvlm")
    ... ]
    >>> leading_scores(analysis.analyse(results.Results(rows), ["aurc"]), "aurc", 2)
    ['msp', 'trustvlm']
    """
    first = modality_labels(analysis.results.scores, analysis.results.reference)
    return list(dict.fromkeys([*first, *analysis.ordered(metric)]))[: min(limit, len(MARKERS))]


def shots_figure(
    analysis: Analysis, metric: str, scores: Sequence[str], *, by_dataset: bool = False
) -> Figure:
    """Draw a metric against the number of shots, with its spread over the draws as a band.

    One panel of means over the data sets, or one panel for each data set.
    """
    results, column = analysis.results, METRIC_COLUMNS[metric]

    def curves(dataset: str) -> dict[str, Curve]:
        return {
            score: Curve.of_spreads(
                [math.log2(max(shots, 0.5)) for shots in results.shots],
                [
                    analysis.spread(metric, dataset, score, shots)
                    if dataset
                    else analysis.mean(metric, score, shots)
                    for shots in results.shots
                ],
                column.scale,
            )
            for score in scores
        }

    datasets = results.datasets if by_dataset else ("",)
    return small_multiples(
        [Panel(dataset, curves(dataset)) for dataset in datasets],
        name=f"shots-{slug(metric)}{'-by-dataset' if by_dataset else ''}",
        title=f"{column.title} by shots{', each data set' if by_dataset else ''}",
        caption=f"{describe_unit(column)}, against the number of shots per class, on "
        "a logarithmic axis. Band: one standard deviation over the draws to each side.",
        notes=f"{describe_results(analysis, every_shot=True)}"
        f"{'' if by_dataset else ' ' + describe_mean(analysis, metric)}",
        x_label="shots per class",
        y_label=label_axis(column),
        highlight=results.reference,
        ticks={math.log2(max(shots, 0.5)): str(shots) for shots in results.shots},
        markers=True,
    )


# Resamples of each band, and how many curves have one: more would hide each other.
_RESAMPLES, _BANDS = 200, 2


def risk_coverage_figure(analysis: Analysis, scores: Sequence[str]) -> Figure:
    """Risk-coverage curves of a few scores, one panel for each data set with samples.

    Each panel has the oracle of the reference's labels, and bands of the reference and of the first
    of the other scores by average rank; the legend has the mean of AURC over the panels.
    """
    results, reference = analysis.results, analysis.results.reference
    metric = "aurc" if "aurc" in analysis.metrics else analysis.metrics[0]
    first = [s for s in analysis.ordered(metric) if s in scores and s != reference]
    banded = [*(s for s in scores if s == reference), *first][:_BANDS]
    by_set: dict[str, dict[str, Samples]] = {}
    for dataset in results.datasets:
        every = results.samples_of(dataset)
        if shown := {s: every[s] for s in scores if s in every and len(np.asarray(every[s][1]))}:
            by_set[dataset] = shown

    # Whose labels the perfect orders have: those of the reference, as far as it was measured.
    labelled = {d: reference if reference in of else next(iter(of)) for d, of in by_set.items()}
    perfect = {d: np.asarray(of[labelled[d]][1]) for d, of in by_set.items()}

    def label(name: str, samples: Mapping[str, Samples]) -> str:
        """Add the mean over data sets, each the mean of its test sets, as tables have it."""
        if len(samples) < len(by_set):
            return name  # not to be compared with means over all of them
        areas: dict[str, list[float]] = {}
        for dataset, sample in samples.items():
            areas.setdefault(results.set_of(dataset), []).append(metrics.aurc(*sample))
        return f"{name}: AURC {1000 * float(np.mean([np.mean(of) for of in areas.values()])):.0f}"

    labels = {s: label(s, {d: of[s] for d, of in by_set.items() if s in of}) for s in scores}
    oracle = label("oracle", {dataset: (right, right) for dataset, right in perfect.items()})
    panels = []
    for dataset, of_set in by_set.items():
        curves = {labels[s]: Acceptance.of(*sample).curve(80) for s, sample in of_set.items()}
        bands = {}
        for score in (s for s in banded if s in of_set):
            coverage, _ = curves[labels[score]]
            band = metrics.risk_band(*of_set[score], coverage, n_resamples=_RESAMPLES)
            bands[labels[score]] = (band.low, band.high)
        ideal = perfect_curve(float(perfect[dataset].mean()), np.arange(1, 101) / 100)
        panels.append(risk_coverage_panel(dataset, curves, bands=bands, ideal=ideal, oracle=oracle))
    whose = join_names(list(dict.fromkeys(labelled.values())))
    mean = "mean over data sets, " if len(panels) > 1 else ""
    return small_multiples(
        panels,
        name="risk-coverage",
        title="Risk by coverage",
        caption="Share wrong among the accepted images against the share accepted; lower is "
        f"better. AURC: {mean}×1000. Pale: {100 * LEVEL:g} % bands over images of "
        f"{join_names(banded)}. Dotted: a perfect order of the labels of {whose}.",
        notes=f"{describe_results(analysis, draw=0)} Where few images are accepted the curves jump "
        "and may leave the frame; each panel has its own scale. A band holds at each coverage by "
        "itself. Scores that may change labels have other perfect orders.",
        x_label="accepted images, most trusted first (%)",
        y_label="wrong among the accepted (%)",
        highlight=labels.get(reference, ""),
    )


# The critical-difference diagram: which scores can be distinguished by their average ranks.

# In CSS pixels: the figure, the axis in it, and the distances of what hangs below it.
_WIDTH, _LEFT, _RIGHT = 640, 200, 440
_AXIS, _GROUP, _LABEL = 62, 7, 19


def rank_figure(analysis: Analysis, metric: str) -> Figure:
    """Draw average ranks over the data sets; bars join scores that cannot be distinguished.

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
            f"but got {len(ranks.scores)} and {len(ranks.units)}."
        )
    bars = _stacked(ranks)
    top = _AXIS + 14 + _GROUP * (1 + max((level for _, _, level in bars), default=0))
    half = -(-len(ranks.scores) // 2)
    height = top + half * _LABEL + 14

    def draw(body: FigureBase) -> None:
        body.figure.set_layout_engine("none")  # type: ignore[union-attr]  # the root of it
        axes = body.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, _WIDTH)
        axes.set_ylim(height, 0)
        _scale(axes, ranks)
        for low, high, level in bars:
            y = _AXIS + 12 + _GROUP * level
            axes.plot(
                [_x(low, ranks) - 3, _x(high, ranks) + 3],
                [y, y],
                color=INK,
                linewidth=3,
                solid_capstyle="butt",
            )
        order = sorted(ranks.scores, key=lambda score: (ranks.rank_of(score), score))
        for rank, score in enumerate(order):
            left = rank < half
            y = top + _LABEL * (rank if left else len(order) - 1 - rank)
            own = score == analysis.results.reference
            _leader(axes, score, ranks, y, left=left, own=own)

    return Figure(
        name=f"ranks-{slug(metric)}",
        title=f"Average ranks by {column.title}",
        caption=f"Average rank by {column.title} over {counted(len(ranks.units), 'data set')}, 1 "
        "is best. A bar joins scores whose ranks differ by less than the critical difference, CD "
        f"(Nemenyi, {ranks.alpha:g}).",
        notes=f"Ranks of means over draws, over {describe_units_of_ranks(ranks)}. "
        f"{describe_results(analysis)} {describe_ranks(ranks)} Data sets are taken to be "
        "independent of one another.",
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


def _scale(axes: Axes, ranks: RankComparison) -> None:
    k = len(ranks.scores)
    axes.plot([_LEFT, _RIGHT], [_AXIS, _AXIS], color=INK, linewidth=1)
    step = max(1, round(k / 8))
    for rank in range(1, k + 1):
        x, shown = _x(rank, ranks), (rank - 1) % step == 0
        axes.plot([x, x], [_AXIS, _AXIS - (7 if shown else 4)], color=INK, linewidth=1)
        if shown:
            axes.text(x, _AXIS - 10, str(rank), ha="center", va="bottom", fontsize=12)
    # As long as the critical difference, or cut where it is longer than the axis.
    length = min(ranks.critical_difference, k - 1)
    ends = [_LEFT, _x(1 + length, ranks)]
    axes.plot(ends, [16, 16], color=INK, linewidth=1.5)
    for end in ends:
        axes.plot([end, end], [12, 20], color=INK, linewidth=1.5)
    over = ", longer than the axis" if ranks.critical_difference > length else ""
    words = f"CD {ranks.critical_difference:.2f}{over}"
    axes.text(ends[1] + 8, 16, words, ha="left", va="center", fontsize=12)


def _leader(
    axes: Axes,
    score: str,
    ranks: RankComparison,
    y: float,
    *,
    left: bool,
    own: bool,
) -> None:
    x, edge = _x(ranks.rank_of(score), ranks), _LEFT - 18 if left else _RIGHT + 18
    axes.plot(
        [x, x, edge],
        [_AXIS, y, y],
        color=SERIES[0] if own else MUTED,
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
