"""Keep on disk what follows from the weights, and notice when the copy is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

from trustvlm.cache_dir import cache_dir
from trustvlm.files import write_bytes

__all__ = ["derived"]


def derived(name: str, key: str, suffix: str, compute: Callable[[], bytes]) -> bytes:
    """Return the stored result of an earlier computation, or compute and store it.

    The file's name ends in the SHA-256 of its content. A copy that does not match its name is
    removed and computed anew. A folder that cannot be written costs time, nothing else.

    Parameters
    ----------
    name
        What it is, for people who look into the cache.
    key
        Everything that the result depends on; any text.
    suffix
        Ending of the file name.
    compute
        Gives the content.

    Examples
    --------
    >>> import os, tempfile
    >>> from unittest.mock import patch
    >>> with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TRUSTVLM_CACHE=folder):
    ...     first = derived("example", "1", ".bin", lambda: b"computed")
    ...     second = derived("example", "1", ".bin", lambda: b"not called")
    >>> second
    b'computed'
    """
    folder = cache_dir() / "offline"
    stem = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    for path in sorted(folder.glob(f"{stem}-*{suffix}")):
        with suppress(OSError):
            content = path.read_bytes()
            if path.name == _file_name(stem, suffix, content):
                return content
            path.unlink()
    content = compute()
    with suppress(OSError):
        write_bytes(folder / _file_name(stem, suffix, content), content)
    return content


def _file_name(stem: str, suffix: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()}{suffix}"
