"""Studies that compare a few scores: what they look at, encoders, settings, corrected labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trustvlm.benchmark.analysis import coverage_gains
from trustvlm.benchmark.captions import describe_basis
from trustvlm.benchmark.dataset import ArraySet, EncodedDataset
from trustvlm.benchmark.figures import modality_figure, modality_labels
from trustvlm.benchmark.heat_maps import heat_map, matrix, matrix_table
from trustvlm.benchmark.results import Row, Setting
from trustvlm.benchmark.score_tables import metric_table
from trustvlm.benchmark.statistics import NOTHING, spreads_by
from trustvlm.benchmark.studies.study import (
    ComparisonStudy,
    ReportSection,
    Study,
    StudySettings,
    metrics_of,
    prepared_scores,
)
from trustvlm.exceptions import InputError
from trustvlm.pipeline.select import TEMPERATURES, WEIGHTS
from trustvlm.plots.figure import Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.scores import get
from trustvlm.scores.evidence import compare
from trustvlm.scores.prototype_scores import sweep_comparison
from trustvlm.tables.metrics import METRIC_COLUMNS, describe_unit, label_axis, number
from trustvlm.tables.table import Cell, Head, Line, Table, signed, slug
from trustvlm.text import counted

# Text only, image only, or both: what each look at an image is worth.


class ModalitiesStudy(ComparisonStudy):
    """A metric of the scores that read text only, images only, and both."""

    name = "modalities"
    title = "Text only, image only, both"
    question = "What the second look in image space adds to the text, and what it is worth alone."
    scores = ("msp", "image_similarity", "trustvlm", "trustvlm_star")
    needed = ("msp", "image_similarity", "trustvlm")

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Draw bars on each data set."""
        analysis, metric = self.analyse(rows, settings), settings.metric
        return self.section(
            [modality_figure(analysis, metric, modality_labels(analysis.results.scores))],
            [metric_table(analysis, metric)],
            [metric_table(analysis, other) for other in analysis.metrics if other != metric],
        )


# Which encoder verifies which model.


class EncodersStudy(ComparisonStudy):
    """A metric by the model that predicts and the encoder that verifies."""

    name = "encoders"
    title = "Which encoder verifies which model"
    question = (
        "The model that predicts need not be the one that verifies: its own image tower, or "
        "another encoder."
    )
    scores = ("trustvlm", "trustvlm_star")
    across = True

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Measure the scores, for arrays with both of the encoders that they may hold."""
        if any(encoded.setting):
            return super().measure(encoded, settings)
        # Arrays do not name their models, but may hold the model's own space besides the features.
        by_itself = replace(
            encoded,
            support=_in_own_space(encoded.support),
            tests=tuple(map(_in_own_space, encoded.tests)),
        )
        return [
            row
            for vision, arrays in (("features", encoded), ("image_embeddings", by_itself))
            for row in super(EncodersStudy, self).measure(
                replace(arrays, setting=Setting("the arrays' model", vision)), settings
            )
        ]

    def lacks(self, encoded: EncodedDataset, settings: StudySettings) -> str:
        """Say whether arrays are of one encoder only."""
        del settings
        if any(encoded.setting) or encoded.support.image_embeddings is not None:
            return ""
        return "the arrays have no `image_embeddings`, and hence one encoder alone"

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Show a heat map and a table for each score."""
        column = METRIC_COLUMNS[settings.metric]
        by_score = defaultdict(list)
        # What else differs besides the pair of models is said with the model that predicts.
        apart = [key for key in ("protocol", "prompt") if len({row.get(key) for row in rows}) > 1]
        for row in rows:
            said = [f"{key} {row.get(key) or 'of its own'}" for key in apart]
            vlm = ", ".join([str(row["vlm"]), *said])
            pair = f"{vlm} verified by {row['vision']}"
            by_score[row["score"]].append({**row, "vlm": vlm, "pair": pair})
        return self.section(
            [
                heat_map(
                    of_score,
                    settings.metric,
                    keys=("vlm", "vision"),
                    words=("predicting model", "verifying encoder"),
                    name=f"encoders-{slug(settings.metric)}-{slug(score)}",
                    title=f"{column.title} by model and encoder",
                    convention=settings.convention,
                )
                for score, of_score in by_score.items()
            ],
            [
                matrix_table(
                    of_score,
                    settings.metric,
                    keys=("pair", "dataset"),
                    words=("models", "data set"),
                    name=f"encoders-{slug(settings.metric)}-{slug(score)}",
                    title=f"{column.title} of {score} by models",
                    convention=settings.convention,
                )
                for score, of_score in by_score.items()
            ],
        )

    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say which pairs of models have the best and the worst mean of the plain score."""
        plain = [row for row in rows if row["score"] == self.scores[0]]
        column = METRIC_COLUMNS[settings.metric]
        cells = {
            pair: column.scale * cell.mean
            for pair, cell in matrix(plain, settings.metric, ("vlm", "vision")).cells.items()
        }
        if len(cells) < 2:
            return ""
        ranked = sorted(cells, key=lambda pair: cells[pair], reverse=column.higher_is_better)
        best, worst = (
            f"{number(cells[pair], 1)} for {pair[0]} verified by {pair[1]}"
            for pair in (ranked[0], ranked[-1])
        )
        return f"{describe_unit(column)}, of {self.scores[0]}: from {best} to {worst}."


def _in_own_space(images: ArraySet) -> ArraySet:
    """Let the model's own image tower verify it."""
    if images.image_embeddings is None:
        raise InputError(
            f"Expected {images.name} to have `image_embeddings` like the other sets, but got none."
        )
    return replace(images, features=images.image_embeddings)


