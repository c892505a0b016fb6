"""Text only, image only, or both: what each look at an image is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trustvlm.benchmark.bar_figures import modality_figure, modality_labels
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.results import Row
from trustvlm.benchmark.score_tables import metric_table
from trustvlm.benchmark.studies.measured import analysis_of, measured_rows
from trustvlm.benchmark.studies.study import Plan, Study

__all__ = ["MODALITIES"]

_SCORES = ("msp", "image_similarity", "trustvlm", "trustvlm_star")


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    return measured_rows(material, plan, _SCORES, [plan.largest])


def _show(rows: Sequence[Row], plan: Plan) -> Section:
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
    measure=_measure,
    show=_show,
    of_the_grid=True,
    needed=("msp", "image_similarity", "trustvlm"),
)
