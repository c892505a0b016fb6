"""Which encoder verifies which model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trustvlm.benchmark.arrays import ArraySet
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.matrix import matrix_table
from trustvlm.benchmark.matrix_figures import encoder_figure
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.results import Row, Setting
from trustvlm.benchmark.studies.measured import measured_rows
from trustvlm.benchmark.studies.study import Plan, Study
from trustvlm.benchmark.table import slug
from trustvlm.exceptions import InputError

__all__ = ["ENCODERS"]

_SCORES = ("trustvlm", "trustvlm_star")


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    if any(material.setting):
        return measured_rows(material, plan, _SCORES, [plan.largest])
    # Arrays do not name their models, but may hold the model's own space besides the features.
    return [
        row
        for vision, seen in (("features", material), ("image_embeddings", _by_itself(material)))
        for row in measured_rows(
            replace(seen, setting=Setting("the arrays' model", vision)),
            plan,
            _SCORES,
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


def _lacks(material: Material, plan: Plan) -> str:
    del plan
    if not any(material.setting) and material.support.image_embeddings is None:
        return "the arrays have no `image_embeddings`, and hence one encoder alone"
    return ""


def _show(rows: Sequence[Row], plan: Plan) -> Section:
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
    measure=_measure,
    show=_show,
    lacks=_lacks,
    across=True,
    of_the_grid=True,
)
