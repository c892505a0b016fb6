"""Odd inputs as people have them, each with what has to come out: `python tests/odd_inputs.py`.

Every case goes through the command line. No picture may vanish: it is labelled, or a row with an
error, or counted in a message; and no exception may be one that nobody foresaw.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
import re
import resource
import socket
import sys
import tarfile
import tempfile
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, features

from broken_images import encoded, grey_tiff, multiband_tiff, png, png_chunk, tiff
from pictures import write_class_folders

PNG, JPEG = encoded("PNG"), encoded("JPEG")

BACKEND = '''
"""Mean colours, for tests that read thousands of images."""
import hashlib
import zlib

import numpy as np

from trustvlm.models import ModelIdentity, Preprocessing, register_backend


class Squares:
    note, dim, logit_scale, prompt = "", 12, 100.0, "a photo of a {}."

    def __init__(self):
        self.preprocessing = Preprocessing(size=(8, 8), resize=8)
        self.identity = ModelIdentity("", "squares", "", hashlib.sha256(b"squares").hexdigest(), {})

    def encode_pixels(self, pixels):
        parts = pixels.reshape(len(pixels), 2, 4, 2, 4, 3).mean(axis=(2, 4))
        return (parts / 255).reshape(len(pixels), 12).astype(np.float32) + 1e-3

    def encode_texts(self, texts):
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.array([np.random.default_rng(s).random(12) for s in seeds], np.float32)


@register_backend("squares", form="<any>", roles=("vlm", "vision"))
def load(name, options):
    """Mean colours of four squares."""
    return Squares()
'''


@dataclass(frozen=True)
class Case:
    """One odd input.

    Attributes
    ----------
    group, name
        What it is.
    build
        Writes it into an empty folder and returns the arguments of the command, paths relative to
        that folder.
    labels, errors
        Rows with a label, and rows with an error, that have to come out.
    says
        What the messages and the errors of rows have to say, as a regular expression; "" for
        nothing in particular.
    refused
        What the only error has to say, if there are no rows at all.
    needs
        A package without which an error row or a refusal comes out instead.
    """

    group: str
    name: str
    build: Callable[[Path], Iterable[str]]
    labels: int = 0
    errors: int = 0
    says: str = ""
    refused: str = ""
    needs: str = ""


CASES: list[Case] = []


def put(folder: Path, name: str, content: bytes | str = PNG) -> str:
    """Write a file, with its folders, and return its name."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


# Pictures: each lies beside an ordinary one, in a folder that is named as a whole.


def picture(name: str, content: bytes | Callable[[], bytes], **outcome: object) -> None:
    """Add a file in a folder beside an ordinary picture."""

    def build(folder: Path) -> list[str]:
        put(folder, "in/ordinary.png")
        put(folder, f"in/{name}", content if isinstance(content, bytes) else content())
        return ["predict", "in"]

    outcome = outcome or {"labels": 2}
    CASES.append(Case("picture", name, build, **outcome))


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Return noise."""
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return a picture in a format."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def with_text(size: int, *, compressed: bool) -> bytes:
    """Return a PNG with one long comment."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * size, zip=compressed)
    return saved(Image.fromarray(noise(40, 50, 3)), "PNG", pnginfo=info)


def many_chunks(count: int) -> bytes:
    """Return a PNG with many small comments."""
    head, rest = PNG[:33], PNG[33:]
    return head + png_chunk(b"tEXt", b"Comment\0hello") * count + rest


def cut_into_chunks() -> bytes:
    """Return a PNG whose pixels lie in one chunk for each byte."""
    rows = zlib.compress(b"".join(b"\0" + bytes(range(150)) for _ in range(40)))
    return png(50, 40, *(png_chunk(b"IDAT", rows[i : i + 1]) for i in range(len(rows))))


