"""How much more can be accepted at the same risk, before and after a change, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.metrics.counts import Counts
from trustvlm.metrics.ranking import Ranking, rank
from trustvlm.metrics.resampling import multiplicities, resampled_counts

__all__ = ["CoverageGain", "Trial", "coverage_gain"]

# Far below the gap between two shares of counts, above what rounding makes of a bound.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Trial:
    """The same k of n images judged before and after a change.

    Attributes
    ----------
    images
        `(k,)` int64, which of the n these are.
    before, after
        Confidence `(k,)` and whether the prediction is correct `(k,)`.
    """

    images: NDArray[np.int64]
    before: tuple[NDArray[np.float64], NDArray[np.bool_]]
    after: tuple[NDArray[np.float64], NDArray[np.bool_]]

    def rows(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Trial:
        """Return some of the images, by mask or indices."""
        (a, right), (b, right_after) = self.before, self.after
        return Trial(self.images[index], (a[index], right[index]), (b[index], right_after[index]))


@dataclass(frozen=True)
class CoverageGain:
    """Share of images that can be accepted with at most a given share of errors among them.

    Attributes
    ----------
    before, after
        That share, as observed, in [0, 1].
    low, high
        Ends of the interval for `after` minus `before`.
    """

    before: float
    after: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """`after` minus `before`."""
        return self.after - self.before


def coverage_gain(
    trials: Sequence[Trial],
    *,
    risk: float,
    level: float = 0.95,
    n_resamples: int = 500,
    seed: int = 0,
) -> CoverageGain:
    """Average the gain in coverage at a risk over trials, with a bootstrap interval.

    Parameters
    ----------
    trials
        At least one, on images among the same n labelled ones.
    risk
        Largest share of errors among the accepted, in [0, 1].
    level
        Of the interval.
    n_resamples, seed
        Of the bootstrap.

    Returns
    -------
    CoverageGain
        Means over the trials. The interval is the percentile interval of the mean over resamples
        of the n images, each of which counts alike in all trials that it is part of.

    Examples
    --------
    >>> right = np.array([True, True, False, True])
    >>> before = np.array([0.9, 0.2, 0.8, 0.7])
    >>> after = np.array([0.9, 0.8, 0.2, 0.7])
    >>> found = coverage_gain([Trial(np.arange(4), (before, right), (after, right))], risk=0.0)
    >>> found.before, found.after
    (0.25, 0.75)
    """
    n = 1 + max(int(trial.images.max(initial=-1)) for trial in trials)
    rankings = [(trial.images, rank(*trial.before), rank(*trial.after)) for trial in trials]
    before = np.mean([_coverage(ranking.in_blocks, risk) for _, ranking, _ in rankings])
    after = np.mean([_coverage(ranking.in_blocks, risk) for _, _, ranking in rankings])
    resampled = [
        np.mean([_difference(pair, weights, risk) for pair in rankings], axis=0)
        for weights in multiplicities(max(n, 1), n_resamples, np.random.default_rng(seed))
    ]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(resampled), [tail, 1.0 - tail])
    return CoverageGain(float(before), float(after), float(low), float(high))


def _difference(
    pair: tuple[NDArray[np.int64], Ranking, Ranking], weights: NDArray[np.int64], risk: float
) -> NDArray[np.float64]:
    """Coverage after minus before, of each resample."""
    images, *rankings = pair
    before, after = (
        _coverage(resampled_counts(ranking, weights[:, images[ranking.order]]), risk)
        for ranking in rankings
    )
    return after - before


def _coverage(counts: Counts, risk: float) -> NDArray[np.float64]:
    """Largest share accepted with at most this risk, over the last axis."""
    within = counts.wrong <= (risk + _ROUNDING) * counts.accepted
    accepted = np.where(within, counts.accepted, 0).max(axis=-1)
    return np.asarray(accepted / np.maximum(counts.n, 1))
