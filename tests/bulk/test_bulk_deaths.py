"""Killed runs, killed workers, and images that kill."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from bulk_models import DEADLY, FAILING, STOPPING, LoadTiny, OwnProcess, files, rows, write_poison
from processes import finished, next_line, running
from trustvlm.bulk.job import LocalEngine
from trustvlm.exceptions import BulkError, InputError, TrustVLMWarning

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")

RUN = """
import sys
from pathlib import Path
from bulk_models import IDENTITY, LoadTiny, files, rows
from trustvlm.bulk.job import LocalEngine, run_job

loader = LoadTiny(Path(sys.argv[1]), batch_size=4, pause=0.3)
settings = {"part_size": 6, "batch_size": 4, "path_column": "path", "image_column": None}
identity = {"VLM": "a" * 64, "score": "b" * 64}
run_job(
    LocalEngine(loader), sys.argv[3:], Path(sys.argv[2]), identity=identity, settings=settings
)
"""


def n_done(output):
    journal = output / "_trustvlm" / "done.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.slow
def test_killed_again_and_again_and_resumed(run, shots, photos, tmp_path):
    sources = [str(photos / "red"), str(photos.with_suffix(".tar"))]
    run(sources, tmp_path / "undisturbed")
    rng = random.Random(1)
    out = tmp_path / "out"
    for enough in (0, 2, 5):
        with running(RUN, shots, out, *sources) as process:
            while process.poll() is None and n_done(out) <= enough:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.3)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
    assert n_done(out) < 11, "killed in the middle"
    assert run(sources, out).n_now > 0
    assert files(out) == files(tmp_path / "undisturbed")
    paths = [row["path"] for row in rows(out)]
    assert len(paths) == len(set(paths)) == 15 + 47


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from bulk_models import IDENTITY, LoadTiny, OwnProcess, n_killed_before_the_end
from trustvlm.bulk.job import run_job

settings = {"part_size": 2, "batch_size": 2, "path_column": "path", "image_column": None}

def work():
    loader = LoadTiny(Path(sys.argv[1]), batch_size=2, pause=0.005)
    output = Path(sys.argv[2])
    run_job(OwnProcess(loader), sys.argv[4:], output, identity=IDENTITY, settings=settings)

print(n_killed_before_the_end(work, n_kills=int(sys.argv[3])))
"""


def test_killed_at_any_moment_every_row_is_there_once(run, shots, photos, tmp_path):
    # A hundred kills of real jobs: benchmarks/bulk.py.
    sources = [str(photos.with_suffix(".tar"))]
    small = {"part_size": 2, "batch_size": 2}
    run(sources, tmp_path / "undisturbed", engine=OwnProcess, **small)
    with running(KILLS, shots, tmp_path / "out", 12, *sources) as process:
        assert int(next_line(process)) >= 6
        assert finished(process) == (0, "")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
    paths = [row["path"] for row in rows(tmp_path / "out")]
    assert len(paths) == len(set(paths)) == 47


@pytest.fixture
def poisoned(photos, tmp_path):
    listed = [str(p) for p in sorted(photos.rglob("*.png"))]
    write_poison(tmp_path / "one.png", DEADLY)
    write_poison(tmp_path / "two.png", FAILING)
    listed[8:8] = [str(tmp_path / "one.png")]
    listed[10:10] = [str(tmp_path / "two.png")]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    return tmp_path / "list.txt"


def test_an_image_that_kills_is_a_row_with_its_error(run, poisoned, tmp_path):
    deaths = tmp_path / "deaths"
    with pytest.warns(TrustVLMWarning, match="a worker died in .*; attempt . of 2"):
        summary = run(poisoned, tmp_path / "out", deaths=str(deaths))
    assert summary.n_images == 48
    assert summary.errors["fatal"] == 2
    written = {row["path"]: row for row in rows(tmp_path / "out")}
    assert len(written) == 48
    for name, reason in (("one.png", "SIGKILL"), ("two.png", "illegal memory access")):
        assert "stopped the process that read it 2 times" in written[f"{tmp_path}/{name}"]["error"]
        assert reason in written[f"{tmp_path}/{name}"]["error"]
    # Two tries of the part, then two of each image.
    assert len(deaths.read_text().split()) == 2 + 2 + 2
    # The other rows are those of a run in which the two could not be read in the first place.
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"")
    run(poisoned, tmp_path / "clean")
    clean = {row["path"]: row for row in rows(tmp_path / "clean")}
    for name in ("one.png", "two.png"):
        del written[f"{tmp_path}/{name}"], clean[f"{tmp_path}/{name}"]
    assert written == clean


