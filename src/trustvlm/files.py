"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it onto `target` when the block succeeds.

    A reader sees the old file or the complete new one. On an exception the temporary file is
    removed and the target stays as it was. A private file can be read by its owner alone.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=f".tmp{target.suffix}", dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if not private:
            # mkstemp makes private files; the result should be as readable as any other output.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: str | os.PathLike[str], content: bytes, *, private: bool = False) -> None:
    """Write bytes to a file atomically; a private one can be read by its owner alone."""
    with atomic_path(target, private=private) as temporary:
        temporary.write_bytes(content)


def write_text(target: str | os.PathLike[str], content: str, *, private: bool = False) -> None:
    """Write UTF-8 text to a file atomically, with the line ends as given; see `write_bytes`."""
    write_bytes(target, content.encode("utf-8"), private=private)
