"""What the service withstands; the tables in benchmarks/RESULTS.md, "Service".

    python benchmarks/service.py IMAGES [--images 400] [--rounds 5] [--requests 10000] [--kills 100]

IMAGES is a folder of class folders. Three parts: throughput at 32 clients beside `predict` on the
same images, with nothing remembered; many requests of which a third are malformed, with every good
answer compared with that of `predict`; and a writer of answers killed again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from service_requests import MALFORMED, Answer, ask, good
from trustvlm import TrustVLM
from trustvlm.embeddings import NullStore
from trustvlm.images import find_labelled

CLIENTS = 32
WRITER = """
import sys
from pathlib import Path
from trustvlm.serve.feedback import Answer, FeedbackStore
store = FeedbackStore(Path(sys.argv[1]))
while True:
    print(store.record(Answer("0" * 64, "m", "correct", "a", "a", "b")), flush=True)
"""
PREDICT = """
import sys, time
from trustvlm import TrustVLM
from trustvlm.embeddings import NullStore
model = TrustVLM.load(sys.argv[1], store=NullStore())
paths = sys.stdin.read().splitlines()
model.predict(paths[:32])
begin, used = time.perf_counter(), time.process_time()
model.predict(paths)
print(len(paths) / (time.perf_counter() - begin), (time.process_time() - used) / len(paths))
"""


@contextlib.contextmanager
def service(model: Path, folder: Path, *options: object) -> Iterator[tuple[int, int]]:
    """Process id and port of a service."""
    port = 8700 + os.getpid() % 200
    command = [sys.executable, "-m", "trustvlm", "serve", model, "--port", port, *options]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        list(map(str, [*command, "--feedback", folder / "f.sqlite"])), stderr=log
    )
    try:
        asyncio.run(_until_ready(port))
        yield process.pid, port
    finally:
        process.terminate()
        assert process.wait(60) == 0, (folder / "log").read_text()[-2000:]
        log.close()


async def _until_ready(port: int) -> None:
    for _ in range(300):
        try:
            answer = await _once(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except OSError:
            await asyncio.sleep(0.2)
        else:
            assert answer.status == 200, answer
            return
    raise TimeoutError


async def _once(port: int, request: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await ask(reader, writer, request)
    finally:
        writer.close()


async def closed_loop(port: int, requests: list[bytes]) -> tuple[float, list[float]]:
    """Images per second and latencies of clients that ask, wait, and ask again."""
    todo, latencies = iter(requests), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in todo:
            begin = time.perf_counter()
            answer = await ask(reader, writer, request)
            latencies.append(time.perf_counter() - begin)
            assert answer.status == 200, answer
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(requests) / (time.perf_counter() - begin), latencies


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def throughput(model: Path, paths: list[Path], folder: Path, rounds: int) -> None:
    """Print throughput, processor time and latency beside `predict`, by turns."""
    requests = [good([path.read_bytes()]) for path in paths]
    offline, online, latencies = [], [], []
    for _ in range(rounds):
        names = "\n".join(map(str, paths))
        command = [sys.executable, "-c", PREDICT, str(model)]
        done = subprocess.run(command, input=names, text=True, capture_output=True, check=True)
        offline.append(tuple(map(float, done.stdout.split())))
        with service(model, folder, "--remember-images", 0) as (pid, port):
            asyncio.run(closed_loop(port, requests[:CLIENTS]))
            used = processor_seconds(pid)
            rate, took = asyncio.run(closed_loop(port, requests))
            online.append((rate, (processor_seconds(pid) - used) / len(requests)))
        latencies += took
    cuts = statistics.quantiles(latencies, n=100)
    print("| | predict | service | service / predict, median of the turns (each) |")
    print("|---|--:|--:|---|")
    for i, name in enumerate(("images per second", "processor seconds per image")):
        pairs = [(a[i], b[i]) for a, b in zip(offline, online, strict=True)]
        before, after = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratios = [b / a for a, b in pairs]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {name} | {before:.3g} | {after:.3g} | {statistics.median(ratios):.2f} ({each}) |")
    print(f"\n{len(paths)} images, {CLIENTS} clients with one image a request;", end=" ")
    print(f"latency p50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms")


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def storm(
    port: int, pid: int, images: dict[bytes, dict], n: int
) -> tuple[Counter, list[str], list[float]]:
    """Send n requests, a third malformed; return statuses, faults, and memory on the way."""
    pool, kinds = list(images), list(MALFORMED)
    statuses: Counter = Counter()
    faults: list[str] = []
    memory: list[float] = []
    todo = iter(range(n))

    async def client(seed: int) -> None:
        rng = random.Random(seed)
        for i in todo:
            image = rng.choice(pool)
            kind = rng.choice(kinds) if rng.random() < 1 / 3 else ""
            if i % (n // 8) == 0:
                memory.append(resident(pid))
            if rng.random() < 0.01:
                await _leave_early(port, good([image]), rng)
                statuses["left early"] += 1
                continue
            make, right = MALFORMED[kind] if kind else (lambda x, _: good([x]), {200})
            try:
                answer = await asyncio.wait_for(_once(port, make(image, rng)), 60)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                statuses["closed"] += 1
                faults.append(f"{kind or 'good'}: {type(error).__name__}")
                continue
            statuses[answer.status] += 1
            if answer.status not in right and answer.status != 429:
                faults.append(f"{kind or 'good'}: {answer.status} {answer.body[:200]!r}")
            elif not kind and answer.status == 200:
                (verdict,) = answer.json()["verdicts"]
                if any(verdict[k] != v for k, v in images[image].items() if k != "confidence"):
                    faults.append(f"wrong: {verdict}")
                elif abs(verdict["confidence"] - images[image]["confidence"]) > 1e-6:
                    faults.append(f"wrong confidence: {verdict}")

    await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
    await asyncio.sleep(2)
    memory.append(resident(pid))
    return statuses, faults, memory


async def _leave_early(port: int, request: bytes, rng: random.Random) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request[: rng.randrange(len(request))])
    await asyncio.sleep(0.05)
    writer.transport.abort()


def hostile(model: Path, paths: list[Path], folder: Path, n: int) -> None:
    """Print what became of many requests, a third of them malformed."""
    verdicts = TrustVLM.load(model, store=NullStore()).predict(paths)
    kept = ("label", "decision", "reason", "runner_up", "confidence")
    images = {
        path.read_bytes(): {name: getattr(verdict, name) for name in kept}
        for path, verdict in zip(paths, verdicts, strict=True)
    }
    options = ("--max-body-mib", 4, "--max-bodies-mib", 64, "--body-seconds", 2)
    with service(model, folder, *options) as (pid, port):
        asyncio.run(storm(port, pid, images, max(64, n // 10)))
        begin = time.perf_counter()
        statuses, faults, memory = asyncio.run(storm(port, pid, images, n))
        took = time.perf_counter() - begin
        slow = asyncio.run(_slow(port))
    print(f"\n{n} requests in {took:.0f} s; answers: {dict(sorted(statuses.items(), key=str))}")
    print(f"faults: {len(faults)} {faults[:5]}; a body that never ends: {slow}")
    print(f"resident memory on the way, MiB: {', '.join(f'{m:.0f}' for m in memory)}")


async def _slow(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    answer = await asyncio.wait_for(ask(reader, writer, head + b"x"), 30)
    writer.close()
    return answer.status


def kills(folder: Path, n: int) -> None:
    """Print how many acknowledged answers were lost by a writer killed n times."""
    path, acknowledged = folder / "kills.sqlite", set()
    for i in range(n):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        acknowledged.add(int(process.stdout.readline()))
        time.sleep(random.Random(i).random() / 10)
        process.kill()
        rest, _ = process.communicate()
        acknowledged |= {int(line) for line in rest.splitlines(keepends=True) if line[-1] == "\n"}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        stored = {number for (number,) in connection.execute("SELECT id FROM answers")}
        (state,) = connection.execute("PRAGMA integrity_check").fetchone()
    lost = len(acknowledged - stored)
    print(f"\n{n} kills: {len(acknowledged)} answers acknowledged, {lost} lost; database {state}")


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    labelled = find_labelled(options.folder)
    rng = random.Random(0)
    by_class: dict[str, list[Path]] = {}
    for ref in rng.sample(labelled.refs, len(labelled.refs)):
        by_class.setdefault(str(ref.label), []).append(ref.file)
    shots = [(str(p), label) for label, files in by_class.items() for p in files[:8]]
    rest = [path for files in by_class.values() for path in files[8:]]
    rng.shuffle(rest)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = TrustVLM(vlm="offline", vision="offline", score="trustvlm", store=NullStore())
        model.fit(tuple(zip(*shots, strict=True))).save(folder / "m.trust")
        if options.images:
            throughput(folder / "m.trust", rest[: options.images], folder, options.rounds)
        if options.requests:
            hostile(folder / "m.trust", rest[:64], folder, options.requests)
        if options.kills:
            kills(folder, options.kills)


if __name__ == "__main__":
    main()
