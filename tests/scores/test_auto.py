"""The scores that weigh text, shots and batch by themselves, against slow and obvious versions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import Ridge

from trustvlm import metrics, scores
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores.auto import fit_auto
from trustvlm.scores.held_out import (
    BASE_SCORERS,
    balanced_subset,
    evidence_scale,
    fit_weights,
    log_odds,
    neighbours,
    prototypes,
    ridge,
)
from trustvlm.scores.transductive import Batch, ShotSpread, batch_weight, shift_of

seeds = st.integers(0, 5_000)
WITH_SHOTS = ("auto", "auto_star", "auto_adapted", "auto_adapted_star")
OF_THE_BATCH = ("auto_unlabelled", "auto_unlabelled_star")
ALL = WITH_SHOTS + OF_THE_BATCH


def case(seed, n=40, n_classes=4, d=8, per_class=5, absent=(), signal=2.0, shift=0.0):
    """Classes with means of their own in image space, and logits that know a little of them."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_classes, d))
    truth = rng.integers(n_classes, size=n)
    labels = np.array([c for c in np.repeat(np.arange(n_classes), per_class) if c not in absent])

    def seen(classes, moved=0.0):
        return signal * means[classes] + rng.normal(size=(len(classes), d)) + 0.5 + moved

    def text_logits(classes):
        return 1.5 * np.eye(n_classes)[classes] + rng.normal(size=(len(classes), n_classes))

    evidence = {
        "logits": text_logits(truth),
        "features": seen(truth, shift),
        "support_features": seen(labels),
        "support_labels": labels,
        "support_logits": text_logits(labels),
    }
    return evidence, truth


def used(name, evidence):
    if name in WITH_SHOTS:
        return evidence
    return {key: evidence[key] for key in ("logits", "features")}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(seeds)
@settings(max_examples=20)
def test_held_out_prototypes_are_those_of_the_other_shots(seed):
    rng = np.random.default_rng(seed)
    shots, labels = rng.normal(size=(9, 5)), np.repeat([0, 1, 2], 3)
    _, held_out = prototypes(shots, labels, 3)
    rows = unit(shots - shots.mean(axis=0))
    for i in range(9):
        others = np.arange(9) != i
        for c in range(3):
            mean = rows[others & (labels == c)].mean(axis=0)
            expected = rows[i] @ mean / np.linalg.norm(mean)
            assert held_out[i, c] == pytest.approx(expected, abs=1e-9)


@given(seeds)
@settings(max_examples=20)
def test_held_out_neighbours_are_the_other_shots(seed):
    rng = np.random.default_rng(seed)
    shots, labels = unit(rng.normal(size=(8, 5))), np.repeat([0, 1], 4)
    scorer, held_out = neighbours(shots, labels, 2)
    for i in range(8):
        for c in range(2):
            near = shots[(np.arange(8) != i) & (labels == c)] @ shots[i]
            expected = np.log(np.exp(10 * near).mean()) / 10
            assert held_out[i, c] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(
        scorer.evidence(shots[:1])[0, 0], np.log(np.exp(10 * shots[:4] @ shots[0]).mean()) / 10
    )


@pytest.mark.parametrize("d", [4, 20])
@given(seed=seeds)
@settings(max_examples=5)
def test_held_out_ridge_is_a_fit_without_the_shot(d, seed):
    """Scikit-learn refits without shot i; the centre of rows and targets stays, as documented."""
    rng = np.random.default_rng(seed)
    shots, labels = rng.normal(size=(12, d)), np.repeat([0, 1, 2], 4)
    scorer, held_out_by_press = ridge(shots, labels, 3)
    rows = shots - shots.mean(axis=0)
    rows /= np.sqrt((rows**2).sum(axis=1).mean())
    targets = np.eye(3)[labels] - 1 / 3
    errors = {}
    for penalty in np.geomspace(0.3, 30.0, 5):
        held_out = np.empty((12, 3))
        for i in range(12):
            rest = np.arange(12) != i
            model = Ridge(alpha=penalty, fit_intercept=False).fit(rows[rest], targets[rest])
            held_out[i] = model.predict(rows[i : i + 1])[0]
        errors[penalty] = ((held_out - targets) ** 2).sum(), held_out
    best = min(errors, key=lambda penalty: errors[penalty][0])
    np.testing.assert_allclose(held_out_by_press, errors[best][1], atol=1e-8)
    whole = Ridge(alpha=best, fit_intercept=False).fit(rows, targets)
    np.testing.assert_allclose(scorer.evidence(shots), whole.predict(rows), atol=1e-8)


