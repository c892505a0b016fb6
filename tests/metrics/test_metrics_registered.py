"""Metrics of one's own: registered once, and then wherever the package's own metrics are."""

import copy
import json
import math
import pickle
import warnings

import numpy as np
import pytest

from benchmark_files import write_arrays
from command import Command
from trustvlm import metrics
from trustvlm.benchmark.analysis import analyse
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.score_tables import overview_table
from trustvlm.benchmark.statistics import resample
from trustvlm.exceptions import (
    FewSamplesWarning,
    InputError,
    PluginError,
    UndefinedMetricWarning,
)
from trustvlm.tables.metrics import METRIC_COLUMNS, columns_of, describe_units, label_axis

HALF = """
from trustvlm import metrics


@metrics.register(
    "top_half",
    title="Top half",
    higher_is_better=True,
    meaning="Accuracy of the more trusted half.",
)
def top_half(confidence, correct):
    return correct[: (len(correct) + 1) // 2].mean()
"""


@pytest.fixture(autouse=True)
def registry():
    """Leave the registry as it was."""
    before = set(metrics.names())
    yield
    for name in set(metrics.names()) - before:
        metrics.unregister(name)


def top_half(confidence, correct):
    return correct[: (len(correct) + 1) // 2].mean()


def register(function=top_half, name="top_half", **facts):
    facts = {"title": "Top half", "higher_is_better": True, "meaning": "A share."} | facts
    return metrics.register(name, **facts)(function)


def samples(n=60, seed=0, skill=1.0):
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.7
    return rng.normal(size=n) + skill * correct, correct


def test_it_is_evaluated_with_the_others():
    confidence, correct = samples()
    plain = metrics.evaluate(confidence, correct)
    register()
    result = metrics.evaluate(confidence, correct)
    most_trusted = np.argsort(-confidence)[:30]
    assert result.top_half == correct[most_trusted].mean()
    assert result.to_dict() == {**plain.to_dict(), "top_half": result.top_half}
    assert metrics.compute("top_half", confidence, correct) == result.top_half
    assert metrics.evaluate(confidence, correct, "trustvlm").top_half == result.top_half
    assert list(metrics.names()) == [*metrics.METRICS, "top_half"]
    with pytest.raises(AttributeError, match="not registered yet when this was evaluated"):
        _ = plain.top_half
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert other == result
        assert other.top_half == result.top_half


def test_intervals_and_tests_are_those_of_resamples_written_out():
    register()
    confidence, correct = samples()
    interval = metrics.bootstrap(confidence, correct, "top_half", n_resamples=300)["top_half"]
    # The same draws as multiplicities of the ranked samples.
    order = np.argsort(-confidence)
    rng = np.random.default_rng(0)
    drawn = rng.integers(60, size=(300, 60))
    values = [top_half(None, correct[order][np.sort(rows)]) for rows in drawn]
    deviation = np.std(values, ddof=1)
    assert interval.estimate == correct[order[:30]].mean()
    assert (interval.high - interval.low) / 2 == pytest.approx(2.1 * deviation, rel=0.1) or (
        interval.high == 1.0
    )
    assert interval.method == "bootstrap"
    both = metrics.bootstrap(confidence, correct, n_resamples=300)
    assert both["top_half"] == interval
    poor, _ = samples(skill=0.0)
    paired = metrics.paired_bootstrap(confidence, poor, correct, metric="top_half")
    assert paired.difference == metrics.compute("top_half", confidence, correct) - metrics.compute(
        "top_half", poor, correct
    )
    assert paired.low <= paired.difference <= paired.high
    assert (paired.p_value <= 0.05) == (not paired.low <= 0 <= paired.high)
    every = metrics.paired_bootstraps(confidence, poor, correct)
    assert every["top_half"] == paired
    shared = resample({"a": (confidence, correct), "b": (poor, correct)}, first="a")
    assert shared.difference("a", "b", "top_half") == paired
    groups = metrics.by_group(confidence, correct, np.arange(60) % 2, "top_half")
    assert groups.values[0] == metrics.compute("top_half", confidence[::2], correct[::2])


def test_a_score_without_errors_can_be_compared():
    register()
    confidence, correct = samples()
    with pytest.warns(FewSamplesWarning):
        paired = metrics.paired_bootstrap(
            confidence, confidence, np.ones(60, dtype=bool), correct, "top_half"
        )
    assert paired.low < paired.difference < paired.high
    assert 0 < paired.p_value < 1


def test_its_interval_holds_the_truth_about_as_often_as_it_says():
    register()
    # Of 2 n samples the more trusted half by a confidence that is uniform on [0, 1] and is the
    # chance of being right: their accuracy is 3/4.
    held = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        confidence = rng.random(80)
        correct = rng.random(80) < confidence
        one = metrics.bootstrap(confidence, correct, "top_half", n_resamples=200, seed=seed)
        held += one["top_half"].low <= 0.75 <= one["top_half"].high
    assert 108 <= held <= 120


def test_scores_that_rank_alike_differ_by_a_metric_of_values():
    def mean_gap(confidence, correct):
        return (
            confidence[correct].mean() - confidence[~correct].mean()
            if 0 < correct.sum() < len(correct)
            else np.nan
        )

    register(mean_gap, "gap", unit="nats", needs="values", bounds=(-math.inf, math.inf))
    confidence, correct = samples()
    together = resample(
        {"a": (confidence, correct), "b": (2 * confidence, correct)}, ["gap"], n_resamples=100
    )
    assert np.allclose(2 * together.samples["a"]["gap"], together.samples["b"]["gap"])
    paired = metrics.paired_bootstrap(2 * confidence, confidence, correct, metric="gap")
    assert paired.difference == pytest.approx(metrics.compute("gap", confidence, correct))
    assert paired.high > 1  # it is not cut to differences of shares
    assert paired.p_value < 0.05
    with pytest.warns(UndefinedMetricWarning, match="Top half is undefined: every sample is corr"):
        assert math.isnan(metrics.compute("gap", [0.1, 0.2], [1, 1]))


def test_probabilities_are_demanded_where_they_are_needed():
    register(
        lambda confidence, correct: float(np.mean((confidence - correct) ** 2)),
        "quadratic", title="Brier", unit="", needs="probability", higher_is_better=False,
    )  # fmt: skip
    p, right = [0.9, 0.6, 0.3], [1, 1, 0]
    assert metrics.evaluate(p, right).quadratic == pytest.approx(metrics.brier(p, right))
    with pytest.warns(UndefinedMetricWarning, match="Brier is undefined: the confidences are not"):
        assert math.isnan(metrics.evaluate([9, 6, 3], right).quadratic)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda c, r: 1 / 0, r"metric `top_half` of .* fails: ZeroDivisionError"),
        (lambda c, r: [0.5, 0.5], "one number from 0 to 1, its bounds, .* an array of shape"),
        (lambda c, r: 1.7, "one number from 0 to 1, its bounds, .* but got 1.7"),
        (lambda c, r: math.inf, "but got inf"),
        (lambda c, r: None, "fails: TypeError"),
    ],
)
def test_what_it_gives_is_checked_and_it_is_named(function, said):
    register(function)
    with pytest.raises((InputError, PluginError), match=said) as raised:
        metrics.evaluate([0.9, 0.1], [1, 0])
    assert "test_metrics_registered" in str(raised.value)


