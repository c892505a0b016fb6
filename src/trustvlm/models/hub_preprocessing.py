"""Read a hub repository's preprocessing into `Preprocessing`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing

__all__ = ["read_preprocessing"]

Triple = tuple[float, float, float]
Geometry = tuple[tuple[int, int], int | None]

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class _Processor:
    """What a kind of image processor does where its settings are silent."""

    resample: int
    mean: Triple
    std: Triple
    square: bool
    crop: bool = False
    crop_pct: bool = False


# The class defaults of transformers' image processors.
_PROCESSORS = {
    "CLIP": _Processor(3, CLIP_MEAN, CLIP_STD, square=False, crop=True),
    "Bit": _Processor(3, CLIP_MEAN, CLIP_STD, square=False, crop=True),
    "Siglip": _Processor(3, _HALF, _HALF, square=True),
    "ViT": _Processor(2, _HALF, _HALF, square=True),
    "ConvNext": _Processor(3, _HALF, _HALF, square=False, crop_pct=True),
}
# For repositories from before the settings named their processor.
_BY_MODEL = {
    "clip": "CLIP",
    "siglip": "Siglip",
    "dinov2": "Bit",
    "vit": "ViT",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "resnet": "ConvNext",
}
_SUFFIXES = ("Pil", "Fast", "ImageProcessor", "FeatureExtractor")
# At this size and above, ConvNeXt's processor squashes the whole image.
_SQUASHED_FROM = 384


def read_preprocessing(directory: Path) -> Preprocessing:
    """Read `preprocessor_config.json`, or the image part of `processor_config.json`.

    The result gives the very pixels of the processor's Pillow version in transformers.

    Raises
    ------
    ModelUnavailableError
        If neither file is there or can be read, or the settings are not supported.
    """
    settings = _settings(directory)
    try:
        return _preprocessing(directory, settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelUnavailableError(
            f"The image preprocessing of {directory} cannot be understood: {error!r}"
        ) from error


def _preprocessing(directory: Path, settings: Mapping[str, Any]) -> Preprocessing:
    name, processor = _processor(directory, settings)
    for switch in ("do_resize", "do_rescale"):
        if not settings.get(switch, True):
            raise _unsupported(directory, f"{switch}=false")
    for switch in ("do_pad", "do_center_crop" if processor.crop_pct else ""):
        if settings.get(switch):
            raise _unsupported(directory, f"{switch}=true for {name}")
    if abs(float(settings.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise _unsupported(directory, f"rescale_factor={settings['rescale_factor']}")
    resample = settings.get("resample", processor.resample)
    if resample not in _RESAMPLING:
        raise _unsupported(directory, f"resample={resample}")
    size, resize = _geometry(directory, settings, processor)
    normalises = settings.get("do_normalize", True)
    return Preprocessing(
        size=size,
        resize=resize,
        interpolation=_RESAMPLING[resample],
        mean=_triple(settings.get("image_mean", processor.mean)) if normalises else (0.0, 0.0, 0.0),
        std=_triple(settings.get("image_std", processor.std)) if normalises else (1.0, 1.0, 1.0),
    )


def _settings(directory: Path) -> Mapping[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        settings = _read(directory / name)
        settings = settings.get("image_processor", settings)
        if isinstance(settings, dict) and "size" in settings:
            return settings
    raise ModelUnavailableError(
        f"{directory} says nothing about image preprocessing: preprocessor_config.json is "
        "missing, or names no size."
    )


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelUnavailableError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelUnavailableError(f"Expected {file} to hold settings by name, but got a list.")
    return values


def _processor(directory: Path, settings: Mapping[str, Any]) -> tuple[str, _Processor]:
    full = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    name = str(full)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    if not name:
        name = _BY_MODEL.get(str(_read(directory / "config.json").get("model_type")), "")
    if name not in _PROCESSORS:
        raise _unsupported(directory, f"image_processor_type={full or 'not given'}")
    return name, _PROCESSORS[name]


def _geometry(directory: Path, settings: Mapping[str, Any], processor: _Processor) -> Geometry:
    size = settings["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size} if processor.square else {"shortest_edge": size}
    if processor.crop_pct:
        return _by_share(directory, size, float(settings.get("crop_pct") or 224 / 256))
    crop_size = settings.get("crop_size")
    crop = None
    if settings.get("do_center_crop", processor.crop):
        crop = (224, 224) if crop_size is None else _pair(crop_size)
    if set(size) == {"shortest_edge"} and crop is not None:
        return crop, int(size["shortest_edge"])
    if set(size) == {"height", "width"} and crop in (None, _pair(size)):
        return _pair(size), None
    raise _unsupported(directory, f"size={size} with a centre crop to {crop}")


def _by_share(directory: Path, size: Mapping[str, int], share: float) -> Geometry:
    """Resize so that the crop covers a share of the shorter side, as ConvNeXt's processor does."""
    if set(size) != {"shortest_edge"}:
        raise _unsupported(directory, f"size={size}")
    edge = int(size["shortest_edge"])
    return (edge, edge), None if edge >= _SQUASHED_FROM else int(edge / share)


def _pair(size: int | Mapping[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _triple(values: Any) -> Triple:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _unsupported(directory: Path, setting: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The image preprocessing of {directory} is not supported: {setting}. Supported are "
        "resizing the shorter side with a centre crop, and squashing to a fixed size, as done by "
        f"the image processors of {', '.join(_PROCESSORS)}."
    )
