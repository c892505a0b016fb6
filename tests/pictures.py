"""Small generated pictures whose classes differ in colour, for tests of the whole way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 200)}


def picture(colour: tuple[int, int, int], seed: int, size: int = 32) -> Image.Image:
    """Return a noisy square of one colour."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=35, size=(size, size, 3))
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def coarse_picture(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """Return a square of few large pixels around one colour: no two are near-duplicates."""
    pixels = np.random.default_rng(seed).normal(scale=70, size=(8, 8, 3)) + colour
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_class_folders(
    folder: Path,
    per_class: int = 4,
    *,
    seed: int = 0,
    colours: Mapping[str, tuple[int, int, int]] = COLOURS,
) -> Path:
    """Write `<folder>/<colour>/<n>.png` and return the folder."""
    for c, (name, colour) in enumerate(colours.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            image = picture(colour, seed=1000 * seed + 100 * c + i)
            image.save(folder / name / f"{i:02d}.png")
    return folder
