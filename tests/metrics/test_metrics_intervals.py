"""Intervals from few errors, against closed forms, other methods and simulation."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustvlm import metrics
from trustvlm.exceptions import FewSamplesWarning, UndefinedMetricWarning
from trustvlm.metrics.bootstrap import evaluated, multiplicities, resampled_counts
from trustvlm.metrics.counts import area_table, rank
from trustvlm.metrics.intervals import (
    clopper_pearson,
    difference_interval,
    metric_interval,
    student,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::trustvlm.exceptions.FewSamplesWarning",
    "ignore::trustvlm.exceptions.UndefinedMetricWarning",
)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (7, 7), (1, 200)])
def test_clopper_pearson_is_scipys(k, n):
    expected = stats.binomtest(k, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(k / n, n, 0.9) == pytest.approx((expected.low, expected.high))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=25),
    st.sampled_from([0.5, 0.95]),
)
def test_every_interval_holds_its_estimate_within_bounds(samples, level):
    confidence, correct = zip(*samples, strict=True)
    for one in metrics.bootstrap(confidence, correct, n_resamples=60, level=level).values():
        if math.isnan(one.estimate):
            assert math.isnan(one.low)
            assert math.isnan(one.high)
        elif one.method:
            assert one.low <= one.estimate <= one.high, one
            assert one.low >= min(0.0, one.estimate)
            assert one.high <= max(1.0, one.estimate)
            assert one.low < one.high


def test_a_higher_level_makes_a_wider_interval():
    rng = np.random.default_rng(0)
    correct = rng.random(80) < 0.8
    confidence = correct + rng.normal(size=80)
    narrow, wide = (
        metrics.bootstrap(confidence, correct, n_resamples=100, level=level)
        for level in (0.8, 0.95)
    )
    for name in metrics.METRICS:
        assert wide[name].low <= narrow[name].low < narrow[name].high <= wide[name].high


def test_without_errors_the_bounds_are_those_of_the_worst_order():
    n = 50
    result = metrics.bootstrap(np.arange(n), np.ones(n), n_resamples=9)
    worst = 1 - 0.025 ** (1 / n)  # of the error rate: Clopper-Pearson
    # All errors on top: the share wrong is 1 up to the error rate, then falls as its quotient.
    assert result["aurc"].high == pytest.approx(worst - worst * math.log(worst), abs=1e-3)
    assert result["augrc"].high == pytest.approx(worst - worst**2 / 2, abs=1e-3)
    best = worst + (1 - worst) * math.log(1 - worst)
    excess = worst - worst * math.log(worst) - best
    assert result["eaurc"].high == pytest.approx(excess, abs=1e-3)
    assert [result[name].low for name in ("aurc", "augrc", "eaurc")] == [0.0, 0.0, 0.0]
    assert {result[name].method for name in ("aurc", "augrc", "eaurc")} == {"one class"}


def test_without_right_ones_the_bounds_are_those_of_the_best_order():
    n = 50
    result = metrics.bootstrap(np.arange(n), np.zeros(n), "aurc", n_resamples=9)["aurc"]
    most = 1 - 0.025 ** (1 / n)  # of the share right; all of them on top
    assert result.low == pytest.approx(1 - most + most * math.log(most), abs=1e-3)
    assert result.high == 1.0


def test_all_tied_says_little_of_the_order():
    result = metrics.bootstrap(np.ones(40), np.arange(40) < 30, n_resamples=50)
    assert result["auroc"].estimate == 0.5
    assert result["auroc"].low < 0.4 < 0.6 < result["auroc"].high
    assert result["fpr95"].high == 1.0


@pytest.mark.parametrize("digits", [0, 12])
def test_fpr95_ends_are_those_of_draws_from_its_mixture(digits):
    rng = np.random.default_rng(4)
    correct = rng.random(400) < 0.6
    confidence = np.round(rng.normal(size=400) + 1.5 * correct, digits)
    right, wrong = np.sort(confidence[correct]), confidence[~correct]
    low_draws, high_draws = [], []
    for below in rng.binomial(len(right), 0.05, size=20_000):
        # The threshold lies above the `below`-th right one from below, at most at the next.
        strict = int((wrong >= right[below]).sum()) if below < len(right) else 0
        lax = int((wrong >= right[below - 1]).sum()) if below else len(wrong)
        low_draws.append(rng.beta(strict, len(wrong) - strict + 1) if strict else 0.0)
        high_draws.append(rng.beta(lax + 1, len(wrong) - lax) if lax < len(wrong) else 1.0)
    ours = metrics.bootstrap(confidence, correct, "fpr95", n_resamples=2)["fpr95"]
    assert ours.low == pytest.approx(np.quantile(low_draws, 0.025), abs=0.01)
    assert ours.high == pytest.approx(np.quantile(high_draws, 0.975), abs=0.01)


def test_fpr95_has_no_upper_bound_with_few_right_ones():
    for n_right, bounded in ((71, False), (72, True)):
        confidence = np.r_[np.ones(n_right), np.zeros(40)]
        result = metrics.bootstrap(confidence, confidence > 0, "fpr95", n_resamples=2)["fpr95"]
        assert (result.high < 1) == bounded


def delong(a, b, correct):
    """DeLong et al. 1988: difference of two AUROC on the same samples, and its variance."""

    def placements(score):
        right, wrong = score[correct], score[~correct]
        above = (right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)
        return above.mean(axis=1), above.mean(axis=0)

    (right_a, wrong_a), (right_b, wrong_b) = placements(a), placements(b)
    variance = np.var(right_a - right_b, ddof=1) / correct.sum()
    variance += np.var(wrong_a - wrong_b, ddof=1) / (~correct).sum()
    return right_a.mean() - right_b.mean(), variance


def test_the_paired_test_of_auroc_is_near_delongs():
    rng = np.random.default_rng(8)
    for seed in range(5):
        correct = rng.random(500) < 0.7
        shared = rng.normal(size=500) + correct
        a, b = shared + rng.normal(size=500), shared + 1.3 * rng.normal(size=500)
        difference, variance = delong(a, b, correct)
        ours = metrics.paired_bootstrap(a, b, correct, metric="auroc", n_resamples=4000, seed=seed)
        assert ours.difference == pytest.approx(difference, abs=1e-12)
        assert ours.p_value == pytest.approx(
            2 * stats.norm.sf(abs(difference) / math.sqrt(variance)), abs=0.03
        )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(metrics.METRICS), st.integers(0, 2))
def test_p_values_and_intervals_agree(seed, name, digits):
    rng = np.random.default_rng(seed)
    right = rng.random((2, 30)) < 0.7
    a, b = np.round(right * rng.random((2, 1)) * 3 + rng.normal(size=(2, 30)), digits)
    result = metrics.paired_bootstrap(a, b, *right, metric=name, n_resamples=80, seed=seed)
    if not math.isnan(result.p_value):
        outside = result.low > 0 or result.high < 0
        assert outside == (result.p_value < 0.05), result


def test_two_perfect_orders_cannot_be_told_apart():
    correct = np.arange(40) >= 8
    a = np.arange(40.0)
    b = np.r_[a[:8][::-1], a[8:][::-1]]
    result = metrics.paired_bootstrap(a, b, correct, metric="auroc", n_resamples=99)
    assert (result.a, result.b, result.p_value) == (1.0, 1.0, 1.0)
    # Eight errors in order: Clopper-Pearson.
    assert (result.low, result.high) == pytest.approx((0.025 ** (1 / 8) - 1, 1 - 0.025 ** (1 / 8)))


def test_perfect_against_reversed():
    correct = np.arange(40) >= 8
    a = np.arange(40.0)
    result = metrics.paired_bootstrap(a, -a, correct, metric="auroc", n_resamples=99)
    # The intervals of 8 of 8 and of 0 of 8 part where both ends are a half.
    assert result.p_value == pytest.approx(2 * 0.5**8, abs=1e-6)
    assert result.low > 0


def test_without_carriers_nothing_is_said():
    result = difference_interval(0.0, 0.0, np.zeros(50), 0, 0.95)
    assert all(map(math.isnan, result))
    all_right = metrics.paired_bootstrap([1, 2, 3], [3, 2, 1], [1, 1, 1], n_resamples=9)
    assert all_right.difference == 0.0
    assert math.isnan(all_right.p_value)


def test_student_has_a_degree_of_freedom():
    assert student(0, 0.95) == student(1, 0.95) == pytest.approx(stats.t.ppf(0.975, 1))


# Coverage by simulation; benchmarks/intervals.py has more populations.


def normal(distance):
    return lambda rng, right: rng.normal(size=right.size) + distance * right


POPULATIONS = {
    "very strong": normal(2.9),
    "two kinds": lambda rng, right: (
        rng.normal(size=right.size) + 2.5 * (right | (rng.random(right.size) < 0.2))
    ),
    "rounded": lambda rng, right: np.round(normal(1.2)(rng, right)),
}


def five_or_more_errors(rng, n, share):
    while True:
        right = rng.random(n) >= share
        if 5 <= right.sum() <= n - 5:
            return right


@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_hold_the_truth_with_few_errors(name):
    rng, draw, n, share, repeats = np.random.default_rng(1), POPULATIONS[name], 60, 0.12, 150
    everything = np.arange(300_000) >= share * 300_000
    truth = metrics.evaluate(draw(rng, everything), everything)
    held = dict.fromkeys(metrics.METRICS, 0)
    table = area_table(n)
    for _ in range(repeats):
        right = five_or_more_errors(rng, n, share)
        ranking = rank(draw(rng, right), right)
        (weights,) = multiplicities(n, 150, rng)
        values = evaluated(resampled_counts(ranking, weights), metrics.METRICS, table)
        own = metrics.evaluate(ranking.confidence, ranking.correct)
        for metric in held:
            ends = metric_interval(metric, ranking, getattr(own, metric), values[metric], 0.95)
            held[metric] += ends[0] <= getattr(truth, metric) + 1e-9 and (
                getattr(truth, metric) - 1e-9 <= ends[1]
            )
    # Three binomial standard deviations below .95: percentiles hold .70 to .85 here.
    assert min(held.values()) >= 0.90 * repeats, held


def test_the_paired_test_rejects_a_true_hypothesis_rarely_with_few_errors():
    rng, repeats = np.random.default_rng(2), 200
    rejected = dict.fromkeys(("auroc", "aurc", "aupr_error"), 0)
    for _ in range(repeats):
        right = five_or_more_errors(rng, 50, 0.12)
        a, b = (normal(1.8)(rng, right) for _ in range(2))
        result = metrics.paired_bootstraps(a, b, right, metrics=list(rejected), n_resamples=150)
        for metric, one in result.items():
            rejected[metric] += one.p_value <= 0.05
    assert max(rejected.values()) <= 0.08 * repeats, rejected


def test_few_errors_warn_and_none_is_undefined():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics.bootstrap([3, 2, 1], [1, 1, 1], n_resamples=5)
    assert {w.category for w in caught} == {FewSamplesWarning, UndefinedMetricWarning}
