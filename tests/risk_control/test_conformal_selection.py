"""The expected share of wrong labels among those accepted, by simulation and by hand."""

import json
import math

import numpy as np
import pytest

from trustvlm.risk_control.conformal_selection import ConformalSelection, select_conformal
from trustvlm.risk_control.goals import rule_from_dict


def smooth(rng, n):
    v = rng.random(n)
    return v, rng.random(n) < 1 / (1 + np.exp(-(v - 0.3) / 0.08))


def constant(rng, n):
    return rng.random(n), rng.random(n) < 0.9


def tied(rng, n):
    v = np.round(rng.random(n), 1)
    return v, rng.random(n) < 0.5 + 0.5 * v


def head(rng, n):
    v = rng.random(n)
    return v, rng.random(n) < np.where(v > 0.8, 1.0, 0.6)


@pytest.mark.parametrize("population", [smooth, constant, tied, head])
@pytest.mark.parametrize(("n", "m", "risk"), [(50, 30, 0.1), (150, 200, 0.1), (100, 10, 0.2)])
def test_the_expected_share_of_errors_keeps_its_bound(population, n, m, risk):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(600):
        rule = select_conformal(*population(rng, n), risk)
        confidence, correct = population(rng, m)
        accepted = rule.accept(confidence)
        shares.append((accepted & ~correct).sum() / max(1, accepted.sum()))
    assert np.mean(shares) <= risk + 3 * np.std(shares) / np.sqrt(600)


@pytest.mark.parametrize("population", [smooth, constant, tied, head])
def test_the_threshold_for_single_images_keeps_its_bound(population):
    rng = np.random.default_rng(1)
    confidence, correct = population(rng, 100_000)
    risks = []
    for _ in range(300):
        threshold = select_conformal(*population(rng, 120), 0.15).threshold
        accepted = confidence >= threshold
        risks.append((accepted & ~correct).sum() / max(1, accepted.sum()))
    assert np.mean(risks) <= 0.15 + 3 * np.std(risks) / np.sqrt(300)


def by_the_book(confidence, wrong, n, risk, may=True):
    """Conformal p-values and Benjamini & Hochberg, written out."""
    p = np.array([(1 + (wrong >= s).sum()) / (n + 1) for s in confidence])
    p = np.where(may, p, 1.0)
    for k in range(len(p), 0, -1):
        if np.sort(p)[k - 1] <= risk * k / len(p):
            return p <= risk * k / len(p)
    return np.zeros(len(p), dtype=bool)


def test_it_is_benjamini_hochberg_on_conformal_p_values():
    rng = np.random.default_rng(2)
    for trial in range(200):
        population = (smooth, tied)[trial % 2]
        confidence, correct = population(rng, 40)
        batch, _ = population(rng, 25)
        rule = select_conformal(confidence, correct, 0.2)
        expected = by_the_book(batch, confidence[~correct], 40, 0.2)
        np.testing.assert_array_equal(rule.accept(batch), expected)


def test_images_that_may_not_be_accepted_count_in_both_sets_but_as_evidence_of_nothing():
    rng = np.random.default_rng(5)
    for trial in range(100):
        population = (smooth, tied)[trial % 2]
        (confidence, correct), (batch, _) = population(rng, 60), population(rng, 25)
        may, of_batch = rng.random(60) < 0.7, rng.random(25) < 0.7
        rule = select_conformal(confidence, correct, 0.3, eligible=may)
        expected = by_the_book(batch, confidence[~correct & may], 60, 0.3, of_batch)
        np.testing.assert_array_equal(rule.accept(batch, of_batch), expected)


def single_threshold_by_the_book(confidence, correct, may, risk):
    """Images trusted more than the most lenient threshold that the proof stops at, or none."""
    n, d = len(confidence), risk / 5
    e = np.sqrt(np.log(1 / d) / (2 * n))
    for t in np.unique(confidence[may]):
        above = may & (confidence > t)
        if 1 + (above & ~correct).sum() <= (risk - d) * (n + 1) * (above.sum() / n - e):
            return above
    return np.zeros(n, dtype=bool)


