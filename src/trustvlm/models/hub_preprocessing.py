"""Read a hub repository's preprocessing into `Preprocessing`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

__all__ = ["read_preprocessing"]

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_preprocessing(directory: Path) -> Preprocessing:
    """Read `preprocessor_config.json`, or the image part of `processor_config.json`.

    Raises
    ------
    ModelUnavailableError
        If neither file is there, or the settings are of a kind that is not supported.
    """
    settings = _settings(directory)
    if not settings.get("do_resize", True):
        raise _unsupported(directory, "do_resize=false")
    resample = _RESAMPLING.get(int(settings.get("resample", 3)))
    if resample is None:
        raise _unsupported(directory, f"resample={settings['resample']}")
    if abs(float(settings.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise _unsupported(directory, f"rescale_factor={settings['rescale_factor']}")
    size = settings.get("size", {"shortest_edge": 224})
    crops = settings.get("do_center_crop", "crop_size" in settings)
    size_pair, resize = _geometry(directory, size, settings.get("crop_size"), crops)
    return Preprocessing(
        size=size_pair,
        resize=resize,
        interpolation=resample,
        mean=_triple(settings.get("image_mean", IMAGENET_MEAN)),
        std=_triple(settings.get("image_std", IMAGENET_STD)),
    )


def _settings(directory: Path) -> Mapping[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = directory / name
        if file.is_file():
            settings: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            settings = settings.get("image_processor", settings)
            if "size" in settings:
                return settings
    raise ModelUnavailableError(
        f"{directory} says nothing about image preprocessing: preprocessor_config.json is missing."
    )


def _geometry(
    directory: Path, size: Any, crop_size: Any, crops: bool
) -> tuple[tuple[int, int], int | None]:
    crop = None if crop_size is None else _pair(crop_size)
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if "shortest_edge" in size and "longest_edge" not in size:
        if not crops or crop is None:
            raise _unsupported(directory, f"size={size} without a centre crop")
        return crop, int(size["shortest_edge"])
    if "height" in size and "width" in size:
        squashed = _pair(size)
        if crops and crop is not None and crop != squashed:
            raise _unsupported(directory, f"size={size} with crop_size={crop_size}")
        return squashed, None
    raise _unsupported(directory, f"size={size}")


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _unsupported(directory: Path, setting: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The image preprocessing of {directory} is not supported: {setting}. Supported are "
        "resizing the shorter side with a centre crop, and squashing to a fixed size."
    )
