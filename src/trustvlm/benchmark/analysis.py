"""What follows from the results of a study: gains of classes, gains at equal coverage, statistics.

`analyse` computes every statistic once, for tables, figures and the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.benchmark.results import Results, Samples
from trustvlm.benchmark.statistics import (
    NOTHING,
    Bootstrap,
    Comparison,
    RankComparison,
    compare_ranks,
    compare_to_reference,
    leaders,
    mean_over_datasets,
    resample,
    spreads,
)
from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import multiplicities, resampled_counts
from trustvlm.metrics.counts import Counts, Ranking, rank
from trustvlm.metrics.intervals import difference_interval
from trustvlm.metrics.paired import holm
from trustvlm.tables.metrics import METRIC_COLUMNS, columns_of
from trustvlm.tables.table import Mark, Spread


@dataclass(frozen=True)
class ClassGain:
    """What a change of score does to the images of one class.

    Attributes
    ----------
    name
        The true class.
    n
        Its images.
    before, after
        How many of them turn out well under the first and the second score.
    gained, lost
        Images that turn out well under the second score only, and under the first only.
    p_value, p_holm
        Of no difference (exact McNemar test), alone and after Holm's correction for all classes.
    """

    name: str
    n: int
    before: int
    after: int
    gained: int
    lost: int
    p_value: float
    p_holm: float

    @property
    def net(self) -> int:
        """Images gained less images lost."""
        return self.gained - self.lost


def class_gains(
    first: Samples,
    second: Samples,
    labels: ArrayLike,
    class_names: Sequence[str],
    *,
    coverage: float | None = None,
) -> list[ClassGain]:
    """Compare two scores class by class, on the same images.

    Parameters
    ----------
    first, second
        `(confidence, correct)` of each score, `(n,)` each.
    labels, class_names
        `(n,)` true class indices, and the C names.
    coverage
        None: an image turns out well if its label is right, which tells apart only scores that
        may change labels. A share in (0, 1]: each score accepts this share of all images, and an
        image turns out well if it is right and accepted, or wrong and not accepted.

    Returns
    -------
    list of ClassGain
        Classes with images, largest gain first, then by name.

    Raises
    ------
    InputError
        If the arrays differ in length, or labels or coverage are out of range.

    Notes
    -----
    McNemar 1947: of the images on which the two differ, half would be gained by chance.

    Examples
    --------
    >>> right, other = [1, 0, 1, 1], [1, 1, 1, 0]
    >>> gains = class_gains(([4, 3, 2, 1], right), ([4, 3, 2, 1], other), [0, 0, 1, 1], ["a", "b"])
    >>> [(gain.name, gain.before, gain.after, gain.gained, gain.lost) for gain in gains]
    [('a', 1, 2, 1, 0), ('b', 2, 1, 0, 1)]
    """
    index = np.asarray(labels)
    before, after = (_turns_out_well(sample, coverage) for sample in (first, second))
    if not index.shape == before.shape == after.shape:
        raise InputError(
            "Expected labels and both scores to have the same images, "
            f"but got {len(index)}, {len(before)} and {len(after)}."
        )
    if len(index) and (index.min() < 0 or index.max() >= len(class_names)):
        raise InputError(
            f"Expected `labels` in [0, {len(class_names)}), but got {index.min()} to {index.max()}."
        )

    outcomes = {
        "n": before | True,
        "before": before,
        "after": after,
        "gained": after & ~before,
        "lost": before & ~after,
    }
    counts = {
        key: np.bincount(index[images], minlength=len(class_names))
        for key, images in outcomes.items()
    }
    present = np.flatnonzero(counts["n"]).tolist()
    # McNemar's test: of the images on which the two scores differ, half are gained by chance.
    differing = counts["gained"] + counts["lost"]
    p_values = [
        float(scipy.stats.binomtest(counts["gained"][c], differing[c]).pvalue)
        if differing[c]
        else 1.0
        for c in present
    ]
    rows = [
        ClassGain(
            str(class_names[c]),
            **{key: int(count[c]) for key, count in counts.items()},
            p_value=p_value,
            p_holm=p_holm,
        )
        for c, p_value, p_holm in zip(present, p_values, holm(p_values).tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.net, row.name))


def accepted(confidence: ArrayLike, coverage: float) -> NDArray[np.bool_]:
    """Accept the most trusted share of the images, a whole number of them.

    Ties at the threshold are broken by a fixed shuffle, the same for every score: images often
    stand in the order of their classes, and the first of a tie must not always win.

    Examples
    --------
    >>> accepted([0.1, 0.9, 0.5, 0.7], 0.5)
    array([False,  True, False,  True])
    """
    if not 0 < coverage <= 1:
        raise InputError(f"Expected `coverage` to lie in (0, 1], but got {coverage}.")
    values = np.asarray(confidence)
    shuffled = np.random.default_rng(0).permutation(len(values))
    order = shuffled[np.argsort(-values[shuffled], kind="stable")]
    chosen = np.zeros(len(values), dtype=bool)
    chosen[order[: round(coverage * len(values))]] = True
    return chosen


def _turns_out_well(sample: Samples, coverage: float | None) -> NDArray[np.bool_]:
    confidence, correct = sample
    right = np.asarray(correct, dtype=bool)
    if coverage is None:
        return right
    chosen = accepted(confidence, coverage)
    if chosen.shape != right.shape:
        raise InputError(
            f"Expected as many confidences as images, but got {len(chosen)} and {len(right)}."
        )
    well: NDArray[np.bool_] = chosen == right
    return well


# Accuracy when two scores accept the same share of the images, and how sure the difference is.


@dataclass(frozen=True)
class CoverageGain:
    """What one score gains over another when both accept the same share of the images.

    Attributes
    ----------
    coverage
        Share accepted, of each score the most trusted.
    accuracy, other_accuracy
        Share right among the accepted.
    low, high
        Ends of the interval of the difference; NaN with fewer than two resamples.
    """

    coverage: float
    accuracy: float
    other_accuracy: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """Difference of the accuracies."""
        return self.accuracy - self.other_accuracy


def coverage_gains(
    score: Samples,
    other: Samples,
    coverages: Sequence[float],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> list[CoverageGain]:
    """Compare two scores at equal coverages, on the same images.

    Parameters
    ----------
    score, other
        `(confidence, correct)` of each, `(n,)`; image i is the same in both.
    coverages
        Shares accepted, in (0, 1].
    n_resamples, seed, level
        Of the paired bootstrap over images.

    Raises
    ------
    InputError
        Without images, for a coverage out of range, or if the two differ in length.

    Examples
    --------
    >>> correct = [1] * 6 + [0] * 6
    >>> good, reversed_order = (range(12, 0, -1), correct), (range(12), correct)
    >>> (gain,) = coverage_gains(good, reversed_order, [0.5])
    >>> gain.accuracy, gain.other_accuracy, gain.low > 0
    (1.0, 0.0, True)
    """
    a, b = rank(*score), rank(*other)
    if a.n != b.n or not a.n:
        raise InputError(f"Expected the same images in both, at least one, got {a.n} and {b.n}.")
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise InputError(f"Expected `coverages` to lie in (0, 1], but got {list(coverages)}.")
    k = np.maximum(1, np.round(np.asarray(coverages, dtype=np.float64) * a.n)).astype(np.int64)
    # Images are resampled in the order of the first score.
    rank_of = np.empty(a.n, dtype=np.intp)
    rank_of[a.order] = np.arange(a.n)
    columns = rank_of[b.order]
    samples = np.concatenate(
        [
            accuracy_among(resampled_counts(a, weights), k)
            - accuracy_among(resampled_counts(b, np.take(weights, columns, axis=1)), k)
            for weights in multiplicities(a.n, n_resamples, np.random.default_rng(seed))
        ]
    )
    first, second = _accuracy_at(a, k), _accuracy_at(b, k)
    gains = []
    for i, coverage in enumerate(coverages):
        low, high, _ = difference_interval(
            first[i], second[i], samples[:, i], _changed(a, b, int(k[i])), level
        )
        if not _changed(a, b, int(k[i])):
            low = high = 0.0
        gains.append(CoverageGain(coverage, first[i], second[i], low, high))
    return gains


def _changed(a: Ranking, b: Ranking, k: int) -> int:
    """Count the images that are accepted and right under one of two scores only."""
    accepted_right = np.zeros((2, a.n), dtype=bool)
    for row, ranking in zip(accepted_right, (a, b), strict=True):
        # Ties at the threshold are all counted: they are accepted in some order.
        last = ranking.ends[np.searchsorted(ranking.ends, k - 1)] + 1
        row[ranking.order[:last]] = ranking.correct[:last]
    return int((accepted_right[0] != accepted_right[1]).sum())


def accuracy_among(counts: Counts, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share right among the k most trusted; of tied ones, their expected share.

    Parameters
    ----------
    counts
        `(rows, m + 1)`.
    k
        `(j,)` numbers of samples, from 1 to n.

    Returns
    -------
    NDArray
        `(rows, j)` float64.
    """
    rows = np.arange(len(counts.accepted))
    accuracy = np.empty((len(rows), len(k)))
    for i, wanted in enumerate(k):
        # The first threshold that accepts enough, and the one before it.
        end = np.count_nonzero(counts.accepted < wanted, axis=1)
        before = counts.accepted[rows, end - 1]
        share = (wanted - before) / (counts.accepted[rows, end] - before)
        right_before = counts.right[rows, end - 1]
        right = right_before + share * (counts.right[rows, end] - right_before)
        accuracy[:, i] = right / wanted
    return accuracy


