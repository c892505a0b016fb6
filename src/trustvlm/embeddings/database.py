"""A SQLite database that never stops the work it serves."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trustvlm.exceptions import TrustVLMWarning
from trustvlm.sqlite import is_damage

T = TypeVar("T")


class ResilientDatabase:
    """One connection, used by one thread at a time, and replaced when it fails.

    A damaged file is moved aside and begun anew. A file that cannot be used at all is given up
    for a database in memory. A warning says so in both cases.

    Parameters
    ----------
    path
        The file; None for a database in memory.
    connect
        Opens the database at a path, or one in memory for None.

    Attributes
    ----------
    path
        As given; None once the file was given up.
    """

    def __init__(
        self, path: Path | None, connect: Callable[[Path | None], sqlite3.Connection]
    ) -> None:
        self.path = path
        self._connect = connect
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closer: weakref.finalize[[], ResilientDatabase] | None = None
        self._process = os.getpid()
        self._file: tuple[int, int] | None = None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns; it may be called again on another connection."""
        with self._lock:
            try:
                return work(self._open())
            except (sqlite3.Error, OSError) as error:
                self.close()
                if is_damage(error):
                    self._replace_damaged(error)
            # Once more: on a new file in place of a damaged one, or on the same file, which
            # someone may have deleted and made again.
            try:
                return work(self._open())
            except (sqlite3.Error, OSError) as error:
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
            self._connection = self._connect(self.path)
            self._closer = weakref.finalize(self, self._connection.close)
            self._file = _identity(self.path)
        return self._connection

    def _replace_damaged(self, error: BaseException) -> None:
        # If another file stands there by now, another process has already replaced this one.
        if self.path is None or _identity(self.path) != self._file:
            return
        try:
            aside = _move_aside(self.path)
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


def _move_aside(path: Path) -> Path:
    """Rename a damaged database, with its log, and return its new name.

    The log goes first: a log that stayed behind would be replayed into the next database.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 0
    while (target := path.with_name(f"{path.name}.damaged-{stamp}-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(target.with_name(target.name + suffix))
    return target


def _warn(message: str) -> None:
    warnings.warn(message, TrustVLMWarning, stacklevel=5)
