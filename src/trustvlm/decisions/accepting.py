"""Errors among the k most trusted images, for every k, with the least favourable order of ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.ranking import rank

__all__ = ["Accepting"]


@dataclass(frozen=True)
class Accepting:
    """What is accepted, and how much of it is wrong, as the threshold falls past n images.

    Attributes
    ----------
    thresholds
        `(n,)` float64 confidences, descending: `thresholds[k - 1]` accepts k images, or more where
        it is tied.
    errors
        `(n + 1,)` int64, errors among the k most trusted. Among tied images the wrong ones come
        first, so that nothing depends on an order that is not there.
    reachable
        `(n + 1,)` bool, whether a threshold accepts exactly k images: not within a tie.

    Examples
    --------
    >>> found = Accepting.of([0.9, 0.5, 0.5, 0.1], [True, True, False, True])
    >>> found.errors, found.reachable
    (array([0, 0, 1, 1, 1]), array([ True,  True, False,  True,  True]))
    """

    thresholds: NDArray[np.float64]
    errors: NDArray[np.int64]
    reachable: NDArray[np.bool_]

    @classmethod
    def of(cls, confidence: ArrayLike, correct: ArrayLike) -> Accepting:
        """Order `(n,)` images, most trusted first.

        Raises
        ------
        InputError
            For shapes that do not fit, NaN, infinity, or correctness that is not 0 or 1.
        """
        ranking = rank(confidence, correct)
        n, ends = ranking.n, ranking.ends + 1
        wrong = ranking.in_blocks.wrong
        sizes = np.diff(ends, prepend=0)
        place = np.arange(n) - np.repeat(ends - sizes, sizes) + 1
        in_block = np.minimum(place, np.repeat(np.diff(wrong), sizes))
        errors = np.zeros(n + 1, dtype=np.int64)
        errors[1:] = np.repeat(wrong[:-1], sizes) + in_block
        reachable = np.zeros(n + 1, dtype=bool)
        reachable[0] = True
        reachable[ends] = True
        return cls(ranking.confidence.astype(np.float64), errors, reachable)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.thresholds)
