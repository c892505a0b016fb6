"""Several labellers of the same images, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from trustvlm.pipeline.verdict import Verdicts
from trustvlm.serialization import nan_to_null


@dataclass(frozen=True)
class LabellerFacts:
    """What the verdicts on the labels of one labeller come to.

    Attributes
    ----------
    labels
        Images that it labelled and that can be read.
    judged
        Those whose label is a class and is not that of an example.
    accepted
        Share of the labels that is accepted.
    estimated_right
        Estimated share right of the judged ones: the mean P(correct) of a calibrated model, else
        what the log-odds of the score say; NaN where there are neither. No guarantee goes with it.
    """

    labels: int
    judged: int
    accepted: float
    estimated_right: float


@dataclass(frozen=True)
class Agreement:
    """How often two labellers give an image the same label, of `images` that both labelled."""

    one: str
    other: str
    images: int
    same: float


@dataclass(frozen=True)
class LabellerComparison:
    """Verdicts on the labels of several labellers.

    Attributes
    ----------
    by_labeller
        The verdicts on the labels of each, as of `TrustVLM.verify`.
    log_odds
        Whether their confidences are log-odds.
    """

    by_labeller: Mapping[str, Verdicts]
    log_odds: bool

    @property
    def verdicts(self) -> Verdicts:
        """All verdicts with the name of the `labeller` of each, one labeller after the other."""
        return Verdicts(
            replace(verdict, labeller=name)
            for name, verdicts in self.by_labeller.items()
            for verdict in verdicts
        )

    @property
    def facts(self) -> dict[str, LabellerFacts]:
        """What the verdicts on each come to."""
        return {name: self._facts(verdicts) for name, verdicts in self.by_labeller.items()}

    def _facts(self, verdicts: Verdicts) -> LabellerFacts:
        readable = [verdict for verdict in verdicts if verdict.decision != "error"]
        judged = [verdict for verdict in readable if not math.isnan(verdict.confidence)]
        accepted = sum(verdict.decision == "accept" for verdict in readable)
        p = np.array([verdict.p_correct for verdict in judged])
        if np.isnan(p).all() and self.log_odds:
            confidence = np.array([verdict.confidence for verdict in judged])
            p = 1.0 / (1.0 + np.exp(-np.clip(confidence, -500, 500)))
        return LabellerFacts(
            labels=len(readable),
            judged=len(judged),
            accepted=accepted / len(readable) if readable else math.nan,
            estimated_right=float(p.mean()) if len(p) else math.nan,
        )

    @property
    def agreements(self) -> list[Agreement]:
        """How often each pair of labellers agrees."""
        labels = {
            name: {v.path: v.label for v in verdicts if v.decision != "error"}
            for name, verdicts in self.by_labeller.items()
        }
        pairs = []
        for one, other in combinations(labels, 2):
            both = labels[one].keys() & labels[other].keys()
            same = sum(labels[one][path] == labels[other][path] for path in both)
            pairs.append(Agreement(one, other, len(both), same / len(both) if both else math.nan))
        return pairs

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        comparison: dict[str, Any] = nan_to_null(
            {
                "labellers": {name: vars(facts) for name, facts in self.facts.items()},
                "agreements": [vars(pair) for pair in self.agreements],
            }
        )
        return comparison
