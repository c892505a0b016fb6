"""The risk-coverage curve holds what a threshold can reach, and nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm import metrics
from trustvlm.exceptions import InputError

cases = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=40)


def test_ties_make_one_point():
    curve = metrics.risk_coverage([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    np.testing.assert_array_equal(curve.coverage, [0.25, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 1 / 3, 0.5])
    np.testing.assert_array_equal(curve.thresholds, [0.9, 0.5, 0.1])
    np.testing.assert_array_equal(curve.accepted, [1, 3, 4])
    np.testing.assert_array_equal(curve.errors, [0, 1, 2])


def test_reading_the_curve():
    curve = metrics.risk_coverage([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    assert curve.risk_at(0.25) == 0
    assert curve.risk_at(0.26) == pytest.approx(1 / 3)
    assert curve.risk_at(1) == 0.5
    assert curve.accuracy_at(0.5) == pytest.approx(2 / 3)
    assert curve.threshold_at(0.25) == 0.9
    assert curve.threshold_at(0.26) == 0.5
    assert curve.coverage_at(0.4) == 0.75
    assert curve.coverage_at(0.0) == 0.25
    assert curve.coverage_at(1.0) == 1.0
    assert metrics.risk_coverage([0.9], [0]).coverage_at(0.1) == 0


def test_rounding_of_a_bound_does_not_move_it():
    curve = metrics.risk_coverage(-np.arange(10), [1] * 7 + [0] * 3)
    assert curve.threshold_at(0.1 + 0.2) == curve.threshold_at(0.3) == -2
    assert curve.coverage_at(1 - 0.7) == curve.coverage_at(0.3) == 1.0


@pytest.mark.parametrize("bad", [0, -0.1, 1.1, math.nan])
def test_coverage_out_of_range(bad):
    curve = metrics.risk_coverage([0.9], [1])
    for read in (curve.risk_at, curve.accuracy_at, curve.threshold_at):
        with pytest.raises(InputError, match="`coverage`"):
            read(bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_risk_out_of_range(bad):
    with pytest.raises(InputError, match="`risk`"):
        metrics.risk_coverage([0.9], [1]).coverage_at(bad)


def test_no_samples_no_points():
    curve = metrics.risk_coverage([], [])
    assert curve.coverage.size == 0
    assert math.isnan(curve.risk_at(0.5))
    assert math.isnan(curve.accuracy_at(0.5))
    assert math.isnan(curve.threshold_at(0.5))
    assert curve.coverage_at(0.5) == 0


@given(cases)
def test_thresholds_accept_what_the_curve_says(samples):
    confidence, correct = map(np.asarray, zip(*samples, strict=True))
    curve = metrics.risk_coverage(confidence, correct)
    assert sorted(set(confidence), reverse=True) == list(curve.thresholds)
    for i, threshold in enumerate(curve.thresholds):
        accepted = confidence >= threshold
        assert curve.accepted[i] == accepted.sum()
        assert curve.errors[i] == (accepted & ~correct).sum()
        assert curve.coverage[i] == accepted.mean()
        assert curve.risk[i] == curve.errors[i] / curve.accepted[i]
        assert curve.threshold_at(curve.coverage[i]) == threshold
        assert curve.coverage_at(curve.risk[i]) >= curve.coverage[i]


@given(cases)
def test_convention_trustvlm_has_a_point_per_sample(samples):
    confidence, correct = zip(*samples, strict=True)
    curve = metrics.risk_coverage(confidence, correct, convention="trustvlm")
    assert len(curve.risk) == len(samples)
    assert curve.risk.mean() == pytest.approx(metrics.aurc(confidence, correct, "trustvlm"))
    assert list(curve.thresholds) == sorted(confidence, reverse=True)


def test_thresholds_keep_every_digit():
    big = np.array([2**60, 2**60 + 1], dtype=np.int64)
    curve = metrics.risk_coverage(big, [0, 1])
    assert curve.thresholds.dtype == np.int64
    assert curve.threshold_at(0.5) == 2**60 + 1
    assert list(big >= curve.threshold_at(0.5)) == [False, True]
    assert metrics.risk_coverage([3, 2], [1, 1]).thresholds.dtype == np.float64
    single = np.array([0.1, 0.2], dtype=np.float32)
    assert (single >= metrics.risk_coverage(single, [1, 1]).threshold_at(0.5)).sum() == 1
