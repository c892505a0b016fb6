"""Where the certificate tested before its sequence had heads and tests of whole plateaus."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.risk_control.tests import binomial_p_value


@lru_cache(maxsize=256)
def step_counts(most: int, risk: float, confidence_level: float) -> NDArray[np.int64]:
    """Fewest images that allow 0, 1, 2, ... errors, as long as these are at most `most` images."""
    errors = np.arange(int(most * risk) + 2)
    low, high = errors.copy(), np.full_like(errors, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        passed = binomial_p_value(errors, middle, risk) <= 1 - confidence_level
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return high[high <= most]


def first_counts(
    n: ArrayLike, steps: NDArray[np.int64], first_share: float = 0.2
) -> NDArray[np.int64]:
    """Images that the first test uses, for each number n of images in all: a step.

    The last step with at most the share of the images, or the very first.
    """
    wanted = np.maximum(first_share * np.asarray(n), steps[0])
    return np.asarray(steps[np.searchsorted(steps, wanted, side="right") - 1])


def sequence_counts(
    n: int, steps: NDArray[np.int64], first_share: float = 0.2
) -> NDArray[np.int64]:
    """Images that each test of a sequence uses, ascending; none if n images cannot certify.

    From the first on always the next step that is n / 40 or more away, up to all images; gaps wider
    than n / 20 are divided evenly into parts of about that.
    """
    first = int(first_counts(n, steps, first_share)) if steps.size else n + 1
    if first > n:
        return np.empty(0, dtype=np.int64)
    counts = [first]
    while counts[-1] < n:
        begin = counts[-1]
        later = steps[(steps >= begin + n / (2 * 20)) & (steps < n)]
        end = int(later[0]) if later.size else n
        parts = max(1, round(20 * (end - begin) / n))
        counts += [begin + (end - begin) * part // parts for part in range(1, parts + 1)]
    return np.array(counts)


def former(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], risk: float, level: float
) -> float:
    """Threshold of the former sequence, infinity if none; ties were tested at both ends."""
    n = len(confidence)
    steps = step_counts(n, risk, level)
    counts = sequence_counts(n, steps)
    if not counts.size:
        return np.inf
    order = np.argsort(-confidence, kind="stable")
    descending = confidence[order]
    reachable = np.r_[0, np.flatnonzero(np.diff(descending, append=-np.inf)) + 1]
    at = np.searchsorted(reachable, counts)
    above, end = reachable[at - 1], reachable[at]
    allowed, allowed_above = (np.searchsorted(steps, k, side="right") for k in (counts, above))
    both = (end > counts) & (above >= counts[0]) & (allowed_above == allowed)
    tested = np.union1d(above[both], end)
    errors = np.cumsum(~correct[order])[tested - 1]
    passed = np.logical_and.accumulate(binomial_p_value(errors, tested, risk) <= 1 - level)
    if not passed.any():
        return np.inf
    k = int(tested[passed.sum() - 1])
    return float(descending[-1] if k == n else np.nextafter(descending[k], np.inf))
