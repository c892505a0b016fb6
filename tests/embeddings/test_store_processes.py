"""Processes that die and processes that meet do the store no harm."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trustvlm.embeddings import EmbeddingStore

PER_CHUNK = 16
DIM = 300

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store_processes import vectors
from trustvlm.embeddings import EmbeddingStore

store = EmbeddingStore(sys.argv[2])
first, last = int(sys.argv[3]), int(sys.argv[4])
print("open", flush=True)
for chunk in range(first, last):
    store.put_many("f", vectors(chunk), spec="writer")
    print(chunk, flush=True)
"""


def vectors(chunk: int) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(chunk).normal(size=(PER_CHUNK, DIM)).astype(np.float32)
    return {f"{chunk}-{i}": row for i, row in enumerate(rows)}


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "error", "-c", WRITER, here, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_chunk(store: EmbeddingStore, chunk: int) -> bool:
    """Whether a chunk is there; it must be whole and right, or absent."""
    expected = vectors(chunk)
    got = store.get_many("f", expected)
    assert len(got) in (0, PER_CHUNK), "a transaction was torn"
    for key, row in got.items():
        assert row.tobytes() == expected[key].tobytes()
    return bool(got)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_at_any_moment_loses_nothing_that_was_committed(tmp_path):
    path = tmp_path / "e.sqlite"
    rng = random.Random(0)
    first = 0
    for _ in range(6):
        process = writer(path, first, 10**6)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(rng.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        committed = [int(line) for line in said.split() if line.isdigit()]
        last = committed[-1] if committed else first - 1
        with EmbeddingStore(path) as store:  # a warning about damage would be an error here
            assert all(check_chunk(store, chunk) for chunk in range(last + 1))
            # One more may have been committed before its number was printed.
            first = last + 1 + check_chunk(store, last + 1)
            assert store.stats().entries == first * PER_CHUNK
    assert first > 20
    assert [p.name for p in tmp_path.iterdir() if "damaged" in p.name] == []


def test_processes_that_start_at_once_share_one_new_store(tmp_path):
    path = tmp_path / "new" / "e.sqlite"
    processes = [writer(path, start, start + 25) for start in (0, 25, 50)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert [stderr for _, stderr in results] == ["", "", ""]
    with EmbeddingStore(path) as store:
        assert all(check_chunk(store, chunk) for chunk in range(75))
        assert store.stats().entries == 75 * PER_CHUNK


def test_two_processes_that_compute_the_same_agree(tmp_path):
    path = tmp_path / "e.sqlite"
    processes = [writer(path, 0, 25) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, "")
    with EmbeddingStore(path) as store:
        assert all(check_chunk(store, chunk) for chunk in range(25))
        assert store.stats().entries == 25 * PER_CHUNK


def test_one_process_empties_the_store_while_another_writes(tmp_path):
    path = tmp_path / "e.sqlite"
    process = writer(path, 0, 200)
    assert process.stdout is not None
    process.stdout.readline()
    with EmbeddingStore(path) as store:
        while process.poll() is None:
            store.clear()
            store.prune(max_bytes=0)
            time.sleep(0.01)
        _, stderr = process.communicate()
        assert (process.returncode, stderr) == (0, "")
        chunks = [check_chunk(store, chunk) for chunk in range(200)]
        assert sum(chunks) * PER_CHUNK == store.stats().entries


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_store_may_be_used_on_both_sides_of_a_fork(tmp_path):
    store = EmbeddingStore(tmp_path / "e.sqlite")
    store.put_many("f", vectors(0))
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = check_chunk(store, 0)
            store.put_many("f", vectors(1))
        finally:
            os._exit(0 if right else 1)
    store.put_many("f", vectors(2))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(check_chunk(store, chunk) for chunk in range(3))
    store.close()
