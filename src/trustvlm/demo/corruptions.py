"""Ways to spoil a test crop, each with a stated strength."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageStat

__all__ = ["CLEAN", "CORRUPTIONS", "corrupt"]

CLEAN = "none"


def corrupt(image: Image.Image, corruption: str, rng: np.random.Generator) -> Image.Image:
    """Return a spoilt copy of a picture in mode RGB; its size stays the same.

    Parameters
    ----------
    image
        The picture.
    corruption
        A name in `CORRUPTIONS`, or "none".
    rng
        Source of the noise and of the place of the occlusion.

    Examples
    --------
    >>> dark = corrupt(Image.new("RGB", (2, 2), (100, 200, 50)), "dark", np.random.default_rng(0))
    >>> dark.getpixel((0, 0))
    (25, 50, 12)
    """
    return image.copy() if corruption == CLEAN else CORRUPTIONS[corruption](image, rng)


def _blur(image: Image.Image, _: np.random.Generator) -> Image.Image:
    # Relative to the size, so that large and small crops lose the same share of detail.
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 50))


def _noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noisy = pixels + rng.normal(0.0, 40.0, pixels.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _low_contrast(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(0.3)


def _dark(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.25)


def _jpeg(image: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=8)
    return Image.open(buffer).convert("RGB")


def _rotation(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle = float(rng.choice([-35.0, 35.0]))
    mean = tuple(round(value) for value in ImageStat.Stat(image).mean)
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=mean)


def _downscale(image: Image.Image, _: np.random.Generator) -> Image.Image:
    small = image.resize((max(1, image.width // 6), max(1, image.height // 6)))
    return small.resize(image.size, Image.Resampling.NEAREST)


def _grey(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.convert("L").convert("RGB")


def _negative(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageChops.invert(image)


def _occlusion(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = round(image.width * 0.6), round(image.height * 0.6)
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    covered = image.copy()
    ImageDraw.Draw(covered).rectangle((left, top, left + width, top + height), fill=(127,) * 3)
    return covered


CORRUPTIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "gaussian blur": _blur,
    "noise": _noise,
    "low contrast": _low_contrast,
    "dark": _dark,
    "JPEG quality 8": _jpeg,
    "rotation": _rotation,
    "downscale": _downscale,
    "grey": _grey,
    "negative": _negative,
    "occlusion": _occlusion,
}
