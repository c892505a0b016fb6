"""Images that are not read yet, alone, in lists, with classes; and their bytes."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import stat
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, Self

from trustvlm.cells import cell_text, is_missing
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal
from trustvlm.text import printable, without_credentials

# Read a file's bytes, or say why that cannot be done; ask distant servers again.


def content_hash(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hex.

    Examples
    --------
    >>> content_hash(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def read_bytes(
    file: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, *, name: str | None = None
) -> bytes:
    """Read an image file whole.

    Parameters
    ----------
    file
        Where it is.
    limits
        `max_bytes` is checked before reading.
    name
        How to call the image in errors; the path by default.

    Raises
    ------
    ImageError
        Of kind `missing`, `directory`, `permission`, `unreadable`, `empty` or `too_large`.
    """
    name = os.fspath(file) if name is None else name
    try:
        status = Path(file).stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(status.st_mode):
            # Reading a pipe or a device could wait for ever.
            raise refusal("unreadable", name, "this is not a regular file", "Copy it to one")
        check_size(status.st_size, limits, name)
        with Path(file).open("rb") as stream:
            # A file that grows while it is read is still bounded.
            content = stream.read(limits.max_bytes + 1)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise read_error(error, name) from error
    check_size(len(content), limits, name)
    return content


def open_regular(file: Path) -> IO[bytes]:
    """Open a list, a table or an archive for reading.

    Raises
    ------
    OSError
        Also for a pipe, a socket or a device: reading those could wait for ever.
    """
    check_regular(file)
    return file.open("rb")


def check_regular(file: Path) -> None:
    """Raise `OSError` for a pipe, a socket or a device: reading those could wait for ever."""
    mode = file.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "it is a pipe, a socket or a device; copy it to a regular file"
        raise OSError(errno.EINVAL, what, os.fspath(file))


def check_size(size: int, limits: Limits, name: str) -> None:
    """Refuse an empty file and one above `limits.max_bytes`."""
    if size == 0:
        raise refusal("empty", name, "the file is empty", "Copy it again from its source")
    if size > limits.max_bytes:
        raise refusal(
            "too_large",
            name,
            f"the file has {size:,} bytes, and at most {limits.max_bytes:,} are read",
            "Make it smaller",
            note="Or raise `Limits(max_bytes=...)`.",
        )


def read_error(error: Exception, name: str, *, address: str = "path") -> ImageError:
    """Build the error of an image or archive that cannot be read; `address` is a path or URL."""
    check = f"Check the {address}"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        # A path in a list is relative to the list: say where that leads.
        path = error.filename
        at = f" at {printable(str(path))}" if path and str(path) != name else ""
        return refusal("missing", name, f"there is no such file{at}", check)
    if isinstance(error, IsADirectoryError):
        return refusal(
            "directory", name, "this is a folder, not a file", "Name the images inside it"
        )
    if isinstance(error, PermissionError):
        return refusal(
            "permission", name, "the file may not be read", "Give yourself permission to read it"
        )
    if address == "URL":
        details = textwrap.shorten(without_credentials(str(error)), 200) or "nothing more is said"
        reason, remedy = f"{type(error).__name__}: {details}", "Check the network"
    elif isinstance(error, ValueError):  # a null byte inside the path
        return refusal("missing", name, "this cannot be a path", check)
    elif isinstance(error, OSError) and error.errno == errno.ELOOP:
        return refusal("unreadable", name, "its symbolic links form a circle", "Repair the link")
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return refusal("missing", name, "this is too long for a path", check)
    else:
        reason, remedy = (
            getattr(error, "strerror", None) or str(error),
            "Check the disk or the network",
        )
    return refusal("unreadable", name, f"the file cannot be read ({reason})", remedy)


# Errors that are the same at the next attempt.
LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
N_RETRIES = 2
_FIRST_WAIT = 0.2


def wait_to_retry(n_failures: int) -> None:
    """Wait before a distant server is asked again, twice as long each time."""
    time.sleep(_FIRST_WAIT * 2 ** (n_failures - 1))


# Images by name.


def shown(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be written as UTF-8, even if its bytes are not UTF-8.

    Such bytes are written out, and lists may name the file so.

    Examples
    --------
    >>> print(shown("caf\udce9.jpg"))
    caf\xe9.jpg
    """
    text = without_credentials(os.fspath(path))
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as names on Windows may have
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


# Folders that operating systems, archives, storage boxes and tools make for themselves: previews,
# deleted files and the like, which are no pictures of the user's and no class.
_SYSTEM_FOLDERS = frozenset(
    name.casefold()
    for name in (
        "__MACOSX", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder",
        "$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information", "Config.Msi",
        "lost+found", "LOST.DIR", "~snapshot", "#recycle", "#snapshot", "@eaDir", "@tmp",
        "@Recycle", "@Recently-Snapshot", "@sharebin", "@__thumb", "@Transcode", "@SynoResource",
        "@SynoEAStream", "$Extend", "$WINDOWS.~BT", "$Windows.~WS", "$WinREAgent", "$SysReset",
        "iPod Photo Cache", "node_modules", "__pycache__", "_trustvlm",
    )
)  # fmt: skip
# Fitted models, previews of Lightroom, and what Windows saves of a damaged disk.
_SYSTEM_ENDINGS = re.compile(r".*\.(trust|lrdata)|found\.\d{3}")


