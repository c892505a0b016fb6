"""At least this coverage, at most this risk for each class, and the lowest cost."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustvlm.decisions import certify, certify_coverage, certify_per_class, cheapest
from trustvlm.exceptions import InputError
from trustvlm.risk_control.goals import Goal, rule_from_dict

DRAWS = 600


def rising(v):
    return 0.4 * v**1.5


def draw(rng, n=200, risk=rising):
    """Images at places v in (0, 1], the most trusted first."""
    v = rng.random(n)
    return -v, rng.random(n) >= risk(v)


def most_allowed(level):
    return stats.binom.ppf(0.9999, DRAWS, 1 - level)


@st.composite
def calibration_sets(draw):
    n = draw(st.integers(0, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    confidence = rng.random(n).round(draw(st.sampled_from([1, 9])))
    return confidence, rng.random(n) < confidence, rng.integers(0, 3, n)


def test_the_coverage_and_the_bound_of_the_risk_hold():
    rng = np.random.default_rng(0)
    too_little = too_risky = 0
    for _ in range(DRAWS):
        result = certify_coverage(*draw(rng), coverage=0.5, confidence_level=0.9)
        share = -result.threshold
        too_little += share < 0.5
        too_risky += 0.4 * share**1.5 / 2.5 > result.risk_bound
    # Both are exact: neither exceeded too often nor hardly ever.
    for exceeded in (too_little, too_risky):
        assert DRAWS * 0.1 / 4 < exceeded <= most_allowed(0.9)


@pytest.mark.parametrize(
    ("shares", "risks"),
    [([0.8, 0.2], [0, 1]), ([0.05] * 20, np.linspace(0.5, 0, 20))],
)
def test_the_bounds_of_other_goals_hold_for_few_values(shares, risks):
    rng = np.random.default_rng(3)
    reached = np.cumsum(shares)
    errors = np.cumsum(np.multiply(shares, risks))
    too_little = too_risky = too_dear = 0
    for _ in range(DRAWS):
        value = rng.choice(len(shares), size=100, p=shares)
        correct = rng.random(100) >= np.asarray(risks)[value]
        certificate = certify_coverage(-value, correct, coverage=0.75, confidence_level=0.9)
        last = np.searchsorted(np.arange(len(shares)), -certificate.threshold, side="right") - 1
        too_little += reached[last] < 0.75 - 1e-9
        too_risky += errors[last] / reached[last] > certificate.risk_bound
        cheap = cheapest(-value, correct, 5, 1, confidence_level=0.9)
        last = np.searchsorted(np.arange(len(shares)), -cheap.threshold, side="right") - 1
        cost = 5 * errors[last] + 1 - reached[last] if cheap.certified else 1
        too_dear += cost > cheap.cost_bound + 1e-9
    assert max(too_little, too_risky, too_dear) <= most_allowed(0.9)


def test_the_threshold_of_a_coverage_is_the_strictest_that_will_do():
    confidence = np.arange(300.0)
    result = certify_coverage(confidence, confidence > 40, coverage=0.7)
    k = result.accepted
    assert stats.binom.sf(k - 1, 300, 0.7) <= 0.05 < stats.binom.sf(k - 2, 300, 0.7)
    test = stats.binomtest(result.errors, k, alternative="less").proportion_ci(0.95, "exact")
    assert result.errors == 0
    assert result.risk_bound == pytest.approx(test.high)
    assert "at most 1.4 % of what is accepted is wrong" in result.statement()


@pytest.mark.parametrize("n", [0, 1, 13])
def test_too_few_images_for_a_coverage_say_how_many_more(n):
    result = certify_coverage(np.arange(n), np.ones(n), coverage=0.8)
    assert not result.certified
    # 0.8 ** 14 < 0.05: of 14 images all can stand for 80 %.
    assert result.n_needed == 14 - n
    assert f"you would need {14 - n} more" in result.statement()
    assert certify_coverage(np.arange(14), np.ones(14), coverage=0.8).certified


def test_ties_at_the_threshold_of_a_coverage_are_all_accepted():
    confidence = np.r_[np.ones(50), np.zeros(50)]
    correct = np.r_[np.ones(50, dtype=bool), np.zeros(50, dtype=bool)]
    result = certify_coverage(confidence, correct, coverage=0.6)
    assert result.threshold == 0
    assert result.accepted == 100
    assert result.risk_bound > 0.5


def test_each_class_keeps_the_risk_for_all_classes_at_once():
    rng = np.random.default_rng(1)
    bad = certified = 0
    for _ in range(DRAWS):
        prediction = rng.integers(0, 3, 450)
        v = rng.random(450)
        correct = rng.random(450) >= (1 + prediction) / 3 * rising(v)
        result = certify_per_class(-v, correct, prediction, 3, 0.1, 0.9)
        shares = np.array([-c.threshold for c in result.certificates])
        risks = (1 + np.arange(3)) / 3 * 0.4 * shares**1.5 / 2.5
        certified += np.isfinite(shares).sum()
        bad += bool((risks > 0.1).any())
    assert certified > DRAWS
    assert bad <= most_allowed(0.9)


@given(calibration_sets())
def test_certificates_of_classes_are_those_of_their_images(data):
    confidence, correct, prediction = data
    result = certify_per_class(confidence, correct, prediction, 4, 0.3, 0.8)
    level = 1 - 0.2 / max(1, len(np.unique(prediction)))
    for label in range(4):
        own = prediction == label
        assert result.certificates[label] == certify(confidence[own], correct[own], 0.3, level) or (
            not result.certificates[label].certified
        )
    alone = certify_per_class(confidence, correct, prediction, 4, 0.3, 0.8, simultaneous=False)
    for label in range(4):
        own = prediction == label
        assert alone.certificates[label] == certify(confidence[own], correct[own], 0.3, 0.8)
    accepted = confidence >= result.thresholds(prediction)
    assert result.accepted == accepted.sum()
    assert result.errors == (accepted & ~correct).sum()
    assert result.certified == bool(result.accepted)
    assert result.n == len(confidence)


@given(calibration_sets(), st.floats(0.1, 50), st.floats(0.1, 5))
def test_no_threshold_is_cheaper(data, cost_error, cost_review):
    confidence, correct, _ = data
    result = cheapest(confidence, correct, cost_error, cost_review)

    def cost(threshold):
        accepted = confidence >= threshold
        return cost_error * (accepted & ~correct).sum() + cost_review * (~accepted).sum()

    n = len(confidence)
    every = [cost(t) for t in [*confidence, math.inf]]
    assert result.cost * max(n, 1) == pytest.approx(min(every) if n else cost_review)
    assert result.cost_bound >= result.cost - 1e-9
    if n:
        assert result.accept_all == pytest.approx(cost(-math.inf) / n)
        assert result.cost * n == pytest.approx(cost(np.nan_to_num(result.threshold, nan=math.inf)))


def test_the_bound_of_the_cost_holds():
    rng = np.random.default_rng(2)
    exceeded = 0
    for _ in range(DRAWS):
        result = cheapest(*draw(rng), 10, 1, confidence_level=0.9)
        share = 0.0 if math.isnan(result.threshold) else -result.threshold
        exceeded += 10 * 0.4 * share**2.5 / 2.5 + 1 - share > result.cost_bound + 1e-9
    assert exceeded <= most_allowed(0.9)


def test_prices_decide_what_is_accepted():
    confidence, correct = draw(np.random.default_rng(3), 2000)
    shares = [cheapest(confidence, correct, price, 1).coverage for price in (1.5, 5, 20, 1000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.9
    assert shares[-1] < 0.2
    # Chow's rule: accept where 0.4 v ** 1.5 is below 1 / 5.
    assert shares[1] == pytest.approx(0.5 ** (1 / 1.5), abs=0.12)
    nothing = cheapest([0.5, 0.4], [False, False], 10, 1)
    assert math.isnan(nothing.threshold)
    assert "reviewing everything costs least" in nothing.statement()
    assert nothing.cost == nothing.cost_bound == 1


@given(calibration_sets())
def test_every_rule_survives_json_and_speaks(data):
    confidence, correct, prediction = data
    rules = (
        certify(confidence, correct, 0.2, 0.8),
        certify_coverage(confidence, correct, 0.5, 0.8),
        certify_per_class(confidence, correct, prediction, 3, 0.2, 0.8),
        cheapest(confidence, correct, 5, 1),
    )
    for rule in rules:
        again = rule_from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False)))
        assert type(again) is type(rule)
        assert again.to_dict() == rule.to_dict()
        np.testing.assert_array_equal(again.thresholds(prediction), rule.thresholds(prediction))
        assert rule.certified == (rule.coverage > 0)
        assert rule.statement().startswith("none: ") != rule.certified


def test_a_goal_finds_the_rule_of_its_function():
    confidence, correct = draw(np.random.default_rng(5), 300)
    prediction = np.arange(300) % 3
    arrays = confidence, correct
    goals = {
        Goal(0.1, 0.9): certify(*arrays, 0.1, 0.9),
        Goal(0.1, 0.9, per_class=True): certify_per_class(*arrays, prediction, 3, 0.1, 0.9),
        Goal(confidence_level=0.9, min_coverage=0.5): certify_coverage(*arrays, 0.5, 0.9),
        Goal(confidence_level=0.9, cost_error=9, cost_review=1): cheapest(*arrays, 9, 1, 0.9),
    }
    for goal, expected in goals.items():
        assert goal.check().rule(*arrays, prediction, 3).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cost_error": 5}, "both `cost_error` and `cost_review`"),
        ({"per_class": True, "min_coverage": 0.5}, "per_class and min_coverage: choose one"),
        ({"cost_error": -1, "cost_review": 1}, "`cost_error` to be a price"),
        ({"risk": 7}, "`risk`"),
    ],
)
def test_goals_that_make_no_sense_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        Goal(**settings).check()


def test_wrong_use_is_explained():
    with pytest.raises(InputError, match="`coverage` to lie between 0 and 1"):
        certify_coverage([0.5], [True], coverage=1)
    with pytest.raises(InputError, match="`cost_review` to be a price above 0"):
        cheapest([0.5], [True], 1, 0)
    with pytest.raises(InputError, match=r"`prediction` to lie in 0\.\.1"):
        certify_per_class([0.5], [True], [2], 2)
    with pytest.raises(InputError, match="`prediction` to have 1 entries"):
        certify_per_class([0.5], [True], [0, 1], 2)
    with pytest.raises(InputError, match="`prediction` to hold integers"):
        certify_per_class([0.5], [True], [0.5], 2)
    with pytest.raises(InputError, match="no rule of the kind 'luck'"):
        rule_from_dict({"kind": "luck"})


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ({}, {"threshold": "high"}),
        ({}, {"risk": [0.1]}),
        ({"per_class": True}, {"risk": "low"}),
        ({"guarantee": "expectation"}, {"n": "many"}),
        ({"guarantee": "expectation"}, {"wrong": ["a"]}),
        ({"guarantee": "expectation"}, {"wrong": [0.1, 0.9]}),
    ],
)
def test_a_stored_rule_with_damaged_numbers_is_refused(kind, change):
    confidence = np.linspace(1, 0, 200)
    rule = Goal(0.1, **kind).rule(confidence, confidence > 0.2, np.zeros(200, int), 1)
    stored = rule.to_dict()
    assert rule_from_dict(stored) == rule
    with pytest.raises((TypeError, ValueError)):
        rule_from_dict({**stored, **change})
