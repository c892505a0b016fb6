"""How often a run of the same kind is called different, and whether another kind is noticed."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from trustvlm.exceptions import InputError
from trustvlm.monitoring import shift
from trustvlm.monitoring.shift import FALSE_ALARM, RunStatistics, ShiftReference, ShiftTest


def softmax_like(rng, n):
    """Most confidences are 1.0, as those of a saturated softmax."""
    return np.minimum(1.0, np.round(rng.normal(1.2, 0.3, n), 2))


def outcomes(draw, n, m, n_classes, runs, *, seed=0, nan=0.0, names=("a",)):
    """Tests of runs of m images against calibration sets of n, all of one population."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        values, labels = draw(rng, n + m), rng.integers(0, n_classes, n + m)
        values = np.where(rng.random(n + m) < nan, np.nan, values)
        reference = ShiftReference(
            dict.fromkeys(names, values[:n]),
            labels[:n],
            n_classes,
            mix=np.bincount(labels[:n], minlength=n_classes),
        )
        yield reference.test(dict.fromkeys(names, values[n:]), labels[n:])


@pytest.mark.parametrize(
    ("draw", "n", "m", "n_classes", "nan"),
    [
        (softmax_like, 10, 20, 1, 0.0),
        (softmax_like, 200, 150, 5, 0.2),
        (softmax_like, 10, 1, 3, 0.0),
        (lambda rng, n: rng.normal(size=n), 10, 200, 4, 0.0),
        (lambda rng, n: rng.normal(size=n), 100, 100, 100, 0.0),
        (lambda rng, n: np.ones(n), 30, 30, 2, 0.5),
    ],
)
def test_runs_of_the_same_kind_are_rarely_called_different(draw, n, m, n_classes, nan):
    level, runs = 0.05, 400
    alarms = {"kind": 0, "mix": 0}
    for test in outcomes(draw, n, m, n_classes, runs, nan=nan, names=("a", "same")):
        # At a level at which a few hundred runs tell something.
        alarms["kind"] += any(test.p_values[name] <= level / 3 for name in ("a", "same"))
        alarms["mix"] += test.p_values["class_mix"] <= level / 3
    assert alarms["kind"] + alarms["mix"] <= stats.binom.ppf(0.9999, runs, level)


