"""Images inside one large file: tar archives, as WebDataset's shards are, zip and Parquet files."""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
import lzma
import os
import posixpath
import re
import stat
import struct
import sys
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from types import ModuleType
from typing import IO, Any, cast

from trustvlm.environment import require
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, describe_exception, refusal
from trustvlm.images.formats import is_image_content, looks_like_image
from trustvlm.images.references import (
    LASTING,
    N_RETRIES,
    ImageSource,
    InMemoryImage,
    LabelledImage,
    Location,
    Skipped,
    UnreadableImage,
    check_size,
    images_beside,
    is_system_folder,
    read_error,
    read_probability,
    shown,
    wait_to_retry,
)


@dataclass(frozen=True)
class BrokenShard(UnreadableImage):
    """Stands for all further images of a shard that cannot be read any more."""


@dataclass(frozen=True)
class StreamShard(ABC):
    """The images inside one file, such as an archive, read in a single pass.

    What is wrong with the file itself becomes the error of one more image (`BrokenShard`), after
    those that could be read.

    Parameters
    ----------
    name
        What the user calls the file.
    location
        Where it is.
    prefix
        Put before the name of each image, with a slash.
    skipped
        Counts the members passed over, once all are read; None counts none.
    limits
        Bounds on each image, and on what the file may expand to.
    """

    name: str
    location: Location
    prefix: str = ""
    skipped: Skipped | None = field(default=None, kw_only=True, compare=False, repr=False)
    limits: Limits = field(default=DEFAULT_LIMITS, kw_only=True, repr=False)

    @property
    def length(self) -> None:
        """None: only reading tells."""
        return

    def stamp(self) -> str:
        """Tell this file from another by its size and date, or say why that cannot be done."""
        try:
            return self.location.stamp()
        except OSError as error:
            return type(error).__name__

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        """Yield the images from a position on, prefetched by a thread."""
        return prefetch(self._read_with_retry(start))

    def _read_with_retry(self, position: int) -> Iterator[ImageSource]:
        """Read; where that fails, begin again at that position, three times in all.

        What cannot be read even then becomes one `BrokenShard`: an error in the output, and the
        images before it are kept.
        """
        failures = 0
        while True:
            # Every attempt passes over the same members again.
            skipped = Skipped()
            try:
                for image in self._read(position, skipped):
                    yield image
                    position, failures = position + 1, 0
                self._count(skipped)
                return
            except _ExpansionError as error:
                self._count(skipped)
                what = f"nothing after its first {position} images is read, because {error}"
                remedy = f"Unpack it yourself, or allow more with {error.option}"
                yield BrokenShard.of(self.name, refusal("too_large", self.name, what, remedy))
                return
            except self._damage() as error:
                failures += 1
                lasting = isinstance(error, LASTING)
                if lasting or failures > N_RETRIES:
                    reason = describe_exception(error)
                    what = f"nothing after its first {position} images can be read ({reason})"
                    failure = (
                        read_error(error, self.name)
                        if lasting
                        else refusal("damaged", self.name, what, "Copy it again from its source")
                    )
                    self._count(skipped)
                    yield BrokenShard.of(self.name, failure)
                    return
            if self.location.is_url:
                wait_to_retry(failures)

    def _count(self, skipped: Skipped) -> None:
        if self.skipped is not None:
            self.skipped.merge(skipped)

    @abstractmethod
    def _read(self, start: int, skipped: Skipped) -> Iterator[ImageSource]:
        """Yield the images from a position on; count the members that are none."""

    @abstractmethod
    def _damage(self) -> tuple[type[Exception], ...]:
        """Return the errors that mean that the content or the connection is at fault."""

    def _shown(self, name: str) -> str:
        return shown(f"{self.prefix}/{name}" if self.prefix else name)


# A stream is prefetched for its consumer, so that neither waits for the other.

_N_AHEAD, _BYTES_AHEAD = 256, 64 * 2**20


@dataclass
class _Buffer:
    """What was read and not yet taken; every access holds `changed`."""

    images: deque[ImageSource] = field(default_factory=deque)
    n_bytes: int = 0
    ended: bool = False
    abandoned: bool = False
    failure: BaseException | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)