@pytest.mark.parametrize("d", [4, 20])
@pytest.mark.parametrize("make", BASE_SCORERS)
def test_some_shots_are_held_out_as_among_all(make, d):
    """The shots stand in no order, and one class has a single shot."""
    rng = np.random.default_rng(d)
    shots, labels = rng.normal(size=(13, d)), np.array([2, 0, 1, 0, 4, 1, 2, 0, 1, 2, 0, 1, 2])
    scorer, of_all = make(shots, labels, 5)
    some = np.array([11, 0, 4, 7])
    same, of_some = make(shots, labels, 5, some)
    if make is not ridge:  # whose penalty is that of the smallest error on those held out
        np.testing.assert_allclose(of_some, of_all[some], atol=1e-12)
        np.testing.assert_array_equal(same.evidence(shots), scorer.evidence(shots))
        return
    rows = shots - shots.mean(axis=0)
    rows /= np.sqrt((rows**2).sum(axis=1).mean())
    targets = np.eye(5)[labels] - np.bincount(labels, minlength=5) / 13
    errors = {}
    for penalty in np.geomspace(0.3, 30.0, 5):
        inverse = np.linalg.inv(rows.T @ rows + penalty * np.eye(d))
        hat = rows @ inverse @ rows.T
        answers = (hat @ targets - np.diag(hat)[:, None] * targets) / (1 - np.diag(hat))[:, None]
        errors[penalty] = ((answers - targets)[some] ** 2).sum(), answers[some]
    expected = min(errors.values(), key=lambda error: error[0])[1]
    np.testing.assert_allclose(of_some, expected * np.array([1, 1, 1, 0, 1]), atol=1e-8)


@given(seeds, st.integers(1, 30))
def test_a_subset_has_as_many_shots_of_each_class_as_of_the_others(seed, most):
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=25)
    chosen = balanced_subset(labels, most)
    assert len(chosen) == len(set(chosen)) == min(most, 25)
    assert (np.diff(chosen) > 0).all()
    taken, there = np.bincount(labels[chosen], minlength=6), np.bincount(labels, minlength=6)
    least = min((taken[c] for c in range(6) if taken[c] < there[c]), default=25)
    assert taken.max() <= least + 1
    for c in range(6):  # the first of each class
        np.testing.assert_array_equal(
            chosen[labels[chosen] == c], np.flatnonzero(labels == c)[: taken[c]]
        )


def test_shots_that_stand_for_others_count_as_often():
    rng = np.random.default_rng(0)
    tables, labels = rng.normal(size=(2, 300, 3)), rng.integers(3, size=300)
    tables[:, np.arange(300), labels] += 1.0
    prior = np.array([0.1, 2.0]), np.array([0.1, 0.1])
    twice = fit_weights(np.tile(tables, (1, 2, 1)), np.tile(labels, 2), *prior)
    np.testing.assert_allclose(fit_weights(tables, labels, *prior, each=2.0), twice, rtol=1e-4)
    assert np.abs(fit_weights(tables, labels, *prior) - twice).max() > 0.05


def test_weights_of_many_shots_are_fitted_on_some_of_them(monkeypatch):
    evidence, _ = case(0, n=200, n_classes=6, per_class=60, signal=0.5)
    whole = scores.compute("auto_star", **evidence)
    monkeypatch.setattr("trustvlm.scores.auto._TABLE_ENTRIES", 6 * 150)
    result = scores.compute("auto_star", **evidence)
    assert 0 < np.abs(result.confidence - whole.confidence).mean() < 0.4
    assert (result.prediction == whole.prediction).mean() > 0.9
    monkeypatch.setattr("trustvlm.scores.auto._TABLE_ENTRIES", 6 * 360)
    same = scores.compute("auto_star", **evidence)
    np.testing.assert_array_equal(same.confidence, whole.confidence)


