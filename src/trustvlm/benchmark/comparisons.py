"""Which differences between scores are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trustvlm.benchmark.resamples import Resampled
from trustvlm.metrics.adjusting import holm

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
