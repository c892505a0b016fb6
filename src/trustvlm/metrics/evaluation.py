"""Every metric, one by one and all at once from one sort.

Those of selective classification say how many errors remain as fewer samples are accepted: with the
n samples sorted by descending confidence and e_i = 1 where sample i is wrong, the risk at coverage
k/n is the share of errors among the first k. Those of discrimination say how well the confidence
tells right from wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from trustvlm.metrics.conventions import (
    EXACT,
    check_convention,
    measure,
    value,
    warn_undefined,
)
from trustvlm.metrics.counts import rank
from trustvlm.metrics.info import METRICS, unknown_error
from trustvlm.metrics.info import names as registered_names

# Selective classification: accuracy and the areas under risk-coverage curves.


def accuracy(
    confidence: ArrayLike,
    correct: ArrayLike,
    convention: str = "exact",
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Share of correct samples, in [0, 1]; it does not depend on the confidence.

    NaN with an `UndefinedMetricWarning` for no samples. Both conventions agree.

    Parameters
    ----------
    confidence, correct, convention, sample_weight
        As in `aurc`.

    Examples
    --------
    >>> accuracy([0.9, 0.1], [1, 0])
    0.5
    >>> accuracy([0.9, 0.1], [1, 0], sample_weight=[3, 1])
    0.75
    """
    return measure("accuracy", confidence, correct, convention, sample_weight)


