"""Every statistic of a study's results, computed once for tables, figures and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trustvlm.benchmark.comparisons import Comparison, compare_to_reference
from trustvlm.benchmark.draws import Spread, mean_over_datasets, spreads
from trustvlm.benchmark.marks import Mark, leaders
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, columns_of
from trustvlm.benchmark.ranks import RankComparison, compare_ranks
from trustvlm.benchmark.resamples import Resampled, resample
from trustvlm.benchmark.results import Results
from trustvlm.exceptions import InputError

__all__ = ["Analysis", "analyse"]

_NOTHING = Spread(math.nan, math.nan, 0)


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
    level, n_resamples, seed
        Of the bootstrap.
    """

    results: Results
    metrics: tuple[str, ...]
    spreads: dict[str, dict[tuple[str, str, int], Spread]]
    ranks: dict[str, RankComparison]
    resampled: dict[str, Resampled]
    comparisons: tuple[Comparison, ...]
    level: float
    n_resamples: int
    seed: int

    def spread(self, metric: str, dataset: str, score: str, shots: int | None = None) -> Spread:
        """Return a metric over the draws, at the largest number of shots unless told."""
        shots = self.results.largest if shots is None else shots
        return self.spreads[metric].get((dataset, score, shots), _NOTHING)

    def mean(self, metric: str, score: str, shots: int | None = None) -> Spread:
        """Return the mean over the data sets on which scores are ranked.

        Undefined for scores that are not ranked, because they lack some of these data sets.
        """
        ranks = self.ranks[metric]
        if score not in ranks.scores:
            return _NOTHING
        shots = self.results.largest if shots is None else shots
        return mean_over_datasets(self.results, metric, ranks.datasets, score, shots)

    def marks(self, metric: str, dataset: str) -> dict[str, Mark]:
        """Return which scores are significantly best or second best on a data set."""
        shown = {score: self.spread(metric, dataset, score).mean for score in self.results.scores}
        column = METRIC_COLUMNS[metric]
        return leaders(
            shown,
            self.resampled.get(dataset),
            metric,
            higher_is_better=column.higher_is_better,
            level=self.level,
        )

    def ordered(self, metric: str) -> list[str]:
        """Return the scores by average rank, best first; those without a rank last, by name."""
        ranks = {score: self.ranks[metric].rank_of(score) for score in self.results.scores}
        return sorted(ranks, key=lambda s: (math.isnan(ranks[s]), _or_zero(ranks[s]), s))


def analyse(
    results: Results,
    metrics: Sequence[str] = tuple(METRIC_COLUMNS),
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Compute spreads, ranks, and paired tests of the results of one setting.

    Parameters
    ----------
    results
        Of one setting; see `Results.of`.
    metrics
        Which, in the order of the tables.
    n_resamples, seed, level
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
    columns = columns_of(metrics)
    found = {column.key: spreads(results, column.key) for column in columns}
    ranks = {}
    for column in columns:
        cells = [
            [found[column.key].get((d, s, results.largest), _NOTHING).mean for s in results.scores]
            for d in results.datasets
        ]
        ranks[column.key] = compare_ranks(
            cells or [[] for _ in results.datasets],
            results.scores,
            results.datasets,
            higher_is_better=column.higher_is_better,
        )
    resampled, comparisons = {}, []
    for done, dataset in enumerate(results.datasets, 1):
        samples = results.samples_of(dataset)
        if samples:
            resampled[dataset] = resample(
                samples, metrics, first=results.reference, n_resamples=n_resamples, seed=seed
            )
            comparisons += compare_to_reference(
                dataset, resampled[dataset], results.reference, metrics, level=level
            )
        if progress is not None:
            progress(done, len(results.datasets))
    return Analysis(
        results=results,
        metrics=tuple(metrics),
        spreads=found,
        ranks=ranks,
        resampled=resampled,
        comparisons=tuple(comparisons),
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
