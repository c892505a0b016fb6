"""Write files and folders whole or not at all, wherever a name leads: through links, to URLs."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from trustvlm.environment import pip_install, require
from trustvlm.exceptions import (
    InputError,
    MissingExtraError,
    OutputError,
    TrustVLMError,
    TrustVLMWarning,
)
from trustvlm.text import without_credentials


@contextmanager
def atomic_path(target: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes `target` when the block succeeds.

    A reader sees the old file or the complete new one. On an exception the temporary file is
    removed and the target stays as it was. A private file can be read by its owner alone.

    A link stays, and the file that it leads to is replaced. A pipe, a device, `-` for standard
    output, and a URL that fsspec knows get the content when it is complete.

    Raises
    ------
    OutputError
        If it cannot be written; the message says why, and what to do.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    name = os.fspath(target)
    url = url_of(target)
    try:
        if url is not None and not url.startswith("file:"):
            with _temporary(Path(tempfile.gettempdir()), Path(name)) as temporary:
                yield temporary
                _upload(temporary, url)
        elif is_stream(target):
            with _temporary(Path(tempfile.gettempdir()), Path(name)) as temporary:
                yield temporary
                with temporary.open("rb") as content, _open_stream(name) as stream:
                    shutil.copyfileobj(content, stream)
        else:
            # A link stays a link: what it leads to is replaced, also where that is not there yet.
            path = Path(os.path.realpath(name if url is None else _file_of(url)))
            if path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            path.parent.mkdir(parents=True, exist_ok=True)
            with _temporary(path.parent, path) as temporary:
                yield temporary
                sync(temporary)
                if not private:
                    # Temporary files are private; the result should be as readable as any other.
                    umask = os.umask(0)
                    os.umask(umask)
                    temporary.chmod(0o666 & ~umask)
                temporary.replace(path)
    except (TrustVLMError, BrokenPipeError):
        raise
    except OSError as error:
        raise output_error(target, error) from error


@contextmanager
def _temporary(folder: Path, target: Path) -> Iterator[Path]:
    # Names have an end: what is put around a long one must not pass it.
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name[:40]}.", suffix=f".tmp{target.suffix[:10]}", dir=folder
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        # The folder may have vanished with it.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# Nothing is written for so long.
ABANDONED_SECONDS = 3600.0


@contextmanager
def atomic_folder(
    target: Path,
    *,
    is_own: Callable[[str], bool],
    replace: Callable[[Path], None] | None = None,
    abandoned_seconds: float = ABANDONED_SECONDS,
) -> Iterator[Path]:
    """Yield an empty folder; with the files in it, it becomes `target` when the block succeeds.

    Whenever the process is killed, or the power fails, `target` is there whole, or as it was. What
    a process that was killed has left beside it goes with the next one that writes there.

    Parameters
    ----------
    target
        Not there yet; an empty folder; or, with `replace`, one whose content is replaced.
    is_own
        Whether files of that name may be removed, of a folder that is replaced or was left over.
        Others stay, in a folder that a warning names.
    replace
        Called with the new folder where folders cannot change places in one step, which the file
        systems of Linux and macOS can do on local disks.
    abandoned_seconds
        After which another process's folder counts as left over.

    Raises
    ------
    OSError
        If the folder cannot be written, or there is another one with files.

    Warns
    -----
    TrustVLMWarning
        If files of somebody else came into the folder that was replaced.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_folder(folder / "a", is_own=lambda name: name == "b.txt") as fresh:
    ...     _ = (fresh / "b.txt").write_text("whole")
    >>> [file.name for file in folder.rglob("*")]
    ['a', 'b.txt']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    for abandoned in target.parent.glob(f"{glob.escape(prefix)}????????"):
        with suppress(OSError):
            own = {entry.name for entry in abandoned.iterdir()} <= {_FRESH}
            if own and abandoned.stat().st_mtime <= time.time() - abandoned_seconds:
                _clear(abandoned, is_own)
    workspace = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        fresh = workspace / _FRESH
        fresh.mkdir()
        yield fresh
        for file in fresh.iterdir():
            sync(file)
        sync(fresh)
        if not target.exists():
            fresh.rename(target)
        elif replace is None:
            target.rmdir()
            fresh.rename(target)
        elif not _exchange(fresh, target):
            replace(fresh)
        sync(target.parent)
    finally:
        _clear(workspace, is_own)


