"""What other versions of the libraries change in pixels and in embeddings.

    python benchmarks/versions.py write DATA FOLDER     (once in each environment)
    python benchmarks/versions.py compare FOLDER

DATA holds pictures, of which 40 are taken. Pixels are made from them by Pillow; embeddings are of
the same stored pixels in every environment, so that they show the libraries that compute them: the
offline models by ONNX Runtime, and CLIP ViT-B/16 and DINOv2-base with random weights of the real
sizes by transformers and torch. The first environment stores pixels and weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from random_models import save_clip_vit_b16, save_dinov2_base
from trustvlm.images import decode, find_images
from trustvlm.models import load_vision, load_vlm
from trustvlm.models.base import Preprocessing

WAYS = {
    "cropped, as CLIP": Preprocessing(size=(224, 224), resize=224),
    "squashed, as SigLIP": Preprocessing(size=(224, 224), resize=None),
}
TEXTS = ["a photo of a cat.", "a photo of a golden retriever.", "the wing of an aeroplane"]
PACKAGES = ("pillow", "onnxruntime", "transformers", "torch", "numpy")


def write(data: Path, folder: Path) -> Path:
    """Store what this environment makes of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    refs = find_images(data)
    images = [decode(refs[i].file) for i in np.linspace(0, len(refs) - 1, 40).astype(int)]
    arrays = {f"pixels {n}": np.stack([w.pixels(i) for i in images]) for n, w in WAYS.items()}
    stored = folder / "pixels.npy"
    if not stored.exists():
        np.save(stored, arrays["pixels cropped, as CLIP"][:8])
    pixels = np.load(stored)
    savers: dict[str, Callable[[Path], Path]] = {"clip": save_clip_vit_b16}
    for name, save in (savers | {"dinov2": save_dinov2_base}).items():
        if not (folder / name).exists():
            save(folder / name)
    for spec in ("offline", f"hf:{folder / 'clip'}"):
        vlm = load_vlm(spec, device="cpu")
        name = "offline" if spec == "offline" else "CLIP"
        arrays[f"images, {name}"] = vlm.encode_pixels(pixels)
        arrays[f"texts, {name}"] = vlm.encode_texts(TEXTS)
        arrays[f"images in other batches, {name}"] = np.concatenate(
            [vlm.encode_pixels(pixels[:1]), vlm.encode_pixels(pixels[1:])]
        )
    arrays["images, DINOv2"] = load_vision(f"hf:{folder / 'dinov2'}").encode_pixels(pixels)
    target = folder / f"{' '.join(f'{name} {version(name)}' for name in PACKAGES)}.npz"
    np.savez(target, **arrays)
    return target


def error(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the largest difference, as a share of the largest component."""
    return float(np.abs(a - b).max() / np.abs(a).max())


def compare(folder: Path) -> None:
    """Print how every two environments differ."""
    files = sorted(folder.glob("*.npz"))
    loaded = [np.load(file) for file in files]
    for file, arrays in zip(files, loaded, strict=True):
        print(f"\n{file.stem}, against itself in other batches")
        for name in ("offline", "CLIP"):
            a, b = arrays[f"images, {name}"], arrays[f"images in other batches, {name}"]
            print(f"  images, {name}: {error(a, b):.1e}")
    for i, one in enumerate(loaded):
        for j, other in enumerate(loaded[:i]):
            print(f"\n{files[i].stem}\n{files[j].stem}")
            for name in one.files:
                a, b = one[name], other[name]
                if not name.startswith("pixels"):
                    print(f"  {name}: {error(a, b):.1e}")
                    continue
                levels = np.abs(a.astype(int) - b.astype(int)).reshape(len(a), -1).max(axis=1)
                print(f"  {name}: {(levels > 0).sum()} of {len(a)}, by up to {levels.max()} of 255")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    writing = commands.add_parser("write")
    writing.add_argument("data", type=Path)
    writing.add_argument("folder", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "write":
        print(write(options.data, options.folder))
    else:
        compare(options.folder)


if __name__ == "__main__":
    main()
