import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustvlm.decisions import METHODS, certify
from trustvlm.exceptions import InputError
from trustvlm.risk_control.tests import (
    binomial_p_value,
    bonferroni,
    fewest_images,
    fixed_sequence,
    holm,
    proportion_lower_bound,
    risk_upper_bound,
)


def slow_fixed_sequence(confidence, correct, risk, level, first_share=0.2):
    """The sequence written out: (threshold, accepted) of the last test that passes."""

    def passes(errors, count):
        return stats.binom.cdf(errors, count, risk) <= 1 - level

    # Equal confidences: the wrong ones first.
    order = sorted(range(len(confidence)), key=lambda i: (-confidence[i], correct[i]))
    n = len(order)
    value = [confidence[i] for i in order]
    errors = [0]
    for i in order:
        errors.append(errors[-1] + (not correct[i]))
    steps, m = [], 0
    for count in range(1, n + 1):
        if passes(m, count):
            steps.append(count)
            m += 1
    if not steps:
        return math.nan, 0
    first = max([k for k in steps if k <= first_share * n], default=steps[0])
    ranks, k = [first], first
    while k < n:
        end = min([s for s in steps if s >= k + n / 40 and s < n], default=n)
        parts = max(1, round((end - k) / (n / 20)))
        ranks += [k + math.floor((end - k) * part / parts + 1e-9) for part in range(1, parts + 1)]
        k = end

    def allowed(count):
        return max(m for m in range(-1, count + 1) if m < 0 or passes(m, count))

    tests = set()
    for rank in ranks:
        above = sum(v > value[rank - 1] for v in value)
        end = sum(v >= value[rank - 1] for v in value)
        tests.add(end)
        if end > rank and above >= first and allowed(above) == allowed(rank):
            tests.add(above)
    certified = (math.nan, 0)
    for count in sorted(tests):
        if not passes(errors[count], count):
            break
        threshold = value[-1] if count == n else np.nextafter(value[count], math.inf)
        certified = (threshold, count)
    return certified


@st.composite
def calibration_sets(draw):
    n = draw(st.integers(0, 120))
    wrong_at = draw(st.floats(0, 1))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    confidence = rng.random(n).round(draw(st.sampled_from([1, 2, 9])))
    return confidence, rng.random(n) < np.clip(confidence + wrong_at, 0, 1)


@settings(max_examples=60)
@given(
    calibration_sets(),
    st.sampled_from([0.05, 0.1, 0.3]),
    st.sampled_from([0.8, 0.95]),
    st.sampled_from([0.01, 0.2, 0.5]),
)
def test_fixed_sequence_equals_the_slow_version(data, risk, level, share):
    confidence, correct = data
    found = certify(confidence, correct, risk, level, first_share=share)
    threshold, accepted = slow_fixed_sequence(confidence, correct, risk, level, share)
    assert found.accepted == accepted
    assert found.threshold == pytest.approx(threshold, nan_ok=True)


@given(calibration_sets(), st.sampled_from(sorted(METHODS)))
def test_the_certificate_describes_the_calibration_set(data, method):
    confidence, correct = data
    found = certify(confidence, correct, 0.2, 0.9, method=method)
    accepted = confidence >= found.threshold
    assert found.accepted == accepted.sum()
    assert found.errors == (accepted & ~correct).sum()
    assert found.n == len(confidence)
    assert found.certified == (found.accepted > 0)
    if found.certified:
        assert found.risk_bound == 0.2
        assert found.coverage == found.accepted / found.n
        assert 0 <= found.coverage_bound < found.coverage
        assert found.observed_risk <= 0.2
        assert found.n_needed == 0
    else:
        assert math.isnan(found.risk_bound)
        assert found.coverage == found.coverage_bound == 0
        assert found.n_needed > 0


