"""Where bytes are: a path on this machine, or a URL that fsspec understands."""

from __future__ import annotations

import glob
import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast
from urllib.parse import unquote

from trustvlm.environment import require
from trustvlm.exceptions import ImageError, InputError, MissingExtraError
from trustvlm.files import file_system as files_of_url
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal
from trustvlm.images.references import (
    LASTING,
    N_RETRIES,
    ImageRef,
    check_regular,
    check_size,
    open_regular,
    read_error,
    shown,
    wait_to_retry,
)
from trustvlm.storage import read_object

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


# A byte that is not UTF-8, as `shown` writes it.
_WRITTEN_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
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
                check_regular(file)
    return files, path
