"""Bootstrap intervals: how far a metric would move on other samples of the same kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.conventions import METRICS, value, warn_undefined
from trustvlm.metrics.counts import harmonic_numbers
from trustvlm.metrics.plan import check_names, check_plan, generator
from trustvlm.metrics.ranking import rank
from trustvlm.metrics.resampling import evaluated, multiplicities, resampled_counts

__all__ = ["Interval", "bootstrap", "percentile_interval"]


@dataclass(frozen=True)
class Interval:
    """A metric and its percentile bootstrap interval.

    Attributes
    ----------
    metric
        Name of the metric.
    estimate
        Its value on the samples themselves.
    low, high
        Ends of the interval; NaN where the metric is undefined on the samples or on all resamples.
    level
        Nominal coverage of the interval, such as 0.95.
    n_resamples
        Resamples drawn.
    n_excluded
        Resamples in which the metric is undefined, because all their samples are correct or all
        are wrong; the interval is over the others.
    """

    metric: str
    estimate: float
    low: float
    high: float
    level: float
    n_resamples: int
    n_excluded: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values.

        Examples
        --------
        >>> bootstrap([0.9, 0.1], [1, 1], "accuracy")["accuracy"].to_dict()["low"]
        1.0
        """
        return asdict(self)


def bootstrap(
    confidence: ArrayLike,
    correct: ArrayLike,
    metrics: str | Sequence[str] = METRICS,
    *,
    n_resamples: int = 2000,
    seed: int | np.random.Generator | None = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of metrics in the `exact` convention.

    Samples are drawn with replacement, n of n, and every metric is computed on the same resamples.
    The released script's convention is not offered: it takes ties in input order, and copies of a
    sample have none.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    metrics
        Names from `METRICS`; all by default.
    n_resamples
        How many resamples to draw.
    seed
        Of the draws; the same seed gives the same interval. None takes fresh entropy.
    level
        Nominal coverage of the intervals, in (0, 1).

    Returns
    -------
    dict of str to Interval
        In the order of `metrics`. Metrics undefined on the samples have an interval of NaN, with
        an `UndefinedMetricWarning`.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, an unknown metric, or numbers out of range.

    Notes
    -----
    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3. The interval speaks
    of other test samples, not of other shots or other training.

    Examples
    --------
    >>> found = bootstrap([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], "aurc", n_resamples=500)["aurc"]
    >>> found.low <= found.estimate <= found.high
    True
    """
    names = check_names(metrics)
    n_resamples, level = check_plan(n_resamples, level)
    rng = generator(seed)
    ranking = rank(confidence, correct)
    estimates = {name: value(name, ranking, "exact") for name in names}
    warn_undefined([name for name in names if math.isnan(estimates[name])], ranking)
    samples = {name: np.full(n_resamples, np.nan) for name in names}
    if ranking.n:
        harmonic = harmonic_numbers(ranking.n)
        done = 0
        for weights in multiplicities(ranking.n, n_resamples, rng):
            # Which of n equal draws is which sample is arbitrary: they are in ranked order.
            counts = resampled_counts(ranking, weights)
            rows = slice(done, done + len(weights))
            for name, values in evaluated(counts, names, harmonic).items():
                samples[name][rows] = values
            done += len(weights)
    found = {}
    for name in names:
        low, high, n_excluded = percentile_interval(samples[name], level)
        if math.isnan(estimates[name]):
            low = high = math.nan
        found[name] = Interval(name, estimates[name], low, high, level, n_resamples, n_excluded)
    return found


def percentile_interval(values: NDArray[np.float64], level: float) -> tuple[float, float, int]:
    """Central share `level` of the values that are not NaN, and how many are.

    Examples
    --------
    >>> percentile_interval(np.array([0.0, 1.0, 2.0, np.nan]), 0.5)
    (0.5, 1.5, 1)
    """
    kept = values[~np.isnan(values)]
    if not kept.size:
        return math.nan, math.nan, values.size
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), values.size - kept.size
