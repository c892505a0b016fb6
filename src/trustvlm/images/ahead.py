"""Read a stream a little ahead of whoever takes from it, so that neither waits for the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from trustvlm.images.references import ImageSource, InMemoryImage

__all__ = ["read_ahead"]

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
