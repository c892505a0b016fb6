"""Figures of curves: metrics by shots, and risk by coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.bar_figures import modality_labels
from trustvlm.benchmark.captions import (
    capitalised,
    figure_words,
    mean_words,
)
from trustvlm.benchmark.drawing import MARKERS, Drawing
from trustvlm.benchmark.draws import Spread
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, axis_words, unit_words
from trustvlm.benchmark.panels import Curve, Panel, small_multiples
from trustvlm.benchmark.table import slug
from trustvlm.report.accepting import Acceptance

__all__ = ["leading_scores", "risk_coverage_figure", "shots_figure"]


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
    known = modality_labels(analysis.results.scores, analysis.results.reference)
    return list(dict.fromkeys([*known, *analysis.ordered(metric)]))[: min(limit, len(MARKERS))]


def shots_figure(
    analysis: Analysis, metric: str, scores: Sequence[str], *, by_dataset: bool = False
) -> Drawing:
    """Draw a metric against the number of shots, with its spread over the draws as a band.

    One panel of means over the data sets, or one panel for each data set.
    """
    results, column = analysis.results, METRIC_COLUMNS[metric]

    def curves(dataset: str) -> dict[str, Curve]:
        return {
            score: _curve(
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
        caption=f"{capitalised(unit_words(column))}, against the number of shots per class, on a "
        "logarithmic axis. Band: one standard deviation over the draws to each side. "
        f"{figure_words(analysis, every_shot=True)}"
        f"{'' if by_dataset else ' ' + mean_words(analysis, metric)}",
        x_label="shots per class",
        y_label=axis_words(column),
        highlight=results.reference,
        ticks={math.log2(max(shots, 0.5)): str(shots) for shots in results.shots},
        markers=True,
    )


def risk_coverage_figure(analysis: Analysis, scores: Sequence[str]) -> Drawing:
    """Risk-coverage curves of a few scores, one panel for each data set with samples."""
    panels = []
    for dataset in analysis.results.datasets:
        samples = analysis.results.samples_of(dataset)
        curves = {}
        for score in scores:
            if score in samples and len(np.asarray(samples[score][1])):
                coverage, risk = Acceptance.of(*samples[score]).curve(80)
                curves[score] = Curve(100 * coverage, 100 * risk)
        if curves:
            panels.append(Panel(dataset, curves, _ceiling(curves)))
    return small_multiples(
        panels,
        name="risk-coverage",
        title="Risk by coverage",
        caption="Share wrong among the accepted images against the share accepted, most trusted "
        f"first; lower is better. {figure_words(analysis, draw=0)} Where few images are accepted "
        "the curves jump and may leave the frame; each panel has its own scale.",
        x_label="accepted images (%)",
        y_label="wrong among the accepted (%)",
        highlight=analysis.results.reference,
    )


def _curve(x: Sequence[float], found: Sequence[Spread], scale: float) -> Curve:
    return Curve(
        np.array(x),
        scale * np.array([point.mean for point in found]),
        scale * np.array([point.sd for point in found]),
    )


def _ceiling(curves: dict[str, Curve]) -> float:
    # The first few images make a curve jump: the axis fits what holds from a tenth of them on.
    highest = max(float(curve.y[curve.x >= 10].max(initial=0.0)) for curve in curves.values())
    return min(100.0, 1.15 * highest) if highest > 0 else 1.0
