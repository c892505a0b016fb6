"""Whether one confidence is better than another on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import (
    check_names,
    check_plan,
    generator,
    multiplicities,
    resampled,
    warn_few,
)
from trustvlm.metrics.conventions import value, warn_undefined
from trustvlm.metrics.counts import Ranking, area_table, rank
from trustvlm.metrics.info import METRIC_INFO
from trustvlm.metrics.inputs import confidence_array
from trustvlm.metrics.intervals import NEEDS_BOTH, difference_interval


@dataclass(frozen=True)
class PairedDifference:
    """The difference of a metric between two confidences on the same images, a - b.

    Attributes
    ----------
    metric
        Name of the metric.
    a, b
        Its value for each confidence.
    difference
        a - b. Of AURC, E-AURC, AUGRC and FPR95 a negative difference says that a is better.
    low, high
        Ends of the interval of the difference; NaN where the metric is undefined on the samples or
        on all resamples but one, and where no sample carries a difference.
    p_value
        Two-sided, of the hypothesis that there is no difference: at most 1 - `level` if and only
        if the interval leaves out zero.
    level
        Nominal coverage of the interval.
    n_resamples
        Resamples drawn.
    n_excluded
        Resamples in which the metric is undefined for a or b; interval and p-value are over the
        others. All of them if it is undefined on the samples themselves.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    level: float
    n_resamples: int
    n_excluded: int

    @classmethod
    def of_samples(
        cls,
        metric: str,
        rankings: tuple[Ranking, Ranking],
        values: tuple[float, float],
        samples: NDArray[np.float64],
        level: float,
    ) -> PairedDifference:
        """Summarise the `(n_resamples,)` resampled differences of a metric, NaN where undefined."""
        a, b = values
        if math.isnan(a - b):
            samples = np.full_like(samples, math.nan)
        if _same(metric, *rankings) and not math.isnan(a - b):
            low, high, p_value = 0.0, 0.0, 1.0
        else:
            low, high, p_value = difference_interval(
                a, b, samples, _carriers(metric, *rankings), level, METRIC_INFO[metric].bounds
            )
        return cls(
            metric=metric,
            a=a,
            b=b,
            difference=a - b,
            low=low,
            high=high,
            p_value=p_value,
            level=level,
            n_resamples=len(samples),
            n_excluded=int(np.isnan(samples).sum()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values.

        Examples
        --------
        >>> paired_bootstrap([2, 1], [3, 1], [1, 0], metric="accuracy").to_dict()["difference"]
        0.0
        """
        return asdict(self)


def paired_bootstrap(
    confidence_a: ArrayLike,
    confidence_b: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike | None = None,
    metric: str = "aurc",
    *,
    n_resamples: int = 2000,
    seed: int | np.random.Generator | None = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Interval and p-value of the difference of one metric between two confidences.

    Images are drawn with replacement and both confidences are evaluated on the same draw, so that
    what makes images easy or hard for both cancels.

    Parameters
    ----------
    confidence_a, confidence_b
        `(n,)` real numbers each, on any two scales, higher is more trusted; image i is the same in
        both.
    correct_a
        `(n,)` booleans, or zeros and ones: whether each prediction is right.
    correct_b
        The same of the second method, where it predicts otherwise; `correct_a` by default.
    metric
        One name from `metrics.names()`, in the `exact` convention.
    n_resamples
        How many resamples to draw.
    seed
        Of the draws; the same seed gives the same result. None takes fresh entropy.
    level
        Nominal coverage of the interval, in (0, 1).

    Returns
    -------
    PairedDifference
        a - b. NaN with an `UndefinedMetricWarning` if the metric is undefined for a or b. With
        fewer than 10 errors, or right samples, of a or b there is a `FewSamplesWarning`. Where
        both rank alike and are right alike the difference is 0 for certain, with a p-value of 1.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, an unknown metric, or numbers out of range.

    Notes
    -----
    Student's test with the standard deviation over resamples (Efron & Tibshirani 1993, "An
    Introduction to the Bootstrap", section 12.3) and one degree of freedom less than samples that
    carry the difference: the fewest errors, or right predictions, of a or b (AUROC, AUPR-error;
    FPR95, a twentieth of the right ones); images wrong under either (the AURC family,
    AUPR-success); images right under one only (accuracy). Resamples agree where both orders are
    perfect, or one is perfect and one
    reversed; then two Clopper-Pearson intervals are compared, which is conservative. How often the
    test rejects what is true is tabled in docs/research/intervals.md.

    Examples
    --------
    >>> right = [1] * 15 + [0] * 10
    >>> good, poor = range(25), [3, 7, 2] * 8 + [5]
    >>> paired = paired_bootstrap([-x for x in good], poor, right, metric="auroc", n_resamples=500)
    >>> paired.low > 0, paired.p_value < 0.05
    (True, True)
    """
    (name,) = check_names([metric], "metric")
    sides = _ranked(confidence_a, confidence_b, correct_a, correct_b)
    return _tested(*sides, [name], n_resamples, seed, level)[name]


def paired_bootstraps(
    confidence_a: ArrayLike,
    confidence_b: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike | None = None,
    metrics: str | Sequence[str] | None = None,
    *,
    n_resamples: int = 2000,
    seed: int | np.random.Generator | None = 0,
    level: float = 0.95,
) -> dict[str, PairedDifference]:
    """`paired_bootstrap` by several metrics, all of them on the same draws.

    Parameters
    ----------
    confidence_a, confidence_b, correct_a, correct_b, n_resamples, seed, level
        As of `paired_bootstrap`.
    metrics
        Names from `metrics.names()`; None for all.

    Returns
    -------
    dict of str to PairedDifference
        In the order of `metrics`; with a seed, what `paired_bootstrap` returns for each alone.

    Raises
    ------
    InputError
        As `paired_bootstrap`.

    Examples
    --------
    >>> right = [1, 0] * 10
    >>> paired = paired_bootstraps(right, range(20), right, metrics=["aurc", "auroc"])
    >>> round(paired["auroc"].difference, 2)
    0.55
    """
    names = check_names(metrics)
    sides = _ranked(confidence_a, confidence_b, correct_a, correct_b)
    return _tested(*sides, names, n_resamples, seed, level)


def _ranked(
    confidence_a: ArrayLike,
    confidence_b: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike | None,
) -> tuple[Ranking, Ranking]:
    a = rank(confidence_a, correct_a, ("confidence_a", "correct_a"))
    score = confidence_array(confidence_b, "confidence_b")
    if len(score) != a.n:
        raise InputError(
            f"Expected `confidence_b` to have shape ({a.n},) like `confidence_a`, "
            f"but got ({len(score)},)."
        )
    if correct_b is None:
        return a, rank(score, correct_a, ("confidence_b", "correct_a"))
    return a, rank(score, correct_b, ("confidence_b", "correct_b"))


def _tested(
    a: Ranking,
    b: Ranking,
    names: Sequence[str],
    n_resamples: int,
    seed: int | np.random.Generator | None,
    level: float,
) -> dict[str, PairedDifference]:
    n_resamples, level = check_plan(n_resamples, level)
    rng = generator(seed)
    values = {name: (value(name, a, "exact"), value(name, b, "exact")) for name in names}
    defined = [name for name in names if not any(map(math.isnan, values[name]))]
    for side, ranking in enumerate((a, b)):
        lacking = [name for name in names if math.isnan(values[name][side])]
        if lacking:
            # The caller of the public function is two frames above.
            warn_undefined(lacking, ranking, stacklevel=4)
            break
    warn_few(defined, a, b, stacklevel=4)
    of_resamples = _differences(defined, a, b, n_resamples, rng) if defined else {}
    undefined = np.full(n_resamples, math.nan)
    differences = {}
    for name, both in values.items():
        samples = of_resamples.get(name, undefined)
        differences[name] = PairedDifference.of_samples(name, (a, b), both, samples, level)
    return differences


def _differences(
    names: Sequence[str], a: Ranking, b: Ranking, n_resamples: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    table = area_table(a.n)
    # Multiplicities come in the order of a; image i of b's order has this position in that of a.
    position_in_a = np.empty(a.n, dtype=np.intp)
    position_in_a[a.order] = np.arange(a.n)
    at = position_in_a[b.order]
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for weights in multiplicities(a.n, n_resamples, rng):
        of_a = resampled(a, weights, names, table)
        of_b = resampled(b, np.take(weights, at, axis=1), names, table)
        for name in names:
            parts[name].append(of_a[name] - of_b[name])
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def _same(metric: str, a: Ranking, b: Ranking) -> bool:
    """Whether a metric cannot differ: equal labels for the accuracy, else equal orders too."""
    if metric == "accuracy":
        return not _carriers(metric, a, b)
    if METRIC_INFO[metric].needs != "order" and not np.array_equal(a.confidence, b.confidence):
        return False
    return all(map(np.array_equal, (a.order, a.ends, a.correct), (b.order, b.ends, b.correct)))


def _carriers(metric: str, a: Ranking, b: Ranking) -> int:
    """Count the samples that carry a difference; see `paired_bootstrap`."""
    if metric in NEEDS_BOTH or METRIC_INFO[metric].function is not None:
        # The threshold of FPR95 rests on the twentieth of the right ones that lie below it.
        each = 20 if metric == "fpr95" else 1
        counts = (a.in_blocks, b.in_blocks)
        fewest = min(min(int(one.n_wrong), -(-int(one.n_right) // each)) for one in counts)
        # Registered metrics may have a value, and a difference, where one side has no errors.
        if fewest or metric in NEEDS_BOTH:
            return fewest
    right_a, right_b = np.empty(a.n, dtype=bool), np.empty(b.n, dtype=bool)
    right_a[a.order], right_b[b.order] = a.correct, b.correct
    if metric == "accuracy":
        return int((right_a != right_b).sum())
    return int(min((~right_a | ~right_b).sum(), (right_a | right_b).sum()))


# P-values of several tests, so that looking often finds no more by chance than looking once.


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
