"""Average ranks and class gains, against Demsar's example, SciPy and plain counting."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from trustvlm.benchmark.analysis import accepted, class_gains
from trustvlm.benchmark.statistics import compare_ranks, complete_block, critical_difference
from trustvlm.exceptions import InputError

# Demsar 2006, Table 6: AUC of C4.5, with m, with cf, with both, on 14 data sets. In the thirteenth
# the third and the fourth are printed alike, but ranked 2 and 3.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
NAMES = ("plain", "m", "cf", "m+cf")


def ranked(values, **settings):
    values = np.asarray(values, dtype=float)
    scores = settings.pop("scores", [f"s{i}" for i in range(values.shape[1])])
    datasets = [f"d{i}" for i in range(values.shape[0])]
    settings.setdefault("higher_is_better", True)
    return compare_ranks(values, scores, datasets, **settings)


def test_demsars_example():
    ranking = ranked(DEMSAR, scores=NAMES)
    assert ranking.average_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert ranking.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert ranked(DEMSAR, alpha=0.1).critical_difference == pytest.approx(1.12, abs=5e-3)
    # The paper's 9.28 and 3.69 leave ties uncorrected; the correction only makes them larger.
    plain = 12 * 14 / (4 * 5) * ((ranking.average_ranks**2).sum() - 4 * 25 / 4)
    assert plain == pytest.approx(9.28, abs=5e-3)
    assert ranking.statistic > plain
    assert ranking.f_statistic > 3.69
    assert ranking.rejected


def test_demsars_groups_at_a_tenth():
    # Section 3.2.4: at 0.10 plain C4.5 is worse than C4.5+m and C4.5+m+cf; nothing is said of cf.
    ranking = ranked(DEMSAR, scores=NAMES, alpha=0.1)
    assert ranking.groups() == [("m+cf", "m", "cf"), ("cf", "plain")]


@pytest.mark.parametrize(
    ("k", "alpha", "q"),
    [(2, 0.05, 1.960), (5, 0.05, 2.728), (10, 0.05, 3.164), (4, 0.10, 2.291), (10, 0.10, 2.920)],
)
def test_critical_values_are_those_of_demsars_table_5(k, alpha, q):
    assert critical_difference(k, 6, alpha) == pytest.approx(
        q * math.sqrt(k * (k + 1) / 36), rel=1e-3
    )


def test_friedman_is_scipys():
    values = np.random.default_rng(0).random((9, 5)).round(1)
    ranking = ranked(values)
    expected = stats.friedmanchisquare(*values.T)
    assert ranking.statistic == pytest.approx(expected.statistic)
    assert ranking.p_value == pytest.approx(expected.pvalue)


def test_friedman_p_is_near_that_of_all_permutations():
    values = np.array([[3, 1, 2], [3, 2, 1], [3, 1, 2], [2, 1, 3]], dtype=float)
    observed = ranked(values).statistic
    orders = list(permutations([1.0, 2.0, 3.0]))
    grids = np.array(np.meshgrid(*[range(6)] * 4)).reshape(4, -1).T
    larger = [
        stats.friedmanchisquare(*np.array([orders[i] for i in grid]).T).statistic >= observed - 1e-9
        for grid in grids
    ]
    assert np.mean(larger) == pytest.approx(ranked(values).p_value, abs=0.05)


def test_ranks_do_not_depend_on_direction_or_scale():
    values = np.random.default_rng(1).random((6, 4))
    up, down = ranked(values), ranked(-3 * values + 1, higher_is_better=False)
    assert (up.average_ranks == down.average_ranks).all()
    assert up.rank_of("s0") == up.average_ranks[0]
    assert math.isnan(up.rank_of("absent"))


def test_perfect_agreement_rejects_however_few():
    ranking = ranked([[3, 2, 1]] * 5)
    assert ranking.f_statistic == math.inf
    assert ranking.f_p_value == 0.0


@pytest.mark.parametrize("values", [[[1, 2, 3]], [[1, 2]] * 4, [[1], [1]], [[2, 2, 2]] * 3])
def test_no_test_where_there_is_nothing_to_test(values):
    ranking = ranked(values)
    assert math.isnan(ranking.statistic)
    assert not ranking.rejected


def test_one_data_set_or_one_score_has_no_critical_difference():
    for values in ([[1, 2, 3]], [[1], [2]]):
        ranking = ranked(values)
        assert math.isnan(ranking.critical_difference)
        assert ranking.groups() == []


def test_everything_undefined_leaves_nothing():
    ranking = ranked(np.full((3, 2), math.nan))
    assert (ranking.scores, ranking.datasets, ranking.groups()) == ((), (), [])
    assert len(ranking.left_out_scores) == 2 or len(ranking.left_out_datasets) == 3


def test_what_lacks_values_is_left_out_and_named():
    values = np.arange(12, dtype=float).reshape(4, 3)
    values[:, 1] = math.nan
    values[2] = math.nan
    ranking = ranked(values)
    assert (ranking.left_out_scores, ranking.left_out_datasets) == (("s1",), ("d2",))
    assert ranking.scores == ("s0", "s2")


def test_a_complete_table_is_kept_whole():
    assert complete_block(np.ones((2, 3))) == ([0, 1], [0, 1, 2])


def test_misfitting_names_are_refused():
    with pytest.raises(InputError, match="shape"):
        compare_ranks([[1, 2]], ["a"], ["d"], higher_is_better=True)
    with pytest.raises(InputError, match="k >= 2"):
        critical_difference(1, 5)


def test_class_gains_are_counts_of_images():
    rng = np.random.default_rng(2)
    n, names = 300, ["x", "y", "z", "never"]
    labels = rng.integers(0, 3, n)
    first, second = rng.random(n) < 0.5, rng.random(n) < 0.7
    gains = class_gains((rng.random(n), first), (rng.random(n), second), labels, names)
    assert {row.name for row in gains} == {"x", "y", "z"}
    for row in gains:
        own = labels == names.index(row.name)
        assert row.n == own.sum()
        assert row.before == (own & first).sum()
        assert row.after == (own & second).sum()
        assert row.gained == (own & second & ~first).sum()
        assert row.lost == (own & first & ~second).sum()
        assert row.net == row.after - row.before
        tail = stats.binom.sf(max(row.gained, row.lost) - 1, row.gained + row.lost, 0.5)
        assert row.p_value == pytest.approx(min(1.0, 2 * tail))
        assert row.p_holm >= row.p_value
    assert [row.net for row in gains] == sorted((row.net for row in gains), reverse=True)


def test_class_gains_of_confidence_alone_need_a_coverage():
    right = np.array([1, 1, 0, 0], dtype=bool)
    good, bad, labels = ([4, 3, 2, 1], right), ([1, 2, 3, 4], right), [0, 1, 0, 1]
    assert all(row.net == 0 for row in class_gains(bad, good, labels, "ab"))
    by_class = class_gains(bad, good, labels, "ab", coverage=0.5)
    assert [(row.before, row.after, row.gained) for row in by_class] == [(0, 2, 2), (0, 2, 2)]


def test_ties_are_broken_alike_for_all_and_not_by_place():
    chosen = accepted(np.zeros(1000), 0.5)
    assert chosen.sum() == 500
    assert 200 < chosen[:500].sum() < 300
    assert (chosen == accepted(np.ones(1000), 0.5)).all()


@pytest.mark.parametrize(
    ("labels", "coverage"), [([0, 1], None), ([0, 1, 5], None), ([0, 1, -1], 0.5), ([0, 1, 1], 0.0)]
)
def test_class_gains_refuse_what_does_not_fit(labels, coverage):
    sample = ([1, 2, 3], [1, 0, 1])
    with pytest.raises(InputError, match="Expected"):
        class_gains(sample, sample, labels, ["a", "b"], coverage=coverage)


def test_test_sets_of_one_data_set_count_as_one():
    values = np.random.default_rng(5).random((6, 4))
    names = ["a/1", "a/2", "a/3", "b", "c/1", "c/2"]
    ranking = compare_ranks(
        values, "wxyz", names, higher_is_better=True, units=["a", "a", "a", "b", "c", "c"]
    )
    averaged = np.stack([values[:3].mean(axis=0), values[3], values[4:].mean(axis=0)])
    alone = ranked(averaged)
    assert ranking.units == ("a", "b", "c")
    assert ranking.datasets == tuple(names)
    assert (ranking.average_ranks == alone.average_ranks).all()
    assert ranking.f_p_value == alone.f_p_value
    assert ranking.critical_difference == critical_difference(4, 3)
    with pytest.raises(InputError, match="units"):
        compare_ranks(values, "wxyz", names, higher_is_better=True, units=["a"])


def test_copies_of_a_data_set_do_not_make_a_test_reject():
    # Pure noise, shared by the ten test sets of each of three data sets.
    rng, rejected, counted_apart = np.random.default_rng(6), 0, 0
    for _ in range(100):
        values = np.repeat(rng.random((3, 4)), 10, axis=0)
        names, units = [f"d{i}" for i in range(30)], [f"u{i // 10}" for i in range(30)]
        ranking = compare_ranks(values, "wxyz", names, higher_is_better=True, units=units)
        rejected += ranking.rejected
        counted_apart += compare_ranks(values, "wxyz", names, higher_is_better=True).rejected
    assert rejected <= 12
    assert counted_apart > 60
