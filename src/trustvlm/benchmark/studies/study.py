"""A study: one question, what is measured to answer it, and the figures and tables that do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.measuring import usable_scores
from trustvlm.benchmark.results import Row
from trustvlm.scores import names

__all__ = ["Plan", "Study", "nothing_lacks"]


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
