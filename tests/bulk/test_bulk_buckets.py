"""Bulk jobs from and to object storage: equal rows, each once, whoever is killed and when."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulk_models import OwnProcess
from pictures import write_class_folders
from trustvlm.bulk import folder as folders
from trustvlm.bulk.folder import BucketFolder
from trustvlm.exceptions import BulkError, InputError, TrustVLMWarning
from trustvlm.storage import RemoteFolder

N_PICTURES = 600


@pytest.fixture
def memory():
    """An empty storage in memory, and the URL of a folder in it."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    url = f"memory://job-{os.urandom(4).hex()}"
    yield files, url
    if files.exists(url):
        files.rm(url, recursive=True)


def verdicts(files, url) -> dict[str, bytes]:
    """Return every file of verdicts right in a folder, by name."""
    files.invalidate_cache()
    return {
        path.rpartition("/")[2]: files.cat_file(path)
        for path in sorted(files.ls(url, detail=False))
        if path.endswith(".parquet")
    }


def here(output: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(output.glob("*.parquet"))}


def rows(contents: dict[str, bytes]) -> list[dict]:
    import io

    parquet = pytest.importorskip("pyarrow.parquet")
    return [row for c in contents.values() for row in parquet.read_table(io.BytesIO(c)).to_pylist()]


def test_a_job_in_storage_writes_what_one_here_does_and_is_resumed(run, photos, memory, tmp_path):
    files, url = memory
    run(photos, tmp_path / "local", engine=OwnProcess)
    first = run(photos, url, engine=OwnProcess)
    assert (first.output, first.n_images, first.n_now) == (url, 47, 47)
    assert verdicts(files, url) == here(tmp_path / "local")
    assert json.loads(files.cat_file(f"{url}/_trustvlm/summary.json"))["images"] == 47
    assert not files.exists(f"{url}/_trustvlm/lock.json")
    again = run(photos, url, engine=OwnProcess)
    assert (again.n_images, again.n_now, again.decisions) == (47, 0, first.decisions)
    # A file that is gone, or cut, is made again; so is one whose record is missing.
    files.rm_file(f"{url}/part-000001-000000.parquet")
    files.pipe_file(f"{url}/part-000002-000000.parquet", b"cut")
    files.rm_file(sorted(files.ls(f"{url}/_trustvlm/done", detail=False))[0])
    assert run(photos, url, engine=OwnProcess).n_now == 18
    assert verdicts(files, url) == here(tmp_path / "local")


def test_other_jobs_and_other_files_are_refused(run, photos, memory):
    files, url = memory
    files.pipe_file(f"{url}/thesis.tex", b"mine")
    with pytest.raises(InputError, match=r"'memory://\S+' to be new, empty.*it holds 'thesis"):
        run(photos, url, engine=OwnProcess)
    files.rm_file(f"{url}/thesis.tex")
    run(photos, url, engine=OwnProcess)
    with pytest.raises(InputError, match=r"begun with another setting \(batch_size: 4 there"):
        run(photos, url, engine=OwnProcess, batch_size=5)
    (record, *_) = sorted(files.ls(f"{url}/_trustvlm/done", detail=False))
    files.pipe_file(record, b"{")
    with pytest.raises(InputError, match=r"The object memory://\S+json is damaged.*Remove it"):
        run(photos, url, engine=OwnProcess)


@pytest.fixture
def quick(monkeypatch):
    """Locks that are renewed, and given up, within moments."""
    monkeypatch.setattr(folders, "_RENEWAL", 0.1)
    monkeypatch.setattr(folders, "_PATIENCE", 0.6)


