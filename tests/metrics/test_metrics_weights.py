"""Metrics with weights of samples: against loops in fractions, and what must hold of them."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trustvlm import metrics
from trustvlm.exceptions import InputError, UndefinedMetricWarning

samples = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 5)), min_size=1, max_size=25
)


def slow(confidence, correct, weight):
    """Accuracy, AURC and AUGRC sample by sample; ties share their weight and errors evenly."""
    kept = [s for s in zip(confidence, correct, weight, strict=True) if s[2]]
    total = Fraction(sum(w for *_, w in kept))
    aurc = augrc = accepted = wrong = Fraction(0)
    for value in sorted({c for c, *_ in kept}, reverse=True):
        block = [(y, w) for c, y, w in kept if c == value]
        own = Fraction(sum(w for _, w in block), len(block))
        error = Fraction(sum(w for y, w in block if not y), len(block))
        for _ in block:
            accepted, wrong = accepted + own, wrong + error
            aurc += own * wrong / accepted
            augrc += own * wrong / total
    right = Fraction(sum(w for _, y, w in kept if y))
    return [float(v) for v in (right / total, aurc / total, augrc / total)]


@given(samples, st.sampled_from([1, 0.25, 1e-308, 1e300]))
def test_weighted_metrics_equal_a_loop(case, scale):
    confidence, correct, weight = map(list, zip(*case, strict=True))
    assume(any(weight))
    expected = slow(confidence, correct, weight)
    weights = scale * np.asarray(weight)
    for name, value in zip(("accuracy", "aurc", "augrc"), expected, strict=True):
        result = getattr(metrics, name)(confidence, correct, sample_weight=weights)
        assert result == pytest.approx(value, abs=1e-13), name


@given(samples)
def test_equal_weights_change_nothing(case):
    confidence, correct, _ = map(list, zip(*case, strict=True))
    weight = np.full(len(confidence), 0.3)
    for name in ("accuracy", "aurc", "augrc"):
        function = getattr(metrics, name)
        plain = function(confidence, correct)
        assert function(confidence, correct, sample_weight=weight) == pytest.approx(
            plain, abs=1e-14
        )
    plain, weighted = (
        metrics.risk_coverage(confidence, correct, sample_weight=w) for w in (None, weight)
    )
    for field in ("thresholds", "accepted", "errors"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(weighted, field))
    np.testing.assert_allclose(plain.coverage, weighted.coverage, atol=1e-14)
    np.testing.assert_allclose(plain.risk, weighted.risk, atol=1e-14)


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(case, random):
    shuffled = list(case)
    random.shuffle(shuffled)
    assume(any(w for *_, w in case))
    for name in ("accuracy", "aurc", "augrc"):
        a, b = (
            getattr(metrics, name)(c, y, sample_weight=w)
            for c, y, w in (zip(*s, strict=True) for s in (case, shuffled))
        )
        assert a == pytest.approx(b, abs=1e-14)


@given(samples)
def test_the_weighted_curve_is_what_thresholds_accept(case):
    confidence, correct, weight = map(np.asarray, zip(*case, strict=True))
    assume(weight.any())
    curve = metrics.risk_coverage(confidence, correct, sample_weight=weight)
    assert list(curve.thresholds) == sorted(set(confidence[weight > 0]), reverse=True)
    for i, threshold in enumerate(curve.thresholds):
        accepted = confidence >= threshold
        held = weight[accepted].sum()
        assert curve.coverage[i] == pytest.approx(held / weight.sum(), abs=1e-14)
        wrong = weight[accepted & ~correct].sum()
        assert curve.risk[i] == pytest.approx(wrong / held, abs=1e-14)
        assert curve.accepted[i] == (accepted & (weight > 0)).sum()
        assert curve.risk_at(curve.coverage[i]) == curve.risk[i]
    assert curve.coverage[-1] == 1


def test_weights_correct_for_a_sample_that_is_not_like_the_population():
    """Errors drawn five times as often as they occur, and weighted back."""
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    correct = rng.random(200_000) < confidence
    chance = np.where(correct, 0.2, 1.0)
    drawn = rng.random(200_000) < chance
    for name in ("accuracy", "aurc", "augrc"):
        function = getattr(metrics, name)
        whole = function(confidence, correct)
        part = function(confidence[drawn], correct[drawn], sample_weight=1 / chance[drawn])
        assert part == pytest.approx(whole, abs=0.005), name
        assert abs(function(confidence[drawn], correct[drawn]) - whole) > 0.05, name


def test_no_weight_at_all_is_no_sample_at_all():
    for name in ("accuracy", "aurc", "augrc"):
        with pytest.warns(UndefinedMetricWarning, match="undefined: there are no samples"):
            assert math.isnan(getattr(metrics, name)([0.1, 0.2], [1, 0], sample_weight=[0, 0]))
    curve = metrics.risk_coverage([0.1, 0.2], [1, 0], sample_weight=[0, 0])
    assert curve.coverage.size == curve.risk.size == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.aurc([0.1, 0.2], [0, 0], sample_weight=[3, 0.1]) == 1
        assert metrics.aurc([0.1, 0.2], [1, 1], sample_weight=[3, 0.1]) == 0


@pytest.mark.parametrize("bad", [[-1, 1], [1], [math.nan, 1], [math.inf, 1], ["a", "b"], [[1, 1]]])
def test_weights_that_are_none(bad):
    for function in (metrics.accuracy, metrics.aurc, metrics.augrc, metrics.risk_coverage):
        with pytest.raises(InputError, match="`sample_weight`"):
            function([0.1, 0.2], [1, 0], sample_weight=bad)


def test_a_sample_of_no_weight_is_checked_all_the_same():
    with pytest.raises(InputError, match="`confidence`"):
        metrics.aurc([math.nan, 0.2], [1, 0], sample_weight=[0, 1])


def test_the_released_convention_has_neither_weights_nor_excess_augrc():
    for function in (metrics.accuracy, metrics.aurc, metrics.augrc, metrics.risk_coverage):
        with pytest.raises(InputError, match="the released script has no `sample_weight`"):
            function([0.1], [1], "trustvlm", sample_weight=[1])
    with pytest.raises(InputError, match="the released script has no E-AUGRC"):
        metrics.eaugrc([0.1], [1], "trustvlm")
    assert math.isnan(metrics.evaluate([0.1, 0.2], [1, 0], "trustvlm").eaugrc)