@pytest.mark.parametrize("absent", [(), (1, 5)])
def test_classes_that_are_out_of_the_question_need_not_be_compared(monkeypatch, absent):
    evidence, _ = case(5, n=300, n_classes=40, d=30, per_class=6, signal=1.2, absent=absent)
    rng = np.random.default_rng(0)
    evidence["image_embeddings"] = rng.normal(size=(300, 5))
    order = rng.permutation(len(evidence["support_labels"]))
    evidence["support_image_embeddings"] = rng.normal(size=(len(order), 5))
    evidence = {k: v[order] if k.startswith("support") else v for k, v in evidence.items()}
    whole = {name: scores.compute(name, **evidence) for name in ("auto", "auto_star")}
    monkeypatch.setattr("trustvlm.scores.auto._ALL_COMPARED", 0)
    monkeypatch.setattr("trustvlm.scores.held_out._MOST_PAIRS", 200)
    for name, exact in whole.items():
        result = scores.compute(name, **evidence)
        assert (result.prediction == exact.prediction).mean() > 0.99
        off = np.abs(result.confidence - exact.confidence)
        assert 0 < off.mean() < 0.02
        assert off.max() < 0.2
        alone = {k: v if k.startswith("support") else v[7:8] for k, v in evidence.items()}
        np.testing.assert_allclose(
            scores.compute(name, **alone).confidence, result.confidence[7:8], atol=1e-9
        )


def test_what_a_stand_in_leaves_out_is_put_in_where_classes_are_compared(monkeypatch):
    """With a margin that no class is beyond, all are compared, and the answer is the exact one."""
    evidence, _ = case(6, n=50, n_classes=9, d=12)
    exact = scores.compute("auto_star", **evidence)
    monkeypatch.setattr("trustvlm.scores.auto._ALL_COMPARED", 0)
    monkeypatch.setattr("trustvlm.scores.auto._MARGIN", 1e9)
    result = scores.compute("auto_star", **evidence)
    np.testing.assert_allclose(result.confidence, exact.confidence, atol=1e-9)


def test_pairs_are_entries_of_the_table():
    rng = np.random.default_rng(1)
    shots, labels = rng.normal(size=(30, 6)), rng.permutation(np.repeat([0, 1, 1, 3, 4], 6))
    scorer, _ = neighbours(shots, labels, 5)
    rows = rng.normal(size=(7, 6))
    images, classes = np.array([0, 3, 6, 2, 3, 5]), np.array([0, 0, 1, 3, 3, 4])
    np.testing.assert_allclose(
        scorer.pairs(scorer.inputs(rows), images, classes), scorer.evidence(rows)[images, classes]
    )


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


@given(seeds)
def test_log_odds_are_those_of_the_softmax(seed):
    rng = np.random.default_rng(seed)
    logits, prediction = rng.normal(size=(6, 5)) * 3, rng.integers(5, size=6)
    p = softmax(logits, axis=1)[np.arange(6), prediction]
    np.testing.assert_allclose(log_odds(logits, prediction), np.log(p / (1 - p)), atol=1e-9)


def test_scale_of_evidence_leaves_out_the_true_class():
    assert evidence_scale(np.array([[5.0, 1.0, 3.0], [0.0, 9.0, 2.0]]), np.array([0, 1])) == 1.0
    assert evidence_scale(np.zeros((3, 3)), np.array([0, 1, 2])) == 1.0


@given(seeds, st.sampled_from(("auto", "auto_adapted", "auto_unlabelled")))
@settings(max_examples=30)
def test_the_plain_modes_keep_the_prediction(seed, name):
    evidence, _ = case(seed)
    result = scores.compute(name, **used(name, evidence))
    np.testing.assert_array_equal(result.prediction, evidence["logits"].argmax(axis=1))


@given(seeds, st.sampled_from(ALL))
@settings(max_examples=30)
def test_the_order_of_images_and_shots_does_not_matter(seed, name):
    evidence, _ = case(seed)
    whole = scores.compute(name, **used(name, evidence))
    rng = np.random.default_rng(seed)
    images, shots = rng.permutation(40), rng.permutation(len(evidence["support_labels"]))
    moved = {k: v[shots if k.startswith("support") else images] for k, v in evidence.items()}
    result = scores.compute(name, **used(name, moved))
    np.testing.assert_allclose(result.confidence, whole.confidence[images], atol=1e-5)


