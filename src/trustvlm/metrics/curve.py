"""The risk-coverage curve: how many errors are among what is accepted, at every threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.ranking import rank

__all__ = ["RiskCoverageCurve", "risk_coverage"]


@dataclass(frozen=True)
class RiskCoverageCurve:
    """Operating points that a threshold can reach: tied samples are accepted together.

    Attributes
    ----------
    thresholds
        `(m,)` distinct confidences, descending; accept where confidence >= threshold.
    coverage
        `(m,)` share of samples accepted, in (0, 1], ascending.
    risk
        `(m,)` share of errors among the accepted, in [0, 1].
    """

    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    def risk_at(self, coverage: float) -> float:
        """Risk of the first operating point that accepts at least this share of samples.

        Examples
        --------
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 1, 0]).risk_at(0.6)
        0.0
        """
        if not 0 < coverage <= 1:
            raise InputError(f"Expected `coverage` to lie in (0, 1], but got {coverage}.")
        if not len(self.risk):
            return math.nan
        # Coverages are k/n: the tolerance is far below 1/n and above rounding.
        return float(self.risk[np.searchsorted(self.coverage, coverage - 1e-12)])

    def coverage_at(self, risk: float) -> float:
        """Largest coverage at which the observed risk is at most this; 0 if there is none.

        This looks at the samples themselves and guarantees nothing for new ones.

        Examples
        --------
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 1, 0]).coverage_at(0.0).__round__(3)
        0.667
        """
        within = np.flatnonzero(self.risk <= risk)
        return float(self.coverage[within[-1]]) if within.size else 0.0


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """Compute the risk-coverage curve at every distinct confidence.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN or infinity.

    Notes
    -----
    El-Yaniv & Wiener 2010, "On the foundations of noise-free selective classification".

    Examples
    --------
    >>> curve = risk_coverage([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    >>> curve.coverage, curve.risk.round(2)
    (array([0.25, 0.75, 1.  ]), array([0.  , 0.33, 0.5 ]))
    """
    ranking = rank(confidence, correct)
    return RiskCoverageCurve(
        thresholds=ranking.thresholds,
        coverage=ranking.accepted / max(ranking.n, 1),
        risk=ranking.wrong / ranking.accepted,
    )
