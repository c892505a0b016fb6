"""Texts go through the model once."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pixel_encoder import PixelEncoder
from trustvlm.embeddings import EmbeddingStore, encode_texts
from trustvlm.exceptions import InputError

TEXTS = ["a photo of a cat.", "a photo of a dog.", "ein Foto, größer", ""]


def test_in_the_order_of_the_texts_with_repetitions():
    vlm = PixelEncoder()
    got = encode_texts(vlm, [*TEXTS, TEXTS[0]], EmbeddingStore.memory())
    assert vlm.text_batches == [4]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, PixelEncoder().encode_texts([*TEXTS, TEXTS[0]]))


def test_only_missing_texts_go_through_the_model(tmp_path):
    vlm = PixelEncoder()
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        first = encode_texts(vlm, TEXTS[:2], store)
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        second = encode_texts(vlm, TEXTS[::-1], store)
        assert vlm.text_batches == [2, 2]
        np.testing.assert_array_equal(second[::-1][:2], first)
        encode_texts(vlm, TEXTS, store)
        assert vlm.text_batches == [2, 2]
        assert store.stats().encoders[0].spec == "pixels-0"


def test_texts_stored_by_older_versions_are_looked_up():
    vlm, store = PixelEncoder(), EmbeddingStore.memory()
    key = hashlib.sha256(b"text:a photo of a cat.").hexdigest()
    stored = np.arange(vlm.dim, dtype=np.float32)
    store.put_many(vlm.identity.fingerprint(vlm.preprocessing), {key: stored})
    np.testing.assert_array_equal(encode_texts(vlm, TEXTS[:1], store)[0], stored)
    assert not vlm.text_batches


def test_another_model_is_not_confused():
    store = EmbeddingStore.memory()
    one = encode_texts(PixelEncoder(seed=1), TEXTS, store)
    two = encode_texts(PixelEncoder(seed=2), TEXTS, store)
    assert not np.allclose(one, two)


def test_many_texts_and_none():
    vlm, store = PixelEncoder(), EmbeddingStore.memory()
    texts = [f"text {i}" for i in range(1000)]
    got = encode_texts(vlm, texts, store)
    assert sum(vlm.text_batches) == 1000
    np.testing.assert_array_equal(got, PixelEncoder().encode_texts(texts))
    assert encode_texts(vlm, [], store).shape == (0, vlm.dim)


def test_what_a_model_must_not_do():
    class Wrong(PixelEncoder):
        def encode_texts(self, texts):
            return np.zeros((len(texts), 99), np.float32)

    class Lost(PixelEncoder):
        def encode_texts(self, texts):
            vectors = super().encode_texts(texts)
            vectors[1, 2] = np.inf
            return vectors

    store = EmbeddingStore.memory()
    with pytest.raises(InputError, match=r"to return shape \(4, 6\), but got \(4, 99\)"):
        encode_texts(Wrong(), TEXTS, store)
    with pytest.raises(InputError, match=r"'a photo of a dog\.'.*NaN or infinity"):
        encode_texts(Lost(), TEXTS, store)
    assert store.stats().entries == 0
    with pytest.raises(InputError, match="list of texts"):
        encode_texts(PixelEncoder(), "a cat", store)