def turned() -> bytes:
    """Return a JPEG that lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(noise(40, 50, 3)), "JPEG", exif=exif)


def animated(file_format: str) -> bytes:
    """Return three frames."""
    frames = [Image.fromarray(np.roll(noise(40, 50, 3), i, axis=0)) for i in range(3)]
    return saved(frames[0], file_format, save_all=True, append_images=frames[1:])


for ending in (
    "no_ending", "photo.jpg_large", "photo.JPG~", "photo.jpg (1)", "photo.jpg.1", "p.jpg?w=640",
    "photo.jpg.download", "photo.jpeg;v=2", "photo.JPG_original", "photo.bak", "photo.image",
    "photo.png.crdownload", "photo.", "12345", "photo.dat", "photo.php", "photo.jpg.jpg.tmp",
):  # fmt: skip
    picture(ending, JPEG)
picture("photo.jpg", PNG)
picture("photo.png", JPEG)
picture("photo.txt", PNG)
picture("caf\u00e9.jpg", JPEG)
picture(unicodedata.normalize("NFD", "caf\u00e9.jpg"), JPEG)
picture("\u56fe\u7247 \U0001f600.jpg", JPEG)
picture("two\nlines.jpg", JPEG)
picture("\x1b[31mred\x1b[0m.jpg", JPEG)
picture("=cmd|' /C calc'!A0.jpg", JPEG)
picture("-rf.jpg", JPEG)
picture("100%.jpg", JPEG)
picture("a b\tc.jpg", JPEG)
picture("x" * 240 + ".jpg", JPEG)
picture(os.fsdecode(b"latin-\xe9.jpg"), JPEG)
picture("deep/er/and/deep/er/x.jpg", JPEG)

picture("progressive.jpg", lambda: encoded("JPEG", progressive=True))
picture("grey.jpg", lambda: encoded("JPEG", "L"))
picture("cmyk.jpg", lambda: encoded("JPEG", "CMYK"))
picture("turned.jpg", turned)
picture("trailing.jpg", JPEG + b"trailing bytes of a camera" * 100)
picture("trailing_zeros.jpg", JPEG + bytes(4096))
picture("profile.jpg", lambda: encoded("JPEG", icc_profile=noise(200_000).tobytes()))
picture("no_subsampling.jpg", lambda: encoded("JPEG", subsampling=0))
picture("grey16.png", lambda: saved(Image.fromarray(noise(40, 50, dtype=np.uint16)), "PNG"))
picture("rgba.png", lambda: encoded("PNG", "RGBA"))
picture("bits.png", lambda: encoded("PNG", "1"))
picture("palette.png", lambda: encoded("PNG", "P", transparency=3))
picture("grey_alpha.png", lambda: encoded("PNG", "LA"))
picture("animated.png", lambda: animated("PNG"))
picture("text_2MB.png", lambda: with_text(2_000_000, compressed=False))
picture("text_2MB_deflated.png", lambda: with_text(2_000_000, compressed=True))
picture("chunks_30000.png", lambda: many_chunks(30_000))
picture("chunk_a_byte.png", cut_into_chunks)
picture("xmp_bomb.png", lambda: PNG[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(10**8))) + PNG[33:])  # fmt: skip # noqa: E501
picture("profile.png", lambda: encoded("PNG", icc_profile=noise(2_000_000).tobytes()))
picture("sixteen_bit_colours.png", lambda: png(8, 8, png_chunk(b"IDAT", zlib.compress((b"\0" + noise(48).tobytes()) * 8)), depth=16))  # fmt: skip # noqa: E501
picture("animated.gif", lambda: animated("GIF"))
picture("animated.webp", lambda: animated("WEBP"))
picture("lossless.webp", lambda: encoded("WEBP", lossless=True))
picture("five_bands.tif", lambda: multiband_tiff(noise(40, 50, 5)))
picture("six_bands.tif", lambda: multiband_tiff(noise(40, 50, 6)))
picture("eight_bands.tif", lambda: multiband_tiff(noise(40, 50, 8)))
picture("eight_bands_16_bits.tif", lambda: multiband_tiff(noise(40, 50, 8).astype("<u2") * 40))
picture(
    "thirteen_float_bands.tif", lambda: multiband_tiff(noise(40, 50, 13).astype(">f4"), planar=True)
)
picture("pages.tif", lambda: animated("TIFF"))
picture("lzw.tif", lambda: encoded("TIFF", compression="tiff_lzw"))
picture("jpeg.tif", lambda: encoded("TIFF", compression="jpeg"))
picture("fax.tif", lambda: encoded("TIFF", "1", compression="group4"))
picture("cmyk.tif", lambda: encoded("TIFF", "CMYK"))
picture("lab.tif", lambda: encoded("TIFF", "LAB"))
picture("float.tif", lambda: grey_tiff(50, 32, np.linspace(0, 1, 2500, dtype="<f4").tobytes(), sample=3))  # fmt: skip # noqa: E501
picture("grey16.tif", lambda: grey_tiff(50, 16, noise(2500, dtype=np.uint16).tobytes()))
picture("big.tif", lambda: saved(Image.fromarray(noise(40, 50, 3)), "TIFF", big_tiff=True))
picture("bitmap.bmp", lambda: encoded("BMP"))
picture("palette.bmp", lambda: encoded("BMP", "P"))
picture("wide.ppm", b"P6 8 8 65535 " + bytes(384))
picture("plain.pgm", b"P2 8 8 255 " + b"7 " * 64)
# Pillow writes these from 11.3 on; what it wrote of MPO before is broken.
if "avif" in features.get_supported_modules():
    picture("picture.avif", lambda: encoded("AVIF"))
    picture("mpo.jpg", lambda: animated("MPO"))
picture("picture.jp2", lambda: encoded("JPEG2000"))

one_error = {"labels": 1, "errors": 1}
picture("empty.jpg", b"", **one_error)
picture("page.jpg", b"<!DOCTYPE html><html>404</html>", **one_error)
picture("half.jpg", JPEG[: len(JPEG) // 2], **one_error)
picture("half.png", PNG[: len(PNG) // 2], **one_error)
picture("half_without_ending", JPEG[: len(JPEG) // 2], **one_error)
picture("pixel.gif", encoded("GIF", size=(1, 1)), **one_error)
picture("bomb.png", png(50_000, 50_000, png_chunk(b"IDAT", zlib.compress(bytes(100)))), says="max-pixels", **one_error)  # fmt: skip # noqa: E501
picture("photoshop.psd", b"8BPS\0\x01" + bytes(100), **one_error)
picture("photoshop", b"8BPS\0\x01" + bytes(100), **one_error)
picture("new.jxl", b"\xff\x0a" + bytes(100), **one_error)
picture("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), **one_error)
picture("phone", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), **one_error)
picture("no_compression.tif", tiff((256, 3, 9), (257, 3, 9), (259, 3, 999)), **one_error)

for ending in (
    "x.csv", "x.jsonl", "x.tar", "x.zip", "x.parquet", "x.trust", "desktop.ini", "$RECYCLE.BIN",
    "x.jpeg%3Fw=1", "photo.JPG...", "photo.jpg;", "a,b;c.jpg", "new\r\nline", "\u202egpj.exe",
    "*.jpg", "[a].jpg", "a\\b.jpg", "C:x.jpg", "\\xe9.jpg", "\u2028.jpg", "d.zip/x", "d.parquet/x",
):  # fmt: skip
    picture(ending, JPEG)

passed = {"labels": 1, "says": r"1 file passed over.*"}
picture("notes.txt", b"what I saw", labels=1, says=r"1 file passed over.*notes\.txt")
picture("table.csv", b"path,label\nordinary.png,red\n", labels=1, says=r"passed over.*table\.csv")
picture("film.mp4", b"\0\0\0\x18ftypisom\0\0\0\0" + bytes(100), labels=1, says=r"film\.mp4")
picture("more.zip", lambda: zipped({"a.png": PNG}), labels=1, says=r"more\.zip")
picture("more.tar", lambda: tarred({"a.png": PNG}), labels=1, says=r"more\.tar")
picture(".DS_Store", bytes(100), labels=1)
picture("._photo.jpg", b"\0\5\x16\7" + bytes(100), labels=1)
picture("Thumbs.db", bytes(100), labels=1)
picture("@eaDir/photo.jpg/SYNO_THUMB.jpg", JPEG, labels=1)
picture("__MACOSX/._photo.jpg", JPEG, labels=1)


# What a folder may hold besides files.


def in_folder(name: str, add: Callable[[Path], object], **outcome: object) -> None:
    """Let a function add to a folder with an ordinary picture, in which it is called."""

    def build(folder: Path) -> list[str]:
        put(folder, "in/ordinary.png")
        with contextlib.chdir(folder / "in"):
            add(folder / "in")
        return ["predict", "in"]

    CASES.append(Case("folder", name, build, **outcome))


def very_deep(_: Path) -> None:
    """Make folders below one another, deeper than a path may be long."""
    for _ in range(30):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)


def bind_socket(name: str) -> None:
    """Leave a socket."""
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(name)


in_folder("link", lambda f: (f / "l").symlink_to("ordinary.png"), labels=2)
in_folder("hard link", lambda f: (f / "l").hardlink_to("ordinary.png"), labels=2)
in_folder("link to itself", lambda f: (f / "l.jpg").symlink_to("l.jpg"), labels=1, errors=1)
in_folder("link to nothing", lambda f: (f / "l.jpg").symlink_to("n"), labels=1, errors=1)
in_folder(
    "nameless link to nothing", lambda f: (f / "l").symlink_to("n"), labels=1, says="begins: l"
)
in_folder("link to this folder", lambda f: (f / "l").symlink_to("."), labels=1)
in_folder("link to the folder above", lambda f: (f / "l").symlink_to(".."), labels=1)
in_folder("link to a device", lambda f: (f / "z.jpg").symlink_to("/dev/zero"), labels=1, errors=1)
in_folder("pipe", lambda f: os.mkfifo(f / "p.jpg"), labels=1, errors=1)
in_folder("nameless pipe", lambda f: os.mkfifo(f / "p"), labels=1, says="begins: p")
in_folder("socket", lambda _: bind_socket("s.jpg"), labels=1, errors=1)
in_folder("nameless socket", lambda _: bind_socket("s"), labels=1, says="begins: s")
in_folder("folder that cannot be listed", very_deep, labels=1, errors=1, says="listed")
in_folder("same but for case", lambda f: (put(f, "X.jpg"), put(f, "x.JPG")), labels=3)


# Archives, each named itself.


def tarred(members: dict[str, bytes], mode: str = "w", **options: object) -> bytes:
    """Return a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def special_member(kind: bytes, link: str = "", name: str = "b.png") -> bytes:
    """Return an archive with a picture and one member of a kind."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
        other = tarfile.TarInfo(name)
        other.type, other.linkname = kind, link
        archive.addfile(other)
    return stream.getvalue()


def zipped_link(name: str, target: str) -> bytes:
    """Return a zip archive with a picture and a symbolic link."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", PNG)
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, target)
    return stream.getvalue()


