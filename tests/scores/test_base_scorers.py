"""The base scorers of `auto` against scikit-learn and matrices written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from trustvlm.scores.base_scorers import discriminant, prototypes, ridge, scale_of

seeds = st.integers(0, 5_000)


def shots_of(seed, m=12, d=5, n_classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, d)) + 0.5, rng.permutation(np.arange(m) % n_classes)


@given(seeds)
@settings(max_examples=10)
def test_prototypes_are_cosines_around_the_mean(seed):
    shots, labels = shots_of(seed)
    [scorer] = prototypes(shots, labels, 3)
    rows = shots - shots.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for c in range(3):
        mean = rows[labels == c].mean(axis=0)
        expected = rows @ mean / np.linalg.norm(mean)
        np.testing.assert_allclose(scorer.evidence(shots)[:, c], expected, atol=1e-12)


@pytest.mark.parametrize("d", [4, 20])
def test_ridge_is_that_of_scikit_learn(d):
    shots, labels = shots_of(d, d=d)
    rows, targets = shots - shots.mean(axis=0), np.eye(3)[labels]
    length = (rows**2).sum(axis=1).mean()
    for strength, scorer in zip([0.3, 5.0], ridge(shots, labels, 3, [0.3, 5.0]), strict=True):
        model = Ridge(alpha=strength * length).fit(rows, targets)
        expected = model.predict(rows) - targets.mean(axis=0)
        np.testing.assert_allclose(scorer.evidence(shots), expected, atol=1e-10)


@pytest.mark.parametrize("d", [4, 20])
def test_the_discriminant_is_the_log_density_of_gaussians(d):
    shots, labels = shots_of(d, d=d)
    means = np.array([shots[labels == c].mean(axis=0) for c in range(3)])
    residuals = shots - means[labels]
    covariance = residuals.T @ residuals / (12 - 3)
    for strength, scorer in zip(
        [0.1, 3.0], discriminant(shots, labels, 3, [0.1, 3.0]), strict=True
    ):
        shrunk = covariance + strength * np.trace(covariance) / d * np.eye(d)
        away = shots[:, None] - means
        density = -0.5 * np.einsum("ncd,de,nce->nc", away, np.linalg.inv(shrunk), away)
        evidence = scorer.evidence(shots)
        np.testing.assert_allclose(
            evidence - evidence.mean(axis=1, keepdims=True),
            density - density.mean(axis=1, keepdims=True),
            atol=1e-8,
        )


def test_a_shot_a_class_leaves_distances_to_the_shots():
    shots = np.random.default_rng(0).normal(size=(3, 6))
    [scorer] = discriminant(shots, np.arange(3), 3, [2.0])
    variance = ((shots - shots.mean(axis=0)) ** 2).mean()
    squares = ((shots[:, None] - shots) ** 2).sum(axis=2)
    expected = -0.5 * squares / (2.0 * variance)
    evidence = scorer.evidence(shots)
    np.testing.assert_allclose(
        evidence - evidence.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=1e-9,
    )


@pytest.mark.parametrize("fit", [prototypes, ridge, discriminant])
def test_identical_shots_say_nothing(fit):
    for scorer in fit(np.ones((4, 3)), np.array([0, 0, 1, 1]), 2):
        np.testing.assert_array_equal(scorer.evidence(np.eye(3)), np.zeros((3, 2)))


def test_scales_are_shrunk_half_way():
    rows = np.array([[0.0, 1.0], [0.0, 3.0]])
    np.testing.assert_allclose(scale_of(rows) ** 2, [0.5, 1.5])
    np.testing.assert_array_equal(scale_of(np.ones((2, 3))), np.ones(3))
    np.testing.assert_array_equal(scale_of(np.empty((0, 3))), np.ones(3))
