"""Bring every pixel format to 8-bit RGB by stated rules.

=====================================  =========================================================
source                                 rule
=====================================  =========================================================
1 bit, 8-bit grey, palette, YCbCr,     Pillow's conversion; embedded colour profiles are not
LAB, CMYK                              applied, as in the training of CLIP and its kin
alpha, or a colour marked transparent  composited over white, as on a page
grey of up to 16 bits                  full range: 0 is black, the largest value that the depth
                                       can hold is white, rounded
grey of 32 bits, signed, or float      these have no range of their own: the least value of the
                                       image is black, its largest white; NaN or infinity is an
                                       error; an image of one value is black
=====================================  =========================================================

The full-range rule does not look at the other pixels, so that an 8-bit image widened to 16 bits
(each value times 257) comes out as it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.images.kinds import refusal

__all__ = ["to_rgb"]

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# Formats in which Pillow holds unsigned 16-bit grey in 32-bit integers.
_SIXTEEN_IN_32 = {"PNG", "PPM", "JPEG2000"}


def to_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """Convert a loaded image of any mode to RGB by the table above.

    Raises
    ------
    ImageError
        Of kind `non_finite` for a float image with NaN or infinity.

    Examples
    --------
    >>> to_rgb(Image.new("LA", (8, 8), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.new("I;16", (8, 8), 128 * 257)).getpixel((0, 0))
    (128, 128, 128)
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_IN_32):
        return _from_sixteen_bits(image)
    if image.mode in ("I", "F"):
        return _stretched(image, name)
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, default)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    bits = _tag(image, _BITS_PER_SAMPLE, (16,))[0]
    white = (1 << bits) - 1
    grey = np.clip((values * 255 + white // 2) // white, 0, 255).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _stretched(image: Image.Image, name: str) -> Image.Image:
    values: NDArray[np.float64] = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise refusal(
            "non_finite",
            name,
            "some of its pixel values are NaN or infinite",
            "Fill them in and save it again",
        )
    low, high = values.min(), values.max()
    span = high - low
    scaled = (values - low) * (255.0 / span) if span > 0 else np.zeros_like(values)
    grey = np.rint(scaled).astype(np.uint8)
    if image.mode == "F" and _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):  # premultiplied: Pillow divides only into the same family
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, coloured).convert("RGB")
