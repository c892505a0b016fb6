"""Read a file's bytes, or say why that cannot be done; ask distant servers again."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import IO

from trustvlm.exceptions import ImageError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal


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
    mode = file.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "it is a pipe, a socket or a device; copy it to a regular file"
        raise OSError(errno.EINVAL, what, os.fspath(file))
    return file.open("rb")


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
        reason, remedy = f"{type(error).__name__}: {error}", "Check the network"
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
