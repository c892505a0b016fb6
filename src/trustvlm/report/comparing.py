"""Two evaluations on the same images: what differs by more than chance."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.exceptions import UndefinedMetricWarning
from trustvlm.metrics.adjusting import holm
from trustvlm.report.columns import COLUMNS
from trustvlm.report.pairing import Pairing, pair
from trustvlm.report.runs import Run

__all__ = ["LEADING", "Compared", "Difference", "Switched", "compare_runs"]

# What one comparison is judged by, whatever the other metrics say.
LEADING = "aurc"


@dataclass(frozen=True)
class Difference:
    """A metric of two runs on the same images, as fractions.

    Attributes
    ----------
    metric
        Name of the metric.
    a, b
        Its values.
    difference, low, high
        b - a, and its paired bootstrap interval.
    p_value, p_adjusted
        Two-sided, and after Holm's correction for the metrics beside AURC, which is named in
        advance as the one to judge by and keeps its own.
    level
        Nominal coverage of the interval.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    level: float

    @property
    def significant(self) -> bool:
        """Whether there is a difference, after correction; False where nothing is defined."""
        return self.p_adjusted <= 1 - self.level + 1e-12


@dataclass(frozen=True)
class Switched:
    """How many of the labels of b are right where those of a are, and where they are not.

    Attributes
    ----------
    both, only_a, only_b, neither
        Images labelled right by both runs, by one alone, by none.
    p_value
        Of McNemar's exact test: that right by a alone and right by b alone are equally likely.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float


@dataclass(frozen=True)
class Compared:
    """Two runs, their pairing, and what differs.

    Attributes
    ----------
    a, b, pairing
        The runs, and which images they share.
    correct_a, correct_b
        `(k,)` bool, on the shared images.
    confidence_a, confidence_b
        `(k,)` float64.
    differences
        By metric, in the order of `metrics.METRICS`.
    switched
        Of the labels.
    n_resamples
        Of the bootstrap.
    """

    a: Run
    b: Run
    pairing: Pairing
    correct_a: NDArray[np.bool_]
    correct_b: NDArray[np.bool_]
    confidence_a: NDArray[np.float64]
    confidence_b: NDArray[np.float64]
    differences: tuple[Difference, ...]
    switched: Switched
    n_resamples: int

    @property
    def n(self) -> int:
        """Number of images in both runs."""
        return len(self.correct_a)

    def of(self, metric: str) -> Difference:
        """Return the difference of one metric."""
        return next(found for found in self.differences if found.metric == metric)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON values; NaN becomes None."""
        return {
            "a": {"name": self.a.name, "score": self.a.score, "images": len(self.a)},
            "b": {"name": self.b.name, "score": self.b.score, "images": len(self.b)},
            "n": self.n,
            "paired_by": self.pairing.by,
            "relabelled": self.pairing.relabelled,
            "n_resamples": self.n_resamples,
            "switched": _plain(asdict(self.switched)),
            "differences": [_plain(asdict(found)) for found in self.differences],
        }


def compare_runs(
    a: Run, b: Run, *, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Compared:
    """Compare two runs by every metric, on the images that both have.

    Parameters
    ----------
    a, b
        Two runs; differences are b - a.
    n_resamples, seed, level
        As of `metrics.paired_bootstrap`. Metrics are in the `exact` convention.

    Raises
    ------
    InputError
        If the runs have no image in common, or numbers are out of range.

    Notes
    -----
    A run is right or wrong by its own true labels; how many of them differ is counted.
    """
    a, b = _told_apart(a, b)
    shared = pair(a, b)
    correct_a, correct_b = a.correct[shared.a], b.correct[shared.b]
    confidence_a, confidence_b = a.confidence[shared.a], b.confidence[shared.b]
    with warnings.catch_warnings():
        # The tables say what is undefined.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        # The second run first: the difference is what changed.
        tests = metrics.paired_bootstraps(
            confidence_b,
            confidence_a,
            correct_b,
            correct_a,
            [column.key for column in COLUMNS],
            n_resamples=n_resamples,
            seed=seed,
            level=level,
        )
    found = list(tests.values())
    others = iter(holm([one.p_value for one in found if one.metric != LEADING]))
    adjusted = [one.p_value if one.metric == LEADING else next(others) for one in found]
    return Compared(
        a=a,
        b=b,
        pairing=shared,
        correct_a=correct_a,
        correct_b=correct_b,
        confidence_a=confidence_a,
        confidence_b=confidence_b,
        differences=tuple(
            Difference(
                metric=one.metric,
                a=one.b,
                b=one.a,
                difference=one.difference,
                low=one.low,
                high=one.high,
                p_value=one.p_value,
                p_adjusted=float(p_adjusted),
                level=level,
            )
            for one, p_adjusted in zip(found, adjusted, strict=True)
        ),
        switched=_switched(correct_a, correct_b),
        n_resamples=n_resamples,
    )


def _told_apart(a: Run, b: Run) -> tuple[Run, Run]:
    """Give runs of one name the names of their scores, or else letters."""
    if a.name == b.name and a.score != b.score:
        return replace(a, name=a.score), replace(b, name=b.score)
    if a.name == b.name:
        return replace(a, name=f"A ({a.name})"), replace(b, name=f"B ({b.name})")
    return a, b


def _switched(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Switched:
    """Cross the two; McNemar 1947 in the exact form, a binomial test of the switched images.

    Examples
    --------
    >>> _switched(np.array([1, 1, 0], bool), np.array([1, 0, 0], bool))
    Switched(both=1, only_a=1, only_b=0, neither=1, p_value=1.0)
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    moved = only_a + only_b
    p_value = float(binomtest(only_b, moved).pvalue) if moved else 1.0
    return Switched(int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()), p_value)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
