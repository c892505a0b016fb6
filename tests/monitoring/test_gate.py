"""The out-of-distribution gate: resemblance to the label, its price, other classes."""

import math

import numpy as np
import pytest

from trustvlm.exceptions import InputError
from trustvlm.monitoring.ood import (
    OODGate,
    OtherClasses,
    gate_statement,
    looks_mixed,
)
from trustvlm.scores import Evidence, PrototypeBank
from trustvlm.scores.evidence import prototype_similarities


def draw(rng, labels, centres, texts, noise=0.5):
    features = centres[labels] + noise * rng.normal(size=(len(labels), centres.shape[1]))
    logits = 3 * features @ texts.T + rng.normal(size=(len(labels), len(texts)))
    return features, logits


def world(counts, seed=0, n=60, d=8):
    """Shots of some classes, and evidence on n images like them."""
    rng = np.random.default_rng(seed)
    centres, texts = rng.normal(size=(len(counts), d)), rng.normal(size=(len(counts), d))
    labels = np.repeat(np.arange(len(counts)), counts)
    features, logits = draw(rng, labels, centres, texts)
    truth = rng.integers(len(counts), size=n)
    images, image_logits = draw(rng, truth, centres, texts)
    evidence = Evidence.of(
        logits=image_logits,
        features=images,
        support_features=features,
        support_labels=labels,
        support_logits=logits,
    )
    return evidence, truth


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_hand(evidence, prediction, n_classes):
    """The resemblance of the shots and the images, with loops, and its threshold."""
    x, y = unit(np.asarray(evidence.support_features, dtype=float)), evidence.support_labels
    raw, z = np.asarray(evidence.support_features, dtype=float), evidence.support_logits
    counts = np.bincount(y, minlength=n_classes)
    pairs = [x[i] @ x[j] for i in range(len(y)) for j in range(len(y)) if i != j and y[i] == y[j]]
    alike = min(max(np.mean(pairs), 0.0), 1.0)

    def length(k):
        return math.sqrt(alike + (1 - alike) / k)

    rows = []
    for i in range(len(y)):
        if counts[y[i]] < 2:
            continue
        rank = int((y[:i] == y[i]).sum())
        similarities = {}
        for c in range(n_classes):
            own = np.flatnonzero(y == c)
            if len(own) > 1:
                own = np.delete(own, rank % len(own))
            if len(own):
                similarities[c] = x[i] @ unit(raw[own].sum(axis=0)) * length(len(own))
        rows.append((similarities[y[i]], z[i, y[i]], max(similarities.values())))
    rows = np.array(rows)
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    resemblance = np.sort(((rows - centre) / spread).sum(axis=1))
    k = math.floor(0.05 * (len(rows) + 1) + 1e-9) or 1
    images = []
    for feature, logits, c in zip(evidence.features, evidence.logits, prediction, strict=True):
        similarities = {
            e: unit(np.asarray(feature, dtype=float))
            @ unit(raw[y == e].sum(axis=0))
            * length(counts[e])
            for e in range(n_classes)
            if counts[e]
        }
        terms = (similarities.get(c, np.nan), logits[c], max(similarities.values()))
        images.append(((np.array(terms) - centre) / spread).sum())
    return resemblance[k - 1], k / (len(rows) + 1), np.array(images)


@pytest.mark.parametrize("counts", [[10, 10, 10], [4, 9, 1, 12], [2, 30], [25], [6, 0, 20]])
def test_resemblance_and_threshold_are_what_they_are_said_to_be(counts):
    evidence, _ = world(counts)
    prediction = evidence.logits.argmax(axis=1)
    below, share, expected = by_hand(evidence, prediction, len(counts))
    gate = OODGate.of_shots(evidence)
    assert gate.threshold.below == pytest.approx(below)
    assert gate.threshold.false_flags == pytest.approx(share)
    judged = gate.judge(prototype_similarities(evidence), evidence.logits, prediction)
    np.testing.assert_allclose(judged.of_label, expected, rtol=1e-9, equal_nan=True)
    seen = ~np.isnan(expected)
    assert judged.eligible[seen].tolist() == (expected[seen] >= below).tolist()
    # A label without examples is eligible where some class is resembled enough.
    assert judged.eligible[~seen].tolist() == (~judged.is_ood[~seen]).tolist()
    # What resembles no class resembles its label no more.
    assert not (judged.is_ood & judged.eligible).any()


def test_out_of_distribution_is_what_resembles_no_class():
    evidence, _ = world([10, 10, 10], seed=3, n=300)
    gate, cosines = OODGate.of_shots(evidence), prototype_similarities(evidence)
    passes = [gate.judge(cosines, evidence.logits, np.full(300, c)).eligible for c in range(3)]
    judged = gate.judge(cosines, evidence.logits, np.zeros(300, dtype=int))
    assert judged.is_ood.tolist() == (~np.any(passes, axis=0)).tolist()
    assert 0 < judged.is_ood.sum() < (~judged.eligible).sum()


