"""Time whole studies: from arrays, and from image folders with a warm store.

    python benchmarks/studies.py arrays EMBEDDINGS [--repeats 3]
    python benchmarks/studies.py folders examples/offline-sets.toml [--repeats 3]

`arrays` runs `bench arrays` on every `<set>__train.npz` with its test files: 1, 2, 4, 8 and 16
shots, 5 draws, every score. It refuses to time what is not finite, or differs from run to run.
`folders` runs a grid whose embeddings are stored already, with its cells finished and with them
removed, in turn, and refuses if a run stores an embedding. Both print medians over the repeats, of
the time on the clock and of processor time; other work on the machine lengthens the first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy

from trustvlm import metrics
from trustvlm.benchmark.config import read_config
from trustvlm.embeddings import EmbeddingStore


def command(*arguments: object) -> tuple[float, float]:
    """Run `trustvlm` in a process of its own; seconds on the clock and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "trustvlm", *map(str, arguments)], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    taken = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, sum(
        getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")
    )


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    return (
        f"{cores} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, SciPy {scipy.__version__}, OMP_NUM_THREADS {threads}; "
        f"load average at the start {load:.1f}"
    )


def row(name: str, times: Sequence[tuple[float, float]]) -> str:
    clock, processor = (statistics.median(part) for part in zip(*times, strict=True))
    return f"| {name} | {clock:.1f} | {processor:.1f} |"


def arrays(folder: Path, repeats: int) -> None:
    print("| set | clock (s) | processor (s) |\n|---|--:|--:|")
    every: list[list[tuple[float, float]]] = []
    with tempfile.TemporaryDirectory() as place:
        for train in sorted(folder.glob("*__train.npz")):
            name = train.name.removesuffix("__train.npz")
            tests = sorted(folder.glob(f"{name}__test*.npz"))
            files = [Path(place) / f"{name}-{i}.json" for i in range(repeats)]
            verdicts = Path(place) / "verdicts.npz"
            times = [
                command("bench", "arrays", "--support", train, *tests, "--shots", "1,2,4,8,16",
                        "--draws", 5, "--json", file, "--verdicts", verdicts, "--quiet")
                for file in files
            ]  # fmt: skip
            check(name, files, verdicts)
            print(row(name, times))
            every.append(times)
    print(row("all", [tuple(map(sum, zip(*run, strict=True))) for run in zip(*every, strict=True)]))


def check(name: str, files: Sequence[Path], verdicts: Path) -> None:
    """Refuse to time what is not finite or not the same every time."""
    if len({file.read_bytes() for file in files}) > 1:
        sys.exit(f"{name}: the runs differ")
    rows = json.loads(files[0].read_text())["rows"]
    for found in rows:
        for metric in metrics.METRICS:
            if found[metric] is None or not math.isfinite(found[metric]):
                sys.exit(f"{name}: {metric} is {found[metric]} in {found}")
    with np.load(verdicts) as stored:
        for key in stored.files:
            if not np.isfinite(stored[key]).all():
                sys.exit(f"{name}: {key} is not finite")


def folders(config: Path, repeats: int) -> None:
    study = read_config(config)
    command("bench", config, "--quiet")
    stored = EmbeddingStore().stats().entries
    print("| run | clock (s) | processor (s) |\n|---|--:|--:|")
    finished, removed = [], []
    for _ in range(repeats):
        finished.append(command("bench", config, "--quiet"))
        shutil.rmtree(study.out / "cells")
        removed.append(command("bench", config, "--quiet"))
    if EmbeddingStore().stats().entries != stored:
        sys.exit("an embedding was computed")
    print(row("again: store warm, cells finished", finished))
    print(row("cells removed: store warm", removed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("arrays", "folders"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(machine(), "\n")
    {"arrays": arrays, "folders": folders}[options.what](options.path, options.repeats)


if __name__ == "__main__":
    main()
