"""Every metric at once, from one sort."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike

from trustvlm.metrics.conventions import check_convention, value, warn_undefined
from trustvlm.metrics.counts import rank
from trustvlm.metrics.info import METRICS


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

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics by name, as plain Python values.

        Examples
        --------
        >>> evaluate([0.9, 0.1], [1, 0]).to_dict()["auroc"]
        1.0
        """
        return asdict(self)


def evaluate(confidence: ArrayLike, correct: ArrayLike, convention: str = "exact") -> Evaluation:
    """Compute every metric of a confidence score.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted; any monotone scale.
    correct
        `(n,)` booleans, or zeros and ones: whether each prediction is right.
    convention
        `exact` (expected value over tie orders) or `trustvlm` (the released script's rules).

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
    values = {name: value(name, ranking, convention) for name in METRICS}
    warn_undefined([name for name in METRICS if math.isnan(values[name])], ranking)
    return Evaluation(**values, n=ranking.n, convention=convention)
