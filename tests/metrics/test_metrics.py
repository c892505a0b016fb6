import itertools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from trustvlm import metrics
from trustvlm.exceptions import InputError, UndefinedMetricWarning

# What the released script printed for eight small cases; numbers are facts.
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
GOLDEN_KEYS = {
    "aurc_x1000": ("aurc", 1000),
    "eaurc_x1000": ("eaurc", 1000),
    "augrc_discrete_x1000": ("augrc", 1000),
    "auroc": ("auroc", 1),
    "fpr95_argmin": ("fpr95", 1),
    "aupr_success": ("aupr_success", 1),
    "aupr_error": ("aupr_error", 1),
}
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


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_convention_trustvlm_equals_the_released_script(case):
    found = metrics.evaluate(case["score"], case["correct"], convention="trustvlm")
    for key, (name, unit) in GOLDEN_KEYS.items():
        expected, value = case["official"][key], getattr(found, name) * unit
        if expected is None:
            assert math.isnan(value), name
        else:
            assert value == pytest.approx(expected, abs=1e-9), name


def slow_risks(order, correct):
    wrong = [not correct[i] for i in order]
    return [sum(wrong[: k + 1]) / (k + 1) for k in range(len(wrong))]


def slow_expected(confidence, correct):
    """AURC and AUGRC averaged over every order that sorts the confidences."""
    n = len(confidence)
    orders = [
        order
        for order in itertools.permutations(range(n))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order))
    ]
    risks = np.array([slow_risks(order, correct) for order in orders])
    return risks.mean(), (risks * np.arange(1, n + 1) / n).mean()


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_exact_is_the_mean_over_all_orders_of_ties(samples):
    confidence, correct = zip(*samples, strict=True)
    aurc, augrc = slow_expected(confidence, correct)
    assert metrics.aurc(confidence, correct) == pytest.approx(aurc, abs=1e-12)
    assert metrics.augrc(confidence, correct) == pytest.approx(augrc, abs=1e-12)


@given(cases)
def test_curves_equal_scikit_learn(case):
    confidence, correct = map(np.asarray, case)
    assume(0 < correct.sum() < len(correct))
    found = metrics.evaluate(confidence, correct)
    assert found.auroc == pytest.approx(roc_auc_score(correct, confidence), abs=1e-12)
    precision, recall, _ = precision_recall_curve(correct, confidence)
    assert found.aupr_success == pytest.approx(auc(recall, precision), abs=1e-12)
    expected = average_precision_score(~correct, -confidence)
    assert found.aupr_error == pytest.approx(expected, abs=1e-12)
    fpr, tpr, _ = sklearn_roc(correct, confidence, drop_intermediate=False)
    assert found.fpr95 == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-12)
    fpr, tpr, _ = sklearn_roc(correct, confidence)
    nearest = fpr[np.argmin(np.abs(tpr - 0.95))]
    assert metrics.fpr95(confidence, correct, "trustvlm") == pytest.approx(nearest, abs=1e-12)


@given(cases)
def test_every_metric_alone_equals_all_at_once(case):
    for convention in metrics.CONVENTIONS:
        found = metrics.evaluate(*case, convention=convention)
        for name in metrics.METRICS:
            alone = getattr(metrics, name)(*case, convention=convention)
            np.testing.assert_equal(alone, getattr(found, name))


@given(cases, st.randoms(use_true_random=False))
def test_exact_does_not_depend_on_input_order(case, random):
    order = list(range(len(case[0])))
    random.shuffle(order)
    shuffled = [np.asarray(part)[order] for part in case]
    for name in metrics.METRICS:
        a, b = getattr(metrics, name)(*case), getattr(metrics, name)(*shuffled)
        np.testing.assert_allclose(a, b, atol=1e-12)


@given(cases)
def test_monotone_transforms_change_nothing(case):
    confidence, correct = np.asarray(case[0], dtype=float), case[1]
    for transformed in (np.exp(confidence), 3 * confidence - 7, confidence**3):
        for convention in metrics.CONVENTIONS:
            a = metrics.evaluate(confidence, correct, convention).to_dict()
            b = metrics.evaluate(transformed, correct, convention).to_dict()
            np.testing.assert_equal(a, b)


@given(cases)
def test_bounds_and_the_best_ranking(case):
    confidence, correct = map(np.asarray, case)
    found = metrics.evaluate(confidence, correct)
    for name in ("aurc", "augrc", "accuracy"):
        assert 0 <= getattr(found, name) <= 1
    perfect = metrics.evaluate(correct.astype(float), correct)
    # Ordering right before wrong, ties included, is the best that any confidence can do.
    assert found.aurc >= perfect.aurc - 1e-12
    assert found.augrc >= perfect.augrc - 1e-12


