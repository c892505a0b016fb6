"""Errors among the k most trusted images, for every k, with the least favourable order of ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.inputs import confidence_array
from trustvlm.metrics.ranking import rank

__all__ = ["Accepting"]


@dataclass(frozen=True)
class Accepting:
    """What is accepted, and how much of it is wrong, as the threshold falls past n images.

    Attributes
    ----------
    confidence
        `(n,)` float64, descending.
    just_above
        `(n,)` float64, the lowest thresholds that do not accept these confidences: the next numbers
        of the shortest float type that holds all confidences, so that nothing changes where
        confidences and threshold are compared as float32.
    errors
        `(n + 1,)` int64, errors among the k most trusted. Among tied images the wrong ones come
        first, so that nothing depends on an order that is not there.
    reachable
        `(n + 1,)` bool, whether a threshold accepts exactly k images: not within a tie.

    Examples
    --------
    >>> accepting = Accepting.of([0.9, 0.5, 0.5, 0.1], [True, True, False, True])
    >>> accepting.errors, accepting.reachable
    (array([0, 0, 1, 1, 1]), array([ True,  True, False,  True,  True]))
    """

    confidence: NDArray[np.float64]
    just_above: NDArray[np.float64]
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
        score = confidence_array(confidence)
        # A threshold is a float64: what is equal as such cannot be told apart by one.
        ranking = rank(score.astype(np.float64), correct)
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
        just_above = _just_above(ranking.confidence, score.dtype)
        return cls(ranking.confidence, just_above, errors, reachable)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.confidence)

    def thresholds(self, accepted: ArrayLike) -> NDArray[np.float64]:
        """Return the thresholds that accept so many images, reachable numbers of at least 1.

        They accept all that is strictly above the next image; the one that accepts every image is
        the lowest confidence, since there is no next image.

        Examples
        --------
        >>> Accepting.of([0.75, 0.5, 0.25], [True] * 3).thresholds([1, 3])
        array([0.50000006, 0.25      ])
        """
        k = np.asarray(accepted)
        below = self.just_above[np.minimum(k, self.n - 1)]
        thresholds: NDArray[np.float64] = np.where(k < self.n, below, self.confidence[-1])
        return thresholds


def _just_above(confidence: NDArray[np.float64], given: np.dtype[Any]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        short = confidence.astype(given if given == np.float16 else np.float32)
        exact = short if np.array_equal(short, confidence) else confidence
        just_above: NDArray[np.float64] = np.nextafter(exact, np.inf, dtype=exact.dtype)
        return just_above.astype(np.float64)
