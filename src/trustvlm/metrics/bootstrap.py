"""Bootstrap intervals: how far a metric would move on other samples of the same kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.conventions import EXACT, aurc, best_aurc, value, warn_undefined
from trustvlm.metrics.counts import Counts, Ranking, area_table, rank
from trustvlm.metrics.info import METRICS


def check_names(metrics: str | Sequence[str], argument: str = "metrics") -> list[str]:
    """Return the metrics' names as a list, or raise `InputError` for an unknown one."""
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise InputError(
            f"Expected `{argument}` to be among {', '.join(METRICS)}, but got {unknown[0]!r}."
        )
    return names


def check_plan(n_resamples: int, level: float) -> tuple[int, float]:
    """Return both as plain numbers, or raise `InputError` for one that cannot be."""
    whole = isinstance(n_resamples, int | np.integer) and not isinstance(n_resamples, bool)
    if not whole or n_resamples < 1:
        raise InputError(
            f"Expected `n_resamples` to be a whole number of at least 1, but got {n_resamples!r}."
        )
    if not 0 < level < 1:
        raise InputError(f"Expected `level` to lie in (0, 1), but got {level!r}.")
    return int(n_resamples), float(level)


def generator(seed: int | np.random.Generator | None) -> np.random.Generator:
    """Return the random generator of a seed, or raise `InputError` for what is none.

    Examples
    --------
    >>> int(generator(0).integers(100)) == int(generator(0).integers(100))
    True
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Expected `seed` to be a whole number of at least 0, a NumPy generator or None, "
            f"but got {seed!r}."
        ) from error


# Resamples as multiplicities: the samples are sorted once and never written out again. All that a
# metric sees of n samples with replacement is how often each occurs, so that the counts at every
# threshold are cumulative sums of multiplicities in the order of the one sort. Copies of a sample
# are tied with it, as they are in a resample written out in full.


def multiplicities(
    n: int, n_resamples: int, rng: np.random.Generator, *, chunk: int = 1 << 14
) -> Iterator[NDArray[np.int64]]:
    """Yield `(rows, n)` arrays: how often each of n samples occurs in each resample.

    At most `chunk` multiplicities at a time, unless one resample alone is longer; where they are
    cut changes no resample. Arrays of the default length take 128 KiB: they stay in the
    processor's cache, and fit memory that the process has already.

    Examples
    --------
    >>> chunks = list(multiplicities(5, 100, np.random.default_rng(0)))
    >>> sum(len(chunk) for chunk in chunks), chunks[0].sum(axis=1)[:3]
    (100, array([5, 5, 5]))
    """
    rows = max(1, chunk // n)
    for start in range(0, n_resamples, rows):
        count = min(rows, n_resamples - start)
        draws = rng.integers(n, size=(count, n))
        draws += np.arange(0, count * n, n)[:, None]
        yield np.bincount(draws.ravel(), minlength=count * n).reshape(count, n)


def resampled_counts(ranking: Ranking, weights: NDArray[np.int64]) -> Counts:
    """Count what each threshold accepts when samples occur several times.

    Parameters
    ----------
    ranking
        n samples in m blocks of equal confidence.
    weights
        `(rows, n)` multiplicities, in the order of the ranking.

    Returns
    -------
    Counts
        Of shape `(rows, m + 1)`.

    Examples
    --------
    >>> from trustvlm.metrics.counts import rank
    >>> counts = resampled_counts(rank([0.9, 0.5, 0.5], [1, 0, 1]), np.array([[0, 2, 1]]))
    >>> counts.accepted, counts.right
    (array([[0, 0, 3]]), array([[0, 0, 1]]))
    """
    if len(ranking.ends) == ranking.n:
        return Counts(
            _cumulative(weights),
            lambda: _cumulative(weights * ranking.correct),
            (~ranking.correct).astype(np.float64),
        )
    starts = np.concatenate([[0], ranking.ends[:-1] + 1])
    size = np.add.reduceat(weights, starts, axis=1)
    right = np.add.reduceat(weights * ranking.correct, starts, axis=1)
    return Counts(_cumulative(size), _cumulative(right))


def evaluated(
    counts: Counts, names: Sequence[str], table: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Evaluate several metrics on the same resamples, in convention `exact`.

    Parameters
    ----------
    counts
        `(rows, m + 1)`.
    names
        Which metrics.
    table
        `area_table(n)`, shared by all resamples of n samples.

    Returns
    -------
    dict of str to NDArray
        `(rows,)` each, in the order of `names`.
    """
    values = {name: EXACT[name](counts) for name in names if name not in ("aurc", "eaurc")}
    if "aurc" in names or "eaurc" in names:
        values["aurc"] = aurc(counts, table)
    if "eaurc" in names:
        values["eaurc"] = values["aurc"] - best_aurc(counts)
    return {name: values[name] for name in names}


def _cumulative(values: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(values), values.shape[1] + 1), dtype=np.int64)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


# The intervals.


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
    >>> aurc = bootstrap([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], "aurc", n_resamples=500)["aurc"]
    >>> aurc.low <= aurc.estimate <= aurc.high
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
        table = area_table(ranking.n)
        done = 0
        for weights in multiplicities(ranking.n, n_resamples, rng):
            # Which of n equal draws is which sample is arbitrary: they are in ranked order.
            counts = resampled_counts(ranking, weights)
            rows = slice(done, done + len(weights))
            for name, values in evaluated(counts, names, table).items():
                samples[name][rows] = values
            done += len(weights)
    intervals = {}
    for name in names:
        low, high, n_excluded = percentile_interval(samples[name], level)
        if math.isnan(estimates[name]):
            low = high = math.nan
        intervals[name] = Interval(name, estimates[name], low, high, level, n_resamples, n_excluded)
    return intervals


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
