"""The pieces that a large input is made of, each of them read from any position on."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from trustvlm.images.errors import refusal
from trustvlm.images.references import ImageSource, InMemoryImage, UnreadableImage
from trustvlm.images.remote import Location, is_url

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


def read_patiently(
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
        if is_url(location.text):
            time.sleep(_FIRST_WAIT * 2 ** (failures - 1))


def stamp_of(location: Location) -> str:
    """Return the stamp of a file, or why there is none."""
    try:
        return location.stamp()
    except OSError as error:
        return type(error).__name__


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


# Read a stream a little ahead of whoever takes from it, so that neither waits for the other.

_IMAGES, _BYTES = 256, 64 * 2**20


@dataclass
class _Shelf:
    """What was read and not yet taken; every access holds `changed`."""

    images: deque[ImageSource] = field(default_factory=deque)
    n_bytes: int = 0
    ended: bool = False
    abandoned: bool = False
    failure: BaseException | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)


def read_ahead(
    images: Iterator[ImageSource], *, n_images: int = _IMAGES, n_bytes: int = _BYTES
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
    >>> [image.path for image in read_ahead(images)]
    ['a', 'b', 'c']
    """
    shelf = _Shelf()
    thread = threading.Thread(
        target=_fill,
        args=(shelf, images, n_images, n_bytes),
        name="trustvlm-read",
        # A read from a network may hang; the program must be able to end.
        daemon=True,
    )
    thread.start()
    try:
        while True:
            with shelf.changed:
                shelf.changed.wait_for(lambda: shelf.images or shelf.ended)
                if not shelf.images:
                    break
                image = shelf.images.popleft()
                shelf.n_bytes -= _size(image)
                shelf.changed.notify_all()
            yield image
        if shelf.failure is not None:
            raise shelf.failure
    finally:
        with shelf.changed:
            shelf.abandoned = True
            shelf.changed.notify_all()


def _fill(shelf: _Shelf, images: Iterator[ImageSource], n_images: int, n_bytes: int) -> None:
    def has_room(size: int) -> bool:
        few = len(shelf.images) < n_images and shelf.n_bytes + size <= n_bytes
        return few or not shelf.images or shelf.abandoned

    try:
        for image in images:
            size = _size(image)
            with shelf.changed:
                shelf.changed.wait_for(lambda size=size: has_room(size))  # type: ignore[misc]
                if shelf.abandoned:
                    return
                shelf.images.append(image)
                shelf.n_bytes += size
                shelf.changed.notify_all()
    except BaseException as error:
        shelf.failure = error
    finally:
        with shelf.changed:
            shelf.ended = True
            shelf.changed.notify_all()


def _size(image: ImageSource) -> int:
    return len(image.content) if isinstance(image, InMemoryImage) else 0