def aurc(
    confidence: ArrayLike,
    correct: ArrayLike,
    convention: str = "exact",
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
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
    sample_weight
        `(n,)` numbers of at least 0, in `exact` only: how much each sample stands for in the
        population, on any scale. AURC = sum_i w_i r_i / sum_i w_i, with r_i the share of the weight
        of all samples at least as trusted as i that is on errors; tied samples share their weight
        and errors evenly. Equal weights change nothing, a weight of 0 leaves a sample out (no
        weight at all: NaN with a warning). A weight of 2 is not a sample written twice: for counts,
        repeat the samples.

    Returns
    -------
    float
        A fraction. Papers print it times 1000.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, negative weights, an unknown convention, or
        weights with `trustvlm`.

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
    >>> round(aurc([0.9, 0.5], [1, 0], sample_weight=[3, 1]), 4)
    0.0625
    """
    return measure("aurc", confidence, correct, convention, sample_weight)


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


def augrc(
    confidence: ArrayLike,
    correct: ArrayLike,
    convention: str = "exact",
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Area under the generalised risk-coverage curve, in [0, 1], lower is better.

    AUGRC = (1/n) sum_k (1/n) sum_{i<=k} e_i: the mean risk of an error that is accepted. NaN with
    an `UndefinedMetricWarning` for no samples.

    Parameters
    ----------
    confidence, correct, convention, sample_weight
        As in `aurc`; r_i is then the weight of the errors at least as trusted as i, over that of
        all samples.

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
    return measure("augrc", confidence, correct, convention, sample_weight)


def eaugrc(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Excess AUGRC over that of a perfect ranking of the same predictions, lower is better.

    A perfect ranking of n samples with w errors has the AUGRC w (w + 1) / (2 n^2), and the excess
    is (1 - AUROC) a (1 - a), a the accuracy: 0 for a perfect ranking of any n, and where all
    samples are right, or all wrong. NaN with an `UndefinedMetricWarning` for no samples.

    Parameters
    ----------
    confidence, correct
        As in `aurc`.
    convention
        `exact`; the released script has no such metric, so that `trustvlm` is refused.

    Notes
    -----
    Traub et al. 2024 (arXiv 2407.01032), whose limit for large n of the perfect AUGRC is R^2 / 2,
    R the error rate; as E-AURC of Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206).

    Examples
    --------
    >>> eaugrc([0.9, 0.8, 0.2], [1, 1, 0]), eaugrc([0.9, 0.1], [0, 1])
    (0.0, 0.25)
    """
    return measure("eaugrc", confidence, correct, convention)


# Discrimination: ROC and precision-recall curves of the confidence.


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
    """Average precision of finding the correct samples by high confidence, higher is better.

    In `exact`, AP = sum over thresholds of (recall step) * precision, tied samples together: a
    constant confidence has the accuracy. `trustvlm` takes trapezoids from recall 0, precision 1,
    as the released script does, which ties inflate: a constant confidence has (1 + accuracy) / 2.
    NaN with an `UndefinedMetricWarning` if no sample is correct; `trustvlm` gives 0.5 there.

    Parameters
    ----------
    confidence, correct, convention
        As in `auroc`.

    Examples
    --------
    >>> aupr_success([0.5, 0.5], [1, 0]), aupr_success([0.5, 0.5], [1, 0], "trustvlm")
    (0.5, 0.75)
    """
    return measure("aupr_success", confidence, correct, convention)


def aupr_error(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> float:
    """Average precision of finding the errors by low confidence, in [0, 1], higher is better.

    AP = sum over thresholds of (recall step) * precision, tied samples together, in both
    conventions; a constant confidence has the error rate. NaN with an `UndefinedMetricWarning` if
    no sample is wrong; convention `trustvlm` gives 0 there.

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


# All of them.


@dataclass(frozen=True)
class Evaluation:
    """All metrics of one confidence score: fractions in [0, 1], NaN where undefined.

    Attributes
    ----------
    accuracy, auroc, aupr_success, aupr_error
        Higher is better.
    aurc, eaurc, augrc, fpr95
        Lower is better.
    n
        Number of samples.
    convention
        `exact` or `trustvlm`.
    eaugrc
        Lower is better; NaN in convention `trustvlm`, which has none.
    others
        Values of registered metrics by name, each also an attribute of that name.
    """

    accuracy: float
    aurc: float
    eaurc: float
    augrc: float
    auroc: float
    fpr95: float
    aupr_success: float
    aupr_error: float
    n: int
    convention: str
    eaugrc: float = math.nan
    others: Mapping[str, float] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float:
        """Return a registered metric."""
        if not name.startswith("_") and name != "others" and name in self.others:
            return self.others[name]
        if name in registered_names():
            raise AttributeError(
                f"The metric `{name}` was not registered yet when this was evaluated."
            )
        raise AttributeError(f"There is no metric or attribute named {name!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics by name, as plain Python values.

        Examples
        --------
        >>> evaluate([0.9, 0.1], [1, 0]).to_dict()["auroc"]
        1.0
        """
        values = asdict(self)
        others = values.pop("others")
        return {**values, **others}


def evaluate(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> Evaluation:
    """Compute every metric of a confidence score, registered ones too.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted; any monotone scale.
    correct
        `(n,)` booleans, or zeros and ones: whether each prediction is right.
    convention
        `exact` (AURC, AUGRC and their excess: expected value over tie orders; AUROC: a tie is half;
        FPR95 and AUPR: ties together) or `trustvlm` (the released script's rules).

    Returns
    -------
    Evaluation
        float64 fractions. What is undefined is NaN, named in one `UndefinedMetricWarning`.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or an unknown convention.

    Examples
    --------
    >>> m = evaluate([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 1])
    >>> m.accuracy, round(m.auroc, 4), m.n
    (0.75, 0.6667, 4)
    """
    check_convention(convention)
    ranking = rank(confidence, correct)
    own = tuple(EXACT) if convention == "exact" else METRICS
    others = tuple(name for name in registered_names() if name not in METRICS)
    values = {name: value(name, ranking, convention) for name in (*own, *others)}
    warn_undefined([name for name in values if math.isnan(values[name])], ranking)
    return Evaluation(
        **{name: values[name] for name in own},
        n=ranking.n,
        convention=convention,
        others={name: values[name] for name in others},
    )


def compute(
    name: str,
    confidence: ArrayLike,
    correct: ArrayLike,
    convention: str = "exact",
) -> float:
    """Compute one metric by its name: of this package, or registered.

    Parameters
    ----------
    name
        One of `names()`, or `eaugrc`.
    confidence, correct, convention
        As of `evaluate`.

    Returns
    -------
    float
        NaN with an `UndefinedMetricWarning` where it is undefined.

    Raises
    ------
    InputError
        For an unknown name (near names are suggested), and as `evaluate`.

    Examples
    --------
    >>> compute("auroc", [0.9, 0.8, 0.2], [1, 0, 0])
    1.0
    """
    among = (*EXACT, *(other for other in registered_names() if other not in METRICS))
    if name not in among:
        raise unknown_error(name, among, "name")
    return measure(name, confidence, correct, convention)
