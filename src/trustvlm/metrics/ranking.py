"""One sort for every metric: the samples ranked by confidence, with their ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError

__all__ = ["CONVENTIONS", "Ranking", "rank"]

CONVENTIONS = ("exact", "trustvlm")


@dataclass(frozen=True)
class Ranking:
    """n samples, most trusted first, and what is accepted at each distinct confidence.

    Attributes
    ----------
    correct
        `(n,)` bool, sorted by descending confidence; ties stay in input order.
    thresholds
        `(m,)` distinct confidences, descending.
    accepted
        `(m,)` int64, how many samples have at least that confidence.
    right
        `(m,)` int64, how many of those are correct.
    """

    correct: NDArray[np.bool_]
    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.correct)

    @property
    def n_right(self) -> int:
        """Number of correct samples."""
        return int(self.right[-1]) if self.n else 0

    @property
    def wrong(self) -> NDArray[np.int64]:
        """`(m,)` int64, how many of the accepted samples are wrong."""
        return self.accepted - self.right

    def expected_errors(self) -> NDArray[np.float64]:
        """`(n,)` wrong ones among the first k, k = 1..n, averaged over all orders of ties.

        Within a block of ties every order is equally likely, so the expected number of errors
        grows linearly from one end of the block to the other.
        """
        k = np.arange(1, self.n + 1, dtype=np.float64)
        return np.interp(k, np.r_[0, self.accepted], np.r_[0, self.wrong])

    def errors_in_order(self) -> NDArray[np.float64]:
        """`(n,)` wrong ones among the first k, k = 1..n, with ties in input order."""
        return np.cumsum(~self.correct, dtype=np.float64)


def rank(confidence: ArrayLike, correct: ArrayLike) -> Ranking:
    """Check confidence and correctness, and sort them once.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or correctness that is not 0 or 1.

    Examples
    --------
    >>> ranking = rank([0.2, 0.9, 0.2], [0, 1, 1])
    >>> ranking.thresholds, ranking.accepted, ranking.right
    (array([0.9, 0.2]), array([1, 3]), array([1, 2]))
    """
    score = _confidence(confidence)
    right = _correct(correct, len(score))
    # Sorting ascending on the reversed input and turning round again keeps ties in input order.
    order = (len(score) - 1 - np.argsort(score[::-1], kind="stable"))[::-1]
    ordered, right = score[order], right[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], np.ones(min(len(score), 1), bool)])
    return Ranking(
        correct=right,
        thresholds=ordered[last].astype(np.float64),
        accepted=(last + 1).astype(np.int64),
        right=np.cumsum(right, dtype=np.int64)[last],
    )


def check_convention(convention: str) -> str:
    """Return a known convention, or raise `InputError`."""
    if convention not in CONVENTIONS:
        raise InputError(
            f"Expected `convention` to be {' or '.join(CONVENTIONS)}, but got {convention!r}."
        )
    return convention


def _confidence(value: ArrayLike) -> NDArray[np.generic]:
    score = np.asarray(value)
    if score.size == 0:
        score = score.astype(np.float64)
    if score.ndim != 1 or score.dtype.kind not in "fiub":
        raise InputError(
            "Expected `confidence` to be a one-dimensional array of real numbers, "
            f"but got shape {score.shape} and dtype {score.dtype}."
        )
    if score.dtype.kind == "f" and not np.isfinite(score).all():
        bad = np.flatnonzero(~np.isfinite(score))
        raise InputError(
            f"Expected `confidence` to be finite, but {bad.size} of {score.size} values are NaN or "
            f"infinite, the first at index {bad[0]}."
        )
    return score


def _correct(value: ArrayLike, n: int) -> NDArray[np.bool_]:
    right = np.asarray(value)
    if right.shape != (n,):
        raise InputError(
            f"Expected `correct` to have shape ({n},) like `confidence`, but got {right.shape}."
        )
    if right.dtype != bool:
        whole = (right == 0) | (right == 1)
        if not np.all(whole):
            first = int(np.flatnonzero(~whole)[0])
            raise InputError(
                f"Expected `correct` to hold booleans or 0 and 1, but index {first} is "
                f"{right[first]!r}."
            )
    return right.astype(bool)