@pytest.mark.parametrize("n_classes", [40, 60, 100, 1000])
def test_one_image_a_class_gives_no_more_alarms_than_stated(n_classes):
    """The sum is binomial then, and its chances are exact."""
    labels = np.arange(n_classes)
    reference = ShiftReference({"a": np.zeros(n_classes)}, labels, n_classes)
    images = np.ones(n_classes, dtype=np.int64)
    larger = np.zeros(n_classes)
    for level in (FALSE_ALARM / 3, FALSE_ALARM):
        rejected = [
            2 * stats.binom.sf(k - 1, n_classes, 0.5)
            for k in range(n_classes // 2 + 1, n_classes + 1)
            if reference.test_statistics(
                RunStatistics(images, {"a": larger + (labels < k)})
            ).p_values["a"]
            <= level
        ]
        assert level / 3 <= rejected[0] <= level


@pytest.mark.parametrize(("n", "m"), [(6, 6), (12, 7), (4, 30)])
def test_it_is_the_rank_sum_test_within_a_class(n, m):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(0.5, size=m)
    reference = ShiftReference({"a": a}, np.zeros(n, int), 1)
    expected = stats.mannwhitneyu(b, a, method="asymptotic").pvalue
    got = reference.test({"a": b}, np.zeros(m, int)).p_values["a"]
    assert got == pytest.approx(expected, rel=1e-12)
    lower = ShiftReference({"a": a}, np.zeros(n, int), 1, low_side=frozenset({"a"}))
    expected = stats.mannwhitneyu(b, a, alternative="less", method="asymptotic").pvalue
    assert lower.test({"a": b}, np.zeros(m, int)).p_values["a"] == pytest.approx(expected)


def test_classes_are_joined_with_the_weights_of_van_elteren():
    """By the formula, in classes of unequal size; one without calibration images says nothing."""
    rng = np.random.default_rng(3)
    before, after = np.repeat([0, 1], [9, 40]), np.repeat([0, 1, 2], [30, 4, 7])
    a, b = rng.normal(size=49), rng.normal(0.4, size=41)
    excess = variance = 0.0
    for label, (n, m) in enumerate([(9, 30), (40, 4)]):
        u = stats.mannwhitneyu(b[after == label], a[before == label]).statistic
        excess += (u - n * m / 2) / (n + m + 1)
        variance += n * m / (12 * (n + m + 1))
    expected = 2 * stats.norm.sf((abs(excess) - 1 / 80) / np.sqrt(variance))
    reference = ShiftReference({"a": a}, before, 3)
    assert reference.test({"a": b}, after).p_values["a"] == pytest.approx(expected, rel=1e-12)


def test_the_level_is_shared_by_the_tests():
    def outcome(p, level):
        return ShiftTest(9, {"a": p, "b": 0.5, "class_mix": p}, level, ())

    assert outcome(0.001, 0.003).other_kind
    assert outcome(0.001, 0.003).other_mix
    assert not outcome(0.0011, 0.003).other_kind
    assert not outcome(0.0011, 0.003).other_mix
    assert not outcome(np.nan, 0.003).other_kind


def test_classes_are_compared_each_with_itself():
    """Classes that differ in confidence: another mix of them is no other kind."""
    rng = np.random.default_rng(0)
    before, after = np.repeat([0, 1], [180, 20]), np.repeat([0, 1], [20, 180])
    reference = ShiftReference(
        {"a": before + 0.1 * rng.normal(size=200)}, before, 2, mix=np.bincount(before)
    )
    test = reference.test({"a": after + 0.1 * rng.normal(size=200)}, after)
    assert test.other_mix
    assert not test.other_kind
    assert set(test.classes) == {0, 1}


@pytest.mark.parametrize("stream", ["confidence", "typicality"])
def test_a_fifth_of_another_kind_is_noticed_in_either_stream(stream):
    rng = np.random.default_rng(1)
    labels = np.arange(1000) % 10
    streams = {name: rng.normal(size=1000) for name in ("confidence", "typicality")}
    reference = ShiftReference(streams, labels, 10)
    noticed = 0
    for _ in range(20):
        run = {name: rng.normal(size=1000) for name in streams}
        run[stream][rng.random(1000) < 0.2] -= 3
        noticed += reference.test(run, labels).other_kind
    assert noticed == 20


def test_nan_tells_nothing():
    labels = np.zeros(50, dtype=int)
    values = np.arange(50.0)
    reference = ShiftReference({"a": np.r_[values, np.nan]}, np.append(labels, 0), 1)
    assert reference.test({"a": np.full(500, np.nan)}, np.zeros(500, int)).p_values["a"] == 1
    empty = ShiftReference({"a": np.full(3, np.nan)}, [0, 0, 0], 1)
    assert np.isnan(empty.test({"a": values}, labels).p_values["a"])
    assert not empty.test({"a": values}, labels).other_kind
    nothing = reference.test({"a": []}, np.empty(0, int))
    assert np.isnan(nothing.p_values["a"])
    assert nothing.to_dict()["p_values"] == {"a": None}


def mix_p_value(before, after, **settings):
    reference = ShiftReference({}, np.empty(0, int), len(before), mix=before)
    run = RunStatistics(np.array(after), {})
    return reference.test_statistics(run, **settings).p_values["class_mix"]


def test_the_mix_of_large_counts_is_pearsons_test():
    before, after = [400, 350, 250], [210, 190, 100]
    expected = stats.chi2_contingency([before, after], correction=False).pvalue
    assert mix_p_value(before, after) == pytest.approx(expected)


@pytest.mark.parametrize(("rare", "after"), [(0.0005, 10_000), (0.002, 20_000)])
def test_a_rare_class_gives_no_more_alarms_than_stated(rare, after):
    """With 5 images expected in a class the chi-squared distribution alone does not do."""
    before = np.array([round(rare * 10**6), 10**6 - round(rare * 10**6)])
    level = FALSE_ALARM / 3
    # An image more only makes a surplus more unusual, so that halving finds the first alarm.
    low, high = int(rare * after), int(rare * after) * 6
    while high - low > 1:
        middle = (low + high) // 2
        rejected = mix_p_value(before, [middle, after - middle]) <= level
        low, high = (low, middle) if rejected else (middle, high)
    # The chance of so many, with both margins given; sampled chances are as good as 9,999 samples.
    chance = stats.hypergeom.sf(high - 1, 10**6 + after, before[0] + high, after)
    assert chance <= 2 * level


def test_more_images_than_can_be_drawn_without_replacement():
    shares = np.full(20, 0.05)
    before, after = (1000 * shares).astype(int), (3 * 10**9 * shares).astype(np.int64)
    assert mix_p_value(before, after) > 0.5
    before[:2] += [30, -30]
    few = mix_p_value(before, after)
    assert 1e-4 <= few < 0.05
    # As with so many images that these can be drawn without.
    assert few == pytest.approx(mix_p_value(before, after // 100), rel=0.5)


def test_many_classes_take_little_memory():
    n_classes = 2000
    after = np.zeros(n_classes, dtype=np.int64)
    after[:20] = 100
    tracemalloc.start()
    assert mix_p_value(np.full(n_classes, 2), after) == 1e-4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All resamples at once would take 160 MB, twice with their differences.
    assert peak < 100e6


def test_all_in_one_class_and_classes_that_nobody_saw():
    assert mix_p_value([5, 0], [9, 0]) == 1
    assert np.isnan(mix_p_value([0, 0], [9, 0]))
    assert mix_p_value([50, 0, 0], [0, 50, 0]) <= 1e-4


def test_statistics_add_up_and_are_stored():
    rng = np.random.default_rng(2)
    labels, values = rng.integers(0, 4, 60), rng.normal(size=60).round(1)
    reference = ShiftReference({"a": values}, labels, 6)
    run, classes = rng.normal(size=40).round(1), rng.integers(0, 5, 40)
    whole = reference.statistics({"a": run}, classes)
    parts = reference.statistics({"a": run[:9]}, classes[:9]) + reference.statistics(
        {"a": run[9:]}, classes[9:]
    )
    again = RunStatistics.from_dict(parts.to_dict(), 6)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.larger["a"], whole.larger["a"])
    pairs = (values[None, :] < run[:, None]) + 0.5 * (values[None, :] == run[:, None])
    same = labels[None, :] == classes[:, None]
    np.testing.assert_array_equal(
        whole.larger["a"], np.bincount(classes, (pairs * same).sum(axis=1), minlength=6)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.test({}, [0]), "got no"),
        (lambda r: r.test({"a": [0.1, 0.2]}, [0]), "1 numbers"),
        (lambda r: r.test({"a": [np.inf]}, [0]), "finite"),
        (lambda r: r.test({"a": [0.1]}, [2]), "prediction"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call(ShiftReference({"a": [0.5]}, [0], 1))


def test_tails_are_those_of_scipy():
    for z in (-40.0, -3.0, 0.0, 1e-9, 2.0, 37.0):
        assert shift._normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    for degrees in (1, 2, 3, 4, 9, 100, 999):
        for x in (0.0, 1e-12, 0.3, 5.0, 99.0, 1200.0):
            expected = stats.chi2.sf(x, degrees)
            assert shift._chi_squared_tail(x, degrees) == pytest.approx(expected, rel=1e-10)
