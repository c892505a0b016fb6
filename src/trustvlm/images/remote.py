"""Where bytes are: a path on this machine, or a URL that fsspec understands."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from trustvlm.environment import require
from trustvlm.exceptions import ImageError, InputError, MissingExtraError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal
from trustvlm.images.reading import check_size, open_regular
from trustvlm.images.references import ImageRef, shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_RETRIES, _FIRST_WAIT = 2, 0.2


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path.

    Examples
    --------
    >>> is_url("s3://bucket/cat.jpg"), is_url("C:/cat.jpg")
    (True, False)
    """
    return _URL.match(text) is not None


@dataclass(frozen=True)
class Location:
    """A file or folder, here or elsewhere; plain text, so that it travels between processes.

    Parameters
    ----------
    text
        A path, or a URL of any scheme that fsspec knows (`s3://`, `gs://`, `https://`, ...).
    """

    text: str

    @property
    def suffix(self) -> str:
        """The ending of the name, in lower case; the last two for a compressed archive."""
        name = PurePosixPath(self.text.partition("?")[0] if self.is_url else self.text).name
        endings = PurePosixPath(name.lower()).suffixes[-2:]
        return "".join(endings) if endings[:1] == [".tar"] else "".join(endings[-1:])

    @property
    def is_url(self) -> bool:
        """Whether it is elsewhere."""
        return is_url(self.text)

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
        """Return the bytes or raise `ImageError`; what may pass is tried three times."""
        for attempt in range(_RETRIES + 1):
            if attempt:
                time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
            try:
                files, path = file_system(self.url)
                content = bytes(files.cat_file(path))
                break
            except (FileNotFoundError, NotADirectoryError) as error:
                raise refusal("missing", self.path, "there is no such file", "Check the URL") from (
                    error
                )
            except IsADirectoryError as error:
                what, remedy = "this is a folder, not a file", "Name the images inside it"
                raise refusal("directory", self.path, what, remedy) from error
            except PermissionError as error:
                what, remedy = "the file may not be read", "Give yourself permission to read it"
                raise refusal("permission", self.path, what, remedy) from error
            except (MissingExtraError, InputError, ImageError):
                raise
            except Exception as error:  # every service has errors of its own
                failure = error
        else:
            what = f"the file cannot be read ({type(failure).__name__}: {failure})"
            raise refusal("unreadable", self.path, what, "Check the network") from failure
        check_size(len(content), limits, self.path)
        return content


def image_at(text: str, *, beside: Location | None = None) -> ImageRef | RemoteImage:
    """Return the image that a path or URL names.

    Parameters
    ----------
    text
        A URL, or a path.
    beside
        The list that names it; a path is relative to its folder.

    Examples
    --------
    >>> image_at("cats/1.jpg", beside=Location("memory://lists/all.txt")).url
    'memory://lists/cats/1.jpg'
    """
    name = shown(text)
    if is_url(text):
        return RemoteImage(name, text)
    if beside is None:
        return ImageRef(name, Path(text))
    if beside.is_url:
        return RemoteImage(name, f"{beside.text.rpartition('/')[0]}/{text.lstrip('/')}")
    return ImageRef(name, Path(beside.text).parent / text)


def expand(url: str) -> list[str]:
    """Return the URLs that one with `*`, `?` or `[...]` stands for, sorted; others as they are.

    Raises
    ------
    InputError
        If it stands for none.
    """
    if "*" not in url and "[" not in url:
        return [url]
    files, path = file_system(url)
    urls = [files.unstrip_protocol(name) for name in sorted(files.glob(path))]
    if not urls:
        raise InputError(f"Expected {url!r} to stand for files, but no name fits it.")
    return urls


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises
    ------
    MissingExtraError, InputError
        If a package for the scheme is missing, or the scheme unknown.
    """
    fsspec = require("fsspec", extra="remote", purpose=f"Reading {url}")
    try:
        # fsspec keeps one connection for each service.
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(
            f"Reading {url} needs a package for this kind of storage: {error}."
        ) from error
    except ValueError as error:
        raise InputError(f"Expected {url!r} to be a URL that can be read, but got: {error}.") from (
            error
        )
    return files, str(path)