@given(cases)
def test_augrc_follows_from_auroc(case):
    """AUGRC = (1 - AUROC) a (1 - a) + R^2/2 + R/(2n), exactly, ties included."""
    confidence, correct = map(np.asarray, case)
    assume(0 < correct.sum() < len(correct))
    found = metrics.evaluate(confidence, correct)
    a, n = found.accuracy, len(correct)
    expected = (1 - found.auroc) * a * (1 - a) + (1 - a) ** 2 / 2 + (1 - a) / (2 * n)
    assert found.augrc == pytest.approx(expected, abs=1e-12)


def test_six_tied_scores_do_not_depend_on_input_order():
    for correct in ([1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]):
        assert metrics.aurc([0.5] * 6, correct) == pytest.approx(0.5)
    assert 1000 * metrics.aurc([0.5] * 6, [1, 1, 1, 0, 0, 0], "trustvlm") == pytest.approx(
        191.66666666666666
    )
    assert 1000 * metrics.aurc([0.5] * 6, [0, 0, 0, 1, 1, 1], "trustvlm") == pytest.approx(
        808.3333333333334
    )


def test_one_sample():
    right, wrong = metrics.evaluate([0.3], [1]), metrics.evaluate([0.3], [0])
    assert (right.aurc, right.accuracy, right.aupr_success) == (0.0, 1.0, 1.0)
    assert (wrong.aurc, wrong.accuracy, wrong.aupr_error) == (1.0, 0.0, 1.0)
    assert math.isnan(right.auroc)
    assert math.isnan(wrong.auroc)


@pytest.mark.parametrize(
    ("confidence", "correct", "names"),
    [
        ([], [], metrics.METRICS),
        ([0.1, 0.2], [1, 1], ("auroc", "fpr95", "aupr_error")),
        ([0.1, 0.2], [0, 0], ("auroc", "fpr95", "aupr_success")),
    ],
)
def test_undefined_metrics_are_nan_with_a_warning(confidence, correct, names):
    for name in metrics.METRICS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = getattr(metrics, name)(confidence, correct)
        assert math.isnan(value) == (name in names), name
        assert [w.category for w in caught] == [UndefinedMetricWarning] * (name in names)


def test_all_wrong_has_no_excess():
    assert metrics.eaurc([0.1, 0.2], [0, 0]) == 0.0
    assert math.isnan(metrics.eaurc([0.1, 0.2], [0, 0], "trustvlm"))


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.1, math.nan], [1, 0], "1 of 2 values are NaN or infinite, the first at index 1"),
        ([math.inf], [1], "first at index 0"),
        ([0.1, 0.2], [1], r"shape \(2,\) like `confidence`, but got \(1,\)"),
        ([[0.1]], [1], r"shape \(1, 1\)"),
        ([0.1], [2], "index 0 is"),
        ([0.1], [math.nan], "booleans or 0 and 1"),
        (["a"], [1], "real numbers"),
    ],
)
def test_bad_input_is_explained(confidence, correct, message):
    with pytest.raises(InputError, match=message):
        metrics.evaluate(confidence, correct)


def test_unknown_convention():
    with pytest.raises(InputError, match="exact or trustvlm"):
        metrics.aurc([0.1], [1], convention="other")


def test_narrow_and_wide_numbers_keep_their_order():
    big = np.array([2**53, 2**53 + 1], dtype=np.int64)
    assert metrics.auroc(big, [0, 1]) == 1.0
    near = np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], dtype=np.float32)
    assert metrics.auroc(near, [0, 1]) == 1.0
    assert metrics.auroc(np.array([1, 2], dtype=np.float16), [0.0, 1.0]) == 1.0


def test_risk_coverage_curve_has_only_reachable_points():
    curve = metrics.risk_coverage([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 1 / 3, 0.5])
    np.testing.assert_allclose(curve.thresholds, [0.9, 0.5, 0.1])
    assert curve.risk_at(0.25) == 0
    assert curve.risk_at(0.26) == pytest.approx(1 / 3)
    assert curve.coverage_at(0.4) == 0.75
    assert curve.coverage_at(0.0) == 0.25
    assert metrics.risk_coverage([0.9], [0]).coverage_at(0.1) == 0
    with pytest.raises(InputError, match="coverage"):
        curve.risk_at(0)
    assert math.isnan(metrics.risk_coverage([], []).risk_at(0.5))


@given(cases)
def test_thresholds_accept_what_the_curve_says(case):
    confidence, correct = map(np.asarray, case)
    curve = metrics.risk_coverage(confidence, correct)
    for threshold, coverage, risk in zip(curve.thresholds, curve.coverage, curve.risk, strict=True):
        accepted = confidence >= threshold
        assert coverage == pytest.approx(accepted.mean())
        assert risk == pytest.approx(1 - correct[accepted].mean())
