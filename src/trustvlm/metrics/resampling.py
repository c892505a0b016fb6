"""Bootstrap resamples as multiplicities: the samples are sorted once and never drawn out again.

A resample draws n samples with replacement. All that a metric sees of it is how often each sample
occurs, so that the counts at every threshold are cumulative sums of multiplicities in the order of
the one sort. Copies of a sample are tied with it, as they are in a resample written out in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trustvlm.metrics import exact
from trustvlm.metrics.counts import Counts
from trustvlm.metrics.ranking import Ranking

__all__ = ["evaluated", "formulas", "multiplicities", "resampled_counts"]

# Multiplicities held at a time, unless one resample alone is longer. Arrays of this length take
# 128 KiB: they stay in the processor's cache, and fit memory that the process has already.
_CHUNK = 1 << 14


def multiplicities(
    n: int, n_resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield `(rows, n)` arrays: how often each of n samples occurs in each resample.

    Examples
    --------
    >>> chunks = list(multiplicities(5, 100, np.random.default_rng(0)))
    >>> sum(len(chunk) for chunk in chunks), chunks[0].sum(axis=1)[:3]
    (100, array([5, 5, 5]))
    """
    rows = max(1, _CHUNK // n)
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
    >>> from trustvlm.metrics.ranking import rank
    >>> counts = resampled_counts(rank([0.9, 0.5, 0.5], [1, 0, 1]), np.array([[0, 2, 1]]))
    >>> counts.accepted, counts.right
    (array([[0, 0, 3]]), array([[0, 0, 1]]))
    """
    right = weights * ranking.correct
    if len(ranking.ends) < ranking.n:
        starts = np.concatenate([[0], ranking.ends[:-1] + 1])
        weights = np.add.reduceat(weights, starts, axis=1)
        right = np.add.reduceat(right, starts, axis=1)
    return Counts(accepted=_cumulative(weights), right=_cumulative(right))


def formulas(harmonic: NDArray[np.float64]) -> dict[str, Callable[[Counts], NDArray[np.float64]]]:
    """Every metric by name, for many resamples at a time; convention `exact`.

    Parameters
    ----------
    harmonic
        `(n + 1,)` harmonic numbers, shared by all resamples of n samples.
    """
    return {
        "accuracy": exact.accuracy,
        "aurc": lambda counts: exact.aurc(counts, harmonic),
        "eaurc": lambda counts: exact.eaurc(counts, harmonic),
        "augrc": exact.augrc,
        "auroc": exact.auroc,
        "fpr95": exact.fpr95,
        "aupr_success": exact.aupr_success,
        "aupr_error": exact.aupr_error,
    }


def evaluated(
    counts: Counts, names: Sequence[str], harmonic: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Evaluate several metrics on the same resamples; what two of them need is computed once.

    Parameters
    ----------
    counts
        `(rows, m + 1)`.
    names, harmonic
        Which metrics; as of `formulas`.

    Returns
    -------
    dict of str to NDArray
        `(rows,)` each.
    """
    known = formulas(harmonic)
    found = {name: known[name](counts) for name in names if name != "eaurc"}
    if "eaurc" in names:
        aurc = found["aurc"] if "aurc" in found else known["aurc"](counts)
        found["eaurc"] = aurc - exact.best_aurc(counts)
    return found


def _cumulative(values: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(values), values.shape[1] + 1), dtype=np.int64)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
