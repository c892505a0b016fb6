"""Images inside one large file: tar archives, as WebDataset's shards are, and Parquet files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import threading
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from types import ModuleType
from typing import IO, Any

from trustvlm.environment import require
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images.errors import DEFAULT_LIMITS, describe_exception, refusal
from trustvlm.images.formats import looks_like_image
from trustvlm.images.references import (
    LASTING,
    N_RETRIES,
    ImageSource,
    InMemoryImage,
    Location,
    UnreadableImage,
    check_size,
    images_beside,
    read_error,
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
    """

    name: str
    location: Location
    prefix: str = ""

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
            try:
                for image in self._read(position):
                    yield image
                    position, failures = position + 1, 0
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
                    yield BrokenShard(self.name, failure.kind, str(failure))
                    return
            if self.location.is_url:
                wait_to_retry(failures)

    @abstractmethod
    def _read(self, start: int) -> Iterator[ImageSource]:
        """Yield the images from a position on."""

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

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
TAR_EXTENSIONS = frozenset({".tar", ".tgz", *(f".tar{ending}" for ending in _OPENERS)})
# Rows of a Parquet file that are in memory at once.
_ROWS = 64


class TarShard(StreamShard):
    """The images of a tar archive, perhaps compressed: see `TAR_EXTENSIONS`.

    Members with other extensions (`.json`, `.txt`, `.cls`) and hidden ones are passed over.
    """

    def _damage(self) -> tuple[type[Exception], ...]:
        return (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)

    def _read(self, start: int) -> Iterator[ImageSource]:
        position = 0
        with ExitStack() as opened:
            raw = opened.enter_context(self.location.open())
            suffix = self.location.suffix
            opener = _OPENERS.get(".gz" if suffix == ".tgz" else suffix.removeprefix(".tar"))
            file = raw if opener is None else opener(raw)
            archive = opened.enter_context(tarfile.open(fileobj=file, mode="r:"))
            while (member := archive.next()) is not None:
                # Otherwise the archive remembers every member that it has seen.
                archive.members = []  # type: ignore[attr-defined]
                if member.isreg() and _is_image(member.name):
                    position += 1
                    if position > start:
                        yield self._image(archive, member)
            _check_end(file, archive.offset)

    def _image(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> ImageSource:
        path = self._shown(member.name)
        try:
            check_size(member.size, DEFAULT_LIMITS, path)
        except ImageError as error:
            return UnreadableImage.of(path, error)
        stream = archive.extractfile(member)
        return InMemoryImage(path, stream.read() if stream else b"")


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return looks_like_image(name) and not any(p.startswith(".") and p != "." for p in parts)


def _check_end(file: IO[bytes], offset: int) -> None:
    # tarfile takes a damaged header, or the end of the file, for the end of the archive.
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("a header is damaged" if block else "its end is missing")


@dataclass(frozen=True)
class ParquetShard(StreamShard):
    """The images of a Parquet file, one a row.

    Parameters
    ----------
    path_column
        Text: what an image is called; where no column holds bytes, the paths or URLs of images,
        relative to the file. Without it an image is called `<name>#<row>`.
    image_column
        Bytes, or a struct with `bytes` and `path` as Hugging Face's data sets have; None takes
        the only such column. `InputError` if there is no column of images, or several.
    """

    path_column: str = "path"
    image_column: str | None = None

    def _damage(self) -> tuple[type[Exception], ...]:
        return (OSError, _pyarrow().ArrowException)

    def _read(self, start: int) -> Iterator[ImageSource]:
        parquet = _pyarrow("pyarrow.parquet")
        with ExitStack() as opened:
            stream = opened.enter_context(self.location.open())
            file = opened.enter_context(parquet.ParquetFile(stream))
            column = self._column(file.schema_arrow)
            names = {column, self.path_column} & set(file.schema_arrow.names)
            row, groups = _from_row(start, file.metadata)
            batches = file.iter_batches(_ROWS, row_groups=groups, columns=sorted(names))
            for batch in batches if groups else ():
                for cells in batch.to_pylist():
                    if row >= start:
                        yield self._image(cells, column, row)
                    row += 1

    def _column(self, schema: Any) -> str:
        types = _pyarrow().types

        def holds_images(kind: Any) -> bool:
            if types.is_dictionary(kind):
                return holds_images(kind.value_type)
            if types.is_struct(kind):
                position = kind.get_field_index("bytes")
                return position >= 0 and holds_images(kind.field(position).type)
            return bool(
                types.is_binary(kind)
                or types.is_large_binary(kind)
                or types.is_binary_view(kind)
                or types.is_fixed_size_binary(kind)
            )

        if self.image_column is not None and self.image_column in schema.names:
            return self.image_column
        columns = [field.name for field in schema if holds_images(field.type)]
        if len(columns) == 1 and self.image_column is None:
            return str(columns[0])
        if self.path_column in schema.names and self.image_column is None and not columns:
            return self.path_column
        raise InputError(
            f"Expected {self.name!r} to have one column with the bytes of images or a column "
            f"{self.image_column or self.path_column!r}, but its columns are "
            f"{', '.join(map(repr, schema.names))}. Say which to use (--image-column)."
        )

    def _image(self, cells: Mapping[str, Any], column: str, row: int) -> ImageSource:
        value = cells[column]
        named = cells.get(self.path_column)
        if isinstance(value, str):
            return images_beside(self.location)(value)
        if isinstance(value, Mapping):
            stored = value.get("path")
            named = named or stored
            value = value.get("bytes")
            if value is None and stored:
                # Data sets of Hugging Face hold the bytes of an image, or where it is.
                image = images_beside(self.location)(str(stored))
                return replace(image, path=self._shown(str(named)))
        path = self._shown(str(named)) if named else f"{self.name}#{row}"
        if not isinstance(value, bytes):
            empty = refusal("empty", path, "the cell is empty", "Leave the row out")
            return UnreadableImage.of(path, empty)
        return InMemoryImage(path, value)


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
