"""Near-duplicates go by the cosine, however long the features are."""

import numpy as np
import pytest

from trustvlm.data_quality.duplicates import (
    near_duplicate_groups,
    near_duplicate_threshold,
    nearer_than_usual,
    usually_nearest,
)


def test_groups_are_those_of_a_plain_search_whatever_the_lengths():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 6))
    rows = np.repeat(centres, 3, axis=0) + 0.05 * rng.normal(size=(36, 6))
    rows = rows[rng.permutation(36)]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    close = unit @ unit.T >= 0.97
    for _ in range(6):  # what a chain connects
        close = (close.astype(int) @ close) > 0
    lengths = rng.uniform(0.1, 30, size=(36, 1))
    group = near_duplicate_groups(lengths * rows, threshold=0.97)
    np.testing.assert_array_equal(group[:, None] == group, close)
    assert 6 < len(set(group.tolist())) < 36
    labels = rng.integers(0, 3, 36)
    for of in (
        lambda x: near_duplicate_threshold(x, labels, n_classes=3),
        usually_nearest,
        lambda x: nearer_than_usual(x[:18], x[18:], threshold=0.9),
    ):
        np.testing.assert_allclose(of(lengths * rows), of(unit), rtol=1e-12)


def test_the_threshold_is_what_nine_in_ten_shots_stay_below_with_another_class():
    cosines = np.array([0.2, 0.4, 0.6, 0.96, 0.99])
    first = np.eye(5, 10)
    second = cosines[:, None] * first + np.sqrt(1 - cosines**2)[:, None] * np.eye(5, 10, k=5)
    shots, labels = np.concatenate([first, second]), np.repeat([0, 1], 5)
    assert near_duplicate_threshold(shots, labels, n_classes=2) == pytest.approx(0.99)


def test_what_is_as_near_as_usual_is_no_nearer():
    others = [[1.0, 0.0], [0.6, 0.8]]
    assert usually_nearest(others) == 0.6
    assert not nearer_than_usual([[0.6, -0.8]], others, threshold=0.5).any()
    assert nearer_than_usual([[0.8, -0.6]], others, threshold=0.5).all()
