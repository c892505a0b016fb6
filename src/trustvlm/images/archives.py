"""Images inside archives: tar, as WebDataset's shards are, perhaps compressed, and zip."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import posixpath
import re
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, Any, cast

from trustvlm.environment import pip_install
from trustvlm.exceptions import ImageError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, describe_exception, refusal
from trustvlm.images.formats import is_image_content, looks_like_image
from trustvlm.images.locations import Location, read_head
from trustvlm.images.references import (
    ImageSource,
    InMemoryImage,
    Skipped,
    UnreadableImage,
    check_size,
    is_system_folder,
)
from trustvlm.images.streams import (
    Allowance,
    ExpansionError,
    StreamShard,
    TextMember,
    size_of,
)


def _open_zstandard(raw: IO[bytes]) -> Any:
    for module in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(module).open(raw)
    raise tarfile.ReadError(
        "it is compressed by Zstandard, for which Python below 3.14 needs the extra zstd: "
        f"{pip_install('zstd')}"
    )


# How each compression begins, and what reads it.
_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstandard,
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
ARCHIVE_EXTENSIONS = frozenset(
    {".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tzst", ".zip"}
)
# What damaged archives raise, down in the libraries, beside errors of their own.
_DAMAGE = (
    EOFError, OSError, ValueError, OverflowError, RecursionError, MemoryError, struct.error,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
_TAR_DAMAGE = (tarfile.TarError, *_DAMAGE)
# Bytes of a member that say what it is, and links from link to link that are followed.
_HEAD_BYTES, _MOST_LINKS = 256, 16
# Compressions of zip that expand as much at a time as is asked for.
_STREAMED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def archive_type(location: Location) -> type[StreamShard] | None:
    """Return what reads a file on this machine, by its content; None if it is no archive.

    An image is none, except where its name says that it is a zip archive, which may begin as
    anything: programs that unpack themselves do.
    """
    head = read_head(location, tarfile.BLOCKSIZE)
    if head.startswith(_ZIP):
        return ZipShard
    if head.startswith(tuple(_COMPRESSIONS)) or _is_tar(head):
        return TarShard
    if not head or (is_image_content(head) and location.suffix != ".zip"):
        return None
    try:
        with location.open() as file:
            return ZipShard if zipfile.is_zipfile(file) else None
    except OSError:
        return None


def _is_tar(head: bytes) -> bool:
    """Whether the first block of a file is a header of a tar archive, with a right checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, *_DAMAGE):
        return head[257:262] == b"ustar"
    return True


def archive_shard(
    name: str,
    location: Location,
    prefix: str = "",
    skipped: Skipped | None = None,
    limits: Limits = DEFAULT_LIMITS,
    texts: frozenset[str] = frozenset(),
) -> StreamShard:
    """Return the images of an archive: what it is its content says, of a URL its name."""
    named: type[StreamShard] = ZipShard if location.suffix == ".zip" else TarShard
    kind = named if location.is_url else archive_type(location) or named
    return kind(name, location, prefix, skipped=skipped, limits=limits, texts=texts)


def _is_hidden(name: str) -> bool:
    # Some programs of Windows part the folders in archives by backslashes.
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part not in (".", "..")]
    return any(part.startswith(".") for part in parts) or any(map(is_system_folder, parts[:-1]))


