"""Errors of probabilities: Brier score and calibration errors, and how biased these are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array


def brier(probability: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared difference between probability and outcome, in [0, 1]; lower is better.

    NaN without images. Brier 1950; predicting the share r of right labels for every image costs
    r (1 - r).

    Examples
    --------
    >>> brier([0.8, 0.4], [1, 0])
    0.1
    """
    p = probability_array(probability)
    right = correctness_array(correct, len(p), like="probability")
    return float(np.mean((p - right) ** 2)) if p.size else math.nan


def ece(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean over images of |share right - mean probability| of its bin: expected calibration error.

    With bins of equal number. Biased upwards, the more so the fewer images there are in a bin:
    `ece_if_calibrated` is what to expect of perfect probabilities. NaN without images.

    Notes
    -----
    Naeini et al. 2015; with bins of equal number Nixon et al. 2019 (arXiv 1904.01685).

    Examples
    --------
    >>> ece([0.2, 0.4, 0.8, 0.8], [0, 1, 1, 1], bins=2).__round__(3)
    0.2
    """
    binned = reliability(probability, correct, bins)
    if not binned.images.size:
        return math.nan
    gaps = np.abs(binned.right - binned.probability)
    return float(np.average(gaps, weights=binned.images))


def ece_if_calibrated(probability: ArrayLike, bins: int = 15) -> float:
    """Return the `ece` to expect of these probabilities if every one of them were true.

    By the normal approximation of the share right in each bin. NaN without images.

    Examples
    --------
    >>> round(ece_if_calibrated([0.5] * 100, bins=1), 4)
    0.0399
    """
    p = probability_array(probability)
    binned = reliability(p, np.zeros(len(p), dtype=bool), bins)
    if not binned.images.size:
        return math.nan
    return float(np.average(math.sqrt(2 / math.pi) * binned.spread, weights=binned.images))


def ece_debiased(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return the `ece` less an estimate of its bias: what its gaps would grow by on a second draw.

    With s the standard deviation of a bin's share right, a gap g becomes 2 |g| - E|N(g, s^2)|.
    Part of the bias stays; a single value may be a little below 0. NaN without images.

    Notes
    -----
    The parametric bootstrap of Kumar, Liang & Ma 2019 (arXiv 1909.10155) with the expectation in
    closed form (the folded normal distribution) in place of resampling.

    Examples
    --------
    >>> ece_debiased([0.2, 0.4, 0.8, 0.8], [0, 1, 1, 1], bins=2).__round__(3)
    0.137
    """
    binned = reliability(probability, correct, bins)
    if not binned.images.size:
        return math.nan
    gaps = np.abs(binned.right - binned.probability)
    s = np.sqrt(binned.right * (1 - binned.right) / binned.images)
    z = gaps / np.where(s > 0, s, 1.0) / math.sqrt(2)
    grown = np.where(
        s > 0, s * math.sqrt(2 / math.pi) * np.exp(-(z**2)) + gaps * special.erf(z), gaps
    )
    return float(np.average(2 * gaps - grown, weights=binned.images))


def ece_sweep(probability: ArrayLike, correct: ArrayLike) -> float:
    """Return the `ece` with as many bins as keep the shares right in order.

    The largest number of bins of equal number up to which, bin after bin, more probable images are
    right at least as often. Less biased than a fixed number of bins. NaN without images.

    Notes
    -----
    Roelofs et al. 2022, "Mitigating bias in calibration error estimation" (arXiv 2012.08668).

    Examples
    --------
    >>> ece_sweep([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]).__round__(3)
    0.15
    """
    p = probability_array(probability)
    if not p.size:
        return math.nan
    best = 1
    for bins in range(2, len(p) + 1):
        if (np.diff(reliability(p, correct, bins).right) < 0).any():
            break
        best = bins
    return ece(p, correct, best)


def rms_calibration_error(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Root mean square calibration error, debiased: at least as large as the ECE, 0 if perfect.

    From each bin's squared gap the variance of its share right is taken off, so that perfect
    probabilities score about 0 with few images as well; a mean below 0 gives 0. Bins of one image
    tell nothing and are left out. NaN if there are no others.

    Notes
    -----
    Kumar, Liang & Ma 2019, "Verified uncertainty calibration" (arXiv 1909.10155), section 5.

    Examples
    --------
    >>> probability = [0.5] * 4 + [0.9] * 4
    >>> rms_calibration_error(probability, [1, 0, 1, 0, 0, 0, 0, 0], bins=2).__round__(3)
    0.603
    """
    binned = reliability(probability, correct, bins)
    several = binned.images > 1
    if not several.any():
        return math.nan
    n, right = binned.images[several], binned.right[several]
    squared = (right - binned.probability[several]) ** 2 - right * (1 - right) / (n - 1)
    return math.sqrt(max(0.0, float(np.average(squared, weights=n))))


def probability_quality(probability: ArrayLike, correct: ArrayLike) -> dict[str, float]:
    """Measure probabilities of being right by `brier`, `ece` and their kin, by name.

    `brier_constant` is the Brier score of one probability for all, the share right. NaN where a
    measure is undefined.

    Examples
    --------
    >>> probability_quality([0.75, 0.25], [True, False])["brier_constant"]
    0.25
    """
    right = np.asarray(correct, dtype=bool)
    accuracy = float(right.mean()) if right.size else math.nan
    return {
        "brier": brier(probability, right),
        "brier_constant": accuracy * (1 - accuracy),
        "ece": ece(probability, right),
        "ece_if_calibrated": ece_if_calibrated(probability),
        "rms_calibration_error": rms_calibration_error(probability, right),
    }


# How far probabilities are from how often they come true: bins of images of equal number.


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
        At most so many. Images with the same probability share one, the one of their middle rank,
        so that the order of the images does not matter.

    Raises
    ------
    InputError
        For shapes that do not fit, values out of range, or fewer than one bin.

    Examples
    --------
    >>> binned = reliability([0.2, 0.4, 0.8, 0.8], [0, 1, 1, 1], bins=2)
    >>> binned.images, binned.probability.round(2), binned.right
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
