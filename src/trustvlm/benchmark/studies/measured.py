"""Ordinary rows of a few scores, for studies that need nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.measuring import Measured, measure_draw
from trustvlm.benchmark.results import Results, Row
from trustvlm.benchmark.studies.study import Plan
from trustvlm.scores import Evidence, PreparedScore, prepare

__all__ = ["analysis_of", "measured_rows", "prepared"]


def measured_rows(
    material: Material, plan: Plan, wanted: Sequence[str], shots: Iterable[int]
) -> list[dict[str, Any]]:
    """Measure those of some scores that can be, at some numbers of shots and every draw."""
    scores = plan.usable(wanted, material)
    fixed: dict[tuple[str, str], Measured] = {}
    return [
        {**found.row(), **found.settings(), **material.about}
        for point in product(shots, range(plan.draws))
        for found in measure_draw(
            material.support,
            material.tests,
            scores,
            *point,
            plan.convention,
            material.tuning,
            fixed,
            material.draws[point],
        )
    ]


def prepared(
    material: Material, scores: Sequence[str], known: Evidence
) -> dict[str, PreparedScore]:
    """Let some scores learn from shots, with the settings that the study has for these shots."""
    settings = material.tuning.settings(scores, known)
    return {score: prepare(score, known, **settings[score].parameters) for score in scores}


def analysis_of(rows: Sequence[Row], plan: Plan, metrics: Sequence[str]) -> Analysis:
    """Analyse rows of one setting; without samples no test is made, and nothing is marked."""
    return analyse(Results(rows, convention=plan.convention), metrics)
