"""Processes that die and processes that meet do the store no harm."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack

import numpy as np
import pytest

from processes import finished, next_line, running
from trustvlm.embeddings import EmbeddingStore

PER_CHUNK = 16
DIM = 300

WRITER = """
import sys
from test_store_processes import vectors
from trustvlm.embeddings import EmbeddingStore

store = EmbeddingStore(sys.argv[1])
first, last = int(sys.argv[2]), int(sys.argv[3])
print("open", flush=True)
for chunk in range(first, last):
    store.put_many("f", vectors(chunk), spec="writer")
    print(chunk, flush=True)
"""


def vectors(chunk: int) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(chunk).normal(size=(PER_CHUNK, DIM)).astype(np.float32)
    return {f"{chunk}-{i}": row for i, row in enumerate(rows)}


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
        with running(WRITER, path, first, 10**6) as process:
            assert next_line(process) == "open"
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
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running(WRITER, path, start, start + 25)) for start in (0, 25, 50)
        ]
        assert [finished(process) for process in processes] == [(0, "")] * 3
    with EmbeddingStore(path) as store:
        assert all(check_chunk(store, chunk) for chunk in range(75))
        assert store.stats().entries == 75 * PER_CHUNK


def test_two_processes_that_compute_the_same_agree(tmp_path):
    path = tmp_path / "e.sqlite"
    with running(WRITER, path, 0, 25) as one, running(WRITER, path, 0, 25) as other:
        assert finished(one) == finished(other) == (0, "")
    with EmbeddingStore(path) as store:
        assert all(check_chunk(store, chunk) for chunk in range(25))
        assert store.stats().entries == 25 * PER_CHUNK


def test_one_process_empties_the_store_while_another_writes(tmp_path):
    path = tmp_path / "e.sqlite"
    with running(WRITER, path, 0, 200) as process, EmbeddingStore(path) as store:
        assert next_line(process) == "open"
        while process.poll() is None:
            store.clear()
            store.prune(max_bytes=0)
            time.sleep(0.01)
        assert finished(process) == (0, "")
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