@pytest.mark.parametrize("per_class", [2, 4, 16])
def test_right_labels_of_images_like_the_shots_are_stopped_as_rarely_as_stated(per_class):
    """Over draws; prototypes of one shot less are not taken for those of all."""
    stopped = []
    for seed in range(60):
        evidence, truth = world([per_class] * 10, seed=seed, n=200)
        gate = OODGate.of_shots(evidence)
        judged = gate.judge(prototype_similarities(evidence), evidence.logits, truth)
        stopped.append((~judged.eligible).mean())
    assert np.mean(stopped) == pytest.approx(0.05, abs=0.02)


def test_few_shots_stop_nothing():
    for counts in ([1] * 40, [6, 6, 6], [18, 1]):
        evidence, _ = world(counts)
        gate = OODGate.of_shots(evidence)
        assert not gate.active
        judged = gate.judge(
            prototype_similarities(evidence), evidence.logits - 1e9, np.zeros(60, dtype=int)
        )
        assert judged.eligible.all()
        assert not judged.is_ood.any()
    assert OODGate.of_shots(world([19])[0]).active


def test_images_far_from_all_shots_are_stopped():
    evidence, _ = world([10, 10, 10])
    gate = OODGate.of_shots(evidence)
    far = -evidence.support_features
    bank = PrototypeBank().fit(evidence.support_features, evidence.support_labels)
    judged = gate.judge(bank.similarities(far), np.zeros((30, 3)), np.zeros(30, dtype=int))
    assert judged.is_ood.mean() > 0.8


def test_the_former_gate_and_none():
    evidence, _ = world([20, 20])
    former = OODGate.of_shots(evidence, "nearest")
    assert former.active
    cosines = np.array([[0.1, former.nearest.below - 1e-9], [former.nearest.below, -1.0]])
    judged = former.judge(cosines.clip(max=1), np.zeros((2, 2)), np.array([0, 1]))
    assert judged.eligible.tolist() == [bool(former.nearest.below <= 0.1), True]
    assert not OODGate.of_shots(evidence, "none").active
    with pytest.raises(InputError, match="label, nearest, none"):
        OODGate.of_shots(evidence, "nearest one")


def test_other_classes_take_what_the_text_likes_better():
    others = OtherClasses(("room", "street"), np.eye(3)[1:].astype(np.float32), 10.0)
    gate = OODGate(others=others)
    images = np.array([[0.6, 0.8, 0.0], [0.6, 0.0, 0.8], [0.8, 0.6, 0.0], [0.8, 0.0, 0.6]])
    logits = 10 * images[:, :1]
    judged = gate.judge(np.full((4, 1), np.nan), logits, np.zeros(4, dtype=int), images)
    assert gate.active
    assert judged.other.tolist() == [0, 1, -1, -1]
    assert judged.eligible.tolist() == [False, False, True, True]
    assert judged.is_ood.tolist() == [True, True, False, False]
    z = np.exp([8.0, 0.0, 6.0])
    assert judged.other_score[0] == pytest.approx(z[0] / z.sum(), rel=1e-6)
    as_good = gate.judge(logits * np.nan, 10 * images[:, 1:2], np.zeros(4, dtype=int), images)
    assert as_good.other.tolist() == [-1, 1, -1, 1], "it has to be liked better, not as well"


def test_the_price_is_counted_in_words():
    eligible, correct = np.r_[np.zeros(2), np.ones(38)], np.r_[1, 0, np.ones(38)]
    assert gate_statement(eligible, correct) == (
        "the out-of-distribution gate sends 1 of 39 right labels (2.6 %) and 1 of 1 wrong one to "
        "review"
    )
    dear = gate_statement(np.zeros(4), np.ones(4))
    assert "4 of 4 right labels (100 %)" in dear
    assert "--no-gate" in dear
    assert "0 of 0 right labels (0 %)" in gate_statement([True], [False])


def test_a_batch_looks_mixed_where_some_images_fit_no_text():
    rng = np.random.default_rng(0)
    clean = rng.normal([29.0, 20.0], 2.0, size=(200, 2))
    assert not looks_mixed(clean)
    assert looks_mixed(np.r_[clean, clean[:130] - [7, 0]])
    assert not looks_mixed(np.r_[np.full((15, 2), 30.0), np.full((14, 2), 15.0)])  # too few
    assert looks_mixed(np.r_[np.full((15, 2), 30.0), np.full((15, 2), 15.0)])


def test_copies_of_shots_set_no_stricter_gate():
    shots, _ = world([6, 6, 6, 6])
    rows = np.repeat(np.arange(24), 5)
    names = ("support_features", "support_labels", "support_logits")
    copied = Evidence.of(
        logits=np.empty((0, 4)), **{name: getattr(shots, name)[rows] for name in names}
    )
    gate, expected = OODGate.of_shots(copied), OODGate.of_shots(shots)
    assert expected.active
    assert gate.threshold.below == pytest.approx(expected.threshold.below, abs=1e-6)
    np.testing.assert_allclose(gate.lengths, expected.lengths, atol=1e-6)
    few = Evidence.of(
        logits=np.empty((0, 4)),
        **{name: getattr(shots, name)[np.repeat(np.arange(0, 24, 6), 20)] for name in names},
    )
    assert not OODGate.of_shots(few).active, "one picture a class shows nothing"
