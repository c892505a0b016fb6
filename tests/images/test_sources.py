"""Folders, tables, lists: the right images in the right order under the right names."""

from __future__ import annotations

import codecs
import errno
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broken_images import encoded, write_broken_images
from trustvlm.exceptions import ImageError, InputError, TrustVLMWarning
from trustvlm.images import (
    ImageList,
    ImageRef,
    decode,
    find_images,
    find_labelled,
    inputs,
    open_images,
)

PICTURE = encoded("PNG", size=(16, 16))


def plant(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PICTURE)
    return folder


def paths(listed: ImageList) -> list[str]:
    return [ref.path for ref in listed]


def test_a_folder_is_walked_in_the_order_of_relative_paths(tmp_path):
    plant(tmp_path, "b.jpg", "a/z.PNG", "a/deep/er/x.webp", "c.jpeg", "B.jpg", "10.jpg", "9.jpg")
    listed = find_images(tmp_path)
    assert paths(listed) == [
        "10.jpg", "9.jpg", "B.jpg", "a/deep/er/x.webp", "a/z.PNG", "b.jpg", "c.jpeg",
    ]  # fmt: skip
    assert paths(listed) == [str(p) for p in sorted(Path(ref.path) for ref in listed)]
    assert all(decode(ref.file).size == (16, 16) for ref in listed)
    assert paths(find_images(str(tmp_path) + "/")) == paths(listed)


def test_other_files_are_counted_and_hidden_ones_are_not_there(tmp_path):
    plant(tmp_path, "a.jpg", ".hidden.jpg", ".git/a.jpg", "._a.jpg")
    others = ("notes.txt", "more/notes.TXT", "table.csv", "README", "Thumbs.db")
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    listed = find_images(tmp_path)
    assert paths(listed) == ["a.jpg"]
    assert listed.n_skipped == 5
    assert listed.skipped == {".txt": 2, ".csv": 1, "(none)": 1, ".db": 1}
    assert sorted(listed.skipped.names) == sorted(others)
    with pytest.warns(TrustVLMWarning, match=r"5 files passed over.*README"):
        open_images(tmp_path)


def test_images_are_recognised_by_how_they_begin(tmp_path):
    names = ["a", "a.jpg_large", "a.JPG~", "a.jpg (1)", "a.jpg.1", "a.jpg?w=640", "a.txt"]
    plant(tmp_path, *names)
    (tmp_path / "layers").write_bytes(b"8BPS\0\1")
    (tmp_path / "paper").write_bytes(b"%PDF-1.7")
    assert sorted(paths(find_images(tmp_path))) == sorted([*names, "layers"])


@pytest.mark.parametrize("system", ["__MACOSX", "@eaDir", "#recycle", "$recycle.bin", "a.trust"])
def test_folders_that_systems_make_are_not_walked(system, tmp_path):
    plant(tmp_path, "cat/a.jpg", "dog/b.jpg", f"{system}/x.jpg", f"cat/{system}/y.jpg")
    assert paths(find_images(tmp_path)) == ["cat/a.jpg", "dog/b.jpg"]
    assert find_labelled(tmp_path).classes == ("cat", "dog")


def test_every_broken_file_is_found(tmp_path):
    expected = write_broken_images(tmp_path)
    assert sorted(paths(find_images(tmp_path))) == sorted(expected)


def test_a_single_file_keeps_the_name_it_was_given(tmp_path, monkeypatch):
    plant(tmp_path, "photos/a.jpg", "photos/no_extension", "x.dat")
    monkeypatch.chdir(tmp_path)
    for given_name in ("photos/a.jpg", "./photos/a.jpg", "photos/no_extension", "x.dat"):
        assert find_images(given_name) == [ImageRef(given_name, Path(given_name))]
    assert paths(find_images(tmp_path / "x.dat")) == [str(tmp_path / "x.dat")]
    assert paths(find_images(["photos/a.jpg"])) == ["photos/a.jpg"]


def test_a_list_is_one_source_after_the_other(tmp_path, monkeypatch):
    plant(tmp_path, "one/b.jpg", "one/a.jpg", "two/a.jpg", "c.jpg")
    (tmp_path / "one" / "x.txt").write_text("no image")
    (tmp_path / "two.txt").write_text("two/a.jpg\n")
    monkeypatch.chdir(tmp_path)
    listed = find_images(["c.jpg", "one/", "two", "two.txt", "c.jpg", "gone.jpg"])
    assert paths(listed) == [
        "c.jpg", "one/a.jpg", "one/b.jpg", "two/a.jpg", "two/a.jpg", "c.jpg", "gone.jpg",
    ]  # fmt: skip
    assert listed.n_skipped == 1
    with pytest.raises(ImageError, match=r"^gone\.jpg: ") as caught:
        listed[-1].read()
    assert caught.value.kind == "missing"
    # One folder in a list is that folder.
    assert paths(find_images([Path("one")])) == ["a.jpg", "b.jpg"]
    assert paths(find_images(iter([".", "c.jpg"])))[0] == "c.jpg"


