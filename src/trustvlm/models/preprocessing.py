"""How an image becomes the tensor that an encoder reads; it travels with the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.exceptions import InputError

__all__ = ["CLIP_MEAN", "CLIP_STD", "IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation of an image encoder.

    Parameters
    ----------
    size
        `(height, width)` in pixels of what the encoder reads.
    resize
        Length in pixels of the shorter side before the centre crop; None squashes the whole
        image to `size`, ignoring its aspect ratio (as SigLIP does).
    interpolation
        `nearest`, `bilinear`, `bicubic` or `lanczos`.
    mean, std
        Per channel, for pixel values scaled to [0, 1].

    Examples
    --------
    >>> clip = Preprocessing(size=(224, 224), resize=224)
    >>> clip.pixels(Image.new("RGB", (640, 480))).shape
    (224, 224, 3)
    """

    size: tuple[int, int] = (224, 224)
    resize: int | None = 224
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise InputError(
                f"Expected `interpolation` to be one of {', '.join(_FILTERS)}, "
                f"but got {self.interpolation!r}."
            )

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an RGB image to `(height, width, 3)` uint8, not yet normalised."""
        filter_ = _FILTERS[self.interpolation]
        height, width = self.size
        if self.resize is None:
            resized = image.resize((width, height), filter_)
        else:
            resized = self._resize_and_crop(image, filter_)
        return np.asarray(resized, dtype=np.uint8)

    def _resize_and_crop(self, image: Image.Image, filter_: Image.Resampling) -> Image.Image:
        # Only the crop is ever computed: a 1 x 100000 strip costs no more than a photograph.
        assert self.resize is not None  # noqa: S101
        height, width = self.size
        short = min(image.size)
        full = tuple(int(self.resize * side / short) for side in image.size)
        left = (full[0] - width) // 2
        top = (full[1] - height) // 2
        scale = (image.size[0] / full[0], image.size[1] / full[1])
        if left < 0 or top < 0:  # the crop is larger than the resized image: pad with black
            canvas = Image.new("RGB", (width, height))
            canvas.paste(image.resize((full[0], full[1]), filter_), (-left, -top))
            return canvas
        box = (
            left * scale[0],
            top * scale[1],
            min((left + width) * scale[0], image.size[0]),
            min((top + height) * scale[1], image.size[1]),
        )
        return image.resize((width, height), filter_, box=box)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn `(n, height, width, 3)` uint8 into `(n, 3, height, width)` normalised float32."""
        mean = np.asarray(self.mean, dtype=np.float32)
        std = np.asarray(self.std, dtype=np.float32)
        scaled = pixels.astype(np.float32) / np.float32(255.0)
        normalised = (scaled - mean) / std
        return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """Rebuild from `to_dict`."""
        return cls(
            size=(int(settings["size"][0]), int(settings["size"][1])),
            resize=settings["resize"],
            interpolation=settings["interpolation"],
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
        )
