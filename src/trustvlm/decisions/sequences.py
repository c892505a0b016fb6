"""Which thresholds are tested, in which order, and with which images of the calibration set.

Why every image may offer a threshold at no cost. Let the images be independent draws, ties broken
at random, and let R(v) be the risk of accepting the share v that is trusted most: a continuous
function. Testing begins at the k-th image of the calibration set, k fixed beforehand, with the
k - 1 images above it. Given where it lies, these are independent draws from all images above it, so
the exact test holds there. If R is too high there, certifying anything means that this first test
erred. Otherwise let v be the first share beyond at which R rises above the wanted risk. At v, and
at every earlier crossing, R is exactly the wanted risk, so between crossings the errors have that
rate too; given how many images lie between crossings, the errors among all images above v are
binomial with the wanted risk. Certifying more than v means passing the test of these images, which
happens with probability at most 1 - confidence. R may rise and fall as it likes.

Breaking ties with the wrong images first can only make tests fail that a random order passes.

The same argument holds for a few ranks fixed beforehand, each tested with the images strictly above
it, in a sequence or with a correction for their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.decisions.accepting import Accepting
from trustvlm.decisions.binomial import check_fraction, fewest_images
from trustvlm.exceptions import InputError

__all__ = ["FIRST_SHARE", "LEVELS", "Hypotheses", "first_count"]

# Early tests rest on few images and fail by chance; a later start certifies nothing below it.
# Chosen on simulated populations (docs/research/certified-thresholds.md), not on image sets.
FIRST_SHARE = 0.2
LEVELS = 20


@dataclass(frozen=True)
class Hypotheses:
    """Thresholds whose risk may be too high, from the strictest to the most lenient.

    Attributes
    ----------
    thresholds
        `(t,)` float64, descending; accept where confidence >= threshold.
    accepted, errors
        `(t,)` int64, the images that the test of each may use.
    offered
        `(t,)` bool, whether a threshold may be chosen, or is only tested on the way.
    """

    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    errors: NDArray[np.int64]
    offered: NDArray[np.bool_]

    @classmethod
    def of_every_image(cls, accepting: Accepting, first: int) -> Hypotheses:
        """Offer every confidence of the calibration set from the `first`-th highest on.

        Examples
        --------
        >>> found = Accepting.of([0.9, 0.5, 0.5, 0.1], [True, True, False, True])
        >>> Hypotheses.of_every_image(found, first=3).accepted
        array([2, 3, 4])
        """
        if first > accepting.n:
            return cls.none()
        counts = np.arange(first - 1, accepting.n + 1)
        offered = accepting.reachable[counts]
        # The first test leaves the image at its own threshold out.
        offered[0] = False
        thresholds = accepting.thresholds[np.maximum(counts - 1, 0)]
        return cls(thresholds, counts, accepting.errors[counts], offered)

    @classmethod
    def of_levels(cls, accepting: Accepting, levels: int) -> Hypotheses:
        """Offer the confidences at evenly spaced levels of coverage, the image there left out.

        Examples
        --------
        >>> found = Accepting.of([0.9, 0.5, 0.4, 0.1], [True, True, False, True])
        >>> Hypotheses.of_levels(found, 2).accepted
        array([1, 3])
        """
        if levels < 1:
            raise InputError(f"Expected `levels` to be at least 1, but got {levels}.")
        ranks = np.unique(np.ceil(accepting.n * np.arange(1, levels + 1) / levels).astype(int))
        cuts = accepting.thresholds[ranks - 1] if accepting.n else np.empty(0)
        above = np.searchsorted(-accepting.thresholds, -cuts, side="left")
        # Just above the image that was left out.
        thresholds = np.nextafter(cuts, np.inf)
        return cls(thresholds, above, accepting.errors[above], above > 0)

    @classmethod
    def of_thresholds(cls, accepting: Accepting, thresholds: ArrayLike) -> Hypotheses:
        """Offer thresholds that were fixed without looking at the calibration set."""
        cuts = np.unique(np.asarray(thresholds, dtype=np.float64).ravel())[::-1]
        if not cuts.size or np.isnan(cuts).any():
            raise InputError("Expected `thresholds` to be one or more numbers, none of them NaN.")
        accepted = np.searchsorted(-accepting.thresholds, -cuts, side="right")
        return cls(cuts, accepted, accepting.errors[accepted], accepted > 0)

    @classmethod
    def none(cls) -> Hypotheses:
        """No thresholds at all."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(np.empty(0), nothing, nothing, nothing.astype(bool))


def first_count(
    n: int, risk: float, confidence_level: float, first_share: float = FIRST_SHARE
) -> int:
    """Images accepted at the first threshold that is tested; above n if n images cannot certify.

    Examples
    --------
    >>> first_count(1000, 0.05, 0.95), first_count(100, 0.05, 0.95), first_count(50, 0.05, 0.95)
    (200, 60, 60)
    """
    # One more than the fewest: the image at the first threshold itself does not count there.
    least = fewest_images(risk, confidence_level) + 1
    return max(least, math.ceil(check_fraction(first_share, "first_share") * n))