def test_text_file_of_paths(tmp_path):
    plant(tmp_path, "in/a b.jpg", "in/ü.jpg")
    lines = f"a b.jpg\r\n\r\n  ü.jpg  \r\n{tmp_path / 'in' / 'ü.jpg'}\r\ngone.jpg"
    (tmp_path / "in" / "list.txt").write_bytes(codecs.BOM_UTF8 + lines.encode())
    listed = find_images(tmp_path / "in" / "list.txt")
    assert paths(listed) == ["a b.jpg", "ü.jpg", str(tmp_path / "in" / "ü.jpg"), "gone.jpg"]
    assert [ref.file.exists() for ref in listed] == [True, True, True, False]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_delimiters_and_encodings(tmp_path, delimiter, encoding):
    plant(tmp_path, "x/a.jpg", "x/b, c; d.jpg", "x/é.jpg")
    rows = [("note", "path"), ("1", "a.jpg"), ("2", '"b, c; d.jpg"'), ("", "é.jpg"), ("4", "a.jpg")]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    (tmp_path / "x" / "t.csv").write_bytes(text.encode(encoding))
    listed = find_images(tmp_path / "x" / "t.csv")
    assert paths(listed) == ["a.jpg", "b, c; d.jpg", "é.jpg", "a.jpg"]
    assert all(ref.read() == PICTURE for ref in listed)


def test_csv_of_one_column_may_hold_commas(tmp_path):
    (tmp_path / "t.csv").write_text('path\na, b.jpg\n"c ""d"".jpg"\n\n;e.jpg\n')
    assert paths(find_images(tmp_path / "t.csv")) == ["a, b.jpg", 'c "d".jpg', ";e.jpg"]


