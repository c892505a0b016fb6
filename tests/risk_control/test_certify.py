import collections
import functools
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustvlm.decisions import METHODS, certify
from trustvlm.exceptions import InputError
from trustvlm.metrics.intervals import proportion_lower_bound, risk_upper_bound
from trustvlm.risk_control.certify import Certificate, coverage_lower_bound
from trustvlm.risk_control.tests import (
    binomial_p_value,
    bonferroni,
    fewest_images,
    fixed_sequence,
    holm,
)


def slow_plan(n, risk, budget, first_share):
    """Ranks that are tested whatever ties, ranks tested only without a tie, and starts' shares."""

    images = np.arange(1000)

    @functools.cache
    def fewest(errors, level):
        passing = np.flatnonzero(stats.binom.cdf(errors, images, risk) <= level)
        return int(passing[0])

    @functools.cache
    def steps(level):
        return [fewest(m, level) for m in range(math.ceil(n * risk) + 9)]

    def last_within(images, level):
        return max([k for k in steps(level) if k <= images], default=steps(level)[0])

    first = last_within(first_share * n, budget)
    starts, saved = [], 0.0
    together = max(0.22, (1 - risk) ** (n // 10 - 2) / budget * (1 + 1e-9))
    if together <= 0.77:
        for share, part in ((1 / 32, 0.1), (1 / 16, 0.2), (1 / 10, 0.7)):
            saved += part * together
            if fewest(0, saved * budget) > share * n and share < 0.1:
                continue
            head = last_within(share * n, saved * budget)
            if head <= 0.85 * first:
                starts.append((head, saved))
                saved = 0.0
    main = 1 - sum(share for _, share in starts)
    starts.append((last_within(first_share * n, main * budget), main))
    if starts[-1][0] > n:
        return set(), set(), {}
    keys, dense = {n}, set()
    for i, (start, share) in enumerate(starts):
        last = i == len(starts) - 1
        level = budget * (share if last else sum(s for _, s in starts[: i + 1]))
        ladder = steps(level)
        limit = n if last else math.ceil(0.93 * starts[i + 1][0]) - 1
        k = start
        while k <= limit:
            keys.add(k)
            later = min(s for s in ladder if s > k)
            end = max((k + later) // 2, math.floor(later - n / 20)) if later <= n else n
            end = min(end, limit)
            dense.update(range(k, end + 1))
            apart = max(k if last else math.ceil(1.1 * k), math.ceil(k + n / 100), end + 1)
            k = min((s for s in ladder if s >= apart), default=n + 1)
    return keys, dense, dict(starts)


def slow_fixed_sequence(confidence, correct, risk, level, first_share=0.2):
    """The sequence written out: (threshold, accepted) of the last test that passes."""
    # Equal confidences: the wrong ones first.
    order = sorted(range(len(confidence)), key=lambda i: (-confidence[i], correct[i]))
    n = len(order)
    value = [confidence[i] for i in order]
    errors = [0]
    for i in order:
        errors.append(errors[-1] + (not correct[i]))
    keys, dense, starts = slow_plan(n, risk, 1 - level, first_share)

    def end(rank):
        return sum(v >= value[rank - 1] for v in value)

    brought = collections.defaultdict(float)
    for rank, share in starts.items():
        brought[end(rank)] += share
    available = 0.0
    certified = (math.nan, 0)
    for count in sorted({end(k) for k in keys} | {k for k in dense if end(k) == k}):
        available += brought[count]
        if stats.binom.cdf(errors[count], count, risk) <= (1 - level) * available * (1 + 1e-12):
            threshold = value[-1] if count == n else np.nextafter(value[count], math.inf)
            certified = (threshold, count)
        else:
            available = 0.0
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
    st.sampled_from([0.1, 0.2, 0.4]),
    st.sampled_from([0.8, 0.95]),
    st.sampled_from([0.01, 0.2, 0.5]),
)
def test_fixed_sequence_equals_the_slow_version(data, risk, level, share):
    confidence, correct = data
    result = certify(confidence, correct, risk, level, first_share=share)
    threshold, accepted = slow_fixed_sequence(confidence, correct, risk, level, share)
    assert result.accepted == accepted
    assert result.threshold == pytest.approx(threshold, nan_ok=True)


@given(calibration_sets(), st.sampled_from(sorted(METHODS)))
def test_the_certificate_describes_the_calibration_set(data, method):
    confidence, correct = data
    result = certify(confidence, correct, 0.2, 0.9, method=method)
    accepted = confidence >= result.threshold
    assert result.accepted == accepted.sum()
    assert result.errors == (accepted & ~correct).sum()
    assert result.n == len(confidence)
    assert result.certified == (result.accepted > 0)
    if result.certified:
        assert result.risk_bound == 0.2
        assert result.coverage == result.accepted / result.n
        assert 0 <= result.coverage_bound < result.coverage
        assert result.observed_risk <= 0.2
        assert result.n_needed == 0
    else:
        assert math.isnan(result.risk_bound)
        assert result.coverage == result.coverage_bound == 0
        assert result.n_needed > 0


@given(calibration_sets(), st.sampled_from(sorted(METHODS)), st.randoms())
def test_only_the_order_of_the_confidences_matters(data, method, shuffler):
    confidence, correct = data
    result = certify(confidence, correct, 0.2, 0.9, method=method)
    stretched = certify(np.exp(3 * confidence) - 7, correct, 0.2, 0.9, method=method)
    order = list(range(len(confidence)))
    shuffler.shuffle(order)
    shuffled = certify(confidence[order], correct[order], 0.2, 0.9, method=method)
    assert shuffled.threshold == pytest.approx(result.threshold, nan_ok=True)
    np.testing.assert_array_equal(
        np.exp(3 * confidence) - 7 >= stretched.threshold, confidence >= result.threshold
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
        result = certify(confidence, correct, method=method)
        assert math.isnan(result.threshold)
        assert result.n_needed > 0
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
    result = certify(confidence, correct, 0.2, 0.9, eligible=eligible)
    assert result.threshold == pytest.approx(among.threshold, nan_ok=True)
    assert (result.accepted, result.errors) == (among.accepted, among.errors)
    assert result.n == len(confidence)
    if result.certified:
        assert result.coverage == result.accepted / result.n
        assert result.coverage_bound == coverage_lower_bound(result.accepted, result.n, 0.9)
    elif eligible.any():
        assert result.n_needed == np.ceil(among.n_needed * result.n / among.n)


def test_the_coverage_bound_is_massarts():
    below = math.sqrt(math.log(20) / (2 * 400))
    assert coverage_lower_bound(300, 400) == pytest.approx(0.75 - below)
    assert coverage_lower_bound(1, 400) == 0
    # His constant holds from one half on.
    half = 0.75 - math.sqrt(math.log(2) / (2 * 400))
    assert coverage_lower_bound(300, 400, 0.5) == pytest.approx(half)
    assert coverage_lower_bound(300, 400, 0.1) == coverage_lower_bound(300, 400, 0.5)


def test_a_sequence_of_thresholds_needs_the_images_that_its_first_needs():
    confidence, right = np.linspace(1, 0, 30), np.ones(30, dtype=bool)
    alone = certify(confidence, right, 0.05, thresholds=[0.5])
    followed = certify(confidence, right, 0.05, thresholds=[0.5, 0.2])
    assert alone.n_needed == followed.n_needed > 0


def test_everything_is_accepted_where_everything_is_right():
    result = certify(range(500), [True] * 500, 0.01)
    assert result.threshold == 0
    assert result.coverage == 1
    assert result.errors == 0


def test_the_needed_images_are_enough_when_they_are_all_right():
    result = certify(range(40), [True] * 40, 0.05)
    assert not result.certified
    total = 40 + int(result.n_needed)
    assert certify(range(total), [True] * total, 0.05).certified


def test_tied_images_are_accepted_together_or_not_at_all():
    # Ninety right ones, then a tie of ten of which nine are wrong.
    confidence = np.r_[np.linspace(2, 1, 90), np.full(10, 0.5)]
    correct = np.r_[np.ones(91, dtype=bool), np.zeros(9, dtype=bool)]
    for order in (np.arange(100), np.arange(100)[::-1]):
        certificate = certify(confidence[order], correct[order], 0.05)
        assert certificate.threshold > 0.5
        assert 80 <= certificate.accepted <= 90


@pytest.mark.parametrize(("n", "right"), [(336, 33), (1000, 101)])
def test_a_tenth_that_is_right_is_certified(n, right):
    certificate = certify(-np.arange(n), np.arange(n) < right, 0.1)
    assert certificate.certified
    assert certificate.errors <= 0.1 * certificate.accepted


@pytest.mark.parametrize(("n", "share"), [(336, 0.65), (500, 0.85), (1000, 0.99)])
def test_a_population_whose_best_tenth_is_right_is_mostly_certified(n, share):
    rng = np.random.default_rng(n)
    place = rng.random((400, n))
    certified = np.mean([certify(-v, v < 0.1, 0.1).certified for v in place])
    assert certified >= share - 2 * math.sqrt(share * (1 - share) / 400)


def test_a_head_that_fails_leaves_the_rest_of_the_budget():
    """A wrong image at the very top; then all are right."""
    certificate = certify(-np.arange(500), np.arange(500) > 0, 0.1)
    assert certificate.coverage == 1


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


def test_a_sequence_falls_back_to_the_share_of_the_next_start():
    def passes(p, shares):
        return fixed_sequence(p, 0.1, shares).tolist()

    shares = [0.5, 0, 0.5, 0]
    # At 0.05, and with the second start at 0.1 altogether.
    assert passes([0.05, 0.05, 0.1, 0.1], shares) == [True] * 4
    # After a failure the second start has its own share alone.
    assert passes([0.05, 0.06, 0.05, 0.06], shares) == [True, False, True, False]
    assert passes([0.06, 0.01, 0.06, 0.01], shares) == [False] * 4
    # Shares that add up to one but for rounding give all of the level.
    assert passes([0.01, 0.1], [0.7, 0.1 + 0.2 - 1e-16]) == [True, True]


def test_none_says_the_fewest_images_that_could_do():
    few = certify([0.9] * 20, [True] * 20, risk=0.05)
    assert "more labelled images (at least 39, if all are right)" in few.statement()
    enough = certify(range(39 + 20), [True] * 59, risk=0.05)
    assert enough.certified
    many_wrong = certify(range(100), [i % 9 > 0 for i in range(100)], risk=0.05)
    assert "at least" not in many_wrong.statement()


def test_certificates_with_undefined_values_are_equal_if_the_others_are():
    none = Certificate.none(10, 59.0, 0.05, 0.95, "learn_then_test")
    undefined = ("threshold", "risk_bound", "wanted_coverage")
    again = Certificate(**asdict(none) | {name: float("nan") for name in undefined})
    assert none == again
    assert hash(none) == hash(again)
    assert none != replace(none, n=11)
    assert none != "none"
