"""Ways to decode a JPEG and bring it to 224 pixels: Pillow, Pillow's draft mode, simplejpeg.

    python benchmarks/decode.py DATA [--images 48] [--rounds 5]

DATA holds `imagenette/test/<class folder>/*`. The photographs are enlarged to 500 x 375 and to
4000 x 3000 and saved anew at quality 90, since the sets hold small ones. Each way does all of the
work of one image: bytes to RGB, then the resize and crop of CLIP. Draft mode lets libjpeg decode at
a half, a quarter or an eighth, the smallest at which the shorter side has at least 448 pixels,
twice what is needed. Quality: the mean absolute difference of pixels (of 255) to plain Pillow, and
the cosine of the offline vision encoder's features to those from plain Pillow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import machine
from trustvlm.images import decode, find_images
from trustvlm.models import load_vision
from trustvlm.models.base import Preprocessing

SIZES = ((224, 224), (500, 375), (4000, 3000))
SHORT = 448
Way = Callable[[bytes], Image.Image]


def pillow_draft(content: bytes) -> Image.Image:
    """Decode at the smallest scale at which the shorter side has twice what is needed."""
    image = Image.open(BytesIO(content))
    scale = SHORT / min(image.size)
    image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
    return image.convert("RGB")


def simplejpeg_ways() -> dict[str, Way]:
    try:
        import simplejpeg
    except ImportError:
        print("simplejpeg is not installed: left out")
        return {}
    return {
        "simplejpeg": lambda content: Image.fromarray(simplejpeg.decode_jpeg(content)),
        "simplejpeg, draft": lambda content: Image.fromarray(
            simplejpeg.decode_jpeg(content, min_height=SHORT, min_width=SHORT)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    folder = options.data / "imagenette/test"
    refs = list(find_images(folder))
    pictures = [decode(folder / ref.path) for ref in refs[:: len(refs) // options.images]]
    ways: dict[str, Way] = {"trustvlm": decode, "Pillow, draft": pillow_draft, **simplejpeg_ways()}
    encoder, clip = load_vision("offline"), Preprocessing()
    print(
        "| pixels | way | decode ms | decode and resize ms | pixels differ by | features' cosine |"
    )
    print("|---|---|--:|--:|--:|--:|")
    for size in SIZES:
        some = pictures[: max(4, min(len(pictures), 20_000_000 // (size[0] * size[1])))]
        contents = [saved(picture.resize(size, Image.Resampling.BICUBIC)) for picture in some]
        baseline = [decode(content) for content in contents]
        for name, way in ways.items():
            decoding, all_of_it = timed(way, contents, clip, options.rounds)
            images = [way(content) for content in contents]
            pixels = differences(images, baseline, clip)
            cosine = cosines(images, baseline, encoder)
            print(
                f"| {size[0]} x {size[1]} | {name} | {decoding:.2f} | {all_of_it:.2f} "
                f"| {pixels:.2f} | {cosine:.4f} |",
                flush=True,
            )


def saved(picture: Image.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def timed(
    way: Way, contents: list[bytes], preprocessing: Preprocessing, rounds: int
) -> tuple[float, float]:
    """Return medians of the processor's milliseconds per image, without and with the resize."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        begun = time.process_time()
        images = [way(content) for content in contents]
        spent[0].append(time.process_time() - begun)
        for image in images:
            preprocessing.pixels(image)
        spent[1].append(time.process_time() - begun)
    decoding, whole = (1e3 * statistics.median(part) / len(contents) for part in spent)
    return decoding, whole


def differences(
    images: list[Image.Image], baseline: list[Image.Image], preprocessing: Preprocessing
) -> float:
    pairs = zip(images, baseline, strict=True)
    found = [
        np.abs(preprocessing.pixels(a).astype(int) - preprocessing.pixels(b)).mean()
        for a, b in pairs
    ]
    return float(np.mean(found))


def cosines(images: list[Image.Image], baseline: list[Image.Image], encoder: object) -> float:
    features = []
    for some in (images, baseline):
        pixels = np.stack([encoder.preprocessing.pixels(image) for image in some])  # type: ignore[attr-defined]
        rows = encoder.encode_pixels(pixels)  # type: ignore[attr-defined]
        features.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return float((features[0] * features[1]).sum(axis=1).mean())


if __name__ == "__main__":
    main()
