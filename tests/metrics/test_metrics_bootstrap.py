"""Intervals and paired tests against resamples written out in full."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustvlm import metrics
from trustvlm.exceptions import FewSamplesWarning, InputError, UndefinedMetricWarning
from trustvlm.metrics.bootstrap import evaluated, multiplicities, resampled_counts
from trustvlm.metrics.counts import area_table, rank
from trustvlm.metrics.intervals import metric_interval

cases = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-4, 4), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.simplefilter("ignore", FewSamplesWarning)
        return function(*args, **options)


def example(n=120, seed=0, digits=1):
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    correct = rng.random(n) < 1 / (1 + np.exp(-1 - quality))
    a = np.round(quality + rng.normal(size=n), digits)
    b = np.round(quality + 2 * rng.normal(size=n), digits)
    return a, b, correct


@settings(max_examples=40)
@given(cases, st.integers(0, 2**32))
def test_multiplicities_give_what_a_full_resample_gives(case, seed):
    ranking = rank(*case)
    rng = np.random.default_rng(seed)
    weights = np.concatenate(list(multiplicities(ranking.n, 8, rng)))
    counts = resampled_counts(ranking, weights)
    resampled = evaluated(counts, metrics.METRICS, area_table(ranking.n))
    for row, times in enumerate(weights):
        drawn = np.repeat(ranking.confidence, times), np.repeat(ranking.correct, times)
        full = quietly(metrics.evaluate, *drawn)
        for name in metrics.METRICS:
            np.testing.assert_allclose(resampled[name][row], getattr(full, name), atol=1e-13)


@pytest.mark.parametrize("digits", [0, 1, 12])
def test_interval_rests_on_the_naive_bootstrap(digits):
    confidence, _, correct = example(40, digits=digits)
    order = np.argsort(-confidence, kind="stable")
    # More than one chunk of multiplicities holds.
    draws = np.random.default_rng(3).integers(40, size=(500, 40))
    assert len(list(multiplicities(40, 500, np.random.default_rng(3)))) > 1
    rows = [quietly(metrics.evaluate, confidence[order[d]], correct[order[d]]) for d in draws]
    result = metrics.bootstrap(confidence, correct, n_resamples=500, seed=3, level=0.9)
    assert list(result) == list(metrics.METRICS)
    for name, interval in result.items():
        values = np.array([getattr(row, name) for row in rows])
        estimate = getattr(metrics, name)(confidence, correct)
        low, high, method = metric_interval(name, rank(confidence, correct), estimate, values, 0.9)
        assert interval.low == pytest.approx(low, abs=1e-12)
        assert interval.high == pytest.approx(high, abs=1e-12)
        assert interval.n_excluded == np.isnan(values).sum()
        assert (interval.estimate, interval.method) == (estimate, method)
        assert (interval.metric, interval.level, interval.n_resamples) == (name, 0.9, 500)


@pytest.mark.parametrize("name", ["auroc", "augrc", "aupr_error"])
def test_interval_agrees_with_scipys_bca_where_errors_are_many(name):
    confidence, _, correct = example(800, digits=12)
    function = getattr(metrics, name)
    theirs = stats.bootstrap(
        (correct, confidence),
        lambda correct, confidence: function(confidence, correct),
        paired=True,
        vectorized=False,
        n_resamples=999,
        method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    ours = metrics.bootstrap(confidence, correct, name, n_resamples=4000)[name]
    # Quantiles of 999 resamples scatter by about a twentieth of the interval's width.
    scatter = 0.12 * (ours.high - ours.low)
    assert ours.low == pytest.approx(theirs.low, abs=scatter)
    assert ours.high == pytest.approx(theirs.high, abs=scatter)


def test_accuracy_interval_is_clopper_pearsons():
    correct = np.arange(200) < 150
    result = metrics.bootstrap(np.arange(200), correct, "accuracy", n_resamples=2)["accuracy"]
    exact = stats.binomtest(150, 200).proportion_ci(method="exact")
    assert (result.low, result.high) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_resamples_do_not_depend_on_how_the_work_is_cut():
    whole = np.concatenate(list(multiplicities(70, 50, np.random.default_rng(0))))
    for chunk, rows in ((1, 1), (70 * 7, 7), (70 * 50, 50)):
        parts = list(multiplicities(70, 50, np.random.default_rng(0), chunk=chunk))
        assert len(parts[0]) == rows
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_seeds():
    a, _, correct = example()
    first, again, other = (
        metrics.bootstrap(a, correct, "aurc", n_resamples=99, seed=s)["aurc"] for s in (1, 1, 2)
    )
    assert first == again != other
    generator = np.random.default_rng(1)
    assert metrics.bootstrap(a, correct, "aurc", n_resamples=99, seed=generator)["aurc"] == first
    metrics.bootstrap(a, correct, "aurc", n_resamples=9, seed=None)


def test_a_metric_alone_has_the_interval_it_has_among_all():
    a, _, correct = example()
    together = metrics.bootstrap(a, correct, n_resamples=99)
    for name in metrics.METRICS:
        assert metrics.bootstrap(a, correct, name, n_resamples=99) == {name: together[name]}
    assert list(metrics.bootstrap(a, correct, ["fpr95", "aurc"], n_resamples=9)) == [
        "fpr95",
        "aurc",
    ]


def test_one_sided_resamples_are_left_out_and_counted():
    confidence, correct = [5, 4, 3, 2, 1], [1, 1, 1, 1, 0]
    result = quietly(metrics.bootstrap, confidence, correct, n_resamples=2000)
    # No error among five draws: 0.8^5; no correct one: 0.2^5.
    assert result["auroc"].n_excluded == pytest.approx(2000 * (0.8**5 + 0.2**5), abs=100)
    assert result["aupr_error"].n_excluded == pytest.approx(2000 * 0.8**5, abs=100)
    assert result["aurc"].n_excluded == 0
    assert result["auroc"].low < 0.5 < result["auroc"].high == 1.0
    paired = quietly(metrics.paired_bootstrap, confidence, confidence, correct, metric="auroc")
    assert paired.n_excluded == pytest.approx(2000 * (0.8**5 + 0.2**5), abs=100)


def test_undefined_on_the_samples():
    names = ["auroc", "fpr95", "aupr_error"]
    with pytest.warns(
        UndefinedMetricWarning, match="AUROC, FPR95 and AUPR-error are undefined"
    ) as w:
        result = metrics.bootstrap([0.9, 0.1], [1, 1], names, n_resamples=10)
    assert [x.filename for x in w] == [__file__]
    for one in result.values():
        assert math.isnan(one.low)
        assert math.isnan(one.high)
        assert (one.n_excluded, one.method) == (10, "")
    with pytest.warns(UndefinedMetricWarning, match="there are no samples"):
        assert math.isnan(metrics.bootstrap([], [], n_resamples=10)["aurc"].low)


def test_few_errors_are_said():
    confidence, correct = np.arange(50), np.arange(50) >= 7
    with pytest.warns(FewSamplesWarning, match="Only 7 of 50 samples are wrong") as w:
        metrics.bootstrap(confidence, correct, "aurc", n_resamples=9)
    with pytest.warns(FewSamplesWarning, match="Only 7 of 50 samples are right") as p:
        metrics.paired_bootstrap(confidence, confidence, ~correct, n_resamples=9)
    assert [x.filename for x in (*w, *p)] == [__file__] * 2
    # The exact interval needs no warning, and ten errors none.
    metrics.bootstrap(confidence, correct, "accuracy", n_resamples=9)
    metrics.bootstrap(confidence, np.arange(50) >= 10, n_resamples=9)


@pytest.mark.parametrize("digits", [0, 12])
@pytest.mark.parametrize("metric", ["aurc", "fpr95", "aupr_error"])
def test_paired_equals_the_naive_bootstrap(digits, metric):
    a, b, correct = example(40, digits=digits)
    correct_b = correct ^ (np.arange(40) % 9 == 0)
    function = getattr(metrics, metric)
    order = np.argsort(-a, kind="stable")
    draws = order[np.random.default_rng(3).integers(40, size=(500, 40))]
    values = np.array([function(a[d], correct[d]) - function(b[d], correct_b[d]) for d in draws])
    result = metrics.paired_bootstrap(
        a, b, correct, correct_b, metric, n_resamples=500, seed=3, level=0.8
    )
    if metric == "aurc":  # images wrong under either
        carriers = (~correct | ~correct_b).sum()
    else:
        each = 20 if metric == "fpr95" else 1
        carriers = min(min(-(-c.sum() // each), (~c).sum()) for c in (correct, correct_b))
    freedom = max(carriers - 1, 1)
    deviation = values.std(ddof=1) * math.sqrt(carriers / freedom)
    half = stats.t.ppf(0.9, freedom) * deviation
    ends = sorted([result.difference - half, result.difference + half], key=abs)
    assert result.difference == result.a - result.b
    assert (result.a, result.b) == (function(a, correct), function(b, correct_b))
    # The end near zero is Student's, the far one allows for one more sample.
    assert min(result.low, result.high, key=abs) == pytest.approx(
        np.clip(ends[0], -1, 1), abs=1e-12
    )
    far = np.clip(ends[1] + result.difference / carriers, -1, 1)
    assert max(result.low, result.high, key=abs) == pytest.approx(far, abs=1e-12)
    p_value = 2 * stats.t.sf(abs(result.difference) / deviation, freedom)
    assert result.p_value == pytest.approx(p_value, abs=1e-12)


def test_pairing_changes_sides():
    a, b, correct = example(200)
    there = metrics.paired_bootstrap(a, b, correct, metric="auroc", n_resamples=4000)
    back = metrics.paired_bootstrap(b, a, correct, metric="auroc", n_resamples=4000)
    assert there.difference == -back.difference
    # The draws differ, the distribution does not.
    assert there.low == pytest.approx(-back.high, abs=0.01)
    assert there.p_value == pytest.approx(back.p_value, abs=0.03)


def test_pairing_narrows_the_interval():
    a, _, correct = example(300, digits=12)
    b = a + 0.1 * np.random.default_rng(1).normal(size=300)
    paired = metrics.paired_bootstrap(a, b, correct, metric="auroc")
    alone = metrics.bootstrap(a, correct, "auroc")["auroc"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_the_same_ranking_twice_is_no_difference():
    a, _, correct = example()
    for metric in metrics.METRICS:
        result = metrics.paired_bootstrap(a, 2 * a + 1, correct, metric=metric, n_resamples=99)
        assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_is_seen_and_has_its_sign():
    rng = np.random.default_rng(0)
    correct = rng.random(300) < 0.7
    good, noise = correct + 0.5 * rng.normal(size=300), rng.normal(size=300)
    aurc = metrics.paired_bootstrap(good, noise, correct, n_resamples=999)
    auroc = metrics.paired_bootstrap(good, noise, correct, metric="auroc", n_resamples=999)
    assert aurc.metric == "aurc"
    assert aurc.high < 0 < auroc.low
    assert max(aurc.p_value, auroc.p_value) < 1e-6


def test_without_a_difference_one_in_twenty_is_found():
    rng = np.random.default_rng(5)
    rejected = 0
    for _ in range(300):
        quality = rng.normal(size=100)
        correct = rng.random(100) < 1 / (1 + np.exp(-1 - quality))
        a, b = quality + rng.normal(size=(2, 100))
        result = metrics.paired_bootstrap(a, b, correct, metric="auroc", n_resamples=199)
        rejected += result.p_value < 0.05
    # 15 expected; the bounds are the binomial's 0.1 % and 99.9 %.
    assert 5 <= rejected <= 28


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(6)

    def draw(n):
        quality = rng.normal(size=n)
        return quality + rng.normal(size=n), rng.random(n) < 1 / (1 + np.exp(-1 - quality))

    truth = metrics.evaluate(*draw(1_000_000))
    held = dict.fromkeys(("aurc", "auroc", "augrc"), 0)
    for _ in range(200):
        result = metrics.bootstrap(*draw(200), list(held), n_resamples=199, level=0.9)
        for name, interval in result.items():
            held[name] += interval.low <= getattr(truth, name) <= interval.high
    assert all(164 <= times <= 193 for times in held.values()), held


def test_one_resample_says_nothing():
    result = quietly(
        metrics.paired_bootstrap, [3, 2, 1], [1, 2, 3], [1, 1, 0], None, "auroc", n_resamples=1
    )
    assert result.difference == 1.0
    assert all(math.isnan(value) for value in (result.low, result.high, result.p_value))
    assert math.isnan(
        quietly(metrics.bootstrap, [2, 1], [1, 0], "auroc", n_resamples=1)["auroc"].low
    )


def test_paired_undefined():
    with pytest.warns(
        UndefinedMetricWarning, match="AUROC is undefined: every sample is wrong"
    ) as w:
        result = metrics.paired_bootstrap([1, 2], [2, 1], [1, 0], [0, 0], "auroc", n_resamples=9)
    assert [x.filename for x in w] == [__file__]
    assert result.a == 0.0
    for name in ("b", "difference", "low", "high", "p_value"):
        assert math.isnan(getattr(result, name)), name
    assert result.n_excluded == 9
    with pytest.warns(UndefinedMetricWarning, match="there are no samples"):
        metrics.paired_bootstrap([], [], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_resamples": 0}, "`n_resamples` .* got 0"),
        ({"n_resamples": 2.5}, "`n_resamples`"),
        ({"n_resamples": True}, "`n_resamples`"),
        ({"level": 1.0}, "`level`"),
        ({"level": 0}, "`level`"),
        ({"level": math.nan}, "`level`"),
        ({"seed": -1}, "`seed`"),
        ({"seed": "a"}, "`seed`"),
    ],
)
def test_bad_plans_are_explained(options, message):
    with pytest.raises(InputError, match=message):
        metrics.bootstrap([0.1, 0.2], [1, 0], **options)
    with pytest.raises(InputError, match=message):
        metrics.paired_bootstrap([0.1, 0.2], [0.1, 0.2], [1, 0], **options)


def test_unknown_metrics_are_named():
    with pytest.raises(InputError, match=r"`metrics` to be among accuracy, aurc, .* got 'ece'"):
        metrics.bootstrap([0.1], [1], ["aurc", "ece"])
    with pytest.raises(InputError, match=r"`metric` to be among .* got 'ece'"):
        metrics.paired_bootstrap([0.1], [0.1], [1], metric="ece")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([1, math.nan], [1, 2], [1, 0]), "`confidence_a` to be finite"),
        (([1, 2], [1, math.inf], [1, 0]), "`confidence_b` to be finite"),
        (([1, 2], [1], [1, 0]), r"`confidence_b` to have shape \(2,\) like `confidence_a`"),
        (([1, 2], [1, 2], [1]), r"`correct_a` to have shape \(2,\) like `confidence_a`"),
        (([1, 2], [1, 2], [1, 0], [1]), r"`correct_b` to have shape \(2,\) like `confidence_b`"),
        (([1, 2], [1, 2], [1, 0], [1, 3]), "`correct_b` to be booleans or 0 and 1, but 1 of 2"),
    ],
)
def test_paired_names_the_argument(args, message):
    with pytest.raises(InputError, match=message):
        metrics.paired_bootstrap(*args)


def test_results_are_plain_values():
    a, b, correct = example(60)
    interval = metrics.bootstrap(a, correct, "aurc", n_resamples=np.int64(9))["aurc"].to_dict()
    paired = metrics.paired_bootstrap(a, b, correct, n_resamples=np.int64(9)).to_dict()
    for values in (interval, paired):
        assert {type(v) for v in values.values()} == {str, int, float}


def test_several_metrics_on_the_same_draws_are_each_alone():
    rng = np.random.default_rng(6)
    a, b = np.round(rng.random((2, 50)), 1)
    right = rng.random((2, 50)) < 0.6
    together = metrics.paired_bootstraps(a, b, *right, n_resamples=200)
    assert list(together) == list(metrics.METRICS)
    for name, result in together.items():
        assert result == metrics.paired_bootstrap(a, b, *right, metric=name, n_resamples=200)


def test_metrics_undefined_for_one_side_leave_the_others_alone():
    result = quietly(
        metrics.paired_bootstraps,
        *([3, 2, 1], [1, 2, 3], [1, 1, 1], [1, 0, 1], ["auroc", "aurc"]),
        n_resamples=50,
    )
    assert np.isnan(result["auroc"].p_value)
    assert result["aurc"].p_value <= 1
