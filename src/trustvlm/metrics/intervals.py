"""Intervals that hold with few errors, from exact methods and the variance over resamples.

Percentiles of resamples hold what they should only where there are many errors and many right
predictions: resamples cannot show an error that the samples lack. These intervals are binomial ones
with as many trials as the variance over resamples stands for, which is itself taken to be as
uncertain as so few errors make it; one further error of average rank is what may have been missed.
How often they hold the truth: `benchmarks/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.conventions import EXACT, aurc, best_aurc
from trustvlm.metrics.counts import Counts, Ranking, area_table
from trustvlm.metrics.info import METRIC_INFO

FEW = 10
"""Intervals with fewer errors, or fewer right predictions, are wide and rough."""

NEEDS_BOTH = ("auroc", "fpr95", "aupr_error")
"""Metrics that have no value unless some samples are right and some wrong."""

# What one error adds to n times the metric (to 1 - it for AUPR-success), if its rank in the order
# is random: mean and mean square. At the share u of the samples from the top it adds -ln u to
# the AURC and, to first order, to 1 - AUPR-success; 1 - u to the AUGRC.
_RANDOM_ERROR = {
    "aurc": (1.0, 2.0),
    "eaurc": (1.0, 2.0),
    "aupr_success": (1.0, 2.0),
    "augrc": (1 / 2, 1 / 3),
}
# Errors of random rank that the variance of an AUROC is averaged with.
_PRIOR_ERRORS = 5
# Resampled values that differ by less are equal but for rounding.
_ROUNDING = 1e-12


def clopper_pearson(
    share: ArrayLike, trials: ArrayLike, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact binomial interval of a share.

    Parameters
    ----------
    share
        Observed share of successes, in [0, 1].
    trials
        Number of trials, above 0; need not be whole.
    level
        Least coverage, in (0, 1).

    Returns
    -------
    low, high
        Ends, of the shape that both broadcast to.

    Notes
    -----
    Clopper & Pearson 1934. With the trials that a variance stands for, share (1 - share) / V,
    it is that of Korn & Graubard 1998, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Survey Methodology 24.

    Examples
    --------
    >>> low, high = clopper_pearson([0.0, 0.3], 10, 0.95)
    >>> low.round(4), high.round(4)
    (array([0.    , 0.0667]), array([0.3085, 0.6525]))
    """
    p, n = np.asarray(share, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    tail = (1 - level) / 2
    successes, failures = p * n, (1 - p) * n
    # The inverse is not defined at a parameter of 0, where the end is that of the axis.
    low = scipy.special.betaincinv(np.where(p > 0, successes, 1.0), failures + 1, tail)
    high = scipy.special.betaincinv(successes + 1, np.where(p < 1, failures, 1.0), 1 - tail)
    return np.where(p > 0, low, 0.0), np.where(p < 1, high, 1.0)


def risk_upper_bound(
    errors: ArrayLike, accepted: ArrayLike, confidence_level: float = 0.95
) -> NDArray[np.float64]:
    """Clopper-Pearson upper bound of the risk after k errors among m images.

    Parameters
    ----------
    errors, accepted
        Whole numbers k <= m of one shape. With m = 0 or k = m the bound is 1.
    confidence_level
        One-sided, in (0, 1).

    Examples
    --------
    >>> risk_upper_bound([0, 2, 0], [59, 59, 0]).round(4)
    array([0.0495, 0.1029, 1.    ])
    """
    k, m = np.asarray(errors, dtype=np.float64), np.asarray(accepted, dtype=np.float64)
    full = k >= m
    bound = scipy.special.betaincinv(k + 1, np.where(full, 1.0, m - k), confidence_level)
    return np.where(full, 1.0, bound)


def proportion_lower_bound(
    successes: ArrayLike, n: ArrayLike, confidence_level: float = 0.95
) -> NDArray[np.float64]:
    """Clopper-Pearson lower bound of a proportion after k successes among n.

    Examples
    --------
    >>> proportion_lower_bound([0, 71, 100], 100).round(4)
    array([0.    , 0.6263, 0.9705])
    """
    k = np.asarray(successes, dtype=np.float64)
    return 1.0 - risk_upper_bound(np.asarray(n) - k, n, confidence_level)


def metric_interval(
    metric: str, ranking: Ranking, estimate: float, samples: NDArray[np.float64], level: float
) -> tuple[float, float, str]:
    """Interval of one metric in convention `exact`, and how it was made.

    Parameters
    ----------
    metric
        Its name.
    ranking
        The n samples.
    estimate
        The metric on them; NaN where undefined.
    samples
        `(n_resamples,)` the metric on resamples; NaN where undefined.
    level
        Nominal coverage, in (0, 1).

    Returns
    -------
    low, high
        Ends; NaN where the metric is undefined, or fewer than two resamples have a value.
    method
        `Clopper-Pearson`, `order statistics`, `one class` or `bootstrap`; empty without an
        interval.

    Notes
    -----
    Accuracy: Clopper & Pearson 1934. FPR95: `_fpr95_interval`. Without errors, or with errors only:
    what the worst and the best order could make of an error rate in its Clopper-Pearson interval.

    Else let V be the variance over resamples times (t / z)^2, t Student's quantile with one degree
    of freedom less than the fewer of errors and right predictions, z the normal one. AUROC and
    AUPR-error: Clopper-Pearson with as many trials as V stands for. V of an AUROC is averaged with
    that of an order by chance, in proportion of the errors to five, so that errors which happen to
    lie alike do not seem certain. AURC, E-AURC, AUGRC and 1 - AUPR-success are sums over errors:
    the lower end is that of Clopper-Pearson, the upper one the quantile of the beta distribution
    whose mean and variance are the metric's and V with one further error of random rank added
    (Fay & Feuer 1997, "Confidence intervals for directly standardized rates", Statistics in
    Medicine 16, who add the largest weight and take the gamma distribution of sums without bound).

    A registered metric: Student's interval with that V, within its bounds; none where all samples
    are right, or all wrong, and where the bounds are infinite and all resamples agree.
    """
    wrong, right = int(ranking.in_blocks.n_wrong), int(ranking.in_blocks.n_right)
    if math.isnan(estimate):
        return math.nan, math.nan, ""
    if metric == "accuracy":
        low, high = map(float, clopper_pearson(estimate, ranking.n, level))
        return low, high, "Clopper-Pearson"
    if metric == "fpr95":
        return *_fpr95_interval(ranking, level), "order statistics"
    info = METRIC_INFO[metric]
    if info.function is not None:
        low, high = _any_interval(estimate, samples, min(wrong, right), level, info.bounds)
        return low, high, "" if math.isnan(low) else "bootstrap"
    if not (wrong and right):
        low, high = _one_class_interval(metric, ranking.n, level, all_right=wrong == 0)
        return min(low, estimate), max(high, estimate), "one class"
    kept = samples[~np.isnan(samples)]
    if kept.size < 2:
        return math.nan, math.nan, ""
    fewest = min(wrong, right)
    variance = (
        float(kept.var(ddof=1)) * (student(fewest - 1, level) / student(math.inf, level)) ** 2
    )
    if metric in _RANDOM_ERROR:
        low, high = _sum_interval(metric, estimate, variance, wrong, ranking.n, level)
    else:
        spread = estimate * (1 - estimate)
        vanishing = variance <= _ROUNDING**2
        if metric == "auroc":
            by_chance = (1 / wrong + 1 / right) / 3
            share = by_chance if vanishing and not spread else variance / spread
            trials = (fewest + _PRIOR_ERRORS) / (fewest * share + _PRIOR_ERRORS * by_chance)
        else:
            trials = fewest if vanishing else spread / variance
        low, high = map(float, clopper_pearson(estimate, trials, level))
    return min(low, estimate), max(high, estimate), "bootstrap"


def student(degrees: float, level: float) -> float:
    """Two-sided quantile of Student's distribution; at least one degree of freedom.

    Examples
    --------
    >>> round(student(4, 0.95), 3), round(student(float("inf"), 0.95), 3)
    (2.776, 1.96)
    """
    if math.isinf(degrees):
        return float(scipy.special.ndtri((1 + level) / 2))
    return float(scipy.special.stdtrit(max(degrees, 1), (1 + level) / 2))


def _any_interval(
    estimate: float,
    samples: NDArray[np.float64],
    fewest: int,
    level: float,
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """Interval of a metric of which only its bounds are known; see `metric_interval`."""
    kept, (least, most) = samples[~np.isnan(samples)], bounds
    if fewest < 1 or kept.size < 2:
        return math.nan, math.nan
    deviation = float(kept.std(ddof=1)) * math.sqrt(fewest / max(fewest - 1, 1))
    if deviation > _ROUNDING:
        half = student(fewest - 1, level) * deviation
        return max(estimate - half, least), min(estimate + half, most)
    width = most - least
    if math.isinf(width):
        return math.nan, math.nan
    low, high = clopper_pearson((estimate - least) / width, fewest, level)
    return least + width * float(low), least + width * float(high)


def _sum_interval(
    metric: str, estimate: float, variance: float, wrong: int, n: int, level: float
) -> tuple[float, float]:
    """Interval of a sum over errors; see `metric_interval`."""
    value = 1 - estimate if metric == "aupr_success" else max(estimate, 0.0)
    # A perfect order of n samples has an E-AURC of up to this, one without end has 0.
    least = max(value - wrong / n / (2 * n), 0.0) if metric == "eaurc" else value
    # V may vanish where resamples agree, as they do on a perfect order; then the low end is 0.
    certain = variance <= _ROUNDING**2 or not 0 < least < 1
    trials = 1.0 if certain else least * (1 - least) / variance
    low = 0.0 if certain else float(clopper_pearson(least, trials, level)[0])
    mean, square = _RANDOM_ERROR[metric]
    centre = value + mean / n
    if centre >= 1:
        high = 1.0
    else:
        trials = centre * (1 - centre) / (variance + square / n**2)
        high = float(
            scipy.special.betaincinv(centre * trials, (1 - centre) * trials, (1 + level) / 2)
        )
    return (1 - high, 1 - low) if metric == "aupr_success" else (low, high)


def _one_class_interval(
    metric: str, n: int, level: float, *, all_right: bool
) -> tuple[float, float]:
    """Least and largest value of a metric over orders, and over the error rates that n may hide."""
    size = 10_000
    rare = float(clopper_pearson(0.0, n, level)[1])
    few = np.unique(np.linspace(0, math.ceil(rare * size), 100).astype(np.int64))
    wrong = np.minimum(few if all_right else size - few, size)
    nothing, all_of_them, right = 0 * wrong, np.full_like(wrong, size), size - wrong
    orders = (
        Counts(
            np.stack([nothing, wrong, all_of_them], -1), np.stack([nothing, nothing, right], -1)
        ),
        Counts(np.stack([nothing, right, all_of_them], -1), np.stack([nothing, right, right], -1)),
    )
    values = np.concatenate([_values(metric, order) for order in orders])
    return float(np.nanmin(values)), float(np.nanmax(values))


def _values(metric: str, counts: Counts) -> NDArray[np.float64]:
    if metric not in ("aurc", "eaurc"):
        return EXACT[metric](counts)
    area = aurc(counts, area_table(int(counts.n[0])))
    return area - best_aurc(counts) if metric == "eaurc" else area


def _fpr95_interval(ranking: Ranking, level: float) -> tuple[float, float]:
    """Interval of the FPR95 from the exact distributions of its threshold and of its errors.

    Of r right samples J ~ Binomial(r, 0.05) lie below the threshold that lets 95 % of right ones
    through, whatever their distribution; so it lies between two of them that follow each other in
    the order. The errors above it are binomial. The ends are quantiles of the mixture over J of
    Clopper-Pearson's beta distributions, at the stricter neighbour for the lower end and at the
    laxer one for the upper. Below the last right sample every error may be accepted: with fewer
    than 72 right ones the upper end is 1 at level 0.95.
    """
    counts = ranking.in_blocks
    wrong, right = int(counts.n_wrong), int(counts.n_right)
    below = np.arange(right + 1)
    chance = _binomial(right, 0.05)
    below, chance = below[chance > 1e-12], chance[chance > 1e-12]
    # Errors accepted at the threshold of the k-th most trusted right sample; none at k = 0.
    first = np.searchsorted(counts.right, np.arange(right + 1))
    errors = counts.wrong[first]
    errors[0] = 0
    strict = errors[right - below]
    lax = np.where(below > 0, errors[np.minimum(right - below + 1, right)], wrong)
    tail = (1 - level) / 2

    def too_low(end: float) -> bool:
        over = scipy.special.betainc(np.maximum(strict, 1), wrong - strict + 1, end)
        return bool((chance * np.where(strict > 0, over, 1.0)).sum() <= tail)

    def too_high(end: float) -> bool:
        over = scipy.special.betaincc(lax + 1, np.maximum(wrong - lax, 1), end)
        return bool((chance * np.where(lax < wrong, over, 1.0)).sum() <= tail)

    estimate = float(EXACT["fpr95"](counts))
    low = bisect(lambda end: not too_low(end))
    high = bisect(too_high)
    return min(low, estimate), max(high, estimate)


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """`(n + 1,)` probabilities of 0 to n successes."""
    k = np.arange(n + 1)
    logs = (
        scipy.special.gammaln(n + 1)
        - scipy.special.gammaln(k + 1)
        - scipy.special.gammaln(n - k + 1)
    )
    probabilities: NDArray[np.float64] = np.exp(
        logs + scipy.special.xlogy(k, p) + scipy.special.xlog1py(n - k, -p)
    )
    return probabilities


def bisect(holds: Callable[[float], bool]) -> float:
    """Find where in [0, 1] a condition begins to hold that holds from there on; 1 if nowhere."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def difference_interval(
    a: float,
    b: float,
    samples: NDArray[np.float64],
    carriers: int,
    level: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float, float]:
    """Interval of the difference a - b of two values, and p-value of no difference.

    Parameters
    ----------
    a, b
        The two values.
    samples
        `(n_resamples,)` their difference on resamples; NaN where undefined.
    carriers
        How many samples carry the difference: errors for a metric of the order, images that differ
        for the accuracy.
    level
        Nominal coverage, in (0, 1).
    bounds
        Least and largest value that a and b can have.

    Returns
    -------
    low, high
        Student's interval around a - b, with the standard deviation over resamples, corrected for
        the number of carriers, and `carriers` - 1 degrees of freedom; within what the bounds allow.
        The end that lies farther from zero than a - b is moved on by (a - b) / `carriers`, as if
        one more sample carried the difference. NaN with fewer than two resamples or without
        carriers. Where all resamples agree, the difference of the Clopper-Pearson intervals of
        `carriers` trials; NaN with infinite bounds.
    p_value
        1 - the level at which the interval begins to hold zero: below 1 - `level` if and only if
        zero lies outside.

    Examples
    --------
    >>> samples = np.random.default_rng(0).normal(0.2, 0.1, size=1000)
    >>> low, high, p = difference_interval(0.8, 0.6, samples, 8, 0.95)
    >>> round(low, 2), round(high, 2), round(p, 2)
    (-0.05, 0.47, 0.1)
    """
    kept = samples[~np.isnan(samples)]
    difference, width = a - b, bounds[1] - bounds[0]
    if kept.size < 2 or carriers < 1 or math.isnan(difference):
        return math.nan, math.nan, math.nan
    deviation = float(kept.std(ddof=1))
    if deviation > _ROUNDING:
        degrees = max(min(carriers, kept.size) - 1, 1)
        # Resamples of k carriers vary by (k - 1) / k of what samples do.
        deviation *= math.sqrt(carriers / max(carriers - 1, 1))
        half = student(degrees, level) * deviation
        p_value = 2 * float(scipy.special.stdtr(degrees, -abs(difference) / deviation))
        further = difference / carriers
        low = difference - half + min(further, 0.0)
        high = difference + half + max(further, 0.0)
        return max(low, -width), min(high, width), p_value
    if math.isinf(width):
        return math.nan, math.nan, math.nan
    first, second = (min(max((end - bounds[0]) / width, 0.0), 1.0) for end in (a, b))

    def apart(alpha: float) -> bool:
        low, high = clopper_pearson([first, second], carriers, 1 - alpha)
        return bool(max(low[0] - high[1], low[1] - high[0]) > 0)

    lows, highs = clopper_pearson([first, second], carriers, level)
    p_value = bisect(apart) if difference else 1.0
    return width * float(lows[0] - highs[1]), width * float(highs[0] - lows[1]), p_value
