"""Where output goes: through links, into pipes, to URLs; and what is said where it cannot."""

import csv
import errno
import io
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import odd_inputs
from command import Command
from trustvlm import files
from trustvlm.exceptions import InputError, OutputError, TrustVLMError
from trustvlm.files import atomic_path, check_file, url_of, write_text


@pytest.fixture
def trustvlm(capsys, monkeypatch):
    """Run the command line in this process."""
    return Command(capsys, monkeypatch)


@pytest.fixture
def model(odd_model, tmp_path_factory):
    """A fitted model of mean colours, its backend, and a folder with one picture."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "a.png").write_bytes(odd_inputs.PNG)
    return *odd_model, folder


def rows(text):
    """Rows of a CSV."""
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("target", ["real.csv", "sub/r.csv", "../r.csv", "second", "gone"])
def test_a_link_stays_and_what_it_leads_to_is_written(target, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "second").symlink_to(tmp_path / "third")
    (tmp_path / "third").symlink_to("last.csv")
    if target != "gone":
        (folder / target).write_text("old")
    (folder / "link.csv").symlink_to(target)
    write_text(folder / "link.csv", "new")
    assert (folder / "link.csv").is_symlink()
    assert (folder / target).read_text() == "new" == (folder / "link.csv").read_text()
    with suppress(RuntimeError), atomic_path(folder / "link.csv") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (folder / "link.csv").read_text() == "new"
    assert not list(tmp_path.rglob("*.tmp*"))


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="Repair the link"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink()


def test_a_pipe_gets_the_content(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "whole" * 100_000)
    reader.join(10)
    assert read == ["whole" * 100_000]
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_is_written_to():
    write_text("/dev/null", "nothing")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OutputError, match="Make room"):
        write_text("/dev/full", "nothing")


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_to_and_not_replaced(name, tmp_path):
    code = (
        "import sys; from trustvlm.files import write_text\n"
        f"sys.stdout.write('first '); write_text({name!r}, 'second'); sys.stdout.write(' third')"
    )
    (tmp_path / "out").write_text("before ")
    with (tmp_path / "out").open("ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before first second third"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_commands_write_to_standard_output(model, trustvlm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted, plugin, folder = model
    for name in ("-", "/dev/stdout"):
        done = trustvlm("predict", fitted, folder, "-o", name, "--plugin", plugin)
        assert (done.code, rows(done.out)[0]["path"]) == (0, "a.png"), done.err
    done = trustvlm("monitor", fitted, folder, "--json", "-", "--plugin", plugin)
    assert '"drifted"' in done.out
    assert not list(tmp_path.iterdir())


def test_urls_are_urls_also_as_paths():
    for url in ("s3://b/x.csv", "memory://x.csv", "https://h/x", "simplecache::s3://b/x"):
        assert url_of(url) == url_of(Path(url)) == url
    assert url_of(Path("file:///tmp/x")) == "file:///tmp/x"
    assert not any(map(url_of, ("C:/x", "C:\\x", "x.csv", "/x:/y", "a/s3://b", "s3:", "x: y")))


def test_storage_is_written_through(model, trustvlm, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    monkeypatch.chdir(tmp_path)
    fitted, plugin, folder = model
    write_text(Path("memory://out/a.txt"), "caf\u00e9")
    assert memory.cat_file("/out/a.txt") == "caf\u00e9".encode()
    for suffix in ("csv", "parquet"):
        url = f"memory://out/x.{suffix}"
        done = trustvlm("predict", fitted, folder, "-o", url, "--plugin", plugin)
        assert done.code == 0, done.err
        assert memory.exists(url)
    json_file = "memory://out/drift.json"
    assert trustvlm("monitor", fitted, folder, "--json", json_file, "--plugin", plugin).code == 0
    assert b"drifted" in memory.cat_file("/out/drift.json")
    write_text(f"file://{tmp_path}/a b.txt", "here")
    assert (tmp_path / "a b.txt").read_text() == "here"
    assert [file.name for file in tmp_path.iterdir()] == ["a b.txt"]


def test_storage_that_fails_keeps_nothing(monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    memory = type(fsspec.filesystem("memory"))

    def half(self, file, path, **_):
        self.pipe_file(path, b"half")
        raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(memory, "put_file", half)
    with pytest.raises(OutputError, match=r"memory://out/b.txt.*no more.*run the same again"):
        write_text("memory://out/b.txt", "whole")
    assert not fsspec.filesystem("memory").exists("/out/b.txt")


OUTPUTS = [
    ["predict", "{model}", "{folder}", "-o", "https://h/x.csv"],
    ["predict", "{model}", "{folder}", "-o", "nothing://h/x.csv"],
    ["predict", "{model}", "{folder}", "-o", "nothing://bulk/"],
    ["label", "{folder}", "--classes", "a,b", "-o", "https://h/x.csv"],
    ["evaluate", "{model}", "{folder}", "--json", "https://h/x.json"],
    ["monitor", "{model}", "{folder}", "--json", "https://h/x.json"],
    ["monitor", "{model}", "{folder}", "--state", "memory://x.json"],
    ["advise", "{model}", "--json", "https://h/x.json"],
    ["crossvalidate", "{model}", "--json", "https://h/x.json"],
    ["demo", "--out", "memory://demo"],
    ["corrections", "{here}", "-o", "memory://corrected"],
    ["bench", "study.toml"],
]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_urls_that_cannot_be_written_are_refused(arguments, model, trustvlm, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "bench":
        Path("study.toml").write_text(
            'name = "x"\nout = "memory://out"\n[[datasets]]\nname = "x"\ntest = "in"\n'
            '[[models]]\nvlm = "offline"\nvision = "offline"\n'
        )
    if arguments[0] == "corrections":
        pytest.importorskip("fastapi")
    names = {"model": model[0], "folder": model[2], "here": tmp_path}
    plugin = [] if arguments[0] in ("demo", "corrections") else ["--plugin", model[1]]
    done = trustvlm(*(part.format(**names) for part in arguments), *plugin)
    assert done.code == 1, done.err
    assert "://" in done.err
    assert "unexpected" not in done.err
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".toml"] == []


SAME = [
    ["predict", "{model}", "list.csv", "-o", "list.csv"],
    ["predict", "{model}", "x.png", "list.csv", "-o", "link.csv"],
    ["predict", "{model}", "in.parquet", "-o", "./in.parquet"],
    ["verify", "{model}", "list.csv", "-o", "{here}/list.csv"],
    ["verify", "{model}", "data", "--synonyms", "list.csv", "-o", "list.csv"],
    ["label", "list.csv", "--classes", "a,b", "-o", "list.csv"],
    ["label", "x.png", "--classes", "list.csv", "-o", "list.csv"],
    ["evaluate", "{model}", "list.csv", "--json", "list.csv"],
    ["evaluate", "{model}", "data", "--json", "x.png"],
    ["evaluate", "{model}", "data", "--json", "m.trust/manifest.json"],
    ["evaluate", "{model}", "data", "--report", "page"],
    ["calibrate", "{model}", "list.csv", "-o", "n.trust", "--json", "list.csv"],
    ["monitor", "{model}", "x.png", "--state", "new.json", "--json", "new.json"],
    ["monitor", "{model}", "x.png", "--state", "x.png"],
    ["predict", "{model}", "x.png", "-o", "data/"],
    ["predict", "{model}", "data", "-o", "data/red/"],
    ["report", "compare", "list.csv", "b.json", "-o", "list.csv"],
    ["demo", "--out", "demo"],
]


@pytest.mark.parametrize("arguments", SAME, ids=" ".join)
def test_nothing_that_is_named_is_overwritten(arguments, model, trustvlm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(odd_inputs.PNG)
    (tmp_path / "list.csv").write_text("path,label,class,seen by\nx.png,red,red,me\n")
    (tmp_path / "link.csv").symlink_to("list.csv")
    for name in ("in.parquet", "m.trust/manifest.json", "page/index.html", "demo/verdicts.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "data" / "red").mkdir(parents=True)
    (tmp_path / "data" / "red" / "1.png").write_bytes(odd_inputs.JPEG)

    def files_here():
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    before, folders = files_here(), sorted(tmp_path.rglob("*"))
    plugin = [] if arguments[0] in ("demo", "report") else ["--plugin", model[1]]
    done = trustvlm(*(part.format(model=model[0], here=tmp_path) for part in arguments), *plugin)
    assert done.code == 1, done.err
    assert re.search("Name another (file|folder)|Choose another folder", done.err)
    assert (files_here(), sorted(tmp_path.rglob("*"))) == (before, folders)


NUMBERS = ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "ENOENT", "EIO", "ESTALE", "ENAMETOOLONG"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
def test_what_keeps_a_file_from_being_written_is_stated(name, call, tmp_path, monkeypatch):
    number = getattr(errno, name)

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.csv").write_text("old")
    where = {"mkstemp": files.tempfile, "fsync": files.os, "replace": files.Path}[call]
    monkeypatch.setattr(where, call, fails)
    with pytest.raises(OutputError, match=r"a\.csv' cannot be .*run the same again") as caught:
        write_text(tmp_path / "a.csv", "new")
    assert caught.value.errno == number
    assert isinstance(caught.value, TrustVLMError)
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


def test_what_can_be_said_before_is_said_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Check the folder"):
        check_file(tmp_path / "file" / "a.csv")
    with pytest.raises(OutputError, match="It is a folder"):
        check_file(tmp_path)
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="permission"):
        check_file(tmp_path / "new" / "a.csv")
    with pytest.raises(InputError, match="copy it there"):
        files.local_path("s3://bucket/folder")


def test_long_names_and_half_characters_are_written(tmp_path):
    name = "\u56fe" * 80 + ".csv"
    write_text(tmp_path / name, "half \ud83d")
    assert (tmp_path / name).read_text() == "half \\ud83d"


def test_a_command_whose_disk_is_full_says_so(model, trustvlm, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    fitted, plugin, folder = model
    done = trustvlm("predict", fitted, folder, "-o", tmp_path / "a.csv", "--plugin", plugin)
    assert (done.code, done.err.count("error:")) == (1, 1)
    assert "Make room" in done.err
    assert not list(tmp_path.iterdir())
