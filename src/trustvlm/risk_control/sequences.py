"""Which thresholds are tested, in which order, and how many images that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trustvlm.exceptions import InputError
from trustvlm.metrics.counts import rank
from trustvlm.metrics.inputs import confidence_array
from trustvlm.risk_control.tests import binomial_p_value, fewest_images

# Errors among the k most trusted images, for every k, with the least favourable order of ties.


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
        # A threshold is a float64: it cannot separate what is equal as such.
        ranking = rank(score.astype(np.float64), correct)
        n, ends = ranking.n, ranking.ends + 1
        wrong = ranking.in_blocks.wrong
        sizes = np.diff(ends, prepend=0)
        rank_in_block = np.arange(n) - np.repeat(ends - sizes, sizes) + 1
        in_block = np.minimum(rank_in_block, np.repeat(np.diff(wrong), sizes))
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


# Which thresholds are tested, in which order, and with which images of the calibration set.
#
# A test with k images that allows m errors is the easier to pass, the fewer images k are: so a
# sequence tests at the fewest images that allow 0, 1, 2, ... errors, its steps. Every further test
# may stop it early, but where steps are far apart it would end long before the risk is too high.
# Therefore about twenty tests are spread over the images, at steps where there are some.
#
# Which thresholds. Of the images in order of confidence, the test at rank k counts the errors among
# the first k, and offers to accept whatever is strictly above image k + 1; at the last rank, n,
# whatever is not below image n.
#
# One test is exact for every distribution. Given the confidence of image k + 1 and how many images
# are above it, these are independent draws of what would be accepted. For rank n, call a confidence
# bad if the risk of accepting from there on is too high, and let bad confidences form stretches.
# With
# F the share of images that are not below a stretch's lower end, and G that above its upper end,
# its
# lowest image lies in the stretch and the test passes with probability F^n P - G^n Q, where P is
# the
# chance that n draws of the share F pass, whose risk is at least the wanted one, and Q that n draws
# of the share G pass, whose risk is at most that. With C, the chance at the wanted risk itself, P
# is
# at most C and Q at least C, so this is at most (F^n - G^n) C. The stretches sum to at most C,
# which
# is at most 1 - confidence.
#
# Why many may be tested without a correction, if confidences are continuous. Let images stand at
# the
# share v that is trusted more than they, uniform in [0, 1], let H(v) be the errors among this
# share,
# r the wanted risk. Call a rank bad if the image its threshold comes from, k + 1, or n for rank n,
# lies where H(v) > r v. Such places are intervals, at both ends of which H(v) = r v; the last may
# end
# at 1 instead. So errors are as frequent as r on average within each interval and between any two,
# or more frequent within the last. Given how many images lie in each, which ranks are bad is fixed,
# the images within an interval are independent draws of it, and intervals are independent of each
# other. From the beginning of a bad interval on, errors come earlier than at a constant rate of r,
# since H is above the line; so among the first j of its images there are at least as many as at a
# constant rate, for all j together. Hence at the bad ranks there are at least as many errors as in
# a row of independent images that are wrong with probability r. The exact test of the first bad
# rank
# passes with probability at most 1 - confidence, and certifying any bad rank takes that. The risk
# may
# rise and fall with the share as it likes. This holds for all bad ranks jointly, so that any other
# procedure that is valid for dependent tests could replace the fixed sequence.
#
# Ties are accepted together or not at all. A rank within a tie is replaced by the end of the tie,
# and
# by all that is above it where that test can be as good. The latter is exact by itself, as above;
# the
# end of a tie is not, since how many images tie is up to the draw. Neither is then the sequence as
# a
# whole: ranks are bad by chance. There the guarantee rests on simulations, those of scores with
# three
# values that broke an earlier rule among them (tests/risk_control/test_guarantee.py).

# Early tests rest on few images and fail by chance; a late start certifies nothing before it.
# Chosen on simulated populations (docs/research/certified-thresholds.md), not on image sets.
FIRST_SHARE = 0.2
LEVELS = 20


@dataclass(frozen=True)
class Hypotheses:
    """Thresholds whose risk may be too high, from the strictest to the most lenient.

    Attributes
    ----------
    accepted, errors
        `(t,)` int64, how many images each accepts, and how many of those are wrong.
    thresholds
        `(t,)` float64; accept where confidence >= threshold.
    """

    accepted: NDArray[np.int64]
    errors: NDArray[np.int64]
    thresholds: NDArray[np.float64]

    @classmethod
    def of_sequence(
        cls, accepting: Accepting, counts: NDArray[np.int64], steps: NDArray[np.int64]
    ) -> Hypotheses:
        """Test at the ranks of `sequence_counts`, and where one is within a tie at the tie's ends.

        The upper end, all above the tie, is left out before the first rank, and where it allows
        fewer errors than the rank: few images more would make it the likeliest test to fail.

        Examples
        --------
        >>> accepting = Accepting.of([0.9, 0.8, 0.5, 0.5, 0.5], [True, True, True, False, True])
        >>> tests = Hypotheses.of_sequence(accepting, np.array([1, 3, 5]), np.array([1, 4]))
        >>> tests.accepted, tests.thresholds.round(3)
        (array([1, 2, 5]), array([0.8, 0.5, 0.5]))
        """
        if not counts.size:
            return cls.of_counts(accepting, counts)
        reachable = np.flatnonzero(accepting.reachable)
        at = np.searchsorted(reachable, counts)
        above, end = reachable[at - 1], reachable[at]
        allowed, allowed_above = (np.searchsorted(steps, k, side="right") for k in (counts, above))
        both = (end > counts) & (above >= counts[0]) & (allowed_above == allowed)
        return cls.of_counts(accepting, np.union1d(above[both], end))

    @classmethod
    def of_levels(cls, accepting: Accepting, levels: int) -> Hypotheses:
        """Test at the ranks at evenly spaced levels of coverage, and above ties that hold them.

        Examples
        --------
        >>> accepting = Accepting.of([0.9, 0.5, 0.5, 0.1], [True, True, False, True])
        >>> Hypotheses.of_levels(accepting, 2).accepted
        array([1, 4])
        """
        if levels < 1:
            raise InputError(f"Expected `levels` to be at least 1, but got {levels}.")
        ranks = np.ceil(accepting.n * np.arange(1, levels + 1) / levels).astype(np.int64)
        reachable = np.flatnonzero(accepting.reachable)
        above = np.unique(reachable[np.searchsorted(reachable, ranks, side="right") - 1])
        return cls.of_counts(accepting, above[above > 0])

    @classmethod
    def of_counts(cls, accepting: Accepting, accepted: NDArray[np.int64]) -> Hypotheses:
        """Offer the thresholds that accept so many images, reachable numbers in ascending order."""
        thresholds = accepting.thresholds(accepted) if accepted.size else np.empty(0)
        return cls(accepted, accepting.errors[accepted], thresholds)

    @classmethod
    def of_thresholds(cls, accepting: Accepting, thresholds: ArrayLike) -> Hypotheses:
        """Offer thresholds that were fixed without looking at the calibration set."""
        cuts = np.unique(np.asarray(thresholds, dtype=np.float64).ravel())[::-1]
        if not cuts.size or np.isnan(cuts).any():
            raise InputError("Expected `thresholds` to be one or more numbers, none of them NaN.")
        accepted = np.searchsorted(-accepting.confidence, -cuts, side="right")
        return cls(accepted, accepting.errors[accepted], cuts)


@lru_cache(maxsize=256)
def step_counts(most: int, risk: float, confidence_level: float) -> NDArray[np.int64]:
    """Fewest images that allow 0, 1, 2, ... errors, as long as these are at most `most` images.

    Examples
    --------
    >>> step_counts(200, 0.05, 0.95)
    array([ 59,  93, 124, 153, 181])
    """
    errors = np.arange(int(most * risk) + 2)
    low, high = errors.copy(), np.full_like(errors, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        passed = binomial_p_value(errors, middle, risk) <= 1 - confidence_level
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

    From the first on always the next step that is n / 40 or more away, up to all images; gaps wider
    than n / 20 are divided evenly into parts of about that.

    Examples
    --------
    >>> sequence_counts(200, np.array([59, 93, 124, 153, 181]))
    array([ 59,  70,  81,  93, 103, 113, 124, 133, 143, 153, 162, 171, 181,
           190, 200])
    """
    first = int(first_counts(n, steps, first_share)) if steps.size else n + 1
    if first > n:
        return np.empty(0, dtype=np.int64)
    counts = [first]
    while counts[-1] < n:
        begin = counts[-1]
        later = steps[(steps >= begin + n / (2 * LEVELS)) & (steps < n)]
        end = int(later[0]) if later.size else n
        parts = max(1, round(LEVELS * (end - begin) / n))
        counts += [begin + (end - begin) * part // parts for part in range(1, parts + 1)]
    return np.array(counts)


# How many more labelled images it would take to certify a threshold.

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
