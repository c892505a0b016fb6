"""Average ranks of scores over data sets, and which of them can be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trustvlm.exceptions import InputError

__all__ = ["RankComparison", "compare_ranks", "complete_block", "critical_difference"]


@dataclass(frozen=True)
class RankComparison:
    """Ranks of k scores over N data sets; rank 1 is the best.

    Attributes
    ----------
    scores, datasets
        What was ranked: those with a value everywhere.
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
        Nemenyi: average ranks that differ by less cannot be told apart; NaN below 2 of either.
    alpha
        Of the critical difference.
    """

    scores: tuple[str, ...]
    datasets: tuple[str, ...]
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
        """Return the largest groups of scores that cannot be told apart, best first.

        Two scores belong together if their average ranks differ by less than the critical
        difference. Groups of one are left out; without a critical difference there are none.
        """
        if math.isnan(self.critical_difference):
            return []
        order = np.argsort(self.average_ranks, kind="stable")
        ranks = self.average_ranks[order]
        found: list[tuple[int, int]] = []
        for start in range(len(order)):
            end = int(np.searchsorted(ranks, ranks[start] + self.critical_difference, side="left"))
            if end - start > 1 and (not found or end > found[-1][1]):
                found.append((start, end))
        return [tuple(self.scores[i] for i in order[start:end]) for start, end in found]


def compare_ranks(
    values: ArrayLike,
    scores: Sequence[str],
    datasets: Sequence[str],
    *,
    higher_is_better: bool,
    alpha: float = 0.05,
) -> RankComparison:
    """Rank scores on each data set and test whether the average ranks differ.

    Parameters
    ----------
    values
        `(N, k)` a metric of each score on each data set; NaN where undefined. Scores and data
        sets are left out, the emptiest first, until no value is missing.
    scores, datasets
        Names of the columns and rows.
    higher_is_better
        Which end of the metric is good.
    alpha
        Level of the critical difference.

    Raises
    ------
    InputError
        If names and values do not fit.

    Notes
    -----
    Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 7),
    sections 3.2.1 and 3.2.2; Iman & Davenport 1980. The tests take the data sets to be
    independent of one another: test sets that share their shots are not.

    Examples
    --------
    >>> found = compare_ranks([[0.9, 0.8, 0.7]] * 4, "abc", "wxyz", higher_is_better=True)
    >>> found.average_ranks, found.rejected, round(found.critical_difference, 3)
    (array([1., 2., 3.]), True, 1.657)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (len(datasets), len(scores)):
        raise InputError(
            f"Expected `values` of shape ({len(datasets)}, {len(scores)}), but got {table.shape}."
        )
    rows, columns = complete_block(table)
    kept = table[np.ix_(rows, columns)]
    N, k = kept.shape
    signed = -kept if higher_is_better else kept
    ranks = stats.rankdata(signed, axis=1) if kept.size else np.ones((N, k))
    statistic = _friedman(ranks)
    f = _iman_davenport(statistic, N, k)
    return RankComparison(
        scores=tuple(scores[i] for i in columns),
        datasets=tuple(datasets[i] for i in rows),
        left_out_scores=tuple(name for i, name in enumerate(scores) if i not in columns),
        left_out_datasets=tuple(name for i, name in enumerate(datasets) if i not in rows),
        average_ranks=ranks.mean(axis=0) if N else np.empty(0),
        statistic=statistic,
        p_value=float(stats.chi2.sf(statistic, k - 1)) if k > 1 else math.nan,
        f_statistic=f,
        f_p_value=float(stats.f.sf(f, k - 1, (k - 1) * (N - 1))) if k > 1 and N > 1 else math.nan,
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
    q = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
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
    return float(stats.friedmanchisquare(*ranks.T).statistic)


def _iman_davenport(statistic: float, N: int, k: int) -> float:
    left = N * (k - 1) - statistic
    return math.inf if left <= 1e-9 else (N - 1) * statistic / left
