"""How far a risk-coverage curve would move on other samples of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.counts import Counts
from trustvlm.metrics.plan import check_plan, generator
from trustvlm.metrics.ranking import rank
from trustvlm.metrics.resampling import multiplicities, resampled_counts

__all__ = ["RiskBand", "risk_band"]


@dataclass(frozen=True)
class RiskBand:
    """A risk-coverage curve at chosen coverages, with an interval at each of them.

    Attributes
    ----------
    coverage
        `(k,)` shares accepted, as asked for.
    risk
        `(k,)` share wrong among the accepted, on the samples themselves.
    low, high
        `(k,)` ends of the intervals.
    level
        Nominal coverage of each interval alone, not of all of them together.
    n_resamples
        Resamples drawn.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    n_resamples: int


def risk_band(
    confidence: ArrayLike,
    correct: ArrayLike,
    coverage: ArrayLike,
    *,
    n_resamples: int = 1000,
    seed: int | np.random.Generator | None = 0,
    level: float = 0.95,
) -> RiskBand:
    """Pointwise percentile bootstrap band of the risk-coverage curve.

    Samples are drawn with replacement, n of n, and every resample is ordered anew. Among tied
    samples the count of errors grows evenly, which is its expected value over their orders; so any
    coverage has a risk, whether a threshold meets it or not.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted; n >= 1.
    correct
        `(n,)` booleans, or zeros and ones.
    coverage
        `(k,)` shares in (0, 1] at which the risk is wanted.
    n_resamples, seed
        As of `bootstrap`.
    level
        Nominal coverage of each interval, in (0, 1).

    Returns
    -------
    RiskBand
        Where all labels are right, or all are wrong, the band has no width: resamples cannot show
        what the samples do not.

    Raises
    ------
    InputError
        For no samples, shapes that do not fit, NaN, infinity, or numbers out of range.

    Notes
    -----
    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3, at each coverage by
    itself. That the whole curve stays in the band is less likely than `level`.

    Examples
    --------
    >>> band = risk_band([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], [0.5, 1.0], n_resamples=200)
    >>> band.risk
    array([0. , 0.5])
    >>> bool((band.low <= band.risk).all() and (band.risk <= band.high).all())
    True
    """
    n_resamples, level = check_plan(n_resamples, level)
    rng = generator(seed)
    ranking = rank(confidence, correct)
    shares = np.asarray(coverage, dtype=np.float64)
    if shares.ndim != 1 or not ((shares > 0) & (shares <= 1)).all():
        raise InputError(
            f"Expected `coverage` to be `(k,)` numbers in (0, 1], but got shape {shares.shape} "
            f"with values from {np.min(shares, initial=1):g} to {np.max(shares, initial=0):g}."
        )
    if not ranking.n:
        raise InputError("Expected at least one sample to draw from, but got none.")
    accepted = shares * ranking.n
    own = ranking.in_blocks
    risk = _risk(Counts(own.accepted[None], own.right[None]), accepted)[0]
    drawn = np.concatenate(
        [
            _risk(resampled_counts(ranking, weights), accepted)
            for weights in multiplicities(ranking.n, n_resamples, rng)
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return RiskBand(shares, risk, low, high, level, n_resamples)


def _risk(counts: Counts, accepted: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(rows, k)` share wrong among the first `accepted` samples of each resample."""
    rows, n = len(counts.accepted), int(counts.accepted[0, -1])
    # The rows laid end to end are one ascending axis, so that one interpolation serves them all.
    shift = np.arange(rows)[:, None] * (n + 1.0)
    wrong = np.interp(
        (accepted + shift).ravel(), (counts.accepted + shift).ravel(), counts.wrong.ravel()
    )
    # Rounding must not make more wrong than there are.
    risk: NDArray[np.float64] = np.minimum(wrong.reshape(rows, -1) / accepted, 1.0)
    return risk
