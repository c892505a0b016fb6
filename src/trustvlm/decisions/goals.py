"""What the user wants of the decisions: a risk, a risk for each class, a coverage, or low costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions.certify import certify
from trustvlm.decisions.costs import cheapest
from trustvlm.decisions.coverage_goal import certify_coverage
from trustvlm.decisions.methods import DEFAULT_METHOD
from trustvlm.decisions.per_class import certify_per_class
from trustvlm.decisions.rules import Rule
from trustvlm.exceptions import InputError

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """One of four goals; the risk is the default one.

    Attributes
    ----------
    risk
        At most this share of what is accepted may be wrong.
    confidence_level
        Probability with which what is promised holds, over the draw of the calibration set.
    per_class
        Whether the risk is to hold for the accepted labels of every class, all at once.
    min_coverage
        Instead of a risk: accept at least this share of new images, at the smallest risk.
    cost_error, cost_review
        Instead of a risk: prices of a wrong label that is accepted, and of a review.
    method
        Of `METHODS`, where a risk is wanted.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 300)
    >>> rule = Goal(min_coverage=0.5).rule(confidence, confidence > 0.2, np.zeros(300, int), 1)
    >>> round(rule.coverage, 2)
    0.55
    """

    risk: float = 0.05
    confidence_level: float = 0.95
    per_class: bool = False
    min_coverage: float | None = None
    cost_error: float | None = None
    cost_review: float | None = None
    method: str = DEFAULT_METHOD

    def check(self) -> Goal:
        """Raise `InputError` unless this is one goal that makes sense; return it."""
        if (self.cost_error is None) != (self.cost_review is None):
            raise InputError("Expected both `cost_error` and `cost_review`, or neither.")
        chosen = {
            "per_class": self.per_class,
            "min_coverage": self.min_coverage is not None,
            "cost_error": self.cost_error is not None,
        }
        several = [name for name, wanted in chosen.items() if wanted]
        if len(several) > 1:
            raise InputError(f"Expected one goal, but got {' and '.join(several)}: choose one.")
        self.rule(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64), 1)
        return self

    def rule(
        self,
        confidence: NDArray[np.float64],
        correct: NDArray[np.bool_],
        prediction: NDArray[np.int64],
        n_classes: int,
        eligible: NDArray[np.bool_] | None = None,
    ) -> Rule:
        """Find the rule on a calibration set, as the function for each goal does."""
        level = self.confidence_level
        if self.min_coverage is not None:
            return certify_coverage(
                confidence, correct, self.min_coverage, level, eligible=eligible
            )
        if self.cost_error is not None and self.cost_review is not None:
            prices = self.cost_error, self.cost_review
            return cheapest(confidence, correct, *prices, level, eligible=eligible)
        if self.per_class:
            return certify_per_class(
                confidence,
                correct,
                prediction,
                n_classes,
                self.risk,
                level,
                method=self.method,
                eligible=eligible,
            )
        return certify(confidence, correct, self.risk, level, method=self.method, eligible=eligible)