@pytest.mark.parametrize("name", ["auto", "auto_star"])
def test_a_verdict_does_not_depend_on_the_other_images(name):
    evidence, _ = case(3)
    whole = scores.compute(name, **evidence)
    alone = {k: v if k.startswith("support") else v[:1] for k, v in evidence.items()}
    np.testing.assert_allclose(
        scores.compute(name, **alone).confidence, whole.confidence[:1], atol=1e-9
    )


@pytest.mark.parametrize("name", ALL)
def test_it_beats_the_softmax_alone_on_classes_that_can_be_seen(name):
    ratios = []
    for seed in range(4):
        evidence, truth = case(seed, n=200, per_class=8)
        result = scores.compute(name, **used(name, evidence))
        plain = scores.compute("msp", logits=evidence["logits"])
        before = metrics.aurc(plain.confidence, plain.prediction == truth)
        ratios.append(metrics.aurc(result.confidence, result.prediction == truth) / before)
    assert np.mean(ratios) < 0.9


@pytest.mark.parametrize("name", WITH_SHOTS)
@pytest.mark.parametrize(
    "options",
    [
        {"per_class": 1},
        {"per_class": 2},
        {"absent": (1,)},
        {"absent": (0, 1, 2)},
        {"n": 1},
        {"n": 0},
        {"n_classes": 2},
        {"n_classes": 1},
        {"n_classes": 1, "per_class": 1},
    ],
)
def test_few_shots_classes_and_images_have_a_finite_answer(name, options):
    evidence, _ = case(1, **options)
    result = scores.compute(name, **evidence)
    assert result.confidence.shape == (options.get("n", 40),)
    assert np.isfinite(result.confidence).all()


@pytest.mark.parametrize("name", WITH_SHOTS)
def test_identical_shots_have_a_finite_answer(name):
    evidence, _ = case(1, per_class=3)
    evidence["support_features"] = np.ones_like(evidence["support_features"])
    assert np.isfinite(scores.compute(name, **evidence).confidence).all()


def test_single_shots_have_no_say_in_the_weights():
    """Held out, such a shot leaves its class without any: it would speak against the examples."""
    evidence, _ = case(3, per_class=6)
    labels, z = evidence["support_labels"], evidence["support_logits"]
    kept = np.flatnonzero((labels != 3) | (np.arange(len(labels)) == len(labels) - 1))
    for key in ("support_features", "support_labels", "support_logits"):
        evidence[key] = evidence[key][kept]
    labels, z = evidence["support_labels"], evidence["support_logits"]
    usable = labels != 3
    model = fit_auto(scores.Evidence.of(**evidence))
    rows = unit(evidence["support_features"]) / model.scales["features"]
    text = fit_weights(z[None], labels, np.array([0.3]), np.array([0.5]))[0]
    prior = np.array([0.5 * text, 1.0]), np.array([text, 0.5])
    for k, (make, mix) in enumerate(zip(BASE_SCORERS, model.mixes, strict=True)):
        _, held_out = make(rows, labels, 4)
        scale = evidence_scale(held_out, labels)
        tables = np.stack([z, held_out / scale])
        weights = np.array([mix.text, mix.weights[k] * scale])
        expected = fit_weights(tables[:, usable], labels[usable], *prior)
        np.testing.assert_allclose(weights, expected, rtol=1e-9)
        assert np.abs(fit_weights(tables, labels, *prior) - expected).max() > 0.01


def test_a_class_without_shots_can_still_be_predicted():
    evidence, _ = case(2, absent=(1,))
    evidence["logits"][:, 1] = 60.0
    assert (scores.compute("auto_star", **evidence).prediction == 1).all()


def test_the_vlms_own_space_is_used_where_it_is_passed():
    evidence, _ = case(4)
    rng = np.random.default_rng(0)
    own = {
        "image_embeddings": rng.normal(size=(40, 5)),
        "support_image_embeddings": rng.normal(size=(20, 5)),
    }
    with_own = scores.compute("auto", **evidence, **own)
    assert not np.allclose(with_own.confidence, scores.compute("auto", **evidence).confidence)
    with pytest.raises(EvidenceMissingError, match="image_embeddings"):
        scores.compute("auto", **evidence, support_image_embeddings=own["support_image_embeddings"])