_FRESH = "new"


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where this system cannot."""
    import ctypes

    calls = {"linux": ("renameat2", -100), "darwin": ("renameatx_np", -2)}  # with AT_FDCWD
    name, here = calls.get(sys.platform, ("", 0))
    rename = getattr(ctypes.CDLL(None), name, None) if name else None
    if rename is None:
        return False
    swap = ctypes.c_uint(2)  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def _clear(workspace: Path, is_own: Callable[[str], bool]) -> None:
    """Remove the folder that was written in, with this tool's own files only."""
    folder = workspace / _FRESH
    with suppress(OSError):
        for file in list(folder.iterdir()):
            if is_own(file.name):
                file.unlink()
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        warnings.warn(
            f"{folder} is left over from the folder that was replaced: {error.strerror}",
            TrustVLMWarning,
            stacklevel=2,
        )
    with suppress(OSError):
        workspace.rmdir()


def sync(path: Path) -> None:
    """Let the content of a file, or the names in a folder, outlast a power failure."""
    if not path.is_dir():
        with path.open("rb+") as written:
            os.fsync(written.fileno())
        return
    # Not every system can do that with a folder.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Give yourself permission to write there, or name another file",
    ),
    errno.EISDIR: "It is a folder: name a file in it",
    errno.ENAMETOOLONG: "Give it a shorter name",
    errno.ELOOP: "Repair the link",
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EEXIST), "Check the folder, or name another file"
    ),
}


def output_error(target: str | os.PathLike[str], error: OSError) -> OutputError:
    """Say what keeps a file from being written, and what to do.

    Examples
    --------
    >>> print(output_error("a.csv", OSError(errno.ENOSPC, "No space left on device")))
    'a.csv' cannot be written (No space left on device). Make room, and run the same again.
    """
    remedy = _REMEDIES.get(error.errno or 0, "Check the disk")
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(
        f"{shown_target(target)!r} cannot be written ({reason}). {remedy}, and run the same again.",
        error.errno,
    )


# Names that are no paths: URLs, pipes and devices.

# A single letter is a drive of Windows. A path loses one of the slashes.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*[A-Za-z0-9+.-]):/+(?=[^/])")
_STREAMS = re.compile(r"/dev/(?:stdout|stderr|fd/(\d+))|/proc/self/fd/(\d+)")


def url_of(target: str | os.PathLike[str]) -> str | None:
    """Return the URL that an output is, whole even where it was made a path; None for none.

    Examples
    --------
    >>> url_of("s3://bucket/a.csv"), url_of(Path("s3://bucket/a.csv")), url_of("C:/a.csv")
    ('s3://bucket/a.csv', 's3://bucket/a.csv', None)
    """
    text = os.fspath(target)
    # Windows writes the slashes of a path the other way.
    text = text.replace(os.sep, "/")
    match = _URL.match(text)
    if match is None:
        return None
    scheme = match[1].lower()
    # These have no host as a rule, and a third slash.
    slashes = "///" if scheme in ("file", "local") else "//"
    return f"{match[1]}:{slashes}{text[match.end() :]}"


def shown_target(target: str | os.PathLike[str]) -> str:
    """Return an output as the user named it; of a URL without credentials.

    Examples
    --------
    >>> shown_target(Path("s3://bucket/pets.trust"))
    's3://bucket/pets.trust'
    """
    return without_credentials(url_of(target) or os.fspath(target))


def local_path(target: str | os.PathLike[str], what: str = "folder") -> Path:
    """Return what is written to and read again; of a URL say what to do instead.

    Raises
    ------
    InputError
        If it is a URL.
    """
    if url := url_of(target):
        raise InputError(
            f"Expected a {what} on this machine to write to, but got {shown_target(url)!r}. Name "
            "one, and copy it there when it is complete."
        )
    return Path(target)


def check_file(target: str | os.PathLike[str]) -> None:
    """Refuse, before any work is done, an output that cannot be written.

    Raises
    ------
    OutputError
        If its folder is none, or may not be written to; or if it is a folder itself.
    InputError, MissingExtraError
        If it is a URL of a kind that cannot be written, or a package for it is missing.
    """
    url = url_of(target)
    if url is not None and not url.startswith("file:"):
        _writable(url)
        return
    if is_stream(target):
        return
    path = Path(os.path.realpath(target if url is None else _file_of(url)))
    parent = path.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    number = 0
    if path.is_dir():
        number = errno.EISDIR
    elif not parent.is_dir():
        number = errno.ENOTDIR
    elif not os.access(parent, os.W_OK):
        number = errno.EACCES
    if number:
        raise output_error(target, OSError(number, os.strerror(number)))


