"""The pieces that a large input is made of, each of them read from any position on."""

from __future__ import annotations

import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from trustvlm.images.errors import refusal
from trustvlm.images.references import ImageSource, InMemoryImage, UnreadableImage, shown
from trustvlm.images.remote import Location

_RETRIES, _FIRST_WAIT = 2, 0.2


class ImageShard(Protocol):
    """Some images in a fixed order; small enough to travel between processes.

    The order must not change: a position, with the name of the shard, stands for an image.
    """

    @property
    def name(self) -> str:
        """What the user calls the input that this is a piece of."""
        ...

    @property
    def length(self) -> int | None:
        """How many images there are; None where only reading tells."""
        ...

    def stamp(self) -> str:
        """Return what tells this input from another, without reading images."""
        ...

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        """Yield the images from a position on."""
        ...


@dataclass(frozen=True)
class FileShard:
    """Some images that are files of their own.

    Examples
    --------
    >>> from pathlib import Path
    >>> from trustvlm.images import ImageRef
    >>> shard = FileShard("photos", (ImageRef("a.jpg", Path("a.jpg")),))
    >>> [image.path for image in shard.images()], shard.stamp()[:8]
    (['a.jpg'], '509b0d46')
    """

    name: str
    refs: tuple[ImageSource, ...]

    @property
    def length(self) -> int:
        """How many images there are."""
        return len(self.refs)

    def stamp(self) -> str:
        """Hash the names; the content of the files is not looked at."""
        names = "\n".join(ref.path for ref in self.refs)
        return hashlib.sha256(names.encode()).hexdigest()

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        """Yield the images from a position on."""
        return iter(self.refs[start:])


@dataclass(frozen=True)
class BrokenShard(UnreadableImage):
    """Stands in place of all further images of a shard that cannot be read any more."""


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
        """Not known without reading."""
        return

    def stamp(self) -> str:
        """Tell this file from another by its size and date, or say why that cannot be done."""
        try:
            return self.location.stamp()
        except OSError as error:
            return type(error).__name__

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        """Yield the images from a position on, read by a thread that runs ahead."""
        return prefetch(
            read_with_retry(self._read, start, self.location, self.name, self._damage())
        )

    @abstractmethod
    def _read(self, start: int) -> Iterator[ImageSource]:
        """Yield the images from a position on."""

    @abstractmethod
    def _damage(self) -> tuple[type[Exception], ...]:
        """Return the errors that mean that the content or the connection is at fault."""

    def _shown(self, name: str) -> str:
        return shown(f"{self.prefix}/{name}" if self.prefix else name)


def read_with_retry(
    read: Callable[[int], Iterator[ImageSource]],
    start: int,
    location: Location,
    name: str,
    damage: tuple[type[Exception], ...],
) -> Iterator[ImageSource]:
    """Yield what `read` yields; where it fails, begin again at that position, three times in all.

    What cannot be read even then becomes one `BrokenShard`: an error in the output, and the images
    before it are kept.

    Parameters
    ----------
    read
        Yields images from a position on.
    start
        The first position.
    location, name
        Of the archive or table, for waiting and for the message.
    damage
        Errors that mean that the content or the connection is at fault.
    """
    position, failures = start, 0
    while True:
        try:
            for image in read(position):
                yield image
                position, failures = position + 1, 0
            return
        except damage as error:
            failures += 1
            if failures > _RETRIES or isinstance(error, (FileNotFoundError, PermissionError)):
                yield _broken(name, error, position)
                return
        if location.is_url:
            time.sleep(_FIRST_WAIT * 2 ** (failures - 1))


def _broken(name: str, error: Exception, n_images: int) -> BrokenShard:
    if isinstance(error, FileNotFoundError):
        failure = refusal("missing", name, "there is no such file", "Check the path")
    elif isinstance(error, PermissionError):
        failure = refusal("permission", name, "the file may not be read", "Allow yourself to")
    else:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        what = f"nothing after its first {n_images} images can be read ({reason})"
        failure = refusal("damaged", name, what, "Copy it again from its source")
    return BrokenShard(name, failure.kind, str(failure))


# A stream is read a little ahead of its consumer, so that neither waits for the other.

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
