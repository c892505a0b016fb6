"""Statistics of a study: spread over draws, one bootstrap for all scores, comparisons, ranks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.benchmark.results import Results, Row, Samples, value_of
from trustvlm.exceptions import InputError
from trustvlm.metrics import PairedDifference
from trustvlm.metrics.bootstrap import (
    check_names,
    check_plan,
    generator,
    multiplicities,
)
from trustvlm.metrics.bootstrap import resampled as resampled_values
from trustvlm.metrics.conventions import value
from trustvlm.metrics.counts import Ranking, area_table, rank
from trustvlm.metrics.info import METRIC_INFO
from trustvlm.metrics.paired import holm
from trustvlm.tables.table import Mark, Spread

# Nominal coverage of every interval of a study, and the seed of its bootstrap.
LEVEL, SEED = 0.95, 0
# Of what has no value.
NOTHING = Spread(math.nan, math.nan, 0)


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of the values that are not NaN.

    Examples
    --------
    >>> spread([1.0, 3.0, float("nan")])
    Spread(mean=2.0, sd=1.4142135623730951, n=2, n_undefined=1)
    """
    array = np.asarray(values, dtype=np.float64)
    kept = array[~np.isnan(array)]
    undefined = len(array) - len(kept)
    if not len(kept):
        return Spread(math.nan, math.nan, 0, undefined)
    # A mean of equal values is that value, which rounding of sums may miss.
    same = bool((kept == kept[0]).all())
    mean = float(kept[0] if same else kept.mean())
    sd = math.nan if len(kept) < 2 else 0.0 if same else float(kept.std(ddof=1))
    return Spread(mean, sd, len(kept), undefined)


def spreads_by(rows: Iterable[Row], metric: str, *keys: str) -> dict[tuple[Any, ...], Spread]:
    """Return the spread of a metric over the rows that share the values of some keys.

    Examples
    --------
    >>> spreads_by([{"r": 1, "gain": 0.5}, {"r": 1, "gain": 0.5}], "gain", "r")
    {(1,): Spread(mean=0.5, sd=0.0, n=2, n_undefined=0)}
    """
    values: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        values[tuple(row[key] for key in keys)].append(value_of(row, metric))
    return {cell: spread(of_cell) for cell, of_cell in values.items()}


def spread_over_draws(values: Iterable[tuple[int, float]]) -> Spread:
    """Average the values of each draw, given as (draw, value); return the spread of these means.

    Examples
    --------
    >>> spread_over_draws([(0, 1.0), (0, 3.0), (1, 4.0)]).mean
    3.0
    """
    by_draw: dict[int, list[float]] = defaultdict(list)
    for draw, one in values:
        by_draw[draw].append(one)
    return spread([float(np.mean(of_draw)) for of_draw in by_draw.values()])


def spreads(results: Results, metric: str) -> dict[tuple[str, str, int], Spread]:
    """Return the spread over draws for each (dataset, score, shots), as fractions.

    Failed cells count as undefined draws, those that failed as a whole for every score.

    Examples
    --------
    >>> cell = {"dataset": "pets", "score": "knn", "shots": 16}
    >>> rows = [{**cell, "draw": 0, "aurc": 0.1}, {**cell, "draw": 1, "aurc": 0.3}]
    >>> spreads(Results(rows), "aurc")["pets", "knn", 16].mean
    0.2
    """
    return {
        (dataset, score, shots): of_dataset
        for (score, shots), rows in results.by_score.items()
        for (dataset,), of_dataset in spreads_by(rows, metric, "dataset").items()
    }


def mean_over_datasets(
    results: Results, metric: str, datasets: Sequence[str], score: str, shots: int
) -> Spread:
    """Mean over data sets, which count alike, and its spread over the draws.

    Test sets of one data set are averaged first. A draw that lacks one of the test sets counts as
    undefined: means over different sets are not comparable.
    """
    wanted = set(datasets)
    by_draw: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in results.by_score.get((score, shots), []):
        if row["dataset"] in wanted:
            by_draw[row["draw"]][results.set_of(row["dataset"])].append(value_of(row, metric))
    complete = [
        float(np.mean([np.mean(values) for values in by_set.values()]))
        if sum(map(len, by_set.values())) == len(wanted)
        else math.nan
        for by_set in by_draw.values()
    ]
    return spread(complete)


