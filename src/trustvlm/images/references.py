"""Images that are not read yet, here or elsewhere, alone, in lists, with classes; their bytes."""

from __future__ import annotations

import errno
import glob
import hashlib
import math
import os
import re
import stat
import textwrap
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol, Self, cast
from urllib.parse import unquote

from trustvlm.environment import require
from trustvlm.exceptions import ImageError, InputError, MissingExtraError
from trustvlm.files import file_system as files_of_url
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal
from trustvlm.storage import read_object
from trustvlm.text import without_credentials

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
    _check_regular(file)
    return file.open("rb")


def _check_regular(file: Path) -> None:
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
        return refusal("missing", name, "there is no such file", check)
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


_WRITTEN_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")


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


def is_missing(cell: Any) -> bool:
    """Whether a cell holds None, NaN or pandas' NA: nothing.

    Examples
    --------
    >>> is_missing(None), is_missing(math.nan), is_missing(""), is_missing(0)
    (True, True, False, False)
    """
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


def number_label(value: Any) -> str:
    """Return the label that a whole number stands for; "" for anything else.

    A column of whole numbers in which one is missing holds 3.0 for 3.

    Examples
    --------
    >>> number_label(3), number_label(3.0), number_label(3.5), number_label(True), number_label("3")
    ('3', '3', '', '', '')
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return ""
    if isinstance(value, Integral):
        return str(value)
    number = float(value)
    return str(int(number)) if number.is_integer() else ""


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
    >>> read_group(7, "1.jpg", "scene")
    '7'
    """
    group = "" if is_missing(cell) else str(cell).strip()
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


# Where bytes are: a path on this machine, or a URL that fsspec understands.

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Location:
    """A file or folder, here or elsewhere; plain text, so that it travels between processes.

    Parameters
    ----------
    text
        A path, or a URL of any scheme that fsspec knows (`s3://`, `gs://`, `https://`, ...).

    Examples
    --------
    >>> Location("s3://bucket/cat.jpg").is_url, Location("C:/cat.jpg").is_url
    (True, False)
    """

    text: str

    @classmethod
    def of(cls, item: str | os.PathLike[str]) -> Location:
        """Return where a path or URL leads, as a user writes it.

        `~` is the user's folder, and `file://` this machine; backslashes and the other form of
        letters with accents are what the file is called here.

        Examples
        --------
        >>> Location.of("file:///data/my%20photos").text, Location.of("s3://bucket/a%20b").text
        ('/data/my photos', 's3://bucket/a%20b')
        """
        text = os.fspath(item)
        if _is_file_url(text):
            return cls(os.fspath(_file_of_url(text)))
        return cls(text if cls(text).is_url else os.fspath(_spelled(text)))

    @property
    def suffix(self) -> str:
        """The ending of the name, in lower case; the last two for a compressed archive."""
        name = PurePosixPath(self.text.partition("?")[0] if self.is_url else self.text).name
        endings = PurePosixPath(name.lower()).suffixes[-2:]
        return "".join(endings) if endings[:1] == [".tar"] else "".join(endings[-1:])

    @property
    def is_url(self) -> bool:
        """Whether it is elsewhere."""
        return _URL.match(self.text) is not None

    def exists(self) -> bool:
        """Whether there is anything."""
        if self.is_url:
            files, path = file_system(self.text)
            return bool(files.exists(path))
        # Unlike the methods of Path, this does not raise for names that are too long.
        return os.path.exists(self.text)  # noqa: PTH110

    def is_folder(self) -> bool:
        """Whether there are files below it."""
        if self.is_url:
            files, path = file_system(self.text)
            return bool(files.isdir(path))
        return os.path.isdir(self.text)  # noqa: PTH112

    def open(self) -> IO[bytes]:
        """Open the file for reading; it can seek."""
        if self.is_url:
            files, path = file_system(self.text)
            return cast("IO[bytes]", files.open(path, "rb"))
        return open_regular(Path(self.text))

    def below(self, name: str) -> Location:
        """Return what has a name in this folder."""
        if self.is_url:
            return Location(f"{self.text.rstrip('/')}/{name}")
        return Location(os.path.join(self.text, name))  # noqa: PTH118

    def stamp(self) -> str:
        """Tell this content from another, without reading it: its size and its date or tag."""
        if self.is_url:
            files, path = file_system(self.text)
            return str(files.ukey(path))
        status = Path(self.text).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"


def read_head(location: Location, n_bytes: int) -> bytes:
    """Return the first bytes of a file, which say what it is; none if it cannot be read."""
    try:
        with location.open() as file:
            return file.read(n_bytes)
    except OSError:
        return b""


