"""Which thresholds are tested, in which order, and how many images that takes."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array
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
        wrong = ~correctness_array(correct, len(score))
        # A threshold is a float64: it cannot separate what is equal as such.
        ascending = np.argsort(score.astype(np.float64))
        descending = score[ascending[::-1]].astype(np.float64)
        reachable = np.ones(len(score) + 1, dtype=bool)
        np.not_equal(descending[1:], descending[:-1], out=reachable[1:-1])
        errors = np.zeros(len(score) + 1, dtype=np.int64)
        np.cumsum(wrong[ascending[::-1]], out=errors[1:])
        if not reachable.all():
            ends = np.flatnonzero(reachable)
            sizes = np.diff(ends)
            rank_in_tie = np.arange(1, len(errors)) - np.repeat(ends[:-1], sizes)
            wrong_in_tie = np.repeat(np.diff(errors[ends]), sizes)
            before = np.repeat(errors[ends[:-1]], sizes)
            errors[1:] = before + np.minimum(rank_in_tie, wrong_in_tie)
        return cls(descending, _just_above(descending, score.dtype), errors, reachable)

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


# Which thresholds are tested, in which order, at which level, and with which images.
#
# Of the images in order of confidence, the test at rank k counts the errors among the first k,
# and offers to accept whatever is strictly above image k + 1; at the last rank, n, whatever is
# not below image n. With d the error budget, 1 - confidence level, it passes at level a <= d if
# P(Binomial(k, r) <= errors) <= a. Call a step the fewest images that allow a number of errors at
# a level, and a plateau the ranks from one step to the next, which all allow the same number.
#
# The sequence. Tests run from strict to lenient as long as they pass; the last that passed
# counts.
#
# * Starts. The main start takes up to a fifth of the images. Where few images can certify so
#   much, heads come before it, which take up to 1/32, 1/16 and 1/10 of them. Each start brings a
#   share of the budget of its own; a chain that arrives there without a failure adds it to its
#   level, and after a failure the level is that share alone (fall-back: Wiens 2003; Wiens &
#   Dmitrienko 2005). So a head costs the main start what it was given only if it fails.
# * Keys. From each start on a test at every step that is n / 100 or more after the last: just
#   before a step a test is the likeliest to fail.
# * On a plateau every rank up to a tested one may be tested for nothing, since it passes wherever
#   that one does. So all ranks are tested from a key until half-way, or n / 20, before the next
#   step.
#
# Why that is valid, if confidences are continuous. Let images stand at the share v that is
# trusted more than they, uniform in [0, 1]; let H(v) be the errors among this share. The image
# that rank k's threshold comes from is k + 1 (n for rank n). Call rank k bad if that image lies
# where H(v) > r v, since accepting up to there is too risky. These places form open intervals, at
# both ends of which H(v) = r v, but for the last, which may end at 1 with H(1) > r.
#
# 1. Between the intervals, and over each complete one, the mean error rate is hence exactly r,
#    and over the last at least r. From the lower end a of an interval to any v in it the mean
#    rate is above r, since H(v) - H(a) > r (v - a).
# 2. Condition on C, how many images lie in each interval and each gap. Then it is fixed which
#    ranks are bad. Images within an interval or gap are independent draws of it, all parts
#    independent.
# 3. In complete gaps and intervals images are hence wrong with probability r each. Within an
#    interval compare them with images that are wrong with probability r wherever they are. Where
#    the interval ends with more errors than r, disregard the wrong ones beyond that share. Then
#    equally many are wrong, and wrong ones lie no further back than in the comparison (by 1):
#    both can be drawn together so that each wrong one there has one here no later, and among the
#    first j of the interval, for all j together, at least as many are wrong here. So at the bad
#    ranks, all together, the errors are at least those of a row of images that are wrong
#    independently with probability r.
# 4. Therefore P(test at k passes at level a | C) <= a for every bad k, whatever the others do.
# 5. A bad rank is accepted only if some bad rank is accepted first, k. Let k' be the last bad
#    rank before it, if any: it was not accepted, which set the level to 0. So the level at k is
#    at most d times the sum of the shares of the starts in (k', k]. Given C these intervals are
#    fixed and disjoint, so by (4) and the union bound any bad rank is accepted with probability
#    at most d times the sum of all shares, d. Averaging over C ends the proof. The risk may rise
#    and fall with the share as it likes.
#
# Given its own confidence S and the number M strictly above it, a single test strictly above is
# exact for every distribution, since these M are independent draws of what would be accepted. So
# is a single test at rank n: call a confidence bad if accepting from there on is too risky, and
# let bad ones form stretches. With F the share not below a stretch's lower end and G that above
# its upper end, the lowest image lies in the stretch and passes with probability F^n P - G^n Q,
# where P is the chance that n draws of the share F pass, at most that at r itself, and Q that n
# draws of the share G pass, at least that. The stretches sum to at most d.
#
# Ties are accepted together or not at all: a key within a tie is tested at the end of the tie,
# with all images down to there, and other ranks within a tie are left out. Then what is tested at
# which level depends on the draw, though not on which labels are right, and neither the end of a
# tie nor the sequence as a whole is proved. There the guarantee rests on simulations, an
# adversarial search over discrete and mixed populations among them
# (benchmarks/certificate_validity.py).

# Constants were chosen on simulated populations (docs/research/certified-thresholds.md), not on
# image sets. A late main start certifies nothing before it, an early one fails by chance.
FIRST_SHARE = 0.2
LEVELS = 20
_KEYS = 100
# Of the heads: the images they take, as a share of all; their part of what the heads get together.
_HEADS = ((1 / 32, 0.1), (1 / 16, 0.2), (1 / 10, 0.7))
# Together heads get this share of the budget at least, or what a tenth of the images but two needs
# without an error; there are none where that is more than the second.
_LEAST, _MOST = 0.22, 0.77
# No test closer before the next start than this share of its rank.
_BEFORE_START = 0.93


@dataclass(frozen=True)
class Plan:
    """Where a sequence tests, which depends on the number of images alone but for ties.

    Attributes
    ----------
    ranks
        `(t,)` int64, ascending.
    shares
        `(t,)` float64, the share of the error budget that starts at each test, 0 for most; they add
        up to 1.
    keys
        `(t,)` bool: False where a test is left out if the rank is within a tie.

    Examples
    --------
    >>> plan = Plan.of(1000, 0.1, 0.95)
    >>> [(int(k), round(float(share), 2)) for k, share in plan.starts]
    [(55, 0.07), (84, 0.15), (196, 0.78)]
    >>> Plan.of(200, 0.05, 0.95).ranks[[0, -1]]
    array([ 59, 200])
    >>> Plan.of(58, 0.05, 0.95).ranks.size
    0
    """

    ranks: NDArray[np.int64]
    shares: NDArray[np.float64]
    keys: NDArray[np.bool_]

    @property
    def starts(self) -> list[tuple[int, float]]:
        """Ranks of the starts, and their shares of the error budget."""
        at = np.flatnonzero(self.shares)
        return list(zip(self.ranks[at].tolist(), self.shares[at].tolist(), strict=True))

    @classmethod
    @lru_cache(maxsize=1024)
    def of(
        cls, n: int, risk: float, confidence_level: float, first_share: float = FIRST_SHARE
    ) -> Plan:
        """Plan the tests of n images; none if so few cannot certify."""
        budget = 1 - confidence_level
        starts = _starts(n, risk, budget, first_share)
        keys: dict[int, float] = {}
        dense: set[int] = set()
        level = 0.0
        for i, (start, share) in enumerate(starts):
            keys[start] = share
            level = min(1.0, level + share)
            main = i == len(starts) - 1
            # The main start's keys suit the level after a failure, those of heads that without.
            steps = _Steps(risk, budget * (share if main else level))
            # A chain that is about to fail should not, shortly before it gets a larger level.
            limit = n if main else math.ceil(_BEFORE_START * starts[i + 1][0]) - 1
            gap = 1.0 if main else 1.1
            rank = start
            while rank <= limit:
                keys.setdefault(rank, 0.0)
                following = steps.after(rank)
                until = max((rank + following) // 2, math.floor(following - n / LEVELS))
                until = min(limit, until) if following <= n else limit
                dense.update(range(rank, until + 1))
                rank = steps.from_(
                    max(math.ceil(gap * rank), math.ceil(rank + n / _KEYS), until + 1)
                )
        if starts:
            keys.setdefault(n, 0.0)
        ranks = np.array(sorted(dense | keys.keys()), dtype=np.int64)
        is_key = np.array([k in keys for k in ranks.tolist()], dtype=bool)
        return cls(ranks, np.array([keys.get(k, 0.0) for k in ranks.tolist()]), is_key)


def _starts(n: int, risk: float, budget: float, first_share: float) -> list[tuple[int, float]]:
    """Ranks of the heads and the main start, ascending, with their shares of the budget."""
    first = _Steps(risk, budget).last_within(first_share * n)
    heads: list[tuple[int, float]] = []
    # Of a tenth that is right a draw has a few more or fewer; rounding must not refuse it either.
    without_error = (1 - risk) ** (n // 10 - 2) / budget * (1 + 1e-9)
    together = max(_LEAST, without_error)
    saved = 0.0
    for share, part in _HEADS if together <= _MOST else ():
        saved += part * together
        steps = _Steps(risk, saved * budget)
        # What a smaller head cannot use goes to the next.
        if steps.first > share * n and share != _HEADS[-1][0]:
            continue
        head = steps.last_within(share * n)
        if head <= 0.85 * first:
            heads.append((head, saved))
            saved = 0.0
    left = 1.0 - sum(share for _, share in heads)
    main = _Steps(risk, left * budget).last_within(first_share * n)
    return [*heads, (main, left)] if main <= n else []


@dataclass(frozen=True)
class _Steps:
    """Fewest images that allow 0, 1, 2, ... errors at a level."""

    risk: float
    level: float

    def fewest(self, errors: int) -> int:
        """Fewest images that allow these errors."""
        # With L = -ln(level) and m images, P(Binomial(m, r) <= k) <= exp(-(m r - k)^2 / (2 m r)) by
        # Chernoff's bound, which is at most the level from m r = k + L + sqrt(L^2 + 2 k L) on.
        bits = -math.log(self.level)
        most = (errors + bits + math.sqrt(bits * (bits + 2 * errors))) / self.risk
        enough = range(errors, math.ceil(most) + 2)
        return enough[bisect_left(enough, True, key=lambda m: self._passes(errors, m))]

    def allowed(self, images: int) -> int:
        """Most errors that so many images allow, -1 if none."""
        return bisect_left(range(images), True, key=lambda k: not self._passes(k, images)) - 1

    @property
    def first(self) -> int:
        """Fewest images that can certify at all."""
        return self.fewest(0)

    def last_within(self, images: float) -> int:
        """Return the last step of at most so many images, or the first."""
        return self.fewest(max(0, self.allowed(max(0, math.floor(images)))))

    def after(self, images: int) -> int:
        """Return the first step of more images."""
        return self.fewest(self.allowed(images) + 1)

    def from_(self, images: int) -> int:
        """Return the first step of so many images or more."""
        return self.after(images - 1)

    def _passes(self, errors: int, images: int) -> bool:
        return errors < images and bool(
            scipy.special.betainc(images - errors, errors + 1, 1 - self.risk) <= self.level
        )


@dataclass(frozen=True)
class Hypotheses:
    """Thresholds whose risk may be too high, from the strictest to the most lenient.

    Attributes
    ----------
    accepted, errors
        `(t,)` int64, how many images each accepts, and how many of those are wrong.
    thresholds
        `(t,)` float64; accept where confidence >= threshold.
    shares
        `(t,)` float64, the share of the error budget that a sequence starts with at each; they add
        up to 1.
    """

    accepted: NDArray[np.int64]
    errors: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    shares: NDArray[np.float64]

    @classmethod
    def of_sequence(cls, accepting: Accepting, plan: Plan) -> Hypotheses:
        """Test at the ranks of a plan, and where a key is within a tie at the tie's end.

        Examples
        --------
        >>> accepting = Accepting.of([0.9, 0.8, 0.5, 0.5, 0.5], [True, True, True, False, True])
        >>> tests = Hypotheses.of_sequence(accepting, Plan.of(5, 0.6, 0.9))
        >>> tests.accepted, tests.thresholds.round(3), tests.shares
        (array([5]), array([0.5]), array([1.]))
        """
        reachable = np.flatnonzero(accepting.reachable)
        end = reachable[np.searchsorted(reachable, plan.ranks)]
        kept = plan.keys | (end == plan.ranks)
        accepted, at = np.unique(end[kept], return_inverse=True)
        shares = np.zeros(len(accepted))
        np.add.at(shares, at, plan.shares[kept])
        return cls.of_counts(accepting, accepted, shares)

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
    def of_counts(
        cls,
        accepting: Accepting,
        accepted: NDArray[np.int64],
        shares: NDArray[np.float64] | None = None,
    ) -> Hypotheses:
        """Offer the thresholds that accept so many images, reachable numbers in ascending order."""
        thresholds = accepting.thresholds(accepted) if accepted.size else np.empty(0)
        if shares is None:
            shares = _all_at_first(len(accepted))
        return cls(accepted, accepting.errors[accepted], thresholds, shares)

    @classmethod
    def of_thresholds(cls, accepting: Accepting, thresholds: ArrayLike) -> Hypotheses:
        """Offer thresholds that were fixed without looking at the calibration set."""
        cuts = np.unique(np.asarray(thresholds, dtype=np.float64).ravel())[::-1]
        if not cuts.size or np.isnan(cuts).any():
            raise InputError("Expected `thresholds` to be one or more numbers, none of them NaN.")
        accepted = np.searchsorted(-accepting.confidence, -cuts, side="right")
        return cls(accepted, accepting.errors[accepted], cuts, _all_at_first(len(cuts)))


def _all_at_first(tests: int) -> NDArray[np.float64]:
    first: NDArray[np.float64] = (np.arange(tests) == 0).astype(np.float64)
    return first


# How many more labelled images it would take to certify a threshold.

# Times the fewest images that could ever do, and in how many steps up to there.
_MOST_TIMES = 2_000
_TOTALS = 64
# A number of images is enough if it certifies with this probability, given that any could; none
# is expected to if that any could is less probable than the second. Chosen on simulated
# populations (benchmarks/images_needed.py): a test that is the first of many to look good enough
# looks too good.
_ENOUGH = 0.9
_HOPE = 0.6
_QUANTILES = (np.arange(5) + 0.5) / 5


@dataclass(frozen=True)
class Openings:
    """The tests of which one must pass so that a threshold is certified, for T numbers of images.

    Those are the starts of a sequence, or all tests of a procedure that corrects for their number.

    Attributes
    ----------
    totals
        `(T,)` int64, images in all, ascending.
    ranks
        `(T, s)` int64, how many images each test uses, at most those in all.
    allowed
        `(T, s)` int64, the most errors with which it passes, -1 if none.
    """

    totals: NDArray[np.int64]
    ranks: NDArray[np.int64]
    allowed: NDArray[np.int64]

    @classmethod
    @lru_cache(maxsize=64)
    def of_sequence(cls, risk: float, confidence_level: float, first_share: float) -> Openings:
        """Where the plans start."""
        budget = 1 - confidence_level
        totals = _totals(risk, confidence_level)
        ranks = np.zeros((len(totals), len(_HEADS) + 1), dtype=np.int64)
        allowed = np.full_like(ranks, -1)
        for row, n in enumerate(totals.tolist()):
            for column, (rank, share) in enumerate(_starts(n, risk, budget, first_share)):
                ranks[row, column] = rank
                allowed[row, column] = _Steps(risk, share * budget).allowed(rank)
        return cls(totals, ranks, allowed)

    @classmethod
    def of_shares(
        cls, shares: NDArray[np.float64], risk: float, confidence_level: float, level: float
    ) -> Openings:
        """Take tests at a level that use a share of the images each, whatever their number."""
        # There are many tests, which takes time: every fourth number of images has to do.
        totals = _totals(risk, confidence_level)[::4]
        ranks = np.floor(totals[:, None] * shares + 1e-9).astype(np.int64)
        allowed = scipy.special.bdtrik(level, np.maximum(ranks, 1), risk)
        passes = (1 - risk) ** ranks <= level
        return cls(totals, ranks, np.where(passes, np.floor(allowed), -1).astype(np.int64))


def _totals(risk: float, confidence_level: float) -> NDArray[np.int64]:
    least = fewest_images(risk, confidence_level)
    return np.unique(np.ceil(np.geomspace(least, _MOST_TIMES * least, _TOTALS)).astype(np.int64))


def images_needed(accepting: Accepting, openings: Openings, risk: float) -> float:
    """Estimate how many more labelled images it would take to certify a threshold.

    Parameters
    ----------
    accepting
        The calibration set, on which no threshold could be certified.

    Returns
    -------
    float
        A whole number, or infinity where none is expected to help.

    Notes
    -----
    What a test counts are the errors seen so far among the same share of the images, and those of
    new images, which are binomial at the risk there. That risk has a prior of mean `risk` / 2 with
    the weight of 1 / risk images, Beta(1/2, 1/risk - 1/2); its posterior gives the chance that it
    is below `risk` at all, and that the test passes (predictive distribution). Certification counts
    as possible with the largest of the former over all tests and numbers of images. The answer is
    the first number with which a test passes with 90 % of that probability, or the best there is.

    Examples
    --------
    >>> ten_right = Accepting.of(range(10), [1] * 10)
    >>> images_needed(ten_right, Openings.of_sequence(0.05, 0.95, 0.2), 0.05)
    5771.0
    """
    n = accepting.n
    more = openings.totals > n
    totals, ranks, allowed = openings.totals[more], openings.ranks[more], openings.allowed[more]
    if not ranks.size:
        return math.inf
    seen = np.minimum(n, np.round(n * ranks / totals[:, None]).astype(np.int64))
    wrong = accepting.errors[seen]
    posterior = wrong + 0.5, seen - wrong + 1 / risk - 0.5
    low_enough = np.where(allowed >= 0, scipy.special.betainc(*posterior, risk), 0.0)
    # The mean over the posterior below `risk`, at its quantiles.
    risks = scipy.special.betaincinv(
        *(a[..., None] for a in posterior), low_enough[..., None] * _QUANTILES
    )
    left, new = allowed - wrong, ranks - seen
    passes = binomial_p_value(np.maximum(left, 0)[..., None], new[..., None], risks).mean(axis=-1)
    certified = np.where(left >= 0, low_enough * passes, 0.0).max(axis=1)
    possible = low_enough.max()
    if possible < _HOPE:
        return math.inf
    enough = certified >= min(_ENOUGH * possible, certified.max())
    return float(totals[np.argmax(enough)] - n)
