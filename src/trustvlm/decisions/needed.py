"""How many more labelled images it would take to certify a threshold."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trustvlm.decisions.accepting import Accepting
from trustvlm.decisions.binomial import binomial_p_value, fewest_images
from trustvlm.decisions.sequences import FIRST_SHARE, first_counts, step_counts

__all__ = ["images_needed"]

# Times the fewest images that could ever do.
_MOST = 2_000
_CAUTION = 0.7


def images_needed(
    accepting: Accepting,
    risk: float,
    confidence_level: float,
    first_share: float = FIRST_SHARE,
) -> float:
    """Estimate how many more labelled images it would take to certify a threshold.

    Parameters
    ----------
    accepting
        The calibration set, on which no threshold could be certified.

    Returns
    -------
    float
        A whole number, or infinity where even the most trusted images are wrong too often for any
        number to help, so far as these images tell.

    Notes
    -----
    With n' images in all, the errors in the first test of the sequence are those seen so far among
    the same share, and binomial ones at a cautious estimate of the risk there: the 70 %
    quantile after a prior of mean `risk` / 2 with the weight of 1 / risk images. The number is the
    first at which the test passes with probability one half. It is rough: of simulated populations,
    some of which allow no threshold at all, two in five could be certified with it.

    Examples
    --------
    >>> ten_right = Accepting.of(range(10), [1] * 10)
    >>> images_needed(ten_right, 0.05, 0.95)
    905.0
    """
    n = accepting.n
    totals, first, most = _first_tests(risk, confidence_level, first_share)
    more = totals > n
    totals, first, most = totals[more], first[more], most[more]
    seen = np.minimum(n, np.round(n * first / totals).astype(np.int64))
    wrong = accepting.errors[seen]
    likely_risk = special.betaincinv(wrong + 0.5, seen - wrong + 0.5 * (2 / risk - 1), _CAUTION)
    passes = binomial_p_value(most - wrong, np.maximum(first - seen, 0), likely_risk)
    enough = np.flatnonzero((most >= wrong) & (passes >= 0.5))
    return float(totals[enough[0]] - n) if enough.size else math.inf


@lru_cache(maxsize=64)
def _first_tests(
    risk: float, confidence_level: float, first_share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For growing numbers of images: the images of the first test and the most errors it allows."""
    least = fewest_images(risk, confidence_level)
    totals = np.unique(np.ceil(np.geomspace(least, _MOST * least, 600)).astype(np.int64))
    steps = step_counts(int(2 * first_share * totals[-1]), risk, confidence_level)
    first = first_counts(totals, steps, first_share)
    return totals, first, np.searchsorted(steps, first, side="right") - 1