def _target(name: str, link: str) -> str:
    """Return the member that a symbolic link names; "" if it leads out of the archive."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    return "" if target.startswith(("/", "../")) or target == ".." else target


def _is_image(image: ImageSource) -> bool:
    return isinstance(image, InMemoryImage) and is_image_content(image.content[:_HEAD_BYTES])


def _no_target(path: str) -> UnreadableImage:
    what = "it is a link to nothing in its archive"
    remedy = "Pack the archive anew with the files themselves"
    return UnreadableImage.of(path, refusal("missing", path, what, remedy))


# Of what precedes the content of a member: names, holes of sparse files, metadata.
_HEADER_BYTES = 256 * 1024
# Of fields that hold for all members of a tar archive.
_MOST_SHARED = 256
# Digits in a row by which some versions of tarfile would search for minutes.
_MANY_DIGITS = re.compile(rb"\d{200}")
# How much that was expanded is kept, so that a step back does not begin anew.
_KEPT_BYTES = 64 * 1024
# Bytes in the directory of a zip archive for each member that is allowed, and bytes of the names of
# members that links may lead to.
_DIRECTORY_BYTES, _NAME_BYTES = 64, 2**28


class _BoundedFile:
    """An open archive that is expanded step by step, no further than allowed.

    Parameters
    ----------
    file
        What reads it.
    allowance
        Counts the bytes of a compressed file, those passed over too.
    compressed
        Whether going back means to begin anew.
    """

    def __init__(self, file: IO[bytes], allowance: Allowance, *, compressed: bool = False) -> None:
        self._file = file
        self.allowance = allowance
        self.compressed = compressed
        self._position = 0
        # The last bytes that were expanded, and how many of them are to be given again.
        self._kept, self._again = b"", 0
        # How much may be read before the content of a member; None while that is read.
        self.header_left: int | None = None

    def seekable(self) -> bool:
        """Whether `seek` works: yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read some bytes."""
        left = self.header_left
        if left is None:
            return self._next(size)
        content = self._next(size if 0 <= size <= left else left + 1)
        self.header_left = left - len(content)
        if self.header_left < 0:
            raise ExpansionError(f"what describes a member has more than {left:,} bytes")
        if size > tarfile.BLOCKSIZE and _MANY_DIGITS.search(content):
            raise tarfile.ReadError("a header is damaged")
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        if whence == os.SEEK_CUR:
            offset += self._position
        if not self.compressed:
            whence = os.SEEK_SET if whence == os.SEEK_CUR else whence
            self._position = self._file.seek(offset, whence)
            return self._position
        back = self._position - offset
        if 0 <= back <= len(self._kept) - self._again:
            self._position, self._again = offset, self._again + back
        elif back > 0:
            self._position = self._file.seek(offset)
            self._kept, self._again = b"", 0
        while self._position < offset and self._next(min(2**20, offset - self._position)):
            pass
        return self._position

    def _next(self, size: int) -> bytes:
        if not self.compressed:
            # Memory for as much as is asked for would be set aside.
            size = min(size, self.allowance.size)
        begin = len(self._kept) - self._again
        content = self._kept[begin:][: size if size >= 0 else None]
        self._again -= len(content)
        if len(content) < size or size < 0:
            more = self._file.read(size - len(content) if size >= 0 else -1)
            if self.compressed:
                self.allowance.take(len(more))
                self._kept = (self._kept + more)[-_KEPT_BYTES:]
            content += more
        self._position += len(content)
        return content


class TarShard(StreamShard):
    """The images of a tar archive, perhaps compressed by gzip, bzip2, xz or Zstandard.

    A member is an image if it is called so, or begins so. Links lead to the member that they
    name. Archives that were written one behind the other are read as one. Other members
    (`.json`, `.txt`, `.cls`) are passed over and counted, hidden ones passed over.
    """

    def _damage(self) -> tuple[type[Exception], ...]:
        return _TAR_DAMAGE

    @contextmanager
    def opened(self, *, unbounded: bool = False) -> Iterator[_BoundedFile]:
        """Open the archive, decompressed by what its content says."""
        with ExitStack() as opened:
            raw = opened.enter_context(self.location.open())
            size = size_of(raw)
            head = raw.read(8)
            raw.seek(0)
            limits = replace(self.limits, max_archive_bytes=2**62) if unbounded else self.limits
            allowance = Allowance(limits, size)
            openers = (opener for magic, opener in _COMPRESSIONS.items() if head.startswith(magic))
            opener = next(openers, None)
            file = raw if opener is None else opened.enter_context(opener(raw))
            yield _BoundedFile(file, allowance, compressed=opener is not None)

    def _check_content(self, file: _BoundedFile) -> None:
        """Refuse a compressed file of another kind, such as a single picture or table."""
        head = file.read(tarfile.BLOCKSIZE)
        file.seek(0)
        if any(head) and not _is_tar(head):
            what = "what is compressed in it is no tar archive"
            raise refusal("not_image", self.name, what, "Unpack it first")

    def _read(self, start: int, skipped: Skipped) -> Iterator[ImageSource]:
        position = 0
        with self.opened() as file, _Targets(self) as targets:
            if file.compressed:
                self._check_content(file)
            for archive, member in _members(file):
                if _is_hidden(member.name) or member.isdir():
                    continue
                if member.issparse():
                    # Its holes are bytes that the file does not have.
                    file.allowance.take(min(member.size, self.limits.max_bytes))
                image = self._image(
                    archive, member, targets, file.allowance, wanted=position >= start
                )
                if image is None and member.isreg() and self._is_text(member.name, member.size):
                    content = archive.extractfile(member)
                    text = b"" if content is None else content.read()
                    image = TextMember(self._shown(member.name), text)
                if image is None:
                    skipped.add(self._shown(member.name))
                    continue
                position += 1
                if position > start:
                    yield image

    def _image(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        targets: _Targets,
        allowance: Allowance,
        *,
        wanted: bool,
    ) -> ImageSource | None:
        """Return the image that a member is; None for other members."""
        path = self._shown(member.name)
        # Members of a type that is unknown are files, says POSIX.
        if not member.isreg() and member.type in tarfile.SUPPORTED_TYPES:
            is_named = looks_like_image(member.name)
            if member.islnk() or member.issym():
                image = targets.image(member, path, allowance)
                return image if is_named or _is_image(image) else None
            if not is_named:
                return None
            what = "it is a pipe or a device in its archive"
            return UnreadableImage.of(path, refusal("unreadable", path, what, "Leave it out"))
        stream = archive.extractfile(member)
        if stream is None:
            return None
        head = b""
        if not looks_like_image(member.name):
            head = stream.read(_HEAD_BYTES)
            if not is_image_content(head):
                return None
        if not wanted:
            return InMemoryImage(path, b"")
        try:
            check_size(member.size, self.limits, path)
        except ImageError as error:
            return UnreadableImage.of(path, error)
        return InMemoryImage(path, head + stream.read())


def _members(file: _BoundedFile) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of an archive, and of those written behind it in the same file."""
    while True:
        file.header_left = _HEADER_BYTES
        with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r:") as archive:
            before = -1
            while (member := archive.next()) is not None:
                file.header_left = None
                if archive.offset <= before:
                    raise tarfile.ReadError("a header is damaged")
                before = archive.offset
                file.allowance.take_member()
                shared = archive.pax_headers
                if len(shared) > _MOST_SHARED or sum(map(len, shared.values())) > _HEADER_BYTES:
                    raise ExpansionError("what describes all its members is too long")
                # Otherwise the archive remembers every member that it has seen.
                archive.members = []  # type: ignore[attr-defined]
                yield archive, member
                file.header_left = _HEADER_BYTES
            end = archive.offset
        file.header_left = None
        # tarfile takes a damaged header, or the end of the file, for the end of the archive.
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if block != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("a header is damaged" if block else "its end is missing")
        while block and not any(block):
            block = file.read(tarfile.BLOCKSIZE)
        if not block:
            return
        file.seek(-len(block), os.SEEK_CUR)


