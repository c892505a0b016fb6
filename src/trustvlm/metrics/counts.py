"""Counts of accepted and right samples at every threshold, from one sort."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.inputs import confidence_array, correctness_array, weight_array

# How many samples, and how many right ones, a threshold accepts: all that a metric needs.


class Counts:
    """Accepted and right samples at each of m thresholds, from the highest down.

    The last axis runs over the thresholds; axes before it, if any, over resamples. It starts with
    a threshold that accepts nothing, so its length is m + 1. A threshold may accept nothing more
    than the one before.

    Parameters
    ----------
    accepted
        `(..., m + 1)` int64, how many samples are accepted.
    right
        `(..., m + 1)` int64, how many of those are correct; or a function that counts them when
        they are first asked for, since the areas of resamples can do without.
    is_error
        `(m,)` 1.0 where a threshold adds a wrong sample, 0.0 where a right one, if every threshold
        adds one sample alone, any number of times; else None.
    """

    def __init__(
        self,
        accepted: NDArray[np.int64],
        right: NDArray[np.int64] | Callable[[], NDArray[np.int64]],
        is_error: NDArray[np.float64] | None = None,
    ) -> None:
        self.accepted = accepted
        self._right = right
        self.is_error = is_error

    @cached_property
    def right(self) -> NDArray[np.int64]:
        """`(..., m + 1)` int64, how many of the accepted samples are correct."""
        return self._right() if callable(self._right) else self._right

    @cached_property
    def wrong(self) -> NDArray[np.int64]:
        """`(..., m + 1)` int64, how many of the accepted samples are wrong."""
        return self.accepted - self.right

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """`(..., m)` int64, how many samples each threshold adds."""
        return np.diff(self.accepted)

    @cached_property
    def errors(self) -> NDArray[np.int64]:
        """`(..., m)` int64, how many wrong samples each threshold adds."""
        return np.diff(self.wrong)

    @property
    def n(self) -> NDArray[np.int64]:
        """`(...,)` number of samples."""
        return self.accepted[..., -1]

    @property
    def n_right(self) -> NDArray[np.int64]:
        """`(...,)` number of correct samples."""
        return self.right[..., -1]

    @property
    def n_wrong(self) -> NDArray[np.int64]:
        """`(...,)` number of wrong samples."""
        return self.n - self.n_right


def area_table(n: int) -> NDArray[np.float64]:
    """`(n + 1,)`: how much a wrong sample at each rank adds to n AURC, summed up to that rank.

    A wrong sample at rank j is among the first k for all k >= j and adds 1/j + ... + 1/n. Summed
    over j = 1..x that is x (1 + H_n - H_x), with the harmonic numbers H; so one table serves every
    resample of n samples.

    Examples
    --------
    >>> area_table(2)
    array([0. , 1.5, 2. ])
    """
    ranks = np.arange(n + 1, dtype=np.float64)
    harmonic = np.zeros(n + 1)
    np.cumsum(1 / ranks[1:], out=harmonic[1:])
    table: NDArray[np.float64] = ranks * (1 + harmonic[-1] - harmonic)
    return table


# One sort for every metric: the samples ranked by confidence, with their ties.


@dataclass(frozen=True)
class Ranking:
    """n samples, most trusted first, in m blocks of equal confidence.

    Attributes
    ----------
    order
        `(n,)` index of the sample at each rank; ties stay in input order.
    correct
        `(n,)` bool, whether the sample at each rank is correct.
    confidence
        `(n,)` the confidences at each rank, descending, in the type that was given.
    ends
        `(m,)` int64, the rank of the last sample of each block.
    """

    order: NDArray[np.intp]
    correct: NDArray[np.bool_]
    confidence: NDArray[Any]
    ends: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.correct)

    @cached_property
    def in_blocks(self) -> Counts:
        """Counts at the thresholds that exist: tied samples are accepted together."""
        one_by_one = self.one_by_one
        at = np.concatenate([[0], self.ends + 1])
        return Counts(accepted=at, right=one_by_one.right[at])

    @cached_property
    def one_by_one(self) -> Counts:
        """Counts when samples are accepted one at a time, ties in input order."""
        right = np.zeros(self.n + 1, dtype=np.int64)
        np.cumsum(self.correct, out=right[1:])
        return Counts(accepted=np.arange(self.n + 1, dtype=np.int64), right=right)


def rank(
    confidence: ArrayLike,
    correct: ArrayLike,
    names: tuple[str, str] = ("confidence", "correct"),
) -> Ranking:
    """Check confidence and correctness, and sort them once.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    names
        What messages call the two arguments.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or correctness that is not 0 or 1.

    Examples
    --------
    >>> ranking = rank([0.2, 0.9, 0.2], [0, 1, 1])
    >>> ranking.order, ranking.confidence
    (array([1, 0, 2]), array([0.9, 0.2, 0.2]))
    >>> ranking.in_blocks.accepted, ranking.in_blocks.right
    (array([0, 1, 3]), array([0, 1, 2]))
    """
    score = confidence_array(confidence, names[0])
    right = correctness_array(correct, len(score), names[1], names[0])
    # Sorting ascending on the reversed input and turning round again keeps ties in input order,
    # for every type: negation would overflow for integers.
    order = (len(score) - 1 - np.argsort(score[::-1], kind="stable"))[::-1]
    ordered = score[order]
    is_end = np.ones(len(score), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_end[:-1])
    return Ranking(order, right[order], ordered, np.flatnonzero(is_end).astype(np.int64))


def rank_weighted(
    confidence: ArrayLike, correct: ArrayLike, sample_weight: ArrayLike
) -> tuple[Ranking, NDArray[np.float64]]:
    """Rank the samples of positive weight, and return their weights in that order.

    Samples of weight 0 are checked, then left out. Weights are relative: the largest becomes 1.

    Raises
    ------
    InputError
        As `rank`, and for weights of another shape, negative, NaN or infinite.

    Examples
    --------
    >>> ranking, weight = rank_weighted([0.2, 0.9, 0.5], [0, 1, 1], [1, 4, 0])
    >>> ranking.confidence, weight
    (array([0.9, 0.2]), array([1.  , 0.25]))
    """
    score = confidence_array(confidence)
    right = correctness_array(correct, len(score))
    weight = weight_array(sample_weight, len(score))
    kept = weight > 0
    ranking = rank(score[kept], right[kept])
    relative = weight[kept][ranking.order]
    return ranking, relative / np.max(relative, initial=np.finfo(np.float64).tiny)
