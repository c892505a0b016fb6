"""Stacking: folds, subsets of shots, and the weights that fit what is held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from trustvlm.scores.stacking import (
    evidence_scale,
    fit_weights,
    scaled_log_loss,
    stratified_folds,
    text_scale,
)

seeds = st.integers(0, 5_000)


@given(seeds, st.integers(2, 9))
def test_folds_judge_each_shot_once_and_take_as_many_from_every_class(seed, most):
    rng = np.random.default_rng(seed)
    labels = rng.integers(5, size=rng.integers(1, 30))
    counts = np.bincount(labels, minlength=5)
    judged = []
    for fitted, held_out in stratified_folds(labels, most):
        assert not set(fitted) & set(held_out)
        left = np.bincount(np.delete(labels, fitted), minlength=5)
        for c in np.flatnonzero(counts):
            if counts[c] == 1:
                assert left[c] == 0
            else:
                folds = min(most, counts.max(), counts[c])
                assert left[c] in (counts[c] // folds, -(-counts[c] // folds))
                assert left[c] < counts[c]
        judged += held_out.tolist()
    assert sorted(judged) == np.flatnonzero(counts[labels] > 1).tolist()


def test_nothing_is_judged_where_every_class_has_one_shot():
    assert stratified_folds(np.arange(4), 8) == []
    assert stratified_folds(np.empty(0, dtype=np.int64), 8) == []


@given(seeds, st.integers(1, 60))
def test_no_more_shots_are_judged_than_asked_for(seed, most):
    labels = np.repeat(np.arange(5), 8)[np.random.default_rng(seed).permutation(40)]
    folds = stratified_folds(labels, 4, most)
    judged = np.concatenate([judged for _, judged in folds])
    assert len(judged) == len(set(judged)) == min(most, 40)
    for (fitted, some), (same, of_all) in zip(folds, stratified_folds(labels, 4), strict=False):
        np.testing.assert_array_equal(fitted, same)
        assert set(some) <= set(of_all)
    for _, whole in folds[:-1]:
        assert len(whole) == 10


def test_weights_minimise_the_penalised_likelihood():
    rng = np.random.default_rng(0)
    tables, labels = rng.normal(size=(2, 30, 3)), rng.integers(3, size=30)
    centre, spread = np.array([0.5, 1.0]), np.array([0.5, 2.0])

    def loss(weights):
        log_p = log_softmax(np.tensordot(weights, tables, axes=1), axis=1)
        away = (weights - centre) / spread
        return -log_p[np.arange(30), labels].sum() + 0.5 * (away**2).sum()

    result = fit_weights(tables, labels, centre, spread)
    grid = [np.array([a, b]) for a in np.linspace(0, 2, 81) for b in np.linspace(0, 2, 81)]
    assert loss(result) <= min(map(loss, grid)) + 1e-4
    assert (result >= 0).all()
    nothing = fit_weights(tables[:, :0], labels[:0], centre, spread)
    np.testing.assert_array_equal(nothing, centre)


def test_what_speaks_against_the_labels_has_no_weight():
    labels = np.arange(30) % 3
    tables = np.array([np.eye(3)[labels], -np.eye(3)[labels]])
    result = fit_weights(tables, labels, np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert result[0] > 1
    assert result[1] == 0


def test_scale_of_evidence_leaves_out_the_true_class():
    assert evidence_scale(np.array([[5.0, 1.0, 3.0], [0.0, 9.0, 2.0]]), np.array([0, 1])) == 1.0
    assert evidence_scale(np.zeros((3, 3)), np.array([0, 1, 2])) == 1.0


def test_the_scale_of_text_is_the_most_probable():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(40, 4)), rng.integers(4, size=40)
    logits[np.arange(40), labels] += 2

    def loss(t):
        own = log_softmax(t * logits, axis=1)[np.arange(40), labels]
        return -own.sum() + (np.log(t) - np.log(0.6)) ** 2 / 2

    grid = np.geomspace(0.01, 10, 20001)
    assert text_scale(logits, labels) == pytest.approx(min(grid, key=loss), rel=1e-3)
    # Cosines that were never multiplied by the model's scale.
    assert text_scale(logits / 100, labels) > 20


def test_the_loss_is_that_of_the_best_multiple():
    rng = np.random.default_rng(1)
    table, labels = rng.normal(size=(30, 3)), rng.integers(3, size=30)
    table[np.arange(30), labels] += 1
    grid = np.geomspace(0.05, 100, 3000) / table.std()
    best = min(-log_softmax(s * table, axis=1)[np.arange(30), labels].mean() for s in grid)
    assert scaled_log_loss(7.0 * table, labels) == pytest.approx(best, abs=1e-4)
    assert scaled_log_loss(np.zeros((2, 3)), np.array([0, 1])) == pytest.approx(np.log(3))