# How much the weight and the temperature matter, shown on test images: not a way to choose.

BANNER = "TEST images: shows how settings matter, never how to choose"
_CAUTION = "These are test images: a setting that is chosen here is chosen on test data."
_INSTEAD = "To choose one, use the preset loo or validation, which never see them."


class SensitivityStudy(Study):
    """A metric by weight and temperature: the candidates of the presets that select."""

    name = "sensitivity"
    title = "How much weight and temperature matter (TEST images: not a way to choose them)"
    question = "How far results depend on the weight of the visual term and on the temperature."
    scores = ("trustvlm", "trustvlm_star")
    needed = scores
    varied = {"weight": WEIGHTS, "temperature": TEMPERATURES}  # noqa: RUF012 -- as of `Study`

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Measure both variants under every setting, with one comparison for all of them."""
        rows = []
        for draw in range(settings.draws):
            shots = encoded.support.shots(encoded.draws[settings.largest, draw])
            for test in encoded.tests:
                comparison = compare(test.about(shots))
                for score in self.scores:
                    swept = sweep_comparison(score, comparison, WEIGHTS, TEMPERATURES)
                    rows += [
                        {
                            "dataset": test.name,
                            "score": score,
                            "weight": weight,
                            "temperature": temperature,
                            "shots": settings.largest,
                            "draw": draw,
                            **metrics_of(result, test, settings.convention),
                            **encoded.about,
                        }
                        for (weight, temperature), result in swept
                    ]
        return rows

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Show heat maps and curves that say, within themselves, that they are of test images."""
        metric, column = settings.metric, METRIC_COLUMNS[settings.metric]
        plain, star = ([row for row in rows if row["score"] == score] for score in self.scores)
        defaults = get("trustvlm_star").parameters
        common: dict[str, Any] = {"convention": settings.convention, "caution": _CAUTION}
        figure = heat_map(
            star,
            metric,
            keys=("weight", "temperature"),
            words=("weight r of the visual term", "temperature T of the prototypes"),
            name=f"sensitivity-{slug(metric)}",
            title=f"{column.title} by weight and temperature",
            framed=(defaults["weight"], defaults["temperature"]),
            banner=BANNER,
            convention=settings.convention,
        )
        star_table = matrix_table(
            star,
            metric,
            keys=("weight", "temperature"),
            words=("weight r", "temperature T"),
            name=f"sensitivity-{slug(metric)}",
            title=f"{column.title} of trustvlm_star by weight and temperature, on TEST images",
            **common,
        )
        plain_table = matrix_table(
            plain,
            metric,
            keys=("dataset", "weight"),
            words=("data set", "weight r"),
            name=f"sensitivity-weight-{slug(metric)}",
            title=f"{column.title} of trustvlm by weight, on TEST images",
            **common,
        )
        return self.section(
            [figure, _weight_figure(rows, settings)],
            folded=[star_table, plain_table],
            note=f"{_CAUTION} {_INSTEAD}",
        )

    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say how far settings move the corrected score, and what the default has."""
        star = [row for row in rows if row["score"] == self.scores[1]]
        column, defaults = METRIC_COLUMNS[settings.metric], get(self.scores[1]).parameters
        cells = matrix(star, settings.metric, ("weight", "temperature")).cells
        values = {key: column.scale * cell.mean for key, cell in cells.items()}
        own = values.get((defaults["weight"], defaults["temperature"]), math.nan)
        if not values:
            return ""
        return (
            f"{describe_unit(column)}, of {self.scores[1]} on these test images: "
            f"{number(min(values.values()), 1)} to {number(max(values.values()), 1)} over "
            f"{len(values)} settings, {number(own, 1)} with the default."
        )


def _weight_figure(rows: Sequence[Row], settings: StudySettings) -> Figure:
    """Both variants against the weight, on each data set; the default is a line."""
    metric, column = settings.metric, METRIC_COLUMNS[settings.metric]
    defaults = get("trustvlm_star").parameters
    shown = [row for row in rows if row["temperature"] in (None, defaults["temperature"])]
    weights = sorted({row["weight"] for row in shown})
    spreads = spreads_by(shown, metric, "dataset", "score", "weight")

    def curve(dataset: str, score: str) -> Curve:
        of_score = [spreads.get((dataset, score, weight), NOTHING) for weight in weights]
        return Curve.of_spreads(range(len(weights)), of_score, column.scale)

    return small_multiples(
        [
            Panel(dataset, {s: curve(dataset, s) for s in dict.fromkeys(r["score"] for r in shown)})
            for dataset in dict.fromkeys(str(row["dataset"]) for row in shown)
        ],
        name=f"sensitivity-weight-{slug(metric)}",
        title=f"{column.title} by weight, on TEST images",
        caption=f"{BANNER}. {describe_unit(column)}, against the weight r of the visual term; "
        f"dotted: the default, r = {defaults['weight']:g}. Band: one SD over the draws.",
        notes=f"trustvlm_star at T = {defaults['temperature']:g}; nothing was tuned for the "
        f"default; r = 0 is MSP. {describe_basis(shown, settings.convention)}",
        x_label="weight r of the visual term",
        y_label=label_axis(column),
        highlight="trustvlm",
        ticks={float(rank): f"{weight:g}" for rank, weight in enumerate(weights)},
        markers=True,
        banner=BANNER,
        marked=float(weights.index(defaults["weight"])),
    )


# What TrustVLM* gains in accuracy over TrustVLM, and over the text alone, at equal coverage.

COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))
_IN_TABLE, _SAID = (1.0, 0.9, 0.8, 0.5), 0.8
_STAR = "trustvlm_star"
_RESAMPLES = 2000


class GainStudy(Study):
    """Accuracy among the accepted, less that under another score at the same coverage."""

    name = "gain"
    title = "What correcting labels gains at equal coverage"
    question = (
        f"{_STAR} may correct the label that the text gave. How much more is right among the "
        "accepted images, when as many are accepted."
    )
    # What the corrected labels are compared with.
    scores = ("trustvlm", "msp")
    needed = ("trustvlm", _STAR)
    varied = {"coverages": COVERAGES, "resamples": _RESAMPLES}  # noqa: RUF012 -- as of `Study`

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Compare at every coverage; draw 0 has intervals of the paired bootstrap over images."""
        rows = []
        others = settings.usable(self.scores, encoded)
        for draw in range(settings.draws):
            shots = encoded.support.shots(encoded.draws[settings.largest, draw])
            computes = prepared_scores(encoded, [_STAR, *others], shots)
            for test in encoded.tests:
                evidence = test.about(shots)
                results = {score: compute(evidence) for score, compute in computes.items()}
                samples = {
                    s: (r.confidence, r.prediction == test.labels) for s, r in results.items()
                }
                for other in others:
                    # Other draws show the spread over shots, which no bootstrap over images does.
                    n_resamples = 1 if draw else _RESAMPLES
                    gains = coverage_gains(
                        samples[_STAR], samples[other], COVERAGES, n_resamples=n_resamples
                    )
                    rows += [
                        {
                            "dataset": test.name,
                            "score": _STAR,
                            "other": other,
                            "shots": settings.largest,
                            "draw": draw,
                            "n": len(test),
                            "coverage": gain.coverage,
                            "accuracy": gain.accuracy,
                            "other_accuracy": gain.other_accuracy,
                            "gain": gain.gain,
                            "low": None if draw else gain.low,
                            "high": None if draw else gain.high,
                            **encoded.about,
                        }
                        for gain in gains
                    ]
        return rows

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Draw the gain against the coverage on each data set."""
        others = list(dict.fromkeys(str(row["other"]) for row in rows))
        datasets = list(dict.fromkeys(str(row["dataset"]) for row in rows))
        gains = spreads_by(rows, "gain", "dataset", "other", "coverage")

        def curve(dataset: str, other: str) -> Curve:
            of_pair = [gains.get((dataset, other, coverage), NOTHING) for coverage in COVERAGES]
            return Curve.of_spreads([100 * coverage for coverage in COVERAGES], of_pair, 100)

        figure = small_multiples(
            [Panel(d, {f"over {other}": curve(d, other) for other in others}) for d in datasets],
            name="gain-at-equal-coverage",
            title=f"Accuracy gained by {_STAR} at equal coverage",
            caption=f"Share right among the accepted under {_STAR}, less that under another score "
            "at the same coverage, in percentage points. Means over the draws; band: one standard "
            "deviation to each side.",
            notes=describe_basis(rows, settings.convention),
            x_label="accepted images (%)",
            y_label="accuracy gained (points)",
            highlight="over trustvlm",
            zero=True,
        )
        return self.section([figure], [_gain_table(rows, other, settings) for other in others])

    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say on how many test sets correcting gains or loses at a coverage of the table."""
        del settings
        first = [
            row
            for row in rows
            if (row["other"], row["coverage"], row["draw"]) == (self.scores[0], _SAID, 0)
        ]
        if not first:
            return ""
        gained = sum(row["low"] is not None and row["low"] > 0 for row in first)
        lost = sum(row["high"] is not None and row["high"] < 0 for row in first)
        mean = 100 * sum(float(row["gain"]) for row in first) / len(first)
        return (
            f"With {100 * _SAID:g} % accepted, {_STAR} has {signed(mean, 1)} points more right "
            f"than {self.scores[0]}, mean over {counted(len(first), 'test set')}; significantly "
            f"more on {gained}, fewer on {lost} (each interval alone, draw 0)."
        )


