from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax

from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores import Evidence, apply, arrays, compute, compute_embedded, get, names, sweep
from trustvlm.scores.arrays import softmax, top_probability, zero_shot_logits


def material(seed=0, n=40, n_classes=5, e=7, d=6, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {
        "image_embeddings": rng.normal(size=(n, e)).astype(dtype),
        "text_embeddings": rng.normal(size=(n_classes, e)).astype(dtype),
        "features": rng.normal(size=(n, d)).astype(dtype),
        "support_features": rng.normal(size=(3 * n_classes, d)),
        "support_labels": np.arange(3 * n_classes) % n_classes,
        "support_image_embeddings": rng.normal(size=(3 * n_classes, e)),
    }


def with_logits(arrays, logit_scale):
    texts = arrays["text_embeddings"]
    return {
        **arrays,
        "logits": zero_shot_logits(arrays["image_embeddings"], texts, logit_scale=logit_scale),
        "support_logits": zero_shot_logits(
            arrays["support_image_embeddings"], texts, logit_scale=logit_scale
        ),
    }


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 30.0, 1000.0]),
    n_classes=st.integers(1, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_top_probability_is_the_softmaxs(seed, scale, n_classes, dtype):
    logits = (scale * np.random.default_rng(seed).normal(size=(300, n_classes))).astype(dtype)
    prediction, probability = top_probability(logits)
    expected = scipy_softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_array_equal(prediction, logits.argmax(axis=1))
    np.testing.assert_allclose(
        probability, expected.max(axis=1), rtol=0, atol=2e-6 if dtype == np.float32 else 1e-15
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from("CF"))
def test_the_softmax_is_that_of_every_row(seed, order):
    logits = 30 * np.random.default_rng(seed).normal(size=(3, 150, 4))
    expected = scipy_softmax(logits, axis=-1)
    np.testing.assert_allclose(softmax(np.asarray(logits, order=order)), expected, rtol=1e-12)
    np.testing.assert_allclose(softmax(logits[0, 0]), expected[0, 0], rtol=1e-12)
    assert softmax(np.empty((0, 3))).shape == (0, 3)


def test_float32_logits_do_not_round_certain_predictions_to_ties():
    gaps = np.arange(18.0, 30.0)
    logits = np.stack([gaps, np.zeros_like(gaps)], axis=1).astype(np.float32)
    _, probability = top_probability(logits)
    assert (np.diff(probability) > 0).all()
    assert top_probability(np.array([[0.0, -500.0]], dtype=np.float32))[1].tolist() == [1.0]
    assert [part.shape for part in top_probability(np.empty((0, 3)))] == [(0,), (0,)]


@pytest.mark.parametrize("name", [name for name in names() if not get(name).whole_batch])
def test_embeddings_give_what_their_logits_give(name, monkeypatch):
    given_arrays = material()
    whole = compute(name, **with_logits(given_arrays, 20.0))
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 4096)
    with ThreadPoolExecutor(2) as threads:
        for map_blocks in (map, threads.map):
            outcome = compute_embedded(
                name, **given_arrays, logit_scale=20.0, map_blocks=map_blocks
            )
            np.testing.assert_array_equal(outcome.prediction, whole.prediction)
            np.testing.assert_allclose(outcome.confidence, whole.confidence, atol=1e-9)


def test_float32_embeddings_are_scored_in_float32(tmp_path):
    given_arrays = material(n=200, dtype=np.float32)
    exact = compute("trustvlm", **with_logits(material(n=200), 100.0), weight=0.5)
    file = tmp_path / "images.npy"
    np.save(file, given_arrays["image_embeddings"])
    given_arrays["image_embeddings"] = np.load(file, mmap_mode="r")
    outcome = compute_embedded("trustvlm", **given_arrays, weight=0.5)
    np.testing.assert_array_equal(outcome.prediction, exact.prediction)
    np.testing.assert_allclose(outcome.confidence, exact.confidence, atol=1e-5)


@pytest.mark.parametrize("name", ["image_similarity", "prototype_posterior", "trustvlm_star"])
def test_float32_features_are_compared_in_float32(name):
    given_arrays = material(n=200, dtype=np.float32)
    given_arrays["features"] *= np.geomspace(1e-30, 1e30, 200, dtype=np.float32)[:, None]
    exact = compute(name, **with_logits(given_arrays, 10.0))
    outcome = compute_embedded(name, **given_arrays, logit_scale=10.0)
    np.testing.assert_array_equal(outcome.prediction, exact.prediction)
    np.testing.assert_allclose(outcome.confidence, exact.confidence, atol=1e-4)


