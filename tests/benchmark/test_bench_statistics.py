"""Spreads, shared resamples, corrections and marks, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.benchmark.results import Results, Setting
from trustvlm.benchmark.statistics import (
    compare_to_reference,
    holm,
    leaders,
    mean_over_datasets,
    resample,
    spread,
    spreads,
)
from trustvlm.exceptions import InputError
from trustvlm.metrics import METRICS, paired_bootstrap

RNG = np.random.default_rng(7)
N = 160
RIGHT = RNG.random(N) < 0.7
OTHER_RIGHT = np.where(RNG.random(N) < 0.1, ~RIGHT, RIGHT)
SAMPLES = {
    "trustvlm": (RIGHT + RNG.normal(size=N), RIGHT),
    "msp": (np.round(0.5 * RIGHT + RNG.normal(size=N), 1), RIGHT),
    "star": (OTHER_RIGHT + RNG.normal(size=N), OTHER_RIGHT),
    "noise": (RNG.normal(size=N), RIGHT),
}


def row(dataset="pets", score="msp", shots=16, draw=0, **values):
    return {"dataset": dataset, "score": score, "shots": shots, "draw": draw, **values}


def test_spread_is_the_sample_standard_deviation():
    values = [0.1, 0.25, 0.2, 0.4]
    result = spread(values)
    assert result.mean == pytest.approx(np.mean(values))
    assert result.sd == pytest.approx(np.std(values, ddof=1))
    assert spread([0.1] * 3).sd == 0.0
    assert spread([0.1] * 3).mean == 0.1
    assert math.isnan(spread([0.1]).sd)
    assert math.isnan(spread([math.nan]).mean)


def test_spreads_take_failed_cells_as_undefined():
    results = Results([row(draw=0, aurc=0.2), row(draw=1, aurc=0.9, error="out of memory")])
    result = spreads(results, "aurc")["pets", "msp", 16]
    assert (result.mean, result.n, result.n_undefined) == (0.2, 1, 1)


def test_a_failure_as_a_whole_counts_for_every_score():
    rows = [row(draw=0, aurc=0.2), {**row(score=None, draw=1), "error": "no such folder"}]
    results = Results(rows)
    assert results.scores == ("msp",)
    assert spreads(results, "aurc")["pets", "msp", 16].n_undefined == 1
    assert mean_over_datasets(results, "aurc", ["pets"], "msp", 16).n_undefined == 1


def test_mean_over_datasets_needs_every_set_in_a_draw():
    rows = [
        row("a", draw=0, aurc=0.1),
        row("b", draw=0, aurc=0.3),
        row("a", draw=1, aurc=0.2),
        row("b", draw=1, aurc=None),
    ]
    result = mean_over_datasets(Results(rows), "aurc", ["a", "b"], "msp", 16)
    assert (result.mean, result.n, result.n_undefined) == (pytest.approx(0.2), 1, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_shared_resamples_give_what_paired_bootstrap_gives(metric):
    resampled = resample(SAMPLES, first="trustvlm", n_resamples=300, seed=3)
    for score in ("msp", "star", "noise"):
        own, other = SAMPLES["trustvlm"], SAMPLES[score]
        expected = paired_bootstrap(
            own[0], other[0], own[1], other[1], metric, n_resamples=300, seed=3
        )
        assert resampled.difference("trustvlm", score, metric) == expected


def test_comparisons_are_score_less_reference():
    resampled = resample(SAMPLES, ["auroc"], first="trustvlm", n_resamples=400)
    comparisons = {c.score: c for c in compare_to_reference("d", resampled, "trustvlm", ["auroc"])}
    assert set(comparisons) == {"msp", "star", "noise"}
    worst = comparisons["noise"]
    assert worst.value < worst.reference_value
    assert worst.low <= worst.difference <= worst.high < 0
    assert worst.significant
    assert worst.n == N
    expected = paired_bootstrap(
        *(SAMPLES[name][0] for name in ("trustvlm", "noise")),
        RIGHT,
        metric="auroc",
        n_resamples=400,
    )
    assert (worst.low, worst.high, worst.p_value) == (
        -expected.high,
        -expected.low,
        expected.p_value,
    )


def test_no_reference_no_comparison():
    resampled = resample(SAMPLES, ["aurc"], n_resamples=5)
    assert compare_to_reference("d", resampled, "absent", ["aurc"]) == []


def test_undefined_metrics_are_not_significant():
    right = np.ones(12, dtype=bool)
    samples = {"a": (np.arange(12), right), "b": (-np.arange(12), right)}
    resampled = resample(samples, n_resamples=20)
    (comparison,) = compare_to_reference("d", resampled, "a", ["auroc"])
    assert math.isnan(comparison.p_holm)
    assert not comparison.significant
    shown = {"a": math.nan, "b": math.nan}
    assert leaders(shown, resampled, "auroc", higher_is_better=True) == {}


def test_no_images_no_numbers():
    resampled = resample({"a": ([], []), "b": ([], [])}, ["aurc"], n_resamples=4)
    assert resampled.n == 0
    assert math.isnan(resampled.difference("a", "b", "aurc").low)


def test_scores_of_different_images_are_refused():
    with pytest.raises(InputError, match="same images"):
        resample({"a": ([1, 2], [1, 0]), "b": ([1], [1])})


def test_holm_on_a_hand_computed_family():
    # Sorted .005 .011 .02 .04 times 4 3 2 1: .02 .033 .04 .04; none may fall below an earlier one.
    assert holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([0.01, 0.02, 0.022]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([math.nan, 0.03])[1] == 0.03
    assert holm([]).size == 0
    with pytest.raises(InputError, match="0, 1"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values, alpha):
    p = np.array(p_values)
    rejected = np.zeros(len(p), dtype=bool)
    for step, at in enumerate(np.argsort(p, kind="stable")):
        if p[at] * (len(p) - step) > alpha:
            break
        rejected[at] = True
    assert ((holm(p) <= alpha) == rejected).all()


def test_holm_holds_its_level_under_the_null():
    # Twenty true null hypotheses at a time: one false alarm or more in about 5 % of 2000 families.
    families = np.random.default_rng(0).random((2000, 20))
    alarms = np.mean([(holm(family) <= 0.05).any() for family in families])
    assert 0.03 < alarms < 0.07


def clear_order(*quality):
    """Scores whose AUROC is far apart, or equal where the quality is."""
    noise = np.random.default_rng(1).normal(size=400)
    right = np.random.default_rng(2).random(400) < 0.6
    return {str(i): (q * right + noise, right) for i, q in enumerate(quality)}


def marks(samples, shown=None, **settings):
    resampled = resample(samples, ["auroc"], n_resamples=300)
    shown = shown or {name: values["auroc"] for name, values in resampled.estimates.items()}
    return leaders(shown, resampled, "auroc", higher_is_better=True, **settings)


def test_best_and_second_are_marked_where_all_are_apart():
    assert marks(clear_order(0.2, 4.0, 1.5)) == {"1": "best", "2": "second"}


def test_two_that_cannot_be_told_apart_are_both_second():
    assert marks(clear_order(4.0, 4.0, 0.1)) == {"0": "second", "1": "second"}


def test_nothing_is_marked_among_equals_or_alone():
    assert marks(clear_order(1.0, 1.0, 1.0)) == {}
    assert marks(clear_order(1.0)) == {}


def test_of_two_only_the_better_is_marked():
    assert marks(clear_order(0.1, 4.0)) == {"1": "best"}


def test_a_mark_needs_the_shown_order_too():
    samples = clear_order(4.0, 0.1)
    assert marks(samples, {"0": 0.5, "1": 0.9}) == {}


def test_a_score_without_samples_beats_nobody_and_is_not_beaten():
    samples = clear_order(4.0, 0.1)
    assert marks(samples, {"0": 0.9, "1": 0.5, "unsampled": 0.4}) == {"0": "second"}
    assert leaders({"a": 1.0, "b": 0.5}, None, "auroc", higher_is_better=True) == {}


def test_lower_is_better_marks_the_lowest():
    samples = clear_order(4.0, 0.1)
    resampled = resample(samples, ["aurc"], n_resamples=200)
    shown = {name: values["aurc"] for name, values in resampled.estimates.items()}
    assert leaders(shown, resampled, "aurc", higher_is_better=False) == {"0": "best"}


def test_intervals_cover_no_difference_when_there_is_none():
    # Two scores of the same quality on 60 draws of a world: about 95 % of intervals hold zero.
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(60):
        right = rng.random(120) < 0.7
        samples = {name: (right + rng.normal(size=120), right) for name in "ab"}
        pair = resample(samples, ["auroc"], n_resamples=200).difference("a", "b", "auroc")
        held += pair.low <= 0 <= pair.high
    assert held >= 51  # below 1 in 1000 by chance at 95 %


def test_results_are_checked_and_sliced():
    rows = [row(vlm="x", vision="y", aurc=0.1), row(vlm="z", vision="y", aurc=0.2)]
    samples = {("pets", "msp", ("x", "y", "")): ([0.5], [True])}
    results = Results(rows, samples)
    assert results.settings == (Setting("x", "y"), Setting("z", "y"))
    part = results.of(Setting("x", "y"))
    assert [r["aurc"] for r in part.rows] == [0.1]
    assert part.samples_of("pets") == {"msp": ([0.5], [True])}
    assert results.of(Setting("z", "y")).samples == {}
    short = Results(rows, {("pets", "msp"): ([0.5], [True])})
    assert short.of(Setting("x", "y")).samples_of("pets") == {"msp": ([0.5], [True])}
    assert short.of(Setting("z", "y")).samples == {}
    with pytest.raises(InputError, match="2 rows"):
        Results([row(aurc=0.1), row(aurc=0.1)])
    with pytest.raises(InputError, match="lacks draw"):
        Results([{"dataset": "d", "score": "s", "shots": 1}])
    with pytest.raises(InputError, match="convention"):
        Results([], convention="mine")
    assert Results([]).largest == 0


def test_the_mean_over_data_sets_averages_test_sets_of_one_first():
    rows = [
        {"dataset": d, "score": "knn", "shots": 1, "draw": 0, "aurc": v}
        for d, v in (("a/1", 0.1), ("a/2", 0.3), ("b/1", 0.8))
    ]
    results = Results(rows)
    mean = mean_over_datasets(results, "aurc", results.datasets, "knn", 1)
    assert mean.mean == pytest.approx((0.2 + 0.8) / 2)
    one = Results(rows, sets=dict.fromkeys(results.datasets, "all"))
    assert mean_over_datasets(one, "aurc", one.datasets, "knn", 1).mean == pytest.approx(0.4)
