"""Figures of curves: metrics by shots or by missing classes, and risk by coverage."""

from __future__ import annotations

import math
from collections import defaultdict
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
from trustvlm.benchmark.draws import Spread, spread
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, unit_words
from trustvlm.benchmark.panels import Curve, Panel, small_multiples
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.table import slug
from trustvlm.exceptions import InputError
from trustvlm.report.accepting import Acceptance
from trustvlm.report.columns import MetricColumn

__all__ = ["leading_scores", "missing_figure", "risk_coverage_figure", "shots_figure"]


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
        y_label=_axis(column),
        highlight=results.reference,
        ticks={math.log2(max(shots, 0.5)): str(shots) for shots in results.shots},
        markers=True,
    )


def missing_figure(
    rows: Sequence[Row], metric: str, *, key: str = "missing", highlight: str = "trustvlm"
) -> Drawing:
    """Draw a metric against how many classes have no shots at all.

    Parameters
    ----------
    rows
        As of `Results`, with the share of classes without shots, in [0, 1], under `key`; at most 8
        scores. Means are over the data sets that a draw has; the band is over draws.
    metric
        Its name.
    highlight
        The score drawn boldest.

    Raises
    ------
    InputError
        If a row lacks the key.
    """
    column = METRIC_COLUMNS[metric]
    if any(key not in row for row in rows):
        raise InputError(f"Expected every row to have `{key}`.")
    shares = sorted({float(row[key]) for row in rows})
    values: dict[tuple[str, float], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row["score"], float(row[key])][row["draw"]].append(value_of(row, metric))
    curves = {
        score: _curve(
            [100 * share for share in shares],
            [
                spread([float(np.mean(v)) for v in values[score, share].values()])
                for share in shares
            ],
            column.scale,
        )
        for score in dict.fromkeys(row["score"] for row in rows)
    }
    return small_multiples(
        [Panel("", curves)],
        name=f"missing-{slug(metric)}",
        title=f"{column.title} when classes lack shots",
        caption=f"{capitalised(unit_words(column))}, against the share of classes without any "
        "shot: mean over data sets. Band: one standard deviation over the draws to each side.",
        x_label="classes without shots (%)",
        y_label=_axis(column),
        highlight=highlight,
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
                coverage, risk = Acceptance.of(*samples[score]).curve(120)
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


def _axis(column: MetricColumn) -> str:
    return f"{column.title} ({'%' if column.scale == 100 else f'×{column.scale}'})"
