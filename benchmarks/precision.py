"""What bfloat16 does to logits, similarities and predictions, against float32.

    python benchmarks/precision.py DATA [--images 40]

DATA holds `caltech101/test/<class folder>/*`. CLIP ViT-B/16 and DINOv2-base have random weights of
the real sizes: their classes are closer together than those of trained models, so more predictions
change than would there; errors of single numbers are those of the arithmetic. `autocast` is what
`--precision bfloat16` does, `throughout` has weights and everything between the layers in bfloat16.
Logits are at CLIP's scale of 100, of 100 class names; each image's mean error is subtracted, since
neither prediction nor softmax sees it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import machine
from random_models import save_clip_vit_b16, save_dinov2_base
from trustvlm.images import decode, find_images
from trustvlm.models import load_vision, load_vlm
from trustvlm.models.offline.encoders import imagenet_names

NAMES = [f"a photo of a {name}." for name in imagenet_names()[:100]]


def encode(folder: Path, images: list[Any], precision: str, *, throughout: bool = False) -> Any:
    """Return logits `(n, 100)` and the cosines `(n, n)` of the images' features."""
    import torch

    rows = []
    vlm = load_vlm(f"hf:{folder / 'clip'}", device="cpu", precision=precision)
    vision = load_vision(f"hf:{folder / 'dinov2'}", device="cpu", precision=precision)
    for encoder in (vlm, vision):
        if throughout:
            encoder._model.to(torch.bfloat16)
            inner = encoder._features
            encoder._features = lambda tensor, inner=inner: inner(tensor.to(torch.bfloat16))
        pixels = np.stack([encoder.preprocessing.pixels(image) for image in images])
        rows.append(unit(encoder.encode_pixels(pixels)))
    texts = unit(vlm.encode_texts(NAMES))
    return 100 * rows[0] @ texts.T, rows[1] @ rows[1].T


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    print(machine())
    folder = options.data / "caltech101/test"
    refs = list(find_images(folder))
    images = [decode(folder / r.path) for r in refs[:: len(refs) // options.images]]
    images = images[: options.images]
    with tempfile.TemporaryDirectory() as models:
        save_clip_vit_b16(Path(models) / "clip")
        save_dinov2_base(Path(models) / "dinov2")
        logits, cosines = encode(Path(models), images, "float32")
        gap = np.median(np.diff(np.sort(logits, axis=1)[:, -2:], axis=1))
        print(f"{len(images)} images; median gap of the two largest logits {gap:.3f}")
        for name, throughout in (("autocast", False), ("throughout", True)):
            z, s = encode(Path(models), images, "bfloat16", throughout=throughout)
            error = z - logits - (z - logits).mean(axis=1, keepdims=True)
            same = np.mean(z.argmax(axis=1) == logits.argmax(axis=1))
            top = np.abs(softmax_top(z) - softmax_top(logits)).max()
            print(
                f"{name:11} logits: sd of the error {error.std():.4f}; largest softmax within "
                f"{top:.4f}; predictions equal {same:.1%}; similarity within "
                f"{np.abs(s - cosines).max():.4f}",
                flush=True,
            )


def softmax_top(z: Any) -> Any:
    return 1 / np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)


if __name__ == "__main__":
    main()
