"""A database that never stops the work it serves."""

from __future__ import annotations

import os
import sqlite3
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trustvlm.embeddings.database import OtherVersionError, is_damage, move_aside, open_database
from trustvlm.exceptions import TrustVLMWarning

__all__ = ["GuardedDatabase"]

T = TypeVar("T")


class GuardedDatabase:
    """One connection, used by one thread at a time, and replaced when it fails.

    A damaged file is moved aside and begun anew. A file that cannot be used at all is given up
    for a database in memory. Both are told in a warning.

    Parameters
    ----------
    path
        The file; None for a database in memory.

    Attributes
    ----------
    path
        As given; None once the file was given up.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closer: weakref.finalize[[], GuardedDatabase] | None = None
        self._process = os.getpid()
        self._file: tuple[int, int] | None = None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns; it may be called again on another connection."""
        with self._lock:
            try:
                return work(self._open())
            except (sqlite3.Error, OSError, OtherVersionError) as error:
                self.close()
                if is_damage(error):
                    self._replace_damaged(error)
            # Once more: on a new file in place of a damaged one, or on the same file, which
            # someone may have deleted and made again.
            try:
                return work(self._open())
            except (sqlite3.Error, OSError, OtherVersionError) as error:
                self.close()
                self._use_memory(error)
            return work(self._open())

    def close(self) -> None:
        """Close the connection; the next `run` opens another."""
        with self._lock:
            if self._closer is not None:
                self._closer()
            self._connection = self._closer = None

    def _open(self) -> sqlite3.Connection:
        if self._process != os.getpid() and self.path is not None:
            # A connection must not be used on the other side of a fork, nor be closed there.
            if self._closer is not None:
                self._closer.detach()
            self._inherited = self._connection
            self._connection, self._process = None, os.getpid()
        if self._connection is None:
            self._file = _identity(self.path)
            self._connection = open_database(self.path)
            self._closer = weakref.finalize(self, self._connection.close)
            self._file = _identity(self.path)
        return self._connection

    def _replace_damaged(self, error: BaseException) -> None:
        # If another file stands there by now, another process has already replaced this one.
        if self.path is None or _identity(self.path) != self._file:
            return
        try:
            aside = move_aside(self.path)
        except OSError:
            return
        _warn(
            f"The embedding store {self.path} was damaged ({error}) and is begun anew; "
            f"the damaged file is kept as {aside.name}."
        )

    def _use_memory(self, error: BaseException) -> None:
        _warn(
            f"The embedding store {self.path} cannot be used ({error}); embeddings are kept in "
            "memory until the program ends. Set TRUSTVLM_CACHE to a folder that you may write to."
        )
        self.path = None


def _identity(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)


def _warn(message: str) -> None:
    warnings.warn(message, TrustVLMWarning, stacklevel=5)
