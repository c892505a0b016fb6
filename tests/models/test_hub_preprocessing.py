"""A repository's preprocessing settings give the pixels that transformers makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models.base import CLIP_MEAN, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from trustvlm.models.hub import read_preprocessing

IMAGENET = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
SIZES = ((64, 48), (333, 251), (25, 201), (20, 11), (1, 1), (450, 400), (2, 90))
SUPPORTED: dict[str, dict[str, Any]] = {
    "old clip": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32},
    "clip, other crop": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 33, "width": 28},
        "resample": 2,
    },
    "clip, crop larger than the image": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 33, "width": 28},
    },
    "fast clip": {
        "image_processor_type": "CLIPImageProcessorFast",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    },
    "clip squashed": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"height": 30, "width": 34},
        "do_center_crop": False,
    },
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 28, "width": 28},
        **IMAGENET,
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 32, "width": 32},
        "rescale_factor": 0.00392156862745098,
    },
    "siglip 2": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 32, "width": 32},
        "resample": 2,
    },
    "old vit": {"feature_extractor_type": "ViTFeatureExtractor", "size": 32},
    "vit without normalisation": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 24},
        "do_normalize": False,
    },
    "convnext": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 33,
        "crop_pct": 0.875,
        **IMAGENET,
    },
    "convnext by default": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 48},
    },
    "large convnext": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "crop_pct": 0.95,
    },
}
UNSUPPORTED: dict[str, dict[str, Any]] = {
    "DPT": {"image_processor_type": "DPTImageProcessor", "size": 32},
    "do_resize": {**SUPPORTED["siglip"], "do_resize": False},
    "do_rescale": {**SUPPORTED["siglip"], "do_rescale": False},
    "do_pad": {**SUPPORTED["siglip"], "do_pad": True},
    "do_center_crop": {**SUPPORTED["convnext"], "do_center_crop": True},
    "rescale_factor": {**SUPPORTED["siglip"], "rescale_factor": 1.0},
    "resample": {**SUPPORTED["siglip"], "resample": 4},
    "longest_edge": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32, "longest_edge": 64},
    },
    "centre crop": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 40, "width": 40},
        "crop_size": 32,
        "do_center_crop": True,
    },
    "size": {**SUPPORTED["convnext"], "size": {"height": 32, "width": 32}},
    "not given": {"size": 32},
}


def write(directory: Path, settings: Any, name: str = "preprocessor_config.json") -> Path:
    (directory / name).write_text(json.dumps(settings), encoding="utf-8")
    return directory


@pytest.mark.torch
@pytest.mark.parametrize("name", SUPPORTED)
def test_pixels_and_normalisation_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    write(tmp_path, SUPPORTED[name])
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    preprocessing = read_preprocessing(tmp_path)
    generator = np.random.default_rng(0)
    for width, height in SIZES:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels = preprocessing.pixels(image)
        np.testing.assert_array_equal(pixels, raw["pixel_values"][0].transpose(1, 2, 0))
        expected = processor(image, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(preprocessing.normalise(pixels[None]), expected, atol=1e-6)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_it_cannot_do_is_an_error_that_says_so(name: str, tmp_path: Path) -> None:
    named = name if name != "DPT" else "image_processor_type"
    with pytest.raises(ModelUnavailableError, match=rf"(?s){tmp_path}.*not supported: .*{named}"):
        read_preprocessing(write(tmp_path, UNSUPPORTED[name]))


def test_processor_config_holds_it_too(tmp_path: Path) -> None:
    write(tmp_path, {"processor_class": "CLIPProcessor"})
    write(tmp_path, {"image_processor": SUPPORTED["siglip"]}, "processor_config.json")
    assert read_preprocessing(tmp_path).size == (32, 32)


def test_a_processor_that_is_not_named_follows_from_the_model(tmp_path: Path) -> None:
    write(tmp_path, {"size": 32, "crop_size": 32})
    write(tmp_path, {"model_type": "clip"}, "config.json")
    assert read_preprocessing(tmp_path) == Preprocessing((32, 32), 32, "bicubic", mean=CLIP_MEAN)


@pytest.mark.parametrize("content", [{}, {"do_resize": True}, None])
def test_no_settings(content: Any, tmp_path: Path) -> None:
    if content is not None:
        write(tmp_path, content)
    with pytest.raises(ModelUnavailableError, match=r"preprocessor_config\.json"):
        read_preprocessing(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "3"])
def test_broken_settings(content: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match=r"preprocessor_config\.json"):
        read_preprocessing(tmp_path)


@pytest.mark.parametrize(
    "change", [{"size": "32"}, {"size": {}}, {"size": [32, 32]}, {"image_mean": [1, 2]}]
)
def test_senseless_values(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=str(tmp_path)):
        read_preprocessing(write(tmp_path, {**SUPPORTED["siglip"], **change}))