# One bootstrap for all scores of a data set: the same resampled images for every score.


@dataclass(frozen=True)
class Bootstrap:
    """Every metric of every score, on the images themselves and on shared resamples.

    Attributes
    ----------
    n
        Number of images.
    rankings
        By score, the images in its order.
    estimates
        By score and metric, on the images themselves; NaN where undefined.
    samples
        `(n_resamples,)` by score and metric; NaN where undefined in a resample.
    """

    n: int
    rankings: Mapping[str, Ranking]
    estimates: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def difference(self, a: str, b: str, metric: str) -> PairedDifference:
        """Compare two scores, a - b; what `metrics.paired_bootstrap` returns for them."""
        return PairedDifference.of_samples(
            metric,
            (self.rankings[a], self.rankings[b]),
            (self.estimates[a][metric], self.estimates[b][metric]),
            self.samples[a][metric] - self.samples[b][metric],
            LEVEL,
        )


def resample(
    samples: Mapping[str, Samples],
    metrics: Sequence[str] | None = None,
    *,
    first: str = "",
    n_resamples: int = 2000,
    seed: int = SEED,
) -> Bootstrap:
    """Draw images with replacement and evaluate every score on the same draws.

    Comparing k scores pairwise costs k evaluations instead of k (k - 1), and all metrics share the
    counts of one pass.

    Parameters
    ----------
    samples
        By score, confidence `(n,)` and correct `(n,)`; image i is the same in all.
    metrics
        Names from `metrics.names()`, in the `exact` convention; None for all.
    first
        The score in whose order images are drawn: for a comparison of it with any other, the
        result is that of `metrics.paired_bootstrap(first, other)` with the same seed.
    n_resamples, seed
        As of `metrics.paired_bootstrap`.

    Raises
    ------
    InputError
        If scores have different numbers of images, for NaN, or for names or numbers out of range.

    Examples
    --------
    >>> right = [1] * 9 + [0] * 6
    >>> poor = [1, 15, 2, 14, 3, 13, 4, 12, 5, 11, 6, 10, 7, 9, 8]
    >>> scores = {"a": (range(15, 0, -1), right), "b": (poor, right)}
    >>> resample(scores).difference("a", "b", "auroc").low > 0
    True
    """
    names = check_names(metrics)
    n_resamples, _ = check_plan(n_resamples, 0.5)
    rng = generator(seed)
    rankings = {
        score: rank(*sample, names=(f"confidence of {score}", f"correctness of {score}"))
        for score, sample in samples.items()
    }
    sizes = {score: ranking.n for score, ranking in rankings.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"Expected all scores to have the same images, but got counts {sizes}.")
    n = max(sizes.values(), default=0)
    resampled = {
        score: {name: np.full(n_resamples, math.nan) for name in names} for score in samples
    }
    if n:
        base = rankings.get(first) or next(iter(rankings.values()))
        _fill(resampled, rankings, base, n_resamples, rng)
    estimates = {
        score: {name: value(name, ranking, "exact") for name in names}
        for score, ranking in rankings.items()
    }
    return Bootstrap(n, rankings, estimates, resampled)


def _fill(
    resampled: Mapping[str, Mapping[str, NDArray[np.float64]]],
    rankings: Mapping[str, Ranking],
    base: Ranking,
    n_resamples: int,
    rng: np.random.Generator,
) -> None:
    table, names = area_table(base.n), list(next(iter(resampled.values())))
    by_order = all(METRIC_INFO[name].needs == "order" for name in names)

    def seen(ranking: Ranking) -> bytes:
        return _ranks(ranking) + (b"" if by_order else ranking.confidence.tobytes())

    # Most metrics see ranks alone: scores that rank alike, such as logits and cosines, need one
    # pass.
    distinct: dict[bytes, str] = {}
    for score, ranking in rankings.items():
        distinct.setdefault(seen(ranking), score)
    # Where in the base order, in which images are resampled, each score's order has its images.
    rank_of = np.empty(base.n, dtype=np.intp)
    rank_of[base.order] = np.arange(base.n)
    positions = {score: rank_of[rankings[score].order] for score in distinct.values()}
    done = 0
    for weights in multiplicities(base.n, n_resamples, rng):
        rows = slice(done, done + len(weights))
        for score, columns in positions.items():
            drawn = np.take(weights, columns, axis=1)
            for name, values in resampled_values(rankings[score], drawn, names, table).items():
                resampled[score][name][rows] = values
        done += len(weights)
    for score, ranking in rankings.items():
        for name, values in resampled[distinct[seen(ranking)]].items():
            resampled[score][name][:] = values


