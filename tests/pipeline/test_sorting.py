"""Pictures in folders of their labels: each there once, under a name that any system takes."""

from __future__ import annotations

import csv
import io
import math
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trustvlm.exceptions import ImageError, InputError, OutputError
from trustvlm.images import find_images, find_labelled, open_images
from trustvlm.images.references import ImageRef, InMemoryImage, UnreadableImage
from trustvlm.pipeline.sorting import check_sorting, safe_name, sort_images
from trustvlm.pipeline.verdict import Verdict, error_verdict

GIF = b"GIF89a"


def verdict(path, label, decision="accept"):
    return Verdict(path, label, 1.0, math.nan, decision, 0.5, math.nan, "", "", "")


def in_memory(path):
    return InMemoryImage(path, GIF + path.encode())


def index_of(folder):
    with (folder / "index.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("index.csv", "sorting.json")
    }


def test_each_picture_goes_to_its_own_name(tmp_path):
    labels = {
        "a/1.jpg": "cat",
        "b/1.jpg": "cat",
        "b/1.JPG": "cat",
        "c/1.jpg": "Cat",
        "d/con.png": "salt/pepper",
        "e/x.png": "salt:pepper",
        "f/.hidden.png": "...",
        "g/picture": "CON",
        "https://host/p/ü%20z.png?size=1": "é ",
        "t.parquet#7": "e\u0301 ",
        "u.png#3": "lost+found",
        "v\\w.jpg": "../../etc",
    }
    verdicts = [
        verdict(p, c, ("accept", "review")[i % 2]) for i, (p, c) in enumerate(labels.items())
    ]
    verdicts.insert(2, error_verdict("broken.jpg", "broken.jpg is empty"))
    images = [in_memory(row.path) for row in verdicts]
    images[2] = UnreadableImage("broken.jpg", "empty", "broken.jpg is empty")
    result = sort_images(verdicts, images, tmp_path / "out")
    assert (result.accepted, result.review, result.failed) == (6, 6, 0)
    rows = index_of(tmp_path / "out")
    assert [row["path"] for row in rows] == [
        row.path if "=" not in row.path[:1] else f"'{row.path}" for row in verdicts
    ]
    files = contents(tmp_path / "out")
    assert len(files) == len(labels)
    # What lies there is the picture of this row, by its label and its decision.
    for row, image in zip(rows, images, strict=True):
        if row["decision"] == "error":
            assert (row["file"], row["error"]) == ("", "broken.jpg is empty")
            continue
        assert files[row["file"]] == image.content
        first, second, _ = row["file"].split("/")
        assert first == {"accept": "accepted", "review": "review"}[row["decision"]]
        assert second
    # Neither Windows nor macOS puts two names into one.
    assert len({name.casefold() for name in files}) == len(files)
    folders = {row["label"]: row["file"].split("/")[1] for row in rows if row["file"]}
    assert len({folder.casefold() for folder in folders.values()}) == len(folders)
    assert folders["CON"] == "CON_"
    by_path = {row["path"]: row["file"] for row in rows}
    assert by_path["d/con.png"].endswith("/con_.png")
    assert by_path["g/picture"].endswith(".gif")
    # No folder or file is one that is passed over when they are read again.
    found = find_images(tmp_path / "out" / "accepted"), find_images(tmp_path / "out" / "review")
    assert sum(map(len, found)) == len(files)


@given(st.text(min_size=0, max_size=300))
def test_a_safe_name_is_one(name):
    safe = safe_name(name)
    assert 0 < len(safe.encode()) < 130
    assert not set(safe) & set('<>:"/\\|?*\0\n')
    assert safe == safe.strip()
    assert not safe.startswith(".")
    assert not safe.endswith(".")
    assert safe.split(".")[0].upper() not in {"CON", "NUL", "AUX", "PRN", "COM1", "LPT9"}


