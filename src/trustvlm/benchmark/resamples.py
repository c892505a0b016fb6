"""One bootstrap for all scores of a data set: the same resampled images for every score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.results import Samples
from trustvlm.exceptions import InputError
from trustvlm.metrics import METRICS, PairedDifference
from trustvlm.metrics.bootstrap import percentile_interval
from trustvlm.metrics.conventions import value
from trustvlm.metrics.counts import harmonic_numbers
from trustvlm.metrics.paired import two_sided_p_value
from trustvlm.metrics.plan import check_names, check_plan, generator
from trustvlm.metrics.ranking import Ranking, rank
from trustvlm.metrics.resampling import evaluated, multiplicities, resampled_counts

__all__ = ["Resampled", "resample"]


@dataclass(frozen=True)
class Resampled:
    """Every metric of every score, on the images themselves and on shared resamples.

    Attributes
    ----------
    n
        Number of images.
    estimates
        By score and metric, on the images themselves; NaN where undefined.
    drawn
        `(n_resamples,)` by score and metric; NaN where undefined in a resample.
    """

    n: int
    estimates: Mapping[str, Mapping[str, float]]
    drawn: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def difference(self, a: str, b: str, metric: str, level: float = 0.95) -> PairedDifference:
        """Compare two scores, a - b; what `metrics.paired_bootstrap` returns for them."""
        at_a, at_b = self.estimates[a][metric], self.estimates[b][metric]
        drawn = self.drawn[a][metric] - self.drawn[b][metric]
        if math.isnan(at_a) or math.isnan(at_b):
            drawn = np.full_like(drawn, math.nan)
        low, high, n_excluded = percentile_interval(drawn, level)
        return PairedDifference(
            metric=metric,
            a=at_a,
            b=at_b,
            difference=at_a - at_b,
            low=low,
            high=high,
            p_value=two_sided_p_value(drawn),
            level=level,
            n_resamples=len(drawn),
            n_excluded=n_excluded,
        )


def resample(
    samples: Mapping[str, Samples],
    metrics: Sequence[str] = METRICS,
    *,
    first: str = "",
    n_resamples: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Draw images with replacement and evaluate every score on the same draws.

    Comparing k scores pairwise costs k evaluations instead of k (k - 1), and all metrics share the
    counts of one pass.

    Parameters
    ----------
    samples
        By score, confidence `(n,)` and correct `(n,)`; image i is the same in all.
    metrics
        Names from `METRICS`, in the `exact` convention.
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
    >>> right = [1, 1, 1, 1, 0, 0, 0]
    >>> found = resample({"a": ([7, 6, 5, 4, 3, 2, 1], right), "b": ([1, 7, 2, 6, 3, 5, 4], right)})
    >>> found.difference("a", "b", "auroc").low >= 0
    True
    """
    names = check_names(list(metrics))
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
    drawn = {score: {name: np.full(n_resamples, math.nan) for name in names} for score in samples}
    if n:
        base = rankings.get(first) or next(iter(rankings.values()))
        _draw(rankings, base, drawn, n_resamples, rng)
    estimates = {
        score: {name: value(name, ranking, "exact") for name in names}
        for score, ranking in rankings.items()
    }
    return Resampled(n, estimates, drawn)


def _draw(
    rankings: Mapping[str, Ranking],
    base: Ranking,
    drawn: Mapping[str, Mapping[str, NDArray[np.float64]]],
    n_resamples: int,
    rng: np.random.Generator,
) -> None:
    harmonic = harmonic_numbers(base.n)
    # Metrics see ranks alone: scores that rank alike, such as logits and cosines, are drawn once.
    distinct: dict[bytes, str] = {}
    for score, ranking in rankings.items():
        distinct.setdefault(_ranks(ranking), score)
    place = np.empty(base.n, dtype=np.intp)
    place[base.order] = np.arange(base.n)
    at = {score: place[rankings[score].order] for score in distinct.values()}
    done = 0
    for weights in multiplicities(base.n, n_resamples, rng):
        rows = slice(done, done + len(weights))
        for score, places in at.items():
            counts = resampled_counts(rankings[score], np.take(weights, places, axis=1))
            for name, values in evaluated(counts, list(drawn[score]), harmonic).items():
                drawn[score][name][rows] = values
        done += len(weights)
    for score, ranking in rankings.items():
        for name, values in drawn[distinct[_ranks(ranking)]].items():
            drawn[score][name][:] = values


def _ranks(ranking: Ranking) -> bytes:
    return b"".join(a.tobytes() for a in (ranking.order, ranking.ends, ranking.correct))
