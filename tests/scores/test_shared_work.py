"""What scores share changes no number: one by one they give what they give together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.scores import Evidence, PrototypeBank, arrays, names, neighbours, prepare
from trustvlm.scores.compute import score_together
from trustvlm.scores.evidence import compare
from trustvlm.scores.gaussians import RidgedCovariance, Rows, leading_axes

N_CLASSES, D = 4, 6


def evidence(seed, n=30, per_class=3):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(N_CLASSES), per_class)
    return Evidence.of(
        logits=rng.normal(size=(n, N_CLASSES)),
        features=rng.normal(size=(n, D)),
        image_embeddings=rng.normal(size=(n, 5)),
        text_embeddings=rng.normal(size=(N_CLASSES, 5)),
        support_features=rng.normal(size=(len(labels), D)),
        support_labels=labels,
        support_logits=rng.normal(size=(len(labels), N_CLASSES)),
        support_image_embeddings=rng.normal(size=(len(labels), 5)),
    )


@pytest.mark.parametrize("block_bytes", [2**20, 2000])
def test_together_is_one_by_one(block_bytes, monkeypatch):
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", block_bytes)
    reference = evidence(0)
    together = score_together({name: prepare(name, reference) for name in names()}, evidence(0))
    for name in names():
        alone = prepare(name, evidence(0))(evidence(0))
        np.testing.assert_array_equal(together[name].prediction, alone.prediction, err_msg=name)
        np.testing.assert_array_equal(together[name].confidence, alone.confidence, err_msg=name)


def test_what_was_learned_from_other_shots_is_not_mixed_up():
    images = evidence(0)
    for name in names():
        for reference in (evidence(1), evidence(2, per_class=2), evidence(1)):
            fresh = prepare(name, reference)(evidence(0))
            again = prepare(name, reference)(images)
            np.testing.assert_array_equal(again.confidence, fresh.confidence, err_msg=name)


def test_a_bank_with_more_shots_is_compared_anew():
    bank = PrototypeBank().fit([[1.0, 0.0]], [0], n_classes=2)
    seen = Evidence.of(logits=[[0.0, 0.0]], features=[[0.0, 1.0]], bank=bank)
    assert compare(seen).similarities.tolist() == [[0.0, -1.0]]
    bank.add([[0.0, 1.0]], [1])
    assert compare(seen).similarities.tolist() == [[0.0, 1.0]]


def test_no_image_gives_no_verdict():
    reference = evidence(0)
    empty = reference.rows(slice(0, 0))
    for result in score_together(
        {n: prepare(n, reference) for n in ("msp", "knn")}, empty
    ).values():
        assert result.prediction.shape == result.confidence.shape == (0,)


@given(
    st.integers(0, 999), st.integers(1, 8), st.integers(1, 8),
    st.floats(0, 3), st.floats(1e-3, 3),
)  # fmt: skip
def test_ridged_covariances_are_solved_and_have_their_determinant(seed, m, d, scale, floor):
    rng = np.random.default_rng(seed)
    rows, vectors = rng.normal(size=(m, d)), rng.normal(size=(3, d))
    result = RidgedCovariance(Rows(rows), scale, floor)
    dense = scale * rows.T @ rows + floor * np.eye(d)
    np.testing.assert_allclose(result.dense(), dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        result.solve(vectors), np.linalg.solve(dense, vectors.T).T, rtol=1e-6
    )
    assert result.log_determinant == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-9, abs=1e-9)


def test_a_covariance_of_nothing_becomes_the_identity():
    nothing = RidgedCovariance(Rows(np.zeros((3, 2))), 0.5, 0.0)
    assert nothing.invertible().dense().tolist() == np.eye(2).tolist()
    twins = RidgedCovariance(Rows(np.array([[1.0, 0.0], [-1.0, 0.0]])), 0.5, 0.0).invertible()
    solved = twins.solve(np.array([[1.0, 0.0]]))
    assert solved == pytest.approx(np.array([[1.0, 0.0]]), rel=1e-6)


@pytest.mark.parametrize(("m", "d"), [(30, 9), (9, 30), (12, 12)])
@pytest.mark.parametrize("count", [2, 5, 40])
def test_leading_axes_are_the_first_principal_components(m, d, count):
    rows = np.random.default_rng(0).normal(size=(m, d)) * np.arange(1, d + 1)
    rows -= rows.mean(axis=0)
    axes = leading_axes(Rows(rows), count)
    _, sizes, expected = np.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > 1e-6 * sizes[0]).sum())
    assert len(axes) == min(count, rank)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-8)
    overlap = np.abs((axes * expected[: len(axes)]).sum(axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-8)
    assert len(leading_axes(Rows(np.zeros((4, 3))), 2)) == 0


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 12))
def test_nearest_shots_are_those_of_a_stable_sort(seed, m, k):
    # Few distinct values: ties everywhere.
    table = np.random.default_rng(seed).integers(0, 3, size=(5, m)) / 2
    result, columns = neighbours.nearest_columns(table, k)
    expected = np.argsort(-table, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(result, np.take_along_axis(table, expected, axis=1))


def test_copies_of_evidence_leave_out_what_was_derived():
    images = evidence(0)
    images.once("function", lambda: lambda: 1)
    copy = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(copy.directions, images.directions)
    assert copy.once("function", lambda: 2) == 2