@given(st.sampled_from([np.float16, np.float32, np.float64, np.int64]), st.integers(-37, 37))
def test_lengths_are_those_of_the_norm(dtype, exponent):
    rows = np.random.default_rng(0).integers(1, 9, size=(5, 4)).astype(dtype)
    if dtype in (np.float32, np.float64):
        rows *= dtype(10.0**exponent)
    checked, lengths = arrays.rows_and_lengths(rows, "rows")
    assert checked.dtype == lengths.dtype == arrays.as_matrix(rows, "rows").dtype
    expected = np.linalg.norm(rows.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, expected, rtol=1e-6 if dtype != np.float64 else 1e-15)


def test_rows_without_a_length_are_refused():
    rows = np.ones((4, 3), dtype=np.float32)
    rows[2] = 0.0
    with pytest.raises(InputError, match="all zeros, the first is row 2"):
        arrays.rows_and_lengths(rows, "rows")
    rows[1, 1] = np.inf
    with pytest.raises(InputError, match="NaN or infinity, the first is row 1"):
        arrays.rows_and_lengths(rows, "rows")
    with pytest.raises(InputError, match="two dimensions"):
        arrays.rows_and_lengths(rows[0], "rows")


def test_blocks_leave_room_for_a_table_of_images_by_shots(monkeypatch):
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 64 * 1024)
    few, many = (
        Evidence.of(
            logits=np.zeros((100, 2)),
            features=np.ones((100, 3)),
            support_features=np.ones((m, 3)),
            support_labels=np.zeros(m, dtype=int),
        )
        for m in (2, 500)
    )
    assert [block.n for block in few.blocks()] == [100]
    assert {block.n * 500 * 8 * 4 <= 64 * 1024 for block in many.blocks()} == {True}
    assert sum(block.n for block in many.blocks()) == 100


def test_prototypes_that_no_score_asks_for_may_be_lost():
    shots = {"support_features": [[1.0, 0.0], [-1.0, 0.0]], "support_labels": [0, 0]}
    images = {"image_embeddings": np.eye(2), "text_embeddings": np.eye(2), "features": np.eye(2)}
    assert compute_embedded("msp", **images, **shots).prediction.tolist() == [0, 1]
    with pytest.raises(InputError, match="cancel each other"):
        compute_embedded("trustvlm", **images, **shots)


def test_embeddings_that_do_not_fit_are_refused():
    given_arrays = material()
    with pytest.raises(InputError, match="all images at once"):
        compute_embedded("auto_unlabelled", **given_arrays)
    with pytest.raises(InputError, match="7 columns like `text_embeddings`"):
        compute_embedded("msp", **{**given_arrays, "image_embeddings": np.ones((40, 3))})
    with pytest.raises(InputError, match="40 rows like `image_embeddings`, but got 39"):
        compute_embedded("msp", **{**given_arrays, "features": np.ones((39, 6))})
    with pytest.raises(InputError, match="3 columns like `features`, but got 6"):
        compute_embedded("trustvlm", **{**given_arrays, "features": np.ones((40, 3))})
    spoilt = given_arrays["image_embeddings"].copy()
    spoilt[3] = np.nan
    with pytest.raises(InputError, match=r"image_embeddings\[0:40\].*row 3"):
        compute_embedded("msp", **{**given_arrays, "image_embeddings": spoilt})
    with pytest.raises(EvidenceMissingError, match="`bank`"):
        compute_embedded(
            "trustvlm",
            image_embeddings=np.eye(2),
            text_embeddings=np.eye(2),
            features=np.eye(2),
        )
    nothing = compute_embedded("msp", image_embeddings=np.empty((0, 2)), text_embeddings=np.eye(2))
    assert nothing.prediction.shape == (0,)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_sweep_is_each_setting_by_itself(seed):
    evidence = Evidence.of(**with_logits(material(seed), 20.0))
    weights, temperatures = (0.0, 0.3, 2.0), (0.01, 0.5)
    for name in ("trustvlm", "trustvlm_star"):
        outcome = dict(sweep(name, evidence, weights=weights, temperatures=temperatures))
        assert len(outcome) == (3 if name == "trustvlm" else 6)
        for (weight, temperature), result in outcome.items():
            given_temperature = {} if temperature is None else {"temperature": temperature}
            alone = apply(name, evidence, weight=weight, **given_temperature)
            np.testing.assert_array_equal(result.prediction, alone.prediction)
            np.testing.assert_array_equal(result.confidence, alone.confidence)
    with pytest.raises(InputError, match="to sweep, but got `msp`"):
        list(sweep("msp", evidence))
