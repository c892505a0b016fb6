"""Names for images that have not been read yet."""

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
    """Anything with a name, perhaps a label, and bytes: a file or an upload."""

    @property
    def path(self) -> str:
        """The name as the user knows it."""
        ...

    @property
    def label(self) -> str | None:
        """The true class, where it is known."""
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
    label
        Its class folder or the label beside it; None where none was asked for.
    """

    path: str
    file: Path
    label: str | None = None

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
    label: str | None = None

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the bytes or raise `ImageError`."""
        check_size(len(self.content), limits, self.path)
        return self.content


@dataclass(frozen=True)
class UnreadableImage:
    """One image of which nothing but the trouble with it is known.

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
    label: str | None = None

    @classmethod
    def of(cls, path: str, error: ImageError) -> UnreadableImage:
        """Keep an error for later."""
        return cls(path, error.kind, str(error))

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:  # noqa: ARG002
        """Raise the error."""
        raise ImageError(self.kind, self.message)


class FoundImages(list[ImageRef]):
    """The images of a source, in order, with a count of what was left out.

    Attributes
    ----------
    skipped
        Files passed over because their extension is not an image's, counted by extension.
    n_skipped
        Their total. Hidden files and folders are not counted.
    """

    def __init__(
        self, refs: Iterable[ImageRef] = (), skipped: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(refs)
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
        One per image, class by class for a folder, in the given order otherwise; `label` is set.
    classes
        Sorted names of the class folders, or sorted distinct labels. A class folder without
        images is listed.
    loose
        Image files beside the class folders, which belong to no class and are left out.
    skipped
        Files passed over because of their extension, counted by extension.
    """

    refs: FoundImages
    classes: tuple[str, ...]
    loose: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The label of each image."""
        return [str(ref.label) for ref in self.refs]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each class, in the order of `classes`; 0 for an empty folder."""
        found = Counter(self.labels)
        return {name: found[name] for name in self.classes}

    @property
    def skipped(self) -> Counter[str]:
        """Files passed over, counted by extension."""
        return self.refs.skipped

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
