"""Errors of probabilities: Brier score and calibration errors, and how biased these are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array, weight_array


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


def nll(
    probability: ArrayLike, correct: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Negative log-likelihood, or log loss, of P(correct) in nats; lower is better.

    The mean of -ln p where the label is right and of -ln(1 - p) where it is wrong. Probabilities
    are first clipped to [e, 1 - e] with e = 2.2e-16, the spacing of float64 at 1, so that one that
    is certain and mistaken costs 36.04 and not infinity. NaN without images.

    Parameters
    ----------
    probability
        `(n,)` probabilities of being right, in [0, 1].
    correct
        `(n,)` booleans, or zeros and ones.
    sample_weight
        `(n,)` numbers of at least 0 on any scale, for a weighted mean. NaN if all are 0.

    Notes
    -----
    Good 1952, "Rational Decisions". The clipping is that of scikit-learn's `log_loss`.

    Examples
    --------
    >>> round(nll([0.8, 0.4], [1, 0]), 4), round(nll([1.0], [0]), 2)
    (0.367, 36.04)
    """
    p = probability_array(probability)
    right = correctness_array(correct, len(p), like="probability")
    least = np.finfo(np.float64).eps
    p = np.clip(p, least, 1 - least)
    losses = -np.where(right, np.log(p), np.log1p(-p))
    if sample_weight is None:
        return float(np.mean(losses)) if p.size else math.nan
    weight = weight_array(sample_weight, len(p), like="probability")
    largest = np.max(weight, initial=0.0)
    return float(np.average(losses, weights=weight / largest)) if largest else math.nan


def ece(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Average `|share right - mean probability|` of bins over images: expected calibration error.

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

    With s the standard deviation of a bin's share right, a gap g becomes `2 |g| - E|N(g, s^2)|`.
    Part of the bias stays; a single value may be a little below 0. NaN without images.

    Notes
    -----
    The parametric bootstrap of Kumar, Liang & Ma 2019 (arXiv 1909.10155) with the expectation in
    closed form (the folded normal distribution) instead of resampling.

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
        s > 0, s * math.sqrt(2 / math.pi) * np.exp(-(z**2)) + gaps * scipy.special.erf(z), gaps
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
    right = correctness_array(correct, len(p), like="probability")
    if not p.size:
        return math.nan
    return ece(p, right, _most_ordered_bins(p, right))


def _most_ordered_bins(p: NDArray[np.float64], right: NDArray[np.bool_]) -> int:
    """Return the largest number of bins up to which no bin is right less often than the one below.

    A bin can be right less often than the one below only if some probability in the two is right
    less often than the next lower probability: at a fall. Without falls, as where all images are
    right, any number of bins is in order; else the bins are tested at the falls alone, or all of
    them where they are fewer.
    """
    n = len(p)
    order = np.argsort(p, kind="stable")
    ascending = p[order]
    is_new = np.ones(n, dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=is_new[1:])
    # How many images lie before each distinct probability, and how many of these are right.
    before = np.append(np.flatnonzero(is_new), n)
    right_before = np.append(0, np.cumsum(right[order]))[before]
    doubled_middle = before[:-1] + before[1:]

    # The bins of `_bin_of`, in whole numbers; a value is the rank of a distinct probability.
    def bin_of(value: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.int64]:
        bin_: NDArray[np.int64] = bins * doubled_middle[value] // (2 * n)
        return bin_

    def first_value(of_bin: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(doubled_middle, -(-2 * n * of_bin // bins))

    def share_right(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
        # 0 / 0, of an empty bin or beyond the last, is not less than anything.
        with np.errstate(invalid="ignore"):
            share: NDArray[np.float64] = np.true_divide(
                right_before[end] - right_before[start], before[end] - before[start]
            )
        return share

    shares = share_right(np.arange(len(before) - 1), np.arange(1, len(before)))
    falls = np.flatnonzero(shares[1:] < shares[:-1])
    if not falls.size:
        return n
    bins = 2
    while bins <= n:
        if bins <= falls.size:
            tried = np.array([[bins]])
            tested = np.arange(bins)[None]
        else:
            # Several numbers of bins at a time: the bin of each fall, and the one below it.
            tried = np.arange(bins, min(bins + 1 + 2**14 // falls.size, n + 1))[:, None]
            at_falls = bin_of(falls, tried)
            below = bin_of(np.maximum(first_value(at_falls, tried) - 1, 0), tried)
            tested = np.concatenate([at_falls, below], axis=1)
        start, end = first_value(tested, tried), first_value(tested + 1, tried)
        # The next bin that is not empty.
        above = bin_of(np.minimum(end, len(before) - 2), tried)
        stop = first_value(above + 1, tried)
        in_disorder = (share_right(end, stop) < share_right(start, end)).any(axis=1)
        if in_disorder.any():
            return int(tried[in_disorder.argmax(), 0]) - 1
        bins += len(tried)
    return n


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
    """Measure probabilities of being right by `brier`, `nll`, `ece` and their kin, by name.

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
        "nll": nll(probability, right),
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
    bin_of = _bin_of(p, bins)
    images = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=w, minlength=bins) for w in (p, right, p * (1 - p))]
    filled = images > 0
    n = images[filled]
    mean, share, variance = (total[filled] / n for total in sums)
    return Reliability(n.astype(np.int64), mean, share, np.sqrt(variance / n))


def _bin_of(p: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """`(n,)` the bin of each image: floor(bins * middle / n), middle the rank of its probability.

    Middle is halfway between the number of images that are less probable and that of those at most
    as probable. Bins are intervals, so their ends are looked for, not the rank of every image.
    """
    n = len(p)
    if not n:
        return np.empty(0, dtype=np.intp)
    ascending = np.sort(p)
    rank = np.arange(1, bins) * n
    # Of the images with the probability at this rank the middle may still lie below the end of the
    # bin; that of the next probability does not.
    value = ascending[rank // bins]
    first = np.searchsorted(ascending, value, side="left")
    last = np.searchsorted(ascending, value, side="right")
    reached = bins * (first + last) >= 2 * rank
    least = np.where(reached, value, np.append(ascending, np.inf)[last])
    if bins > 64:
        return np.searchsorted(least, p, side="right")
    # A few comparisons within the processor's cache take a sixth of the time of searches.
    bin_of = np.zeros(n, dtype=np.int8)
    for block in range(0, n, 1 << 15):
        values, count = p[block : block + (1 << 15)], bin_of[block : block + (1 << 15)]
        for end in least:
            count += values >= end
    return bin_of.astype(np.intp)


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