def _accuracy_at(ranking: Ranking, k: NDArray[np.int64]) -> list[float]:
    counts = ranking.in_blocks
    whole = Counts(counts.accepted[None], counts.right[None])
    return [float(value) for value in accuracy_among(whole, k)[0]]


# Every statistic of a study's results, computed once for tables, figures and the page.


@dataclass(frozen=True)
class Analysis:
    """Results of one setting and what follows from them.

    Attributes
    ----------
    results
        Rows and samples of one setting.
    metrics
        Names of the metrics, in the order of the tables.
    spreads
        By metric, the spread over draws of each (dataset, score, shots), as fractions.
    ranks
        By metric, the scores' ranks over the data sets at the largest number of shots.
    resampled
        By data set, the bootstrap that all paired tests share; none without samples.
    comparisons
        Every score against the reference, by data set and metric.
    n_resamples
        Of the bootstrap.
    """

    results: Results
    metrics: tuple[str, ...]
    spreads: dict[str, dict[tuple[str, str, int], Spread]]
    ranks: dict[str, RankComparison]
    resampled: dict[str, Bootstrap]
    comparisons: tuple[Comparison, ...]
    n_resamples: int

    def spread(self, metric: str, dataset: str, score: str, shots: int | None = None) -> Spread:
        """Return a metric over the draws, by default at the largest number of shots."""
        shots = self.results.largest if shots is None else shots
        return self.spreads[metric].get((dataset, score, shots), NOTHING)

    def mean(self, metric: str, score: str, shots: int | None = None) -> Spread:
        """Return the mean over the data sets on which scores are ranked.

        Undefined for scores that are not ranked, because they lack some of these data sets.
        """
        ranks = self.ranks[metric]
        if score not in ranks.scores:
            return NOTHING
        shots = self.results.largest if shots is None else shots
        return mean_over_datasets(self.results, metric, ranks.datasets, score, shots)

    def marks(self, metric: str, dataset: str) -> dict[str, Mark]:
        """Return which scores are significantly best or second best on a data set."""
        shown = {score: self.spread(metric, dataset, score).mean for score in self.results.scores}
        higher_is_better = METRIC_COLUMNS[metric].higher_is_better
        return leaders(
            shown, self.resampled.get(dataset), metric, higher_is_better=higher_is_better
        )

    def ordered(self, metric: str) -> list[str]:
        """Return the scores by average rank, best first; those without a rank last, by name."""
        ranks = {score: self.ranks[metric].rank_of(score) for score in self.results.scores}
        return sorted(ranks, key=lambda s: (math.isnan(ranks[s]), np.nan_to_num(ranks[s]), s))


