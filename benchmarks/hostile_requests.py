"""What a service does under attack; the table in benchmarks/RESULTS.md, "Hostile requests".

    python benchmarks/hostile_requests.py IMAGES [--requests 10000] [--clients 16] [--seconds 600]

IMAGES is a folder of class folders. First the usual time of a request with one good image, from as
many clients; then many requests of which a third are hostile: pictures that cost far more than they
weigh, bodies of millions of values, malformed ones. It counts what was answered and how, with every
good answer compared with that of the quiet service, and the memory of the service and of its
decoders before and after. At last 500 connections that say nothing beside 128 that ask.
`--apart` sends what is hostile from other addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from service import service
from service_requests import MALFORMED, ask, good, post
from trustvlm import TrustVLM
from trustvlm.embeddings import NullStore
from trustvlm.images import find_labelled

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hostile import empty_objects, hostile_images, many_scans

SILENT, BUSY = 500, 128
# Answers with 5xx that are declared: out of time, and no room for another connection.
DECLARED = {503}


def requests_by_kind(rng: random.Random, image: bytes) -> dict[str, bytes]:
    """Hostile requests by what they are."""
    made = {name: good([content]) for name, content in hostile_images().items()}
    made["64 large pictures"] = good([many_scans(400, 3000) + bytes(i) for i in range(64)])
    for n_bytes in (3_000_000, 33_000_000):
        body = empty_objects(n_bytes)
        made[f"{len(body) // 10**6} MB of objects"] = post("/v1/predict", body, "application/json")
        made[f"{len(body) // 10**6} MB of feedback"] = post(
            "/v1/feedback", body, "application/json"
        )
    for name, (make, _) in MALFORMED.items():
        made[name] = make(image, rng)
    return made


def memory(pid: int) -> float:
    """Resident memory of a process and those that it started, in MiB."""
    total = 0.0
    children = Path(f"/proc/{pid}/task").glob("*/children")
    for one in (str(pid), *(c for file in children for c in file.read_text().split())):
        lines = Path(f"/proc/{one}/status").read_text().splitlines()
        total += next((int(x.split()[1]) for x in lines if x.startswith("VmRSS")), 0) / 1024
    return total


async def one(port: int, request: bytes, address: str = "127.0.0.1") -> tuple[int, dict, float]:
    """Status, body and seconds of one request on a connection of its own; 0 if it was closed."""
    begin = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        try:
            answer = await asyncio.wait_for(ask(reader, writer, request), 120)
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return 0, {}, time.perf_counter() - begin
    body = answer.json() if answer.body[:1] == b"{" else {}
    return answer.status, body, time.perf_counter() - begin


async def quiet(port: int, images: list[bytes], clients: int, n: int) -> tuple[dict, list[float]]:
    """Labels of all images, and the usual seconds."""
    labels: dict[bytes, str] = {}
    seconds = []
    todo = iter(range(n))

    async def client() -> None:
        for i in todo:
            image = images[i % len(images)]
            status, body, took = await one(port, good([image]))
            assert status == 200, (status, body)
            labels[image] = body["verdicts"][0]["label"]
            seconds.append(took)

    await asyncio.gather(*(client() for _ in range(clients)))
    return labels, seconds


async def attack(
    port: int, labels: dict[bytes, str], options: argparse.Namespace
) -> tuple[list[float], Counter, dict[str, list[tuple[int, float]]]]:
    """Seconds and faults of good requests; statuses and seconds of the others, by kind."""
    rng = random.Random(0)
    hostile = requests_by_kind(rng, next(iter(labels)))
    seconds: list[float] = []
    faults: Counter = Counter()
    others: dict[str, list[tuple[int, float]]] = defaultdict(list)
    end = time.monotonic() + options.seconds
    plan = ["hostile" if rng.random() < 1 / 3 else "good" for _ in range(options.requests)]
    todo = iter(plan)

    async def client(number: int) -> None:
        for sort in todo:
            if time.monotonic() > end:
                return
            if sort == "good":
                image = rng.choice(list(labels))
                status, body, took = await one(port, good([image]))
                seconds.append(took)
                if status != 200 or body["verdicts"][0]["label"] != labels[image]:
                    faults[f"good: {status} {body.get('error', '')}"[:100]] += 1
            else:
                kind = rng.choice(list(hostile))
                address = f"127.0.0.{2 + number % 200}" if options.apart else "127.0.0.1"
                status, body, took = await one(port, hostile[kind], address)
                others[kind].append((status, took))
                if status >= 500 and status not in DECLARED:
                    faults[f"{kind}: {status} {body}"[:100]] += 1

    await asyncio.gather(*(client(i) for i in range(options.clients)))
    return seconds, faults, others


async def crowd(port: int, images: list[bytes]) -> tuple[list[float], Counter]:
    """Seconds and statuses of busy connections beside silent ones."""
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SILENT)]
    asked = await asyncio.gather(*(one(port, good([images[i % len(images)]])) for i in range(BUSY)))
    for _, writer in silent:
        writer.close()
    return [took for _, _, took in asked], Counter(status for status, _, _ in asked)


def describe(seconds: list[float]) -> str:
    """Median, 99th percentile and maximum, in words."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, max {max(seconds):.2f} s"


def main() -> None:
    """Attack a service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--apart", action="store_true")
    options = parser.parse_args()
    labelled = find_labelled(options.folder)
    refs = random.Random(0).sample(labelled.refs, min(200, len(labelled.refs)))
    by_class: dict[str, list[Path]] = {}
    for ref in refs:
        by_class.setdefault(str(ref.label), []).append(ref.file)
    shots = [(str(p), label) for label, files in by_class.items() for p in files[:4]]
    images = [p.read_bytes() for files in by_class.values() for p in files[4:]][:64]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.trust"
        model = TrustVLM(vlm="offline", vision="offline", score="trustvlm", store=NullStore())
        model.fit(tuple(zip(*shots, strict=True))).save(path)
        with service(path, Path(name), "--remember-images", 0) as (pid, port):
            labels, usual = asyncio.run(quiet(port, images, options.clients, 200))
            before = memory(pid)
            begin = time.perf_counter()
            seconds, faults, others = asyncio.run(attack(port, labels, options))
            took = time.perf_counter() - begin
            time.sleep(10)  # longer than the service waits before it gives memory back
            asyncio.run(quiet(port, images, options.clients, 50))
            after = memory(pid)
            beside, statuses = asyncio.run(crowd(port, images))
            begin = time.perf_counter()
        stopped = time.perf_counter() - begin
    n = len(seconds) + sum(map(len, others.values()))
    print(f"{n} requests in {took:.0f} s, {len(seconds)} of them good")
    print(f"usual: {describe(usual)}\nunder attack: {describe(seconds)}")
    print(f"faults: {dict(faults) or 'none'}")
    print(f"memory of all processes: {before:.0f} MiB before, {after:.0f} MiB after")
    print(f"{BUSY} beside {SILENT} silent: {describe(beside)}; {dict(statuses)}")
    print(
        f"stopped within {stopped:.1f} s\n\n| hostile | n | answers | longest |\n|---|--:|---|--:|"
    )
    for kind, answers in sorted(others.items()):
        statuses = Counter(status for status, _ in answers)
        print(
            f"| {kind} | {len(answers)} | {dict(statuses)} | {max(t for _, t in answers):.1f} s |"
        )


if __name__ == "__main__":
    main()
