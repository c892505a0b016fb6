"""Coverage and risk at one threshold, at a coverage and at a risk, with intervals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.exceptions import InputError
from trustvlm.metrics.curve import RiskCoverageCurve, risk_coverage
from trustvlm.metrics.intervals import proportion_lower_bound, risk_upper_bound

# The shares of samples at which `coverage_at_risk` looks for its lower end.
_SHARES = np.arange(1, 21) / 20


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold accepts, and how much of that is wrong, each with an interval.

    Attributes
    ----------
    threshold
        Accept where confidence >= threshold.
    coverage, coverage_low, coverage_high
        Share of the samples accepted, and the interval of the share of all images of their kind.
    risk, risk_low, risk_high
        Share of errors among the accepted, and its interval; NaN in [0, 1] if none is accepted.
    accepted, errors, n
        The counts behind them.
    level
        Nominal coverage of each interval alone.
    """

    threshold: float
    coverage: float
    coverage_low: float
    coverage_high: float
    risk: float
    risk_low: float
    risk_high: float
    accepted: int
    errors: int
    n: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values.

        Examples
        --------
        >>> risk_at_threshold([0.9, 0.1], [1, 0], 0.5).to_dict()["accepted"]
        1
        """
        return asdict(self)


@dataclass(frozen=True)
class CoverageAtRisk:
    """How many samples can be accepted at a risk, with an interval.

    Attributes
    ----------
    risk
        Share of errors among the accepted that was asked for.
    coverage
        Largest share of the samples at which the observed risk is at most that; 0 if there is none.
        It was chosen by the labels and is too large on average.
    low, high
        Ends of the interval, of which `coverage_at_risk` says what it is about.
    threshold
        That accepts `coverage`; NaN if it is 0.
    n
        Number of samples.
    level
        Nominal coverage of the interval.
    """

    risk: float
    coverage: float
    low: float
    high: float
    threshold: float
    n: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values.

        Examples
        --------
        >>> coverage_at_risk([0.9, 0.1], [1, 0], 0.1).to_dict()["coverage"]
        0.5
        """
        return asdict(self)


def risk_at_threshold(
    confidence: ArrayLike, correct: ArrayLike, threshold: float, *, level: float = 0.95
) -> OperatingPoint:
    """Coverage and risk of a threshold that was fixed before these samples were seen.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    threshold
        A number; accept where confidence >= threshold.
    level
        Nominal coverage of each interval, in (0, 1).

    Returns
    -------
    OperatingPoint
        Of n = 0 the coverage and the risk are NaN, in [0, 1].

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or numbers out of range.

    Notes
    -----
    Both counts are binomial, so that the intervals of Clopper & Pearson (1934) hold for every n:
    they miss the share of all images of this kind in at most 1 - level of all data sets.

    Examples
    --------
    >>> point = risk_at_threshold([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], 0.5)
    >>> point.coverage, round(point.risk, 3), round(point.risk_low, 3), round(point.risk_high, 3)
    (0.75, 0.333, 0.008, 0.906)
    """
    _check_level(level)
    if math.isnan(threshold):
        raise InputError("Expected `threshold` to be a number, but got NaN.")
    return _point(risk_coverage(confidence, correct), threshold, level)


def risk_at_coverage(
    confidence: ArrayLike, correct: ArrayLike, coverage: float, *, level: float = 0.95
) -> OperatingPoint:
    """Risk where a share of the samples is accepted, with an interval.

    The threshold is the highest that accepts at least this share of the samples; with ties more may
    be accepted. It is read off the confidences alone, never off the labels.

    Parameters
    ----------
    confidence, correct, level
        As of `risk_at_threshold`.
    coverage
        In (0, 1].

    Returns
    -------
    OperatingPoint
        The intervals are about this threshold: its risk on, and its share of, all images of this
        kind. They are not about the threshold that would accept the share of all images, which
        `risk_band` is closer to. Without samples all is NaN, in [0, 1].

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or numbers out of range.

    Notes
    -----
    Clopper & Pearson 1934, as if the threshold had been fixed. Of the samples above it the number
    of errors is binomial given the threshold; the one or the tie on it, which is counted as well,
    is what may differ, and makes the interval an approximation.

    Examples
    --------
    >>> point = risk_at_coverage([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], 0.5)
    >>> point.threshold, point.risk, round(point.risk_high, 3)
    (0.8, 0.0, 0.842)
    """
    _check_level(level)
    curve = risk_coverage(confidence, correct)
    return _point(curve, curve.threshold_at(coverage), level)


