import numpy as np
import pytest
from PIL import Image

from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore, encode_all, prefetch
from trustvlm.images import decode, find_images
from trustvlm.models import Preprocessing


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        coarse.resize((2048, 1536), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg")
    return tmp_path


def prep(draft, size=8):
    return Preprocessing((size, size), 8, "bilinear", draft=draft)


def test_encoders_share_an_image_only_where_they_want_the_same(photos, monkeypatch):
    asked = []

    def watched(content, limits, *, enough, **rest):
        asked.append(enough)
        return decode(content, limits, enough=enough, **rest)

    monkeypatch.setattr(prefetch, "decode", watched)
    refs = find_images(photos)
    encoders = {
        "a": PixelEncoder(0, preprocessing=prep(True)),
        "b": PixelEncoder(1, preprocessing=prep(True)),
        "whole": PixelEncoder(2, preprocessing=prep(False)),
    }
    encoded = encode_all(refs, encoders, EmbeddingStore.memory())
    assert sorted(asked, key=str) == [256, 256, None, None]
    for name, encoder in encoders.items():
        enough = encoder.preprocessing.enough
        images = [decode(photos / f"{i}.jpg", enough=enough) for i in range(2)]
        pixels = np.stack([encoder.preprocessing.pixels(image) for image in images])
        np.testing.assert_array_equal(encoded.embeddings[name], encoder.encode_pixels(pixels))


def test_a_model_remembers_that_it_drafts(photos, tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    files = [str(photos / "0.jpg"), str(photos / "1.jpg")]
    shots = (files, ["one", "two"])
    models = [TrustVLM("offline", "offline", draft=draft).fit(shots) for draft in (False, True)]
    models[1].save(tmp_path / "fast.trust")
    loaded = TrustVLM.load(tmp_path / "fast.trust")
    assert loaded.draft
    assert loaded.encoders.vision.preprocessing.draft
    prints = {
        m.encoders.vision.identity.fingerprint(m.encoders.vision.preprocessing)
        for m in (*models, loaded)
    }
    assert len(prints) == 2
    exact, fast = (m.support_features_ for m in models)
    assert not np.array_equal(exact, fast)
    cosines = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert cosines.min() > 0.99
