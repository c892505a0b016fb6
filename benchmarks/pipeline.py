"""`predict` against the bare forward pass of the same encoders on the same threads.

    python benchmarks/pipeline.py IMAGES [--pair offline vit vit-bf16] [--images 256] [--rounds 5]

IMAGES is a folder of images. `predict` reads, decodes, resizes and encodes them, scores them,
stores the vectors and writes a CSV; the bare forward pass gets tensors that lie ready in memory, in
batches of the same size. They take turns in every round, and the median of the rounds' ratios is
printed, by the clock and, for machines that are not quiet, by processor time. The ViT pair is CLIP
ViT-B/16 with DINOv2-base, random weights of the real sizes. For the offline pair, `plain` is ONNX
Runtime as one usually calls it, on a whole batch with as many threads as there are cores, and
`bare` runs one image per thread, as trustvlm does.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from random_models import save_clip_vit_b16, save_dinov2_base
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore, Profile
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.images import decode, find_images
from trustvlm.models.base import ImageEncoder

BATCH = 32
Forward = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--pair", nargs="+", default=["offline", "vit", "vit-bf16"])
    parser.add_argument("--images", type=int, dest="n", default=256, help="of the offline pair")
    parser.add_argument("--vit-images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    files = [str(options.images / ref.path) for ref in find_images(options.images)]
    with tempfile.TemporaryDirectory() as folder:
        for pair in options.pair:
            n = options.n if pair == "offline" else options.vit_images
            chosen = files[:: max(1, len(files) // n)][:n]
            measure(pair, chosen, Path(folder), options.rounds)


def machine() -> str:
    import importlib.metadata as metadata

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("torch", "transformers", "onnxruntime", "pillow", "numpy")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"{cores} cores, {platform.machine()}, Python {platform.python_version()}, {versions}"


def measure(pair: str, files: list[str], folder: Path, rounds: int) -> None:
    """Print the medians of one pair of encoders."""
    model = fitted(pair, files, folder)
    bare = forwards(model, files)
    ways: dict[str, Forward] = {"predict": lambda: predict(model, files, folder), **bare}
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun, busy = time.perf_counter(), time.process_time()
            way()
            seconds[name].append(time.perf_counter() - begun)
            processor[name].append(time.process_time() - busy)
    size = np.mean([decode(file).size for file in files], axis=0)
    print(f"\n{pair}: {len(files)} images, on average {size[0]:.0f} x {size[1]:.0f}")
    for name, spent in seconds.items():
        rate = len(files) / statistics.median(spent)
        busy = 1e3 * statistics.median(processor[name]) / len(files)
        print(
            f"  {name:8}{rate:8.2f} images/s, {busy:.1f} ms of processor time an image"
            + ("" if name == "predict" else reached(seconds, processor, name))
        )
    print("  " + "\n  ".join(predict(model, files, folder).lines()), flush=True)


def reached(seconds: dict[str, list[float]], processor: dict[str, list[float]], name: str) -> str:
    """Say what share of the throughput of one way `predict` has, in the median of the rounds."""
    wall, busy = (
        statistics.median(a / b for a, b in zip(spent[name], spent["predict"], strict=True))
        for spent in (seconds, processor)
    )
    return f"; predict reaches {wall:.1%} of it ({busy:.1%} by processor time)"


def fitted(pair: str, files: list[str], folder: Path) -> TrustVLM:
    """Return a model whose examples are the images themselves: here only its speed counts."""
    if pair == "offline":
        vlm, vision, precision = "offline", "offline", "float32"
    else:
        vlm, vision = f"hf:{folder / 'clip'}", f"hf:{folder / 'dinov2'}"
        precision = "bfloat16" if pair.endswith("bf16") else "float32"
        if not (folder / "clip").exists():
            save_clip_vit_b16(folder / "clip")
            save_dinov2_base(folder / "dinov2")
    options = {"score": "trustvlm", "precision": precision, "batch_size": BATCH}
    model = TrustVLM(vlm, vision, ["one", "two"], **options)
    model.store = EmbeddingStore.memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        model.fit((files[:4], ["one", "one", "two", "two"]))
    return model


def predict(model: TrustVLM, files: list[str], folder: Path) -> Profile:
    """Do what `trustvlm predict` does, with an empty store on the disk."""
    profile = Profile()
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        model.__dict__["embedding_store"] = store = EmbeddingStore(Path(fresh) / "store.sqlite")
        verdicts = model.predict(files, profile=profile)
        with profile.stage("writing"):
            verdicts.write(Path(fresh) / "out.csv")
        profile.end()
        store.close()
    assert len(verdicts) == len(files)
    return profile


def forwards(model: TrustVLM, files: list[str]) -> dict[str, Forward]:
    """Return the bare forward passes of both encoders, on tensors in memory."""
    images = [decode(file) for file in files]
    encoders = (model.encoders.vlm, model.encoders.vision)
    pixels = [np.stack([e.preprocessing.pixels(image) for image in images]) for e in encoders]
    if model.vlm == "offline":
        return offline_forwards(encoders, pixels)
    return {"bare": torch_forward(encoders, pixels)}


def torch_forward(encoders: Any, pixels: list[Any]) -> Forward:
    from trustvlm.models.torch_encoder import inference, to_tensor

    tensors = [
        to_tensor(p, e.preprocessing, e._device) for p, e in zip(pixels, encoders, strict=True)
    ]

    def forward() -> None:
        with inference(encoders[0]._device, encoders[0]._dtype):
            for encoder, tensor in zip(encoders, tensors, strict=True):
                for start in range(0, len(tensor), BATCH):
                    encoder._features(tensor[start : start + BATCH])

    return forward


def offline_forwards(encoders: tuple[ImageEncoder, ...], pixels: list[Any]) -> dict[str, Forward]:
    import onnxruntime

    from trustvlm.environment import cache_dir, usable_cores

    vlm, vision = (e.__dict__ for e in encoders)
    sessions = (vlm["_classifier"]._session, vision["_network"]._session)
    outputs = ("logits", "features")
    tensors = [e.preprocessing.normalise(p) for e, p in zip(encoders, pixels, strict=True)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3
    graphs = [sorted(cache_dir().rglob(f"*lite{k}*.onnx"))[-1] for k in (0, 2)]
    plain_sessions = [
        onnxruntime.InferenceSession(str(g), options, providers=["CPUExecutionProvider"])
        for g in graphs
    ]

    def bare() -> None:
        for session, output, tensor in zip(sessions, outputs, tensors, strict=True):
            session.map(output, lambda image: {"pixels": image[None]}, list(tensor))

    def plain() -> None:
        for session, output, tensor in zip(plain_sessions, outputs, tensors, strict=True):
            for start in range(0, len(tensor), BATCH):
                session.run([output], {"pixels": tensor[start : start + BATCH]})

    return {"plain": plain, "bare": bare}


if __name__ == "__main__":
    main()