def test_a_worker_that_dies_once_costs_nothing_but_time(run, poisoned, tmp_path):
    deaths = tmp_path / "deaths"
    with pytest.warns(TrustVLMWarning, match="attempt 1 of 2"):
        run(poisoned, tmp_path / "out", deaths=str(deaths), spare_after=1)
    run(poisoned, tmp_path / "undisturbed")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_a_death_that_no_image_explains_ends_the_run_and_keeps_the_rest(
    run, poisoned, tmp_path, monkeypatch
):
    from trustvlm.bulk import worker

    monkeypatch.setattr(worker.GuardedWorker, "_find_fatal", lambda *_: {})
    with (
        pytest.warns(TrustVLMWarning, match="attempt . of 2"),
        pytest.raises(BulkError, match="none of them does so alone"),
    ):
        run(poisoned, tmp_path / "out", deaths=str(tmp_path / "deaths"))
    assert n_done(tmp_path / "out") == 1
    assert run(poisoned, tmp_path / "out").n_images == 48


def test_what_the_worker_refuses_is_said_as_it_is(run, photos, tmp_path):
    with pytest.raises(InputError, match="folder of class folders"):
        run(
            photos,
            tmp_path / "out",
            engine=lambda _, retries: LocalEngine(LoadTiny(tmp_path / "none"), retries),
        )


def test_the_worker_ends_with_its_parent(shots, photos, tmp_path):
    with running(RUN, shots, tmp_path / "out", photos) as process:
        while process.poll() is None and n_done(tmp_path / "out") < 1:
            time.sleep(0.005)
        children = [
            int(pid)
            for task in os.scandir(f"/proc/{process.pid}/task")
            for pid in Path(task.path, "children").read_text().split()
        ]
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(15_000):
        if not any(alive(pid) for pid in children):
            break
        time.sleep(0.02)
    assert not any(alive(pid) for pid in children)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_decoder_that_hangs_is_a_row_and_ends_its_process_after_the_part(run, photos, tmp_path):
    listed = [str(p) for p in sorted(photos.rglob("*.png"))]
    hangs = tmp_path / "hangs.png"
    hangs.write_bytes(Path(listed[0]).read_bytes() + b"other")
    listed[8:8] = [str(hangs)]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    started = tmp_path / "started"
    summary = run(
        tmp_path / "list.txt", tmp_path / "out", hanging="hangs", seconds=5.0, started=str(started)
    )
    assert summary.n_images == len(listed)
    assert summary.errors["too_slow"] == 1
    written = {row["path"]: row for row in rows(tmp_path / "out")}
    assert "hangs.png: decoding took longer than 5 s" in written[str(hangs)]["error"]
    assert len(started.read_text().split()) == 2, "the part's process, and one for the others"
    run(tmp_path / "list.txt", tmp_path / "undisturbed")
    whole = {row["path"]: row for row in rows(tmp_path / "undisturbed")}
    near = {str(hangs), *listed[6:12]}
    assert {p: r for p, r in written.items() if p not in near} == {
        p: r for p, r in whole.items() if p not in near
    }


def test_an_image_that_stops_the_whole_process_is_a_row_with_its_error(run, photos, tmp_path):
    listed = [str(p) for p in sorted(photos.rglob("*.png"))][:8]
    write_poison(tmp_path / "stops.png", STOPPING)
    listed[3:3] = [str(tmp_path / "stops.png")]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    with pytest.warns(TrustVLMWarning, match=r"a worker died in .* \(no sign of life for 8 s\)"):
        summary = run(
            tmp_path / "list.txt",
            tmp_path / "out",
            deaths=str(tmp_path / "deaths"),
            retries=0,
            engine=lambda loader, retries: LocalEngine(loader, retries, silence=8.0),
        )
    assert summary.n_images == 9
    assert summary.errors == {"fatal": 1}
    (row,) = [row for row in rows(tmp_path / "out") if row["error"]]
    assert row["path"] == str(tmp_path / "stops.png")
    assert "stopped the process that read it 1 times (no sign of life for 8 s)" in row["error"]