class _Targets:
    """What links in a tar archive lead to; the archive is listed at the first link.

    Parameters
    ----------
    shard
        The archive, which is opened a second time.
    """

    def __init__(self, shard: TarShard) -> None:
        self._shard = shard
        self._opened = ExitStack()
        self._file: _BoundedFile | None = None
        # Of each member: where its content begins and its size, or the name that it links to.
        self._contents: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}

    def __enter__(self) -> _Targets:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def image(self, link: tarfile.TarInfo, path: str, allowance: Allowance) -> ImageSource:
        """Return the image that a link leads to, or an error; its bytes are counted once more."""
        if self._file is None:
            self._list()
        name = posixpath.normpath(link.name)
        for _ in range(_MOST_LINKS):
            if name in self._contents:
                break
            name = self._links.get(name, "")
        if name not in self._contents or self._file is None:
            return _no_target(path)
        begin, size = self._contents[name]
        try:
            check_size(size, self._shard.limits, path)
        except ImageError as error:
            return UnreadableImage.of(path, error)
        allowance.take(size)
        self._file.seek(begin)
        return InMemoryImage(path, self._file.read(size))

    def _list(self) -> None:
        # What is behind damage cannot be a target; the damage itself is a row elsewhere.
        n_left = _NAME_BYTES
        with suppress(ExpansionError, *_TAR_DAMAGE), self._shard.opened() as file:
            for _, member in _members(file):
                name = posixpath.normpath(member.name)
                n_left -= len(name) + len(member.linkname)
                if n_left < 0:
                    break
                if member.isreg():
                    self._contents[name] = (member.offset_data, member.size)
                    self._links.pop(name, None)
                elif member.islnk():
                    self._links[name] = posixpath.normpath(member.linkname)
                elif member.issym():
                    self._links[name] = _target(member.name, member.linkname)
        self._file = self._opened.enter_context(self._shard.opened(unbounded=True))