def test_csv_with_another_column_name(tmp_path):
    (tmp_path / "t.csv").write_text("id, file\n1, a.jpg\n")
    assert paths(find_images(tmp_path / "t.csv", path_column="file")) == ["a.jpg"]
    with pytest.raises(InputError, match=r"column 'path', but its columns are 'id', 'file'"):
        find_images(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"path,label\na.jpg,cat,dog\n", r"2 cells in row 1 \(line 2\)"),
        (b"path,label\na.jpg,cat\n,dog\n", r"'path' in row 2 \(line 3\).*empty"),
        (b'path,label\n"a.jpg,cat\n', "quotation marks"),
        (b"path,label\n\xff\xfe\xfd,cat\n", r"line 2 is not.*UTF-8"),
        (b"path,label\n\0,cat\n", "zero bytes"),
        (b"path,label\n", "found none"),
    ],
)
def test_faulty_tables_are_named_with_their_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        find_images(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text("abc ,;|\t\"'é\n", min_size=1, max_size=8).map(lambda s: f"x{s}x"),
            st.text('ab,;"\n', max_size=4),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(",;\t|"),
)
def test_csv_round_trip(tmp_path_factory, rows, delimiter):
    import csv

    file = tmp_path_factory.mktemp("csv") / "t.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("path", "note"), *rows])
    assert paths(find_images(file)) == [name for name, _ in rows]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no '.*nowhere'"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is no 'x.jpg' \(nor any of the 1 others\)"):
        find_images(["x.jpg", "y.jpg"])
    with pytest.raises(InputError, match="found none in the given list"):
        find_images([])
    with pytest.raises(InputError, match="there is no"):
        find_images("x" * 5000)
    for name in ("a.txt", "b.txt", "c.json"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(InputError) as caught:
        find_images(tmp_path)
    assert "3 other files (2 x .txt, 1 x .json)" in str(caught.value)
    assert ".jpg" in str(caught.value)
    for wrong in ([3], [object()], ["a.jpg", 3.5]):
        with pytest.raises(InputError, match="named by a path"):
            find_images(wrong)


def test_circular_links_end(tmp_path):
    plant(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    (tmp_path / "knot.jpg").symlink_to(tmp_path / "knot.jpg")
    assert paths(find_images(tmp_path)) == ["a/1.jpg", "b/2.jpg", "b/other/1.jpg", "knot.jpg"]


def test_links_to_files_and_dangling_links_are_images(tmp_path):
    plant(tmp_path, "elsewhere/1.jpg", "photos/2.jpg")
    (tmp_path / "photos" / "1.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "photos" / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    assert paths(find_images(tmp_path / "photos")) == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes on POSIX only")
def test_names_that_are_not_utf8_can_be_written_and_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        (tmp_path / name).write_bytes(PICTURE)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (listed,) = find_images(tmp_path)
    assert listed.path.encode("utf-8").decode() == r"caf\xe9.jpg"
    assert listed.read() == PICTURE


def test_strange_names(tmp_path):
    names = ["a b.jpg", "a,b.jpg", 'q"uote.jpg', "new\nline.jpg", "日本.jpg", "-x.jpg", "#1.jpg"]
    plant(tmp_path, *names)
    listed = find_images(tmp_path)
    assert sorted(paths(listed)) == sorted(names)
    assert all(ref.read() == PICTURE for ref in listed)


def test_many_folders_deep(tmp_path):
    deep = "/".join(["d"] * 400)
    os.makedirs(tmp_path / deep)  # noqa: PTH103 - `Path.mkdir` recurses too deeply
    plant(tmp_path, f"{deep}/a.jpg")
    assert paths(find_images(tmp_path)) == [f"{deep}/a.jpg"]
    # Too deep for the recursive removal that pytest does later.
    os.renames(tmp_path / deep / "a.jpg", tmp_path / "a.jpg")


def test_lists_name_files_in_the_ways_of_other_systems(tmp_path):
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"
    plant(tmp_path, composed, "sub/c.png", "two words.png", "100%25.png")
    names = [
        decomposed,
        "sub\\c.png",
        f"file://{tmp_path}/sub/c.png",
        f"FILE://localhost{tmp_path}/two%20words.png",
        f"file://{tmp_path}/100%25.png",  # what is there as it is written goes first
    ]
    table = tmp_path / "table.csv"
    table.write_text("path\n" + "\n".join(names) + "\n")
    listed = find_images(table)
    assert paths(listed) == names
    assert [image.read() for image in listed] == [PICTURE] * len(names)
    assert [image.file.name for image in listed] == [
        composed, "c.png", "c.png", "two words.png", "100%25.png",
    ]  # fmt: skip
    missing = find_images([table, "no\\where.png"])[-1]
    with pytest.raises(ImageError, match=r"no\\where\.png: there is no such file"):
        missing.read()


def test_a_missing_file_of_a_list_is_said_to_be_missing_beside_the_list(tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "photos.csv").write_text("path\nlists/a.png\n")
    with pytest.raises(ImageError) as caught:
        find_images(folder / "photos.csv")[0].read()
    at = folder / "lists" / "a.png"
    assert str(caught.value) == f"lists/a.png: there is no such file at {at}. Check the path."


def test_a_spreadsheet_is_refused_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "labels.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    for read in (find_images, find_labelled):
        with pytest.raises(InputError, match=r"labels\.xlsx is a spreadsheet, .* save it as CSV"):
            read(tmp_path / "labels.xlsx")


def test_json_lines_are_a_table(tmp_path):
    plant(tmp_path, "a.png", "1")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"path": "a.png", "label": "cat"}\n\n{"label": 7, "path": "1", "x": []}\n')
    assert paths(find_images(rows)) == ["a.png", "1"]
    assert find_labelled(rows).labels == ["cat", "7"]
    for line, message in (
        ("[1]", "an object in line 1"),
        ('{"path": ', "JSON in line 1"),
        ('{"path": " "}', "'path' in line 1"),
        ('{"file": "a.png"}', "the keys are 'file'"),
        ("[" * 100_000, "JSON in line 1"),
    ):
        rows.write_text(line + "\n")
        with pytest.raises(InputError, match=message):
            find_images(rows)


def test_a_file_that_may_not_be_read_is_no_file_passed_over(tmp_path, monkeypatch):
    plant(tmp_path, "a.png", "locked", "pipe")

    def fails(file):
        if file.name == "locked":
            raise PermissionError
        raise OSError(errno.EINVAL, "a pipe")

    monkeypatch.setattr(inputs, "open_regular", fails)
    listed = find_images(tmp_path)
    assert paths(listed) == ["a.png", "locked"]
    assert dict(listed.skipped) == {"(none)": 1}