def prefetch(
    images: Iterator[ImageSource], *, n_images: int = _N_AHEAD, n_bytes: int = _BYTES_AHEAD
) -> Iterator[ImageSource]:
    """Yield the same images in the same order, read by a thread that runs ahead.

    Parameters
    ----------
    images
        Where they come from; what it raises is raised here, after the images before it.
    n_images, n_bytes
        How far ahead; one image is always read, however large.

    Examples
    --------
    >>> images = (InMemoryImage(name, b"") for name in "abc")
    >>> [image.path for image in prefetch(images)]
    ['a', 'b', 'c']
    """
    buffer = _Buffer()
    thread = threading.Thread(
        target=_fill,
        args=(buffer, images, n_images, n_bytes),
        name="trustvlm-read",
        # A read from a network may hang; the program must be able to end.
        daemon=True,
    )
    thread.start()
    try:
        while True:
            with buffer.changed:
                buffer.changed.wait_for(lambda: buffer.images or buffer.ended)
                if not buffer.images:
                    break
                image = buffer.images.popleft()
                buffer.n_bytes -= _size(image)
                buffer.changed.notify_all()
            yield image
        if buffer.failure is not None:
            raise buffer.failure
    finally:
        with buffer.changed:
            buffer.abandoned = True
            buffer.changed.notify_all()


def _fill(buffer: _Buffer, images: Iterator[ImageSource], n_images: int, n_bytes: int) -> None:
    def has_room(size: int) -> bool:
        few = len(buffer.images) < n_images and buffer.n_bytes + size <= n_bytes
        return few or not buffer.images or buffer.abandoned

    try:
        for image in images:
            size = _size(image)
            with buffer.changed:
                buffer.changed.wait_for(lambda size=size: has_room(size))  # type: ignore[misc]
                if buffer.abandoned:
                    return
                buffer.images.append(image)
                buffer.n_bytes += size
                buffer.changed.notify_all()
    except BaseException as error:
        buffer.failure = error
    finally:
        with buffer.changed:
            buffer.ended = True
            buffer.changed.notify_all()


def _size(image: ImageSource) -> int:
    return len(image.content) if isinstance(image, InMemoryImage) else 0


# Archives and Parquet files.