@given(calibration_sets(), st.sampled_from(sorted(METHODS)), st.randoms())
def test_only_the_order_of_the_confidences_matters(data, method, shuffler):
    confidence, correct = data
    found = certify(confidence, correct, 0.2, 0.9, method=method)
    stretched = certify(np.exp(3 * confidence) - 7, correct, 0.2, 0.9, method=method)
    order = list(range(len(confidence)))
    shuffler.shuffle(order)
    shuffled = certify(confidence[order], correct[order], 0.2, 0.9, method=method)
    assert shuffled.threshold == pytest.approx(found.threshold, nan_ok=True)
    np.testing.assert_array_equal(
        np.exp(3 * confidence) - 7 >= stretched.threshold, confidence >= found.threshold
    )


@given(calibration_sets())
def test_holm_accepts_at_least_as_much_as_bonferroni(data):
    confidence, correct = data
    cuts = np.unique(np.r_[confidence, 0.5])[::-1]
    accepted = {
        m: certify(confidence, correct, 0.2, 0.9, method=m, thresholds=cuts).accepted
        for m in METHODS
    }
    assert accepted["bonferroni"] <= accepted["learn_then_test"]


@pytest.mark.parametrize("method", METHODS)
def test_stated_answers_of_the_edges(method):
    for confidence, correct in (([], []), ([0.5], [True]), ([0.5] * 500, [False] * 500)):
        found = certify(confidence, correct, method=method)
        assert math.isnan(found.threshold)
        assert found.n_needed > 0
    assert certify([0.5] * 500, [False] * 500, method=method).n_needed == math.inf
    # A single confidence for all images: everything or nothing.
    tied = certify([0.5] * 100, [True] * 100, method=method)
    assert (tied.threshold, tied.accepted) == (0.5, 100)
    assert not certify([0.5] * 100, [True] * 90 + [False] * 10, method=method).certified


@given(calibration_sets(), st.integers(0, 2**32 - 1))
def test_images_that_are_never_accepted_only_lower_the_coverage(data, seed):
    confidence, correct = data
    eligible = np.random.default_rng(seed).random(len(confidence)) < 0.7
    among = certify(confidence[eligible], correct[eligible], 0.2, 0.9)
    found = certify(confidence, correct, 0.2, 0.9, eligible=eligible)
    assert found.threshold == pytest.approx(among.threshold, nan_ok=True)
    assert (found.accepted, found.errors) == (among.accepted, among.errors)
    assert found.n == len(confidence)
    assert found.n_needed >= among.n_needed
    if found.certified:
        assert found.coverage == found.accepted / found.n


def test_everything_is_accepted_where_everything_is_right():
    found = certify(range(500), [True] * 500, 0.01)
    assert found.threshold == 0
    assert found.coverage == 1
    assert found.errors == 0


def test_the_needed_images_are_enough_when_they_are_all_right():
    found = certify(range(40), [True] * 40, 0.05)
    assert not found.certified
    total = 40 + int(found.n_needed)
    assert certify(range(total), [True] * total, 0.05).certified


def test_tied_images_are_accepted_together_or_not_at_all():
    # Ninety right ones, then a tie of ten of which nine are wrong.
    confidence = np.r_[np.linspace(2, 1, 90), np.full(10, 0.5)]
    correct = np.r_[np.ones(91, dtype=bool), np.zeros(9, dtype=bool)]
    for order in (np.arange(100), np.arange(100)[::-1]):
        certificate = certify(confidence[order], correct[order], 0.05)
        assert certificate.threshold > 0.5
        assert 80 <= certificate.accepted <= 90


