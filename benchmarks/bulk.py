"""Bulk prediction at scale: memory, kills, and what it costs.

    python benchmarks/bulk.py DIR [--images 1000000] [--kills 10]

makes synthetic images of 16 x 16 pixels in DIR (tar archives, Parquet files, a folder; a few are
broken), predicts on them undisturbed, and again with the whole job killed (SIGKILL) at random
points and resumed. It prints the peak memory of all its processes, and checks that every image has
exactly one row and that both outputs are the same, byte for byte. The encoders are random
projections: everything is measured but forward passes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np

from bulk_model import COLOURS, LoadProjections

SETTINGS = {"part_size": 4096, "batch_size": 256, "path_column": "path", "image_column": None}


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
    for name in COLOURS:
        (folder / "shots" / name).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            number = 30 + 3 * i + list(COLOURS).index(name)
            (folder / "shots" / name / f"{i}.ppm").write_bytes(image(number, rng))
    done.touch()
    return inputs


def job(shots: str, output: str, inputs: list[str], engine: str = "local") -> None:
    """One run of the job, in a process of its own."""
    from trustvlm.bulk.engines import LocalEngine
    from trustvlm.bulk.job import run_job

    making = LocalEngine
    if engine == "ray":
        from trustvlm.bulk.ray_engine import RayEngine

        making = RayEngine
    engine = making(LoadProjections(shots))
    identity = {"VLM": "1" * 64}
    print(run_job(engine, inputs, Path(output), identity=identity, settings=SETTINGS), flush=True)


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


def watched(command: list[str], kill_after: float | None = None) -> tuple[bool, float, str]:
    """Run a job; return whether it ended by itself, its peak memory, and what it printed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    began, peak = time.monotonic(), 0.0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        if kill_after is not None and time.monotonic() - began > kill_after:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return False, peak, ""
        time.sleep(0.1)
    output, _ = process.communicate()
    assert process.returncode == 0, process.returncode
    return True, peak, output.strip()


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


def main() -> None:
    if sys.argv[1:2] == ["job"]:
        job(sys.argv[2], sys.argv[3], sys.argv[5:], sys.argv[4])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ray", action="store_true", help="Run it on Ray, too.")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    inputs = make(folder, options.images)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")

    def command(name: str, engine: str = "local") -> list[str]:
        shots = str(folder / "shots")
        return [sys.executable, __file__, "job", shots, str(folder / name), engine, *inputs]

    began = time.monotonic()
    _, peak, said = watched(command("undisturbed"))
    seconds = time.monotonic() - began
    print(f"undisturbed: {said}\n  peak memory {peak:.0f} MiB, {seconds:.0f} s", flush=True)
    rng, peaks, done, restarts = random.Random(0), [], False, 0
    for number in range(options.kills):
        pause = rng.uniform(0.02, 1.9) * seconds / (options.kills + 1) + 2
        done, peak, said = watched(command("killed"), pause)
        peaks.append(peak)
        if done:
            break
        restarts += 1
        journal = folder / "killed" / "_trustvlm" / "done.jsonl"
        parts = journal.read_bytes().count(b"\n") if journal.exists() else 0
        print(f"  kill {number + 1} after {pause:.1f} s: {parts} parts done", flush=True)
    if not done:
        _, peak, said = watched(command("killed"))
        peaks.append(peak)
    print(f"killed {restarts} times: {said}\n  peak memory {max(peaks):.0f} MiB", flush=True)
    one, two = digest(folder / "undisturbed"), digest(folder / "killed")
    print(f"rows {two[1]}, different paths {two[2]}, images {options.images}")
    print("outputs are the same, byte for byte" if one == two else "OUTPUTS DIFFER")
    if options.ray:
        began = time.monotonic()
        _, peak, said = watched(command("ray", "ray"))
        print(f"ray: {said}\n  peak memory {peak:.0f} MiB, {time.monotonic() - began:.0f} s")
        print("the same as local" if digest(folder / "ray") == one else "RAY DIFFERS")
    assert one == two
    assert two[1] == two[2] == options.images


if __name__ == "__main__":
    main()