@pytest.mark.parametrize("risk", [0.1, 0.3])
def test_the_threshold_for_single_images_is_where_the_proof_stops(risk):
    rng = np.random.default_rng(6)
    accepted = 0
    for trial in range(200):
        confidence, correct = (smooth, constant, tied, head)[trial % 4](rng, 40 + trial)
        may = rng.random(40 + trial) < 0.9 if trial % 3 else np.ones(40 + trial, dtype=bool)
        rule = select_conformal(confidence, correct, risk, eligible=may)
        expected = single_threshold_by_the_book(confidence, correct, may, risk)
        np.testing.assert_array_equal((confidence >= rule.threshold) & may, expected)
        assert (rule.accepted, rule.errors) == (expected.sum(), (expected & ~correct).sum())
        accepted += expected.any()
    assert accepted >= 20


def test_the_threshold_for_single_images_keeps_its_bound_where_many_may_not_be_accepted():
    """Right ones may not be: what is left is wrong more often than all of them together."""
    rng = np.random.default_rng(7)
    risks = []
    for _ in range(2000):
        right = rng.random(150) < 0.8
        may = ~right | (rng.random(150) < 0.9)
        threshold = select_conformal(rng.random(150), right, 0.25, eligible=may).threshold
        risks.append(0.2 / (0.2 + 0.8 * 0.9) if threshold < 1 else 0.0)
    assert np.mean(risks) <= 0.25


def test_all_right_all_wrong_and_one_image():
    for n in (1, 2, 500):
        wrong = select_conformal(np.arange(float(n)), [False] * n, 0.2)
        assert math.isnan(wrong.threshold)
        assert not wrong.accept([n / 2]).any()
        assert wrong.accept([n + 1.0]).all() == (n == 500)
    right = select_conformal(np.arange(500.0), [True] * 500, 0.2)
    # The lowest confidence is no threshold, as nothing says that new ones reach it.
    assert right.accepted == 499
    assert right.accept([-1.0]).all()
    assert not select_conformal([0.5] * 500, [True] * 500, 0.2).accepted
    assert math.isnan(select_conformal([0.5], [True], 0.9).threshold)


@pytest.mark.parametrize("images", range(2, 400))
def test_one_right_image_less_than_the_risk_asks_for_is_too_few(images):
    """A risk of 1 / k takes k - 1 images, and says so, whatever 1 / k rounds to."""
    risk = 1 / images
    few = select_conformal([0.5] * (images - 2), [True] * (images - 2), risk)
    assert not few.certified
    assert "at least 1 more labelled" in few.statement()
    enough = select_conformal([0.5] * (images - 1), [True] * (images - 1), risk)
    assert enough.certified
    assert enough.accept([0.5, 0.1]).all()


def test_parts_of_a_batch_are_decided_as_the_whole_and_others_never_accepted():
    rng = np.random.default_rng(3)
    rule = select_conformal(*smooth(rng, 80), 0.1)
    batch, _ = smooth(rng, 60)
    eligible = rng.random(60) < 0.8
    counts = rule.counts(batch[:20], eligible[:20]) + rule.counts(batch[20:], eligible[20:])
    threshold = rule.batch_threshold(counts)
    np.testing.assert_array_equal((batch > threshold) & eligible, rule.accept(batch, eligible))
    assert not rule.accept(batch, np.zeros(60, dtype=bool)).any()


def test_few_images_and_no_errors():
    few = select_conformal([0.9] * 5, [True] * 5, 0.1)
    assert not few.certified
    assert not few.accept([0.95]).any()
    assert "at least 4 more" in few.statement()
    enough = select_conformal([0.9] * 9, [True] * 9, 0.1)
    assert enough.certified
    assert enough.accept([0.1, 0.99]).all()
    assert math.isnan(enough.threshold)
    assert "prove no threshold" in enough.statement()
    assert not select_conformal([], [], 0.1).certified


def test_it_is_stored_and_restored_as_json():
    rule = select_conformal(*smooth(np.random.default_rng(4), 300), 0.1)
    again = rule_from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False)))
    assert again == rule
    assert isinstance(again, ConformalSelection)