class ZipShard(StreamShard):
    """The images of a zip archive, in the order of its directory.

    A member is an image if it is called so, or begins so. What cannot be read of one member
    (encryption, a compression that Python lacks, a wrong checksum) is the error of that image.
    """

    def _damage(self) -> tuple[type[Exception], ...]:
        return (zipfile.BadZipFile, NotImplementedError, *_DAMAGE)

    def _read(self, start: int, skipped: Skipped) -> Iterator[ImageSource]:
        position = 0
        with self._opened() as (archive, allowance):
            for member in archive.infolist():
                if member.is_dir() or _is_hidden(member.filename):
                    continue
                if member.compress_type not in _STREAMED:
                    allowance.take(_KEPT_BYTES)
                target = self._follow(archive, member)
                is_image = looks_like_image(member.filename)
                if not is_image and target is not None:
                    head = self._content(archive, target, _HEAD_BYTES)
                    # What cannot be read may be an image.
                    is_image = not isinstance(head, bytes) or is_image_content(head)
                text = None
                if not is_image and target is not None:
                    size = target.file_size
                    is_text = self._is_text(member.filename, size)
                    text = self._content(archive, target, size) if is_text else None
                if not is_image and not isinstance(text, bytes):
                    skipped.add(self._shown(member.filename))
                    continue
                position += 1
                if target is not None and target.file_size <= self.limits.max_bytes:
                    # Also where it is not wanted, so that every run ends at the same one.
                    allowance.take(target.file_size)
                if position > start:
                    path = self._shown(member.filename)
                    if isinstance(text, bytes):
                        yield TextMember(path, text)
                        continue
                    yield _no_target(path) if target is None else self._image(archive, target, path)

    @contextmanager
    def _opened(self) -> Iterator[tuple[zipfile.ZipFile, Allowance]]:
        with self.location.open() as file:
            allowance = Allowance(self.limits, size_of(file))
            bounded = _BoundedFile(file, allowance)
            # The directory is read whole, and each member in it is an object.
            bounded.header_left = _HEADER_BYTES + _DIRECTORY_BYTES * self.limits.max_archive_members
            try:
                archive = zipfile.ZipFile(cast("IO[bytes]", bounded))
            except ExpansionError:
                allowance.check_members(sys.maxsize)
                raise
            bounded.header_left = None
            with archive:
                allowance.check_members(len(archive.filelist))
                yield archive, allowance

    def _follow(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> zipfile.ZipInfo | None:
        """Return the member that a link leads to, or the member itself; None if there is none."""
        for _ in range(_MOST_LINKS):
            if not stat.S_ISLNK(member.external_attr >> 16):
                return member
            link = self._content(archive, member, 4096)
            name = _target(member.filename, os.fsdecode(link)) if isinstance(link, bytes) else ""
            if name not in archive.NameToInfo:
                break
            member = archive.NameToInfo[name]
        return None

    def _image(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> ImageSource:
        try:
            check_size(member.file_size, self.limits, path)
        except ImageError as error:
            return UnreadableImage.of(path, error)
        content = self._content(archive, member, member.file_size)
        if isinstance(content, bytes):
            return InMemoryImage(path, content)
        return UnreadableImage.of(path, refusal(*content[:1], path, *content[1:]))

    def _content(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int
    ) -> bytes | tuple[str, str, str]:
        """Return the first bytes of a member; or the kind of its error, what, and the remedy."""
        if member.flag_bits & 1:
            return "unreadable", "it is encrypted in its archive", "Unpack the archive first"
        try:
            if member.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
                return _expand(archive, member, size)
            with archive.open(member) as stream:
                return stream.read(size)
        except NotImplementedError:
            what = "it is compressed in a way that cannot be read"
            return "unsupported", what, "Unpack the archive first"
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            what = f"its archive is damaged there ({describe_exception(error)})"
            return "damaged", what, "Copy the archive again from its source"


def _expand(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> bytes:
    """Return the first bytes of a member that zipfile would expand piece by piece of its input."""
    raw = copy(member)
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, member.compress_size
    raw.CRC = cast("int", None)
    content = bytearray()
    with archive.open(raw) as stream:
        decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor = bz2.BZ2Decompressor()
        head = b""
        if member.compress_type == zipfile.ZIP_LZMA:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=2**30)
            # Without the version, and with an unknown size.
            head = stream.read(9)[4:] + b"\xff" * 8
        while len(content) < size and not decompressor.eof:
            piece = head + stream.read(2**16) if decompressor.needs_input else b""
            if decompressor.needs_input and not piece:
                break
            content += decompressor.decompress(piece, size - len(content))
            head = b""
    if len(content) == member.file_size and zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile("its checksum is another")
    return bytes(content)
