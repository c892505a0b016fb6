"""Files that hold many images, such as archives, read in one pass, ahead and within bounds."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from trustvlm.exceptions import ImageError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, describe_exception, refusal
from trustvlm.images.locations import Location
from trustvlm.images.references import (
    LASTING,
    N_RETRIES,
    ImageSource,
    InMemoryImage,
    Skipped,
    UnreadableImage,
    read_error,
    shown,
    wait_to_retry,
)


@dataclass(frozen=True)
class BrokenShard(UnreadableImage):
    """Stands for all further images of a shard that cannot be read any more."""


@dataclass(frozen=True)
class TextMember(InMemoryImage):
    """A member of an archive that is no image, and may say what the one beside it shows."""


# Larger ones are no labels.
MOST_TEXT = 2**20


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
    texts
        Endings, in lower case, of members that are yielded, too, as `TextMember`.
    """

    name: str
    location: Location
    prefix: str = ""
    skipped: Skipped | None = field(default=None, kw_only=True, compare=False, repr=False)
    limits: Limits = field(default=DEFAULT_LIMITS, kw_only=True, repr=False)
    texts: frozenset[str] = field(default=frozenset(), kw_only=True, compare=False, repr=False)

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
            except ImageError as error:  # another kind of file
                yield BrokenShard.of(self.name, error)
                return
            except ExpansionError as error:
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

    def _is_text(self, name: str, size: int) -> bool:
        """Whether a member may hold a label."""
        base = name.rpartition("/")[2].lower()
        return size <= MOST_TEXT and base.rpartition(".")[2] in self.texts

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
                buffer.n_bytes -= image_size(image)
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
            size = image_size(image)
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


def image_size(image: ImageSource) -> int:
    """Return how many bytes an image holds in memory."""
    return len(image.content) if isinstance(image, InMemoryImage) else 0


# A few kilobytes can expand to terabytes: by compression, by holes in sparse members, by links and
# by overlapping members. So what is expanded is counted, and so are the members.


class ExpansionError(Exception):
    """An archive goes beyond a limit; `option` raises it."""

    def __init__(self, what: str, option: str = "--max-archive-bytes") -> None:
        super().__init__(what)
        self.option = option


@dataclass
class Allowance:
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
            raise ExpansionError(f"it expands to more than {most:,} bytes")

    def take_member(self) -> None:
        """Count a member."""
        self.n_members += 1
        self.check_members(self.n_members)

    def check_members(self, n_members: int) -> None:
        """Refuse too many members."""
        most = self.limits.max_archive_members
        if n_members > most:
            raise ExpansionError(f"it has more than {most:,} members", "--max-archive-members")


def size_of(file: IO[bytes]) -> int:
    """Return the size of an open file, and go to its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size
