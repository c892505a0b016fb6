"""Metrics of telling right from wrong: ROC and precision-recall curves of the confidence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from trustvlm.metrics.conventions import measure


def auroc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Probability that a correct sample is trusted more than a wrong one, a tie counting half.

    In [0, 1], higher is better, 0.5 is chance. Positive means correct. NaN with an
    `UndefinedMetricWarning` if all samples are correct, or all wrong. Both conventions agree.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    convention
        `exact` or `trustvlm`.

    Returns
    -------
    float
        A fraction, exact up to one rounding: pairs are counted in whole numbers.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or an unknown convention.

    Notes
    -----
    Hanley & McNeil 1982; as the test of a confidence, Hendrycks & Gimpel 2017 (arXiv 1610.02136).

    Examples
    --------
    >>> auroc([0.9, 0.8, 0.2], [1, 0, 0])
    1.0
    """
    return measure("auroc", confidence, correct, convention)


def fpr95(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Share of wrong samples still accepted when 95 % of the correct ones are, lower is better.

    `exact` takes the smallest false positive rate among thresholds with a true positive rate of
    at least 0.95. `trustvlm` takes the ROC vertex whose true positive rate is nearest to 0.95,
    on the curve without collinear points, as the released script does. NaN with an
    `UndefinedMetricWarning` if all samples are correct or, in `exact`, all wrong.

    Parameters
    ----------
    confidence, correct, convention
        As in `auroc`.

    Examples
    --------
    >>> fpr95([0.9, 0.8, 0.7, 0.2], [1, 0, 1, 0])
    0.5
    """
    return measure("fpr95", confidence, correct, convention)


def aupr_success(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Area under the precision-recall curve with correct samples positive, by trapezoids.

    In [0, 1], higher is better; a confidence without information comes close to the accuracy. The
    curve starts at recall 0, precision 1. NaN with an `UndefinedMetricWarning` if no sample is
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
    return measure("aupr_success", confidence, correct, convention)


def aupr_error(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Average precision of finding the errors by low confidence, in [0, 1], higher is better.

    AP = sum over thresholds of (recall step) * precision; a confidence without information comes
    close to the error rate. NaN with an `UndefinedMetricWarning` if no sample is wrong; convention
    `trustvlm` gives 0 there.

    Parameters
    ----------
    confidence, correct, convention
        As in `auroc`.

    Examples
    --------
    >>> aupr_error([0.9, 0.2], [1, 0])
    1.0
    """
    return measure("aupr_error", confidence, correct, convention)
