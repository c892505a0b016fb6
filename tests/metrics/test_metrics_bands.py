"""The band of the risk-coverage curve against resamples written out in full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import multiplicities

SHARES = np.array([0.05, 0.3, 0.5, 0.77, 1.0])


def plain_risk(confidence, correct, share):
    """Share wrong among the accepted, one sample after another; ties shared out evenly."""
    left, wrong = share * len(confidence), 0.0
    for level in sorted(set(confidence), reverse=True):
        tied = [not right for c, right in zip(confidence, correct, strict=True) if c == level]
        taken = min(left, len(tied))
        wrong += taken * sum(tied) / len(tied)
        left -= taken
    return wrong / (share * len(confidence))


@pytest.mark.parametrize("decimals", [6, 1])
def test_the_band_is_that_of_resamples_written_out(decimals):
    rng = np.random.default_rng(3)
    confidence, correct = np.round(rng.random(30), decimals), rng.random(30) < 0.6
    result = metrics.risk_band(confidence, correct, SHARES, n_resamples=400, level=0.9)
    # The same draws: how often each sample occurs, most trusted first.
    (often,) = multiplicities(30, 400, np.random.default_rng(0))
    order = np.argsort(-confidence, kind="stable")
    draws = [np.repeat(order, weights) for weights in often]
    plain = [[plain_risk(confidence[d], correct[d], s) for s in SHARES] for d in draws]
    expected = [plain_risk(confidence, correct, share) for share in SHARES]
    np.testing.assert_allclose(result.risk, expected, atol=1e-12)
    for i, (risk, accepted) in enumerate(zip(expected, SHARES * 30, strict=True)):
        # As many trials as the variance stands for, but no more than accepted samples.
        trials = accepted
        if 0 < risk < 1:
            trials = min(accepted, risk * (1 - risk) / np.var([row[i] for row in plain]))
        successes, failures = risk * trials, (1 - risk) * trials
        low = stats.beta.ppf(0.05, successes, failures + 1) if risk > 0 else 0
        high = stats.beta.ppf(0.95, successes + 1, failures) if risk < 1 else 1
        assert (result.low[i], result.high[i]) == pytest.approx((low, high), abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 99),
)
def test_a_band_is_ordered_within_bounds_and_repeatable(samples, seed):
    confidence, correct = zip(*samples, strict=True)
    result = metrics.risk_band(confidence, correct, SHARES, n_resamples=40, seed=seed)
    again = metrics.risk_band(confidence, correct, SHARES, n_resamples=40, seed=seed)
    assert ((result.low >= 0) & (result.low <= result.high) & (result.high <= 1)).all()
    np.testing.assert_array_equal(result.high, again.high)
    assert (result.low < result.high).all()


def test_the_risk_of_all_is_covered_as_often_as_promised():
    # At coverage 1 the truth is known: the error rate that the samples are drawn with.
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        confidence, correct = rng.random(150), rng.random(150) < 0.7
        band = metrics.risk_band(confidence, correct, [1.0], n_resamples=200, seed=trial)
        inside += bool(band.low[0] <= 0.3 <= band.high[0])
    assert 0.9 <= inside / 200 <= 0.99


def test_more_samples_make_a_narrower_band():
    rng = np.random.default_rng(1)
    widths = []
    for n in (50, 5000):
        band = metrics.risk_band(rng.random(n), rng.random(n) < 0.5, [0.5], n_resamples=200)
        widths.append(float(band.high[0] - band.low[0]))
    assert widths[1] < widths[0] / 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coverage": [0.0]}, "in (0, 1]"),
        ({"coverage": [[0.5]]}, "(k,)"),
        ({"coverage": [np.nan]}, "in (0, 1]"),
        ({"confidence": [], "correct": []}, "at least one sample"),
        ({"level": 1.0}, "level"),
        ({"n_resamples": 0}, "n_resamples"),
    ],
)
def test_what_cannot_be_asked(change, message):
    arguments = {"confidence": [1.0], "correct": [1], "coverage": [0.5], **change}
    with pytest.raises(InputError) as raised:
        metrics.risk_band(**arguments)
    assert message in str(raised.value)
