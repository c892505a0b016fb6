"""Metrics of selective prediction: how many errors remain as fewer samples are accepted.

With the n samples sorted by descending confidence and e_i = 1 where sample i is wrong, the risk at
coverage k/n is the share of errors among the first k.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from trustvlm.metrics.conventions import measure


def accuracy(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Share of correct samples, in [0, 1]; it does not depend on the confidence.

    NaN with an `UndefinedMetricWarning` for no samples. Both conventions agree.

    Parameters
    ----------
    confidence, correct, convention
        As in `aurc`.

    Examples
    --------
    >>> accuracy([0.9, 0.1], [1, 0])
    0.5
    """
    return measure("accuracy", confidence, correct, convention)


def aurc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Area under the risk-coverage curve, in [0, 1], lower is better.

    AURC = (1/n) sum_k (1/k) sum_{i<=k} e_i. A confidence without information has an AURC equal to
    the error rate. NaN with an `UndefinedMetricWarning` for no samples.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    convention
        `exact`: the expected value over all orders of ties. `trustvlm`: ties in input order, as
        the released script has them.

    Returns
    -------
    float
        A fraction. Papers print it times 1000.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or an unknown convention.

    Notes
    -----
    Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks"
    (arXiv 1705.08500).

    Examples
    --------
    >>> round(1000 * aurc([0.5] * 6, [1, 1, 1, 0, 0, 0]), 1)
    500.0
    >>> round(1000 * aurc([0.5] * 6, [1, 1, 1, 0, 0, 0], convention="trustvlm"), 1)
    191.7
    """
    return measure("aurc", confidence, correct, convention)


def eaurc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Excess AURC over that of a perfect ranking of the same predictions, lower is better.

    E-AURC = AURC - [R + (1 - R) ln(1 - R)], R the error rate and 0 ln 0 = 0. The bracket is the
    limit of a perfect ranking's AURC for large n, so that a perfect ranking of few samples has a
    small excess. With every sample wrong the excess is 0; convention `trustvlm` gives NaN there.
    NaN with an `UndefinedMetricWarning` for no samples.

    Parameters
    ----------
    confidence, correct, convention
        As in `aurc`.

    Notes
    -----
    Geifman, Uziel & El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers" (arXiv 1805.08206).

    Examples
    --------
    >>> round(eaurc([0.9, 0.8, 0.2], [1, 1, 0]), 4)
    0.0481
    """
    return measure("eaurc", confidence, correct, convention)


def augrc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Area under the generalised risk-coverage curve, in [0, 1], lower is better.

    AUGRC = (1/n) sum_k (1/n) sum_{i<=k} e_i: the mean risk of an error that is accepted. NaN with
    an `UndefinedMetricWarning` for no samples.

    Parameters
    ----------
    confidence, correct, convention
        As in `aurc`.

    Notes
    -----
    Traub et al. 2024, "Overcoming Common Flaws in the Evaluation of Selective Classification
    Systems" (arXiv 2407.01032). In `exact`, with a the accuracy and R = 1 - a, it equals
    (1 - AUROC) a R + R^2 / 2 + R / (2 n); that paper has the limit for large n.

    Examples
    --------
    >>> augrc([0.9, 0.1], [1, 0])
    0.25
    """
    return measure("augrc", confidence, correct, convention)
