"""What the page of a study says first: the best score, by how much, significant or not."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from bench_results import make_results
from trustvlm import metrics
from trustvlm.benchmark.analysis import analyse
from trustvlm.benchmark.findings import describe_finding, find, finding_table, headline
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.statistics import holm

DATASETS = ("pets", "flowers", "cars")


@pytest.fixture(scope="module")
def results():
    return make_results(DATASETS, shots=(16,), n=200)


@pytest.fixture(scope="module")
def analysis(results):
    return analyse(results, ["accuracy", "aurc", "auroc"], n_resamples=300)


def flat(sentences):
    return " ".join(sentences)


def test_the_best_is_that_of_the_best_mean(results, analysis):
    means = {
        score: np.mean([row["aurc"] for row in results.rows if row["score"] == score])
        for score in results.scores
    }
    order = sorted(means, key=means.get)
    finding = find(analysis, "aurc")
    assert [finding.best.score, *(rival.score for rival in finding.rivals)] == order
    assert finding.best.mean == pytest.approx(means[order[0]])
    by_auroc = find(analysis, "auroc")
    assert by_auroc.best.mean == max(by_auroc.best.mean, *(r.mean for r in by_auroc.rivals))


def resampled_means(results, first, second, metric, rng, times=250):
    """Differences of means over data sets, images of each drawn anew: the plain bootstrap."""
    samples = [results.of(results.settings[0]).samples_of(name) for name in DATASETS]
    found = []
    for _ in range(times):
        differences = []
        for of_set in samples:
            at = rng.integers(200, size=200)
            values = [
                metric(np.asarray(of_set[s][0])[at], np.asarray(of_set[s][1])[at])
                for s in (first, second)
            ]
            differences.append(values[0] - values[1])
        found.append(np.mean(differences))
    return np.quantile(found, (0.025, 0.975))


def test_the_interval_of_the_mean_is_that_of_a_plain_bootstrap_of_all_sets(results, analysis):
    rng = np.random.default_rng(5)
    finding = find(analysis, "aurc")
    for rival in finding.rivals[:2]:
        low, high = resampled_means(results, finding.best.score, rival.score, metrics.aurc, rng)
        width = high - low
        assert rival.low == pytest.approx(low, abs=0.2 * width)
        assert rival.high == pytest.approx(high, abs=0.2 * width)


def test_test_sets_are_counted_after_holms_correction(results, analysis):
    finding = find(analysis, "aurc")
    counts = {rival.score: [0, 0, 0] for rival in finding.rivals}
    for name in DATASETS:
        samples = results.of(results.settings[0]).samples_of(name)
        best = samples[finding.best.score]
        tests = {
            score: metrics.paired_bootstrap(
                best[0], samples[score][0], best[1], samples[score][1], "aurc", n_resamples=300
            )
            for score in counts
        }
        p_values = holm([test.p_value for test in tests.values()])
        for (score, test), p in zip(tests.items(), p_values, strict=True):
            # The resamples are others where the best is not the reference.
            assert not 0.045 < p < 0.055
            counts[score][1 if p > 0.05 else 0 if test.difference < 0 else 2] += 1
    assert counts == {r.score: [r.better, r.undecided, r.worse] for r in finding.rivals}


def test_a_clear_lead_is_called_significant_with_its_numbers(analysis):
    finding = find(analysis, "aurc")
    assert finding.best.score == "trustvlm_star"
    assert finding.undecided == []
    assert (
        headline(finding) == "trustvlm_star is best by AURC, significantly better than every other "
        "score."
    )
    text = flat(describe_finding(finding, analysis))
    following = finding.rivals[0]
    assert (
        f"{1000 * finding.best.mean:.1f}, mean over 3 data sets; next is {following.score}" in text
    )
    shown = re.search(
        r"a difference of ([\d.]+) \[([\d.]+), ([\d.]+)\] on draw 0, significant", text
    )
    values = [-1000 * v for v in (following.difference, following.high, following.low)]
    assert [float(group) for group in shown.groups()] == pytest.approx(values, abs=0.06)
    assert "of 3 test sets" in text
    assert "msp, the text alone" in text
    assert "It may change labels; of 4 scores that keep them, " in text


def test_what_cannot_be_told_apart_is_named():
    # Two scores of equal quality, and no other.
    twins = make_results(DATASETS, ("msp", "trustvlm"), shots=(1,), n=60, seed=3)
    rng = np.random.default_rng(0)
    samples = {
        key: (np.asarray(right) * 1.0 + rng.normal(size=60), right)
        for key, (_, right) in twins.samples.items()
    }
    by_name = {key[:2]: sample for key, sample in samples.items()}
    rows = [
        {**row, "aurc": metrics.aurc(*by_name[row["dataset"], row["score"]])} for row in twins.rows
    ]
    analysis = analyse(Results(rows, samples), ["aurc"], n_resamples=300)
    finding = find(analysis, "aurc")
    (other,) = finding.rivals
    assert headline(finding) == (
        f"{finding.best.score} leads by AURC, but {other.score} cannot be told apart from it."
    )
    assert "not significant" in flat(describe_finding(finding, analysis))
    table = finding_table(finding, "trustvlm")
    assert not any("*" in cell.text for line in table.lines for cell in line.cells)


def test_without_samples_nothing_is_called_significant():
    analysis = analyse(make_results(with_samples=False), ["aurc"])
    finding = find(analysis, "aurc")
    assert not finding.tested
    assert "was not tested" in headline(finding)
    assert "significant" not in flat(describe_finding(finding, analysis))
    table = finding_table(finding, "trustvlm")
    assert [head.title for head in table.heads] == ["Score", "AURC"]


def test_samples_of_some_sets_alone_are_no_test_of_all():
    results = make_results(DATASETS, shots=(4,))
    samples = {key: sample for key, sample in results.samples.items() if key[0] != "cars"}
    finding = find(analyse(Results(results.rows, samples), ["aurc"], n_resamples=50), "aurc")
    assert not finding.tested
    assert all(math.isnan(rival.difference) for rival in finding.rivals)


def test_one_score_one_set_and_undefined_values_have_a_finding_or_none():
    one = analyse(make_results(["pets"], ["trustvlm"], shots=(4,)), ["aurc"], n_resamples=50)
    assert headline(find(one, "aurc")).startswith("trustvlm is the only score, with ")
    pets = analyse(make_results(["pets"], shots=(4,)), ["aurc"], n_resamples=50)
    (first, *_) = describe_finding(find(pets, "aurc"), pets)
    assert ", on pets; next is" in first
    assert "test sets" not in first
    right = analyse(make_results(["pets"], accuracy=1.1, shots=(4,)), ["auroc"], n_resamples=50)
    assert find(right, "auroc") is None


def test_test_sets_of_one_data_set_count_as_one():
    results = make_results(["pacs/test", "pacs/sketch", "cars"], shots=(4,))
    analysis = analyse(results, ["aurc"], n_resamples=100)
    finding = find(analysis, "aurc")
    assert (finding.n_data_sets, finding.n_test_sets) == (2, 3)
    rival = finding.rivals[0]
    of_set = {
        name: analysis.resampled[name].difference(finding.best.score, rival.score, "aurc")
        for name in results.datasets
    }
    pacs = (of_set["pacs/test"].difference + of_set["pacs/sketch"].difference) / 2
    assert rival.difference == pytest.approx((pacs + of_set["cars"].difference) / 2)
    below = [
        (w * (of_set[n].difference - of_set[n].low)) ** 2
        for n, w in zip(results.datasets, (0.25, 0.25, 0.5), strict=True)
    ]
    assert rival.low == pytest.approx(rival.difference - math.sqrt(sum(below)))


def test_the_small_table_has_the_best_the_next_the_reference_and_the_text(analysis):
    finding = find(analysis, "aurc")
    table = finding_table(finding, "trustvlm")
    labels = [line.label for line in table.lines]
    assert labels[0] == "trustvlm_star"
    assert {"trustvlm", "msp"} <= set(labels)
    assert [line.label for line in table.lines if line.own] == ["trustvlm"]
    assert table.lines[1].cells[1].text.endswith("*")
    assert len(table.caption_with("", "").split()) <= 40
