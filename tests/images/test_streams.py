"""Archives, Parquet files, lists and URLs as one stream of images."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pickle
import random
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broken_images import encoded
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import (
    InMemoryImage,
    Limits,
    find_images,
    image_shards,
    open_images,
    references,
)
from trustvlm.images.archives import TarShard
from trustvlm.images.inputs import input_kind
from trustvlm.images.locations import Location
from trustvlm.images.references import Skipped, UnreadableImage
from trustvlm.images.streams import BrokenShard, StreamShard, prefetch

PICTURE = encoded("PNG", size=(16, 16))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(references, "_FIRST_WAIT", 0.0)


def content(name: str) -> bytes:
    return f"the bytes of {name}".encode() * 50


def write_tar(file: Path, names: list[str], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content(name))
            archive.addfile(member, io.BytesIO(content(name)))
    return file


def write_parquet(file: Path, columns: dict, group: int = 10) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), file, row_group_size=group)
    return file


def read_all(source, **settings) -> list[tuple[str, bytes]]:
    listed = image_shards(source, **settings)
    return [(image.path, image.read()) for shard in listed for image in shard.images()]


NAMES = [f"{i:03}.jpg" for i in range(23)]
EXPECTED = [(name, content(name)) for name in NAMES]


def write_folder(folder: Path, names=NAMES) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content(name))
    return folder


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.xz", "tar.bz2"])
def test_an_archive_gives_its_images_and_passes_other_members_over(tmp_path, ending):
    names = [name for i in NAMES for name in (i, i.replace("jpg", "json"))]
    kind = {"tgz": "gz", "tar": ""}.get(ending, ending.removeprefix("tar."))
    file = write_tar(tmp_path / f"a.{ending}", [*names, "._003.jpg", "dir/.x/1.jpg"], f"w:{kind}")
    assert read_all(file) == EXPECTED


def test_a_parquet_file_gives_bytes_or_structs_or_paths(tmp_path):
    images = [content(name) for name in NAMES]
    plain = write_parquet(
        tmp_path / "p.parquet", {"path": NAMES, "image": images, "x": images[::-1]}
    )
    assert read_all(plain, image_column="image") == EXPECTED
    structs = [{"bytes": b, "path": n} for n, b in EXPECTED]
    assert read_all(write_parquet(tmp_path / "s.parquet", {"image": structs})) == EXPECTED
    write_folder(tmp_path)
    assert read_all(write_parquet(tmp_path / "n.parquet", {"path": NAMES})) == EXPECTED
    nameless = write_parquet(tmp_path / "b.parquet", {"image": images})
    assert [path for path, _ in read_all(nameless)][:2] == [f"{nameless}#0", f"{nameless}#1"]


def test_a_parquet_file_without_a_column_of_images_names_those_it_has(tmp_path):
    file = write_parquet(tmp_path / "p.parquet", {"a": [1], "b": [2]})
    with pytest.raises(InputError, match="its columns are 'a', 'b'"):
        read_all(file)
    two = write_parquet(tmp_path / "q.parquet", {"a": [b"1"], "b": [b"2"]})
    with pytest.raises(InputError, match="--image-column"):
        read_all(two)


def arrow(values: list, kind: str) -> object:
    """An array of a type that is written as Arrow does."""
    pyarrow = pytest.importorskip("pyarrow")
    if "view" in kind and int(pyarrow.__version__.split(".")[0]) < 18:
        pytest.skip("this pyarrow writes no views into Parquet")
    types = {
        "large": pyarrow.large_binary(), "view": pyarrow.binary_view(), "fixed": pyarrow.binary(5),
        "path": pyarrow.struct([("path", pyarrow.large_string())]),
        "struct": pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
        "view struct": pyarrow.struct(
            [("bytes", pyarrow.binary_view()), ("path", pyarrow.string_view())]
        ),
        "null bytes": pyarrow.struct([("bytes", pyarrow.null()), ("path", pyarrow.string())]),
    }  # fmt: skip
    if kind == "dictionary":
        return pyarrow.array(values).dictionary_encode()
    return pyarrow.array(values, types[kind])


@pytest.mark.parametrize("kind", ["large", "view", "fixed", "dictionary"])
def test_bytes_of_every_arrow_type_are_images(tmp_path, kind):
    images = [b"12345", b"abcde", b"12345"]
    file = write_parquet(tmp_path / "p.parquet", {"image": arrow(images, kind)}, group=2)
    assert [content for _, content in read_all(file)] == images


@pytest.mark.parametrize("kind", ["path", "struct", "view struct", "null bytes"])
def test_a_struct_with_a_path_alone_is_the_file_beside_the_table(tmp_path, kind):
    write_folder(tmp_path, NAMES[:2])
    rows = [{"bytes": None, "path": name} for name in NAMES[:2]]
    if kind == "path":
        rows = [{"path": name} for name in NAMES[:2]]
    file = write_parquet(tmp_path / "p.parquet", {"image": arrow(rows, kind)})
    assert read_all(file) == EXPECTED[:2]


@pytest.mark.parametrize("kind", ["column", "struct"])
def test_rows_that_share_a_path_are_told_apart_by_their_row(tmp_path, kind):
    paths = ["x.png", "y.png", "x.png", None, "z.png#2", "x.png"]
    images = [bytes([i + 1]) for i in range(6)]
    columns = {"path": paths, "image": images}
    if kind == "struct":
        rows = [{"bytes": b, "path": p} for p, b in zip(paths, images, strict=True)]
        columns = {"image": arrow(rows, "struct")}
    file = write_parquet(tmp_path / "p.parquet", columns, group=2)
    names = ["x.png#0", "y.png", "x.png#2", f"{file}#3", "z.png#2#4", "x.png#5"]
    assert [name for name, _ in read_all(file)] == names
    # A part of a bulk run begins anywhere.
    (shard,) = image_shards(file)
    assert [image.path for image in shard.images(3)] == names[3:]


def test_rows_of_one_path_without_bytes_are_one_file(tmp_path):
    write_folder(tmp_path, NAMES[:1])
    assert read_all(write_parquet(tmp_path / "p.parquet", {"path": NAMES[:1] * 2})) == [
        EXPECTED[0], EXPECTED[0],
    ]  # fmt: skip


def test_a_column_of_lists_is_refused_by_name(tmp_path):
    file = write_parquet(tmp_path / "p.parquet", {"images": [[b"1", b"2"]], "n": [1]})
    with pytest.raises(InputError, match=r"'images' \(list<.*binary>\)"):
        read_all(file)
    for column in ("images", "n"):
        with pytest.raises(InputError, match=f"'{column}'.*one image in each row.*--image-column"):
            read_all(file, image_column=column)


def test_names_behind_damage_do_not_cost_the_images_before_it(tmp_path):
    columns = {"path": list(map(str, range(128))), "image": [b"1"] * 128}
    file = write_parquet(tmp_path / "p.parquet", columns, group=64)
    whole = file.read_bytes()
    parquet = pytest.importorskip("pyarrow.parquet")
    column = parquet.ParquetFile(file).metadata.row_group(1).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    file.write_bytes(whole[:begin] + b"\xff" * 8 + whole[begin + 8 :])
    (shard,) = image_shards(file)
    *good, broken = shard.images()
    assert [image.path for image in good] == columns["path"][:64]
    with pytest.raises(ImageError, match="first 64 images"):
        broken.read()


def test_an_empty_cell_is_an_image_with_an_error(tmp_path):
    file = write_parquet(tmp_path / "p.parquet", {"path": ["a", "b"], "image": [None, b"x"]})
    first, second = (i for shard in image_shards(file) for i in shard.images())
    with pytest.raises(ImageError, match="a: the cell is empty"):
        first.read()
    assert second.read() == b"x"


def sources(folder: Path):
    """One input of every kind, all with the images of NAMES."""
    files = write_folder(folder / "files")
    (folder / "files" / "list.txt").write_text("\n\n".join(NAMES) + "\n")
    with (folder / "files" / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "n"), *((n, i) for i, n in enumerate(NAMES))])
    yield files
    yield files / "list.txt"
    yield files / "table.csv"
    yield write_tar(folder / "a.tar", NAMES)
    yield write_tar(folder / "a.tar.gz", NAMES, "w:gz")
    pytest.importorskip("pyarrow")
    yield write_parquet(folder / "p.parquet", {"path": NAMES, "im": [content(n) for n in NAMES]})


@pytest.mark.filterwarnings("ignore:.*passed over.*(list|table)")
def test_every_kind_gives_the_same_images_from_any_position_after_pickling(tmp_path):
    for source in sources(tmp_path):
        assert read_all(source) == EXPECTED, source
        assert [(i.path, i.read()) for i in open_images(source)] == EXPECTED
        for shard in image_shards(source, size=100):
            again = pickle.loads(pickle.dumps(shard))
            assert again.stamp() == shard.stamp()
            for start in (0, 1, 9, 10, 11, 22, 23, 30):
                got = [(i.path, i.read()) for i in again.images(start)]
                assert got == EXPECTED[start:], (source, start)


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_every_kind_by_url(tmp_path, scheme):
    fsspec = pytest.importorskip("fsspec")
    local = list(sources(tmp_path / "here"))
    base = f"memory://{tmp_path.name}" if scheme == "memory" else f"file://{tmp_path}/here"
    if scheme == "memory":
        memory = fsspec.filesystem("memory")
        for file in (tmp_path / "here").rglob("*"):
            if file.is_file():
                target = f"/{tmp_path.name}/{file.relative_to(tmp_path / 'here')}"
                memory.pipe_file(target, file.read_bytes())
    for source in local:
        url = f"{base}/{source.relative_to(tmp_path / 'here').as_posix()}"
        assert read_all(url) == EXPECTED, url
        stamps = [shard.stamp() for shard in image_shards(url)]
        assert stamps == [shard.stamp() for shard in image_shards(url)]
    names = [path.rpartition("/")[2] for path, _ in read_all(f"{base}/a.*")]
    assert names == NAMES * 2, "two archives fit the pattern"
    one, missing = image_shards([f"{base}/files/003.jpg", f"{base}/files/none.jpg"], size=1)
    assert next(one.images()).read() == content("003.jpg")
    with pytest.raises(ImageError, match="there is no such file"):
        next(missing.images()).read()
    with pytest.raises(InputError, match="no name fits it"):
        read_all(f"{base}/*.none")


def test_urls_in_a_list_are_read_from_where_they_point(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe_file("/elsewhere/1.jpg", b"one")
    (tmp_path / "2.jpg").write_bytes(b"two")
    (tmp_path / "l.txt").write_text("memory://elsewhere/1.jpg\n2.jpg\n")
    assert [data for _, data in read_all(tmp_path / "l.txt")] == [b"one", b"two"]


def test_a_list_holds_what_a_stream_yields(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/1.jpg", b"one")
    write_folder(tmp_path / "a", NAMES[:2])
    (tmp_path / "notes.txt").write_text("a/000.jpg\n")
    inputs = [
        f"memory://{tmp_path.name}/1.jpg",
        tmp_path / "a",
        write_tar(tmp_path / "b.tar", NAMES[:2]),
        tmp_path / "notes.txt",
        f"memory://{tmp_path.name}",
        tmp_path / "none.jpg",
    ]
    streamed = list(open_images(inputs))
    listed = find_images(inputs)
    assert [image.path for image in listed] == [image.path for image in streamed]
    assert len(listed) == 8
    assert [image.read() for image in listed[:-1]] == [image.read() for image in streamed[:-1]]
    # Images that are all files of this machine are a list at once, from an iterator too.
    assert open_images(iter(inputs[1:2])) == find_images(inputs[1])


def test_every_kind_of_input_is_decided_in_one_place(tmp_path):
    for folder in ("photos", "sub.tar", "x.csv"):
        (tmp_path / folder).mkdir()
    for file in ("a.CSV", "b.tsv", "c.txt", "d.tar.GZ", "e.tgz", "f.parquet", "g.jpg", "h"):
        (tmp_path / file).write_bytes(b"x")
    kinds = {path.name: input_kind(Location(str(path))) for path in tmp_path.iterdir()}
    assert kinds == {
        "photos": "folder", "sub.tar": "folder", "x.csv": "folder", "a.CSV": "table",
        "b.tsv": "table", "c.txt": "text list", "d.tar.GZ": "archive", "e.tgz": "archive",
        "f.parquet": "Parquet file", "g.jpg": "image", "h": "image",
    }  # fmt: skip
    assert input_kind(Location(str(tmp_path / "none.csv"))) == "image"
    assert input_kind(Location("s3://bucket/shards/*.tar")) == "archive", "nobody is asked"


def test_unknown_schemes_are_told(tmp_path):
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="nosuch"):
        read_all("nosuch://bucket/a.tar")


@given(st.sets(st.text("ab/.-", min_size=1, max_size=6), max_size=12))
def test_a_walk_is_in_the_order_of_the_parts(names):
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in names:
            parts = [part for part in name.split("/") if part.strip(".")]
            target = folder.joinpath(*parts[:-1], f"{parts[-1]}.jpg") if parts else None
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_dir():
                    target.write_bytes(b"x")
        everything = [p.relative_to(folder) for p in folder.rglob("*.jpg") if p.is_file()]
        slow = sorted(p for p in everything if not any(part[0] == "." for part in p.parts))
        try:
            listed = [
                image.path for shard in image_shards(folder, size=2) for image in shard.images()
            ]
        except InputError:
            listed = []
        assert listed == [p.as_posix() for p in slow]


def test_pieces_and_prefixes(tmp_path):
    write_folder(tmp_path / "a")
    write_tar(tmp_path / "b.tar", NAMES[:2])
    single = tmp_path / "a" / NAMES[0]
    inputs = [tmp_path / "a", tmp_path / "b.tar", single, single, tmp_path / "none.jpg"]
    pieces = list(image_shards(inputs, size=10))
    assert [len(list(p.images())) for p in pieces] == [10, 10, 3, 2, 3]
    old = [ref.path for ref in find_images([tmp_path / "a", single, single])]
    new = [i.path for p in image_shards([tmp_path / "a", single, single]) for i in p.images()]
    assert new == old
    assert [i.path for i in pieces[3].images()] == [f"{tmp_path}/b.tar/{n}" for n in NAMES[:2]]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no .*none.tar"):
        read_all(tmp_path / "none.tar")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 x \.tar.*Name archives"):
        read_all(tmp_path / "empty")
    with pytest.raises(InputError, match="named by a path or URL"):
        read_all([1])


def test_a_long_list_is_not_read_at_once(tmp_path):
    (tmp_path / "l.txt").write_text("".join(f"{i}.jpg\n" for i in range(300_000)))
    pieces = image_shards(tmp_path / "l.txt", size=10)
    assert next(pieces).refs[9].path == "9.jpg"
    pieces.close()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('path\nx.jpg\n"a\ny.jpg\n', "quotation marks"),
        ("path,n\nx.jpg,1\ny.jpg,1,2\n", r"row 2 \(line 3\)"),
        ("path,n\nx.jpg,1\n,2\n", "row 2 .* empty"),
        ("file,n\nx.jpg,1\n", "have a column 'path'"),
    ],
)
def test_damaged_tables_name_the_row(tmp_path, text, what):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=what):
        shown(tmp_path / "t.csv")


def test_a_table_of_one_column_may_hold_commas(tmp_path):
    (tmp_path / "t.csv").write_text("path\na,b.jpg\n\nc.jpg\n")
    assert [path for path, _ in shown(tmp_path / "t.csv")] == ["a,b.jpg", "c.jpg"]


def shown(source):
    return [(image.path, None) for shard in image_shards(source) for image in shard.images()]


def test_text_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "l.txt").write_bytes("café.jpg\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        shown(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("café.jpg\n", encoding="utf-16")
    assert shown(tmp_path / "l.txt") == [("café.jpg", None)]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_cut_archive_keeps_what_could_be_read_and_says_so(tmp_path, compressed):
    whole = write_tar(tmp_path / "w.tar", NAMES).read_bytes()
    rng = random.Random(0)
    data = gzip.compress(whole) if compressed else whole[:-9216]
    file = tmp_path / ("c.tar.gz" if compressed else "c.tar")
    for cut in rng.sample(range(len(data) // 9, len(data) * 3 // 4), 12):
        file.write_bytes(data[:cut])
        (shard,) = image_shards(file)
        *good, broken = list(shard.images())
        assert [(i.path, i.read()) for i in good] == EXPECTED[: len(good)]
        assert isinstance(broken, BrokenShard)
        with pytest.raises(ImageError, match=f"nothing after its first {len(good)} images"):
            broken.read()
        assert [i.path for i in shard.images(len(good))] == [str(file)]


def test_a_damaged_header_is_no_silent_end(tmp_path):
    file = write_tar(tmp_path / "w.tar", NAMES)
    data = bytearray(file.read_bytes())
    at = bytes(data).index(b"010.jpg")
    data[at : at + 512] = b"\xff" * 512
    file.write_bytes(data)
    (shard,) = image_shards(file)
    *good, broken = list(shard.images())
    assert len(good) == 10
    with pytest.raises(ImageError, match="damaged"):
        broken.read()


def test_a_damaged_parquet_file_is_one_error(tmp_path):
    file = write_parquet(tmp_path / "p.parquet", {"image": [content(n) for n in NAMES]})
    file.write_bytes(file.read_bytes()[:-100])
    ((broken,),) = ([*shard.images()] for shard in image_shards(file))
    with pytest.raises(ImageError, match="first 0 images"):
        broken.read()


def test_reading_goes_on_where_a_connection_broke():
    broke = []

    class BreakingShard(StreamShard):
        def _read(self, start, skipped):
            skipped.add("notes.txt")
            for i in range(start, 10):
                if i in (3, 7) and broke.count(i) < 2:
                    broke.append(i)
                    raise OSError("reset")
                yield i

        def _damage(self):
            return (OSError,)

    passed_over = Skipped()
    shard = BreakingShard("x", Location("memory://x.tar"), skipped=passed_over)
    assert list(shard.images()) == list(range(10))
    assert broke == [3, 3, 7, 7]
    assert passed_over == {".txt": 1}, "each attempt passes over the same members"


def test_a_huge_member_is_not_read(tmp_path):
    location = Location(str(write_tar(tmp_path / "a.tar", NAMES)))
    (image, *_) = TarShard("a", location, limits=Limits(max_bytes=100)).images()
    with pytest.raises(ImageError, match="at most 100 are read"):
        image.read()


def until(condition):
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_reading_ahead_is_bounded_and_ends_with_its_reader():
    read, closed = [], []

    def images():
        try:
            for i in range(100):
                read.append(i)
                yield InMemoryImage(str(i), bytes(10))
        finally:
            closed.append(True)

    ahead = prefetch(images(), n_images=50, n_bytes=45)
    assert next(ahead).path == "0"
    # Four fit, and one more is in the hand of the reader.
    assert until(lambda: len(read) == 1 + 4 + 1)
    assert [next(ahead).path for _ in range(3)] == ["1", "2", "3"]
    assert until(lambda: len(read) == 4 + 4 + 1)
    ahead.close()
    assert until(lambda: closed)
    assert len(read) == 9


def test_reading_ahead_passes_errors_on_in_their_place():
    def images():
        yield InMemoryImage("large", bytes(1000))
        raise InputError("no more")

    ahead = prefetch(images(), n_images=1, n_bytes=1)
    assert next(ahead).path == "large"
    with pytest.raises(InputError, match="no more"):
        next(ahead)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_a_list_that_is_a_pipe_is_refused_at_once(tmp_path, ending):
    pipe = tmp_path / f"list.{ending}"
    os.mkfifo(pipe)
    for read in (find_images, lambda source: list(open_images(source))):
        with pytest.raises(InputError, match=r"pipe, a socket or a device.*regular file"):
            read(pipe)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "parquet"])
def test_an_archive_that_is_a_pipe_is_one_image_with_an_error(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    os.mkfifo(tmp_path / f"images.{ending}")
    (image,) = open_images(tmp_path / f"images.{ending}")
    with pytest.raises(ImageError, match="pipe, a socket or a device"):
        image.read()


def packed(file: Path, *members: tuple[str, bytes, str]) -> Path:
    """Write a tar archive of (name, type, target of the link); regular files hold a picture."""
    with tarfile.open(file, "w") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            content = PICTURE if kind == tarfile.REGTYPE else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def test_links_in_an_archive_lead_to_their_member(tmp_path):
    file = packed(
        tmp_path / "a.tar",
        ("x/late.png", tarfile.SYMTYPE, "../y/real.png"),
        ("x/hard.png", tarfile.LNKTYPE, "y/real.png"),
        ("x/chain.png", tarfile.SYMTYPE, "late.png"),
        ("x/outside.png", tarfile.SYMTYPE, "../../etc/passwd"),
        ("x/circle.png", tarfile.SYMTYPE, "circle.png"),
        ("y/real.png", tarfile.REGTYPE, ""),
        ("y/device.png", tarfile.CHRTYPE, ""),
    )
    (shard,) = image_shards(file)
    images = list(shard.images())
    good = ["x/late.png", "x/hard.png", "x/chain.png", "y/real.png"]
    assert [i.path for i in images if not isinstance(i, UnreadableImage)] == good
    assert all(i.read() == PICTURE for i in images if i.path in good)
    kinds = {i.path: i.kind for i in images if isinstance(i, UnreadableImage)}
    missing = dict.fromkeys(("x/outside.png", "x/circle.png"), "missing")
    assert kinds == missing | {"y/device.png": "unreadable"}
    for start in range(len(images)):
        assert [i.path for i in shard.images(start)] == [i.path for i in images[start:]]


def test_members_of_a_zip_fail_alone(tmp_path):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a.png", "wrong.png", "secret.png", "b", "__MACOSX/._a.png"):
            archive.writestr(name, PICTURE)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a.png")
    content = bytearray(file.read_bytes())
    content[content.index(PICTURE, content.index(b"wrong.png")) + 20] ^= 255
    entry = content.rindex(b"secret.png") - 46
    content[entry + 8] |= 1
    file.write_bytes(content)
    (shard,) = image_shards(file)
    images = list(shard.images())
    assert [i.path for i in images] == ["a.png", "wrong.png", "secret.png", "b", "link.png"]
    kinds = {i.path: i.kind for i in images if isinstance(i, UnreadableImage)}
    assert kinds == {"wrong.png": "damaged", "secret.png": "unreadable"}
    assert images[-1].read() == images[0].read() == PICTURE
    assert [i.path for i in shard.images(3)] == ["b", "link.png"]


def test_iterators_are_read_as_they_go(tmp_path):
    write_folder(tmp_path)

    def for_ever():
        while True:
            yield from (str(tmp_path / name) for name in NAMES)

    images = iter(open_images(for_ever()))
    assert [next(images).read() for _ in EXPECTED] == [content for _, content in EXPECTED]
    names = iter([str(tmp_path / NAMES[0]), "no/such.jpg"])
    assert [Path(image.path).name for image in open_images(names)] == [NAMES[0], "such.jpg"]
    with pytest.raises(InputError, match="there is no 'no/such"):
        open_images(iter(["no/such.jpg"]))
    with pytest.raises(InputError, match="found none"):
        open_images(iter([]))