def _ranks(ranking: Ranking) -> bytes:
    return b"".join(a.tobytes() for a in (ranking.order, ranking.ends, ranking.correct))


# Which scores of a column deserve a mark: those that a test says are better than the others.


def leaders(
    shown: Mapping[str, float],
    resampled: Bootstrap | None,
    metric: str,
    *,
    higher_is_better: bool,
) -> dict[str, Mark]:
    """Return the scores that deserve a mark, by test and not by the digits alone.

    A score is better than another if what is shown says so *and* the paired bootstrap interval of
    their difference leaves out zero on the same side. `best` is better than every other score;
    `second` is better than every other but one, so that two that cannot be distinguished, and are
    both better than the rest, are both marked so.

    Parameters
    ----------
    shown
        By score, the value that the table shows, such as a mean over draws; NaN where undefined.
    resampled
        The samples' bootstrap; None if there are no samples, and then there are no marks.
    metric, higher_is_better
        Name, and which end is good.

    Examples
    --------
    >>> leaders({"a": 0.9, "b": 0.5}, None, "auroc", higher_is_better=True)
    {}
    """
    if resampled is None:
        return {}
    sign = 1 if higher_is_better else -1
    defined = {score: sign * value for score, value in shown.items() if not math.isnan(value)}
    marks: dict[str, Mark] = {}
    # Only the first two can be better than all others, or all but one.
    for score in sorted(defined, key=lambda name: -defined[name])[:2]:
        others = [name for name in defined if name != score]
        beaten = sum(
            defined[score] > defined[other] and _is_better(resampled, score, other, metric, sign)
            for other in others
        )
        if beaten and beaten >= len(others) - 1:
            marks[score] = "best" if beaten == len(others) else "second"
    return marks


def _is_better(resampled: Bootstrap, a: str, b: str, metric: str, sign: int) -> bool:
    if a not in resampled.estimates or b not in resampled.estimates:
        return False
    pair = resampled.difference(a, b, metric)
    return min(sign * pair.low, sign * pair.high) > 0


# Which differences between scores are more than chance.


