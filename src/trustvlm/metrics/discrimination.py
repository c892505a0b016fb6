"""Metrics of telling right from wrong: ROC and precision-recall curves of the confidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.ranking import Ranking, check_convention, rank
from trustvlm.metrics.undefined import undefined

__all__ = ["aupr_error", "aupr_success", "auroc", "fpr95"]

_ALL_RIGHT, _ALL_WRONG = "every sample is correct", "every sample is wrong"


def auroc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Probability that a correct sample is trusted more than a wrong one, ties counting half.

    In [0, 1], higher is better, 0.5 is chance. Positive means correct. NaN with a warning if all
    samples are correct, or all wrong. Both conventions agree.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    convention
        `exact` or `trustvlm`.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN or infinity.

    Examples
    --------
    >>> auroc([0.9, 0.8, 0.2], [1, 0, 0])
    1.0
    """
    check_convention(convention)
    return _auroc(rank(confidence, correct))


def fpr95(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Share of wrong samples still accepted when 95 % of the correct ones are, lower is better.

    `exact` takes the smallest false positive rate among thresholds with a true positive rate of
    at least 0.95. `trustvlm` takes the ROC vertex whose true positive rate is nearest to 0.95,
    on the curve without collinear points, as the released script does. NaN with a warning if all
    samples are correct, or (in `exact`) all wrong.

    Parameters
    ----------
    confidence, correct, convention
        As in `auroc`.

    Examples
    --------
    >>> fpr95([0.9, 0.8, 0.7, 0.2], [1, 0, 1, 0])
    0.5
    """
    check_convention(convention)
    return _fpr95(rank(confidence, correct), convention)


def aupr_success(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Area under the precision-recall curve with correct samples positive, by trapezoids.

    In [0, 1], higher is better; chance is the accuracy. NaN with a warning if no sample is
    correct; convention `trustvlm` gives 0.5 there, as the released script does.

    Parameters
    ----------
    confidence, correct, convention
        As in `auroc`.

    Examples
    --------
    >>> aupr_success([0.9, 0.2], [1, 0])
    1.0
    """
    check_convention(convention)
    return _aupr_success(rank(confidence, correct), convention)


def aupr_error(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Average precision of finding the errors by low confidence, in [0, 1], higher is better.

    AP = sum over thresholds of (recall step) * precision; chance is the error rate. NaN with a
    warning if no sample is wrong; convention `trustvlm` gives 0 there.

    Parameters
    ----------
    confidence, correct, convention
        As in `auroc`.

    Examples
    --------
    >>> aupr_error([0.9, 0.2], [1, 0])
    1.0
    """
    check_convention(convention)
    return _aupr_error(rank(confidence, correct), convention)


def _one_sided(ranking: Ranking) -> str | None:
    if ranking.n == 0:
        return "there are no samples"
    if ranking.n_right == ranking.n:
        return _ALL_RIGHT
    return _ALL_WRONG if ranking.n_right == 0 else None


def _auroc(ranking: Ranking) -> float:
    problem = _one_sided(ranking)
    if problem:
        return undefined("AUROC", problem)
    # Counting pairs in whole numbers keeps the area exact until the final division.
    right, wrong = np.r_[0, ranking.right], np.r_[0, ranking.wrong]
    twice_pairs = int(np.sum((right[1:] + right[:-1]) * np.diff(wrong)))
    return twice_pairs / (2 * ranking.n_right * (ranking.n - ranking.n_right))


def _fpr95(ranking: Ranking, convention: str) -> float:
    problem = _one_sided(ranking)
    if convention == "trustvlm" and problem == _ALL_WRONG:
        return 0.0  # with no true positive rate to compare, the script keeps the first vertex
    if problem:
        return undefined("FPR95", problem)
    tpr = np.r_[0, ranking.right] / ranking.n_right
    fpr = np.r_[0, ranking.wrong] / (ranking.n - ranking.n_right)
    if convention == "exact":
        return float(fpr[np.flatnonzero(tpr >= 0.95)[0]])
    corner = _corners(ranking)
    return float(fpr[corner][np.argmin(np.abs(tpr[corner] - 0.95))])


def _corners(ranking: Ranking) -> NDArray[np.bool_]:
    """Keep the ends of the ROC curve and every point where its direction changes."""
    keep = np.ones(len(ranking.right) + 1, dtype=bool)
    bend = (np.diff(ranking.right, 2) != 0) | (np.diff(ranking.wrong, 2) != 0)
    keep[2:-1] = bend
    return keep


def _aupr_success(ranking: Ranking, convention: str) -> float:
    if ranking.n and ranking.n_right == 0 and convention == "trustvlm":
        return 0.5  # the script's curve runs straight from (0, 1) to (1, 0)
    if ranking.n == 0 or ranking.n_right == 0:
        return undefined("AUPR-success", _one_sided(ranking) or "")
    precision = np.r_[1.0, ranking.right / ranking.accepted]
    recall = np.r_[0.0, ranking.right / ranking.n_right]
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def _aupr_error(ranking: Ranking, convention: str) -> float:
    n_wrong = ranking.n - ranking.n_right
    if ranking.n and n_wrong == 0 and convention == "trustvlm":
        return 0.0
    if n_wrong == 0:
        return undefined("AUPR-error", _one_sided(ranking) or "")
    # From the least trusted end: what lies at or below each threshold.
    above = np.r_[0, ranking.accepted[:-1]]
    wrong_above = np.r_[0, ranking.wrong[:-1]]
    found = (n_wrong - wrong_above)[::-1]
    flagged = (ranking.n - above)[::-1]
    return float(np.sum(np.diff(np.r_[0, found]) / n_wrong * (found / flagged)))