def encrypted(archive: bytes) -> bytes:
    """Return a zip archive whose directory says that its members are encrypted."""
    content = bytearray(archive)
    for match in re.finditer(rb"PK\x01\x02", archive):
        content[match.start() + 8] |= 1
    return bytes(content)


def archive(name: str, content: bytes | Callable[[], bytes], **outcome: object) -> None:
    """Add an archive that is named itself."""

    def build(folder: Path) -> list[str]:
        return ["predict", put(folder, name, content if isinstance(content, bytes) else content())]

    CASES.append(Case("archive", name, build, **outcome))


two = {"a.png": PNG, "b/c.jpg": JPEG}
archive("plain.tar", lambda: tarred(two), labels=2)
archive("gzip.tar.gz", lambda: tarred(two, "w:gz"), labels=2)
archive("xz.tar.xz", lambda: tarred(two, "w:xz"), labels=2)
archive("bzip2.tar.bz2", lambda: tarred(two, "w:bz2"), labels=2)
archive("gzip_inside.tar", lambda: tarred(two, "w:gz"), labels=2)
archive("plain_inside.tar.gz", lambda: tarred(two), labels=2)
archive("archive_without_ending", lambda: tarred(two), labels=2)
archive("zip_without_ending", lambda: zipped(two), labels=2)
archive("gzip_without_ending", lambda: gzip.compress(tarred(two)), labels=2)
archive("xz.bin", lambda: lzma.compress(tarred(two)), labels=2)
archive("bzip2.bin", lambda: bz2.compress(tarred(two)), labels=2)
archive("plain.zip", lambda: zipped(two), labels=2)
archive("deflated.zip", lambda: zipped(two, zipfile.ZIP_DEFLATED), labels=2)
archive("lzma.zip", lambda: zipped(two, zipfile.ZIP_LZMA), labels=2)
archive("zip_inside.tar", lambda: zipped(two), labels=2)
archive("odd_names.tar", lambda: tarred({"a.jpg_large": JPEG, "b": PNG, "c.jpg.1": JPEG}), labels=3)
archive("odd_names.zip", lambda: zipped({"a.jpg_large": JPEG, "b": PNG, "c.jpg.1": JPEG}), labels=3)
archive("others.tar", lambda: tarred(two | {"x.json": b"{}", "x.cls": b"3"}), labels=2)
archive("notes.tar", lambda: tarred(two | {"notes.md": b"x"}), labels=2, says=r"1 file.*notes\.md")
archive("notes.zip", lambda: zipped(two | {"notes.md": b"x"}), labels=2, says=r"notes\.md")
archive("macos.zip", lambda: zipped(two | {"__MACOSX/._a.png": b"\0\5\x16\7"}), labels=2)
archive("hard_link.tar", lambda: special_member(tarfile.LNKTYPE, "a.png"), labels=2)
archive("symbolic_link.tar", lambda: special_member(tarfile.SYMTYPE, "a.png"), labels=2)
archive("link_without_ending.tar", lambda: special_member(tarfile.LNKTYPE, "a.png", "b"), labels=2)
archive("link_without_ending.zip", lambda: zipped_link("b", "a.png"), labels=2)
archive("dangling.zip", lambda: zipped_link("b.png", "z.png"), labels=1, errors=1)
archive(
    "link_to_nothing.tar",
    lambda: special_member(tarfile.SYMTYPE, "z", "b"),
    labels=1,
    says=r"1 file.*: b",
)
archive("encrypted.zip", lambda: encrypted(zipped(two)), errors=2)
archive("dangling.tar", lambda: special_member(tarfile.SYMTYPE, "z.png"), labels=1, errors=1)
archive("outside.tar", lambda: special_member(tarfile.SYMTYPE, "/etc/passwd"), labels=1, errors=1)
archive("itself.tar", lambda: special_member(tarfile.SYMTYPE, "b.png"), labels=1, errors=1)
archive("fifo.tar", lambda: special_member(tarfile.FIFOTYPE), labels=1, errors=1)
archive("concatenated.tar", lambda: tarred({"a.png": PNG}) + tarred({"b.png": PNG}), labels=2)
archive(
    "half.tar", lambda: tarred(two)[: 512 + -(-len(PNG) // 512) * 512 + 700], labels=1, errors=1
)
archive("half_last.tar.gz", lambda: tarred({"a.png": PNG, "b.png": noise(90_000).tobytes()}, "w:gz")[:-40_000], labels=1, errors=1)  # fmt: skip # noqa: E501
archive("empty.tar", b"", errors=1)
archive("no_images.zip", lambda: zipped({"a.txt": b"x"}), refused="image")
archive("broken.zip", lambda: b"PK\x03\x04" + bytes(100), errors=1)
archive("absolute.tar", lambda: tarred({"/etc/a.png": PNG, "../../b.png": PNG}), labels=2)
archive("same_names.tar", lambda: tarred({"a.png": PNG, "./a.png": JPEG}), labels=2)
archive("text.tar", b"this is no archive at all", errors=1)


def old_tar() -> bytes:
    """Return a tar archive as version 7 of Unix wrote it, without a magic number."""
    content = bytearray(tarred({"a.png": PNG}))
    content[257:512] = bytes(255)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def tar_of(*members: tuple[str, bytes | tuple[bytes, str]]) -> bytes:
    """Return a tar archive of files, given their content, and others, given type and target."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return stream.getvalue()


def unknown_member() -> bytes:
    """Return a tar archive with a member of a type that nobody knows."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in (("a.png", tarfile.REGTYPE), ("b.png", b"Q")):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    return stream.getvalue()


class Pipe(io.RawIOBase):
    """Takes what is written, and cannot go back."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, piece: bytes) -> int:
        """Keep some bytes."""
        self.content += piece
        return len(piece)


def zipped_into_pipe() -> bytes:
    """Return a zip archive whose members' sizes stand behind them."""
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in two.items():
            archive.writestr(name, content)
    return bytes(pipe.content)


def zipped_twice() -> bytes:
    """Return a zip archive with two members of one name."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a.png", PNG)
        archive.writestr("a.png", JPEG)
    return stream.getvalue()


def zipped_64() -> bytes:
    """Return a zip archive with the header of large members."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w") as archive,
        archive.open("a.png", "w", force_zip64=True) as member,
    ):
        member.write(PNG)
    return stream.getvalue()