@dataclass(frozen=True)
class Comparison:
    """A score against the reference on the images of one data set.

    Attributes
    ----------
    dataset, score, reference, metric
        What is compared.
    value, reference_value
        The metric of both on draw 0, as fractions.
    difference, low, high
        Score - reference, and its paired bootstrap interval.
    p_value, p_holm
        Two-sided p-value, and the same after Holm's correction for all scores compared on this
        data set by this metric.
    level
        Nominal coverage of the interval; `significant` where `p_holm` is at most 1 - level.
    n
        Number of images.
    """

    dataset: str
    score: str
    reference: str
    metric: str
    value: float
    reference_value: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    level: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether there is a difference, after correction; False where nothing is defined."""
        return self.p_holm <= 1 - self.level + 1e-12


def compare_to_reference(
    dataset: str, resampled: Bootstrap, reference: str, metrics: Sequence[str]
) -> list[Comparison]:
    """Compare every other score of a data set to the reference, by each metric.

    Returns
    -------
    list of Comparison
        By metric, then by score in the order of the samples. Empty if the reference is not among
        the scores.

    Examples
    --------
    >>> from trustvlm.benchmark.statistics import resample
    >>> right = [1] * 8 + [0] * 8
    >>> good, bad = (range(16, 0, -1), right), (range(16), right)
    >>> resampled = resample({"good": good, "bad": bad}, ["auroc"], first="good")
    >>> (comparison,) = compare_to_reference("toy", resampled, "good", ["auroc"])
    >>> comparison.score, comparison.difference, comparison.significant
    ('bad', -1.0, True)
    """
    if reference not in resampled.estimates:
        return []
    comparisons = []
    for metric in metrics:
        # The reference first: the resamples are then those of `metrics.paired_bootstrap`.
        pairs = {
            score: resampled.difference(reference, score, metric)
            for score in resampled.estimates
            if score != reference
        }
        adjusted = holm([pair.p_value for pair in pairs.values()])
        for (score, pair), p_holm in zip(pairs.items(), adjusted, strict=True):
            comparisons.append(
                Comparison(
                    dataset=dataset,
                    score=score,
                    reference=reference,
                    metric=metric,
                    value=pair.b,
                    reference_value=pair.a,
                    difference=pair.b - pair.a,
                    low=-pair.high,
                    high=-pair.low,
                    p_value=pair.p_value,
                    p_holm=float(p_holm),
                    level=LEVEL,
                    n=resampled.n,
                )
            )
    return comparisons


# Average ranks of scores over data sets, and which of them can be distinguished.


@dataclass(frozen=True)
class RankComparison:
    """Ranks of k scores over N data sets; rank 1 is the best.

    Attributes
    ----------
    scores, datasets
        Scores that were ranked, and the test sets with a value of each of them.
    units
        The N data sets that these test sets are part of.
    left_out_scores, left_out_datasets
        What was not, for lack of values.
    average_ranks
        `(k,)`, ties share the mean of their ranks.
    statistic, p_value
        Friedman's chi-squared, corrected for ties; NaN below 3 scores or 2 data sets, or if all
        are tied.
    f_statistic, f_p_value
        Iman and Davenport's less conservative form of it.
    critical_difference
        Nemenyi: average ranks that differ by less cannot be distinguished; NaN below 2 of either.
    alpha
        Of the critical difference.
    """

    scores: tuple[str, ...]
    datasets: tuple[str, ...]
    units: tuple[str, ...]
    left_out_scores: tuple[str, ...]
    left_out_datasets: tuple[str, ...]
    average_ranks: NDArray[np.float64]
    statistic: float
    p_value: float
    f_statistic: float
    f_p_value: float
    critical_difference: float
    alpha: float

    @property
    def rejected(self) -> bool:
        """Whether the ranks differ by more than chance at all; the condition of the post-hoc."""
        return self.f_p_value <= self.alpha

    def rank_of(self, score: str) -> float:
        """Average rank of a score; NaN if it was left out."""
        if score not in self.scores:
            return math.nan
        return float(self.average_ranks[self.scores.index(score)])

    def groups(self) -> list[tuple[str, ...]]:
        """Return the largest groups of scores that cannot be distinguished, best first.

        Two scores belong together if their average ranks differ by less than the critical
        difference. Groups of one are left out; without a critical difference there are none.
        """
        if math.isnan(self.critical_difference):
            return []
        order = np.argsort(self.average_ranks, kind="stable")
        ranks = self.average_ranks[order]
        groups: list[tuple[int, int]] = []
        for start in range(len(order)):
            end = int(np.searchsorted(ranks, ranks[start] + self.critical_difference, side="left"))
            if end - start > 1 and (not groups or end > groups[-1][1]):
                groups.append((start, end))
        return [tuple(self.scores[i] for i in order[start:end]) for start, end in groups]


def compare_ranks(
    values: ArrayLike,
    scores: Sequence[str],
    datasets: Sequence[str],
    *,
    higher_is_better: bool,
    units: Sequence[str] | None = None,
    alpha: float = 0.05,
) -> RankComparison:
    """Rank scores on each data set and test whether the average ranks differ.

    Parameters
    ----------
    values
        `(m, k)` a metric of each score on each test set; NaN where undefined. Scores and test
        sets are left out, the emptiest first, until no value is missing.
    scores, datasets
        Names of the columns and rows.
    higher_is_better
        Which end of the metric is good.
    units
        `(m,)` the data set that each test set is part of; each is its own by default. Values of one
        data set are averaged before they are ranked: its test sets share shots and classes, so that
        counting each by itself would make the tests find differences by chance.
    alpha
        Level of the critical difference.

    Raises
    ------
    InputError
        If names and values do not fit.

    Notes
    -----
    Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 7),
    sections 3.2.1 and 3.2.2; Iman & Davenport 1980. The tests take the N data sets to be
    independent of one another.

    Examples
    --------
    >>> ranks = compare_ranks([[0.9, 0.8, 0.7]] * 4, "abc", "wxyz", higher_is_better=True)
    >>> ranks.average_ranks, ranks.rejected, round(ranks.critical_difference, 3)
    (array([1., 2., 3.]), True, 1.657)
    """
    table = np.asarray(values, dtype=np.float64)
    if units is not None and len(units) != len(datasets):
        raise InputError(
            f"Expected one of `units` for each of {len(datasets)} test sets, but got {len(units)}."
        )
    if table.shape != (len(datasets), len(scores)):
        raise InputError(
            f"Expected `values` of shape ({len(datasets)}, {len(scores)}), but got {table.shape}."
        )
    rows, columns = complete_block(table)
    unit_of = list(datasets if units is None else units)
    members: dict[str, list[int]] = {}
    for row in rows:
        members.setdefault(unit_of[row], []).append(row)
    kept = np.array([table[np.ix_(own, columns)].mean(axis=0) for own in members.values()]).reshape(
        len(members), len(columns)
    )
    N, k = kept.shape
    signed = -kept if higher_is_better else kept
    ranks = scipy.stats.rankdata(signed, axis=1) if kept.size else np.ones((N, k))
    statistic = _friedman(ranks)
    f = _iman_davenport(statistic, N, k)
    return RankComparison(
        scores=tuple(scores[i] for i in columns),
        datasets=tuple(datasets[i] for i in rows),
        units=tuple(members),
        left_out_scores=tuple(name for i, name in enumerate(scores) if i not in columns),
        left_out_datasets=tuple(name for i, name in enumerate(datasets) if i not in rows),
        average_ranks=ranks.mean(axis=0) if N else np.empty(0),
        statistic=statistic,
        p_value=float(scipy.stats.chi2.sf(statistic, k - 1)) if k > 1 else math.nan,
        f_statistic=f,
        f_p_value=float(scipy.stats.f.sf(f, k - 1, (k - 1) * (N - 1)))
        if k > 1 and N > 1
        else math.nan,
        critical_difference=critical_difference(k, N, alpha) if min(N, k) > 1 else math.nan,
        alpha=alpha,
    )


def critical_difference(k: int, N: int, alpha: float = 0.05) -> float:
    """Smallest difference of two average ranks that the Nemenyi test finds significant.

    q sqrt(k (k + 1) / (6 N)), q the studentised range of k and infinite degrees of freedom over
    the root of two; k >= 2 scores, N >= 1 data sets.

    Examples
    --------
    >>> round(critical_difference(4, 14), 2)  # Demsar 2006, section 3.2.4
    1.25
    """
    if k < 2 or N < 1 or not 0 < alpha < 1:
        raise InputError(
            f"Expected k >= 2, N >= 1 and `alpha` in (0, 1), but got k={k}, N={N}, alpha={alpha}."
        )
    q = float(scipy.stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * N))


def complete_block(values: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Return the rows and columns that are left when the emptiest ones go until no NaN is left.

    Of a row and a column that lack the same share, the column goes.

    Examples
    --------
    >>> complete_block(np.array([[1.0, 2.0, np.nan], [3.0, 4.0, np.nan]]))
    ([0, 1], [0, 1])
    """
    rows, columns = list(range(values.shape[0])), list(range(values.shape[1]))
    while rows and columns:
        missing = np.isnan(values[np.ix_(rows, columns)])
        if not missing.any():
            return rows, columns
        by_row, by_column = missing.mean(axis=1), missing.mean(axis=0)
        if by_row.max() > by_column.max():
            del rows[int(by_row.argmax())]
        else:
            del columns[int(by_column.argmax())]
    return [], []


def _friedman(ranks: NDArray[np.float64]) -> float:
    N, k = ranks.shape
    if k < 3 or N < 2 or (ranks == ranks[:, :1]).all():
        return math.nan
    return float(scipy.stats.friedmanchisquare(*ranks.T).statistic)


def _iman_davenport(statistic: float, N: int, k: int) -> float:
    left = N * (k - 1) - statistic
    return math.inf if left <= 1e-9 else (N - 1) * statistic / left
