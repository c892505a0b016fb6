import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustvlm.data_quality import label_errors
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
    result = shot_posterior(features, wrong, n_classes=4)
    assert clean.mislabelled.max() < 0.01
    assert clean.noise == pytest.approx(0.01, abs=0.001)  # the least there is
    assert np.flatnonzero(result.mislabelled > 0.5).tolist() == [3, 30]
    assert result.noise == pytest.approx(2 / 48, abs=0.01)
    assert result.log_probability[3].argmax() == 0
    assert result.log_probability[30].argmax() == 2


def look_alike_chances(features, labels, n_classes):
    """K(c, y), class by class: exp(-rank / 3) of y among the classes nearest to c."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[labels == c].mean(axis=0) for c in range(n_classes)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    means -= means.mean(axis=0)
    table = np.zeros((n_classes, n_classes))
    for c in range(n_classes):
        cosine = means @ means[c] / np.linalg.norm(means, axis=1)
        nearest = [int(y) for y in np.argsort(-cosine) if y != c]
        table[c, nearest] = np.exp(-np.arange(n_classes - 1) / 3)
        table[c] /= table[c].sum()
    return table


@pytest.mark.parametrize("mixed_up", [False, True])
def test_probabilities_follow_from_the_model_of_label_noise(mixed_up):
    """Against the formula, one shot and one class at a time."""
    features, labels = planted(look_alikes=True)[:2] if mixed_up else shots((6, 7, 8))
    n_classes = labels.max() + 1
    result = shot_posterior(features, labels, n_classes=n_classes)
    assert result.look_alike == pytest.approx(1.0 if mixed_up else 0.0, abs=0.01)
    chances = look_alike_chances(features, labels, n_classes)
    np.testing.assert_allclose(np.exp(result.log_probability).sum(axis=1), 1.0)
    e, share = result.noise, result.look_alike
    for i, label in enumerate(labels):
        p = np.exp(result.log_probability[i])
        right = (1 - e) * p[label]
        swapped = sum(p[c] * chances[c, label] for c in range(n_classes))
        uniform = np.delete(p, label).sum() / (n_classes - 1)
        false = e * ((1 - share) * uniform + share * swapped)
        assert result.mislabelled[i] == pytest.approx(false / (right + false), abs=1e-9)


def planted(look_alikes, seed=0, groups=6, share=0.08, n=16):
    """Groups of four classes that resemble each other, and labels replaced within or across."""
    rng = np.random.default_rng(seed)
    c = 4 * groups
    centres = np.repeat(rng.normal(size=(groups, 12)), 4, axis=0) + 0.6 * rng.normal(size=(c, 12))
    labels = np.repeat(np.arange(c), n)
    features = centres[labels] + 0.35 * rng.normal(size=(len(labels), 12))
    wrong = rng.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    if look_alikes:
        given[wrong] = labels[wrong] // 4 * 4 + (labels[wrong] + rng.integers(1, 4, len(wrong))) % 4
    else:
        given[wrong] = (labels[wrong] + rng.integers(1, c, len(wrong))) % c
    return features, given, sorted(wrong.tolist())


@pytest.mark.parametrize("look_alikes", [True, False])
def test_planted_errors_of_both_kinds_are_listed_and_counted(look_alikes):
    counts, shares = np.zeros(5), []
    for seed in range(5):
        features, given, wrong = planted(look_alikes, seed)
        result = shot_posterior(features, given, n_classes=24)
        listed = {suspect.shot for suspect in suspect_labels(result)}
        _, expected = result.ranking()
        counts += [
            len(listed),
            len(listed & set(wrong)),
            len(wrong),
            expected[len(listed) - 1],
            expected[-1],
        ]
        shares.append(result.look_alike)
    assert np.mean(shares) > 0.9 if look_alikes else max(shares) == 0.0
    n_listed, hits, n_wrong, expected_hits, expected_wrong = counts
    assert hits / n_wrong >= 0.85
    assert hits / n_listed >= 0.7
    assert expected_hits == pytest.approx(hits, rel=0.12)
    assert expected_wrong == pytest.approx(n_wrong, rel=0.12)


def test_look_alike_errors_are_hidden_from_uniform_noise(monkeypatch):
    """What the second kind of noise is for: without it most planted look-alikes go unlisted."""
    features, given, wrong = planted(look_alikes=True, seed=1)

    def hits():
        listed = suspect_labels(shot_posterior(features, given, n_classes=24))
        return len({suspect.shot for suspect in listed} & set(wrong))

    assert hits() > 0.8 * len(wrong)
    monkeypatch.setattr(
        label_errors, "_look_alikes", lambda sums: label_errors._at_random(len(sums))
    )
    assert hits() < 0.3 * len(wrong)


def test_clean_look_alikes_are_left_alone():
    listed = 0
    for seed in range(5):
        features, labels, _ = planted(look_alikes=True, seed=seed, share=0.0)
        listed += len(suspect_labels(shot_posterior(features, labels, n_classes=24)))
    assert listed <= 2


def test_look_alikes_go_by_rank_and_equal_classes_share_it():
    table = label_errors._look_alikes(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(table.sum(axis=1), 1.0)
    assert not table.diagonal().any()
    assert table[0, 1] > table[0, 2] > table[0, 3] > 0
    np.testing.assert_allclose(table[2, 0], table[2, 1])
    np.testing.assert_allclose(table[0, 2] / table[0, 1], np.exp(-1 / 3))
    all_alike = label_errors._look_alikes(np.ones((4, 3)))
    np.testing.assert_allclose(all_alike, (1 - np.eye(4)) / 3)
    np.testing.assert_allclose(label_errors._look_alikes(np.eye(2)), 1 - np.eye(2))


def test_identical_shots_of_several_classes_are_no_evidence():
    features, labels = np.ones((12, 3)), np.repeat([0, 1, 2], 4)
    result = shot_posterior(features, labels, n_classes=3)
    np.testing.assert_allclose(result.log_probability, np.log(1 / 3), atol=0.01)
    assert suspect_labels(result) == []


def test_two_classes_have_no_look_alikes():
    features, labels = shots((12, 12))
    labels[[2, 20]] = [1, 0]
    result = shot_posterior(features, labels, n_classes=2)
    assert sorted(suspect.shot for suspect in suspect_labels(result)) == [2, 20]
    assert result.look_alike == 0.0


def test_classes_with_one_shot_or_none_take_part_as_look_alikes():
    features, given, wrong = planted(look_alikes=True, seed=1)
    # Class 24 has one shot, a copy of one of class 0; class 25 none.
    result = shot_posterior(
        np.concatenate([features, features[:1]]), np.append(given, 24), n_classes=26
    )
    assert result.kept.tolist() == list(range(len(given)))
    assert result.look_alike > 0.9
    assert np.isneginf(result.log_probability[:, 25]).all()
    assert np.isfinite(result.mislabelled).all()
    listed = {suspect.shot for suspect in suspect_labels(result)}
    assert len(listed & set(wrong)) > 0.7 * len(wrong)


def test_a_copy_under_another_label_is_doubted():
    features, labels = shots((10, 10, 10))
    features[25] = features[3]
    result = shot_posterior(features, labels, n_classes=3)
    assert [suspect.shot for suspect in suspect_labels(result)] == [25]


def test_blocks_of_rows_give_what_all_rows_at_once_do(monkeypatch):
    features, given, _ = planted(look_alikes=True)
    whole = shot_posterior(features, given, n_classes=24)
    monkeypatch.setattr(label_errors, "_BLOCK", 7)
    blocks = shot_posterior(features, given, n_classes=24)
    np.testing.assert_allclose(blocks.mislabelled, whole.mislabelled, rtol=1e-9)
    np.testing.assert_allclose(blocks.log_probability, whole.log_probability, rtol=1e-9)


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
    result = shot_posterior(features, labels, n_classes=5)
    assert result.kept.tolist() == list(range(1, 13))
    assert np.isneginf(result.log_probability[:, 3:]).all()
    assert np.isfinite(result.log_probability[:, :3]).all()


@pytest.mark.parametrize(
    ("counts", "judged"), [((5,), 5), ((0, 4), 4), ((1, 1, 1), 0), ((0, 0), 0)]
)
def test_with_nothing_to_compare_no_label_is_doubted(counts, judged):
    features, labels = shots(counts)
    result = shot_posterior(features, labels, n_classes=len(counts))
    assert len(result.kept) == judged
    assert not result.mislabelled.any()
    assert result.noise == 0.0
    assert suspect_labels(result) == []


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
        kept=np.arange(k) + 10,
        labels=np.full(k, 1),
        log_probability=table,
        mislabelled=np.array(probabilities, dtype=float),
        noise=0.1,
        similarity=np.zeros(k),
    )


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0, 0.9))
def test_the_list_is_the_longest_with_a_bearable_share_of_right_labels(probabilities, share):
    result = suspect_labels(posterior_of(probabilities), false_share=share)
    ranked = sorted(probabilities, reverse=True)
    bearable = [
        k
        for k in range(len(ranked) + 1)
        if sum(1 - p for p in ranked[:k]) <= share * k + 1e-15 or ranked[k - 1] > 0.5
    ]
    assert abs(len(result) - max(bearable)) <= sum(
        abs(sum(1 - p for p in ranked[:k]) - share * k) < 1e-9 for k in range(1, len(ranked) + 1)
    )
    assert [suspect.probability for suspect in result] == ranked[: len(result)]
    counted = [suspect.expected_wrong for suspect in result]
    np.testing.assert_allclose(counted, np.cumsum(ranked[: len(result)]))
    assert all(suspect.label == 1 and suspect.looks_like == 2 for suspect in result)
    assert all(probabilities[suspect.shot - 10] == suspect.probability for suspect in result)
