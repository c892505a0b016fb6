"""Names for images that have not been read yet, alone, in a list, and with their classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trustvlm.exceptions import ImageError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits
from trustvlm.images.reading import check_size, read_bytes


class ImageSource(Protocol):
    """Anything with a name and bytes: a file, an upload, a URL, a member of an archive."""

    @property
    def path(self) -> str:
        """The name as the user knows it."""
        ...

    def read(self, limits: Limits = ...) -> bytes:
        """Return the encoded image or raise `ImageError`."""
        ...


@dataclass(frozen=True)
class ImageRef:
    """One image file.

    Parameters
    ----------
    path
        The name to show: relative to the source and with forward slashes where the user named a
        folder or a table, as given where the user named the file.
    file
        Where it is.
    """

    path: str
    file: Path

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the file's bytes or raise `ImageError`."""
        return read_bytes(self.file, limits, name=self.path)


@dataclass(frozen=True)
class InMemoryImage:
    """One image that is no file, such as an upload.

    Examples
    --------
    >>> InMemoryImage("upload.gif", b"GIF89a").read()
    b'GIF89a'
    """

    path: str
    content: bytes = field(repr=False)

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the bytes or raise `ImageError`."""
        check_size(len(self.content), limits, self.path)
        return self.content


@dataclass(frozen=True)
class UnreadableImage:
    """One image of which there is nothing but an error.

    Parameters
    ----------
    path
        The name to show.
    kind, message
        Of the `ImageError` that reading raises.
    """

    path: str
    kind: str
    message: str

    @classmethod
    def of(cls, path: str, error: ImageError) -> UnreadableImage:
        """Keep an error for later."""
        return cls(path, error.kind, str(error))

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:  # noqa: ARG002
        """Raise the error."""
        raise ImageError(self.kind, self.message)


@dataclass(frozen=True)
class LabelledImage:
    """One image with its class; it reads as the image does.

    Parameters
    ----------
    source
        The image.
    label
        Its class folder, or the label beside it.
    """

    source: ImageSource
    label: str

    @property
    def path(self) -> str:
        """The name to show."""
        return self.source.path

    @property
    def file(self) -> Path | None:
        """Where the image is on this machine; None if it is elsewhere, or no file of its own."""
        return self.source.file if isinstance(self.source, ImageRef) else None

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the encoded image or raise `ImageError`."""
        return self.source.read(limits)


class ImageList(list[ImageSource]):
    """The images of a source, in order, with a count of what was left out.

    Attributes
    ----------
    skipped
        Files passed over because their extension is not an image's, counted by extension.
    n_skipped
        Their total. Hidden files and folders are not counted.
    """

    def __init__(
        self, images: Iterable[ImageSource] = (), skipped: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(images)
        self.skipped: Counter[str] = Counter(skipped or {})

    @property
    def n_skipped(self) -> int:
        """How many files were passed over."""
        return self.skipped.total()


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes.

    Attributes
    ----------
    refs
        One per image, class by class for a folder, in the given order otherwise.
    classes
        Sorted names of the class folders, or sorted distinct labels. A class folder without
        images is listed.
    loose
        Image files beside the class folders, which belong to no class and are left out.
    skipped
        Files passed over because of their extension, counted by extension.
    """

    refs: tuple[LabelledImage, ...]
    classes: tuple[str, ...]
    loose: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The label of each image."""
        return [image.label for image in self.refs]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each class, in the order of `classes`; 0 for an empty folder."""
        counts = Counter(self.labels)
        return {name: counts[name] for name in self.classes}

    def __len__(self) -> int:
        return len(self.refs)


def shown(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be written as UTF-8, even if its bytes are not UTF-8.

    Examples
    --------
    >>> shown("caf\udce9.jpg")
    'caf�.jpg'
    """
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