@pytest.mark.parametrize("name", WITH_SHOTS)
def test_shots_are_needed(name):
    evidence, _ = case(0)
    none = {k: v[:0] if k.startswith("support") else v for k, v in evidence.items()}
    with pytest.raises(InputError, match="at least one shot"):
        scores.compute(name, **none)


def test_one_image_without_shots_has_the_log_odds_of_its_logits():
    result = scores.compute("auto_unlabelled", logits=[[2.0, 0.0]], features=[[1.0, 0.5]])
    np.testing.assert_allclose(result.confidence, [2.0])


def test_few_images_a_class_leave_the_logits_nearly_alone():
    assert batch_weight(3, 100) < 0.001 < 0.8 < batch_weight(1500, 100)
    evidence, _ = case(0, n=6, n_classes=4)
    few = used("auto_unlabelled", evidence)
    result = scores.compute("auto_unlabelled", **few)
    plain = log_odds(few["logits"], few["logits"].argmax(axis=1))
    assert np.corrcoef(result.confidence, plain)[0, 1] > 0.95


@given(seeds)
@settings(max_examples=15)
def test_batch_prototypes_leave_the_image_itself_out(seed):
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(20, 6)))
    posterior = softmax(rng.normal(size=(20, 3)) * 2, axis=1)
    batch = Batch.of(rows)
    expected = np.empty((20, 3))
    k = round(0.5 * 20 / 3)
    k = max(4, min(16, k))
    for c in range(3):
        surest = np.argsort(-posterior[:, c], kind="stable")[:k]
        for i in range(20):
            others = [j for j in surest if j != i]
            mean = (posterior[others, c, None] * batch.directions[others]).sum(axis=0)
            mass = posterior[others, c].sum()
            expected[i, c] = batch.directions[i] @ mean / np.linalg.norm(mean) * mass / (mass + 1)
    rest = np.sort(expected, axis=1)[:, :-1]
    unit_of = (rest - rest.mean(axis=1, keepdims=True)).std()
    np.testing.assert_allclose(batch.to_prototypes(posterior), expected / unit_of, atol=1e-6)


def test_neighbours_are_the_nearest_others():
    rows = unit(np.random.default_rng(0).normal(size=(60, 5)))
    batch = Batch.of(rows)
    cosines = batch.directions @ batch.directions.T
    np.fill_diagonal(cosines, -np.inf)
    for i in range(60):
        assert set(batch.neighbours[i]) == set(np.argsort(-cosines[i])[:10])
    np.testing.assert_allclose(batch.weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(batch.around(np.full((60, 2), 0.5)), 0.5)


def test_a_shift_of_domain_is_undone_and_other_proportions_are_not():
    shots = ShotSpread(np.zeros(6), np.eye(6)[:, :2], within=0.06, count=100)
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(400, 6))
    away = np.array([0.1, 0.0, 3.0, 0, 0, 0])
    domain = shift_of(noise + away, shots)
    np.testing.assert_allclose(domain, away, atol=0.05)
    other_proportions = shift_of(noise + np.eye(6)[0] * 3, shots)
    assert np.abs(other_proportions).max() < 0.05
    evidence, truth = case(7, n=300, d=30, per_class=16, signal=0.7, shift=np.linspace(-3, 3, 30))
    result = {name: scores.compute(name, **evidence) for name in ("auto_star", "auto_adapted_star")}
    accuracy = {name: (v.prediction == truth).mean() for name, v in result.items()}
    assert accuracy["auto_adapted_star"] > accuracy["auto_star"]


def test_every_expert_answers_for_classes_without_shots():
    shots, labels = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 0, 0, 2, 2, 2])
    for make in BASE_SCORERS:
        scorer, held_out = make(shots, labels, 3)
        np.testing.assert_array_equal(held_out[:, 1], 0.0)
        np.testing.assert_array_equal(scorer.evidence(shots)[:, 1], 0.0)
