"""The sets go through the encode pipeline as any other images do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dataset_trees import ROWS, plant_cifar10, plant_zhou
from pixel_encoder import PixelEncoder
from trustvlm import datasets
from trustvlm.embeddings import EmbeddingStore, encode_all
from trustvlm.exceptions import TrustVLMWarning


def test_files_and_pickles_are_encoded_once(tmp_path):
    plant_zhou(tmp_path, "dtd")
    plant_cifar10(tmp_path)
    facts = {"counts": {split: len(rows) for split, rows in ROWS.items()}, "n_classes": 3}
    cifar = replace(datasets.get("cifar10"), counts={"train": 10, "test": 2})
    encoder = PixelEncoder()
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        train = datasets.load(replace(datasets.get("dtd"), **facts), tmp_path, "train")
        pictures = encode_all(train.refs, {"vlm": encoder}, store, batch_size=2)
        images = datasets.load(cifar, tmp_path, "train").refs
        first = encode_all(images, {"vlm": encoder}, store, batch_size=3)
        again = encode_all(images.at(range(9, -1, -1)), {"vlm": encoder}, store)
    assert pictures.readable.tolist() == [True, True]
    assert first.readable.all()
    assert [ref.path for ref in first.refs] == [ref.path for ref in images]
    assert encoder.n_encoded == 12
    assert np.array_equal(again.embeddings["vlm"], first.embeddings["vlm"][::-1])
    assert len({row.tobytes() for row in first.embeddings["vlm"]}) == 10


def test_a_missing_image_is_a_row_with_its_error(tmp_path):
    home = plant_zhou(tmp_path, "dtd")
    (home / "images" / "Wolke" / "c.jpg").unlink()
    with pytest.warns(TrustVLMWarning, match="1 of 3 images missing"):
        dataset = datasets.load("dtd", tmp_path)
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        chunk = encode_all(dataset.refs, {"vlm": PixelEncoder()}, store)
    assert chunk.readable.tolist() == [True, False, True]
    assert "DTD/images/Wolke/c.jpg: there is no such file" in str(chunk.errors[1])
    assert np.isnan(chunk.embeddings["vlm"][1]).all()
