"""Studies that compare a few scores: evidence, shots, encoders, corrections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trustvlm.benchmark.analysis import CoverageGain, coverage_gains
from trustvlm.benchmark.captions import basis_words
from trustvlm.benchmark.dataset import ArraySet
from trustvlm.benchmark.encoded import Material
from trustvlm.benchmark.figures import modality_figure, modality_labels, shots_figure
from trustvlm.benchmark.heat_maps import encoder_figure, matrix_table
from trustvlm.benchmark.outputs import Section
from trustvlm.benchmark.results import Row, Setting
from trustvlm.benchmark.score_tables import metric_table, shots_table
from trustvlm.benchmark.statistics import spread
from trustvlm.benchmark.studies.study import Plan, Study, analysis_of, measured_rows, prepared
from trustvlm.exceptions import InputError
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import Cell, Head, Line, Table, signed, slug

# What TrustVLM* gains in accuracy over TrustVLM, and over the text alone, at equal coverage.

COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))
_TABLED = (1.0, 0.9, 0.8, 0.5)
_STAR, _OTHERS = "trustvlm_star", ("trustvlm", "msp")
_RESAMPLES = 2000


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    rows = []
    others = plan.usable(_OTHERS, material)
    for draw in range(plan.draws):
        known = material.support.shots(material.draws[plan.largest, draw])
        computes = prepared(material, [_STAR, *others], known)
        for test in material.tests:
            evidence = test.about(known)
            results = {score: compute(evidence) for score, compute in computes.items()}
            samples = {s: (r.confidence, r.prediction == test.labels) for s, r in results.items()}
            for other in others:
                # Other draws show the spread over shots, which no bootstrap over images does.
                resamples = 1 if draw else _RESAMPLES
                about = {
                    "dataset": test.name,
                    "score": _STAR,
                    "other": other,
                    "shots": plan.largest,
                    "draw": draw,
                    "n": len(test),
                }
                gains = coverage_gains(
                    samples[_STAR], samples[other], COVERAGES, n_resamples=resamples
                )
                rows += [
                    {**about, **_values(found, bounded=not draw), **material.about}
                    for found in gains
                ]
    return rows


def _values(found: CoverageGain, *, bounded: bool) -> dict[str, Any]:
    return {
        "coverage": found.coverage,
        "accuracy": found.accuracy,
        "other_accuracy": found.other_accuracy,
        "gain": found.gain,
        "low": found.low if bounded else None,
        "high": found.high if bounded else None,
    }


def _show(rows: Sequence[Row], plan: Plan) -> Section:
    others = list(dict.fromkeys(str(row["other"]) for row in rows))
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in rows))

    def curve(dataset: str, other: str) -> Curve:
        spreads = [spread(_gains(rows, dataset, other, coverage)) for coverage in COVERAGES]
        return Curve.of_spreads([100 * coverage for coverage in COVERAGES], spreads, 100)

    drawing = small_multiples(
        [Panel(d, {f"over {other}": curve(d, other) for other in others}) for d in datasets],
        name="gain-at-equal-coverage",
        title=f"Accuracy gained by {_STAR} at equal coverage",
        caption=f"Share right among the accepted under {_STAR}, less that under another score when "
        "it accepts as many images, its most trusted; in percentage points, above zero is a gain. "
        f"{basis_words(rows, plan.convention)} Means over the draws; band: one standard deviation "
        "to each side.",
        x_label="accepted images (%)",
        y_label="accuracy gained (points)",
        highlight="over trustvlm",
        zero=True,
    )
    return Section(
        GAIN.name,
        GAIN.title,
        GAIN.question,
        drawings=(drawing,),
        tables=tuple(_table(rows, other, plan) for other in others),
    )


def _table(rows: Sequence[Row], other: str, plan: Plan) -> Table:
    found = [row for row in rows if row["other"] == other]
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in found))
    first = {(row["dataset"], row["coverage"]): row for row in found if not row["draw"]}
    return Table(
        name=f"gain-{other.replace('_', '-')}",
        title=f"Accuracy gained by {_STAR} over {other} at equal coverage",
        caption=f"Share right among the accepted under {_STAR}, less that under {other}, in "
        "percentage points, when both accept the same share of the images, their most trusted. In "
        f"brackets the 95 % interval of each difference alone (paired bootstrap over images, "
        f"{_RESAMPLES:,} resamples). {basis_words(first.values(), plan.convention)}",
        heads=(
            Head("Data set"),
            *(Head(f"{100 * c:g} % accepted", "points", falling=True) for c in _TABLED),
        ),
        lines=tuple(
            Line(dataset, tuple(_cell(first[dataset, c]) for c in _TABLED)) for dataset in datasets
        ),
    )


def _cell(row: Row) -> Cell:
    gain, low, high = (100 * float(row[key]) for key in ("gain", "low", "high"))
    return Cell(signed(gain), f"[{signed(low)}, {signed(high)}]", value=gain)


def _gains(rows: Sequence[Row], dataset: str, other: str, coverage: float) -> list[float]:
    return [
        float(row["gain"])
        for row in rows
        if (row["dataset"], row["other"]) == (dataset, other)
        and math.isclose(row["coverage"], coverage)
    ]


GAIN = Study(
    name="gain",
    title="What correcting labels gains at equal coverage",
    question=f"{_STAR} may correct the label that the text gave. How much more is right among the "
    "accepted images, when as many are accepted.",
    measure=_measure,
    show=_show,
    needed=("trustvlm", _STAR),
    varied={"coverages": COVERAGES, "resamples": _RESAMPLES},
)


# Text only, image only, or both: what each look at an image is worth.

_MODALITY_SCORES = ("msp", "image_similarity", "trustvlm", "trustvlm_star")


def _measure_modalities(material: Material, plan: Plan) -> list[dict[str, Any]]:
    return measured_rows(material, plan, _MODALITY_SCORES, [plan.largest])


def _show_modalities(rows: Sequence[Row], plan: Plan) -> Section:
    analysis = analysis_of(rows, plan, list(dict.fromkeys((plan.metric, "auroc", "accuracy"))))
    labels = modality_labels(analysis.results.scores)
    return Section(
        MODALITIES.name,
        MODALITIES.title,
        MODALITIES.question,
        drawings=(modality_figure(analysis, plan.metric, labels),),
        tables=(metric_table(analysis, plan.metric),),
        folded=tuple(metric_table(analysis, m) for m in analysis.metrics if m != plan.metric),
    )


MODALITIES = Study(
    name="modalities",
    title="Text only, image only, both",
    question="What the second look in image space adds to the text, and what it is worth alone.",
    measure=_measure_modalities,
    show=_show_modalities,
    of_the_grid=True,
    needed=("msp", "image_similarity", "trustvlm"),
)


# How many shots it takes, and how much depends on which images are drawn.

# As many as there are colours; the first are those of every other figure.
_SHOTS_SCORES = (
    *("msp", "image_similarity", "trustvlm", "trustvlm_star"),
    *("prototype_posterior", "knn", "tip_adapter", "gda"),
)


def _measure_shots(material: Material, plan: Plan) -> list[dict[str, Any]]:
    return measured_rows(material, plan, _SHOTS_SCORES, plan.shots)


def _show_shots(rows: Sequence[Row], plan: Plan) -> Section:
    analysis = analysis_of(rows, plan, list(dict.fromkeys((plan.metric, "auroc", "accuracy"))))
    scores = analysis.results.scores
    drawings = [shots_figure(analysis, plan.metric, scores)]
    if len(analysis.results.datasets) > 1:
        drawings.append(shots_figure(analysis, plan.metric, scores, by_dataset=True))
    return Section(
        SHOTS.name,
        SHOTS.title,
        SHOTS.question,
        drawings=tuple(drawings),
        tables=(shots_table(analysis, plan.metric),),
        folded=tuple(shots_table(analysis, m) for m in analysis.metrics if m != plan.metric),
    )


def _shots_lack(material: Material, plan: Plan) -> str:
    del material
    return "" if len(plan.shots) > 1 else "it has one number of shots"


SHOTS = Study(
    name="shots",
    title="How many shots it takes",
    question="What more examples per class buy, and how far the choice of the examples matters: "
    "the band is the spread over draws. Scores of the logits alone do not depend on the shots.",
    measure=_measure_shots,
    show=_show_shots,
    lacks=_shots_lack,
    of_the_grid=True,
)


# Which encoder verifies which model.

_ENCODERS_SCORES = ("trustvlm", "trustvlm_star")


def _measure_encoders(material: Material, plan: Plan) -> list[dict[str, Any]]:
    if any(material.setting):
        return measured_rows(material, plan, _ENCODERS_SCORES, [plan.largest])
    # Arrays do not name their models, but may hold the model's own space besides the features.
    return [
        row
        for vision, seen in (("features", material), ("image_embeddings", _by_itself(material)))
        for row in measured_rows(
            replace(seen, setting=Setting("the arrays' model", vision)),
            plan,
            _ENCODERS_SCORES,
            [plan.largest],
        )
    ]


def _by_itself(material: Material) -> Material:
    """Let the model's own image tower verify it."""
    return replace(
        material,
        support=_in_own_space(material.support),
        tests=tuple(_in_own_space(test) for test in material.tests),
    )


