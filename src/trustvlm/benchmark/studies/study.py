"""A study: one question, what is measured to answer it, and the figures and tables that do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.dataset import ArraySet, same_classes
from trustvlm.benchmark.encoded import Material
from trustvlm.benchmark.outputs import Section
from trustvlm.benchmark.results import Results, Row, Setting
from trustvlm.benchmark.run import Measured, draw_rows, measure_draw, usable_scores
from trustvlm.scores import Evidence, PreparedScore, names, prepare


@dataclass(frozen=True)
class Plan:
    """What a study may vary, and how it measures.

    Attributes
    ----------
    shots, draws
        Numbers of shots per class, and how many draws; draw 0 is the paper's.
    convention
        Of the metrics.
    metric
        The one that figures show.
    scores
        Those that may be shown; empty allows every one.
    """

    shots: tuple[int, ...] = (16,)
    draws: int = 1
    convention: str = "exact"
    metric: str = "aurc"
    scores: tuple[str, ...] = ()

    @property
    def largest(self) -> int:
        """The most shots."""
        return max(self.shots)

    def usable(self, wanted: Sequence[str], material: Material) -> list[str]:
        """Return those of some scores that are allowed, registered, and have their evidence."""
        known = set(usable_scores(material.support))
        return [
            score
            for score in wanted
            if score in names() and score in known and (not self.scores or score in self.scores)
        ]


def nothing_lacks(material: Material, plan: Plan) -> str:
    """Any material will do."""
    del material, plan
    return ""


@dataclass(frozen=True)
class Study:
    """One question that reviewers ask of a score.

    Attributes
    ----------
    name
        What users type.
    title, question
        A heading, and what is asked.
    measure
        Rows of one data set with one pair of models; with `dataset`, `score`, `shots`, `draw`, `n`,
        the metrics as fractions, and the study's own keys.
    show
        Figures and tables of all rows that share models, or of all rows if `across`.
    lacks
        Why a material cannot answer the question; empty if it can.
    across
        Whether the question is about several pairs of models.
    of_the_grid
        Whether the cells of a grid answer it already.
    needed
        Scores without which there is nothing to show.
    varied
        What the study itself varies, for the names of its cells.
    """

    name: str
    title: str
    question: str
    measure: Callable[[Material, Plan], list[dict[str, Any]]]
    show: Callable[[Sequence[Row], Plan], Section]
    lacks: Callable[[Material, Plan], str] = nothing_lacks
    across: bool = False
    of_the_grid: bool = False
    needed: tuple[str, ...] = ("trustvlm",)
    varied: Mapping[str, Any] = field(default_factory=dict)

    def why_not(self, material: Material, plan: Plan) -> str:
        """Say why this material cannot answer the question under this plan; empty if it can."""
        usable = plan.usable(self.needed, material)
        missing = [score for score in self.needed if score not in usable]
        if missing:
            return f"the study has no score {' and no '.join(missing)}"
        return self.lacks(material, plan)


# Ordinary rows of a few scores, for studies that need nothing else.


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


# Material for studies from arrays alone: no images, no models.


def material_of(
    support: ArraySet, tests: Sequence[ArraySet], shots: Sequence[int], draws: int
) -> Material:
    """Draw shots from one set and test on others, for every study.

    Raises
    ------
    InputError
        If the sets do not fit together.
    """
    for test in tests:
        same_classes(support, test)
    return Material(
        name=support.name,
        setting=Setting(),
        support=support,
        tests=tuple(tests),
        draws={point: draw_rows(support, *point) for point in product(shots, range(draws))},
    )
