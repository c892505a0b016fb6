"""How many samples, and how many right ones, a threshold accepts: all that a metric needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "harmonic_numbers"]


@dataclass(frozen=True)
class Counts:
    """Accepted and right samples at each of m thresholds, from the highest down.

    The last axis runs over the thresholds; axes before it, if any, over resamples. It starts with
    a threshold that accepts nothing, so its length is m + 1. A threshold may accept nothing more
    than the one before.

    Attributes
    ----------
    accepted
        `(..., m + 1)` int64, how many samples are accepted.
    right
        `(..., m + 1)` int64, how many of those are correct.
    """

    accepted: NDArray[np.int64]
    right: NDArray[np.int64]

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


def harmonic_numbers(n: int) -> NDArray[np.float64]:
    """`(n + 1,)` sums 1 + 1/2 + ... + 1/k for k = 0..n.

    Examples
    --------
    >>> harmonic_numbers(2)
    array([0. , 1. , 1.5])
    """
    table = np.zeros(n + 1)
    np.cumsum(1 / np.arange(1, n + 1), out=table[1:])
    return table
