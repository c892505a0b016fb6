"""What changes pixels is part of what stored embeddings are looked up by."""

from __future__ import annotations

import hashlib
import io
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from pixel_encoder import PixelEncoder
from trustvlm.embeddings import EmbeddingStore, encode_all, encode_texts
from trustvlm.embeddings.encode import image_key
from trustvlm.images import decode, find_images, formats
from trustvlm.models.base import Preprocessing


def pictures() -> dict[str, bytes]:
    """One of each way that pixels go, as bytes that no encoder of the day makes: lossless."""
    rng = np.random.default_rng(0)

    def png(array: np.ndarray, **settings: object) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG", **settings)
        return stream.getvalue()

    exif = Image.Exif()
    exif[274] = 6
    return {
        "wide": png(rng.integers(0, 256, (61, 97, 3), dtype=np.uint8)),
        "tall": png(rng.integers(0, 256, (301, 47, 3), dtype=np.uint8)),
        "alpha": png(rng.integers(0, 256, (50, 50, 4), dtype=np.uint8)),
        "sixteen bits": png(rng.integers(0, 65536, (50, 60), dtype=np.uint16)),
        "turned": png(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), exif=exif),
    }


WAYS = {
    "cropped": Preprocessing(size=(32, 32), resize=36),
    "squashed": Preprocessing(size=(24, 32), resize=None, interpolation="bilinear"),
    "as published": Preprocessing(size=(32, 32), resize=33, rounding="even", plain_rgb=True),
}


@pytest.mark.skipif(PIL.__version__ != "13.0.0", reason="recorded with Pillow 13.0.0")
def test_pixels_are_those_of_this_revision() -> None:
    """If they are others on purpose, raise `PIXELS_REVISION` and record the SHA-256 anew."""
    digest = hashlib.sha256()
    for content in pictures().values():
        for way in WAYS.values():
            digest.update(way.pixels(decode(content, plain_rgb=way.plain_rgb)).tobytes())
    assert (formats.PIXELS_REVISION, digest.hexdigest()) == (
        1,
        "0e2e89af2255ca5e5c0fdc81ea56380aaab0859dd6b298884d044800eec25b42",
    )


def test_the_versions_name_pillow_and_its_decoders() -> None:
    versions = dict(part.split(" ", 1) for part in formats.pixel_versions().split(", "))
    assert versions["Pillow"] == version("pillow")
    assert {"trustvlm", "jpg", "libjpeg_turbo", "webp", "libtiff", "pillow-heif"} <= set(versions)


@pytest.mark.parametrize("name", ["Pillow", "libjpeg_turbo", "trustvlm"])
def test_other_pixels_are_encoded_anew_and_texts_are_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for picture, content in pictures().items():
        (tmp_path / f"{picture}.png").write_bytes(content)
    encoder, store = PixelEncoder(), EmbeddingStore.memory()
    images, texts = find_images(tmp_path), ["a cat", "a dog"]

    def encode() -> None:
        formats.pixel_versions.cache_clear()
        encode_all(images, {"vision": encoder}, store, workers=1)
        encode_texts(encoder, texts, store)

    encode()
    encode()
    assert (encoder.n_encoded, encoder.text_batches) == (len(images), [2])
    before, fingerprint = image_key(encoder), encoder.identity.fingerprint(encoder.preprocessing)
    if name == "Pillow":
        monkeypatch.setattr(PIL, "__version__", "99.0")
    elif name == "trustvlm":
        monkeypatch.setattr(formats, "PIXELS_REVISION", 99)
    else:
        monkeypatch.setattr(formats.features, "version", lambda _: "99")
    encode()
    assert (encoder.n_encoded, encoder.text_batches) == (2 * len(images), [2])
    assert image_key(encoder) != before
    # By which saved models know their encoders: they load with every version.
    assert encoder.identity.fingerprint(encoder.preprocessing) == fingerprint
    monkeypatch.undo()
    encode()
    assert encoder.n_encoded == 2 * len(images), "the former version's are still there"
    formats.pixel_versions.cache_clear()