def test_errors_of_this_package_that_it_raises_are_passed_on():
    register(lambda confidence, correct: metrics.compute("auroc", confidence, correct[1:]))
    with pytest.raises(InputError, match=r"^(?!The metric)"):
        metrics.evaluate([0.9, 0.1], [1, 0])


def test_what_has_no_value_is_nan():
    register(lambda confidence, correct: math.nan)
    with pytest.warns(UndefinedMetricWarning, match="Top half is undefined: its function gives"):
        assert math.isnan(metrics.compute("top_half", [0.9, 0.1], [1, 0]))
    with pytest.warns(UndefinedMetricWarning, match="there are no samples"):
        assert math.isnan(metrics.compute("top_half", [], []))
    metrics.unregister("top_half")
    register()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamplesWarning)
        one = metrics.bootstrap([0.9, 0.1, 0.5], [1, 1, 1], "top_half", n_resamples=10)["top_half"]
    assert one.estimate == 1.0
    assert math.isnan(one.low)
    assert one.method == ""


@pytest.mark.parametrize(
    ("name", "facts", "said"),
    [
        ("aurc", {}, "A metric named `aurc` is already registered"),
        ("nll", {}, "A metric named `nll` is already registered"),
        ("n", {}, "a Python name that rows do not use yet"),
        ("top half", {}, "a Python name that rows do not use yet"),
        ("a", {"needs": "logits"}, "Expected `needs` among order, values, probability"),
        ("a", {"bounds": (1, 0)}, "two numbers, ascending"),
        ("a", {"title": " "}, "a title and a meaning"),
    ],
)
def test_what_cannot_be_a_metric(name, facts, said):
    with pytest.raises(InputError, match=said):
        register(top_half, name, **facts)


def test_names_that_are_not_registered_are_answered_with_near_ones():
    register()
    confidence, correct = samples()
    for call in (
        lambda: metrics.compute("tophalf", confidence, correct),
        lambda: metrics.bootstrap(confidence, correct, "tophalf"),
        lambda: metrics.paired_bootstrap(confidence, confidence, correct, metric="tophalf"),
        lambda: metrics.by_group(confidence, correct, correct, "tophalf"),
        lambda: columns_of(["tophalf"]),
        lambda: metrics.get("tophalf"),
    ):
        with pytest.raises(InputError, match=r"but got 'tophalf'; did you mean top_half\?"):
            call()
    with pytest.raises(InputError, match="is one of this package and stays"):
        metrics.unregister("auroc")


def test_its_facts_are_written_once():
    register(title="Top half", unit="images", bounds=(0, 100))
    column = METRIC_COLUMNS["top_half"]
    assert (column.sign, column.scale, label_axis(column)) == ("images", 1, "Top half (images)")
    assert "times 1000, Top half images, the rest in percent" in describe_units(
        columns_of(["auroc"])
    )
    metrics.unregister("top_half")
    assert "top_half" not in METRIC_COLUMNS
    assert describe_units(columns_of(["auroc"])).startswith(
        "The AURC family is times 1000, the rest in percent"
    )


def test_a_file_adds_it_to_a_study(tmp_path, capsys, monkeypatch):
    run = Command(capsys, monkeypatch)
    (tmp_path / "half.py").write_text(HALF)
    train = write_arrays(tmp_path / "a__train.npz", 0)
    test = write_arrays(tmp_path / "a__test.npz", 1)
    done = run(
        "bench", "arrays", "--support", train, test, "--plugin", tmp_path / "half.py",
        "--scores", "msp,trustvlm", "--json", tmp_path / "rows.json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Top half" in done.out
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert all(0 <= row["top_half"] <= 1 for row in rows)
    assert list(rows[0])[-2:] == ["top_half", "n"]
    table = overview_table(analyse(Results(rows), n_resamples=10), "aurc")
    assert table.heads[-2].title == "Top half"
