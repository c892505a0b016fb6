"""Several labellers of the same images, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.pipeline.verdict import Verdicts
from trustvlm.serialization import nan_to_null


def share_right(p: NDArray[np.float64], n_classes: int) -> float:
    """Estimate which share of given labels is right, if the wrong ones are any other class.

    Parameters
    ----------
    p
        `(n,)` probability of each given label by the examples alone; n >= 1.
    n_classes
        C >= 2.

    Returns
    -------
    float
        The share r of the greatest likelihood, by expectation maximisation, where a label is the
        true class with probability r and else any of the others, all equally likely: Angluin &
        Laird 1988, "Learning from noisy examples".

    Examples
    --------
    >>> round(share_right(np.array([0.6] * 9 + [0.001]), 10), 2)
    0.9
    """
    share = 0.9
    for _ in range(200):
        right = share * p
        wrong = (1.0 - share) * (1.0 - p) / max(n_classes - 1, 1)
        share = float((right / np.maximum(right + wrong, 1e-300)).mean())
    return share


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
    supported, estimated_right
        Two estimates of the share right of the judged ones. Of a calibrated model both are the mean
        P(correct). Else the first is the mean probability by the examples alone, which is too low
        where they are few, and the second `share_right`, which is too high where wrong labels look
        right; NaN for scores that are no log-odds. No guarantee goes with either.
    """

    labels: int
    judged: int
    accepted: float
    supported: float
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
    n_classes
        Of the model.
    """

    by_labeller: Mapping[str, Verdicts]
    log_odds: bool
    n_classes: int

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
        supported = estimated = float(p.mean()) if len(p) else math.nan
        if math.isnan(supported) and len(p) and self.log_odds:
            from scipy.special import expit  # late: predicting does without it

            p = expit(np.array([verdict.confidence for verdict in judged]))
            supported, estimated = float(p.mean()), share_right(p, self.n_classes)
        return LabellerFacts(
            labels=len(readable),
            judged=len(judged),
            accepted=accepted / len(readable) if readable else math.nan,
            supported=supported,
            estimated_right=estimated,
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
