"""Every metric against independent references and against what must hold of it."""

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from trustvlm import metrics
from trustvlm.exceptions import UndefinedMetricWarning
from trustvlm.metrics import conventions
from trustvlm.metrics.bootstrap import evaluated
from trustvlm.metrics.counts import Counts, area_table, rank
from trustvlm.metrics.info import METRIC_INFO

cases = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-4, 4), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


@pytest.fixture(autouse=True)
def _undefined_is_not_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        yield


def slow_expected(confidence, correct):
    """AURC and AUGRC averaged over every order that sorts the confidences, in fractions."""
    n = len(confidence)
    aurcs, augrcs = [], []
    for order in itertools.permutations(range(n)):
        if any(confidence[a] < confidence[b] for a, b in itertools.pairwise(order)):
            continue
        errors = list(itertools.accumulate(int(not correct[i]) for i in order))
        aurcs.append(sum(Fraction(e, k) for k, e in enumerate(errors, 1)) / n)
        augrcs.append(Fraction(sum(errors), n * n))
    return sum(aurcs) / len(aurcs), sum(augrcs) / len(augrcs)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_exact_is_the_mean_over_all_orders_of_ties(samples):
    confidence, correct = zip(*samples, strict=True)
    aurc, augrc = slow_expected(confidence, correct)
    assert metrics.aurc(confidence, correct) == pytest.approx(float(aurc), abs=2e-16)
    assert metrics.augrc(confidence, correct) == float(augrc)


@given(cases)
def test_curves_equal_scikit_learn(case):
    confidence, correct = map(np.asarray, case)
    assume(0 < correct.sum() < len(correct))
    result = metrics.evaluate(confidence, correct)
    assert result.auroc == pytest.approx(roc_auc_score(correct, confidence), abs=1e-12)
    expected = average_precision_score(correct, confidence)
    assert result.aupr_success == pytest.approx(expected, abs=1e-12)
    precision, recall, _ = precision_recall_curve(correct, confidence)
    released = metrics.aupr_success(confidence, correct, "trustvlm")
    assert released == pytest.approx(auc(recall, precision), abs=1e-12)
    expected = average_precision_score(~correct, -confidence)
    assert result.aupr_error == pytest.approx(expected, abs=1e-12)
    fpr, tpr, _ = roc_curve(correct, confidence, drop_intermediate=False)
    assert result.fpr95 == fpr[tpr >= 0.95].min()
    fpr, tpr, _ = roc_curve(correct, confidence)
    nearest = fpr[np.argmin(np.abs(tpr - 0.95))]
    assert metrics.fpr95(confidence, correct, "trustvlm") == nearest


@given(cases)
def test_convention_trustvlm_takes_ties_in_input_order(case):
    order = sorted(range(len(case[0])), key=lambda i: -case[0][i])
    errors = list(itertools.accumulate(int(not case[1][i]) for i in order))
    n = len(order)
    aurc = float(sum(Fraction(e, k) for k, e in enumerate(errors, 1)) / n)
    assert metrics.aurc(*case, "trustvlm") == pytest.approx(aurc, abs=1e-15)
    assert metrics.augrc(*case, "trustvlm") == float(Fraction(sum(errors), n * n))


@given(cases)
def test_every_metric_alone_equals_all_at_once(case):
    for convention in metrics.CONVENTIONS:
        result = metrics.evaluate(*case, convention=convention)
        for name in metrics.METRICS:
            alone = getattr(metrics, name)(*case, convention=convention)
            np.testing.assert_equal(alone, getattr(result, name))
        assert (result.n, result.convention) == (len(case[0]), convention)
        assert all(type(getattr(result, name)) is float for name in metrics.METRICS)


@given(cases, st.randoms(use_true_random=False))
def test_exact_does_not_depend_on_input_order(case, random):
    order = list(range(len(case[0])))
    random.shuffle(order)
    shuffled = [np.asarray(part)[order] for part in case]
    np.testing.assert_equal(
        metrics.evaluate(*case).to_dict(), metrics.evaluate(*shuffled).to_dict()
    )