def test_a_second_run_is_refused_while_the_first_renews_its_lock(memory, quick):
    folder = BucketFolder(memory[1])
    other = rf"Another run .*\(process {os.getpid()} on {socket.gethostname()}\)"
    with folder.locked(), pytest.raises(InputError, match=other), BucketFolder(memory[1]).locked():
        pass
    with folder.locked():
        pass


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_the_lock_of_a_dead_run_is_taken_over(host, memory, quick, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    held = {"host": host or socket.gethostname(), "pid": process.pid, "token": "x", "renewed": 7}
    lock = RemoteFolder(memory[1]) / "_trustvlm"
    lock.write("lock.json", json.dumps(held).encode())
    began = time.monotonic()
    holding = BucketFolder(memory[1]).locked()
    with pytest.warns(TrustVLMWarning, match="is no more"):
        holding.__enter__()
    waited = time.monotonic() - began
    assert json.loads(lock.read("lock.json"))["pid"] == os.getpid()
    holding.__exit__(None, None, None)
    assert not {"lock.json"} & lock.sizes().keys()
    # Of a process of this machine the system knows at once.
    assert waited >= 0.6 if host else waited < 0.6


def test_a_run_whose_lock_is_taken_over_stops(memory, quick):
    folder = BucketFolder(memory[1])
    with folder.locked():
        folder.record("part.parquet", b"x", "part-0", "{}")
        (RemoteFolder(memory[1]) / "_trustvlm").write("lock.json", b'{"token": "of another"}')
        assert folder._lost.wait(10)
        with pytest.raises(BulkError, match="Another run has taken over"):
            folder.record("part.parquet", b"y", "part-0", "{}")
    assert memory[0].cat_file(f"{memory[1]}/part.parquet") == b"x"
    assert memory[0].exists(f"{memory[1]}/_trustvlm/lock.json"), "the lock of the other stays"


def test_storage_that_fails_is_said_and_the_run_goes_on_later(run, photos, memory, monkeypatch):
    files, url = memory
    pipe, n_written = type(files).pipe_file, []

    def fails(self, path, value, **settings):
        if path.endswith(".parquet"):
            n_written.append(path)
            if len(n_written) == 3:
                raise RuntimeError("SlowDown https://s3/x?X-Amz-Signature=secret")
        return pipe(self, path, value, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "pipe_file", fails)
        said = r"SlowDown https://s3/x\).*Check the network"
        with pytest.raises(BulkError, match=said) as caught:
            run(photos, url, engine=OwnProcess)
    assert "secret" not in str(caught.value)
    assert run(photos, url, engine=OwnProcess).n_now == 47 - 12
    assert len(rows(verdicts(files, url))) == 47


JOB = """
import sys
from pathlib import Path
from bulk_models import IDENTITY, LoadTiny
from trustvlm.bulk.job import LocalEngine, run_job
shots, images, output, started = sys.argv[1:]
settings = {"part_size": 25, "batch_size": 4, "path_column": "path", "image_column": None}
loader = LoadTiny(Path(shots), pause=0.02, started=started)
print(run_job(LocalEngine(loader), images, output, identity=IDENTITY, settings=settings))
"""


@pytest.mark.s3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_600_pictures_from_and_to_a_bucket_with_worker_and_run_killed(run, shots, bucket, tmp_path):
    import s3fs

    files = s3fs.S3FileSystem()
    pictures = write_class_folders(tmp_path / "many", per_class=N_PICTURES // 3, seed=11)
    files.put(f"{pictures}/", f"{bucket}/many/", recursive=True)
    run(pictures, tmp_path / "local", part_size=25)
    started = tmp_path / "started"
    arguments = [shots, f"{bucket}/many", f"{bucket}/out", started]
    command = [sys.executable, "-W", "ignore", "-c", JOB, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def n_done() -> int:
        files.invalidate_cache()
        folder = f"{bucket}/out/_trustvlm/done"
        return len(files.ls(folder)) if files.exists(folder) else 0

    def wait_for(n: int) -> None:
        for _ in range(3000):
            if n_done() >= n:
                return
            time.sleep(0.02)
        raise AssertionError(f"only {n_done()} parts after a minute")

    # The worker dies once, and then the whole run.
    with subprocess.Popen(command, env=environment) as job:
        wait_for(3)
        os.kill(int(started.read_text().split()[-1]), signal.SIGKILL)
        wait_for(8)
        assert len(started.read_text().split()) == 2, "a worker took the place of the killed one"
        job.kill()
    assert 8 <= n_done() < N_PICTURES // 25
    assert files.exists(f"{bucket}/out/_trustvlm/lock.json")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"{N_PICTURES} images in {bucket}/out" in done.stdout
    assert verdicts(files, f"{bucket}/out") == here(tmp_path / "local")
    table = rows(verdicts(files, f"{bucket}/out"))
    assert len({row["path"] for row in table}) == len(table) == N_PICTURES


def test_a_service_that_cannot_write_on_a_condition_is_written_to_all_the_same(memory, monkeypatch):
    files, url = memory
    pipe = type(files).pipe_file

    def plain(self, path, value, **settings):
        if settings:
            raise NotImplementedError("A header you provided implies functionality")
        return pipe(self, path, value)

    monkeypatch.setattr(type(files), "pipe_file", plain)
    folder = RemoteFolder(url)
    assert folder.create("a", b"1")
    assert not folder.create("a", b"2")
    assert folder.read("a") == b"1"