def coverage_at_risk(
    confidence: ArrayLike, correct: ArrayLike, risk: float, *, level: float = 0.95
) -> CoverageAtRisk:
    """Largest coverage at which the risk is at most `risk`, with an interval.

    Parameters
    ----------
    confidence, correct, level
        As of `risk_at_threshold`.
    risk
        In [0, 1].

    Returns
    -------
    CoverageAtRisk
        The interval is about the share of these samples that the lowest threshold accepts whose
        risk on all images of this kind is at most `risk`; 0 where no threshold has that. Its lower
        end is 0 or one of twenty shares. Without samples it is [0, 1] and the coverage NaN.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or numbers out of range.

    Notes
    -----
    The upper end is the largest coverage at which the one-sided lower bound of Clopper & Pearson
    (1934) at (1 + level) / 2 is at most `risk`: at the threshold in question, fixed although
    unknown, that bound is seldom above its risk. The lower end is the largest of the shares 0.05,
    0.1, ..., 1 at which the upper bound, corrected for twenty shares (Bonferroni), is at most
    `risk`. To accept images by, use `decisions.certify`, which accepts more at the same guarantee.

    Examples
    --------
    >>> result = coverage_at_risk(range(200), [0] * 20 + [1] * 180, 0.05)
    >>> round(result.coverage, 3), result.low, result.high
    (0.945, 0.9, 0.98)
    """
    _check_level(level)
    if not 0 <= risk <= 1:
        raise InputError(f"Expected `risk` to lie in [0, 1], but got {risk}.")
    curve = risk_coverage(confidence, correct)
    if not curve.coverage.size:
        return CoverageAtRisk(float(risk), math.nan, 0.0, 1.0, math.nan, 0, level)
    tail = (1 - level) / 2
    coverage = curve.coverage_at(risk)
    below = np.flatnonzero(proportion_lower_bound(curve.errors, curve.accepted, 1 - tail) <= risk)
    at = np.searchsorted(curve.coverage, _SHARES - 1e-12)
    above = risk_upper_bound(curve.errors[at], curve.accepted[at], 1 - tail / len(_SHARES)) <= risk
    return CoverageAtRisk(
        risk=float(risk),
        coverage=coverage,
        low=float(np.max(curve.coverage[at][above], initial=0.0)),
        high=float(curve.coverage[below[-1]]) if below.size else 0.0,
        threshold=curve.threshold_at(coverage) if coverage else math.nan,
        n=int(curve.accepted[-1]),
        level=level,
    )


def _point(curve: RiskCoverageCurve, threshold: float, level: float) -> OperatingPoint:
    n = int(curve.accepted[-1]) if curve.accepted.size else 0
    # Thresholds descend: how many of them are at least this one.
    reached = int(np.count_nonzero(curve.thresholds >= threshold))
    accepted = int(curve.accepted[reached - 1]) if reached else 0
    errors = int(curve.errors[reached - 1]) if reached else 0
    coverage, coverage_low, coverage_high = _proportion(accepted, n, level)
    risk, risk_low, risk_high = _proportion(errors, accepted, level)
    return OperatingPoint(
        threshold=threshold,
        coverage=coverage,
        coverage_low=coverage_low,
        coverage_high=coverage_high,
        risk=risk,
        risk_low=risk_low,
        risk_high=risk_high,
        accepted=accepted,
        errors=errors,
        n=n,
        level=level,
    )


def _proportion(successes: int, n: int, level: float) -> tuple[float, float, float]:
    """Proportion of successes, NaN of none, and its two-sided Clopper-Pearson interval."""
    one_sided = 1 - (1 - level) / 2
    low = proportion_lower_bound(successes, n, one_sided)
    high = risk_upper_bound(successes, n, one_sided)
    return successes / n if n else math.nan, float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"Expected `level` to lie in (0, 1), but got {level!r}.")