def _gain_table(rows: Sequence[Row], other: str, settings: StudySettings) -> Table:
    first = {
        (row["dataset"], row["coverage"]): row
        for row in rows
        if row["other"] == other and not row["draw"]
    }
    return Table(
        name=f"gain-{other.replace('_', '-')}",
        title=f"Accuracy gained by {_STAR} over {other} at equal coverage",
        caption=f"Share right among the accepted under {_STAR}, less that under {other} at the "
        "same coverage, in percentage points; in brackets the 95 % interval of each difference.",
        notes=f"Each score accepts its most trusted images. Intervals are of each difference alone "
        f"(paired bootstrap over images, {_RESAMPLES:,} resamples). "
        f"{describe_basis(first.values(), settings.convention)}",
        heads=(
            Head("Data set"),
            *(Head(f"{100 * c:g} % accepted", "points", falling=True) for c in _IN_TABLE),
        ),
        lines=tuple(
            Line(dataset, tuple(_gain_cell(first[dataset, c]) for c in _IN_TABLE))
            for dataset in dict.fromkeys(dataset for dataset, _ in first)
        ),
    )


def _gain_cell(row: Row) -> Cell:
    gain, low, high = (100 * float(row[key]) for key in ("gain", "low", "high"))
    return Cell(signed(gain), f"[{signed(low)}, {signed(high)}]", value=gain)
