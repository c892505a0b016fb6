"""How many shots it takes, and how much depends on which images are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.curve_figures import shots_figure
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.results import Row
from trustvlm.benchmark.score_tables import shots_table
from trustvlm.benchmark.studies.measured import analysis_of, measured_rows
from trustvlm.benchmark.studies.study import Plan, Study

__all__ = ["SHOTS"]

# As many as there are colours; the first are those of every other figure.
_SCORES = (
    *("msp", "image_similarity", "trustvlm", "trustvlm_star"),
    *("prototype_posterior", "knn", "tip_adapter", "gda"),
)


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    return measured_rows(material, plan, _SCORES, plan.shots)


def _show(rows: Sequence[Row], plan: Plan) -> Section:
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


def _lacks(material: Material, plan: Plan) -> str:
    del material
    return "" if len(plan.shots) > 1 else "it has one number of shots"


SHOTS = Study(
    name="shots",
    title="How many shots it takes",
    question="What more examples per class buy, and how far the choice of the examples matters: "
    "the band is the spread over draws. Scores of the logits alone do not depend on the shots.",
    measure=_measure,
    show=_show,
    lacks=_lacks,
    of_the_grid=True,
)
