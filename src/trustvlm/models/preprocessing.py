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

# Beyond this, the resized image is cut to its middle first: a strip of 10 x 100000 pixels would
# otherwise grow to half a gigapixel.
_MOST_PIXELS = 16_000_000

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
        assert self.resize is not None  # noqa: S101
        height, width = self.size
        short = min(image.size)
        full = (
            int(self.resize * image.size[0] / short),
            int(self.resize * image.size[1] / short),
        )
        left, top = (full[0] - width) // 2, (full[1] - height) // 2
        if full[0] * full[1] > _MOST_PIXELS:
            image, full, left, top = _middle(image, full, (width, height))
        # Pillow's crop pads with black where the crop is larger than the resized image.
        return image.resize(full, filter_).crop((left, top, left + width, top + height))

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


def _middle(
    image: Image.Image, full: tuple[int, int], crop: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int], int, int]:
    """Cut a very long image to its middle, so that resizing it costs no more than a photograph.

    Four crop lengths are kept along the long side, far more than any filter reaches.
    """
    along = 0 if full[0] > full[1] else 1
    scale = image.size[along] / full[along]
    kept = 4 * crop[along]
    start = round((full[along] - kept) / 2 * scale)
    end = round((full[along] + kept) / 2 * scale)
    box = [0, 0, *image.size]
    box[along], box[along + 2] = start, end
    cut = image.crop((box[0], box[1], box[2], box[3]))
    size = list(full)
    size[along] = kept
    return cut, (size[0], size[1]), (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