DEFLATE64 = zipped({"a": PNG, "b.png": PNG}).replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x09\0")

archive("tar.csv", lambda: tarred(two), labels=2)
archive("tar.txt", lambda: tarred(two, "w:gz"), labels=2)
archive("tar.parquet", lambda: tarred(two), labels=2)
archive("zip.jsonl", lambda: zipped(two), labels=2)
archive("comic.cbz", lambda: zipped(two), labels=2)
archive("copy.tar.gz.1", lambda: tarred(two, "w:gz"), labels=2)
archive("old", old_tar, labels=1)
archive("old.tar", old_tar, labels=1)
archive("unpacks_itself.exe", lambda: b"MZ" + bytes(5000) + zipped(two), labels=2)
archive("script.zip", lambda: b"#!/bin/sh\n" + zipped(two), labels=2)
archive("begins_as_jpeg.zip", lambda: JPEG + zipped(two), labels=2)
archive("ends_as_zip.jpg", lambda: JPEG + zipped(two), labels=1)
archive("zip.jpg", lambda: zipped(two), errors=1, says="zip archive.*Unpack")
archive("tar.jpg", lambda: tarred(two), errors=1, says="tar archive")
archive("seven.7z", b"7z\xbc\xaf\x27\x1c" + bytes(60), errors=1, says="7-Zip")
archive("seven.tar", b"7z\xbc\xaf\x27\x1c" + bytes(600), errors=1, says="7-Zip")
archive("rar.zip", b"Rar!\x1a\x07\x01\0" + bytes(60), errors=1, says="RAR")
archive("rar.csv", b"Rar!\x1a\x07\x01\0\xff" + bytes(60), errors=1, says="RAR")
archive("lz4.tar.lz4", b"\x04\x22\x4d\x18" + bytes(60), errors=1, says="LZ4")
archive("photo.jpg.gz", lambda: gzip.compress(JPEG), errors=1, says="no tar archive.*Unpack it")
archive("table.csv.gz", lambda: gzip.compress(b"path\na.png\n"), errors=1, says="Unpack it first")
archive("twice.tar.gz", lambda: gzip.compress(tarred(two, "w:gz")), errors=1, says="Unpack it")
archive("streams.tar.gz", lambda: gzip.compress(tarred(two)[:3000]) + gzip.compress(tarred(two)[3000:]), labels=2)  # fmt: skip # noqa: E501
archive("long_names.tar", lambda: tarred({"d/" * 90 + "n" * 150 + ".png": PNG, "l" * 200: JPEG}), labels=2)  # fmt: skip # noqa: E501
archive("gnu.tar", lambda: tarred({"n" * 150: PNG, os.fsdecode(b"\xe9"): PNG}, format=tarfile.GNU_FORMAT), labels=2)  # fmt: skip # noqa: E501
archive("chain.tar", lambda: tar_of(("c.png", (tarfile.SYMTYPE, "b.png")), ("b.png", (tarfile.LNKTYPE, "a.png")), ("a.png", PNG)), labels=3)  # fmt: skip # noqa: E501
archive("garbage_behind.tar", lambda: tarred(two) + b"garbage" * 100, labels=2, errors=1)
archive("garbage_behind.tar.gz", lambda: tarred(two, "w:gz") + b"garbage", labels=2, errors=1)
archive("zeros_behind.tar", lambda: tarred(two) + bytes(100_000), labels=2)
archive("unknown_type.tar", unknown_member, labels=2)
archive("inner.tar", lambda: tarred({"a.png": PNG, "x.zip": zipped(two)}), labels=1, says="x.zip")
archive("inner.zip", lambda: zipped({"x.zip": zipped(two)}), refused="at least one image.*.zip")
archive("twice.zip", zipped_twice, labels=2)
archive("into_pipe.zip", zipped_into_pipe, labels=2)
archive("large.zip", zipped_64, labels=1)
archive("comment.zip", lambda: zipped({"a.png": PNG})[:-2] + b"\x10\x27" + b"c" * 10_000, labels=1)
archive("cut.zip", lambda: zipped(two)[:-10], errors=1)
archive("checksum.zip", lambda: zipped(two).replace(PNG[-30:], bytes(30)), labels=1, errors=1)
archive("deflate64.zip", lambda: DEFLATE64, errors=2, says="compressed in a way")
archive("encrypted_names.zip", lambda: encrypted(zipped({"a": PNG, "b": PNG})), errors=2)
archive("windows.zip", lambda: zipped({"__MACOSX/._c.png": b"\0\5\x16\7", "a.png": PNG}).replace(b"X/._c", b"X\\._c"), labels=1)  # fmt: skip # noqa: E501
archive("outside.zip", lambda: zipped({"/etc/a.png": PNG, "../../b.png": PNG, "C:\\c.png": PNG}), labels=3)  # fmt: skip # noqa: E501
archive(
    "office.docx", lambda: zipped({"word/document.xml": b"", "word/media/1.png": PNG}), labels=1
)

