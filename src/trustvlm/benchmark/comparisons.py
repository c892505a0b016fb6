"""Which differences between scores are more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.benchmark.resamples import Resampled
from trustvlm.exceptions import InputError

__all__ = ["Comparison", "compare_to_reference", "holm"]


@dataclass(frozen=True)
class Comparison:
    """A score against the reference on the images of one data set.

    Attributes
    ----------
    dataset, score, reference, metric
        What is compared.
    value, reference_value
        The metric of both on draw 0, as fractions.
    difference, low, high
        Score - reference, and its paired bootstrap interval.
    p_value, p_holm
        Two-sided p-value, and the same after Holm's correction for all scores compared on this
        data set by this metric.
    level
        Nominal coverage of the interval; `significant` where `p_holm` is at most 1 - level.
    n
        Number of images.
    """

    dataset: str
    score: str
    reference: str
    metric: str
    value: float
    reference_value: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    level: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether there is a difference, after correction; False where nothing is defined."""
        return self.p_holm <= 1 - self.level + 1e-12

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values."""
        return asdict(self)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values of one family so that the chance of any false alarm stays below the level.

    Parameters
    ----------
    p_values
        `(m,)` in [0, 1]; NaN where there was no test, which counts for nothing.

    Returns
    -------
    NDArray
        `(m,)` float64, at least as large; NaN stays.

    Raises
    ------
    InputError
        For values outside [0, 1].

    Notes
    -----
    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure". It needs no independence.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise InputError(f"Expected `p_values` in [0, 1], but got {p[tested]}.")
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def compare_to_reference(
    dataset: str,
    resampled: Resampled,
    reference: str,
    metrics: Sequence[str],
    *,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare every other score of a data set to the reference, by each metric.

    Returns
    -------
    list of Comparison
        By metric, then by score in the order of the samples. Empty if the reference is not among
        the scores.

    Examples
    --------
    >>> from trustvlm.benchmark.resamples import resample
    >>> right = [1] * 8 + [0] * 8
    >>> good, bad = (range(16, 0, -1), right), (range(16), right)
    >>> resampled = resample({"good": good, "bad": bad}, ["auroc"], first="good")
    >>> (found,) = compare_to_reference("toy", resampled, "good", ["auroc"])
    >>> found.score, found.difference, found.significant
    ('bad', -1.0, True)
    """
    if reference not in resampled.estimates:
        return []
    found = []
    for metric in metrics:
        # The reference first: the resamples are then those of `metrics.paired_bootstrap`.
        pairs = {
            score: resampled.difference(reference, score, metric, level)
            for score in resampled.estimates
            if score != reference
        }
        adjusted = holm([pair.p_value for pair in pairs.values()])
        for (score, pair), p_holm in zip(pairs.items(), adjusted, strict=True):
            found.append(
                Comparison(
                    dataset=dataset,
                    score=score,
                    reference=reference,
                    metric=metric,
                    value=pair.b,
                    reference_value=pair.a,
                    difference=pair.b - pair.a,
                    low=-pair.high,
                    high=-pair.low,
                    p_value=pair.p_value,
                    p_holm=float(p_holm),
                    level=level,
                    n=resampled.n,
                )
            )
    return found
