"""Where bytes are: a path on this machine, or a URL that fsspec understands."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from trustvlm.environment import require
from trustvlm.exceptions import ImageError, InputError, MissingExtraError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal
from trustvlm.images.folders import looks_like_image
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
        name = PurePosixPath(self.text.partition("?")[0] if is_url(self.text) else self.text).name
        endings = PurePosixPath(name.lower()).suffixes[-2:]
        return "".join(endings) if endings[:1] == [".tar"] else "".join(endings[-1:])

    def exists(self) -> bool:
        """Whether there is anything."""
        if is_url(self.text):
            files, path = _system(self.text)
            return bool(files.exists(path))
        return Path(self.text).exists()

    def is_folder(self) -> bool:
        """Whether there are files below it."""
        if is_url(self.text):
            files, path = _system(self.text)
            return bool(files.isdir(path))
        return Path(self.text).is_dir()

    def open(self) -> IO[bytes]:
        """Open the file for reading; it can seek."""
        if is_url(self.text):
            files, path = _system(self.text)
            return cast("IO[bytes]", files.open(path, "rb"))
        return open_regular(Path(self.text))

    def stamp(self) -> str:
        """Tell this content from another, without reading it: its size and its date or tag."""
        if is_url(self.text):
            files, path = _system(self.text)
            return str(files.ukey(path))
        status = Path(self.text).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def images_below(self, *, prefix: str = "") -> Iterator[RemoteImage]:
        """Yield the images in a folder elsewhere, folder by folder, each in the order of names.

        Hidden files and folders are left out.
        """
        files, top = _system(self.text)
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        for folder, below, found in files.walk(top):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(found):
                if looks_like_image(name) and not name.startswith("."):
                    path = f"{folder}/{name}"
                    shown = PurePosixPath(path).relative_to(top).as_posix()
                    yield RemoteImage(f"{start}{shown}", files.unstrip_protocol(path))


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
    label: str | None = None

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the bytes or raise `ImageError`; what may pass is tried three times."""
        for attempt in range(_RETRIES + 1):
            if attempt:
                time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
            try:
                files, path = _system(self.url)
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


def image_at(text: str, *, beside: Location) -> ImageRef | RemoteImage:
    """Return the image that a path or URL in a list names.

    Parameters
    ----------
    text
        A URL, or a path, which is relative to the folder of the list.
    beside
        The list.

    Examples
    --------
    >>> image_at("cats/1.jpg", beside=Location("memory://lists/all.txt")).url
    'memory://lists/cats/1.jpg'
    """
    if is_url(text):
        return RemoteImage(shown(text), text)
    if is_url(beside.text):
        return RemoteImage(shown(text), f"{beside.text.rpartition('/')[0]}/{text.lstrip('/')}")
    return ImageRef(shown(text), Path(beside.text).parent / text)


def expand(url: str) -> list[str]:
    """Return the URLs that one with `*`, `?` or `[...]` stands for, sorted; others as they are.

    Raises
    ------
    InputError
        If it stands for none.
    """
    if "*" not in url and "[" not in url:
        return [url]
    files, path = _system(url)
    found = [files.unstrip_protocol(name) for name in sorted(files.glob(path))]
    if not found:
        raise InputError(f"Expected {url!r} to stand for files, but no name fits it.")
    return found


def _system(url: str) -> tuple[Any, str]:
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