def test_an_interrupted_run_goes_on_and_nothing_is_replaced(tmp_path):
    verdicts = [verdict(f"{i}.gif", "cat") for i in range(4)]
    images = [in_memory(row.path) for row in verdicts]

    def breaks():
        yield from images[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sort_images(verdicts, breaks(), tmp_path)
    first = tmp_path / "accepted/cat/0.gif"
    stamp = first.stat().st_mtime_ns
    assert not (tmp_path / "index.csv").exists()
    # Another run does not mix with this one.
    others = [verdict("0.gif", "cat", "review"), *verdicts[1:]]
    for run in (others, verdicts[:3], [verdict("0.gif", "dog"), *verdicts[1:]]):
        with pytest.raises(InputError, match="another run"):
            sort_images(run, images, tmp_path)
    assert sort_images(verdicts, images, tmp_path).accepted == 4
    assert first.stat().st_mtime_ns == stamp
    assert len(index_of(tmp_path)) == 4
    first.write_bytes(b"mine")
    with pytest.raises(OutputError, match="nothing is replaced"):
        sort_images(verdicts, images, tmp_path)
    assert first.read_bytes() == b"mine"


def test_a_picture_that_is_listed_twice_is_one_file(tmp_path):
    rows = [verdict("a/1.jpg", "cat"), verdict("b/1.jpg", "cat"), verdict("a/1.jpg", "cat")]
    result = sort_images(rows, [in_memory(row.path) for row in rows], tmp_path / "s")
    assert result.accepted == len(contents(tmp_path / "s")) == 2


def test_what_is_no_place_to_sort_into_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for target, match in (
        (tmp_path, "holds other files"),
        (tmp_path / "file", "is a file"),
        ("s3://bucket/sorted", "on this machine"),
    ):
        with pytest.raises(InputError, match=match):
            check_sorting(target)
    check_sorting(tmp_path / "new")


@pytest.mark.parametrize("images", [["a.gif"], ["a.gif", "c.gif"], ["a.gif", "b.gif", "c.gif"]])
def test_pictures_of_other_verdicts_are_refused(tmp_path, images):
    verdicts = [verdict("a.gif", "cat"), verdict("b.gif", "dog")]
    with pytest.raises(InputError, match="in their order"):
        sort_images(verdicts, map(in_memory, images), tmp_path)


def test_a_picture_that_is_gone_is_counted(tmp_path):
    class Gone(InMemoryImage):
        def read(self, limits=None):
            raise ImageError("missing", "a.gif: there is no such file.")

    verdicts = [verdict("a.gif", "cat"), verdict("b.gif", "cat")]
    result = sort_images(verdicts, [Gone("a.gif", b""), in_memory("b.gif")], tmp_path)
    assert (result.accepted, result.failed) == (1, 1)
    gone, there = index_of(tmp_path)
    assert (gone["file"], gone["error"]) == ("", "a.gif: there is no such file.")
    assert (tmp_path / there["file"]).read_bytes() == GIF + b"b.gif"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_lead_to_files_and_what_is_none_is_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/a.gif").write_bytes(GIF)
    images = [ImageRef("a.gif", Path("photos/a.gif")), in_memory("b.gif")]
    verdicts = [verdict("a.gif", "cat"), verdict("b.gif", "cat")]
    for _ in range(2):
        result = sort_images(verdicts, images, "out", symlink=True)
        assert (result.accepted, result.linked) == (2, 1)
    link = tmp_path / "out/accepted/cat/a.gif"
    assert link.readlink() == tmp_path / "photos/a.gif"
    # A link to elsewhere is not followed, nor replaced.
    link.unlink()
    link.symlink_to(tmp_path / "photos/other.gif")
    with pytest.raises(OutputError):
        sort_images(verdicts, images, "out", symlink=True)
    assert not Path("photos/other.gif").exists()


def test_members_of_archives_are_extracted(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name in ("x/1.png", "../1.png"):
            stream = io.BytesIO()
            Image.new("RGB", (2, 2), "red").save(stream, "png")
            archive.writestr(name, stream.getvalue())
    listed = [image.path for image in open_images(tmp_path / "p.zip")]
    result = sort_images(
        [verdict(path, "cat") for path in listed],
        open_images(tmp_path / "p.zip"),
        tmp_path / "out",
    )
    assert result.accepted == 2
    assert find_labelled(tmp_path / "out" / "accepted").counts == {"cat": 2}


def test_a_folder_of_sorted_pictures_is_no_input(tmp_path):
    (tmp_path / "a.gif").write_bytes(GIF)
    sort_images([verdict("a.gif", "cat")], [in_memory("a.gif")], tmp_path / "sorted")
    assert [image.path for image in find_images(tmp_path)] == ["a.gif"]