@given(cases)
def test_monotone_transforms_change_nothing(case):
    confidence, correct = np.asarray(case[0], dtype=float), case[1]
    for transformed in (np.exp(confidence), 3 * confidence - 7, confidence**3):
        for convention in metrics.CONVENTIONS:
            a = metrics.evaluate(confidence, correct, convention).to_dict()
            b = metrics.evaluate(transformed, correct, convention).to_dict()
            np.testing.assert_equal(a, b)


@given(cases)
def test_no_ranking_leaves_the_range_from_perfect_to_inverted(case):
    confidence, correct = map(np.asarray, case)
    result = metrics.evaluate(confidence, correct)
    perfect, inverted = (metrics.evaluate(s * correct.astype(float), correct) for s in (1, -1))
    for name in ("aurc", "eaurc", "augrc", "fpr95"):
        low, value, high = (getattr(m, name) for m in (perfect, result, inverted))
        assert math.isnan(value) or low - 1e-12 <= value <= high + 1e-12
    # Average precision has its minimum elsewhere: ties spare the first errors found.
    assert math.isnan(result.auroc) or inverted.auroc <= result.auroc <= perfect.auroc
    assert math.isnan(result.aupr_error) or result.aupr_error <= perfect.aupr_error + 1e-12
    for name in metrics.METRICS:
        value = getattr(result, name)
        assert math.isnan(value) or -1e-15 <= value <= 1 + 1e-15


@given(cases)
def test_turning_the_scores_round_mirrors_auroc(case):
    confidence, correct = map(np.asarray, case)
    assume(0 < correct.sum() < len(correct))
    turned = metrics.auroc(-confidence, correct)
    assert metrics.auroc(confidence, correct) == pytest.approx(1 - turned, abs=1e-15)


@given(cases)
def test_a_constant_confidence_has_the_error_rate_as_aurc(case):
    correct = np.asarray(case[1])
    result = metrics.evaluate(np.zeros(len(correct)), correct)
    assert result.aurc == pytest.approx(1 - result.accuracy, abs=1e-15)
    assert math.isnan(result.auroc) or result.auroc == 0.5
    assert math.isnan(result.fpr95) or result.fpr95 == 1
    assert math.isnan(result.aupr_success) or result.aupr_success == pytest.approx(result.accuracy)
    assert math.isnan(result.aupr_error) or result.aupr_error == pytest.approx(1 - result.accuracy)


@given(cases)
def test_augrc_follows_from_auroc(case):
    """AUGRC = (1 - AUROC) a (1 - a) + R^2/2 + R/(2n), for every n, ties included."""
    confidence, correct = map(np.asarray, case)
    assume(0 < correct.sum() < len(correct))
    result = metrics.evaluate(confidence, correct)
    a, n = result.accuracy, len(correct)
    expected = (1 - result.auroc) * a * (1 - a) + (1 - a) ** 2 / 2 + (1 - a) / (2 * n)
    assert result.augrc == pytest.approx(expected, abs=1e-12)


@given(cases)
def test_excess_augrc_is_above_the_perfect_order_of_the_same_labels(case):
    confidence, correct = map(np.asarray, case)
    perfect = metrics.augrc(correct.astype(int), correct)
    excess = metrics.eaugrc(confidence, correct)
    assert excess == pytest.approx(metrics.augrc(confidence, correct) - perfect, abs=1e-15)
    assert metrics.evaluate(confidence, correct).eaugrc == excess >= 0
    assert metrics.eaugrc(correct.astype(int), correct) == 0


@given(cases)
def test_doubling_every_sample_keeps_what_is_read_at_thresholds(case):
    once = metrics.evaluate(*case).to_dict()
    twice = metrics.evaluate(case[0] * 2, case[1] * 2).to_dict()
    for name in ("accuracy", "auroc", "fpr95", "aupr_success", "aupr_error"):
        np.testing.assert_allclose(twice[name], once[name], rtol=1e-14)


@given(cases)
def test_a_table_of_area_table_gives_the_same_area(case):
    counts = rank(*case).in_blocks
    table = area_table(len(case[0]))
    assert conventions.aurc(counts, table) == pytest.approx(
        float(conventions.aurc(counts)), abs=1e-13
    )


