"""Bulk prediction at scale: memory, kills, and what Ray costs.

    python benchmarks/bulk.py DIR [--images 1000000] [--kills 10] [--part-size 4096]
    python benchmarks/bulk.py DIR --images 40000 --kills 100 --part-size 128
    python benchmarks/bulk.py DIR --images 60000 --ray

makes synthetic images of 16 x 16 pixels in DIR (tar archives, Parquet files, a folder; a few are
broken), predicts on them undisturbed, and again with the whole job killed (SIGKILL) at random
points and resumed. It prints the peak memory of all its processes, and checks that every image has
exactly one row and that both outputs are the same, byte for byte. The encoders are random
projections: everything is measured but forward passes. With `--ray` it instead runs the job in turn
with the local engine and on Ray, one worker each, on a fifth of the images and on all of them: the
difference of the two is free of what starting costs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bulk_model import COLOURS, LoadProjections

SETTINGS = {"batch_size": 256, "path_column": "path", "image_column": None}


def image(number: int, rng: np.random.Generator) -> bytes:
    if number % 10_007 == 5:
        return b""
    colour = list(COLOURS.values())[number % 3]
    pixels = np.clip(rng.normal(scale=40, size=(16, 16, 3)) + colour, 0, 255).astype(np.uint8)
    return b"P6 16 16 255\n" + pixels.tobytes()


def make(folder: Path, n_images: int) -> list[str]:
    """Write half of the images into archives, four tenths into Parquet, a tenth into folders."""
    import pyarrow
    from pyarrow import parquet

    done = folder / f"made-{n_images}"
    rng = np.random.default_rng(0)
    per_file = max(10, n_images // 100)
    inputs = []
    for first in range(0, n_images, per_file):
        names = [f"{i:08d}.ppm" for i in range(first, min(first + per_file, n_images))]
        kind = "tar" if first < 0.5 * n_images else "parquet" if first < 0.9 * n_images else "dir"
        target = folder / f"{first:08d}{'' if kind == 'dir' else f'.{kind}'}"
        inputs.append(str(target))
        if done.exists():
            continue
        contents = [image(first + i, rng) for i in range(len(names))]
        if kind == "tar":
            with tarfile.open(target, "w") as archive:
                for name, content in zip(names, contents, strict=True):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        elif kind == "parquet":
            table = pyarrow.table({"path": names, "image": contents})
            parquet.write_table(table, target, row_group_size=1000)
        else:
            target.mkdir(parents=True, exist_ok=True)
            for name, content in zip(names, contents, strict=True):
                (target / name).write_bytes(content)
    for name in () if done.exists() else COLOURS:
        (folder / "shots" / name).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            number = 30 + 3 * i + list(COLOURS).index(name)
            (folder / "shots" / name / f"{i}.ppm").write_bytes(image(number, rng))
    done.touch()
    return inputs


def job(shots: str, output: str, engine: str, part_size: str, inputs: list[str]) -> None:
    """One run of the job, in a process of its own."""
    from trustvlm.bulk.job import LocalEngine, run_job

    loader = LoadProjections(shots)
    if engine == "ray":
        from trustvlm.bulk.ray_engine import RayEngine

        runner = RayEngine(loader, actors=(1, 1))
    else:
        runner = LocalEngine(loader)
    identity = {"VLM": "1" * 64}
    settings = {"part_size": int(part_size), **SETTINGS}
    print(run_job(runner, inputs, Path(output), identity=identity, settings=settings), flush=True)


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except FileNotFoundError:
            continue
    return found


def memory(pid: int) -> float:
    """Resident memory in MiB of a process and all below it; what they share counts twice."""
    total = 0
    for one in tree(pid):
        try:
            pages = Path(f"/proc/{one}/statm").read_text().split()[1]
        except FileNotFoundError:
            continue
        total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total / 2**20


def n_parts(output: Path) -> int:
    journal = output / "_trustvlm" / "done.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def watched(command: list[str], kill_when: Callable[[], bool] = lambda: False) -> tuple[float, str]:
    """Run a job; return its peak memory and what it printed, or "" if it was killed."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    # Ray's workers would otherwise stand back behind whatever else the machine does.
    environment = {**os.environ, "PYTHONPATH": path, "RAY_worker_niceness": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        if kill_when():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return peak, ""
        time.sleep(0.1)
    output, _ = process.communicate()
    assert process.returncode == 0, process.returncode
    return peak, output.strip()


def digest(output: Path) -> tuple[str, int, int]:
    """Return a hash of all files of verdicts, the number of rows, and of different paths."""
    from pyarrow import parquet

    files = sorted(output.glob("*.parquet"))
    content = hashlib.sha256()
    n_rows, paths = 0, set()
    for file in files:
        content.update(file.name.encode() + file.read_bytes())
        names = parquet.read_table(file, columns=["path"])["path"].to_pylist()
        n_rows += len(names)
        paths.update(hash(name) for name in names)
    return content.hexdigest(), n_rows, len(paths)


def at_random_points(n_kills: int, n_all: int, output: Path) -> Iterator[Callable[[], bool]]:
    """Yield conditions: so many parts are done, and some time has passed since."""
    rng = random.Random(0)
    for least in sorted(rng.sample(range(n_all - 2), n_kills)):
        pause, reached = rng.uniform(0, 2), []

        def now(least: int = least, pause: float = pause, reached: list[float] = reached) -> bool:
            if not reached and n_parts(output) > least:
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() - reached[0] >= pause

        yield now


def kill_and_resume(
    folder: Path, inputs: list[str], n_images: int, n_kills: int, part_size: int
) -> None:
    began = time.monotonic()
    peak, said = watched(command(folder, "undisturbed", "local", inputs, part_size))
    seconds = time.monotonic() - began
    print(f"undisturbed: {said}\n  peak memory {peak:.0f} MiB, {seconds:.0f} s", flush=True)
    peaks, restarts = [], 0
    output = folder / "killed"
    for condition in at_random_points(n_kills, n_parts(folder / "undisturbed"), output):
        peak, said = watched(command(folder, "killed", "local", inputs, part_size), condition)
        peaks.append(peak)
        if said:
            break
        restarts += 1
        print(f"  kill {restarts}: {n_parts(output)} parts done", flush=True)
    if not said:
        peak, said = watched(command(folder, "killed", "local", inputs, part_size))
        peaks.append(peak)
    print(f"killed {restarts} times: {said}\n  peak memory {max(peaks):.0f} MiB", flush=True)
    one, two = digest(folder / "undisturbed"), digest(output)
    print(f"rows {two[1]}, different paths {two[2]}, images {n_images}")
    print("outputs are the same, byte for byte" if one == two else "OUTPUTS DIFFER")
    assert one == two
    assert two[1] == two[2] == n_images


def compare_engines(folder: Path, inputs: list[str], n_images: int) -> None:
    seconds: dict[tuple[str, str], list[float]] = {}
    digests = set()
    # The inputs are of three kinds, each with its share of every fifth.
    sizes = {"fifth": inputs[::5], "all": inputs}
    for _ in range(3):
        for size, named in sizes.items():
            for engine in ("local", "ray"):
                output = folder / f"{engine}-{size}"
                shutil.rmtree(output, ignore_errors=True)
                began = time.monotonic()
                watched(command(folder, output.name, engine, named))
                seconds.setdefault((engine, size), []).append(time.monotonic() - began)
                if size == "all":
                    digests.add(digest(output))
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    for engine in ("local", "ray"):
        all_, fifth = medians[engine, "all"], medians[engine, "fifth"]
        each = (all_ - fifth) / (0.8 * n_images)
        print(
            f"{engine}: {all_:.1f} s for {n_images} images, {fifth:.1f} s for a fifth: "
            f"{1e3 * each:.3f} ms an image, {all_ - each * n_images:.1f} s to start"
        )
    print(f"ray / local on all: {medians['ray', 'all'] / medians['local', 'all']:.2f}")
    print("the same files" if len(digests) == 1 else "FILES DIFFER")
    assert len(digests) == 1


def command(
    folder: Path, name: str, engine: str, inputs: list[str], part_size: int = 4096
) -> list[str]:
    job = [str(folder / "shots"), str(folder / name), engine, str(part_size)]
    return [sys.executable, __file__, "job", *job, *inputs]


def main() -> None:
    if sys.argv[1:2] == ["job"]:
        job(*sys.argv[2:6], sys.argv[6:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--part-size", type=int, default=4096)
    parser.add_argument("--ray", action="store_true", help="Compare the engines.")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    inputs = make(folder, options.images)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if options.ray:
        compare_engines(folder, inputs, options.images)
    else:
        kill_and_resume(folder, inputs, options.images, options.kills, options.part_size)


if __name__ == "__main__":
    main()
