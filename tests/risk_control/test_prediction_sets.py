"""Prediction sets hold the true label as often as they say, by simulation and by hand."""

import numpy as np
import pytest

from trustvlm.exceptions import InputError
from trustvlm.risk_control.prediction_sets import (
    SET_METHODS,
    PredictionSets,
    nonconformity,
    true_label_scores,
)


def population(rng, n, n_classes=4, sharpness=2.0):
    """Classes of unequal size and difficulty, and probabilities that are not calibrated."""
    truth = rng.choice(n_classes, n, p=np.array([0.55, 0.3, 0.13, 0.02]))
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), truth] += sharpness / (1 + truth)
    p = np.exp(2 * logits)
    return p / p.sum(axis=1, keepdims=True), truth


def fitted(rng, n, method, level, **settings):
    p, truth = population(rng, n)
    unusual = true_label_scores(p, truth)[method]
    return PredictionSets.fit(unusual, truth, 4, level=level, method=method, **settings)


@pytest.mark.parametrize("method", SET_METHODS)
@pytest.mark.parametrize(("n", "level"), [(30, 0.9), (200, 0.8), (200, 0.95)])
def test_the_true_label_is_in_the_set_as_often_as_stated(method, n, level):
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        sets = fitted(rng, n, method, level)
        p, truth = population(rng, 100)
        hits.append(sets.contains(p)[np.arange(100), truth].mean())
    # Three standard errors of the mean over independent calibration sets.
    assert np.mean(hits) >= level - 3 * np.std(hits) / 20


@pytest.mark.parametrize("method", SET_METHODS)
def test_classes_with_enough_images_are_covered_by_themselves(method):
    rng = np.random.default_rng(1)
    hits = {True: [], False: []}
    for conditional in hits:
        for _ in range(300):
            sets = fitted(rng, 300, method, 0.9, class_conditional=conditional)
            p, truth = population(rng, 400)
            if conditional:
                assert sets.own[2]
            inside = sets.contains(p)[np.arange(400), truth]
            hits[conditional].append(inside[truth == 2].mean())
    spread = 3 * np.std(hits[True]) / np.sqrt(300)
    assert np.mean(hits[True]) >= 0.9 - spread
    # The hard class pays where all classes share a quantile.
    assert np.mean(hits[False]) < 0.9 - spread


@pytest.mark.parametrize(("level", "n", "mean"), [(0.9, 200, 9), (0.95, 400, 19)])
def test_classes_without_a_quantile_of_their_own_are_covered_together(level, n, mean):
    """A hard class that has enough images in one draw in two, among easy ones that never have."""
    rng = np.random.default_rng(2)
    easy = 4 / n
    shares = np.array([mean / n, *[easy] * (2 * mean), 0.0])
    shares[-1] = 1 - shares.sum()
    hard = np.arange(len(shares)) == 0
    excess = []
    for _ in range(2000):
        truth = rng.choice(len(shares), n, p=shares)
        unusual = (rng.random(n) + hard[truth]) / 2
        sets = PredictionSets.fit(unusual, truth, len(shares), level=level)
        covered = np.clip(2 * sets.quantiles - hard, 0, 1)
        excess.append((shares * (covered - level))[~sets.own].sum())
    assert np.mean(excess) >= -3 * np.std(excess) / np.sqrt(2000)


def test_aps_is_the_sum_down_to_the_label_and_ties_come_together():
    p = np.array([[0.4, 0.3, 0.3], [0.2, 0.5, 0.3]])
    np.testing.assert_allclose(nonconformity(p, "aps"), [[0.4, 1.0, 1.0], [1.0, 0.5, 0.8]])
    many = np.full((1, 10), 0.1)
    assert nonconformity(many, "raps")[0, 9] == pytest.approx(1 + 0.01 * 5)


def test_the_quantile_is_the_exact_one():
    values = np.arange(1, 20) / 20  # 19 images: the ceil(20 * 0.9) = 18th smallest
    sets = PredictionSets.fit(values, np.zeros(19, int), 1, level=0.9)
    assert sets.quantiles[0] == values[17]
    pair = PredictionSets.fit(np.full(19, 0.75), np.arange(19) % 2, 2, level=0.9)
    assert pair.contains([[0.75, 0.25], [0.8, 0.2]]).tolist() == [[True, True], [True, False]]
    assert PredictionSets.fit(values[:8], np.zeros(8, int), 1, level=0.9).quantiles[0] == np.inf


def test_a_class_with_just_enough_images_counts_among_the_others_too():
    # At a level of 0.9, 9 images are just enough: an image less, and it would be one of the others.
    truth = np.repeat([0, 1, 2], [9, 10, 8])
    sets = PredictionSets.fit(np.arange(27.0), truth, 3, level=0.9)
    assert sets.own.tolist() == [True, True, False]
    # Of 17 images, of classes 0 and 2, the ceil(18 * 0.9) = 17th smallest.
    assert sets.quantiles.tolist() == [8.0, 18.0, 26.0]
    alone = PredictionSets.fit(np.arange(18.0), np.repeat([1, 2], [10, 8]), 3, level=0.9)
    assert alone.quantiles.tolist() == [np.inf, 9.0, np.inf]


def test_too_few_images_leave_no_label_out_and_none_leaves_the_best_one():
    nothing = PredictionSets.fit([], np.empty(0, int), 3, level=0.9)
    assert nothing.contains([[0.8, 0.1, 0.1]]).all()
    strict = PredictionSets.fit(np.zeros(50), np.arange(50) % 2, 2, level=0.9)
    assert strict.contains([[0.6, 0.4], [0.5, 0.5]]).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nonconformity([[1.5, 0.0]]), r"\[0, 1\]"),
        (lambda: nonconformity([[0.5, 0.5]], "best"), "lac, aps or raps"),
        (lambda: PredictionSets.fit([0.1], [0], 1, level=1.0), "level"),
        (lambda: PredictionSets.fit([np.nan], [0], 1), "NaN"),
        (lambda: PredictionSets.fit([0.1], [3], 2), "labels"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()
