"""What happens when only the most trusted images are accepted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics

__all__ = ["Acceptance", "perfect_curve", "trusted_less"]


@dataclass(frozen=True)
class Acceptance:
    """Right and wrong among the k most trusted of n images, for every k.

    Where images are tied, any order among them is as good as another: counts are expected values
    over the orders.

    Examples
    --------
    >>> found = Acceptance.of([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    >>> found.wrong([1, 2, 3, 4])
    array([0. , 0.5, 1. , 2. ])
    >>> found.accuracy_at(0.5)
    0.75
    """

    n: int
    accepted: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, confidence: ArrayLike, correct: ArrayLike) -> Acceptance:
        """Order `(n,)` images by confidence, highest first; n >= 1."""
        curve = metrics.risk_coverage(confidence, correct)
        n = len(np.asarray(correct))
        accepted = np.asarray(curve.coverage) * n
        return cls(n, accepted, np.asarray(curve.risk) * accepted)

    def wrong(self, k: ArrayLike) -> NDArray[np.float64]:
        """Count the wrong labels to expect among the k most trusted images."""
        # Within a group of ties the expected count grows evenly, so interpolation is exact.
        accepted = np.concatenate([[0.0], self.accepted])
        errors = np.concatenate([[0.0], self.errors])
        wrong: NDArray[np.float64] = np.interp(np.asarray(k, dtype=np.float64), accepted, errors)
        return wrong

    def count_at(self, coverage: float) -> int:
        """Whole number of images nearest to a share of them, at least one."""
        return max(1, round(coverage * self.n))

    def accuracy_at(self, coverage: float) -> float:
        """Share right among the most trusted share of the images."""
        k = self.count_at(coverage)
        return float(1 - self.wrong(k) / k)

    def curve(self, points: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coverage and risk at up to `points` coverages, evenly spread, both ends included."""
        k = np.unique(np.linspace(1, self.n, points).round())
        return k / self.n, self.wrong(k) / k


def perfect_curve(
    accuracy: float, coverage: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Risk-coverage curve of an order that puts every right label before every wrong one.

    Examples
    --------
    >>> perfect_curve(0.5, np.array([0.25, 0.5, 1.0]))[1]
    array([0. , 0. , 0.5])
    """
    return coverage, np.maximum(0.0, coverage - accuracy) / coverage


def trusted_less(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n,)` for each image, the share of all images that are trusted strictly less.

    Examples
    --------
    >>> trusted_less(np.array([0.3, 0.1, 0.3, 0.9]))
    array([0.25, 0.  , 0.25, 0.75])
    """
    ordered = np.sort(confidence)
    return np.searchsorted(ordered, confidence, side="left") / max(1, len(confidence))
