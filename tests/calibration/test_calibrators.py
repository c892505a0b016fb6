import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from trustvlm.calibration import calibrators
from trustvlm.decisions import (
    CALIBRATORS,
    DEFAULT_CALIBRATOR,
    Calibrator,
    LogisticPrior,
    cross_fitted,
)
from trustvlm.exceptions import InputError

PLACES = np.linspace(-1, 2, 61)


def sample(seed, n=150, decimals=9):
    rng = np.random.default_rng(seed)
    confidence = rng.random(n).round(decimals)
    return confidence, rng.random(n) < expit(6 * confidence - 3)


@st.composite
def calibration_sets(draw):
    confidence, correct = sample(
        draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 60)), draw(st.sampled_from([1, 9]))
    )
    return confidence, draw(st.sampled_from([correct, correct, correct | True, correct & False]))


@settings(max_examples=50)
@given(calibration_sets(), st.sampled_from(CALIBRATORS))
def test_probabilities_never_fall_as_the_confidence_rises(data, name):
    result = Calibrator(name).fit(*data).predict(PLACES)
    assert ((result >= 0) & (result <= 1)).all()
    assert (np.diff(result) >= -1e-12).all()


@settings(max_examples=50)
@given(calibration_sets(), st.sampled_from(CALIBRATORS), st.randoms())
def test_the_order_of_the_images_does_not_matter(data, name, shuffler):
    confidence, correct = data
    order = list(range(len(confidence)))
    shuffler.shuffle(order)
    a = Calibrator(name).fit(confidence, correct).predict(PLACES)
    b = Calibrator(name).fit(confidence[order], correct[order]).predict(PLACES)
    np.testing.assert_allclose(a, b, atol=1e-6)


@settings(max_examples=50)
@given(calibration_sets(), st.sampled_from(CALIBRATORS))
def test_stretching_the_confidence_changes_nothing(data, name):
    confidence, correct = data
    a = Calibrator(name).fit(confidence, correct).predict(PLACES)
    b = Calibrator(name).fit(8 * confidence, correct).predict(8 * PLACES)
    np.testing.assert_allclose(a, b, atol=1e-6)


@settings(max_examples=50)
@given(calibration_sets(), st.sampled_from(CALIBRATORS))
def test_the_state_survives_json(data, name):
    learned = Calibrator(name).fit(*data)
    again = Calibrator.from_dict(json.loads(json.dumps(learned.to_dict())))
    np.testing.assert_array_equal(again.predict(PLACES), learned.predict(PLACES))


@given(
    calibration_sets(),
    st.sampled_from(["logistic", "smoothed_isotonic", "platt", "beta", "venn_abers"]),
)
def test_nothing_is_ever_certain(data, name):
    result = Calibrator(name).fit(*data).predict(PLACES)
    assert ((result > 0) & (result < 1)).all()


@pytest.mark.parametrize("name", ["logistic", "platt", "beta"])
def test_a_logistic_curve_does_not_round_to_certainty(name):
    learned = Calibrator(name).fit(np.arange(20) / 20, np.arange(20) >= 10)
    result = learned.predict(np.array([-1e6, 1e6]))
    assert 0 < result[0] < result[1] < 1


@pytest.mark.parametrize("decimals", [1, 9])
def test_isotonic_equals_scikit_learns(decimals):
    confidence, correct = sample(1, decimals=decimals)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct)
    ours = Calibrator("isotonic").fit(confidence, correct)
    np.testing.assert_allclose(ours.predict(PLACES), theirs.predict(PLACES), atol=1e-12)


def test_smoothed_isotonic_draws_each_pool_in():
    confidence, correct = np.arange(6.0), np.array([0, 0, 1, 0, 1, 1], dtype=bool)
    # Pools: two wrong ones, one of two right, two right ones.
    result = Calibrator("smoothed_isotonic").fit(confidence, correct).predict(confidence)
    np.testing.assert_allclose(result, [1 / 6, 1 / 6, 0.5, 0.5, 5 / 6, 5 / 6])