def test_few_wrong_ones_in_a_large_tie_do_not_stop_it():
    """Every rank within the tie would be too many tests, and the wrong ones first too harsh."""
    rng = np.random.default_rng(0)
    certified = 0
    for _ in range(200):
        tied = rng.random(400) < 0.6
        confidence = np.where(tied, 1.0, rng.random(400))
        certified += certify(confidence, rng.random(400) >= np.where(tied, 0.01, 0.5)).certified
    assert certified >= 190


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_a_threshold_accepts_the_same_images_in_every_type_and_when_it_is_read_again(kind, method):
    rng = np.random.default_rng(1)
    confidence = (1000 * rng.random(300) - 200).astype(kind)
    correct = rng.random(300) < np.where(confidence > 100, 1, 0.5)
    certificate = certify(confidence, correct, 0.1, 0.9, method=method)
    assert 0 < certificate.accepted < 300
    text = certificate.statement().removeprefix("accept at confidence >= ").partition(";")[0]
    for threshold in (certificate.threshold, float(text), kind(certificate.threshold)):
        if kind == np.int64 and not isinstance(threshold, float):
            continue
        assert np.count_nonzero(confidence >= threshold) == certificate.accepted
    next_one = np.sort(confidence)[::-1][certificate.accepted]
    assert next_one < certificate.threshold
    assert certificate.threshold == pytest.approx(next_one, rel=1e-3)


def test_integers_that_are_equal_as_floats_are_tied():
    confidence = np.array([2**53 + 1] * 50 + [2**53] * 50)
    certificate = certify(confidence, [True] * 50 + [False] * 50, 0.1, 0.9)
    assert not certificate.certified


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"risk": 0}, "`risk` to lie between 0 and 1"),
        ({"risk": 5}, "write 5 percent as 0.05"),
        ({"risk": "much"}, "`risk`"),
        ({"confidence_level": 1.0}, "`confidence_level`"),
        ({"method": "hoeffding_bentkus"}, "use fixed_sequence"),
        ({"method": "bonferoni"}, "did you mean bonferroni"),
        ({"first_share": 0}, "`first_share`"),
        ({"method": "bonferroni", "levels": 0}, "`levels` to be at least 1"),
        ({"thresholds": []}, "`thresholds`"),
        ({"eligible": [1, 0]}, "`eligible` to be 2 booleans"),
        ({"thresholds": [0.5, math.nan]}, "`thresholds`"),
    ],
)
def test_wrong_settings_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        certify([0.5, 0.6], [True, False], **settings)


def test_wrong_arrays_are_explained():
    with pytest.raises(InputError, match="`confidence` to be finite"):
        certify([0.5, math.nan], [True, False])
    with pytest.raises(InputError, match="`correct` to have shape"):
        certify([0.5, 0.6], [True])


def test_binomial_p_value_and_bounds_equal_scipys():
    rng = np.random.default_rng(0)
    accepted = rng.integers(1, 5000, 300)
    errors = (accepted * rng.random(300)).astype(int)
    for risk in (0.01, 0.2, 0.7):
        np.testing.assert_allclose(
            binomial_p_value(errors, accepted, risk),
            stats.binom.cdf(errors, accepted, risk),
            atol=1e-12,
        )
    for k, m in zip(errors[:40].tolist(), accepted[:40].tolist(), strict=True):
        test = stats.binomtest(k, m, alternative="less").proportion_ci(0.95, "exact")
        assert risk_upper_bound(k, m) == pytest.approx(test.high, abs=1e-9)
        test = stats.binomtest(k, m, alternative="greater").proportion_ci(0.95, "exact")
        assert proportion_lower_bound(k, m) == pytest.approx(test.low, abs=1e-9)


@pytest.mark.parametrize("risk", [0.5, 0.05, 0.01, 1e-4])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_fewest_images_are_just_enough(risk, level):
    m = fewest_images(risk, level)
    assert binomial_p_value(0, m, risk) <= 1 - level + 1e-9
    assert m == 1 or binomial_p_value(0, m - 1, risk) > 1 - level


def test_procedures_on_hand_made_p_values():
    p = [0.001, 0.02, 0.3, 0.001]
    assert fixed_sequence(p, 0.05).tolist() == [True, True, False, False]
    assert bonferroni(p, 0.05).tolist() == [True, False, False, True]
    # Sorted: 0.001 * 4, 0.001 * 3, 0.02 * 2, 0.3 * 1.
    assert holm(p, 0.05).tolist() == [True, True, False, True]
    for procedure in (fixed_sequence, bonferroni, holm):
        assert procedure([], 0.05).size == 0
