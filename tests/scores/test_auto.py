"""The scores that weigh text, shots and batch by themselves, against slow and obvious versions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from made_evidence import case
from trustvlm import metrics, scores
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores.arrays import log_odds
from trustvlm.scores.auto import fit_auto
from trustvlm.scores.base_scorers import discriminant, prototypes, ridge, scale_of
from trustvlm.scores.stacking import fit_weights, text_scale

seeds = st.integers(0, 5_000)
WITH_SHOTS = ("auto", "auto_star", "auto_adapted", "auto_adapted_star")
OF_THE_BATCH = ("auto_unlabelled", "auto_unlabelled_star")
ALL = WITH_SHOTS + OF_THE_BATCH


def used(name, evidence):
    if name in WITH_SHOTS:
        return evidence
    return {key: evidence[key] for key in ("logits", "features")}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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


@given(seeds)
def test_log_odds_are_those_of_the_softmax(seed):
    rng = np.random.default_rng(seed)
    logits, prediction = rng.normal(size=(6, 5)) * 3, rng.integers(5, size=6)
    p = softmax(logits, axis=1)[np.arange(6), prediction]
    np.testing.assert_allclose(log_odds(logits, prediction), np.log(p / (1 - p)), atol=1e-9)


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


def obvious_tables(fit, strength, rows, labels, n_classes, folds):
    """Evidence for shots held out, and for all rows by the fit to all shots."""
    table = np.empty((len(labels), n_classes))
    for f in range(folds.max() + 1):
        [scorer] = fit(rows[folds != f], labels[folds != f], n_classes, [strength])
        table[folds == f] = scorer.evidence(rows[folds == f])
    [scorer] = fit(rows, labels, n_classes, [strength])
    return table, scorer


def test_it_is_a_weighted_sum_whose_weights_fit_the_held_out_shots():
    """All written out, but for the strengths of regularisation, of which each is tried."""
    evidence, _ = case(5, n_classes=3, per_class=4)
    labels, z = evidence["support_labels"], evidence["support_logits"]
    shots, images = unit(evidence["support_features"]), unit(evidence["features"])
    folds = np.empty(12, dtype=int)
    for c in range(3):
        own = np.flatnonzero(labels == c)
        folds[own[np.argsort(shots[own, 0])]] = np.arange(4)

    def posterior(exponent):
        t = np.exp(exponent)
        return np.log(softmax(t * z, axis=1)[np.arange(12), labels]).sum() - (
            (exponent - np.log(0.6)) ** 2 / 2
        )

    grid = np.linspace(-3, 3, 20001)
    t = np.exp(grid[np.argmax([posterior(exponent) for exponent in grid])])

    def spread(table):
        wrong = table[~np.eye(3, dtype=bool)[labels]].reshape(12, 2)
        return (wrong - wrong.mean(axis=1, keepdims=True)).std()

    def loss(table):
        scale = np.geomspace(0.05, 200, 4000)
        own = [
            -np.log(softmax(s * table / table.std(), axis=1)[np.arange(12), labels]).mean()
            for s in scale
        ]
        return min(own)

    scale = scale_of(shots)
    tables, answers = [z], [evidence["logits"]]
    for fit, strengths, rows, new in (
        (prototypes, [0.0], shots / scale, images / scale),
        (ridge, np.geomspace(0.3, 30, 5), shots / scale, images / scale),
        (discriminant, np.geomspace(0.1, 100, 7), shots, images),
    ):
        tried = [obvious_tables(fit, s, rows, labels, 3, folds) for s in strengths]
        table, scorer = min(tried, key=lambda one: loss(one[0]))
        tables.append(table / spread(table))
        answers.append(scorer.evidence(new) / spread(table))
    centre = np.array([0.9 * t / (1 + 0.08 * 3), 0.3, 0.3, 0.3])
    weights = fit_weights(tables, labels, centre, np.array([0.3 * t, 0.3, 0.3, 0.3]))
    expected = sum(w * answer for w, answer in zip(weights, answers, strict=True))
    model = fit_auto(scores.Evidence.of(**evidence))
    logits = model.logits(scores.Evidence.of(**evidence))
    np.testing.assert_allclose(
        logits - logits.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=2e-3,
    )


def test_a_single_shot_corrects_a_label_only_at_odds_of_two():
    evidence, _ = case(6, n=400, per_class=1)
    model = fit_auto(scores.Evidence.of(**evidence))
    logits = model.logits(scores.Evidence.of(**evidence))
    vlm, best = evidence["logits"].argmax(axis=1), logits.argmax(axis=1)
    ahead = logits[np.arange(400), best] - logits[np.arange(400), vlm]
    result = scores.compute("auto_star", **evidence)
    kept = (best != vlm) & (ahead < np.log(2))
    assert kept.any()
    assert (ahead >= np.log(2)).any()
    np.testing.assert_array_equal(result.prediction, np.where(ahead >= np.log(2), best, vlm))
    assert (result.confidence[kept] < 0).all()
    twice, _ = case(6, n=400, per_class=2, signal=0.5)
    logits = fit_auto(scores.Evidence.of(**twice)).logits(scores.Evidence.of(**twice))
    vlm, best = twice["logits"].argmax(axis=1), logits.argmax(axis=1)
    ahead = logits[np.arange(400), best] - logits[np.arange(400), vlm]
    assert ((best != vlm) & (ahead < np.log(2))).any()
    np.testing.assert_array_equal(
        scores.compute("auto_star", **twice).prediction, logits.argmax(axis=1)
    )


def test_a_space_that_is_the_vlms_own_counts_once():
    evidence, _ = case(8)
    same = {
        "image_embeddings": 3.0 * evidence["features"],
        "support_image_embeddings": 2.0 * evidence["support_features"],
    }
    np.testing.assert_array_equal(
        scores.compute("auto", **evidence, **same).confidence,
        scores.compute("auto", **evidence).confidence,
    )


def test_at_one_shot_the_weights_are_those_of_the_prior():
    evidence, _ = case(9, n=20, n_classes=5, per_class=1)
    rng = np.random.default_rng(0)
    evidence["image_embeddings"] = rng.normal(size=(20, 6))
    evidence["support_image_embeddings"] = rng.normal(size=(5, 6))
    z, labels = evidence["support_logits"], evidence["support_labels"]
    # The text has not seen the shots, so these tell how sharp it is.
    scale = text_scale(z, labels)
    assert scale != pytest.approx(0.6, rel=0.01)
    expected = 0.9 * scale * evidence["logits"]
    for space, weight in (("features", 0.3), ("image_embeddings", 0.09)):
        shots, new = unit(evidence[f"support_{space}"]), unit(evidence[space])
        each = scale_of(shots)
        for fit, strength, rows, images in (
            (prototypes, 0.0, shots / each, new / each),
            (ridge, np.geomspace(0.3, 30, 5)[2], shots / each, new / each),
            (discriminant, np.geomspace(0.1, 100, 7)[3], shots, new),
        ):
            [scorer] = fit(rows, labels, 5, [strength])
            wrong = scorer.evidence(rows)[~np.eye(5, dtype=bool)].reshape(5, 4)
            spread = (wrong - wrong.mean(axis=1, keepdims=True)).std()
            expected += weight * scorer.evidence(images) / spread
    checked = scores.Evidence.of(**evidence)
    np.testing.assert_allclose(fit_auto(checked).logits(checked), expected, atol=1e-6)


@pytest.mark.parametrize("name", WITH_SHOTS)
@pytest.mark.parametrize("per_class", [1, 3])
def test_copies_of_shots_count_once(name, per_class):
    evidence, _ = case(6, n=60, per_class=per_class)
    expected = scores.compute(name, **evidence)
    rng = np.random.default_rng(0)
    copied = np.arange(len(evidence["support_labels"])).repeat(
        np.where(evidence["support_labels"] < 2, 20, 1)
    )
    rows = rng.permutation(copied)
    many = {k: v[rows] if k.startswith("support") else v for k, v in evidence.items()}
    # Stored with other settings, a picture differs a little.
    many["support_features"] = many["support_features"] + 1e-4 * rng.normal(size=(len(rows), 8))
    result = scores.compute(name, **many)
    np.testing.assert_allclose(result.confidence, expected.confidence, atol=0.02)
    np.testing.assert_array_equal(result.prediction, expected.prediction)
    # The same picture under another class is no copy: it contradicts the first.
    other = {
        k: np.concatenate([v, v[:1]]) if k.startswith("support") else v for k, v in evidence.items()
    }
    other["support_labels"][-1] = 1
    assert np.abs(scores.compute(name, **other).confidence - expected.confidence).max() > 0.02


def test_a_class_without_shots_is_as_probable_as_the_others_on_average():
    evidence, _ = case(2, absent=(1,))
    checked = scores.Evidence.of(**evidence)
    model = fit_auto(checked)
    visual = model.logits(checked) - model.text * evidence["logits"]
    others = np.exp(visual[:, [0, 2, 3]]).mean(axis=1)
    np.testing.assert_allclose(visual[:, 1], np.log(others), atol=1e-9)


def test_a_shift_is_in_units_of_the_scale_of_each_dimension():
    evidence, _ = case(3)
    model = fit_auto(scores.Evidence.of(**evidence)).spaces["features"]
    rows, shift = unit(evidence["features"]), np.linspace(-1, 1, 8)
    np.testing.assert_allclose(
        model.evidence(rows, shift), model.evidence(rows - shift * model.scale), atol=1e-12
    )


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
