"""Time scores, sweeps and metrics at scale, each against the least that it must do.

    python benchmarks/scoring.py [--images 200000] [--classes 1000] [--dim 768] [--repeats 3]

`compute_embedded` scores random float32 embeddings, block by block on every core, against the
product of image and text embeddings alone, in the same blocks on the same cores. The sweep is 10
weights by 10 temperatures of `trustvlm_star` on 10,000 images and 100 classes, against each setting
scored by itself. Contenders take turns; the tables have medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from trustvlm import PrototypeBank, metrics, scores
from trustvlm.scores import Evidence

WEIGHTS, TEMPERATURES = np.linspace(0.1, 2.0, 10), np.geomspace(0.005, 0.5, 10)


def in_turn(repeats: int, contenders: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each contender, one round after another."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def scoring(n: int, n_classes: int, dim: int, repeats: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((n, dim), dtype=np.float32)
    features = rng.standard_normal((n, dim), dtype=np.float32)
    texts = rng.standard_normal((n_classes, dim), dtype=np.float32)
    bank = PrototypeBank().fit(rng.standard_normal((n_classes, dim)), np.arange(n_classes))
    cores = len(os.sched_getaffinity(0))
    blocks = [slice(start, start + 1000) for start in range(0, n, 1000)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as threads:

        def product() -> None:
            columns = texts.T
            list(threads.map(lambda rows: (images[rows] @ columns).shape, blocks))

        def scored(name: str) -> Callable[[], Any]:
            return lambda: scores.compute_embedded(
                name,
                image_embeddings=images,
                text_embeddings=texts,
                features=features,
                bank=bank,
                map_blocks=threads.map,
            )

        found = in_turn(
            repeats,
            {"the product alone": product}
            | {name: scored(name) for name in ("msp", "trustvlm", "trustvlm_star")},
        )
    print(f"\n{n:,} images, {n_classes:,} classes, {dim} dimensions\n")
    print("| what | s | ratio | images/s |\n|---|--:|--:|--:|")
    least = found["the product alone"]
    for name, taken in found.items():
        print(f"| {name} | {taken:.2f} | {taken / least:.2f} | {n / taken:,.0f} |")


def sweeping(repeats: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "logits": 5 * rng.standard_normal((10_000, 100)),
        "features": rng.standard_normal((10_000, 768), dtype=np.float32),
        "bank": PrototypeBank().fit(rng.standard_normal((100, 768)), np.arange(100)),
    }

    def together() -> None:
        settings = {"weights": WEIGHTS, "temperatures": TEMPERATURES}
        for _ in scores.sweep("trustvlm_star", Evidence.of(**arrays), **settings):
            pass

    def one_by_one() -> None:
        for weight in WEIGHTS:
            for temperature in TEMPERATURES:
                scores.compute("trustvlm_star", **arrays, weight=weight, temperature=temperature)

    found = in_turn(repeats, {"together": together, "one by one": one_by_one})
    print("\nSweep of 100 settings, 10,000 images, 100 classes\n")
    print("| how | s | ratio |\n|---|--:|--:|")
    for name, taken in found.items():
        print(f"| {name} | {taken:.2f} | {taken / found['together']:.1f} |")


def measuring(repeats: int) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(1_000_000)
    correct = rng.random(1_000_000) < confidence
    found = in_turn(
        repeats,
        {
            "one sort of 1,000,000": lambda: np.argsort(confidence, kind="stable"),
            "all metrics of 1,000,000": lambda: metrics.evaluate(confidence, correct),
            "bootstrap of 100,000, 1,000 resamples, all metrics": lambda: metrics.bootstrap(
                confidence[:100_000], correct[:100_000], n_resamples=1000
            ),
        },
    )
    print("\n| metrics | s |\n|---|--:|")
    for name, taken in found.items():
        print(f"| {name} | {taken:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}; load average at the start "
        f"{os.getloadavg()[0]:.1f}"
    )
    scoring(options.images, options.classes, options.dim, options.repeats)
    sweeping(options.repeats)
    measuring(options.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak resident memory {peak:.1f} GiB, of it the embeddings "
          f"{2 * 4 * options.images * options.dim / 2**30:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
