import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from trustvlm import metrics
from trustvlm.exceptions import InputError


def slow_bins(p, correct, bins):
    """Members of each bin: the images with one probability go where the middle one goes."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    parts = {}
    for i in range(len(p)):
        places = [k for k, j in enumerate(order) if p[j] == p[i]]
        middle = (places[0] + places[-1] + 1) / 2
        parts.setdefault(min(int(bins * middle / len(p)), bins - 1), []).append(i)
    return [parts[k] for k in sorted(parts)]


@st.composite
def judged(draw):
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.random(n).round(draw(st.sampled_from([1, 9])))
    return p, rng.random(n) < p


@given(judged(), st.integers(1, 20))
def test_errors_equal_the_slow_versions(data, bins):
    p, correct = data
    members = slow_bins(p.tolist(), correct, bins)
    gaps = [abs(correct[m].mean() - p[m].mean()) for m in members]
    assert metrics.ece(p, correct, bins) == pytest.approx(
        sum(len(m) * g for m, g in zip(members, gaps, strict=True)) / len(p)
    )
    spread = [math.sqrt(sum(p[m] * (1 - p[m]))) / len(m) for m in members]
    expected = sum(
        len(m) * s * math.sqrt(2 / math.pi) for m, s in zip(members, spread, strict=True)
    )
    assert metrics.ece_if_calibrated(p, bins) == pytest.approx(expected / len(p), abs=1e-12)
    several = [(len(m), correct[m].mean(), g) for m, g in zip(members, gaps, strict=True)]
    several = [(n, y, g) for n, y, g in several if n > 1]
    if several:
        total = sum(n * (g**2 - y * (1 - y) / (n - 1)) for n, y, g in several)
        squared = max(0.0, total / sum(n for n, *_ in several))
        assert metrics.rms_calibration_error(p, correct, bins) == pytest.approx(
            math.sqrt(squared), abs=1e-7
        )
    else:
        assert math.isnan(metrics.rms_calibration_error(p, correct, bins))


@settings(max_examples=20)
@given(judged(), st.integers(1, 8))
def test_the_debiased_error_equals_that_by_resampling(data, bins):
    p, correct = data
    members = slow_bins(p.tolist(), correct, bins)
    rng = np.random.default_rng(0)
    again = 0.0
    for m in members:
        y = correct[m].mean()
        drawn = rng.normal(y, math.sqrt(y * (1 - y) / len(m)), 20_000)
        again += len(m) * np.abs(drawn - p[m].mean()).mean() / len(p)
    plain = metrics.ece(p, correct, bins)
    assert metrics.ece_debiased(p, correct, bins) == pytest.approx(2 * plain - again, abs=0.02)


@given(judged())
def test_the_sweep_stops_before_the_first_disorder(data):
    p, correct = data
    bins = 1
    while bins < len(p):
        shares = [correct[m].mean() for m in slow_bins(p.tolist(), correct, bins + 1)]
        if any(b < a for a, b in pairwise(shares)):
            break
        bins += 1
    assert metrics.ece_sweep(p, correct) == pytest.approx(metrics.ece(p, correct, bins))


def nearly_in_order(n, wrong, seed=0):
    """Probabilities of n images, all right but the ones at these ranks."""
    p = np.random.default_rng(seed).permutation(n) / n
    return p, ~np.isin((p * n).round(), wrong)


@pytest.mark.parametrize(
    ("wrong", "bins"), [([], 60_000), ([0], 60_000), ([1], 40_000), ([9], 6315)]
)
def test_the_sweep_takes_no_long_time_where_nearly_all_are_right(wrong, bins):
    """One wrong image at rank r shows as soon as the first bin ends below it."""
    p, correct = nearly_in_order(60_000, wrong)
    # How NumPy adds up, to the last digit, is a matter of its version.
    assert metrics.ece_sweep(p, correct) == pytest.approx(metrics.ece(p, correct, bins), rel=1e-14)
    few, right = nearly_in_order(600, wrong)
    shares = [metrics.reliability(few, right, b).right for b in range(1, 601)]
    ordered = [bool((np.diff(share) >= 0).all()) for share in shares]
    last = ordered.index(False) if False in ordered else 600
    assert metrics.ece_sweep(few, right) == pytest.approx(metrics.ece(few, right, last), rel=1e-14)


@given(judged(), st.sampled_from([1, 2, 15, 64, 65, 200]))
def test_bins_are_those_of_middle_ranks(data, bins):
    p, correct = data
    members = slow_bins(p.tolist(), correct, bins)
    binned = metrics.reliability(p, correct, bins)
    assert binned.images.tolist() == [len(m) for m in members]
    assert binned.right.tolist() == [correct[m].mean() for m in members]


@given(judged())
def test_the_log_loss_is_scikit_learns(data):
    p, correct = data
    weight = np.arange(len(p)) % 3 + (len(p) < 3)
    for weights in (None, weight, 1e-300 * weight):
        expected = log_loss(correct, p, labels=[False, True], sample_weight=weights)
        assert metrics.nll(p, correct, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
    total = sum(-math.log(q if y else 1 - q) for q, y in zip(p, correct, strict=True) if 0 < q < 1)
    certain = sum(y != q for q, y in zip(p, correct, strict=True) if q in (0, 1))
    assert metrics.nll(p, correct) * len(p) == pytest.approx(total + 36.0437 * certain, abs=1e-3)


def test_the_log_loss_of_nothing_and_of_certainty():
    assert math.isnan(metrics.nll([], []))
    assert math.isnan(metrics.nll([0.5], [1], sample_weight=[0]))
    assert metrics.nll([1.0, 0.0], [1, 0]) == pytest.approx(0, abs=1e-15)
    assert metrics.nll([0.0], [1]) == -math.log(np.finfo(float).eps)
    assert metrics.nll([0.3], [1], sample_weight=[1e308]) == pytest.approx(-math.log(0.3))
    for bad in ([-1, 1], [1], [math.nan, 1]):
        with pytest.raises(InputError, match="`sample_weight`"):
            metrics.nll([0.5, 0.5], [1, 1], sample_weight=bad)


@given(judged())
def test_the_brier_score_is_scikit_learns(data):
    p, correct = data
    assert metrics.brier(p, correct) == pytest.approx(
        brier_score_loss(correct, p, pos_label=True), abs=1e-12
    )


@given(judged(), st.randoms())
def test_the_order_of_images_does_not_matter(data, shuffler):
    p, correct = data
    order = list(range(len(p)))
    shuffler.shuffle(order)
    for measure in (
        metrics.ece,
        metrics.ece_debiased,
        metrics.ece_sweep,
        metrics.rms_calibration_error,
    ):
        assert measure(p[order], correct[order]) == pytest.approx(
            measure(p, correct), abs=1e-12, nan_ok=True
        )


def test_the_stated_bias_is_the_bias():
    """Of perfect probabilities: what the plain ECE shows, and what the debiased error leaves."""
    rng = np.random.default_rng(0)
    p = rng.random(300)
    plain, debiased = [], []
    for _ in range(400):
        correct = rng.random(300) < p
        plain.append(metrics.ece(p, correct))
        result = metrics.reliability(p, correct)
        squared = (result.right - result.probability) ** 2
        squared -= result.right * (1 - result.right) / (result.images - 1)
        debiased.append(np.average(squared, weights=result.images))
    assert np.mean(plain) == pytest.approx(metrics.ece_if_calibrated(p), rel=0.05)
    assert abs(np.mean(debiased)) < 3 * np.std(debiased) / 20


def test_a_constant_that_is_right_on_average_has_no_error():
    result = metrics.reliability([0.25] * 8, [1, 0, 0, 0, 1, 0, 0, 0])
    assert result.images.tolist() == [8]
    assert metrics.ece([0.25] * 8, [1, 0, 0, 0, 1, 0, 0, 0]) == 0


def test_nothing_gives_nan_and_wrong_input_is_explained():
    for measure in (
        metrics.brier,
        metrics.nll,
        metrics.ece,
        metrics.ece_sweep,
        metrics.rms_calibration_error,
    ):
        assert math.isnan(measure([], []))
        with pytest.raises(InputError, match=r"`probability` to lie in \[0, 1\], but 1 of 2"):
            measure([0.5, 1.5], [True, False])
        with pytest.raises(InputError, match="like `probability`"):
            measure([0.5, 0.5], [True])
    assert math.isnan(metrics.ece_if_calibrated([]))
    with pytest.raises(InputError, match="`bins`"):
        metrics.ece([0.5], [True], bins=0)
