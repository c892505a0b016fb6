"""Accuracy at equal coverage, against resamples written out in full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.benchmark.analysis import accuracy_among, coverage_gains
from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import multiplicities, resampled_counts
from trustvlm.metrics.counts import rank
from trustvlm.report.summary import Acceptance

samples = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


@given(samples, st.integers(0, 99))
def test_resamples_are_those_written_out(sample, seed):
    ranking = rank(*sample)
    n = ranking.n
    k = np.arange(1, n + 1)
    weights = next(multiplicities(n, 5, np.random.default_rng(seed)))
    accuracies = accuracy_among(resampled_counts(ranking, weights), k)
    for row, copies in zip(accuracies, weights, strict=True):
        written = np.repeat(np.arange(n), copies)
        confidence, correct = ranking.confidence[written], ranking.correct[written]
        wrong = Acceptance.of(confidence, correct).wrong(k)
        assert row == pytest.approx(1 - wrong / k)


def test_ties_count_with_their_expected_share():
    (gain,) = coverage_gains(([1, 1, 0, 0], [1, 0, 1, 1]), ([3, 2, 1, 0], [1, 1, 1, 1]), [0.25])
    assert (gain.accuracy, gain.other_accuracy, gain.gain) == (0.5, 1.0, -0.5)


def test_gains_are_those_of_the_accepted_and_intervals_hold_them():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.6
    corrected = right | (rng.random(400) < 0.3)
    a, b = (corrected + rng.normal(size=400), corrected), (right + rng.normal(size=400), right)
    for gain in coverage_gains(a, b, [0.5, 1.0]):
        expected = [Acceptance.of(*sample).accuracy_at(gain.coverage) for sample in (a, b)]
        assert [gain.accuracy, gain.other_accuracy] == pytest.approx(expected)
        assert 0 < gain.low < gain.gain < gain.high
    assert coverage_gains(a, b, [0.5]) == coverage_gains(a, b, [0.5])
    (nothing,) = coverage_gains(a, a, [0.7])
    assert (nothing.low, nothing.high) == (0, 0)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        right = rng.random(60) < 0.5
        a, b = rng.normal(size=60), rng.normal(size=60)
        (gain,) = coverage_gains((a, right), (b, right), [0.5], n_resamples=200)
        hits += gain.low <= 0 <= gain.high
    assert 0.88 <= hits / 200 <= 1.0


def test_misuse_is_refused():
    one, two = ([1], [1]), ([1, 2], [1, 0])
    for call in (
        lambda: coverage_gains(one, two, [0.5]),
        lambda: coverage_gains(([], []), ([], []), [0.5]),
        lambda: coverage_gains(one, one, [0.0]),
        lambda: coverage_gains(one, one, [1.1]),
    ):
        with pytest.raises(InputError, match="Expected"):
            call()
