"""Published adaptations to an unlabelled batch, against slow versions written from their papers."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from trustvlm import scores
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores import arrays

ADAPTATIONS = ("conf_ot", "lata", "stata")
seeds = st.integers(0, 5_000)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def batch(seed, n=14, n_classes=3, e=4):
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.normal(size=(n, n_classes)) * 2,
        "image_embeddings": rng.normal(size=(n, e)),
        "text_embeddings": rng.normal(size=(n_classes, e)),
    }


def nearest_others(x, k):
    """The k nearest other images of each, nearest first."""
    cosine = x @ x.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(k, len(x) - 1)]


def assert_says(result, posterior):
    np.testing.assert_array_equal(result.prediction, posterior.argmax(axis=1))
    np.testing.assert_allclose(result.confidence, posterior.max(axis=1), rtol=1e-9, atol=1e-12)


@given(seeds, st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 5))
def test_conf_ot_is_sinkhorns_algorithm(seed, epsilon, rounds):
    e = batch(seed)
    plan = np.exp(e["logits"] / epsilon)
    n, n_classes = plan.shape
    for _ in range(rounds):
        plan = plan / plan.sum(axis=0) / n_classes
        plan = plan / plan.sum(axis=1, keepdims=True) / n
    assert_says(scores.compute("conf_ot", epsilon=epsilon, rounds=rounds, **e), n * plan)


def test_conf_ot_comes_to_classes_of_equal_mass():
    e = batch(1, n=30)
    # As one round makes classes equal and images anew, many leave hardly anything to correct.
    few, many = (scores.compute("conf_ot", rounds=r, **e).confidence for r in (300, 301))
    np.testing.assert_allclose(few, many, atol=1e-9)
    # What all images say of a class alike does not matter any more.
    e["logits"] = e["logits"] + [5.0, 0.0, -3.0]
    np.testing.assert_allclose(scores.compute("conf_ot", rounds=300, **e).confidence, few)


def test_conf_ot_takes_logits_of_any_size():
    e = {"logits": np.array([[900.0, 0.0], [901.0, 2.0], [0.0, 5.0]])}
    assert np.isfinite(scores.compute("conf_ot", **e).confidence).all()


@settings(deadline=None)
@given(seeds, st.integers(1, 20), st.floats(0, 3), st.integers(1, 4))
def test_lata_smooths_over_mutual_neighbours(seed, k, smoothing, rounds):
    e = batch(seed)
    x = unit(e["image_embeddings"])
    n, near = len(x), nearest_others(x, k)
    distance = [[np.linalg.norm(x[i] - x[j]) for j in near[i]] for i in range(n)]
    scale = np.median(distance)
    p = softmax(e["logits"], axis=1)
    q = p
    for _ in range(rounds):
        pull = np.zeros_like(p)
        for i in range(n):
            for j in near[i]:
                if i in near[j]:
                    pull[i] += np.exp(-(np.linalg.norm(x[i] - x[j]) ** 2) / scale**2) * q[j]
        q = p * np.exp(smoothing * pull)
        q /= q.sum(axis=1, keepdims=True)
    result = scores.compute("lata", neighbours=k, smoothing=smoothing, rounds=rounds, **e)
    assert_says(result, q)


def test_lata_by_hand():
    e = {
        "logits": np.log([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2]]),
        # The first two are each other's nearest; the third's nearest is the second.
        "image_embeddings": [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
    }
    result = scores.compute("lata", neighbours=1, smoothing=2.0, rounds=1, **e)
    # Distances 0, 0 and sqrt(2): their median is 0, and copies count 1.
    first = np.array([0.6 * np.exp(2 * 0.1), 0.4 * np.exp(2 * 0.9)])
    second = np.array([0.1 * np.exp(2 * 0.6), 0.9 * np.exp(2 * 0.4)])
    assert result.prediction.tolist() == [1, 1, 0]
    expected = [first[1] / first.sum(), second[1] / second.sum(), 0.8]
    np.testing.assert_allclose(result.confidence, expected, rtol=1e-12)


def slow_stata(e, anchor, k, rounds):
    """The released code's loops, image by image and class by class."""
    x, t = unit(e["image_embeddings"]), unit(e["text_embeddings"])
    p = softmax(e["logits"], axis=1)
    n, n_classes = p.shape
    near = nearest_others(x, k)
    w = np.zeros((n, n))
    for i in range(n):
        w[i, near[i]] = x[near[i]] @ x[i]
    z, mu = p, t
    shared = sum(z[i, c] * (x[i] - t[c]) ** 2 for i in range(n) for c in range(n_classes)) / n
    spread = np.array([shared] * n_classes)
    for turn in range(rounds + 1):
        density = np.array(
            [[-0.5 * ((v - mu[c]) ** 2 / spread[c]).sum() for c in range(n_classes)] for v in x]
        )
        for _ in range(5):
            exponent = density + 50 / (2 * k) * (w.T @ z + w @ z)
            exponent -= exponent.max(axis=1, keepdims=True)
            z = p * np.exp(exponent / 50)
            z = z / z.sum(axis=1, keepdims=True)
        if turn == rounds:
            break
        new_mu, new_spread = [], []
        for c in range(n_classes):
            count = (z.argmax(axis=1) == c).sum()
            beta = count / (anchor + count)
            mean = unit(sum(z[i, c] * x[i] for i in range(n)) / z[:, c].sum())
            m = unit(beta * mean + (1 - beta) * t[c])
            around = sum(z[i, c] * (x[i] - m) ** 2 for i in range(n)) / z[:, c].sum()
            new_mu.append(m)
            new_spread.append(beta * around + (1 - beta) * (shared + (t[c] - m) ** 2))
        mu, spread = np.array(new_mu), np.array(new_spread)
    return z