def test_pools_that_lose_their_order_by_smoothing_are_pooled_again():
    rng = np.random.default_rng(4)
    for _ in range(200):
        n = int(rng.integers(1, 12))
        confidence, correct = rng.random(n), rng.random(n) < 0.5
        result = (
            Calibrator("smoothed_isotonic").fit(confidence, correct).predict(np.sort(confidence))
        )
        assert (np.diff(result) >= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_platt_equals_scikit_learns(seed):
    confidence, correct = sample(seed)
    a, b = _sigmoid_calibration(confidence, correct.astype(float))
    ours = Calibrator("platt").fit(confidence, correct)
    np.testing.assert_allclose(ours.predict(PLACES), expit(-(a * PLACES + b)), atol=2e-5)


def test_beta_is_the_logistic_regression_of_the_two_logarithms():
    confidence, correct = sample(3, n=400)
    platt = Calibrator("platt").fit(confidence, correct)

    def columns(x):
        p = platt.predict(x)
        return np.stack([np.log(p), -np.log1p(-p)], axis=1)

    # Platt's targets, as weights of the two outcomes.
    right, wrong = correct.sum(), (~correct).sum()
    target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
    x = np.concatenate([columns(confidence)] * 2)
    y = np.repeat([1, 0], len(confidence))
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(
        x, y, sample_weight=np.r_[target, 1 - target]
    )
    assert (theirs.coef_ > 0).all(), "otherwise the constraint matters"
    inside = np.linspace(0, 1, 21)
    np.testing.assert_allclose(
        Calibrator("beta").fit(confidence, correct).predict(inside),
        theirs.predict_proba(columns(inside))[:, 1],
        atol=1e-4,
    )


def slow_venn_abers(confidence, correct, new):
    """Two isotonic fits with the new image among the others, by definition."""
    pair = []
    for label in (0.0, 1.0):
        _, where = np.unique(np.append(confidence, new), return_inverse=True)
        n = np.bincount(where).astype(float)
        k = np.bincount(where, weights=np.append(correct, label))
        pair.append(isotonic_regression(k / n, weights=n).x[where[-1]])
    return pair[1] / (1 - pair[0] + pair[1])


@settings(max_examples=25)
@given(calibration_sets())
def test_venn_abers_equals_its_definition(data):
    confidence, correct = data
    new = np.concatenate([PLACES, confidence])
    ours = Calibrator("venn_abers").fit(confidence, correct).predict(new)
    slow = [slow_venn_abers(confidence, correct, x) for x in new]
    np.testing.assert_allclose(ours, slow, atol=1e-12)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_stated_answers_of_the_edges(name):
    one = Calibrator(name).fit([0.5], [True])
    assert one.predict([]).shape == (0,)
    result = one.predict([0.4, 0.5, 0.6, np.nan])
    assert result[0] <= result[1] <= result[2]
    assert name == "venn_abers" or result[0] == result[2], "one confidence has no slope"
    assert np.isnan(result[3])
    # All alike in confidence: the share right, give or take what is drawn in.
    alike = Calibrator(name).fit([0.5] * 400, [True] * 300 + [False] * 100).predict([0.5])
    np.testing.assert_allclose(alike, 0.75, atol=0.01)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_good_score_gives_true_probabilities(name):
    rng = np.random.default_rng(0)
    confidence = rng.random(4000)
    correct = rng.random(4000) < expit(6 * confidence - 3)
    inside = np.linspace(0.05, 0.95, 10)
    result = Calibrator(name).fit(confidence, correct).predict(inside)
    np.testing.assert_allclose(result, expit(6 * inside - 3), atol=0.08)


def test_wrong_use_is_explained():
    with pytest.raises(InputError, match="call fit first"):
        Calibrator().predict([0.5])
    with pytest.raises(InputError, match="at least one labelled image"):
        Calibrator().fit([], [])
    with pytest.raises(InputError, match="did you mean isotonic"):
        Calibrator("isotonik").fit([0.5], [True])
    with pytest.raises(InputError, match="`confidence` to be finite"):
        Calibrator().fit([np.nan], [True])
    with pytest.raises(InputError, match="lacks weights, shares"):
        Calibrator.from_dict({"name": DEFAULT_CALIBRATOR, "state": {"confidence": [0.5]}})


@settings(max_examples=30)
@given(calibration_sets(), st.integers(2, 12), st.randoms())
def test_cross_fitting_judges_every_image_without_itself(data, folds, shuffler):
    confidence, correct = data
    n = len(confidence)
    result = cross_fitted(confidence, correct, "isotonic", folds=folds)
    position = sorted(range(n), key=lambda i: (confidence[i], correct[i]))
    for rank, i in enumerate(position):
        others = [j for other, j in enumerate(position) if other % folds != rank % folds]
        if not others:
            assert np.isnan(result[i])
            continue
        learned = Calibrator("isotonic").fit(confidence[others], correct[others])
        assert result[i] == pytest.approx(learned.predict(confidence[[i]])[0])
    order = list(range(n))
    shuffler.shuffle(order)
    again = cross_fitted(confidence[order], correct[order], "isotonic", folds=folds)
    # Images that are alike in all may swap folds.
    pairs = zip(confidence, correct, result, strict=True)
    swapped = zip(confidence[order], correct[order], again, strict=True)
    np.testing.assert_allclose(sorted(pairs), sorted(swapped))


def test_cross_fitting_needs_two_folds():
    with pytest.raises(InputError, match="`folds`"):
        cross_fitted([0.5], [True], folds=1)
    assert cross_fitted([], []).shape == (0,)


# The default: what is known beforehand, moved by the images.

CURVE_ONLY = 1e12  # shape_images with which isotonic regression counts for nothing
ONE = LogisticPrior(slope_sd=0.3, intercept_sd=0.5, shift_share=0.0, shape_images=CURVE_ONLY)
LINE = np.linspace(-6, 6, 25)


def log_posterior(slope, intercept, x, correct, deviations):
    """Up to a constant, written out."""
    z = slope * x + intercept
    likelihood = np.log(np.where(correct, expit(z), expit(-z))).sum()
    return (
        likelihood - ((slope - 1) / deviations[0]) ** 2 / 2 - (intercept / deviations[1]) ** 2 / 2
    )


def log_odds_sample(seed, n, slope=1.0, intercept=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, n)
    return x, rng.random(n) < expit(slope * x + intercept)


def test_without_images_log_odds_are_their_own_sigmoid():
    learned = Calibrator(prior=LogisticPrior()).fit([], [])
    np.testing.assert_allclose(learned.predict(LINE), expit(LINE), rtol=1e-12)
    with pytest.raises(InputError, match="at least one labelled image"):
        Calibrator("platt").fit([], [])


def test_without_images_other_scores_have_the_curve_of_the_held_out_shots():
    confidence, correct = sample(5, n=200)
    prior = LogisticPrior.of_held_out(confidence, correct)
    of_shots = Calibrator().fit(confidence, correct).predict(PLACES)
    np.testing.assert_allclose(Calibrator(prior=prior).fit([], []).predict(PLACES), of_shots)
    few = Calibrator(prior=prior).fit(confidence[:5], correct[:5]).predict(PLACES)
    assert 0 < np.abs(few - of_shots).max() < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_one_gaussian_gives_the_largest_posterior_density(seed):
    x, correct = log_odds_sample(seed, 20, slope=0.6, intercept=-1.0)
    best = minimize(
        lambda w: -log_posterior(*w, x, correct, (0.3, 0.5)),
        [1.0, 0.0],
        method="BFGS",
    ).x
    learned = Calibrator(prior=ONE).fit(x, correct)
    np.testing.assert_allclose(learned.predict(LINE), expit(best[0] * LINE + best[1]), atol=1e-4)
    assert abs(best[1]) > 0.1, "otherwise slope and intercept could be swapped unseen"


@pytest.mark.parametrize("intercept", [0.0, -1.5])
def test_the_shares_of_the_mixture_are_the_integrals_of_their_posteriors(intercept):
    x, correct = log_odds_sample(1, 30, intercept=intercept)
    prior = LogisticPrior(shape_images=CURVE_ONLY)
    a, b = np.meshgrid(np.linspace(0.01, 3, 300), np.linspace(-4, 4, 300), indexing="ij")
    z = a[..., None] * x + b[..., None]
    likelihood = np.exp(np.log(np.where(correct, expit(z), expit(-z))).sum(axis=-1))
    shares = []
    for share, (sd_a, sd_b) in ((0.8, (0.1, 0.1)), (0.2, (0.4, 0.9))):
        density = np.exp(-(((a - 1) / sd_a) ** 2) / 2 - (b / sd_b) ** 2 / 2) / (sd_a * sd_b)
        shares.append(share * (density * likelihood).sum())
    learned = Calibrator(prior=prior).fit(x, correct)
    expected = shares[0] / sum(shares)
    assert learned.state_["shares"][0] == pytest.approx(expected, abs=0.03)
    assert (expected > 0.7) == (intercept == 0), "images as known confirm it, others do not"


def test_slope_and_intercept_have_their_own_deviations():
    x, correct = np.full(400, 2.0), np.arange(400) < 120
    fixed_slope = replace(ONE, slope_sd=1e-6, intercept_sd=100.0)
    p = Calibrator(prior=fixed_slope).fit(x, correct).predict([2.0, 3.0])
    np.testing.assert_allclose(p, [0.3, expit(np.log(0.3 / 0.7) + 1)], atol=1e-3)
    fixed_intercept = replace(ONE, slope_sd=100.0, intercept_sd=1e-6)
    p = Calibrator(prior=fixed_intercept).fit(x, ~correct).predict([2.0, 0.0])
    np.testing.assert_allclose(p, [0.7, 0.5], atol=1e-3)


def test_images_move_the_curve_their_way_and_many_move_it_further():
    x = np.zeros(30)
    for right in (True, False):
        p = [
            Calibrator(prior=LogisticPrior()).fit(x[:n], np.full(n, right)).predict([0.0])[0]
            for n in (0, 1, 3, 10, 30)
        ]
        assert p[0] == 0.5
        assert (np.diff(p) > 0).all() if right else (np.diff(p) < 0).all()
        assert abs(p[1] - 0.5) < 0.05, "one image proves little"
        assert abs(p[-1] - 0.5) > 0.25


def test_labels_against_the_confidence_do_not_turn_the_curve():
    x = np.linspace(-3, 3, 200)
    result = Calibrator(prior=LogisticPrior()).fit(x, x < 0).predict(LINE)
    assert (np.diff(result) >= 0).all()
    assert np.ptp(result) < 0.3


@settings(max_examples=12)
@given(calibration_sets(), st.integers(0, 40), st.booleans())
def test_a_prior_keeps_order_and_survives_json(data, n, of_shots):
    confidence, correct = data
    prior = LogisticPrior.of_held_out(confidence, correct) if of_shots else LogisticPrior()
    learned = Calibrator(prior=prior).fit(confidence[:n], correct[:n])
    result = learned.predict(PLACES)
    assert ((result > 0) & (result < 1)).all()
    assert (np.diff(result) >= -1e-12).all()
    again = Calibrator.from_dict(json.loads(json.dumps(learned.to_dict())))
    np.testing.assert_array_equal(again.predict(PLACES), result)
    # It begins again with the same prior: the quality of a loaded model is that of the saved one.
    np.testing.assert_array_equal(
        cross_fitted(confidence, correct, again), cross_fitted(confidence, correct, learned)
    )


@pytest.mark.parametrize("prior", [LogisticPrior(), None])
def test_edges_of_the_default(prior):
    for n, correct in ((1, [True]), (1, [False]), (5, [True] * 5), (5, [False] * 5)):
        result = Calibrator(prior=prior).fit([0.7] * n, correct).predict([0.7, np.nan])
        assert 0 < result[0] < 1
        assert np.isnan(result[1])
    with pytest.raises(InputError, match="`confidence` to be finite"):
        Calibrator(prior=prior).fit([np.nan, 1.0], [True, False])


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -2.0), (2.0, 1.5)])
def test_many_images_overrule_the_prior(slope, intercept):
    x, correct = log_odds_sample(0, 6000, slope, intercept)
    result = Calibrator(prior=LogisticPrior()).fit(x, correct).predict(LINE[6:19])
    np.testing.assert_allclose(result, expit(slope * LINE[6:19] + intercept), atol=0.06)