def is_stream(target: str | os.PathLike[str]) -> bool:
    """Whether an output is standard output, a pipe or a device: something to write on to.

    Examples
    --------
    >>> is_stream("-"), is_stream("/dev/stdout"), is_stream("a.csv")
    (True, True, False)
    """
    name = os.fspath(target)
    if name == "-" or _STREAMS.fullmatch(name):
        return True
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _open_stream(name: str) -> Iterator[IO[bytes]]:
    match = _STREAMS.fullmatch(name)
    number = int(match[1] or match[2] or 0) if match else 0
    if name in ("-", "/dev/stdout") or number == 1:
        # What was printed before goes first.
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    if match:
        # Opened anew, a file that output is sent to would be cut at its beginning.
        with os.fdopen(os.dup(number or 2), "wb") as stream:
            yield stream
        return
    with Path(name).open("wb") as stream:
        yield stream


def _file_of(url: str) -> str:
    return url.partition("://")[2].removeprefix("localhost")


def file_system(url: str, purpose: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Parameters
    ----------
    url
        Of any scheme.
    purpose
        What it is for, as the subject of a sentence.

    Raises
    ------
    MissingExtraError, InputError
        If a package for the scheme is missing, or the scheme unknown.
    """
    purpose = without_credentials(purpose)
    fsspec = require("fsspec", extra="remote", purpose=purpose)
    try:
        # fsspec keeps one connection for each service.
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        # Of a chain such as simplecache::s3://, the last one is the storage.
        scheme = url.rpartition("::")[2].partition("://")[0].lower()
        if scheme in ("s3", "s3a"):
            install = f"Install it with: {pip_install('s3')}"
        else:
            package = _PACKAGES.get(scheme)
            named = f"pip install {package}" if package else f"{error}"
            install = f"Besides the extra remote, that is: {named}".rstrip(".")
        raise MissingExtraError(
            f"{purpose} needs a package for this kind of storage. {install}"
        ) from error
    except ValueError as error:
        raise InputError(
            f"Expected {without_credentials(url)!r} to be a URL that can be used, but got: "
            f"{without_credentials(str(error))}."
        ) from error
    return files, str(path)


# What fsspec needs for a kind of storage, beside itself.
_PACKAGES = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
}


def said(error: Exception) -> str:
    """Return what a service says of an error, without credentials.

    Examples
    --------
    >>> said(OSError(13, "no access to https://a.b/c?X-Amz-Signature=secret."))
    'no access to https://a.b/c'
    """
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return without_credentials(text).rstrip(".") or type(error).__name__


def _writable(url: str) -> tuple[Any, str]:
    files, path = file_system(url, f"Writing {url}")
    protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
    if protocols & {"http", "https"} or not path.strip("/"):
        raise InputError(
            f"Expected an output that can be written to, but got {shown_target(url)!r}. Write to a "
            "file on this machine or to storage such as s3://, and copy it there."
        )
    return files, path


def _upload(file: Path, url: str) -> None:
    files, path = _writable(url)
    try:
        before = bool(files.exists(path))
        try:
            files.put_file(os.fspath(file), path)
        except BaseException:
            # A part of it is no output.
            if not before:
                with suppress(Exception):
                    files.rm_file(path)
            raise
    except Exception as error:  # every service has errors of its own
        reason = said(error)
        raise OutputError(
            f"{shown_target(url)!r} cannot be written ({reason}). Check the URL, the network "
            "and your rights there, and run the same again.",
            getattr(error, "errno", None),
        ) from error


def write_bytes(target: str | os.PathLike[str], content: bytes, *, private: bool = False) -> None:
    """Write bytes to a file atomically; a private one can be read by its owner alone."""
    with atomic_path(target, private=private) as temporary:
        temporary.write_bytes(content)


def write_text(target: str | os.PathLike[str], content: str, *, private: bool = False) -> None:
    """Write UTF-8 text to a file atomically, with the line ends as given; see `write_bytes`."""
    # Halves of characters, which no UTF-8 has, are written out.
    write_bytes(target, content.encode("utf-8", "backslashreplace"), private=private)
