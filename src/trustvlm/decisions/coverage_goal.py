"""The smallest risk that can be certified while accepting at least a given share of new images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.decisions.binomial import check_fraction, proportion_lower_bound, risk_upper_bound
from trustvlm.decisions.certify import Certificate, among

__all__ = ["certify_coverage"]


def certify_coverage(
    confidence: ArrayLike,
    correct: ArrayLike,
    coverage: float = 0.8,
    confidence_level: float = 0.95,
    *,
    eligible: ArrayLike | None = None,
) -> Certificate:
    """Find the threshold that accepts at least a share of new images, and bound its risk.

    The threshold is the strictest that accepts the wanted share of new images with probability
    `confidence_level`. It depends on the confidences alone, so that a single exact test bounds its
    risk, with the same probability.

    Parameters
    ----------
    confidence, correct, confidence_level, eligible
        As in `certify`, with the same assumption.
    coverage
        Wanted share, in (0, 1).

    Returns
    -------
    Certificate
        `coverage_bound` is at least `coverage`, `risk_bound` the risk that is not exceeded. NaN
        thresholds where there are too few images to accept so many: `n_needed` says how many more.

    Notes
    -----
    Accepting the k most trusted of n accepts a share of new ones that is distributed as
    Beta(k, n + 1 - k). What is accepted is strictly above image k + 1, of which the k images are
    independent draws: Clopper & Pearson 1934. Image k may tie with the next ones, all of which are
    accepted then: the bound is the larger of those at k, the wrong ones first, and with all of
    them. If every image is accepted, it is the larger of those without and with the last.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 1000)
    >>> t = certify_coverage(confidence, confidence > 0.3, coverage=0.6)
    >>> t.coverage, round(t.coverage_bound, 3), round(t.risk_bound, 4)
    (0.626, 0.6, 0.0048)
    """
    check_fraction(coverage, "coverage")
    check_fraction(confidence_level, "confidence_level")
    n, accepting = among(confidence, correct, eligible)
    counts = np.arange(1, accepting.n + 1)
    enough = proportion_lower_bound(counts, n, confidence_level) >= coverage
    if not enough.any() or not counts[enough][0] > 1:
        # All of m images must do: m with confidence ** (1 / m) >= coverage.
        wanted = math.ceil(math.log1p(-confidence_level) / math.log(coverage) - 1e-9)
        return Certificate.none(
            n, max(1.0, wanted - n), math.nan, confidence_level, "coverage", coverage
        )
    k = int(counts[enough][0])
    accepted = k + int(np.flatnonzero(accepting.reachable[k:])[0])
    evidence = np.array([min(k, accepting.n - 1), accepted])
    bounds = risk_upper_bound(accepting.errors[evidence], evidence, confidence_level)
    return Certificate(
        threshold=float(accepting.thresholds(accepted)),
        risk_bound=float(bounds.max()),
        confidence_level=confidence_level,
        coverage=accepted / n,
        coverage_bound=float(proportion_lower_bound(k, n, confidence_level)),
        n=n,
        accepted=accepted,
        errors=int(accepting.errors[accepted]),
        n_needed=0.0,
        risk=math.nan,
        method="coverage",
        wanted_coverage=coverage,
    )