def test_few_images_of_good_log_odds_hardly_cost_anything():
    names = [name for name in CALIBRATORS if name != DEFAULT_CALIBRATOR]
    losses = {name: [] for name in ("nothing", "prior", *names)}
    x, correct = log_odds_sample(3, 2000)
    rng = np.random.default_rng(0)
    for _ in range(20):
        few = rng.choice(2000, 20, replace=False)
        ways = {name: Calibrator(name).fit(x[few], correct[few]) for name in names}
        ways["prior"] = Calibrator(prior=LogisticPrior()).fit(x[few], correct[few])
        ways["nothing"] = Calibrator(prior=LogisticPrior()).fit([], [])
        for name, way in ways.items():
            p = np.clip(way.predict(x), 1e-12, 1 - 1e-12)
            losses[name].append(-np.log(np.where(correct, p, 1 - p)).mean())
    means = {name: np.mean(values) for name, values in losses.items()}
    assert means["prior"] < means["nothing"] + 0.005
    assert means["prior"] < min(means[name] for name in names) - 0.01


def test_a_prior_that_makes_no_sense_is_refused():
    for wrong in ({"slope_sd": 0.0}, {"scale": -1.0}, {"slope": np.nan}, {"shift_share": 1.0}):
        with pytest.raises(InputError, match="Expected a prior of finite numbers"):
            LogisticPrior(**wrong)
    with pytest.raises(InputError, match="Expected no `prior` with the calibrator platt"):
        Calibrator("platt", LogisticPrior()).fit([0.5], [True])


def test_probabilities_of_few_images_are_those_of_many_to_the_bit():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=900) * 10**k for k in range(4)])
    z = np.concatenate([z, [0.0, -0.0, np.inf, -np.inf, 709.9, -709.9, 800, -800, np.nan]])
    few = np.concatenate([calibrators._probability(part) for part in np.array_split(z, 20)])
    np.testing.assert_array_equal(few, calibrators._probability(z))
