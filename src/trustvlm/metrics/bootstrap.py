"""Intervals of metrics: how far one would move on other samples of the same kind."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import FewSamplesWarning, InputError
from trustvlm.metrics.conventions import EXACT, aurc, best_aurc, value, warn_undefined
from trustvlm.metrics.counts import Counts, Ranking, area_table, rank
from trustvlm.metrics.info import METRIC_INFO, unknown_error
from trustvlm.metrics.info import names as registered_names
from trustvlm.metrics.intervals import FEW, metric_interval


def check_names(metrics: str | Sequence[str] | None, argument: str = "metrics") -> list[str]:
    """Return the metrics' names as a list, all for None; `InputError` for an unknown one."""
    among = registered_names()
    if metrics is None:
        return list(among)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in among:
            raise unknown_error(name, among, argument)
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


def resampled(
    ranking: Ranking, weights: NDArray[np.int64], names: Sequence[str], table: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Evaluate metrics, registered ones too, on resamples of a ranking, in convention `exact`.

    Parameters
    ----------
    ranking
        n samples.
    weights
        `(rows, n)` multiplicities, in the order of the ranking.
    names, table
        As of `evaluated`.
    """
    own = [name for name in names if METRIC_INFO[name].function is None]
    values = evaluated(resampled_counts(ranking, weights), own, table) if own else {}
    others = [METRIC_INFO[name] for name in names if name not in values]
    if others:
        # Their functions see each resample written out, still in order.
        drawn = [np.repeat(np.arange(ranking.n), row) for row in weights]
        for info in others:
            values[info.name] = np.array(
                [info.of(ranking.confidence[i], ranking.correct[i]) for i in drawn]
            )
    return {name: values[name] for name in names}


def _cumulative(values: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(values), values.shape[1] + 1), dtype=np.int64)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


# The intervals.


@dataclass(frozen=True)
class Interval:
    """A metric and its interval.

    Attributes
    ----------
    metric
        Name of the metric.
    estimate
        Its value on the samples themselves.
    low, high
        Ends of the interval; NaN where the metric is undefined on the samples, or on all resamples
        but one.
    level
        Nominal coverage of the interval, such as 0.95.
    n_resamples
        Resamples drawn.
    n_excluded
        Resamples in which the metric is undefined, because all their samples are correct or all
        are wrong; the interval is over the others.
    method
        How the interval was made: `Clopper-Pearson` (accuracy) and `order statistics` (FPR95) are
        exact and need no resamples; `one class` is what an error rate too small to show, or a share
        of right ones, could make of the metric; `bootstrap` rests on the variance over resamples.
        Empty without an interval.
    """

    metric: str
    estimate: float
    low: float
    high: float
    level: float
    n_resamples: int
    n_excluded: int
    method: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values.

        Examples
        --------
        >>> round(bootstrap([0.9, 0.1], [1, 1], "accuracy")["accuracy"].to_dict()["low"], 3)
        0.158
        """
        return asdict(self)


def bootstrap(
    confidence: ArrayLike,
    correct: ArrayLike,
    metrics: str | Sequence[str] | None = None,
    *,
    n_resamples: int = 2000,
    seed: int | np.random.Generator | None = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of metrics in the `exact` convention, which hold from five errors on.

    Samples are drawn with replacement, n of n, and every metric is computed on the same resamples;
    `metric_interval` makes intervals of their variance, and exact ones where there are any. The
    released script's convention is not offered: it takes ties in input order, and copies of a
    sample have none.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    metrics
        Names from `metrics.names()`; None for all.
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
        an `UndefinedMetricWarning`. With fewer than 10 errors, or right samples, there is a
        `FewSamplesWarning`, unless only accuracy is asked for. All confidences tied: the interval
        of an AUROC of 0.5 has as many trials as are known of an order by chance.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, an unknown metric, or numbers out of range.

    Notes
    -----
    The interval speaks of other test samples, not of other shots or other training. How often it
    holds the truth is tabled in docs/research/intervals.md. With n = 0 there is none.

    Examples
    --------
    >>> right = [1] * 20 + [0] * 10
    >>> aurc = bootstrap(range(30, 0, -1), right, "aurc", n_resamples=500)["aurc"]
    >>> aurc.low < aurc.estimate < aurc.high, aurc.method
    (True, 'bootstrap')
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
            rows = slice(done, done + len(weights))
            for name, values in resampled(ranking, weights, names, table).items():
                samples[name][rows] = values
            done += len(weights)
    warn_few([name for name in names if not math.isnan(estimates[name])], ranking)
    intervals = {}
    for name in names:
        low, high, method = metric_interval(name, ranking, estimates[name], samples[name], level)
        excluded = int(np.isnan(samples[name]).sum())
        intervals[name] = Interval(
            name, estimates[name], low, high, level, n_resamples, excluded, method
        )
    return intervals


def warn_few(names: Sequence[str], *rankings: Ranking, stacklevel: int = 3) -> None:
    """Say that few samples are wrong, or right, where intervals of these metrics rest on them."""
    if not set(names) - {"accuracy"}:
        return
    counts = [ranking.in_blocks for ranking in rankings]
    for what, fewest in (
        ("wrong", min(int(c.n_wrong) for c in counts)),
        ("right", min(int(c.n_right) for c in counts)),
    ):
        if fewest < FEW:
            warnings.warn(
                f"Only {fewest} of {int(counts[0].n)} samples {'is' if fewest == 1 else 'are'} "
                f"{what}: with fewer than {FEW}, intervals and tests are wide and rough. Label "
                "more samples.",
                FewSamplesWarning,
                stacklevel=stacklevel,
            )
            return