# Bytes that are fetched at a time.
_PIECE = 2**18


@dataclass(frozen=True)
class RemoteImage:
    """One image that a URL names.

    Parameters
    ----------
    path
        The name to show.
    url
        Where it is.
    """

    path: str
    url: str

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the bytes or raise `ImageError`; what may pass is tried three times.

        No more than `limits.max_bytes` are fetched, whatever the server says of their number, and
        for no longer than `limits.seconds` in all.
        """
        failures, deadline = 0, time.monotonic() + limits.seconds
        while True:
            try:
                content = self._fetch(limits, deadline)
            except (MissingExtraError, InputError, ImageError):
                raise
            except Exception as error:  # every service has errors of its own
                failures += 1
                if time.monotonic() >= deadline:
                    what = f"fetching it took longer than {limits.seconds:g} s"
                    remedy = "Check the network, or allow more time with --image-seconds"
                    raise refusal("too_slow", self.path, what, remedy) from error
                if failures > N_RETRIES or isinstance(error, LASTING):
                    raise read_error(error, self.path, address="URL") from error
            else:
                check_size(len(content), limits, self.path)
                return content
            wait_to_retry(failures)

    def _fetch(self, limits: Limits, deadline: float) -> bytes:
        files, path = file_system(self.url)
        if not self.url.lower().startswith(("http://", "https://")):
            seconds = max(deadline - time.monotonic(), 0.001)
            return read_object(files, path, limits.max_bytes + 1, seconds=seconds)
        aiohttp = require("aiohttp", extra="remote", purpose=f"Reading {self.path}")
        seconds = max(deadline - time.monotonic(), 0.001)
        content = bytearray()
        # One request: with a size, fsspec does not ask for it; without blocks, it streams. Where
        # the server leads elsewhere than to http or https, aiohttp does not follow.
        with files.open(
            path, "rb", block_size=0, size=1, timeout=aiohttp.ClientTimeout(total=seconds)
        ) as stream:
            while piece := stream.read(_PIECE):
                content += piece
                if len(content) > limits.max_bytes:
                    what = f"its server sends more than {limits.max_bytes:,} bytes"
                    raise refusal("too_large", self.path, what, "Make it smaller")
                if time.monotonic() >= deadline:
                    raise TimeoutError
        return bytes(content)


def image_at(text: str) -> ImageRef | RemoteImage:
    """Return the image that a path or URL names."""
    name = shown(text)
    if _is_file_url(text):
        return ImageRef(name, _file_of_url(text))
    return RemoteImage(name, text) if Location(text).is_url else ImageRef(name, _spelled(text))


# `file:///x`, `file://localhost/x` and `file:/x` are one, by RFC 8089; fsspec also says `local`.
_FILE_URL = re.compile(r"(?:file|local):(?://(?:localhost(?=/))?|(?=/))", re.IGNORECASE)


def _is_file_url(text: str) -> bool:
    return _FILE_URL.match(text) is not None


def _file_of_url(url: str) -> Path:
    """Return the file of a `file://` URL, whose signs may be escaped by percent."""
    path = _FILE_URL.sub("", url, count=1)
    if re.match(r"/[A-Za-z]:", path):  # a drive of Windows
        path = path[1:]
    elif not path.startswith("/"):  # a folder that another machine shares
        path = f"//{path}"
    literal = Path(path)
    return literal if os.path.lexists(literal) else _spelled(unquote(path))


def _spelled(text: str, folder: Path | None = None) -> Path:
    r"""Return a path in a folder as its file is spelled here, if it is not spelled as given.

    Lists come from other systems: with backslashes between folders, with accents in the other of
    the two forms that Unicode has of them, with bytes as `shown` writes them, with signs escaped
    by percent as in URLs, or with `~`. The literal name goes first.
    """
    literal = Path(text) if folder is None else folder / text
    if text.isascii() and not re.search(r"\\|%[0-9A-Fa-f]{2}", text) and text[:1] != "~":
        return literal
    if os.path.lexists(literal):
        return literal
    as_bytes = _WRITTEN_BYTE.sub(lambda digits: chr(0xDC00 + int(digits[1], 16)), text)
    named = Path(as_bytes) if folder is None else folder / as_bytes
    if os.path.lexists(named):
        return named
    slashes = text.replace("\\", "/")
    full = os.path.expanduser(slashes) if text.startswith("~") else slashes  # noqa: PTH111
    path = Path() if folder is None else folder
    for part in PurePosixPath(full).parts:
        forms = (unicodedata.normalize(form, part) for form in _FORMS)
        spellings = (part, *forms, *_unescaped(part))
        path = next((path / s for s in spellings if os.path.lexists(path / s)), path / part)
    return path if os.path.lexists(path) or full != slashes else literal


_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def _unescaped(part: str) -> Iterator[str]:
    """Yield what a part of a path is without the escapes of URLs, unless it is several parts."""
    plain = unquote(part)
    if plain != part and not re.search(r"[/\\\0]", plain):
        yield from (unicodedata.normalize(form, plain) for form in _FORMS)


def images_beside(location: Location) -> Callable[[str], ImageRef | RemoteImage]:
    """Return what makes images of the paths and URLs in a list: paths are relative to its folder.

    Examples
    --------
    >>> images_beside(Location("memory://lists/all.txt"))("cats/1.jpg").url
    'memory://lists/cats/1.jpg'
    >>> images_beside(Location("memory://pets/lists/all.txt"))("../cats/./1.jpg").url
    'memory://pets/cats/1.jpg'
    """
    is_remote, folder = location.is_url, Path(location.text).parent
    remote_folder = location.text.rpartition("/")[0]

    def image(text: str) -> ImageRef | RemoteImage:
        if Location(text).is_url or _is_file_url(text):
            return image_at(text)
        name = shown(text)
        if is_remote:
            url = remote_folder
            # Object stores have no folders, and do not know what these parts mean.
            for part in text.replace("\\", "/").lstrip("/").split("/"):
                if part == ".." and url.count("/") > 2:
                    url = url.rpartition("/")[0]
                elif part not in (".", ".."):
                    url = f"{url}/{part}"
            return RemoteImage(name, url)
        return ImageRef(name, _spelled(text, folder))

    return image


# What stands for several names, as shells and WebDataset have it: `{000..012}` and `{cats,dogs}`.
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")
_MOST_NAMES = 1_000_000


def expand(text: str) -> list[str]:
    """Return the paths or URLs that one stands for; one that stands for itself as it is.

    Braces stand for what is in them, in paths too where none is called so: `{000..012}` for
    numbers, `{a,b}` for names. `*`, `?` and `[...]` stand for what is there, sorted, `**` for
    folders at any depth.

    Raises
    ------
    InputError
        If it stands for none, or for too many, or is `-`: no names are read from standard input.

    Examples
    --------
    >>> expand("pets-{08..10}.tar")
    ['pets-08.tar', 'pets-09.tar', 'pets-10.tar']
    """
    if text == "-" and not os.path.lexists(text):
        raise InputError(
            "Expected inputs to be named, but got '-': standard input is not read. Write the paths "
            "into a .txt file, one a line, and name that."
        )
    braces = _BRACES.search(text)
    if braces is None or (not Location(text).is_url and os.path.lexists(text)):
        return _expand_stars(text)
    first, last, names = braces.groups()
    if names is None:
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) <= _MOST_NAMES:
            raise InputError(
                f"Expected {shown(text)!r} to stand for 1 to {_MOST_NAMES:,} names, but its "
                f"numbers go from {first} to {last}."
            )
        parts = [f"{number:0{len(first)}d}" for number in numbers]
    else:
        parts = names.split(",")
    before, behind = text[: braces.start()], text[braces.end() :]
    behind_each = expand(behind) if _BRACES.search(behind) else [behind]
    if len(parts) * len(behind_each) > _MOST_NAMES:
        raise InputError(f"Expected {shown(text)!r} to stand for at most {_MOST_NAMES:,} names.")
    every = (f"{before}{part}{end}" for part in parts for end in behind_each)
    return [name for each in every for name in _expand_stars(each)]


_WILDCARD = re.compile(r"[*?\[]")


def _expand_stars(url: str) -> list[str]:
    if not Location(url).is_url:
        location = Location.of(url)
        if not _WILDCARD.search(url) or os.path.lexists(location.text):
            return [url]
        # A path that fits nothing is named in the error of an image that is not there.
        return sorted(glob.glob(os.path.expanduser(url), recursive=True)) or [url]  # noqa: PTH111, PTH207
    if not {"*", "["} & set(url):
        return [url]
    files, path = file_system(url)
    urls = [files.unstrip_protocol(name) for name in sorted(files.glob(path))]
    if not urls:
        raise InputError(f"Expected {shown(url)!r} to stand for files, but no name fits it.")
    return urls


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises
    ------
    MissingExtraError, InputError
        If a package for the scheme is missing, or the scheme unknown.
    OSError
        If it leads to a pipe, a socket or a device of this machine.
    """
    files, path = files_of_url(url, f"Reading {url}")
    for part in url.split("::"):
        if part.lower().startswith(("file://", "local://")):
            file = Path(part.partition("://")[2])
            if os.path.lexists(file):
                _check_regular(file)
    return files, path
