"""A threshold for each predicted class, certified for all classes at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array
from trustvlm.risk_control.certify import DEFAULT_METHOD, Certificate, certify
from trustvlm.risk_control.tests import check_fraction
from trustvlm.scores.arrays import as_labels
from trustvlm.text import join_names, short_percent


@dataclass(frozen=True)
class ClassCertificates:
    """One certificate for each class that may be predicted.

    Attributes
    ----------
    certificates
        C of them, by class index: among the accepted labels of each class, the share of wrong ones
        is at most `risk`. NaN thresholds where a class is never accepted.
    risk
        What was asked for.
    confidence_level
        With this probability it holds for all classes at once, or for each, as `simultaneous` says.
    simultaneous
        Whether the classes share the remaining probability.
    """

    certificates: tuple[Certificate, ...]
    risk: float
    confidence_level: float
    simultaneous: bool

    @property
    def certified(self) -> bool:
        """Whether any class has a threshold."""
        return any(c.certified for c in self.certificates)

    @property
    def n(self) -> int:
        """Images of the calibration set."""
        return sum(c.n for c in self.certificates)

    @property
    def accepted(self) -> int:
        """How many of them are accepted."""
        return sum(c.accepted for c in self.certificates)

    @property
    def errors(self) -> int:
        """How many of the accepted are wrong."""
        return sum(c.errors for c in self.certificates)

    @property
    def coverage(self) -> float:
        """Share of the calibration set that is accepted; 0 without images."""
        return self.accepted / self.n if self.n else 0.0

    def thresholds(self, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` the threshold that each new verdict has to reach; NaN where there is none."""
        by_class = np.array([c.threshold for c in self.certificates], dtype=np.float64)
        chosen: NDArray[np.float64] = by_class[prediction]
        return chosen

    def statement(self) -> str:
        """Say it in words."""
        total = len(self.certificates)
        have = sum(c.certified for c in self.certificates)
        predicted = sum(c.n > 0 for c in self.certificates)
        if not have:
            needed = min((c.n_needed for c in self.certificates if c.n), default=math.inf)
            more = (
                f"; the class that is nearest would need about {needed:.0f} more labelled images "
                "of its own"
                if math.isfinite(needed)
                else ""
            )
            return (
                f"none: {self.n} labelled images certify a risk of {short_percent(self.risk)} for "
                f"no class{more}"
            )
        scope = "for all classes at once" if self.simultaneous else "for each class"
        return (
            f"{have} of {total} classes have a threshold ({total - predicted} are never predicted "
            f"on the calibration images); with {short_percent(self.confidence_level)} confidence, "
            f"{scope}, at most {self._risks()} of the accepted labels of a class are "
            f"wrong; together {short_percent(self.coverage)} of images like these are accepted"
        )

    def _risks(self) -> str:
        others = sorted({c.risk for c in self.certificates} - {self.risk})
        own = f" (of some classes {join_names([short_percent(r) for r in others])})"
        return short_percent(self.risk) + (own if others else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": "risk_per_class",
            "certified": self.certified,
            "risk": self.risk,
            "confidence_level": self.confidence_level,
            "simultaneous": self.simultaneous,
            "classes": [certificate.to_dict() for certificate in self.certificates],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ClassCertificates:
        """Restore what `to_dict` gave."""
        return cls(
            tuple(Certificate.from_dict(one) for one in stored["classes"]),
            stored["risk"],
            stored["confidence_level"],
            stored["simultaneous"],
        )


def certify_per_class(
    confidence: ArrayLike,
    correct: ArrayLike,
    prediction: ArrayLike,
    n_classes: int,
    risk: float = 0.05,
    confidence_level: float = 0.95,
    *,
    simultaneous: bool = True,
    method: str = DEFAULT_METHOD,
    eligible: ArrayLike | None = None,
    class_risks: Mapping[int, float] | None = None,
) -> ClassCertificates:
    """Certify a threshold for the images of each predicted class.

    Parameters
    ----------
    confidence, correct, risk, confidence_level, method, eligible
        As in `certify`, with the same assumption.
    prediction
        `(n,)` predicted class indices in [0, n_classes).
    simultaneous
        With True, the risk holds for all classes at once with probability `confidence_level`: each
        of the K classes that are predicted at all is tested at 1 - (1 - confidence) / K. With
        False, it holds for each class taken alone, and of many classes some will exceed it.
    class_risks
        Risks of their own of some classes, by index; `risk` is that of the others.

    Raises
    ------
    InputError
        For predictions or classes out of range, or what `certify` refuses.

    Notes
    -----
    Given the predictions, the images of each predicted class are independent draws of it; the
    classes share the level by Bonferroni.

    Examples
    --------
    >>> confidence = np.tile(np.linspace(1, 0, 500), 2)
    >>> prediction = np.repeat([0, 1], 500)
    >>> correct = confidence > 0.3 * prediction
    >>> per_class = certify_per_class(confidence, correct, prediction, 3)
    >>> per_class.thresholds(np.array([0, 1, 2])).round(2)
    array([0. , 0.3, nan])
    """
    check_fraction(confidence_level, "confidence_level")
    score = confidence_array(confidence)
    right = correctness_array(correct, len(score))
    labels = as_labels(prediction, "prediction", n_classes=n_classes, n=len(score))
    chance = np.ones(len(score), dtype=bool) if eligible is None else np.asarray(eligible)
    shared = max(1, len(np.unique(labels))) if simultaneous else 1
    level = 1 - (1 - confidence_level) / shared
    risks = np.full(n_classes, risk)
    for label, of_class in (class_risks or {}).items():
        if not 0 <= label < n_classes:
            raise InputError(f"Expected classes below {n_classes}, but got a risk of {label}.")
        risks[label] = of_class
    certificates = []
    for label in range(n_classes):
        own = labels == label
        certificates.append(
            certify(
                score[own],
                right[own],
                float(risks[label]),
                level,
                method=method,
                eligible=chance[own],
            )
        )
    return ClassCertificates(tuple(certificates), risk, confidence_level, simultaneous)