for name, command in (
    ("label", ["label", "x.tar", "--classes", "cat,dog"]),
    ("predict", ["predict", "x.tar"]),
    ("fit", ["fit", "data", "--adapt-to", "x.tar"]),
    ("monitor", ["monitor", "x.tar"]),
    ("fit on it", ["fit", "x.tar"]),
    ("verify", ["verify", "x.tar"]),
    ("calibrate", ["calibrate", "x.tar"]),
    ("evaluate", ["evaluate", "x.tar"]),
):

    def build(folder: Path, command: list[str] = command) -> list[str]:
        """Write an archive with more members than are allowed."""
        put(folder, "x.tar", tarred(two))
        write_class_folders(folder / "data", per_class=2)
        return [*command, "--max-archive-members", "1"]

    rows = {"labels": 1, "errors": 1} if name in ("label", "predict") else {}
    rows = {"labels": 3} if name == "fit" else rows
    CASES.append(Case("limits", name, build, says=r"--max-archive-members", **rows))


# Tables and lists of names.


# A folder in one form of Unicode, and a file in the other.
MIXED = "\u00e9t\u00e9/cafe\u0301.png"


def table(
    name: str, content: str | bytes, arguments: tuple[str, ...] = (), **outcome: object
) -> None:
    """Add a list beside a.png, b.png and sub/c.png."""

    def build(folder: Path) -> list[str]:
        for picture_name in ("a.png", "b.png", "sub/c.png", "caf\u00e9.png", "=1+1.png", MIXED):
            put(folder, picture_name)
        text = content.decode("latin-1") if isinstance(content, bytes) else content
        text = text.replace("{here}", folder.as_posix())
        raw = text.encode("latin-1") if isinstance(content, bytes) else text.encode()
        return ["predict", put(folder, name, raw), *arguments]

    CASES.append(Case("table", name, build, **outcome))


