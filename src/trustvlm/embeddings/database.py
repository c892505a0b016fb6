"""Open the SQLite file of the store, and put a damaged one out of the way."""

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

SCHEMA_VERSION = 1
_BUSY_SECONDS = 30.0
_SCHEMA = (
    """
    CREATE TABLE encoders (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE embeddings (
        encoder INTEGER NOT NULL,
        content TEXT NOT NULL,
        dim INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        used INTEGER NOT NULL,
        vector BLOB NOT NULL,
        UNIQUE (encoder, content)
    )
    """,
    "CREATE INDEX embeddings_by_use ON embeddings (used)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class OtherVersionError(Exception):
    """The file was written by a trustvlm with another layout of the store."""


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open or create the database; None keeps it in memory.

    Raises
    ------
    OSError, sqlite3.Error
        If the folder or file cannot be used.
    OtherVersionError
        If the file has another layout.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # transactions are begun explicitly
        check_same_thread=False,  # the store holds a lock
    )
    try:
        # Both have an effect only before the first table; small pages waste up to half.
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _use_write_ahead_log(connection)
        # With the log, this loses no committed chunk when the process is killed.
        connection.execute("PRAGMA synchronous = NORMAL")
        _create_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for its lock here, so two processes that start at once must.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version != SCHEMA_VERSION and (version, tables) != (0, 0):
            raise OtherVersionError(f"its layout is {version}, and {SCHEMA_VERSION} is needed")
        if tables == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file's content is damaged."""
    # A table that the version number promises and that is missing is damage as well.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and (
        code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or str(error).startswith(("no such table", "no such column", "malformed"))
    )


def move_aside(path: Path) -> Path:
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


# A database that never stops the work it serves.

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
