"""First verdicts on labelled pictures by examples alone, beside `predict` with and without its VLM.

    python benchmarks/verify_time.py FOLDER [--images 1000] [--rounds 3]

FOLDER holds `train` and `test`, each of class folders. Offline models, saved and loaded as the
commands do. `verify` has a model without a VLM (`fit --vlm none`), `predict` one with both.
The store is empty at first, so that each picture is decoded and encoded; for `predict without its
VLM` it holds the VLM's vectors and no others, so that all is done but the VLM's forward pass and
its pixels. That is measured, since no subtraction gives it: while a VLM computes, threads decode,
and the time of that cannot be told from the outside.

They take turns. Printed are medians, by the clock and in processor time of the whole process, and
of each round the ratio of `verify` to `predict` without its VLM.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from pipeline import machine
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore, encode_all
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.images import find_labelled, open_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", TrustVLMWarning)
    print(machine())
    listed = find_labelled(options.folder / "test").refs[: options.images]
    paths, labels = [str(image.file) for image in listed], [image.label for image in listed]
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for vlm in ("none", "offline"):
            fitted = TrustVLM(vlm, "offline", store=EmbeddingStore.memory())
            fitted.fit(options.folder / "train", shots_per_class=4).save(f"{folder}/{vlm}.trust")
            models[vlm] = TrustVLM.load(f"{folder}/{vlm}.trust", store=EmbeddingStore.memory())
    vlm = models["offline"].encoders.vlm

    def empty(model: TrustVLM) -> TrustVLM:
        """Give a model a store without anything in it."""
        model.store = EmbeddingStore.memory()
        model.__dict__.pop("embedding_store", None)
        return model

    def knowing_vlm(model: TrustVLM) -> TrustVLM:
        """Give a model a store with what its VLM says of the pictures."""
        encode_all(list(open_images(paths)), {"vlm": vlm}, empty(model).embedding_store)
        return model

    ways: dict[str, tuple[Callable[[], TrustVLM], Callable[[TrustVLM], object]]] = {
        "verify": (lambda: empty(models["none"]), lambda model: model.verify(paths, labels)),
        "predict": (lambda: empty(models["offline"]), lambda model: model.predict(paths)),
        "predict without its VLM": (
            lambda: knowing_vlm(models["offline"]),
            lambda model: model.predict(paths),
        ),
    }
    clock: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (prepared, way) in ways.items():
            model = prepared()
            begun, before = time.perf_counter(), time.process_time()
            way(model)
            clock[name].append(time.perf_counter() - begun)
            busy[name].append(time.process_time() - before)
    for name, seconds in clock.items():
        print(f"{name:24} {len(paths)} images {statistics.median(seconds):7.1f} s", end="")
        print(f", {statistics.median(busy[name]):7.1f} s of processors")
    for what, by_name in (("clock", clock), ("processors", busy)):
        pairs = zip(by_name["verify"], by_name["predict without its VLM"], strict=True)
        ratios = [own / other for own, other in pairs]
        print(f"ratio by the {what}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
