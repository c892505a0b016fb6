"""The risk-coverage curve: how many errors are among what is accepted, at every threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import check_plan, generator, multiplicities, resampled_counts
from trustvlm.metrics.conventions import check_convention
from trustvlm.metrics.counts import Counts, rank, rank_weighted
from trustvlm.metrics.intervals import clopper_pearson

# Coverages and risks are quotients of counts. This is far below the gap between two of them and
# above what rounding makes of a bound such as 0.1 + 0.2.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class RiskCoverageCurve:
    """Operating points of a confidence, from the strictest threshold to the one that accepts all.

    Attributes
    ----------
    thresholds
        `(m,)` confidences, descending; accept where confidence >= threshold. float64 where that
        holds every value exactly, else the type of the confidences.
    coverage
        `(m,)` share of samples accepted, in (0, 1], ascending.
    risk
        `(m,)` share of errors among the accepted, in [0, 1].
    accepted, errors
        `(m,)` int64, the counts behind them, whatever the samples weigh.
    """

    thresholds: NDArray[Any]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    accepted: NDArray[np.int64]
    errors: NDArray[np.int64]

    def risk_at(self, coverage: float) -> float:
        """Risk of the first operating point that accepts at least this share of samples.

        NaN for a curve without points.

        Raises
        ------
        InputError
            For a coverage outside (0, 1].

        Examples
        --------
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 1, 0]).risk_at(0.6)
        0.0
        """
        at = self._first_with(coverage)
        return math.nan if at is None else float(self.risk[at])

    def accuracy_at(self, coverage: float) -> float:
        """Give the selective accuracy, 1 - `risk_at(coverage)`.

        Examples
        --------
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 1, 0]).accuracy_at(0.6)
        1.0
        """
        return 1 - self.risk_at(coverage)

    def threshold_at(self, coverage: float) -> float:
        """Highest threshold that accepts at least this share of samples; NaN without points.

        Examples
        --------
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 1, 0]).threshold_at(0.6)
        0.8
        """
        at = self._first_with(coverage)
        # item() keeps integers whole: as a float a large one might accept its neighbour.
        return math.nan if at is None else self.thresholds[at].item()

    def coverage_at(self, risk: float) -> float:
        """Largest coverage at which the observed risk is at most this; 0 if there is none.

        This looks at the samples themselves and guarantees nothing for new ones.

        Raises
        ------
        InputError
            For a risk outside [0, 1].

        Examples
        --------
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 1, 0]).coverage_at(0.0).__round__(3)
        0.667
        """
        if not 0 <= risk <= 1:
            raise InputError(f"Expected `risk` to lie in [0, 1], but got {risk}.")
        within = np.flatnonzero(self.risk <= risk + _ROUNDING)
        return float(self.coverage[within[-1]]) if within.size else 0.0

    def _first_with(self, coverage: float) -> int | None:
        if not 0 < coverage <= 1:
            raise InputError(f"Expected `coverage` to lie in (0, 1], but got {coverage}.")
        if not self.coverage.size:
            return None
        return int(np.searchsorted(self.coverage, coverage - _ROUNDING))


def risk_coverage(
    confidence: ArrayLike,
    correct: ArrayLike,
    convention: str = "exact",
    *,
    sample_weight: ArrayLike | None = None,
) -> RiskCoverageCurve:
    """Compute the risk-coverage curve.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    convention
        `exact`: one point at each distinct confidence, which are the operating points that a
        threshold can reach. `trustvlm`: one point per sample, ties in input order; among ties no
        threshold reaches it.
    sample_weight
        `(n,)` numbers of at least 0 on any scale, in `exact` only: coverage and risk are then
        shares of weight. Samples of weight 0 are left out.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, negative weights, an unknown convention, or
        weights with `trustvlm`.

    Notes
    -----
    El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification". The mean
    of `risk` is the AURC if no samples are tied, or in convention `trustvlm`.

    Examples
    --------
    >>> curve = risk_coverage([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    >>> curve.coverage, curve.risk.round(2)
    (array([0.25, 0.75, 1.  ]), array([0.  , 0.33, 0.5 ]))
    """
    check_convention(convention, sample_weight)
    if sample_weight is None:
        ranking, weight = rank(confidence, correct), None
    else:
        ranking, weight = rank_weighted(confidence, correct, sample_weight)
    if convention == "exact":
        counts, thresholds = ranking.in_blocks, ranking.confidence[ranking.ends]
    else:
        counts, thresholds = ranking.one_by_one, ranking.confidence
    accepted, errors = counts.accepted[1:], counts.wrong[1:]
    if weight is None:
        coverage, risk = accepted / max(ranking.n, 1), errors / accepted
    else:
        held, on_errors = (np.cumsum(w)[ranking.ends] for w in (weight, weight * ~ranking.correct))
        coverage, risk = held / np.max(held, initial=0.0), on_errors / held
    return RiskCoverageCurve(
        thresholds=_as_float64_if_exact(thresholds),
        coverage=coverage,
        risk=risk,
        accepted=accepted,
        errors=errors,
    )


def _as_float64_if_exact(descending: NDArray[Any]) -> NDArray[Any]:
    if descending.dtype.kind in "iu" and descending.size:
        exact = max(int(descending[0]), -int(descending[-1])) <= 2**53
    else:
        exact = descending.dtype.itemsize <= 8
    return descending.astype(np.float64) if exact else descending


# How far a risk-coverage curve would move on other samples of the same kind.


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
    """Pointwise band of the risk-coverage curve.

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
        Without errors among the accepted, the band is that of none among as many samples.

    Raises
    ------
    InputError
        For no samples, shapes that do not fit, NaN, infinity, or numbers out of range.

    Notes
    -----
    Clopper-Pearson intervals of a risk r among k accepted samples, with the trials that the
    variance over resamples stands for, r (1 - r) / variance, but never more than k: which samples
    are accepted varies, too. How often they hold the truth: docs/research/intervals.md. That the
    whole curve stays in the band is less likely than `level`.

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
    variance = drawn.var(axis=0)
    spread = risk * (1 - risk)
    trials = np.minimum(
        accepted, np.divide(spread, variance, out=accepted.copy(), where=variance > 0)
    )
    low, high = clopper_pearson(risk, np.where(spread > 0, trials, accepted), level)
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
