"""Which thresholds are tested, in which order, and with which images of the calibration set.

A test with k images that allows m errors is the easier to pass, the fewer images k are: so a
sequence tests at the fewest images that allow 0, 1, 2, ... errors, its steps. Every further test
may stop it early, but where steps are far apart it would end long before the risk is too high.
Therefore about twenty tests are spread over the images, at steps where there are some.

Why thresholds may come from the calibration set itself, at ranks fixed beforehand and without a
correction. Let the images be independent draws without ties, and let R(v) be the risk of accepting
the share v that is trusted most: a continuous function. The test at rank k + 1 uses the k images
above that image. Call a rank bad if R is too high where its image lies, and ask how often the
first bad rank passes. R is exactly the wanted risk where it begins to be too high, and where it
ceases to be, so between two such places errors are as frequent as wanted on average. How many
images lie between them decides which rank is the first bad one. Given these numbers, the errors
before the place where R last began to be too high are binomial with the wanted risk, and those
beyond, up to the image at the bad rank, more frequent, since R is still too high there. So the
exact test of the first bad rank passes with probability at most 1 - confidence, and certifying any
bad rank takes that. R may rise and fall as it likes.

Tied images are accepted together, or none of them. Within a tie every rank is tested, the wrong
images first, which can only fail where a random order passes; the end of a tie is offered with all
its images, and the place just above it with those before it. Where ties come from a score of few
values, and not from copies, the argument is no longer exact; the guarantee then rests on
simulations (tests/decisions/test_guarantee.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.decisions.accepting import Accepting
from trustvlm.decisions.p_values import PValue
from trustvlm.exceptions import InputError

__all__ = ["FIRST_SHARE", "LEVELS", "Hypotheses", "first_counts", "sequence_counts", "step_counts"]

# Early tests rest on few images and fail by chance; a late start certifies nothing before it.
# Chosen on simulated populations (docs/research/certified-thresholds.md), not on image sets.
FIRST_SHARE = 0.2
LEVELS = 20


@dataclass(frozen=True)
class Hypotheses:
    """Thresholds whose risk may be too high, from the strictest to the most lenient.

    Attributes
    ----------
    evidence, errors
        `(t,)` int64, how many images the test of each uses, and how many of those are wrong.
    thresholds
        `(t,)` float64; accept where confidence >= threshold. NaN where none is offered: some
        tests only stand on the way.
    """

    evidence: NDArray[np.int64]
    errors: NDArray[np.int64]
    thresholds: NDArray[np.float64]

    @classmethod
    def of_sequence(cls, accepting: Accepting, counts: NDArray[np.int64]) -> Hypotheses:
        """Test with so many images, `sequence_counts`, and at every rank within ties from there on.

        Examples
        --------
        >>> found = Accepting.of([0.9, 0.8, 0.5, 0.5, 0.1], [True, True, True, False, True])
        >>> tests = Hypotheses.of_sequence(found, np.array([1, 4]))
        >>> tests.evidence, tests.thresholds
        (array([1, 2, 3, 4]), array([0.8, 0.5, nan, 0.1]))
        """
        n = accepting.n
        if not counts.size:
            return cls.none()
        tested = np.zeros(n + 1, dtype=bool)
        tested[counts] = True
        alone = np.zeros(n + 2, dtype=bool)
        alone[1 : n + 1] = accepting.reachable[1:] & accepting.reachable[:-1]
        # A tie is left between two places that can be reached: its ranks, and the one before it.
        inside = ~alone[1 : n + 1]
        tested[1:] |= inside
        tested[:-1] |= inside
        tested[: counts[0]] = False
        evidence = np.flatnonzero(tested)
        next_alone = alone[evidence + 1]
        end_of_tie = accepting.reachable[evidence] & ~alone[evidence]
        accepted = np.where(next_alone, evidence + 1, evidence)
        offered = next_alone | end_of_tie
        thresholds = np.where(offered, accepting.thresholds[accepted - 1], np.nan)
        above_tie = np.flatnonzero(accepting.reachable[evidence] & ~offered & (evidence < n))
        tied = accepting.thresholds[evidence[above_tie]]
        thresholds[above_tie] = np.nextafter(tied, np.inf)
        return cls(evidence, accepting.errors[evidence], thresholds)

    @classmethod
    def of_levels(cls, accepting: Accepting, levels: int) -> Hypotheses:
        """Offer thresholds just above the confidences at evenly spaced levels of coverage.

        Examples
        --------
        >>> found = Accepting.of([0.9, 0.5, 0.4, 0.1], [True, True, False, True])
        >>> Hypotheses.of_levels(found, 2).evidence
        array([1, 3])
        """
        if levels < 1:
            raise InputError(f"Expected `levels` to be at least 1, but got {levels}.")
        ranks = np.unique(np.ceil(accepting.n * np.arange(1, levels + 1) / levels).astype(int))
        cuts = accepting.thresholds[ranks - 1] if accepting.n else np.empty(0)
        above = np.searchsorted(-accepting.thresholds, -cuts, side="left")
        thresholds = np.where(above > 0, np.nextafter(cuts, np.inf), np.nan)
        return cls(above, accepting.errors[above], thresholds)

    @classmethod
    def of_thresholds(cls, accepting: Accepting, thresholds: ArrayLike) -> Hypotheses:
        """Offer thresholds that were fixed without looking at the calibration set."""
        cuts = np.unique(np.asarray(thresholds, dtype=np.float64).ravel())[::-1]
        if not cuts.size or np.isnan(cuts).any():
            raise InputError("Expected `thresholds` to be one or more numbers, none of them NaN.")
        accepted = np.searchsorted(-accepting.thresholds, -cuts, side="right")
        return cls(accepted, accepting.errors[accepted], np.where(accepted > 0, cuts, np.nan))

    @classmethod
    def none(cls) -> Hypotheses:
        """No thresholds at all."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, np.empty(0))


