"""Archives that expand without bound are stopped, and what came before is kept."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile

import pytest

from broken_images import encoded
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import Limits, image_shards

PICTURE = encoded("PNG", size=(16, 16))
FEW = Limits(max_archive_bytes=2**20, max_archive_members=50)


def member(name: str, content: bytes = PICTURE, **settings) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in settings.items():
        setattr(info, key, value)
    return info, content


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


ZEROS = tarred(member("a.png"), member("zeros.bin", bytes(3 * 2**20)), member("b.png"))


def zstandard() -> bytes:
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module).compress(ZEROS)
        except ImportError:
            continue
    pytest.skip("needs the extra zstd")


def sparse() -> bytes:
    """Pictures of 900 kB, all of them holes."""
    holes = {"major": "1", "minor": "0", "realsize": "900000"}
    headers = {f"GNU.sparse.{key}": value for key, value in holes.items()}
    block = b"1\n0\n0\n".ljust(512, b"\0")
    return tarred(
        member("a.png"), *(member(f"{i}.png", block, pax_headers=headers) for i in range(4))
    )


def links(kind: bytes) -> bytes:
    names = [f"{i}.png" for i in range(30)]
    links = (member(name, b"", type=kind, linkname="a.png") for name in names)
    return tarred(member("a.png", PICTURE + bytes(100_000)), *links)


def shared_headers() -> bytes:
    headers = {f"x{i}": "y" for i in range(300)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", pax_headers=headers) as archive:
        for info, content in (member("a.png"), member("b.png")):
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return stream.getvalue()


def overlapping() -> bytes:
    """Members that all lie in the same bytes."""
    one = zipped({"00.png": PICTURE + bytes(200_000)})
    begin = one.index(b"PK\1\2")
    record = one[begin : one.index(b"PK\5\6")]
    records = b"".join(record.replace(b"00.png", b"%02d.png" % i) for i in range(20))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 20, 20, len(records), begin, 0)
    return one[:begin] + records + end


BYTES, MEMBERS = "--max-archive-bytes", "--max-archive-members"
BOMBS = {
    "gzip.tar.gz": (lambda: gzip.compress(ZEROS), 1, BYTES),
    "bzip2.tar.bz2": (lambda: bz2.compress(ZEROS), 1, BYTES),
    "xz.tar.xz": (lambda: lzma.compress(ZEROS), 1, BYTES),
    "zstd.tar.zst": (zstandard, 1, BYTES),
    "gzip_without_ending": (lambda: gzip.compress(ZEROS), 1, BYTES),
    "sparse.tar": (sparse, 2, BYTES),
    "symbolic_links.tar": (lambda: links(tarfile.SYMTYPE), 11, BYTES),
    "hard_links.tar": (lambda: links(tarfile.LNKTYPE), 11, BYTES),
    "long_header.tar": (
        lambda: tarred(member("a.png"), member("b.png", pax_headers={"comment": "x" * 300_000})),
        1,
        BYTES,
    ),
    "long_name.tar": (
        lambda: tarred(member("a.png"), member("x" * 300_000 + ".png")),
        1,
        BYTES,
    ),
    "shared_headers.tar": (shared_headers, 0, BYTES),
    "members.tar": (lambda: tarred(*(member(f"{i}.png") for i in range(60))), 50, MEMBERS),
    "empty_members.tar.gz": (
        lambda: gzip.compress(tarred(*(member(f"{i}.txt", b"") for i in range(60)))),
        0,
        MEMBERS,
    ),
    "deflated.zip": (
        lambda: zipped({f"{i}.png": PICTURE + bytes(300_000) for i in range(5)}),
        3,
        BYTES,
    ),
    "bzip2.zip": (
        lambda: zipped({f"{i}.txt": bytes(300) for i in range(40)}, zipfile.ZIP_BZIP2),
        0,
        BYTES,
    ),
    "members.zip": (lambda: zipped({f"{i}.png": PICTURE for i in range(60)}), 0, MEMBERS),
    "long_directory.zip": (
        lambda: zipped({"x" * 60_000 + f"{i}.png": PICTURE for i in range(6)}),
        0,
        MEMBERS,
    ),
    "overlapping.zip": (overlapping, 5, BYTES),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("start", [0, 1])
def test_what_expands_without_bound_ends_with_one_row(tmp_path, name, start):
    build, n_images, option = BOMBS[name]
    file = tmp_path / name
    file.write_bytes(build())
    (shard,) = image_shards(file, limits=FEW)
    *images, last = shard.images(start)
    if name == "overlapping.zip" and len(images) < n_images - start:
        pytest.skip("this Python refuses overlapping members itself")
    assert len(images) == max(n_images - start, 0)
    with pytest.raises(ImageError, match=rf"(?s){name}: nothing after .*{option}") as caught:
        last.read()
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("name", ["gzip.tar.gz", "sparse.tar", "members.tar", "deflated.zip"])
def test_it_is_read_where_more_is_allowed(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name][0]())
    (shard,) = image_shards(tmp_path / name)
    assert all(len(image.read()) >= len(PICTURE) for image in shard.images())


def test_a_member_that_claims_less_than_it_expands_to_is_not_held_whole(tmp_path):
    content = zipped({"a.bin": bytes(50 * 2**20)}, zipfile.ZIP_BZIP2)
    lying = content.replace(struct.pack("<L", 50 * 2**20), struct.pack("<L", 1000))
    (tmp_path / "lying.zip").write_bytes(lying)
    (shard,) = image_shards(tmp_path / "lying.zip")
    tracemalloc.start()
    try:
        assert list(shard.images()) == []
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()


def test_a_header_that_leads_back_is_damage(tmp_path):
    info, _ = member("b.txt")
    header = bytearray(info.tobuf())
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    begin = tarred(member("a.png", PICTURE.ljust(1024, b"\0")))[: 512 + 1024]
    (tmp_path / "back.tar").write_bytes(begin + bytes(header) + bytes(1024))
    (shard,) = image_shards(tmp_path / "back.tar")
    first, last = shard.images()
    assert first.read().startswith(PICTURE)
    with pytest.raises(ImageError, match=r"nothing after its first 1 images can be read"):
        last.read()


def test_members_as_long_as_a_buffer_do_not_begin_the_archive_anew(tmp_path, monkeypatch):
    contents = {f"{i}.png": PICTURE.ljust(2**17, b"\0") for i in range(20)}
    (tmp_path / "a.tar.gz").write_bytes(
        gzip.compress(tarred(*(member(name, content) for name, content in contents.items())))
    )
    rewound = []
    rewind = gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda self: rewound.append(rewind(self)))
    (shard,) = image_shards(tmp_path / "a.tar.gz")
    assert [image.read() for image in shard.images()] == list(contents.values())
    assert not rewound


def test_limits_of_archives_are_checked():
    for settings in ({"max_archive_bytes": 0}, {"max_archive_members": -1}):
        with pytest.raises(InputError, match="positive whole number"):
            Limits(**settings)
