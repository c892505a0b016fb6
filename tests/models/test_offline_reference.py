"""The offline encoders against vectors that float implementations gave for the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trustvlm.models.base import Preprocessing
from trustvlm.models.offline import OfflineVision, OfflineVLM

SETS = (
    "caltech101",
    "cifar10",
    "dtd10",
    "eurosat",
    "imagenette",
    "office_caltech10",
    "oxford_pets37",
    "pacs",
)


@pytest.fixture(scope="module")
def vlm():
    return OfflineVLM()


@pytest.fixture(scope="module")
def vision():
    return OfflineVision()


@pytest.fixture(scope="module")
def references(data_root):
    folder = data_root.parent / "embeddings"
    if not folder.is_dir():
        pytest.skip(f"no reference embeddings at {folder}")
    return folder


def files_of(root: Path, name: str) -> list[Path]:
    lines = (root / name / "classes.txt").read_text().splitlines()
    folders = [line.split("\t")[0] for line in lines if line and not line.startswith("#")]
    return [
        file for folder in folders for file in sorted((root / name / "test" / folder).iterdir())
    ]


def resized(file: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Resize and crop as the references did: the long side rounded to the nearest pixel."""
    image = Image.open(file).convert("RGB")
    factor = preprocessing.resize / min(image.size)
    image = image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
    height, width = preprocessing.size
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", SETS)
def test_vectors_equal_the_reference(data_root, references, vlm, vision, name):
    files = files_of(data_root, name)
    rows = np.linspace(0, len(files) - 1, 12).astype(int)
    with np.load(references / f"{name}__test.npz") as saved:
        reference = {key: saved[key] for key in saved.files}
    assert len(files) == len(reference["labels"])

    features = vision.encode_pixels(
        np.stack([resized(files[row], vision.preprocessing) for row in rows])
    )
    # The reference is float16; what is left are JPEG decoders.
    assert cosines(features, reference["features"][rows]).min() > 0.99999
    expected = reference["features"][rows].astype(np.float32)
    np.testing.assert_allclose(features, expected, atol=5e-3)

    images = vlm.encode_pixels(np.stack([resized(files[row], vlm.preprocessing) for row in rows]))
    # The reference's text encoder is float, ours int8: hence three nines.
    assert cosines(images, reference["image_embeddings"][rows]).min() > 0.999
    texts = vlm.encode_texts([vlm.prompt.format(label) for label in reference["class_names"]])
    assert cosines(texts, reference["text_embeddings"]).min() > 0.999
    # At logit scale 20, a difference of 0.001 in a cosine is 0.02.
    logits = vlm.logit_scale * images @ texts.T
    np.testing.assert_allclose(logits, reference["logits"][rows], atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_zero_shot_accuracy_is_that_of_the_reference(data_root, references, vlm, name):
    files = files_of(data_root, name)
    rows = np.linspace(0, len(files) - 1, min(len(files), 400)).astype(int)
    with np.load(references / f"{name}__test.npz") as saved:
        labels, names = saved["labels"][rows], saved["class_names"]
        expected = (saved["logits"][rows].argmax(axis=1) == labels).mean()
    pixels = np.stack(
        [vlm.preprocessing.pixels(Image.open(files[row]).convert("RGB")) for row in rows]
    )
    texts = vlm.encode_texts([vlm.prompt.format(label) for label in names])
    right = (vlm.encode_pixels(pixels) @ texts.T).argmax(axis=1) == labels
    assert right.mean() == pytest.approx(expected, abs=0.015)