table("plain.csv", "path\na.png\nsub/c.png\n", labels=2)
table("semicolon.csv", "path;note\na.png;x\nb.png;y\n", labels=2)
table("tabs.tsv", "path\tnote\na.png\tx\n", labels=1)
table("bom.csv", "\ufeffpath\na.png\n", labels=1)
table("crlf.csv", "path,label\r\na.png,red\r\n\r\nb.png,red\r\n", labels=2)
table("utf16.csv", "path\na.png\n".encode("utf-16").decode("latin-1").encode("latin-1"), labels=1)
table("quoted.csv", 'path,note\n"a.png","two\nlines"\n"b.png","a ""b"""\n', labels=2)
table("backslashes.csv", "path\nsub\\c.png\n.\\a.png\n", labels=2)
table("absolute.csv", "path\n{here}/a.png\n", labels=1)
table("file_url.csv", "path\nfile://{here}/a.png\nfile://localhost{here}/b.png\n", labels=2)
table("file_url_escaped.csv", "path\nfile://{here}/caf%C3%A9.png\n", labels=1)
table("nfd.csv", unicodedata.normalize("NFD", "path\ncaf\u00e9.png\n"), labels=1)
table("escaped_formula.csv", "path\n'=1+1.png\n", labels=1)
table("missing.csv", "path\na.png\nnowhere.png\n", labels=1, errors=1)
table("folder.csv", "path\na.png\nsub\n", labels=1, errors=1)
table("file_url_short.csv", "path\nfile:{here}/a.png\nFILE://{here}/b.png\n", labels=2)
table("file_url_host.csv", "path\na.png\nfile://server/share/a.png\n", labels=1, errors=1)
table(
    "windows.csv", "path\na.png\nC:\\photos\\a.png\n\\\\server\\share\\a.png\n", labels=1, errors=2
)
table("home.csv", "path\n~/a.png\n~\\sub\\c.png\n", labels=2)
table("both_forms.csv", "path\ne\u0301te\u0301/caf\u00e9.png\n", labels=1)
table("web.csv", "path\na.png\nhttp://127.0.0.1:9/x.png\n", labels=1, errors=1)
table("unknown_scheme.csv", "path\na.png\nqqq://x/y.png\n", labels=1, errors=1)
table("device.csv", "path\na.png\n/dev/zero\nfile:///dev/zero\n", labels=1, errors=2)
table("column.csv", "file,what\na.png,red\n", ("--path-column", "file"), labels=1)
table("no_column.csv", "file,what\na.png,red\n", refused="'path'.*'file', 'what'")
table("empty_cell.csv", "path,n\na.png,1\n,2\n", refused="row 2")
table("latin1.csv", b"path\ncaf\xe9.png\n", refused="UTF-8")
table("no_rows.csv", "path\n", refused="image")
table("nothing.csv", "", refused="empty")
table("list.txt", "a.png\n\n  b.png  \nsub/c.png\n", labels=3)
table("rows.jsonl", '{"path": "a.png"}\n{"path": "sub/c.png", "x": 1}\n', labels=2)
table("sep.csv", "sep=;\r\npath;label\r\na.png;x\r\n", labels=1)
table("two_columns.csv", "path,path\na.png,b.png\n", refused="one column 'path', but it has 2")
table("long_cell.csv", "path,vector\na.png," + "1 " * 100_000 + "\n", labels=1)
table("carriage_returns.csv", "path\ra.png\rb.png\r", labels=2)
table("utf16.txt", "a.png\nb.png\n".encode("utf-16").decode("latin-1").encode("latin-1"), labels=2)
table("list.json", '[{"path": "a.png"},\n {"path": "b.png"}]', labels=2)
table("lines.json", '{"path": "a.png"}\n{"path": "b.png"}\n', labels=2)
table("list.jsonl", '[{"path": "a.png"}]', refused="object in line 1")
table("pretty.jsonl", '{\n "path": "a.png"\n}\n', refused="line 1.*one list of objects")
table("coco.json", '{"images": []}', refused="'path'.*'images'")
table("half.jsonl", '{"path": "\\ud800.png"}\n{"path": "a.png"}\n', labels=1, errors=1)
table("dup.csv", "path\na.png\na.png\n", labels=2)