def is_system_folder(name: str) -> bool:
    """Whether a folder is one that a system made for itself, or a fitted model.

    Examples
    --------
    >>> is_system_folder("__MACOSX"), is_system_folder("pets.trust"), is_system_folder("cats")
    (True, True, False)
    """
    lowered = name.casefold()
    return lowered in _SYSTEM_FOLDERS or _SYSTEM_ENDINGS.fullmatch(lowered) is not None


# What parts of a data set are called, such as `train`, `Validation`, `val2017`, `test_images`.
_SPLIT = re.compile(
    r"(\d+[-_. ]+)?(train|training|trainval|val|valid|validation|dev|eval|test|testing|"
    r"hold[-_ ]?out|(fold|split)(?=[-_ ]?\d))([-_ ]?(set|data|images|\d+))?"
)


def is_split(folder: str) -> bool:
    """Whether a folder is called as a part of a data set is, and hardly as a class.

    Examples
    --------
    >>> is_split("train"), is_split("val2017"), is_split("trains")
    (True, True, False)
    """
    return _SPLIT.fullmatch(folder.strip().casefold()) is not None


def is_output_folder(folder: Path) -> bool:
    """Whether a folder holds verdicts or a page that this package wrote: nobody's images."""
    return (folder / "_trustvlm").is_dir() or is_own_page(folder / "index.html")


def is_own_page(file: Path) -> bool:
    """Whether a file is a page that this package wrote."""
    try:
        with open_regular(file) as page:
            return b'<meta name="generator" content="trustvlm ' in page.read(4096)
    except OSError:
        return False


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
    def of(cls, path: str, error: ImageError) -> Self:
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
    confidence
        Probability that came with the label; NaN where there is none.
    group
        What it has in common with images that it is not independent of, such as a scene; "" where
        nothing is said of that.
    """

    source: ImageSource
    label: str
    confidence: float = math.nan
    group: str = ""

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


def read_probability(
    cell: Any, path: str, remedy: str = "Name the column of probabilities with --confidence-column."
) -> float:
    """Return what a table says of the probability of a label; NaN for an empty cell or None.

    `remedy` is what a user can do about another cell.

    Raises
    ------
    InputError
        If it is no number from 0 to 1.

    Examples
    --------
    >>> read_probability("0.9", "1.jpg"), read_probability("", "1.jpg")
    (0.9, nan)
    """
    if is_missing(cell) or cell == "":
        return math.nan
    try:
        p = float(cell)
    except (TypeError, ValueError):
        p = math.inf
    if not (0 <= p <= 1 or math.isnan(p)):
        raise InputError(
            f"Expected the label of {shown(path)!r} to have a probability from 0 to 1, or none, "
            f"but got {cell!r}. {remedy}"
        )
    return p


def read_group(cell: Any, path: str, column: str) -> str:
    """Return the group that a table gives an image.

    Raises
    ------
    InputError
        If there is none, or no such column.

    Examples
    --------
    >>> read_group(7, "1.jpg", "scene"), read_group(7.0, "2.jpg", "scene")
    ('7', '7')
    """
    group = cell_text(cell)
    if not group:
        raise InputError(
            f"Expected a group of each image in the column {column!r}, but {shown(path)!r} has "
            "none, or there is no such column. Say which to use (--group-column), and give images "
            "that stand alone a group of their own."
        )
    return group


# Several images: a list of all, pieces of it, and those with classes.


# How many files that are passed over a message names.
NAMED = 5


class Skipped(Counter[str]):
    """Files that are passed over, counted by extension.

    Attributes
    ----------
    names
        Of the first few, relative to their source.
    """

    def __init__(self, counts: Mapping[str, int] | None = None, names: Iterable[str] = ()) -> None:
        super().__init__(counts or {})
        self.names: list[str] = [*getattr(counts, "names", ()), *names]

    def __reduce__(self) -> tuple[type[Skipped], tuple[dict[str, int], list[str]]]:
        return type(self), (dict(self), self.names)

    def add(self, name: str) -> None:
        """Count one more file.

        Examples
        --------
        >>> skipped = Skipped()
        >>> skipped.add("docs/Notes.TXT")
        >>> dict(skipped), skipped.names
        ({'.txt': 1}, ['docs/Notes.TXT'])
        """
        self[PurePosixPath(name).suffix.lower() or "(none)"] += 1
        if len(self.names) <= NAMED:
            self.names.append(shown(name))

    def merge(self, others: Skipped) -> None:
        """Add what another source passed over."""
        self.update(others)
        self.names += others.names[: NAMED + 1 - len(self.names)]


class ImageList(list[ImageSource]):
    """The images of a source, in order, with a count of what was left out.

    Attributes
    ----------
    skipped
        Files passed over because they neither have an image's extension nor begin as an image
        does, counted by extension.
    n_skipped
        Their total. Hidden files and folders are not counted.
    """

    def __init__(
        self, images: Iterable[ImageSource] = (), skipped: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(images)
        self.skipped = Skipped(skipped)

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
        Files passed over because they are no images, counted by extension.
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