def _in_own_space(images: ArraySet) -> ArraySet:
    if images.image_embeddings is None:
        raise InputError(
            f"Expected {images.name} to have `image_embeddings` like the other sets, but got none."
        )
    return replace(images, features=images.image_embeddings)


def _encoders_lack(material: Material, plan: Plan) -> str:
    del plan
    if not any(material.setting) and material.support.image_embeddings is None:
        return "the arrays have no `image_embeddings`, and hence one encoder alone"
    return ""


def _show_encoders(rows: Sequence[Row], plan: Plan) -> Section:
    column = METRIC_COLUMNS[plan.metric]
    by_score = {
        score: [
            {**row, "pair": f"{row['vlm']} verified by {row['vision']}"}
            for row in rows
            if row["score"] == score
        ]
        for score in dict.fromkeys(row["score"] for row in rows)
    }
    return Section(
        ENCODERS.name,
        ENCODERS.title,
        ENCODERS.question,
        drawings=tuple(
            encoder_figure(found, plan.metric, convention=plan.convention)
            for found in by_score.values()
        ),
        tables=tuple(
            matrix_table(
                found,
                plan.metric,
                keys=("pair", "dataset"),
                words=("models", "data set"),
                name=f"encoders-{slug(plan.metric)}-{slug(score)}",
                title=f"{column.title} of {score} by models",
                convention=plan.convention,
            )
            for score, found in by_score.items()
        ),
    )


ENCODERS = Study(
    name="encoders",
    title="Which encoder verifies which model",
    question="The model that predicts need not be the one that verifies: its own image tower, or "
    "another encoder.",
    measure=_measure_encoders,
    show=_show_encoders,
    lacks=_encoders_lack,
    across=True,
    of_the_grid=True,
)
