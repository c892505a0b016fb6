"""Resize a window of an image as Pillow would, without making the rest of the resized image.

A strip of 10 x 100000 pixels whose shorter side goes to 224 grows to half a gigapixel, of which
the centre crop keeps 224 columns. Only these are computed here, equal to Pillow's to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Kernel = Callable[[float], float]
Window = tuple[int, int]

# Pillow computes with weights that are whole multiples of 2 ** -22.
_BITS = 22


def resize_strip(
    image: Image.Image,
    full: tuple[int, int],
    columns: Window,
    rows: Window,
    filter_: Image.Resampling,
) -> Image.Image:
    """Return a window of `image.resize(full, filter_)`, for an image much longer than it is broad.

    Parameters
    ----------
    image
        An RGB image.
    full
        `(width, height)` of the whole resized image, enlarged or reduced alike in both.
    columns, rows
        First of the window and first beyond it; along the longer side it lies within `full`.
    filter_
        Nearest, bilinear, bicubic or Lanczos.

    Returns
    -------
    Image
        The window, black where it reaches beyond the resized image.

    Notes
    -----
    Pillow resizes in two passes, one along each side, and rounds to whole pixel values in between;
    so does this, in the same order. With the filter "nearest", a sample that falls exactly between
    two pixels may take the other one.

    Examples
    --------
    >>> strip = Image.linear_gradient("L").resize((3, 900)).convert("RGB")
    >>> part = resize_strip(strip, (8, 2400), (0, 8), (1196, 1204), Image.Resampling.BICUBIC)
    >>> whole = strip.resize((8, 2400), Image.Resampling.BICUBIC)
    >>> part.tobytes() == whole.crop((0, 1196, 8, 1204)).tobytes()
    True
    """
    width, height = full
    if width >= height:
        first, last = _reach(image.width, width, columns, filter_)
        lines = np.asarray(image.crop((first, 0, last, image.height))).swapaxes(0, 1)
        part = _resample(lines, first, image.width, width, columns, filter_).swapaxes(0, 1)
        across = _picture(part).resize((part.shape[1], height), filter_)
        return across.crop((0, rows[0], part.shape[1], rows[1]))
    first, last = _reach(image.height, height, rows, filter_)
    cut = image.crop((0, first, image.width, last))
    shrinks_down_first = height < image.height and _shrinks_tall_images_down_first()
    if not shrinks_down_first:
        cut = cut.resize((width, cut.height), filter_)
    part = _resample(np.asarray(cut), first, image.height, height, rows, filter_)
    down = _picture(part)
    if shrinks_down_first:
        down = down.resize((width, down.height), filter_)
    return down.crop((columns[0], 0, columns[1], down.height))


@cache
def _shrinks_tall_images_down_first() -> bool:
    """Try in which order this Pillow resizes a tall image; version 13 changed it."""
    probe = Image.effect_noise((2, 800), 255).convert("RGB")
    filter_ = Image.Resampling.BICUBIC
    whole = probe.resize((1, 400), filter_).tobytes()
    return probe.resize((2, 400), filter_).resize((1, 400), filter_).tobytes() == whole


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels))


def _resample(
    lines: NDArray[np.uint8],
    first: int,
    n_in: int,
    n_out: int,
    window: Window,
    filter_: Image.Resampling,
) -> NDArray[np.uint8]:
    """Resample `n_in` lines to a window of `n_out`; `lines` are those of them from `first` on."""
    out = np.empty((window[1] - window[0], *lines.shape[1:]), dtype=np.uint8)
    for i, place in enumerate(range(*window)):
        start, weights = _weights(place, n_in, n_out, filter_)
        used = lines[start - first : start - first + len(weights)].astype(np.int64)
        total = np.tensordot(weights, used, axes=1) + (1 << (_BITS - 1))
        out[i] = np.clip(total >> _BITS, 0, 255)
    return out


def _reach(n_in: int, n_out: int, window: Window, filter_: Image.Resampling) -> Window:
    """Return the first line that a window of the output is made of, and the first beyond."""
    first, _ = _weights(window[0], n_in, n_out, filter_)
    last, weights = _weights(window[1] - 1, n_in, n_out, filter_)
    return first, last + len(weights)


def _weights(
    place: int, n_in: int, n_out: int, filter_: Image.Resampling
) -> tuple[int, NDArray[np.int64]]:
    """Return the first line that output line `place` is made of, and the lines' weights."""
    scale = n_in / n_out
    if filter_ is Image.Resampling.NEAREST:
        return int((place + 0.5) * scale), np.array([1 << _BITS], dtype=np.int64)
    kernel, reach = _KERNELS[filter_]
    stretch = max(scale, 1.0)
    centre = (place + 0.5) * scale
    start = max(int(centre - reach * stretch + 0.5), 0)
    end = min(int(centre + reach * stretch + 0.5), n_in)
    raw = [kernel(abs(line - centre + 0.5) / stretch) for line in range(start, end)]
    total = sum(raw)
    scaled = [weight / total * (1 << _BITS) for weight in raw]
    return start, np.array([int(w + math.copysign(0.5, w)) for w in scaled], dtype=np.int64)


def _bilinear(x: float) -> float:
    return max(1.0 - x, 0.0)


def _bicubic(x: float) -> float:
    # Cubic convolution with a = -1/2: Keys 1981, doi:10.1109/TASSP.1981.1163711.
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3.0)) if x < 3.0 else 0.0


_KERNELS: dict[Image.Resampling, tuple[Kernel, float]] = {
    Image.Resampling.BILINEAR: (_bilinear, 1.0),
    Image.Resampling.BICUBIC: (_bicubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
}