def test_perfect_ranking_tends_to_its_limit():
    for n, gap in ((100, 1e-2), (10_000, 1e-4)):
        correct = np.arange(n) < 0.8 * n
        assert 0 < metrics.eaurc(-np.arange(n), correct) < gap


def test_fpr95_needs_exactly_nineteen_of_twenty():
    for n_right in range(1, 401):
        needed = min(r for r in range(n_right + 1) if 20 * r >= 19 * n_right)
        # Wrong samples sit below the needed right ones and below all of them.
        right = np.r_[np.ones(needed), 0, np.ones(n_right - needed), 0].astype(bool)
        assert metrics.fpr95(-np.arange(len(right)), right) == 0.0
        right = np.r_[np.ones(needed - 1), 0, np.ones(n_right - needed + 1), 0].astype(bool)
        assert metrics.fpr95(-np.arange(len(right)), right) == 0.5


def test_six_tied_scores_do_not_depend_on_input_order():
    for correct in ([1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]):
        assert metrics.aurc([0.5] * 6, correct) == 0.5
    assert 1000 * metrics.aurc([0.5] * 6, [1, 1, 1, 0, 0, 0], "trustvlm") == pytest.approx(
        191.7, abs=0.05
    )
    assert 1000 * metrics.aurc([0.5] * 6, [0, 0, 0, 1, 1, 1], "trustvlm") == pytest.approx(
        808.3, abs=0.05
    )


def test_a_million_samples():
    rng = np.random.default_rng(0)
    n = 1_000_000
    for confidence in (rng.random(n), rng.integers(0, 1000, n)):
        correct = rng.random(n) < 0.3 + 0.5 * confidence / confidence.max()
        result = metrics.evaluate(confidence, correct)
        right = int(correct.sum())
        pairs = rankdata(confidence)[correct].sum() - right * (right + 1) / 2
        assert result.auroc == pytest.approx(pairs / (right * (n - right)), rel=1e-12)
        order = np.argsort(-confidence, kind="stable")
        block = np.r_[0, np.flatnonzero(np.diff(confidence[order])) + 1, n]
        errors = np.r_[0, np.cumsum(~correct[order])]
        k = np.arange(1, n + 1)
        expected = np.interp(k, block, errors[block])
        assert result.aurc == pytest.approx(math.fsum(expected / k) / n, rel=1e-13)
        assert result.augrc == pytest.approx(math.fsum(expected) / n**2, rel=1e-13)
        table = conventions.aurc(rank(confidence, correct).in_blocks, area_table(n))
        assert table == pytest.approx(result.aurc, rel=1e-10)


def test_counts_run_over_the_last_axis():
    rows = [([0.9, 0.5, 0.5, 0.1], [1, 0, 1, 0]), ([0.9, 0.5, 0.5, 0.1], [0, 0, 0, 0])]
    single = [rank(*row).in_blocks for row in rows]
    both = Counts(np.stack([c.accepted for c in single]), np.stack([c.right for c in single]))
    for name, values in evaluated(both, metrics.METRICS, area_table(4)).items():
        expected = [conventions.EXACT[name](counts) for counts in single]
        np.testing.assert_allclose(values, expected, atol=1e-15)


def test_every_metric_has_its_facts_its_function_and_its_formula():
    assert tuple(METRIC_INFO) == (*conventions.EXACT, "nll")
    assert set(conventions.EXACT) - set(metrics.METRICS) == {"eaugrc"}
    assert METRIC_INFO["nll"].unit == "nats"
    for name, info in METRIC_INFO.items():
        assert info.name == name
        assert callable(getattr(metrics, name))
        # A confidence that tells right from wrong is better than one that does the contrary.
        confidences = np.array([[4, 3, 2, 1], [1, 2, 3, 4]]) / 5
        good, bad = (getattr(metrics, name)(c, [1, 1, 0, 0]) for c in confidences)
        assert (good > bad) == info.higher_is_better or name == "accuracy"