def _open_zstandard(raw: IO[bytes]) -> Any:
    for module in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(module).open(raw)
    raise tarfile.ReadError(
        "it is compressed by Zstandard, for which Python below 3.14 needs pip install "
        "'trustvlm[zstd]'"
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
# Rows of a Parquet file that are in memory at once.
_ROWS = 64


def begins_as_archive(location: Location) -> bool:
    """Whether a file on this machine begins as an archive, whatever it is called."""
    head = _head(location)
    is_compressed = head.startswith((*_ZIP, *_COMPRESSIONS))
    return is_compressed or head[257:262] == b"ustar"


def archive_shard(
    name: str,
    location: Location,
    prefix: str = "",
    skipped: Skipped | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> StreamShard:
    """Return the images of an archive: what it is its content says, of a URL its name."""
    is_zip = location.suffix == ".zip"
    if not location.is_url:
        head = _head(location)
        is_zip = head.startswith(_ZIP) if head else is_zip
    kind = ZipShard if is_zip else TarShard
    return kind(name, location, prefix, skipped=skipped, limits=limits)


def _head(location: Location) -> bytes:
    try:
        with location.open() as file:
            return file.read(_HEAD_BYTES * 2)
    except OSError:
        return b""


def _is_hidden(name: str) -> bool:
    parts = [part for part in PurePosixPath(name).parts if part not in (".", "..")]
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


# A few kilobytes can expand to terabytes: by compression, by holes in sparse members, by links and
# by overlapping members. So what is expanded is counted, and so are the members.

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


class _ExpansionError(Exception):
    """An archive goes beyond a limit; `option` raises it."""

    def __init__(self, what: str, option: str = "--max-archive-bytes") -> None:
        super().__init__(what)
        self.option = option


@dataclass
class _Allowance:
    """What may be expanded of an archive of a size, and what has been."""

    limits: Limits
    size: int
    n_bytes: int = 0
    n_members: int = 0

    def take(self, n_bytes: int) -> None:
        """Count some bytes."""
        self.n_bytes += n_bytes
        most = self.limits.archive_bytes(self.size)
        if self.n_bytes > most:
            raise _ExpansionError(f"it expands to more than {most:,} bytes")

    def take_member(self) -> None:
        """Count a member."""
        self.n_members += 1
        self.check_members(self.n_members)

    def check_members(self, n_members: int) -> None:
        """Refuse too many members."""
        most = self.limits.max_archive_members
        if n_members > most:
            raise _ExpansionError(f"it has more than {most:,} members", "--max-archive-members")


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

    def __init__(self, file: IO[bytes], allowance: _Allowance, *, compressed: bool = False) -> None:
        self._file = file
        self.allowance = allowance
        self._compressed = compressed
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
            raise _ExpansionError(f"what describes a member has more than {left:,} bytes")
        if size > tarfile.BLOCKSIZE and _MANY_DIGITS.search(content):
            raise tarfile.ReadError("a header is damaged")
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        if whence == os.SEEK_CUR:
            offset += self._position
        if not self._compressed:
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
        if not self._compressed:
            # Memory for as much as is asked for would be set aside.
            size = min(size, self.allowance.size)
        begin = len(self._kept) - self._again
        content = self._kept[begin:][: size if size >= 0 else None]
        self._again -= len(content)
        if len(content) < size or size < 0:
            more = self._file.read(size - len(content) if size >= 0 else -1)
            if self._compressed:
                self.allowance.take(len(more))
                self._kept = (self._kept + more)[-_KEPT_BYTES:]
            content += more
        self._position += len(content)
        return content


def _size_of(file: IO[bytes]) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


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
            size = _size_of(raw)
            head = raw.read(8)
            raw.seek(0)
            limits = replace(self.limits, max_archive_bytes=2**62) if unbounded else self.limits
            allowance = _Allowance(limits, size)
            openers = (opener for magic, opener in _COMPRESSIONS.items() if head.startswith(magic))
            opener = next(openers, None)
            file = raw if opener is None else opened.enter_context(opener(raw))
            yield _BoundedFile(file, allowance, compressed=opener is not None)

    def _read(self, start: int, skipped: Skipped) -> Iterator[ImageSource]:
        position = 0
        with self.opened() as file, _Targets(self) as targets:
            for archive, member in _members(file):
                if _is_hidden(member.name) or member.isdir():
                    continue
                if member.issparse():
                    # Its holes are bytes that the file does not have.
                    file.allowance.take(min(member.size, self.limits.max_bytes))
                image = self._image(
                    archive, member, targets, file.allowance, wanted=position >= start
                )
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
        allowance: _Allowance,
        *,
        wanted: bool,
    ) -> ImageSource | None:
        """Return the image that a member is; None for other members."""
        path = self._shown(member.name)
        if not member.isreg():
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
                    raise _ExpansionError("what describes all its members is too long")
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

    def image(self, link: tarfile.TarInfo, path: str, allowance: _Allowance) -> ImageSource:
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
        with suppress(_ExpansionError, *_TAR_DAMAGE), self._shard.opened() as file:
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
                    is_image = isinstance(head, bytes) and is_image_content(head)
                if not is_image:
                    skipped.add(self._shown(member.filename))
                    continue
                position += 1
                if target is not None and target.file_size <= self.limits.max_bytes:
                    # Also where it is not wanted, so that every run ends at the same one.
                    allowance.take(target.file_size)
                if position > start:
                    path = self._shown(member.filename)
                    yield _no_target(path) if target is None else self._image(archive, target, path)

    @contextmanager
    def _opened(self) -> Iterator[tuple[zipfile.ZipFile, _Allowance]]:
        with self.location.open() as file:
            allowance = _Allowance(self.limits, _size_of(file))
            bounded = _BoundedFile(file, allowance)
            # The directory is read whole, and each member in it is an object.
            bounded.header_left = _HEADER_BYTES + _DIRECTORY_BYTES * self.limits.max_archive_members
            try:
                archive = zipfile.ZipFile(cast("IO[bytes]", bounded))
            except _ExpansionError:
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
            # Without the version, and with a size that is not known.
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


@dataclass(frozen=True)
class ParquetShard(StreamShard):
    """The images of a Parquet file, one a row.

    Parameters
    ----------
    path_column
        Text: what an image is called; where no column holds bytes, the paths or URLs of images,
        relative to the file. Without it an image is called `<name>#<row>`, and where rows with
        bytes share a name, each of them `<path>#<row>`.
    image_column
        Bytes, or a struct with `bytes` and `path` as Hugging Face's data sets have, of which one
        may be null, or paths; None takes the only column of the first two kinds. `InputError` if
        there is no column of images, or several, or it holds something else, such as lists.
    label_column
        Texts or numbers, for `labelled`; numbers stand for the names that Hugging Face's data sets
        give them, if there are any.
    confidence_column
        Probabilities that came with the labels; the column may be missing, and cells be null.
    """

    path_column: str = "path"
    image_column: str | None = None
    label_column: str | None = None
    confidence_column: str | None = None

    def _damage(self) -> tuple[type[Exception], ...]:
        return (OSError, _pyarrow().ArrowException)

    def _read(self, start: int, skipped: Skipped) -> Iterator[ImageSource]:  # noqa: ARG002
        parquet = _pyarrow("pyarrow.parquet")
        with ExitStack() as opened:
            stream = opened.enter_context(self.location.open())
            file = opened.enter_context(parquet.ParquetFile(stream))
            column = self._column(file.schema_arrow)
            wanted = {column, self.path_column, self.label_column, self.confidence_column}
            names = [name for name in file.schema_arrow.names if name in wanted]
            label_of = self._label_of(file.schema_arrow)
            repeated = self._repeated_names(file, column)
            row, groups = _from_row(start, file.metadata)
            allowance = _Allowance(self.limits, _size_of(stream))
            batches = file.iter_batches(_ROWS, row_groups=groups, columns=names)
            for batch in batches if groups else ():
                for cells in batch.to_pylist():
                    if row >= start:
                        image = self._image(cells, column, row, repeated)
                        allowance.take(_size(image))
                        if label_of is not None:
                            p = read_probability(cells.get(self.confidence_column), image.path)
                            image = LabelledImage(image, label_of(cells, image.path), p)
                        yield image
                    row += 1

    def labelled(self) -> Iterator[LabelledImage]:
        """Yield all images with their labels.

        Raises
        ------
        InputError
            If there is no such column, a row has no label, or the file cannot be read.
        """
        for image in self.images():
            if isinstance(image, LabelledImage):
                yield image
            elif isinstance(image, UnreadableImage):  # the end of a file that is damaged
                raise InputError(image.message)

    def _label_of(self, schema: Any) -> Callable[[Mapping[str, Any], str], str] | None:
        """Return what makes the label of a row and its name; None where none is asked for."""
        column = self.label_column
        if column is None:
            return None
        if column not in schema.names:
            raise InputError(
                f"Expected {self.name!r} to have a column {column!r}, but its columns are "
                f"{', '.join(map(repr, schema.names))}. Say which to use (--label-column)."
            )
        names = _class_names(schema, column)

        def label_of(cells: Mapping[str, Any], path: str) -> str:
            value = cells[column]
            if names and isinstance(value, int) and 0 <= value < len(names):
                return names[value]
            is_label = isinstance(value, str) or (isinstance(value, int) and not names)
            if not is_label or isinstance(value, bool) or not str(value).strip():
                raise InputError(
                    f"Expected a label in every row of {column!r} of {self.name!r}, but got "
                    f"{value!r} for {path!r}. Leave such rows out, or name another column "
                    "(--label-column)."
                )
            return str(value).strip()

        return label_of

    def _column(self, schema: Any) -> str:
        """Return the name of the column of images."""
        columns = [field.name for field in schema if _holds_images(field.type)]
        if self.image_column is not None and self.image_column in schema.names:
            kind = schema.field(self.image_column).type
            if self.image_column not in columns and not _holds_text(kind):
                raise InputError(
                    f"Expected the column {self.image_column!r} of {self.name!r} to hold the bytes "
                    f"or the path of one image in each row, but it holds {kind}. Write a row for "
                    "each image, or name another column (--image-column)."
                )
            return self.image_column
        if len(columns) == 1 and self.image_column is None:
            return str(columns[0])
        if self.path_column in schema.names and self.image_column is None and not columns:
            return self.path_column
        nested = _pyarrow().types.is_nested
        listed = (f"{f.name!r}{f' ({f.type})' if nested(f.type) else ''}" for f in schema)
        raise InputError(
            f"Expected {self.name!r} to have one column with the bytes of images or a column "
            f"{self.image_column or self.path_column!r}, but its columns are "
            f"{', '.join(listed)}. Say which to use (--image-column)."
        )

    def _name_of(self, cells: Mapping[str, Any], column: str) -> str:
        """Return what a row calls its image; "" for nothing."""
        value = cells.get(column)
        named = cells.get(self.path_column)
        if not named and isinstance(value, Mapping):
            named = value.get("path")
        return str(named) if named else ""

    def _repeated_names(self, file: Any, column: str) -> set[str]:
        """Return the names that several rows with bytes have; the bytes are not read."""
        fields = file.schema_arrow
        if _holds_text(fields.field(column).type):
            return set()
        wanted = {self.path_column} & set(fields.names)
        if _is_struct_with(fields.field(column).type, "path", _holds_text):
            wanted.add(f"{column}.path")
        seen: set[str] = set()
        repeated: set[str] = set()
        for group in range(file.metadata.num_row_groups) if wanted else ():
            # What is damaged becomes an error when its images are read.
            with suppress(*self._damage()):
                rows = file.read_row_group(group, columns=sorted(wanted)).to_pylist()
                for name in (self._name_of(cells, column) for cells in rows):
                    (repeated if name in seen else seen).add(name)
        return repeated

    def _image(
        self, cells: Mapping[str, Any], column: str, row: int, repeated: set[str]
    ) -> ImageSource:
        value = cells[column]
        named = self._name_of(cells, column)
        if isinstance(value, str):
            return images_beside(self.location)(value)
        if isinstance(value, Mapping):
            stored, value = value.get("path"), value.get("bytes")
            if value is None and stored:
                # Data sets of Hugging Face hold the bytes of an image, or where it is.
                image = images_beside(self.location)(str(stored))
                return replace(image, path=self._shown(named))
        if repeated and (named in repeated or _ROW.search(named)):
            named = f"{named}#{row}"
        path = self._shown(named) if named else f"{self.name}#{row}"
        if not isinstance(value, bytes):
            empty = refusal("empty", path, "the cell is empty", "Leave the row out")
            return UnreadableImage.of(path, empty)
        return InMemoryImage(path, value)


# How a name ends that was given to one of several rows with the same path.
_ROW = re.compile(r"#\d+$")


def _holds_text(kind: Any) -> bool:
    types = _pyarrow().types
    if types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _holds_bytes(kind: Any) -> bool:
    types = _pyarrow().types
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _holds_images(kind: Any) -> bool:
    """Whether a column holds bytes, or structs of bytes or a path."""
    if _is_struct_with(kind, "bytes", _holds_bytes):
        return True
    return _holds_bytes(kind) or _is_struct_with(kind, "path", _holds_text)


def _is_struct_with(kind: Any, name: str, holds: Callable[[Any], bool]) -> bool:
    types = _pyarrow().types
    if not types.is_struct(kind):
        return False
    position = kind.get_field_index(name)
    return position >= 0 and holds(kind.field(position).type)


def _class_names(schema: Any, column: str) -> list[str]:
    """Return the names of numbered classes, as Hugging Face's data sets store them; [] for none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _from_row(start: int, metadata: Any) -> tuple[int, list[int]]:
    """Return the groups that hold the rows from `start` on, and the first row of these."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    first = 0
    for group, size in enumerate(sizes):
        if first + size > start:
            return first, list(range(group, len(sizes)))
        first += size
    return first, []


def _pyarrow(module: str = "pyarrow") -> ModuleType:
    return require(module, extra="parquet", purpose="Reading Parquet files")
