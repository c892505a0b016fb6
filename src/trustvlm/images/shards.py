"""The pieces that a large input is made of, each of them read from any position on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from trustvlm.images.kinds import refusal
from trustvlm.images.locations import Location, is_url
from trustvlm.images.references import ImageSource, UnreadableImage

__all__ = ["BrokenShard", "FileShard", "ImageShard", "read_patiently", "stamp_of"]

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
