"""A bulk job says of every image what `predict` says, once, and never of another job's."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from functools import partial

import filelock
import pytest

from broken_images import encoded
from bulk_models import IDENTITY, LoadTiny, OwnProcess, files, rows
from trustvlm.bulk import folder as folders
from trustvlm.bulk.folder import LocalFolder
from trustvlm.bulk.job import LocalEngine
from trustvlm.exceptions import BulkError, InputError, TrustVLMWarning
from trustvlm.images import image_shards


@pytest.fixture
def run(run):
    return partial(run, engine=OwnProcess)


def test_rows_are_those_of_predict(run, photos, shots, tmp_path):
    summary = run(photos, tmp_path / "out", engine=LocalEngine)
    model = LoadTiny(shots)()
    # Each part is batched by itself.
    expected = []
    for shard in image_shards(photos, size=6):
        expected += [v.to_row() for v in model.predict([ref.file for ref in shard.refs])]
    written = rows(tmp_path / "out")
    for row in expected + written:
        row["path"] = row["path"].rpartition("photos/")[2]
        row["error"] = row["error"].rpartition("photos/")[2]
    assert written == expected
    assert (summary.n_images, summary.n_now) == (47, 47)
    assert sum(summary.errors.values()) == 2
    assert summary.errors["empty"] == 1
    assert summary.decisions["error"] == 2
    assert json.loads((tmp_path / "out/_trustvlm/summary.json").read_text())["images"] == 47


def test_an_archive_gives_the_same_rows_as_the_folder(run, photos, tmp_path):
    # In the archive the pieces are cut alike, so that even the last bits are the same.
    run(photos, tmp_path / "folder")
    run(photos.with_suffix(".tar"), tmp_path / "tar")
    assert rows(tmp_path / "tar") == rows(tmp_path / "folder")


def test_what_is_passed_over_is_named(run, tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", encoded("PNG"))
        archive.writestr("inside.md", "x")
    (tmp_path / "in" / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "in" / "beside.md").write_text("x")
    with pytest.warns(TrustVLMWarning, match=r"2 files passed over.*beside\.md and .*inside\.md"):
        run([tmp_path / "in", tmp_path / "x.zip"], tmp_path / "out")


def test_when_all_is_done_nothing_is_done_again(run, photos, tmp_path):
    run(photos, tmp_path / "out", started=str(tmp_path / "started"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.parquet")}
    summary = run(photos, tmp_path / "out", started=str(tmp_path / "started"))
    assert len((tmp_path / "started").read_text().split()) == 1, "no second worker"
    assert (summary.n_images, summary.n_now) == (47, 0)
    assert "nothing was left to do" in str(summary)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.parquet")}


def test_a_lost_or_cut_file_and_a_torn_line_are_made_good(run, photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    whole = files(out)
    names = list(whole)
    (out / names[0]).unlink()
    (out / names[3]).write_bytes(whole[names[3]][:100])
    (out / f".{names[1]}.k3_x9a1b.tmp.parquet").write_bytes(b"abandoned")
    journal = out / "_trustvlm" / "done.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    summary = run(photos, out)
    if os.name != "nt":
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (journal.parent).glob("*.json*")}
        assert modes["done.jsonl"] == modes["manifest.json"] == 0o600
    assert files(out) == whole
    assert summary.n_images == 47
    assert summary.n_now == 6 + 6 + 5
    assert not list(out.glob(".part*"))
    assert run(photos, out).n_now == 0


def test_parts_with_errors_are_computed_again_where_that_is_asked_for(run, photos, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(photos, images)
    hidden = images / "green" / "03.png"
    content = hidden.read_bytes()
    hidden.write_bytes(b"")
    first = run(images, out)
    before = files(out)
    hidden.write_bytes(content)
    assert run(images, out).n_now == 0
    again = run(images, out, retry_errors=True)
    changed = [name for name, part in files(out).items() if part != before[name]]
    assert len(changed) == 1
    assert (again.n_images, again.n_now) == (first.n_images, 12)
    assert first.errors - again.errors == {"empty": 1}
    run(images, tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh")


def test_another_model_or_setting_is_refused(run, photos, tmp_path):
    run(photos, tmp_path / "out")
    before = files(tmp_path / "out")
    for change, what in (
        ({"identity": {**IDENTITY, "score": "c" * 64}}, r"another model \(score: bbb"),
        ({"part_size": 7}, r"another setting \(part_size: 6 there, 7 now"),
        ({"batch_size": 5}, r"batch_size: 4 there, 5 now"),
    ):
        with pytest.raises(InputError, match=what):
            run(photos, tmp_path / "out", **change)
    assert files(tmp_path / "out") == before


def test_other_inputs_are_refused(run, photos, tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(photos.with_suffix(".tar").read_bytes())
    run([photos / "red", archive], tmp_path / "out")
    with pytest.raises(InputError, match=r"verdicts on other inputs: .*red, .*a\.tar, and not"):
        run([photos / "red"], tmp_path / "out")
    archive.write_bytes(photos.with_suffix(".tar").read_bytes())
    with pytest.raises(InputError, match=r"piece 4 was '.*a\.tar' and is now .* another\s+date"):
        run([photos / "red", archive], tmp_path / "out")


def test_images_added_or_removed_meanwhile_are_noticed(run, photos, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{photos}/red/{i:02}.png\n" for i in range(9)))
    run(tmp_path / "list.txt", tmp_path / "out", part_size=3)
    with (tmp_path / "list.txt").open("a") as stream:
        stream.write("more.png\n")
    assert run(tmp_path / "list.txt", tmp_path / "out", part_size=3).n_now == 1
    (tmp_path / "list.txt").write_text("".join(f"{photos}/red/{i:02}.png\n" for i in range(6)))
    with pytest.raises(InputError, match="there are only 2"):
        run(tmp_path / "list.txt", tmp_path / "out", part_size=3)
    (tmp_path / "list.txt").write_text("other.png\n")
    with pytest.raises(InputError, match="piece 1 was"):
        run(tmp_path / "list.txt", tmp_path / "out", part_size=3)


def test_folders_of_other_things_are_left_alone(run, photos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"it holds 'thesis\.tex'"):
        run(photos, tmp_path / "mine")
    with pytest.raises(InputError, match="but it is a file"):
        run(photos, tmp_path / "mine" / "thesis.tex")
    with pytest.raises(InputError, match="there is no"):
        run(tmp_path / "none", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_runs_at_once_are_refused_and_the_other_is_named(run, photos, tmp_path):
    out = tmp_path / "out"
    other = rf"Another run .*process {os.getpid()} on {socket.gethostname()}\)"
    with LocalFolder(out).locked(), pytest.raises(InputError, match=other):
        run(photos, out)
    assert not (out / "_trustvlm" / "lock.json").exists()
    with LocalFolder(out).locked():
        pass


HOLD = """
import sys
from filelock import SoftFileLock
lock = SoftFileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_where_a_file_system_has_no_locks_a_file_stands_for_one(monkeypatch, tmp_path):
    class NoLock(folders.FileLock):
        def acquire(self, *_, **__):
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders, "FileLock", NoLock)
    other = pytest.raises(InputError, match=r"Another run.* remove .*lock\.held")
    with LocalFolder(tmp_path).locked(), other, LocalFolder(tmp_path).locked():
        pass
    file = tmp_path / "_trustvlm" / "lock.held"
    assert not file.exists()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, file], stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline()
        with pytest.raises(InputError, match="Another run"), LocalFolder(tmp_path).locked():
            pass
        process.kill()
        process.wait()
    # Older filelock does not see that the process is no more.
    if tuple(map(int, filelock.__version__.split(".")[:3])) < (4, 2, 3):
        with (
            pytest.raises(InputError, match=r"remove .*lock\.held"),
            LocalFolder(tmp_path).locked(),
        ):
            pass
        file.unlink()
    with LocalFolder(tmp_path).locked():
        assert file.exists()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "Make room"),
        (errno.EROFS, "permission"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_a_disk_that_fails_ends_a_run_that_goes_on_later(
    run, photos, tmp_path, monkeypatch, number, remedy
):
    out, n_written = tmp_path / "out", []
    write = folders.write_bytes

    def failing(file, content, *, private=False):
        if not private:
            n_written.append(file)
        if len(n_written) == 3:
            raise OSError(number, os.strerror(number))
        write(file, content, private=private)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_bytes", failing)
        with pytest.raises(BulkError, match=rf"out.*{os.strerror(number)}.*{remedy}.*run the same"):
            run(photos, out)
    assert len(rows(out)) == 12
    summary = run(photos, out)
    assert (summary.n_images, summary.n_now) == (47, 35)
    paths = [row["path"] for row in rows(out)]
    assert len(set(paths)) == len(paths) == 47


def test_a_folder_that_vanishes_is_not_made_anew_for_what_is_left(run, photos, tmp_path):
    out = tmp_path / "out"

    class Vanishing(OwnProcess):
        def run(self, work):
            for i, each in enumerate(super().run(work)):
                if i == 2:
                    shutil.rmtree(out)
                yield each

    with pytest.raises(BulkError, match="No such file or directory"):
        run(photos, out, engine=Vanishing)
    assert not out.exists()
    assert run(photos, out).n_now == 47


def test_where_nothing_can_be_written_that_is_said_at_once(run, photos, tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(folders.Path, "mkdir", read_only)
    with pytest.raises(BulkError, match=r"Read-only file system.*permission"):
        run(photos, tmp_path / "out")


def test_damage_to_what_a_run_remembers_is_reported(run, photos, tmp_path):
    run(photos, tmp_path / "out")
    journal = tmp_path / "out/_trustvlm/done.jsonl"
    whole = journal.read_text()
    journal.write_text("{" + whole)
    with pytest.raises(InputError, match=r"Line 1 of .*done\.jsonl is damaged"):
        run(photos, tmp_path / "out")
    journal.write_text(whole)
    manifest = tmp_path / "out/_trustvlm/manifest.json"
    described = manifest.read_text()
    manifest.write_text(described.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(InputError, match="another version"):
        run(photos, tmp_path / "out")
    manifest.write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        run(photos, tmp_path / "out")


def test_only_what_a_killed_run_left_is_removed(run, photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    left = out / ".part-000000-000003.parquet.a1b2c3d4.tmp.parquet"
    foreign = [out / ".part-of-my-notes.tmp.parquet", out / ".part-1.tmp"]
    for file in (left, *foreign):
        file.write_text("x")
    run(photos, out)
    assert not left.exists()
    assert all(file.read_text() == "x" for file in foreign)
