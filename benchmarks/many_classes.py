"""What a model of many classes costs: to fit and save, to load and judge one image, to score many.

    python benchmarks/many_classes.py [--classes 1000] [--shots 16] [--before CHECKOUT] [--rounds 3]

Shots are drawn around class means that a few factors make alike, in 512 dimensions of the VLM and
768 of the vision encoder. Every figure is from a process of its own, versions and scores in turn;
seconds are medians, by the wall and of the processor, memory is the largest peak. `--before` names
a checkout of an older version, which is measured beside this one. `--bench N` times `bench arrays`
instead, on N images, for every score that judges images one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import machine

SCORES = ("trustvlm", "trustvlm_star", "auto", "auto_star")
DIMENSIONS = {"features": 768, "image_embeddings": 512}
FACTORS, SPREAD, IMAGES = 20, 2.0, 2000


def class_means(n_classes: int) -> dict[str, np.ndarray]:
    """Class means in both spaces, and text embeddings near those of the VLM."""
    rng = np.random.default_rng(0)
    means = {
        name: (
            rng.normal(size=(n_classes, FACTORS)) @ rng.normal(size=(FACTORS, d)) / 3
            + 0.5 * rng.normal(size=(n_classes, d))
            + rng.normal(size=d)
        )
        for name, d in DIMENSIONS.items()
    }
    own = means["image_embeddings"]
    return {**means, "text_embeddings": own + 2 * rng.normal(size=own.shape)}


def rows_of(means: dict[str, np.ndarray], labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Embeddings of one image for each label."""
    rng = np.random.default_rng(seed)
    return {
        name: (means[name][labels] + SPREAD * rng.standard_normal((len(labels), d))).astype(
            np.float32
        )
        for name, d in DIMENSIONS.items()
    }


class Encoder:
    """A projection of the pixels' means, with the dimensions of a real encoder."""

    logit_scale, prompt, note = 20.0, "a photo of a {}.", ""

    def __init__(self, dim: int) -> None:
        from trustvlm.models.base import ModelIdentity, Preprocessing

        self.dim = dim
        self.identity = ModelIdentity(f"means-{dim}", "benchmark", "", f"{dim:064d}", {"dim": dim})
        self.preprocessing = Preprocessing(size=(8, 8), resize=8, interpolation="bilinear")
        self._weights = np.random.default_rng(dim).normal(size=(3, dim))

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels.mean(axis=(1, 2)) / 255.0 @ self._weights).astype(np.float32)

    def encode_texts(self, texts: Any) -> np.ndarray:
        return np.ones((len(texts), self.dim), dtype=np.float32)


def encoders() -> dict[str, Encoder]:
    return {
        "vlm": Encoder(DIMENSIONS["image_embeddings"]),
        "vision": Encoder(DIMENSIONS["features"]),
    }


def state_of(n_classes: int, shots: int, score: str) -> Any:
    from trustvlm.images import ClassList
    from trustvlm.pipeline.records import describe
    from trustvlm.pipeline.state import ModelState, now
    from trustvlm.scores import PrototypeBank
    from trustvlm.scores.arrays import unit_rows

    means, labels = class_means(n_classes), np.repeat(np.arange(n_classes), shots)
    support = rows_of(means, labels, seed=1)
    names = tuple(f"class {c}" for c in range(n_classes))
    return ModelState(
        classes=ClassList(names, names),
        prompts=("a photo of a {}.",),
        encoders={role: describe(encoder) for role, encoder in encoders().items()},
        protocol="clean",
        precision="float32",
        draft=False,
        logit_scale=Encoder.logit_scale,
        score=score,
        score_parameters={},
        text_embeddings=unit_rows(means["text_embeddings"]).astype(np.float32),
        bank=PrototypeBank().fit(support["features"], labels, n_classes=n_classes),
        support_features=support["features"],
        support_image_embeddings=support["image_embeddings"],
        support_labels=labels,
        shots=tuple(
            {"path": f"{i}.png", "sha256": f"{i:064d}", "class": int(label)}
            for i, label in enumerate(labels)
        ),
        shots_folder="",
        unreadable_shots=(),
        shots_per_class=shots,
        draw=0,
        created_by="a benchmark",
        created_at=now(),
    )


