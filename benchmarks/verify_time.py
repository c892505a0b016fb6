"""First verdicts on labelled pictures by examples alone, beside `predict` with a VLM.

    python benchmarks/verify_time.py FOLDER [--images 1000] [--rounds 3]

FOLDER holds `train` and `test`, each of class folders. Offline models; the store is empty in every
round, so that each picture is decoded and encoded. `verify` has a model without a VLM (`fit --vlm
none`), `predict` one with both encoders, of whose time the seconds of the VLM's forward pass are
taken off for comparison. They take turns; printed are medians, by the clock and in processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from pipeline import machine
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore, Profile
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.images import find_labelled


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
    for vlm in ("none", "offline"):
        models[vlm] = TrustVLM(vlm, "offline", store=EmbeddingStore.memory())
        models[vlm].fit(options.folder / "train", shots_per_class=4)
    ways: dict[str, Callable[[Profile], object]] = {
        "verify": lambda profile: models["none"].verify(paths, labels, profile=profile),
        "predict": lambda profile: models["offline"].predict(paths, profile=profile),
    }
    clock: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            for model in models.values():
                model.store = EmbeddingStore.memory()
                model.__dict__.pop("embedding_store", None)
            profile, begun, before = Profile(), time.perf_counter(), time.process_time()
            way(profile)
            seconds = time.perf_counter() - begun
            clock.setdefault(name, []).append(seconds)
            busy.setdefault(name, []).append(time.process_time() - before)
            if name == "predict":
                vlm = sum(s for stage, s in profile.seconds.items() if stage.endswith("vlm"))
                clock.setdefault("predict without its VLM", []).append(seconds - vlm)
    for name, seconds in clock.items():
        print(f"{name:24} {len(paths)} images {statistics.median(seconds):7.1f} s", end="")
        print(f", {statistics.median(busy[name]):7.1f} s of processors" if name in busy else "")


if __name__ == "__main__":
    main()
