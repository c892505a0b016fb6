"""Ways to spoil a test crop, each with a stated strength."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageStat

from trustvlm.demo.sources import DemoClass, Region, read_classes, read_photographs
from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.files import write_bytes, write_text
from trustvlm.images.inputs import walk_images
from trustvlm.images.locations import Location

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
        Source of the noise and of the position of the occlusion.

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
    "low contrast": lambda image, _: ImageEnhance.Contrast(image).enhance(0.3),
    "dark": lambda image, _: ImageEnhance.Brightness(image).enhance(0.25),
    "JPEG quality 8": _jpeg,
    "rotation": _rotation,
    "downscale": _downscale,
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "negative": lambda image, _: ImageChops.invert(image),
    "occlusion": _occlusion,
}


# Cut the photographs into example crops and, elsewhere in them, test crops.

SHOTS_PER_CLASS = 6
TESTS_PER_CLASS = 7
CLEAN_TESTS_PER_CLASS = 3
LONGEST_SIDE = 256


@dataclass(frozen=True)
class DemoPictures:
    """What `write_pictures` wrote.

    Attributes
    ----------
    shots
        Folder of class folders with the example crops.
    photos
        Flat folder of test crops, whose file names say nothing about the class.
    labels
        CSV of the test crops with columns `path` (relative to the CSV), `label` (the class
        folder) and `corruption` ("none" or what was done to the crop).
    classes
        Class folder to the name used in prompts.
    n_shots, n_photos
        Numbers of example crops and of test crops.
    """

    shots: Path
    photos: Path
    labels: Path
    classes: Mapping[str, str]
    n_shots: int
    n_photos: int


@dataclass(frozen=True)
class Crop:
    """One picture to write: where it goes, what it is, and where it is cut."""

    path: str
    label: str
    region: Region
    corruption: str
    seed: tuple[int, ...]


def plan() -> tuple[list[Crop], list[Crop]]:
    """Return the example crops and the test crops, the same at every call; reads no picture.

    Examples
    --------
    >>> shots, tests = plan()
    >>> shots[0].path, tests[0].path
    ('shots/astronaut/1.jpg', 'photos/001.jpg')
    >>> any(shot.region.intersects(test.region) for shot in shots for test in tests)
    False
    """
    shots: list[Crop] = []
    tests: list[Crop] = []
    names = list(CORRUPTIONS)
    for index, one in enumerate(read_classes()):
        for i in range(SHOTS_PER_CLASS):
            seed = (0, index, i)
            path = f"shots/{one.folder}/{i + 1}.jpg"
            shots.append(Crop(path, one.folder, _cut(one, one.shots, i, seed), CLEAN, seed))
        for i in range(TESTS_PER_CLASS):
            seed = (1, index, i)
            spoilt = index * (TESTS_PER_CLASS - CLEAN_TESTS_PER_CLASS) + i - CLEAN_TESTS_PER_CLASS
            corruption = CLEAN if i < CLEAN_TESTS_PER_CLASS else names[spoilt % len(names)]
            tests.append(Crop("", one.folder, _cut(one, one.tests, i, seed), corruption, seed))
    order = np.random.default_rng(0).permutation(len(tests))
    shuffled = [tests[i] for i in order]
    named = [
        Crop(f"photos/{number:03d}.jpg", t.label, t.region, t.corruption, t.seed)
        for number, t in enumerate(shuffled, start=1)
    ]
    return shots, named


def _cut(one: DemoClass, regions: tuple[Region, ...], i: int, seed: tuple[int, ...]) -> Region:
    region = regions[i % len(regions)]
    rng = np.random.default_rng(seed)
    width, height = region.right - region.left, region.bottom - region.top
    aspect = rng.uniform(0.8, 1.25)
    largest = min(width, height * aspect)
    crop_width = round(largest * rng.uniform(*one.scale))
    crop_height = min(round(crop_width / aspect), height)
    left = region.left + int(rng.integers(0, width - crop_width + 1))
    top = region.top + int(rng.integers(0, height - crop_height + 1))
    return Region(region.file, left, top, left + crop_width, top + crop_height)


def write_pictures(folder: str | Path) -> DemoPictures:
    """Write example crops, test crops and their labels; the same ones at every call.

    Parameters
    ----------
    folder
        Where to write; created if need be. It may hold the pictures of an earlier call.

    Raises
    ------
    MissingExtraError
        If scikit-image, whose wheel holds the photographs, is not installed.
    InputError
        If the folder holds other pictures, which would be mixed up with those of the
        demonstration, or if this scikit-image lacks a photograph.

    Examples
    --------
    >>> import tempfile
    >>> pictures = write_pictures(tempfile.mkdtemp())
    >>> pictures.n_shots, pictures.n_photos, len(pictures.classes)
    (96, 112, 16)
    >>> pictures.classes["lattice_tower"]
    'steel lattice tower'
    """
    folder = Path(folder)
    photographs = _photographs()
    shots, tests = plan()
    _refuse_others(folder, {crop.path for crop in shots + tests})
    for crop in shots + tests:
        write_bytes(folder / crop.path, _render(photographs[crop.region.file], crop))
    write_text(folder / "labels.csv", _table(tests))
    return DemoPictures(
        shots=folder / "shots",
        photos=folder / "photos",
        labels=folder / "labels.csv",
        classes={one.folder: one.name for one in read_classes()},
        n_shots=len(shots),
        n_photos=len(tests),
    )


def _photographs() -> dict[str, Image.Image]:
    skimage = require("skimage", extra="demo", purpose="The demonstration")
    # Read by path: skimage.data would offer to download what it does not find.
    data = Path(str(skimage.__file__)).parent / "data"
    photographs = {}
    for photograph in read_photographs():
        try:
            with Image.open(data / photograph.file) as image:
                photographs[photograph.file] = _on_white(image)
        except OSError as error:
            raise InputError(
                f"Expected scikit-image to bring the photograph {photograph.file!r}, but "
                f"version {skimage.__version__} does not: {error}."
            ) from error
    return photographs


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _render(photograph: Image.Image, crop: Crop) -> bytes:
    box = crop.region
    image = photograph.crop((box.left, box.top, box.right, box.bottom))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    image = corrupt(image, crop.corruption, np.random.default_rng((*crop.seed, 1)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _refuse_others(folder: Path, expected: set[str]) -> None:
    # Only what a later walk would take for a picture: a file manager's hidden notes, or the
    # temporary file of a killed run, must not stop the next one.
    for part in ("shots", "photos"):
        if not (folder / part).is_dir():
            continue
        for image in walk_images(Location(str(folder / part)), prefix=part):
            if image.path not in expected:
                raise InputError(
                    f"Expected {str(folder)!r} to be empty or to hold the demonstration's own "
                    f"pictures, but got {str(folder / image.path)!r}. Choose another folder, or "
                    "delete this one if an older demonstration wrote it."
                )


def _table(tests: list[Crop]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "corruption"])
    writer.writerows([test.path, test.label, test.corruption] for test in tests)
    return buffer.getvalue()
