"""Scores that use the shots, against the obvious version and independent libraries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import expit, softmax
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from trustvlm import scores
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores import arrays
from trustvlm.scores.gaussians import Rows
from trustvlm.scores.gaussians import ledoit_wolf as shrunk_covariance

seeds = st.integers(0, 5_000)
SHOT_SCORES = (
    "knn", "trust_score", "tip_adapter", "tip_adapter_log_odds", "trine", "trine_vision",
    "mahalanobis", "gda", "gda_log_odds", "icpe", "icpe_vision",
)  # fmt: skip
SPACES = {"": ("image_embeddings", "support_image_embeddings"),
          "_vision": ("features", "support_features")}  # fmt: skip
ALL = tuple(scores.names())


def case(seed, n=7, n_classes=4, d=6, per_class=3, absent=()):
    rng = np.random.default_rng(seed)
    labels = np.array([c for c in np.repeat(np.arange(n_classes), per_class) if c not in absent])
    return {
        "logits": rng.normal(size=(n, n_classes)) * 2,
        "features": rng.normal(size=(n, d)) + 0.3,
        "support_features": rng.normal(size=(len(labels), d)) + 0.3,
        "support_labels": rng.permutation(labels),
        "image_embeddings": rng.normal(size=(n, 5)),
        "text_embeddings": rng.normal(size=(n_classes, 5)),
        "support_image_embeddings": rng.normal(size=(len(labels), 5)),
        "support_logits": rng.normal(size=(len(labels), n_classes)),
    }


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def parts(seed, **options):
    e = case(seed, **options)
    return e, unit(e["features"]), unit(e["support_features"]), e["support_labels"]


@given(seeds)
def test_knn_is_the_weighted_share_of_the_prediction(seed):
    e, x, shots, y = parts(seed)
    result = scores.compute("knn", k=5, **e)
    for i in range(len(x)):
        cosine = shots @ x[i]
        near = np.argsort(-cosine)[:5]
        votes = np.exp(cosine[near] / 0.07)
        share = votes[y[near] == result.prediction[i]].sum() / votes.sum()
        assert result.confidence[i] == pytest.approx(share, abs=1e-9)


@given(seeds)
def test_trust_score_compares_the_distances_to_the_nearest_shots(seed):
    e, x, shots, y = parts(seed)
    result = scores.compute("trust_score", **e)
    is_own, distances = y == result.prediction[:, None], cdist(x, shots)
    own, other = (np.where(chosen, distances, np.inf).min(axis=1) for chosen in (is_own, ~is_own))
    np.testing.assert_allclose(result.confidence, other / own, rtol=1e-6)


@given(seeds)
def test_tip_adapter_adds_the_shots_votes(seed):
    e, x, shots, y = parts(seed)
    result = scores.compute("tip_adapter", alpha=2.0, beta=3.0, **e)
    one_hot = np.eye(4)[y]
    combined = e["logits"] + 2.0 * np.exp(-3.0 * (1 - x @ shots.T)) @ one_hot
    np.testing.assert_array_equal(result.prediction, combined.argmax(axis=1))
    np.testing.assert_allclose(result.confidence, softmax(combined, axis=1).max(axis=1), atol=1e-12)


def slow_trine(e, x, shots, k, decay=0.1):
    """One image at a time, as the released code writes it."""
    texts, y, confidence = unit(e["text_embeddings"]), e["support_labels"], []
    for z, image in zip(e["logits"], x, strict=True):
        yhat = int(np.argmax(z))
        order = sorted(range(len(y)), key=lambda j: (-float(image @ shots[j]), y[j], j))
        support = dict.fromkeys(range(len(z)), 0.0)
        total = 0.0
        for rank, j in enumerate(order[:k]):
            weight = math.exp(-decay * rank) * (1 + image @ shots[j]) / 2
            weight *= (1 + texts[yhat] @ texts[y[j]]) / 2
            support[y[j]] += weight
            total += weight
        own = support.pop(yhat)
        confidence.append((own - max(support.values(), default=0.0)) / total)
    return confidence


@given(
    seeds, st.sampled_from(sorted(SPACES)), st.sampled_from([(), (1,), (0, 3)]), st.integers(1, 14)
)
def test_trine_written_out(seed, variant, absent, k):
    e = case(seed, absent=absent)
    x, shots = (unit(e[piece]) for piece in SPACES[variant])
    result = scores.compute(f"trine{variant}", k=k, **e)
    np.testing.assert_array_equal(result.prediction, e["logits"].argmax(axis=1))
    np.testing.assert_allclose(result.confidence, slow_trine(e, x, shots, k), atol=1e-12)


def test_trine_by_hand():
    e = {
        "logits": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        "image_embeddings": [[1.0, 0.0], [1.0, 0.0]],
        "text_embeddings": [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]],
        # The first two are equally near: the one of the lower class comes first.
        "support_image_embeddings": [[0.0, 1.0], [0.0, -1.0], [1.0, 0.0]],
        "support_labels": [1, 0, 0],
    }
    result = scores.compute("trine", **e)
    first = 1.0 + np.exp(-0.1) / 2  # class 0: the same text, cosines 1 and 0
    second = np.exp(-0.2) / 2 / 2  # class 1: texts at a right angle
    # Of the second image's class there is no shot; the texts of classes 1 and 2 are the same.
    without = -(first / 2) / (first / 2 + np.exp(-0.2) / 2)
    np.testing.assert_allclose(
        result.confidence, [(first - second) / (first + second), without], atol=1e-12
    )


def test_trine_of_shots_that_say_nothing_is_zero():
    e = {
        "logits": [[1.0, 0.0]],
        "image_embeddings": [[1.0, 0.0]],
        "text_embeddings": [[1.0, 0.0], [0.0, 1.0]],
        "support_image_embeddings": [[-1.0, 0.0], [-2.0, 0.0]],
        "support_labels": [0, 1],
    }
    assert scores.compute("trine", **e).confidence.tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("trine", "text_embeddings"),
        ("trine", "image_embeddings"),
        ("trine", "support_image_embeddings"),
        ("trine_vision", "text_embeddings"),
        ("icpe", "image_embeddings"),
        ("icpe", "support_image_embeddings"),
    ],
)
def test_scores_in_the_vlms_space_say_what_they_lack(name, missing):
    with pytest.raises(EvidenceMissingError, match=f"`{name}` needs `{missing}`"):
        scores.compute(name, **{**case(0), missing: None})


@pytest.mark.parametrize("piece", ["image_embeddings", "text_embeddings"])
def test_vectors_without_a_direction_are_refused(piece):
    e = case(0)
    e[piece][1] = 0.0
    for name in ("trine", "icpe", "lata", "stata"):
        with pytest.raises(InputError, match=f"`{piece}` to have a direction, but 1 of"):
            scores.compute(name, **e)


@given(seeds)
def test_log_odds_order_images_whose_softmax_does_not_tie(seed):
    e = case(seed)
    for name in ("gda", "tip_adapter"):
        bounded, free = scores.compute(name, **e), scores.compute(f"{name}_log_odds", **e)
        np.testing.assert_array_equal(bounded.prediction, free.prediction)
        np.testing.assert_allclose(bounded.confidence, expit(free.confidence), atol=1e-12)
        assert not scores.get(f"{name}_log_odds").log_odds  # they are far from calibrated


def test_log_odds_tell_certain_images_apart():
    e = {
        "features": [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]],
        "support_features": [[1.0, 0.0], [0.0, 1.0]],
        "support_labels": [0, 1],
        "logits": [[90.0, 0.0], [80.0, 0.0], [70.0, 0.0]],
    }
    for name in ("gda", "tip_adapter"):
        assert scores.compute(name, **e).confidence.tolist() == [1.0, 1.0, 1.0]
        assert (np.diff(scores.compute(f"{name}_log_odds", **e).confidence) < -9).all()


@given(seeds, st.integers(2, 12), st.integers(1, 9))
def test_ledoit_wolf_equals_scikit_learn(seed, m, d):
    rows = np.random.default_rng(seed).normal(size=(m, d)) * np.arange(1, d + 1)
    expected, _ = ledoit_wolf(rows, assume_centered=True)
    np.testing.assert_allclose(
        shrunk_covariance(Rows(rows)).dense(), expected, rtol=1e-8, atol=1e-10
    )


@given(seeds)
def test_mahalanobis_inverts_the_shared_covariance(seed):
    e, x, shots, y = parts(seed)
    result = scores.compute("mahalanobis", **e)
    means = np.stack([shots[y == c].mean(axis=0) for c in range(4)])
    inverse = np.linalg.inv(ledoit_wolf(shots - means[y], assume_centered=True)[0])
    for i, c in enumerate(result.prediction):
        difference = x[i] - means[c]
        assert result.confidence[i] == pytest.approx(-difference @ inverse @ difference, rel=1e-5)


@pytest.mark.parametrize("per_class", [2, 400])
def test_gda_equals_linear_discriminant_analysis_up_to_its_ridge(per_class):
    e, x, shots, y = parts(0, n=40, d=5, per_class=per_class)
    result = scores.compute("gda", **{**e, "logits": np.zeros((40, 4))})
    means = np.stack([shots[y == c].mean(axis=0) for c in range(4)])
    residuals = shots - means[y]
    sample = residuals.T @ residuals / (len(shots) - 1)
    precision = 5 * np.linalg.inv((len(shots) - 1) * sample + np.trace(sample) * np.eye(5))
    logits = x @ precision @ means.T - 0.5 * np.einsum("cd,de,ce->c", means, precision, means)
    np.testing.assert_allclose(result.confidence, softmax(logits, axis=1).max(axis=1))
    if per_class == 2:
        return
    # With many shots the ridge vanishes, and what is left is scikit-learn's discriminant.
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.25] * 4).fit(shots, y)
    assert np.mean(result.prediction == lda.predict(x)) > 0.95


@given(seeds, st.sampled_from(sorted(SPACES)))
def test_icpe_equals_scipys_gaussians_in_the_principal_subspace(seed, variant):
    e = case(seed, d=5, per_class=4)
    keep = np.flatnonzero((e["support_labels"] != 2) | (np.cumsum(e["support_labels"] == 2) == 1))
    for piece in ("features", "labels", "logits", "image_embeddings"):  # one shot of class 2
        e[f"support_{piece}"] = e[f"support_{piece}"][keep]
    x, shots = (unit(e[piece]) for piece in SPACES[variant])
    y = e["support_labels"]
    result = scores.compute(f"icpe{variant}", components=2, ridge=0.01, **e)
    pca = PCA(2).fit(shots)
    low, low_x = pca.transform(shots), pca.transform(x)
    s_d = np.zeros((len(x), 4))
    s_d[:, [0, 1, 3]] = softmax(
        [
            multivariate_normal(
                low[y == c].mean(axis=0), np.cov(low[y == c].T) + 0.01 * np.eye(2)
            ).logpdf(low_x)
            for c in (0, 1, 3)
        ],
        axis=0,
    ).T
    expected = [
        (softmax(z)[c] + s_d[i, c]) / 2
        for i, (z, c) in enumerate(zip(e["logits"], result.prediction, strict=True))
    ]
    np.testing.assert_allclose(result.confidence, expected, atol=1e-8)


@pytest.mark.parametrize("name", ["icpe", "icpe_vision"])
def test_icpe_with_one_shot_a_class_ranks_as_msp(name):
    e = case(0, n=30, per_class=1)
    half = scores.compute("msp", logits=e["logits"]).confidence / 2
    np.testing.assert_allclose(scores.compute(name, **e).confidence, half, rtol=1e-12)


def test_old_settings_of_icpe_are_refused():
    with pytest.raises(InputError, match="no parameter `shrinkage`; it has `components`, `ridge`"):
        scores.compute("icpe", shrinkage=0.1, **case(0))


@given(seeds)
def test_prototype_margin_and_posterior(seed):
    e, x, _, y = parts(seed)
    prototypes = np.stack([e["support_features"][y == c].mean(axis=0) for c in range(4)])
    cosine = x @ unit(prototypes).T
    margin = scores.compute("prototype_margin", **e)
    posterior = scores.compute("prototype_posterior", temperature=0.1, **e)
    expected = softmax(cosine / 0.1, axis=1)
    for i, c in enumerate(margin.prediction):
        others = np.delete(cosine[i], c)
        assert margin.confidence[i] == pytest.approx(cosine[i, c] - others.max(), abs=1e-12)
        assert posterior.confidence[i] == pytest.approx(expected[i, c], abs=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("absent", [(), (1,), (0, 1, 2)], ids=["all", "one-absent", "one-present"])
def test_every_score_is_finite_for_classes_without_shots(name, absent):
    result = scores.compute(name, **case(3, n=30, absent=absent))
    assert np.isfinite(result.confidence).all()
    assert result.confidence.shape == result.prediction.shape == (30,)
    if not scores.get(name).corrects:
        logits = case(3, n=30, absent=absent)["logits"]
        np.testing.assert_array_equal(result.prediction, logits.argmax(axis=1))


@pytest.mark.parametrize("name", ALL)
def test_one_shot_per_class_one_image_and_one_class(name):
    assert np.isfinite(scores.compute(name, **case(4, per_class=1)).confidence).all()
    assert np.isfinite(scores.compute(name, **case(4, n=1)).confidence).all()
    assert np.isfinite(scores.compute(name, **case(4, n_classes=1)).confidence).all()
    duplicated = case(5)
    duplicated["support_features"][:] = duplicated["support_features"][0]
    assert np.isfinite(scores.compute(name, **duplicated).confidence).all()


@pytest.mark.parametrize("name", ALL)
def test_order_of_images_and_of_shots_does_not_matter(name):
    e = case(6, n=12)
    whole = scores.compute(name, **e)
    images, shots = (
        np.random.default_rng(0).permutation(12),
        np.random.default_rng(1).permutation(12),
    )
    shuffled = {
        key: value[shots] if key.startswith("support") else value[images]
        for key, value in e.items()
        if key != "text_embeddings"
    }
    result = scores.compute(name, **shuffled, text_embeddings=e["text_embeddings"])
    np.testing.assert_array_equal(result.prediction, whole.prediction[images])
    np.testing.assert_allclose(result.confidence, whole.confidence[images], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_blocks_do_not_matter(name, monkeypatch):
    e = case(7, n=40)
    whole = scores.compute(name, **e)
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 1)
    result = scores.compute(name, **e)
    np.testing.assert_allclose(result.confidence, whole.confidence, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SHOT_SCORES)
def test_no_shots_at_all_is_explained(name):
    e = {**case(0), "support_features": np.empty((0, 6)), "support_labels": np.empty(0, int)}
    e |= {"support_image_embeddings": np.empty((0, 5)), "support_logits": None}
    with pytest.raises(InputError, match="at least one shot"):
        scores.compute(name, **e)


def test_text_scores_against_their_formulas():
    e = case(8, n=20)
    z = e["logits"]
    p = softmax(z, axis=1)
    cosine = unit(e["image_embeddings"]) @ unit(e["text_embeddings"]).T
    centred = z - z.mean(axis=1, keepdims=True)
    expected = {
        "maxcosine": cosine.max(axis=1),
        "mcm": softmax(cosine, axis=1).max(axis=1),
        "doctor_alpha": -(1 - (p**2).sum(axis=1)) / (p**2).sum(axis=1),
        "doctor_beta": -(1 - p.max(axis=1)) / p.max(axis=1),
        "gen": -(p**0.1 * (1 - p) ** 0.1).sum(axis=1),
        "pnorm_maxlogit": centred.max(axis=1) / np.linalg.norm(centred, ord=5, axis=1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(scores.compute(name, **e).confidence, value, atol=1e-12)
    top2 = np.sort(p, axis=1)[:, -2:]
    np.testing.assert_allclose(
        scores.compute("gen", logits=z, top=2).confidence,
        -(top2**0.1 * (1 - top2) ** 0.1).sum(axis=1),
    )
    np.testing.assert_allclose(
        scores.compute("maxcosine", logits=z, logit_scale=10).confidence, z.max(axis=1) / 10
    )
    np.testing.assert_allclose(
        scores.compute("mcm", logits=z, logit_scale=10).confidence,
        softmax(z / 10, axis=1).max(axis=1),
    )
    np.testing.assert_allclose(
        scores.compute("mcm", **e, temperature=0.1).confidence,
        softmax(cosine / 0.1, axis=1).max(axis=1),
    )


def test_text_scores_of_narrow_logits_are_those_of_the_same_numbers():
    z = case(8, n=20)["logits"].astype(np.float32)
    for name in ("energy", "entropy", "doctor_alpha", "doctor_beta", "pnorm_maxlogit"):
        narrow, wide = (scores.compute(name, logits=x) for x in (z, z.astype(np.float64)))
        np.testing.assert_allclose(narrow.confidence, wide.confidence, rtol=1e-12, err_msg=name)


def test_scores_of_certainty_keep_their_order_near_certainty():
    z = np.array([[60.0, 0.0], [90.0, 0.0], [200.0, 0.0]])
    for name in ("doctor_alpha", "doctor_beta", "energy", "maxlogit"):
        assert (np.diff(scores.compute(name, logits=z).confidence) > 0).all(), name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("knn", {"k": 0}),
        ("knn", {"temperature": 0}),
        ("trine", {"k": 0}),
        ("icpe", {"components": 0}),
        ("icpe", {"ridge": 0}),
        ("gen", {"gamma": 1}),
        ("gen", {"top": 0}),
        ("mcm", {"temperature": -1}),
        ("maxcosine", {"logit_scale": 0}),
        ("pnorm_maxlogit", {"p": 0}),
        ("prototype_posterior", {"temperature": 0}),
    ],
)
def test_parameters_out_of_range_are_explained(name, settings):
    e = case(0)
    if "logit_scale" in settings:
        e = {"logits": e["logits"]}
    with pytest.raises(InputError, match=f"`{next(iter(settings))}`"):
        scores.compute(name, **e, **settings)
