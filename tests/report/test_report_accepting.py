from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm import metrics
from trustvlm.report.page import perfect_curve
from trustvlm.report.sections import trusted_less
from trustvlm.report.summary import Acceptance

samples = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)


@given(samples)
def test_wrong_is_the_mean_over_the_orders_of_tied_images(sample):
    confidence = np.array([c for c, _ in sample], dtype=float)
    correct = np.array([y for _, y in sample])
    orders = [
        order
        for order in permutations(range(len(sample)))
        if all(confidence[a] >= confidence[b] for a, b in pairwise(order))
    ]
    expected = np.mean([np.cumsum(~correct[list(order)]) for order in orders], axis=0)
    wrong = Acceptance.of(confidence, correct).wrong(np.arange(1, len(sample) + 1))
    np.testing.assert_allclose(wrong, expected, atol=1e-12)


def test_the_mean_of_the_curve_is_the_aurc():
    rng = np.random.default_rng(0)
    confidence, correct = rng.integers(20, size=300) / 20, rng.random(300) < 0.7
    coverage, risk = Acceptance.of(confidence, correct).curve(points=300)
    assert len(coverage) == 300
    assert risk.mean() == pytest.approx(metrics.evaluate(confidence, correct).aurc)


def test_a_long_curve_is_thinned_and_keeps_both_ends():
    coverage, risk = Acceptance.of(np.arange(5000.0), np.arange(5000) % 5 > 0).curve(100)
    assert len(coverage) == 100
    assert (coverage[0], coverage[-1]) == (1 / 5000, 1.0)
    assert risk[-1] == pytest.approx(0.2)


def test_the_number_accepted_is_whole_and_never_zero():
    acceptance = Acceptance.of([0.3, 0.2, 0.1], [True, False, True])
    assert [acceptance.count_at(c) for c in (0.01, 0.5, 1.0)] == [1, 2, 3]
    assert acceptance.accuracy_at(0.01) == 1.0


def test_the_perfect_curve_is_that_of_a_perfect_score():
    correct = np.array([True] * 7 + [False] * 3)
    coverage, risk = Acceptance.of(correct.astype(float), correct).curve()
    np.testing.assert_allclose(perfect_curve(0.7, coverage)[1], risk, atol=1e-12)


def test_trusted_less_counts_strictly():
    np.testing.assert_array_equal(
        trusted_less(np.array([1.0, 1.0, 2.0, 0.0])), [0.25, 0.25, 0.75, 0]
    )
    assert trusted_less(np.empty(0)).shape == (0,)
