"""Odd shots, certainty of prototypes, copies, and classes that are hard to tell apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from trustvlm.data_quality.checks import check_shots, prototype_reliability
from trustvlm.data_quality.duplicates import (
    NEAR_DUPLICATE,
    near_duplicate_threshold,
    near_duplicates,
)
from trustvlm.data_quality.label_errors import shot_posterior
from trustvlm.data_quality.outliers import find_outliers
from trustvlm.data_quality.overlapping_classes import (
    WithinClassGram,
    overlapping_classes,
    same_class_p_value,
)
from trustvlm.exceptions import InputError


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters(counts, d=12, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(len(counts), d))
    return centres[labels] + noise * rng.normal(size=(len(labels), d)), labels


class TestOddShots:
    @settings(max_examples=80)
    @given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 3)), min_size=10, max_size=25))
    def test_it_agrees_with_a_plain_version(self, shots):
        values, labels = [v for v, _ in shots], [c for _, c in shots]
        usual = {}
        for i, c in enumerate(labels):
            own = [v for v, other in shots if other == c]
            if len(own) >= 4:
                usual[i] = np.median(own)
        below = [u - values[i] for i, u in usual.items() if values[i] <= u]
        spread = 1.4826 * np.median(below) if len(usual) >= 10 else 0.0
        expected = {
            i: (values[i] - u) / spread
            for i, u in usual.items()
            if spread > 1e-12 and values[i] - u < -3.5 * spread
        }
        found = find_outliers(values, labels, n_classes=4)
        assert {odd.shot: odd.deviation for odd in found} == pytest.approx(expected)
        assert [odd.deviation for odd in found] == sorted(odd.deviation for odd in found)

    @pytest.mark.parametrize("values", [[0.5] * 9, [0.5] * 20, [], [0.5] * 19 + [0.1]])
    def test_few_or_equal_values_have_no_odd_one(self, values):
        assert find_outliers(values, [0] * len(values), n_classes=1) == []

    def test_nan_is_refused(self):
        with pytest.raises(InputError, match="similarity"):
            find_outliers([math.nan] * 12, [0] * 12, n_classes=1)


class TestCertainty:
    def test_it_predicts_how_near_prototypes_come_to_the_truth(self):
        """Against a simulation in which the true means are known."""
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(30), 5)
        means = rng.normal(size=(30, 40))
        features = means[labels] + rng.normal(size=(150, 40))
        found = prototype_reliability(features, labels, n_classes=30)
        truth = np.stack([unit(m + rng.normal(size=(4000, 40))).mean(axis=0) for m in means])
        own = np.stack([unit(features[labels == c]).mean(axis=0) for c in range(30)])
        reached = (unit(own - own.mean(axis=0)) * unit(truth - truth.mean(axis=0))).sum(axis=1)
        assert np.mean([c.reliability for c in found]) == pytest.approx(reached.mean(), abs=0.01)

    def test_the_similarity_within_a_class_is_the_mean_over_its_pairs(self):
        features, labels = clusters((40, 40), noise=1.0)
        rows = unit(features)
        rows -= (rows[:40].mean(axis=0) + rows[40:].mean(axis=0)) / 2
        share = []
        for own in (rows[:40], rows[40:]):
            pairs = [a @ b for a, b in itertools.permutations(own, 2)]
            share.append(np.mean(pairs) / np.mean([a @ a for a in own]))
        pooled = np.mean(share)
        for c, found in enumerate(prototype_reliability(features, labels, n_classes=2)):
            s = (39 * share[c] + 4 * pooled) / 43
            assert found.reliability == pytest.approx(math.sqrt(s / (s + (1 - s) / 40)))
            # `enough` is the first number of shots whose certainty is 0.9.
            reached = [math.sqrt(s / (s + (1 - s) / n)) >= 0.9 for n in range(1, 99)]
            assert found.enough == reached.index(True) + 1

    def test_more_shots_make_a_class_more_certain_and_none_makes_it_0(self):
        features, labels = clusters((2, 8, 32, 1, 0), noise=1.0)
        found = prototype_reliability(features, labels, n_classes=5)
        assert [c.shots for c in found] == [2, 8, 32, 1, 0]
        assert (
            found[3].reliability
            < found[0].reliability
            < found[1].reliability
            < found[2].reliability
        )
        assert found[4].reliability == 0.0
        assert found[4].enough > 1

    @pytest.mark.parametrize("counts", [(3,), (1, 1), (0, 0), (4, 0)])
    def test_where_nothing_can_be_compared_the_answer_is_finite(self, counts):
        features, labels = clusters(counts)
        for found in prototype_reliability(features, labels, n_classes=len(counts)):
            assert 0 <= found.reliability < 1
            assert found.enough >= 1

    def test_identical_shots_are_certain(self):
        features = np.repeat(np.eye(3), 4, axis=0)
        found = prototype_reliability(features, np.repeat([0, 1, 2], 4), n_classes=3)
        assert all(c.reliability > 0.99 for c in found)

    def test_the_wanted_certainty_is_checked(self):
        with pytest.raises(InputError, match="wanted"):
            prototype_reliability(np.eye(2), [0, 1], n_classes=2, wanted=1.0)


class TestNearDuplicates:
    @settings(max_examples=60)
    @given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 999), st.floats(0.3, 1.0))
    def test_it_agrees_with_every_pair_looked_at(self, n, m, seed, threshold):
        rng = np.random.default_rng(seed)
        features, others = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
        found = near_duplicates(features, others, threshold=threshold)
        cosines = unit(features) @ unit(others).T if n and m else np.empty((n, 0))
        expected = {
            i: (int(row.argmax()), row.max())
            for i, row in enumerate(cosines)
            if m and row.max() >= threshold
        }
        assert {p.image: p.other for p in found} == {i: j for i, (j, _) in expected.items()}
        for p in found:
            assert p.cosine == pytest.approx(expected[p.image][1])
        among = near_duplicates(features, threshold=threshold)
        own = unit(features) @ unit(features).T if n else np.empty((0, 0))
        later = {i for i in range(1, n) if own[i, :i].max() >= threshold}
        assert {p.other for p in among} == later
        assert all(own[p.image, p.other] == pytest.approx(p.cosine) for p in among)
        assert all(p.image < p.other for p in among)

    def test_a_copy_is_found_whatever_its_length(self):
        x = np.random.default_rng(0).normal(size=(20, 5))
        x[7] = 3.0 * x[2]
        pairs = near_duplicates(x, threshold=1.0)
        assert [(p.image, p.other) for p in pairs] == [(2, 7)]
        assert pairs[0].cosine == pytest.approx(1.0)

    def test_the_threshold_rises_where_different_classes_are_alike(self):
        rng = np.random.default_rng(0)
        x = 1.0 + 0.05 * rng.normal(size=(60, 4))
        x[4] = x[0]  # a copy in another class does not raise it
        labels = np.arange(60) % 3
        cosines = unit(x) @ unit(x).T
        nearest = [cosines[i, labels != labels[i]].max() for i in range(60)]
        threshold = near_duplicate_threshold(x, labels, n_classes=3)
        assert threshold > NEAR_DUPLICATE
        assert threshold == pytest.approx(sorted(nearest)[53])
        assert near_duplicate_threshold(x, np.zeros(60, dtype=int), n_classes=3) == NEAR_DUPLICATE
        assert (
            near_duplicate_threshold(np.empty((0, 4)), np.empty(0, dtype=int), n_classes=3)
            == NEAR_DUPLICATE
        )

    def test_wrong_input_is_refused(self):
        with pytest.raises(InputError, match="threshold"):
            near_duplicates(np.eye(2), threshold=1.5)
        with pytest.raises(InputError, match="2 columns"):
            near_duplicates(np.eye(2), np.eye(3))


class TestOverlappingClasses:
    def listed(self, features, labels, n_classes, **options):
        posterior = shot_posterior(features, labels, n_classes=n_classes)
        return overlapping_classes(features, labels, posterior, n_classes=n_classes, **options)

    def test_one_class_under_two_names_is_found_among_others(self):
        features, labels = clusters((16, 16, 16, 16), d=20)
        labels[np.random.default_rng(1).permutation(16)[:8]] = 4
        found = self.listed(features, labels, 5)
        assert [(p.one, p.other, p.duplicate) for p in found] == [(0, 4, True)]
        assert found[0].separability < 0.9

    def test_separability_is_the_auc_of_held_out_odds(self):
        features, labels = clusters((12, 14, 10), d=6, noise=1.5)
        posterior = shot_posterior(features, labels, n_classes=3)
        found = overlapping_classes(features, labels, posterior, n_classes=3, below=1.01)
        assert len(found) == 3
        for pair in found:
            both = np.isin(labels, [pair.one, pair.other])
            odds = posterior.log_probability[both][:, [pair.one, pair.other]] @ [1, -1]
            auc = roc_auc_score(labels[both] == pair.one, odds)
            assert pair.separability == pytest.approx(max(auc, 0.5))

    def test_the_spread_is_that_of_the_other_classes(self):
        features, labels = clusters((7, 8, 9, 6), d=5, noise=1.0)
        rows = unit(features)
        gram, n_first = WithinClassGram(rows, labels, 4).of_pair(0, 2)
        others = [rows[labels == c] - rows[labels == c].mean(axis=0) for c in (1, 3)]
        spread = sum(r.T @ r for r in others) / len(rows) + rows.var(axis=0).mean() * np.eye(5)
        both = np.concatenate([rows[labels == 0], rows[labels == 2]])
        assert n_first == 7
        np.testing.assert_allclose(gram, both @ np.linalg.solve(spread, both.T), atol=1e-8)

    def test_p_values_of_one_class_split_at_random_are_uniform(self):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(16, 10))
        found = []
        for _ in range(400):
            split = rows[rng.permutation(16)]
            found.append(same_class_p_value(split @ split.T, 8, rng))
        share = np.mean(np.array(found) <= 0.05)
        assert 0.02 < share < 0.09  # 0.05 up to four standard errors
        assert np.mean(found) == pytest.approx(0.5, abs=0.06)

    def test_too_few_shots_say_nothing(self):
        features, labels = clusters((5, 5))
        assert self.listed(features[[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]], labels, 2) == []
        assert self.listed(features[:0], labels[:0], 2) == []


class TestHealth:
    def test_every_kind_of_trouble_is_found_and_named_once(self):
        features, labels = clusters((30, 30, 30, 2, 0), d=40, noise=0.5)
        labels[3] = 1  # wrong label
        features[50] = 5.0 * np.random.default_rng(9).normal(size=40)  # shows nothing known
        features[80] = 1.7 * features[63]  # a copy
        health = check_shots(features, labels, n_classes=5)
        assert [s.shot for s in health.suspects] == [3]
        assert health.suspects[0].looks_like == 0
        assert health.outliers[0].shot == 50
        assert not {odd.shot for odd in health.outliers} & {3, 90, 91}  # doubted already; too few
        assert [(p.image, p.other) for p in health.near_duplicates] == [(63, 80)]
        assert [c.label for c in health.too_few_shots] == [4]
        assert not health.overlapping_classes
        assert not health.sound
        assert (health.n_shots, health.n_classes) == (92, 5)

    def test_good_shots_are_called_sound(self):
        health = check_shots(*clusters((16, 16, 16), d=40, seed=1), n_classes=3)
        assert health.sound

    def test_no_shots_at_all(self):
        health = check_shots(np.empty((0, 4)), np.empty(0, dtype=int), n_classes=2)
        assert [c.reliability for c in health.too_few_shots] == [0.0, 0.0]
        assert not health.suspects