def analyse(
    results: Results,
    metrics: Sequence[str] | None = None,
    *,
    n_resamples: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Compute spreads, ranks, and paired tests of the results of one setting.

    Parameters
    ----------
    results
        Of one setting; see `Results.of`.
    metrics
        Which, in the order of the tables; None for all.
    n_resamples
        Of the paired bootstrap, which takes nearly all of the time: a few seconds for 25 scores
        on 500 images.
    progress
        Called with the data sets done and those in all.

    Raises
    ------
    InputError
        For several settings, unknown metrics, or samples that do not fit together.

    Examples
    --------
    >>> rows = [
    ...     {"dataset": "pets", "score": score, "shots": 16, "draw": 0, "aurc": aurc, "n": 4}
    ...     for score, aurc in (("msp", 0.2), ("trustvlm", 0.1))
    ... ]
    >>> analyse(Results(rows), ["aurc"]).ordered("aurc")
    ['trustvlm', 'msp']
    """
    if len(results.settings) > 1:
        raise InputError(f"Expected results of one setting, but got {len(results.settings)}.")
    metrics = tuple(METRIC_COLUMNS) if metrics is None else tuple(metrics)
    columns = columns_of(metrics)
    every = {column.name: spreads(results, column.name) for column in columns}
    ranks = {}
    for column in columns:
        cells = [
            [every[column.name].get((d, s, results.largest), NOTHING).mean for s in results.scores]
            for d in results.datasets
        ]
        ranks[column.name] = compare_ranks(
            cells or [[] for _ in results.datasets],
            results.scores,
            results.datasets,
            higher_is_better=column.higher_is_better,
            units=[results.set_of(dataset) for dataset in results.datasets],
        )
    resampled, comparisons = {}, []
    for done, dataset in enumerate(results.datasets, 1):
        samples = results.samples_of(dataset)
        if samples:
            resampled[dataset] = resample(
                samples, metrics, first=results.reference, n_resamples=n_resamples
            )
            comparisons += compare_to_reference(
                dataset, resampled[dataset], results.reference, metrics
            )
        if progress is not None:
            progress(done, len(results.datasets))
    return Analysis(
        results=results,
        metrics=metrics,
        spreads=every,
        ranks=ranks,
        resampled=resampled,
        comparisons=tuple(comparisons),
        n_resamples=n_resamples,
    )
