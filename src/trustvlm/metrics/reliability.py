"""How far probabilities are from how often they come true: bins of images of equal number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array

__all__ = ["Reliability", "probability_array", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """Bins of a reliability diagram, from the least probable on; none is empty.

    Attributes
    ----------
    images
        `(b,)` int64, how many images are in each.
    probability
        `(b,)` mean of their probabilities.
    right
        `(b,)` share of them that is right.
    spread
        `(b,)` standard deviation that `right` would have if the probabilities were true.
    """

    images: NDArray[np.int64]
    probability: NDArray[np.float64]
    right: NDArray[np.float64]
    spread: NDArray[np.float64]


def reliability(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Put images into bins of equal number by their probability.

    Parameters
    ----------
    probability
        `(n,)` probabilities of being right, in [0, 1].
    correct
        `(n,)` booleans, or zeros and ones.
    bins
        At most so many. Images with the same probability share one, the one of their middle place,
        so that the order of the images does not matter.

    Raises
    ------
    InputError
        For shapes that do not fit, values out of range, or fewer than one bin.

    Examples
    --------
    >>> found = reliability([0.2, 0.4, 0.8, 0.8], [0, 1, 1, 1], bins=2)
    >>> found.images, found.probability.round(2), found.right
    (array([2, 2]), array([0.3, 0.8]), array([0.5, 1. ]))
    """
    p = probability_array(probability)
    right = correctness_array(correct, len(p), like="probability")
    if bins < 1:
        raise InputError(f"Expected `bins` to be at least 1, but got {bins}.")
    values, where, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    bin_of_value = np.minimum((bins * middle / max(len(p), 1)).astype(int), bins - 1)
    bin_of = bin_of_value[where] if len(values) else np.empty(0, dtype=int)
    images = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=w, minlength=bins) for w in (p, right, p * (1 - p))]
    filled = images > 0
    n = images[filled]
    mean, share, variance = (total[filled] / n for total in sums)
    return Reliability(n.astype(np.int64), mean, share, np.sqrt(variance / n))


def probability_array(value: ArrayLike, name: str = "probability") -> NDArray[np.float64]:
    """Return `(n,)` float64 in [0, 1].

    Raises
    ------
    InputError
        For another shape or type, NaN, or values outside.

    Examples
    --------
    >>> probability_array([0, 0.5])
    array([0. , 0.5])
    """
    p = confidence_array(value, name).astype(np.float64)
    outside = (p < 0) | (p > 1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"Expected `{name}` to lie in [0, 1], but {outside.sum()} of {p.size} values do not, "
            f"the first at index {first} ({p[first]}). Turn a score into a probability with "
            "trustvlm.decisions.Calibrator."
        )
    return p
