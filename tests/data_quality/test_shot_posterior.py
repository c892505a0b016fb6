import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustvlm.data_quality.label_errors import (
    ShotPosterior,
    shot_posterior,
    suspect_labels,
)
from trustvlm.exceptions import InputError
from trustvlm.scores.held_out import held_out_indicators


def shots(counts, d=12, noise=0.5, seed=0):
    """Clusters around random centres, `counts[c]` of class c."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(len(counts), d))
    return centres[labels] + noise * rng.normal(size=(len(labels), d)), labels


def refitted(features, labels, n_classes):
    """Ridge regression anew without each shot, for each penalty; the best by squared error."""
    x = features / np.linalg.norm(features, axis=1, keepdims=True)
    y = np.eye(n_classes)[labels]
    m, d = x.shape
    centred = x - x.mean(axis=0)
    mean_eigenvalue = (centred**2).sum() / m
    tables = []
    for ridge in mean_eigenvalue * np.logspace(-2, 2, 9):
        table = np.empty_like(y)
        for i in range(m):
            rest = np.arange(m) != i
            design = np.column_stack([x[rest], np.ones(m - 1)])
            penalty = ridge * np.diag([1.0] * d + [0.0])
            solved = np.linalg.solve(design.T @ design + penalty, design.T @ y[rest])
            table[i] = np.append(x[i], 1.0) @ solved
        tables.append(table)
    return min(tables, key=lambda table: ((table - y) ** 2).sum())


@pytest.mark.parametrize(("counts", "d"), [((4, 5, 3), 30), ((6, 6), 3), ((1, 4, 5), 8)])
def test_held_out_regression_equals_refitting_without_each_shot(counts, d):
    features, labels = shots(counts, d)
    np.testing.assert_allclose(
        held_out_indicators(features, labels, len(counts)),
        refitted(features, labels, len(counts)),
        atol=1e-8,
    )


@pytest.mark.parametrize("features", [np.ones((5, 3)), np.ones((2, 3)), np.eye(2)])
def test_held_out_regression_of_nothing_to_learn_from_is_zero(features):
    labels = np.arange(len(features)) % 2
    assert not held_out_indicators(features, labels, 2).any()


def test_planted_labels_are_doubted_and_clean_ones_are_not():
    features, labels = shots((12, 12, 12, 12))
    wrong = labels.copy()
    wrong[[3, 30]] = [2, 0]
    clean = shot_posterior(features, labels, n_classes=4)
    found = shot_posterior(features, wrong, n_classes=4)
    assert clean.mislabelled.max() < 0.01
    assert clean.noise == pytest.approx(0.01, abs=0.001)  # the least there is
    assert np.flatnonzero(found.mislabelled > 0.5).tolist() == [3, 30]
    assert found.noise == pytest.approx(2 / 48, abs=0.01)
    assert found.log_probability[3].argmax() == 0
    assert found.log_probability[30].argmax() == 2


def test_probabilities_follow_from_the_model_of_label_noise():
    features, labels = shots((6, 7, 8), noise=2.0)
    found = shot_posterior(features, labels, n_classes=3)
    p = np.exp(found.log_probability)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    for i, label in enumerate(labels):
        right = (1 - found.noise) * p[i, label]
        wrong = found.noise * np.delete(p[i], label).sum() / 2
        assert found.mislabelled[i] == pytest.approx(wrong / (right + wrong), abs=1e-9)


def test_the_text_helps_where_the_shots_do_not():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 15)
    features = rng.normal(size=(45, 8))  # say nothing
    logits = 8.0 * np.eye(3)[labels] + rng.normal(size=(45, 3))
    given = labels.copy()
    given[[4, 20]] = [1, 2]
    assert not suspect_labels(shot_posterior(features, given, n_classes=3))
    with_text = suspect_labels(shot_posterior(features, given, n_classes=3, logits=logits))
    assert sorted(suspect.shot for suspect in with_text) == [4, 20]


def test_shots_without_company_are_not_judged():
    features, labels = shots((1, 6, 6))
    found = shot_posterior(features, labels, n_classes=5)
    assert found.kept.tolist() == list(range(1, 13))
    assert np.isneginf(found.log_probability[:, 3:]).all()
    assert np.isfinite(found.log_probability[:, :3]).all()


@pytest.mark.parametrize(
    ("counts", "judged"), [((5,), 5), ((0, 4), 4), ((1, 1, 1), 0), ((0, 0), 0)]
)
def test_with_nothing_to_compare_no_label_is_doubted(counts, judged):
    features, labels = shots(counts)
    found = shot_posterior(features, labels, n_classes=len(counts))
    assert len(found.kept) == judged
    assert not found.mislabelled.any()
    assert found.noise == 0.0
    assert suspect_labels(found) == []


def test_wrong_input_is_refused():
    features, labels = shots((3, 3))
    with pytest.raises(InputError, match="support_labels"):
        shot_posterior(features, labels + 1, n_classes=2)
    with pytest.raises(InputError, match="false_share"):
        suspect_labels(shot_posterior(features, labels, n_classes=2), false_share=1.0)


def posterior_of(probabilities):
    k = len(probabilities)
    table = np.log(np.tile([0.2, 0.5, 0.3], (k, 1)))
    return ShotPosterior(
        np.arange(k) + 10, np.full(k, 1), table, np.array(probabilities, dtype=float), 0.1
    )


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0, 0.9))
def test_the_list_is_the_longest_with_a_bearable_share_of_right_labels(probabilities, share):
    found = suspect_labels(posterior_of(probabilities), false_share=share)
    ranked = sorted(probabilities, reverse=True)
    bearable = [
        k
        for k in range(len(ranked) + 1)
        if sum(1 - p for p in ranked[:k]) <= share * k + 1e-15 or ranked[k - 1] > 0.5
    ]
    assert abs(len(found) - max(bearable)) <= sum(
        abs(sum(1 - p for p in ranked[:k]) - share * k) < 1e-9 for k in range(1, len(ranked) + 1)
    )
    assert [suspect.probability for suspect in found] == ranked[: len(found)]
    assert all(suspect.label == 1 and suspect.looks_like == 2 for suspect in found)
    assert all(probabilities[suspect.shot - 10] == suspect.probability for suspect in found)
