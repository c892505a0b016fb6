"""Metrics of selective prediction, read off the risk-coverage curve.

With the n samples sorted by descending confidence and e_i = 1 where sample i is wrong, the risk at
coverage k/n is the share of errors among the first k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.metrics.ranking import Ranking, check_convention, rank
from trustvlm.metrics.undefined import undefined

__all__ = ["accuracy", "augrc", "aurc", "eaurc"]


def accuracy(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Share of correct samples, in [0, 1]; NaN with a warning for no samples.

    Examples
    --------
    >>> accuracy([0.9, 0.1], [1, 0])
    0.5
    """
    check_convention(convention)
    return _accuracy(rank(confidence, correct))


def aurc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Area under the risk-coverage curve, in [0, 1], lower is better.

    AURC = (1/n) sum_k (1/k) sum_{i<=k} e_i.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    convention
        `exact`: the expected value over all orders of ties. `trustvlm`: ties in input order, as
        the released script has them.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN or infinity.

    Notes
    -----
    Geifman & El-Yaniv 2017 (arXiv 1705.08500). Papers print it times 1000.

    Examples
    --------
    >>> round(1000 * aurc([0.5] * 6, [1, 1, 1, 0, 0, 0]), 1)
    500.0
    >>> round(1000 * aurc([0.5] * 6, [1, 1, 1, 0, 0, 0], convention="trustvlm"), 1)
    191.7
    """
    check_convention(convention)
    return _aurc(rank(confidence, correct), convention)


def eaurc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Excess AURC over that of a perfect ranking of the same predictions, lower is better.

    E-AURC = AURC - [R + (1 - R) ln(1 - R)], R the error rate. The bracket is the limit of the
    perfect ranking's AURC for large n, so a perfect ranking of few samples has a small excess.
    With every sample wrong the bracket is 1 and the excess 0; convention `trustvlm` gives NaN.

    Parameters
    ----------
    confidence, correct, convention
        As in `aurc`.

    Notes
    -----
    Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206).

    Examples
    --------
    >>> round(eaurc([0.9, 0.8, 0.2], [1, 1, 0]), 4)
    0.0481
    """
    check_convention(convention)
    return _eaurc(rank(confidence, correct), convention)


def augrc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Area under the generalised risk-coverage curve, in [0, 1], lower is better.

    AUGRC = (1/n) sum_k (1/n) sum_{i<=k} e_i: the mean risk of an undetected failure.

    Parameters
    ----------
    confidence, correct, convention
        As in `aurc`.

    Notes
    -----
    Traub et al. 2024 (arXiv 2407.01032). For large n it is (1 - AUROC) a (1 - a) + R^2 / 2.

    Examples
    --------
    >>> augrc([0.9, 0.1], [1, 0])
    0.25
    """
    check_convention(convention)
    return _augrc(rank(confidence, correct), convention)


def _accuracy(ranking: Ranking) -> float:
    if ranking.n == 0:
        return undefined("accuracy", "there are no samples")
    return ranking.n_right / ranking.n


def _errors(ranking: Ranking, convention: str) -> np.ndarray:
    return ranking.expected_errors() if convention == "exact" else ranking.errors_in_order()


def _aurc(ranking: Ranking, convention: str) -> float:
    if ranking.n == 0:
        return undefined("AURC", "there are no samples")
    k = np.arange(1, ranking.n + 1, dtype=np.float64)
    return float(np.mean(_errors(ranking, convention) / k))


def _eaurc(ranking: Ranking, convention: str) -> float:
    if ranking.n == 0:
        return undefined("E-AURC", "there are no samples")
    right = ranking.n_right / ranking.n
    if right == 0:
        if convention == "trustvlm":
            return undefined("E-AURC", "every sample is wrong")
        return _aurc(ranking, convention) - 1.0
    return _aurc(ranking, convention) - ((1 - right) + right * float(np.log(right)))


def _augrc(ranking: Ranking, convention: str) -> float:
    if ranking.n == 0:
        return undefined("AUGRC", "there are no samples")
    return float(np.mean(_errors(ranking, convention)) / ranking.n)
