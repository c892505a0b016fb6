"""Accuracy when two scores accept the same share of the images, and how sure the difference is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.results import Samples
from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import percentile_interval
from trustvlm.metrics.counts import Counts
from trustvlm.metrics.ranking import Ranking, rank
from trustvlm.metrics.resampling import multiplicities, resampled_counts

__all__ = ["CoverageGain", "accuracy_among", "coverage_gains"]


@dataclass(frozen=True)
class CoverageGain:
    """What one score gains over another when both accept the same share of the images.

    Attributes
    ----------
    coverage
        Share accepted, of each score the most trusted.
    accuracy, other_accuracy
        Share right among the accepted.
    low, high
        Ends of the paired bootstrap interval of the difference.
    """

    coverage: float
    accuracy: float
    other_accuracy: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """Difference of the accuracies."""
        return self.accuracy - self.other_accuracy


def coverage_gains(
    score: Samples,
    other: Samples,
    coverages: Sequence[float],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> list[CoverageGain]:
    """Compare two scores at equal coverages, on the same images.

    Parameters
    ----------
    score, other
        `(confidence, correct)` of each, `(n,)`; image i is the same in both.
    coverages
        Shares accepted, in (0, 1].
    n_resamples, seed, level
        Of the paired bootstrap over images.

    Raises
    ------
    InputError
        Without images, for a coverage out of range, or if the two differ in length.

    Examples
    --------
    >>> right, wrong = ([3, 2, 1, 0], [1, 1, 0, 0]), ([0, 1, 2, 3], [1, 1, 0, 0])
    >>> (found,) = coverage_gains(right, wrong, [0.5])
    >>> found.accuracy, found.other_accuracy, found.low >= 0
    (1.0, 0.0, True)
    """
    a, b = rank(*score), rank(*other)
    if a.n != b.n or not a.n:
        raise InputError(f"Expected the same images in both, at least one, got {a.n} and {b.n}.")
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise InputError(f"Expected `coverages` to lie in (0, 1], but got {list(coverages)}.")
    k = np.maximum(1, np.round(np.asarray(coverages, dtype=np.float64) * a.n)).astype(np.int64)
    place = np.empty(a.n, dtype=np.intp)
    place[a.order] = np.arange(a.n)
    at = place[b.order]
    drawn = np.concatenate(
        [
            accuracy_among(resampled_counts(a, weights), k)
            - accuracy_among(resampled_counts(b, np.take(weights, at, axis=1)), k)
            for weights in multiplicities(a.n, n_resamples, np.random.default_rng(seed))
        ]
    )
    found = []
    for i, coverage in enumerate(coverages):
        low, high, _ = percentile_interval(drawn[:, i], level)
        found.append(CoverageGain(coverage, _at(a, k)[i], _at(b, k)[i], low, high))
    return found


def accuracy_among(counts: Counts, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share right among the k most trusted; of tied ones, their expected share.

    Parameters
    ----------
    counts
        `(rows, m + 1)`.
    k
        `(j,)` numbers of samples, from 1 to n.

    Returns
    -------
    NDArray
        `(rows, j)` float64.
    """
    rows = np.arange(len(counts.accepted))
    found = np.empty((len(rows), len(k)))
    for i, wanted in enumerate(k):
        # The first threshold that accepts enough, and the one before it.
        end = np.count_nonzero(counts.accepted < wanted, axis=1)
        before = counts.accepted[rows, end - 1]
        share = (wanted - before) / (counts.accepted[rows, end] - before)
        right_before = counts.right[rows, end - 1]
        right = right_before + share * (counts.right[rows, end] - right_before)
        found[:, i] = right / wanted
    return found


def _at(ranking: Ranking, k: NDArray[np.int64]) -> list[float]:
    counts = ranking.in_blocks
    whole = Counts(counts.accepted[None], counts.right[None])
    return [float(value) for value in accuracy_among(whole, k)[0]]