class Clock:
    """Seconds by the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def taken(self) -> tuple[float, float]:
        return time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


def fit(n_classes: int, shots: int, score: str, model: Path) -> tuple[float, float]:
    """Seconds of learning and saving; what the encoders take is not in it."""
    from trustvlm.scores import prepare

    state = state_of(n_classes, shots, score)
    clock = Clock()
    prepare(score, state.evidence_of_shots())
    state.save(model)
    return clock.taken()


def predict(_classes: int, _shots: int, _score: str, model: Path) -> tuple[float, float]:
    """Seconds of loading a model and judging one image."""
    from PIL import Image

    from trustvlm import TrustVLM
    from trustvlm.embeddings import EmbeddingStore

    picture = model.parent / "picture.png"
    Image.new("RGB", (32, 32), (200, 90, 30)).save(picture)
    both = encoders()
    clock = Clock()
    TrustVLM.load(model, **both, store=EmbeddingStore.memory()).predict([picture])
    return clock.taken()


def scoring(n_classes: int, _shots: int, score: str, model: Path) -> tuple[float, float]:
    """Milliseconds an image, of many at once."""
    from trustvlm.pipeline.state import ModelState
    from trustvlm.scores import prepare

    state = ModelState.load(model)
    prepared = prepare(score, state.evidence_of_shots())
    labels = np.random.default_rng(2).integers(n_classes, size=IMAGES)
    images = rows_of(class_means(n_classes), labels, seed=3)
    evidence = state.evidence(images["image_embeddings"], images["features"])
    taken = []
    for _ in range(3):
        fresh, clock = replace(evidence), Clock()  # with nothing that was computed of it before
        prepared(fresh)
        taken.append(clock.taken())
    wall, processor = (1000 * statistics.median(t) / IMAGES for t in zip(*taken, strict=True))
    return wall, processor


STEPS = {"fit and save": fit, "load and predict": predict, "scoring": scoring}


def measure_here(step: str, n_classes: int, shots: int, score: str, model: str) -> None:
    wall, processor = STEPS[step](n_classes, shots, score, Path(model))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"wall": wall, "processor": processor, "peak": peak}))


def measured(checkout: Path, *arguments: Any) -> dict[str, float]:
    """Measure one step in a process of its own, with the package of a checkout."""
    result = subprocess.run(
        [sys.executable, __file__, "--here", json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        check=True,
        capture_output=True,
        text=True,
    )
    values: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return values


def compare(
    n_classes: int, shots: int, rounds: int, versions: dict[str, Path], scores: list[str]
) -> None:
    print(f"\n{n_classes:,} classes of {shots} shots, {machine()}\n")
    head = ("fit and save, s", "load and predict 1, s", "scoring, ms/image")
    columns = [part for name in head for part in (name, "of the processor", "peak, GiB")][:-1]
    print(f"| version | score | {' | '.join(columns)} | .trust, MB |")
    print("|---|---|" + "--:|" * (len(columns) + 1))
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[tuple[str, str, str], list[dict[str, float]]] = {}
        for _ in range(rounds):
            for step in STEPS:
                for version, checkout in versions.items():
                    for score in scores:
                        model = f"{folder}/{version}-{score}.trust"
                        one = measured(checkout, step, n_classes, shots, score, model)
                        runs.setdefault((version, score, step), []).append(one)
        for version in versions:
            for score in scores:
                cells = []
                for step in STEPS:
                    taken = runs[version, score, step]
                    digits = 3 if step == "scoring" else 1
                    for clock in ("wall", "processor"):
                        value = statistics.median(one[clock] for one in taken)
                        cells.append(f"{value:.{digits}f}")
                    if step != "scoring":
                        cells.append(f"{max(one['peak'] for one in taken):.2f}")
                files = Path(f"{folder}/{version}-{score}.trust").iterdir()
                size = sum(file.stat().st_size for file in files) / 1e6
                print(f"| {version} | {score} | {' | '.join(cells)} | {size:.0f} |", flush=True)


def bench(n: int, n_classes: int, shots: int, scores: list[str]) -> None:
    """Time `bench arrays` on arrays of the size of ImageNet's validation images."""
    means = class_means(n_classes)
    unit = {"text_embeddings": means["text_embeddings"].astype(np.float32)}
    unit["text_embeddings"] /= np.linalg.norm(unit["text_embeddings"], axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        for part, labels in (
            ("train", np.repeat(np.arange(n_classes), shots)),
            ("test", np.random.default_rng(2).integers(n_classes, size=n)),
        ):
            rows = rows_of(means, labels, seed=len(part))
            own = rows["image_embeddings"]
            directions = own / np.linalg.norm(own, axis=1, keepdims=True)
            np.savez(
                f"{folder}/{part}.npz",
                logits=Encoder.logit_scale * directions @ unit["text_embeddings"].T,
                labels=labels,
                class_names=np.array([f"class {c}" for c in range(n_classes)]),
                text_embeddings=unit["text_embeddings"],
                **{name: table.astype(np.float16) for name, table in rows.items()},
            )
        del rows, own, directions
        print(
            f"\n`bench arrays`: {n:,} images, {n_classes:,} classes of {shots} shots, {machine()}\n"
        )
        print("| score | s | peak, GiB |\n|---|--:|--:|")
        for score in scores:
            arguments = [f"{folder}/test.npz", "--support", f"{folder}/train.npz"]
            arguments += ["--scores", score, "--shots", str(shots), "--jobs", "1"]
            begun = time.perf_counter()
            command = [sys.executable, "-m", "trustvlm", "bench", "arrays", *arguments]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            taken, peak = time.perf_counter() - begun, usage.ru_maxrss / 2**20
            wrong = "" if status == 0 else " (failed)"
            print(f"| {score}{wrong} | {taken:.0f} | {peak:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--bench", type=int, help="images of `bench arrays`")
    parser.add_argument("--scores", nargs="+")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure_here(*json.loads(options.here))
        return
    if options.bench:
        from trustvlm.scores import get, names

        one_by_one = [name for name in names() if not get(name).whole_batch]
        bench(options.bench, options.classes, options.shots, options.scores or one_by_one)
        return
    here = Path(__file__).resolve().parents[1]
    versions = {"this": here, **({"before": options.before} if options.before else {})}
    compare(
        options.classes, options.shots, options.rounds, versions, options.scores or list(SCORES)
    )


if __name__ == "__main__":
    main()