def parquet(name: str, rows: Callable[[object], object], **outcome: object) -> None:
    """Add a Parquet file of what a function makes with pyarrow, beside a.png."""

    def build(folder: Path) -> list[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        put(folder, "a.png")
        columns = rows(pa)
        pq.write_table(pa.table(columns), folder / name)
        return ["predict", name]

    CASES.append(Case("Parquet", name, build, needs="pyarrow", **outcome))


parquet("bytes.parquet", lambda pa: {"image": pa.array([PNG, JPEG], pa.binary())}, labels=2)
parquet("large.parquet", lambda pa: {"image": pa.array([PNG], pa.large_binary())}, labels=1)
parquet(
    "view.parquet",
    # pyarrow writes views from 18 on.
    lambda pa: {"image": pa.array([PNG], pa.binary_view() if hasattr(pa, "bool8") else None)},
    labels=1,
)
parquet(
    "dictionary.parquet", lambda pa: {"image": pa.array([PNG, PNG]).dictionary_encode()}, labels=2
)
parquet(
    "struct.parquet", lambda pa: {"image": pa.array([{"bytes": PNG, "path": "x.png"}])}, labels=1
)
parquet(
    "null_bytes.parquet",
    lambda pa: {
        "image": pa.array(
            [{"bytes": None, "path": "a.png"}, {"bytes": PNG, "path": "b.png"}],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
    },
    labels=2,
)
parquet(
    "nulls.parquet", lambda pa: {"image": pa.array([PNG, None], pa.binary())}, labels=1, errors=1
)
parquet("names.parquet", lambda pa: {"path": ["a.png", "nowhere.png"]}, labels=1, errors=1)
parquet("same_names.parquet", lambda pa: {"path": ["x", "x"], "image": pa.array([PNG, JPEG], pa.binary())}, labels=2)  # fmt: skip # noqa: E501
parquet("path_structs.parquet", lambda pa: {"image": pa.array([{"path": "a.png"}])}, labels=1)
parquet("lists.parquet", lambda pa: {"images": pa.array([[PNG, PNG]])}, refused="images.*list")
for name in ("without_ending", "short.pq", "compressed.parquet.gz", "Parquet.csv", "Parquet.tar"):
    parquet(name, lambda pa: {"image": pa.array([PNG, JPEG], pa.binary())}, labels=2)
parquet("Parquet.jpg", lambda pa: {"image": [PNG]}, errors=1, says="Parquet file.*ending")
parquet("no_images.parquet", lambda pa: {"n": [1, 2]}, refused="column|image")
parquet("empty.parquet", lambda pa: {"image": pa.array([], pa.binary())}, refused="image")


# What is named itself.


def named(name: str, *sources: str, **outcome: object) -> None:
    """Name inputs as they are, beside a folder of two pictures and a list, and an archive."""

    def build(folder: Path) -> list[str]:
        put(folder, "caf\u00e9/a.png"), put(folder, "caf\u00e9/b c.png")
        put(folder, "caf\u00e9/list.txt", "a.png\n"), put(folder, "x.zip", zipped(two))
        return ["predict", *(source.replace("{here}", folder.as_posix()) for source in sources)]

    CASES.append(Case("named", name, build, **outcome))


named("a folder by file URL", "file://{here}/caf%C3%A9", labels=2)
named("a folder at home", "~/caf\u00e9", labels=2)
named("a folder in the other form", unicodedata.normalize("NFD", "caf\u00e9"), labels=2)
named("a list by file URL", "file://{here}/caf%C3%A9/list.txt", labels=1)
named("an archive by file URL", "file:{here}/x.zip", labels=2)
named("an image by file URL", "file://{here}/caf%C3%A9/b%20c.png", labels=1)
named("backslashes", "caf\u00e9\\a.png", labels=1)
named("several", "file://{here}/x.zip", "caf\u00e9", "nowhere.png", labels=4, errors=1)
named("a wildcard", "caf\u00e9/*.png", labels=2)
named("wildcards at any depth", "**/*.png", labels=2)
named("a wildcard for archives", "*.zip", labels=2)
named("a wildcard that nothing fits", "*.gif", refused=r"there is no '\*\.gif'")
named("standard input", "-", refused=r"standard input is not read.*\.txt")
named("nothing", "file://{here}/nowhere", refused="there is no 'file://")


# Labelled folders and tables: what is a class. `fit` names the classes that came out.


REPORT = b'<!DOCTYPE html><head><meta name="generator" content="trustvlm 1.0">'


def labelled(name: str, files: Iterable[str], *arguments: str, **outcome: object) -> None:
    """Add a folder of files to fit on; "classes" counts as rows with a label."""
    listed = list(files)

    def build(folder: Path) -> list[str]:
        for i, file in enumerate(listed):
            colour = noise(40, 50, 3)
            colour[..., i % 3] //= 3
            picture = saved(Image.fromarray(np.roll(colour, i, axis=1)), "PNG")
            put(folder, file, REPORT if file.endswith(".html") else picture)
        return ["fit", "data", *arguments]

    CASES.append(Case("classes", name, build, **outcome))


pair = ["data/cat/1.png", "data/cat/2.png", "data/dog/1.png", "data/dog/2.png"]
labelled("two classes", pair, labels=2)
labelled("no ending", ["data/cat/1", "data/cat/2", "data/dog/1.jpg_large"], labels=2)
for other in (
    "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found",
    ".git", ".ipynb_checkpoints", "__pycache__", "LOST+FOUND", "$Recycle.Bin", ".thumbnails",
    ".Trash-1000", "@__thumb", "node_modules", "$WINDOWS.~BT", "#snapshot", "@Recycle",
    "old.trust", "Previews.lrdata", "found.000",
):  # fmt: skip
    labelled(f"beside {other}", [*pair, f"data/{other}/x.png"], labels=2)
    labelled(f"inside a class: {other}", [*pair, f"data/cat/{other}/x.png"], labels=2)
labelled("beside verdicts", [*pair, "data/out/_trustvlm/manifest.json", "data/out/x.png"], labels=2)
labelled("beside a report", [*pair, "data/report/index.html", "data/report/x.png"], labels=2)
labelled("beside a page", [*pair, "data/page/index.html.png"], labels=3)


def splits(*names: str, beside: Iterable[str] = (), **outcome: object) -> None:
    """Add a folder of splits, each with class folders."""
    files = [f"data/{s}/{c}/{i}.png" for s in names for c in ("cat", "dog") for i in (1, 2)]
    labelled(" ".join([*names, *beside]), [*files, *beside], **outcome)


splits("train", "val", refused=r"train and val.*data/train")
splits("train", "test", refused=r"test and train")
splits("TRAIN", "Valid", refused=r"TRAIN and Valid.*data/TRAIN")
splits("training", "validation", "testing", refused=r"testing, training and validation")
splits("train2017", "val2017", refused=r"train2017 and val2017")
splits("trainval", "test", refused=r"test and trainval")
splits("train", "hold-out", refused=r"hold-out and train")
splits("01_train", "02_test", refused=r"01_train and 02_test")
splits("fold1", "fold2", refused=r"fold1 and fold2")
splits("data", labels=1, says=r"only class folder, and holds 2 folders.*data/data")
splits("train", refused=r"folder train is a split.*data/train")
splits("train", "val", beside=["data/docs/1.png"], refused=r"train and val")
splits("train", "val", beside=["data/__MACOSX/x/1.png"], refused=r"train and val")
labelled("flat splits", ["data/train/1.png", "data/test/2.png"], refused=r"test and train.*one folder per class")  # fmt: skip # noqa: E501
labelled("one split of them", ["data/train/1.png", "data/dog/1.png", "data/cat/1.png"], labels=3)
labelled("nested classes", ["data/train/old/1.png", "data/bus/old/1.png"], labels=2)
labelled("a class called train", ["data/train/1.png", "data/bus/1.png", "data/car/1.png"], labels=3)
labelled("a file beside the classes", [*pair, "data/loose.png"], labels=2, says=r"loose|beside")


def class_list(name: str, content: str, **outcome: object) -> None:
    """Add a list of classes for `label`."""

    def build(folder: Path) -> list[str]:
        put(folder, "a.png")
        return ["label", "a.png", "--classes", put(folder, name, content)]

    CASES.append(Case("class list", name, build, **outcome))


class_list("names.txt", "cat\ndog\n", labels=1)
class_list("comments.txt", "# mine\ncat\n\ndog\r\n", labels=1)
class_list("names.csv", "name\ncat\ndog\n", labels=1)
class_list("headless.csv", "cat\ndog\n", labels=1)
class_list("ids.csv", "id,name\n0,cat\n1,dog\n", labels=1)
class_list("names.json", '["cat", "dog"]', labels=1)
class_list("ids.json", '{"0": "cat", "1": "dog"}', labels=1)
class_list("to_ids.json", '{"cat": 0, "dog": 1}', labels=1)
class_list("data.yaml", "nc: 2\nnames: [cat, dog]\n", labels=1)
class_list("data.yml", "names:\n  0: cat\n  1: dog\n", labels=1)
class_list("numbers.json", "[0, 1, 2]", refused="list of names")
class_list("numbers.yaml", "names: [0, 1, 2.5]\n", labels=1)
class_list("yes_and_no.yaml", "names:\n  0: yes\n  1: no\n", labels=1)
class_list("dates.yaml", "- 2020-01-01\n- 2021-01-01\n", labels=1)
class_list("index.json", '{"1": ["n2", "goldfish"], "0": ["n1", "tench"]}', labels=1)
class_list("count.yaml", "nc: 3\nnames: [cat, dog]\n", refused="nc.*3.*2")
class_list("tag.yaml", "names: !!python/object/apply:os.getcwd []\n", refused="tag")
class_list("nothing.txt", "", refused="lists none|no class|empty")
class_list("broken.json", "{", refused="JSON")
class_list("no_names.yaml", "train: images\n", refused="names")
class_list("names.xlsx", "PK\x03\x04", refused="xlsx|text|CSV")
for spec, reason in (("cat;dog", "commas"), ('"cat,dog', "quotation"), ("cat,,dog", "number 2")):
    CASES.append(
        Case(
            "class list",
            spec,
            lambda folder, spec=spec: ["label", put(folder, "a.png"), "--classes", spec],
            refused=reason,
        )
    )
class_list("nowhere/names.png", PNG.decode("latin-1"), refused="class")


def run(case: Case, model: Path, plugin: Path, folder: Path) -> tuple[int, int, str]:
    """Run a case in an empty folder; rows with a label, rows with an error, all that is said."""
    from trustvlm.cli import main

    arguments = list(case.build(folder))
    common = ["--plugin", str(plugin)]
    match arguments[0]:
        case "predict":
            command = ["predict", str(model), *arguments[1:], "-o", "out.csv", *common]
        case "monitor" | "verify" | "calibrate" | "evaluate":
            command = [arguments[0], str(model), *arguments[1:], *common]
        case "label":
            squares = ["--vlm", "squares:1", "--vision", "squares:1"]
            command = [*arguments, *squares, "-o", "out.csv", *common]
        case _:
            command = [*arguments, "-o", "out.trust", "--vlm", "squares:1", "--vision", "squares:1"]
            command += common
    messages = io.StringIO()
    before, home = sys.argv, os.environ.get("HOME", "")
    with contextlib.chdir(folder), contextlib.redirect_stderr(messages), warnings.catch_warnings():
        warnings.simplefilter("default")
        sys.argv, os.environ["HOME"] = ["trustvlm", *command], str(folder)
        try:
            with contextlib.redirect_stdout(messages):
                main()
        except SystemExit:
            pass
        finally:
            sys.argv, os.environ["HOME"] = before, home
    text = messages.getvalue()
    if (folder / "out.trust").is_dir():
        manifest = json.loads((folder / "out.trust" / "manifest.json").read_text())
        return len(manifest["classes"]), 0, text
    if not (folder / "out.csv").is_file():
        return 0, 0, text
    with (folder / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    errors = [row["error"] for row in rows if row["decision"] == "error"]
    return len(rows) - len(errors), len(errors), "\n".join((text, *errors))


def mismatch(case: Case, outcome: tuple[int, int, str]) -> str:
    """Say in what an outcome differs from what has to come out; "" for nothing."""
    labels, errors, text = outcome
    if "Traceback" in text or "nobody foresaw" in text or "report this as a bug" in text:
        return "an exception that nobody foresaw"
    if (labels, errors) != (case.labels, case.errors):
        return f"expected {case.labels} labels and {case.errors} errors"
    pattern = case.refused or case.says
    if pattern and not re.search(pattern, text, re.DOTALL):
        return f"expected a message with {pattern!r}"
    return ""


def make_model(folder: Path) -> tuple[Path, Path]:
    """Write the encoder backend and a model fitted with it; return the model and the backend."""
    from trustvlm import TrustVLM
    from trustvlm.plugins import load_plugin

    plugin = folder / "squares.py"
    plugin.write_text(BACKEND)
    load_plugin(plugin)
    shots = write_class_folders(folder / "shots", per_class=2)
    model = TrustVLM(vlm="squares:1", vision="squares:1").fit(shots)
    model.save(folder / "odd.trust")
    return folder / "odd.trust", plugin


def table_of_outcomes() -> int:
    """Print a line for each case; return how many are not as they have to be."""
    # What reads without a bound fails here, before the machine does.
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["TRUSTVLM_CACHE"] = f"{name}/cache"
        model, plugin = make_model(Path(name))
        for i, case in enumerate(CASES):
            folder = Path(name) / str(i)
            folder.mkdir()
            try:
                outcome = run(case, model, plugin, folder)
                problem = mismatch(case, outcome)
            except Exception as error:
                outcome, problem = (0, 0, ""), f"{type(error).__name__}: {error}"
            wrong += bool(problem)
            shown_name = case.name if len(case.name) < 32 else case.name[:28] + "..."
            rows = f"{outcome[0]:>3} {outcome[1]:>3}"
            line = f"{case.group:<11}{shown_name!a:<34}{rows}  {problem}"
            sys.stdout.write(f"{line}\n")
            if problem or "-v" in sys.argv:
                sys.stdout.write(f"    {outcome[2][-400:]!a}\n")
    sys.stdout.write(f"{len(CASES)} odd inputs, {wrong} not as they have to be\n")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(table_of_outcomes()))