@lru_cache(maxsize=256)
def step_counts(
    most: int, risk: float, confidence_level: float, p_value: PValue
) -> NDArray[np.int64]:
    """Fewest images that allow 0, 1, 2, ... errors, as long as these are at most `most` images.

    Examples
    --------
    >>> from trustvlm.decisions.binomial import binomial_p_value
    >>> step_counts(200, 0.05, 0.95, binomial_p_value)
    array([ 59,  93, 124, 153, 181])
    """
    errors = np.arange(int(most * risk) + 2)
    low, high = errors.copy(), np.full_like(errors, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        passed = p_value(errors, middle, risk) <= 1 - confidence_level
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return high[high <= most]


def first_counts(
    n: ArrayLike, steps: NDArray[np.int64], first_share: float = FIRST_SHARE
) -> NDArray[np.int64]:
    """Images that the first test uses, for each number n of images in all: a step.

    The last step with at most the share of the images, or the very first.

    Examples
    --------
    >>> first_counts([50, 400, 640], np.array([59, 93, 124]))
    array([ 59,  59, 124])
    """
    wanted = np.maximum(first_share * np.asarray(n), steps[0])
    return np.asarray(steps[np.searchsorted(steps, wanted, side="right") - 1])


def sequence_counts(
    n: int, steps: NDArray[np.int64], first_share: float = FIRST_SHARE
) -> NDArray[np.int64]:
    """Images that each test of a sequence uses, ascending; none if n images cannot certify.

    From the first on always the next step that is n / 40 or more away; gaps wider than n / 20 are
    divided evenly into parts of about that.

    Examples
    --------
    >>> sequence_counts(200, np.array([59, 93, 124, 153, 181]))
    array([ 59,  70,  81,  93, 103, 113, 124, 133, 143, 153, 162, 171, 181,
           190, 199])
    """
    first = int(first_counts(n, steps, first_share)) if steps.size else n + 1
    if first > n:
        return np.empty(0, dtype=np.int64)
    counts = [first]
    while counts[-1] < n - 1:
        begin = counts[-1]
        later = steps[(steps >= begin + n / (2 * LEVELS)) & (steps < n)]
        end = int(later[0]) if later.size else n - 1
        parts = max(1, round(LEVELS * (end - begin) / n))
        counts += [begin + (end - begin) * part // parts for part in range(1, parts + 1)]
    return np.array(counts)