@settings(deadline=None, max_examples=40)
@given(seeds, st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 4), st.integers(1, 4))
def test_stata_is_the_released_loop(seed, anchor, k, rounds):
    e = batch(seed)
    result = scores.compute("stata", anchor=anchor, neighbours=k, rounds=rounds, **e)
    assert_says(result, slow_stata(e, anchor, k, rounds))


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_a_single_image_has_no_batch_to_learn_from(name):
    e = batch(2, n=1)
    result = scores.compute(name, **e)
    assert np.isfinite(result.confidence).all()
    if name != "stata":  # which compares it with the texts
        np.testing.assert_allclose(result.confidence, softmax(e["logits"], axis=1).max(axis=1))
    nothing = {key: rows if key.startswith("text") else rows[:0] for key, rows in e.items()}
    assert scores.compute(name, **nothing).confidence.shape == (0,)


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_copies_of_one_image_agree_and_stay_finite(name):
    e = batch(3, n=1)
    copies = {
        key: rows if key.startswith("text") else np.repeat(rows, 6, axis=0)
        for key, rows in e.items()
    }
    result = scores.compute(name, **copies)
    assert np.isfinite(result.confidence).all()
    assert len(set(result.prediction.tolist())) == 1
    # Which of more copies than neighbours count as near depends on their order.
    tolerance = 0.05 if name == "stata" else 1e-9
    np.testing.assert_allclose(result.confidence, result.confidence[0], rtol=tolerance)


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_dimensions_in_which_nothing_varies_do_no_harm(name):
    e = batch(4)
    wider = {
        key: rows if key == "logits" else np.hstack([rows, np.zeros((len(rows), 2))])
        for key, rows in e.items()
    }
    np.testing.assert_allclose(
        scores.compute(name, **wider).confidence, scores.compute(name, **e).confidence, rtol=1e-9
    )


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_they_see_the_batch_and_may_correct_labels_but_see_no_shots(name):
    score = scores.get(name)
    assert (score.whole_batch, score.corrects, score.log_odds) == (True, True, False)
    assert (score.sees["shots"], score.sees["vision encoder"]) == ("no", "no")
    with pytest.raises(InputError, match="reads all images at once"):
        scores.compute_embedded(name, image_embeddings=np.eye(2), text_embeddings=np.eye(2))


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_blocks_of_memory_change_nothing(name, monkeypatch):
    e = batch(5, n=40)
    whole = scores.compute(name, **e)
    for block_bytes in (1, 2_000):
        monkeypatch.setattr(arrays, "_BLOCK_BYTES", block_bytes)
        result = scores.compute(name, **e)
        np.testing.assert_array_equal(result.prediction, whole.prediction)
        np.testing.assert_allclose(result.confidence, whole.confidence, rtol=1e-9)


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_memory_does_not_grow_with_the_square_of_the_images(name, monkeypatch):
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 2**20)
    e = batch(6, n=3_000)
    tracemalloc.start()
    scores.compute(name, **e)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20  # a table of all pairs has 72 million bytes


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("conf_ot", {"epsilon": 0}),
        ("conf_ot", {"rounds": 0}),
        ("lata", {"neighbours": 0}),
        ("lata", {"rounds": 0}),
        ("stata", {"anchor": 0}),
        ("stata", {"neighbours": 0}),
    ],
)
def test_parameters_out_of_range_are_explained(name, settings):
    with pytest.raises(InputError, match=f"`{next(iter(settings))}`"):
        scores.compute(name, **batch(0), **settings)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("lata", "image_embeddings"),
        ("stata", "image_embeddings"),
        ("stata", "text_embeddings"),
    ],
)
def test_what_is_missing_is_named(name, missing):
    with pytest.raises(EvidenceMissingError, match=f"`{name}` needs `{missing}`"):
        scores.compute(name, **{**batch(0), missing: None})
