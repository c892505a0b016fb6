"""Risk at a coverage and coverage at a risk: their intervals are exact, or hold in simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from trustvlm import metrics
from trustvlm.exceptions import InputError

cases = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=60)


@given(cases, st.floats(-5, 5), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_intervals_at_a_threshold_are_scipys(case, threshold, level):
    confidence, correct = map(np.asarray, zip(*case, strict=True))
    accepted = confidence >= threshold
    point = metrics.risk_at_threshold(confidence, correct, threshold, level=level)
    k, m, n = int((accepted & ~correct).sum()), int(accepted.sum()), len(case)
    assert (point.errors, point.accepted, point.n, point.level) == (k, m, n, level)
    expected = binomtest(m, n).proportion_ci(level)
    assert (point.coverage_low, point.coverage_high) == pytest.approx(tuple(expected), abs=1e-9)
    assert point.coverage == m / n
    if m:
        expected = binomtest(k, m).proportion_ci(level)
        assert (point.risk_low, point.risk_high) == pytest.approx(tuple(expected), abs=1e-9)
        assert point.risk == k / m
    else:
        assert math.isnan(point.risk)
        assert (point.risk_low, point.risk_high) == (0, 1)


@given(cases, st.floats(0.01, 1))
def test_risk_at_coverage_is_that_of_its_threshold(case, coverage):
    confidence, correct = zip(*case, strict=True)
    curve = metrics.risk_coverage(confidence, correct)
    point = metrics.risk_at_coverage(confidence, correct, coverage)
    assert point == metrics.risk_at_threshold(confidence, correct, curve.threshold_at(coverage))
    assert point.risk == curve.risk_at(coverage)
    assert point.coverage >= coverage - 1e-9


@given(cases, st.floats(0, 1))
def test_coverage_at_risk_lies_in_its_interval(case, risk):
    confidence, correct = zip(*case, strict=True)
    result = metrics.coverage_at_risk(confidence, correct, risk)
    curve = metrics.risk_coverage(confidence, correct)
    assert 0 <= result.low <= result.coverage <= result.high <= 1
    assert result.coverage == curve.coverage_at(risk)
    if result.coverage:
        assert result.threshold == curve.threshold_at(result.coverage)
    else:
        assert math.isnan(result.threshold)


def test_nothing_and_wrong_input():
    for point in (
        metrics.risk_at_threshold([], [], 0.5),
        metrics.risk_at_coverage([], [], 0.5),
    ):
        assert math.isnan(point.coverage)
        assert math.isnan(point.risk)
        assert (
            (point.coverage_low, point.coverage_high) == (0, 1) == (point.risk_low, point.risk_high)
        )
    nothing = metrics.coverage_at_risk([], [], 0.1)
    assert math.isnan(nothing.coverage)
    assert (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    with pytest.raises(InputError, match="`coverage` to lie in"):
        metrics.risk_at_coverage([1], [1], 0)
    with pytest.raises(InputError, match="`risk` to lie in"):
        metrics.coverage_at_risk([1], [1], 1.1)
    with pytest.raises(InputError, match="`threshold` to be a number"):
        metrics.risk_at_threshold([1], [1], math.nan)
    for read in (metrics.risk_at_threshold, metrics.risk_at_coverage, metrics.coverage_at_risk):
        with pytest.raises(InputError, match="`level`"):
            read([1], [1], 0.5, level=1)
        with pytest.raises(InputError, match="`confidence` to be finite"):
            read([math.nan], [1], 0.5)


def test_large_whole_numbers_keep_their_threshold():
    big = np.array([2**60, 2**60 + 1], dtype=np.int64)
    assert metrics.risk_at_coverage(big, [0, 1], 0.5).accepted == 1


def misses(errors, n, draws, coverage, risk):
    """How often the intervals miss; errors[i] is the risk of level i of equally likely ones.

    The population is known: its risk and share at every threshold are exact.
    """
    rng = np.random.default_rng(0)
    levels = len(errors)
    # From the top: at threshold i the levels i, i + 1, ... are accepted.
    true_risk = np.cumsum(errors[::-1])[::-1] / np.arange(levels, 0, -1)
    allowed = np.flatnonzero(true_risk <= risk)
    of_risk = of_share = of_coverage = 0
    for _ in range(draws):
        confidence = rng.integers(levels, size=n)
        correct = rng.random(n) >= errors[confidence]
        point = metrics.risk_at_coverage(confidence, correct, coverage)
        at = int(point.threshold)
        of_risk += not point.risk_low <= true_risk[at] <= point.risk_high
        of_share += not point.coverage_low <= (levels - at) / levels <= point.coverage_high
        result = metrics.coverage_at_risk(confidence, correct, risk)
        target = np.mean(confidence >= allowed[0]) if allowed.size else 0.0
        of_coverage += not result.low <= target <= result.high
    return of_risk / draws, of_share / draws, of_coverage / draws


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize(
    "errors",
    [
        np.linspace(0.4, 0.0, 1000),
        np.where(np.arange(1000) < 500, 0.5, 0.0),
        np.array([0.5, 0.2, 0.02]),
        np.array([1.0, 0.0]),
    ],
    ids=["even", "step", "three values", "two values"],
)
def test_the_intervals_hold_in_simulation(errors, n):
    """1,500 draws: 0.05 + three standard errors is 0.067."""
    assert max(misses(errors, n, 1500, coverage=0.5, risk=0.1)) < 0.067
