"""Open a SQLite file for several threads and processes, check its layout, write in transactions."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# How long to wait for another process that writes.
BUSY_SECONDS = 30.0


class OtherVersionError(sqlite3.DatabaseError):
    """The file was written by a trustvlm with another layout, or by another program."""


def open_database(
    path: Path | None,
    *,
    schema: Sequence[str],
    version: int,
    settings: Sequence[str] = (),
) -> sqlite3.Connection:
    """Open a database with a write-ahead log, or create it.

    The connection begins no transaction by itself (see `transaction`) and may be used by any
    thread, by one at a time. A new file can be read by its owner alone; its log takes after it.

    Parameters
    ----------
    path
        The file; None for a database in memory.
    schema
        Statements that make the tables of an empty database, in one transaction.
    version
        Of the layout; it is kept in the file as `user_version`.
    settings
        Pragmas such as `"synchronous = FULL"`, set before there is any table.

    Raises
    ------
    OSError, sqlite3.Error
        If the folder or file cannot be used.
    OtherVersionError
        If the file has another layout; it is left as it is.

    Examples
    --------
    >>> schema = ["CREATE TABLE labels (image TEXT PRIMARY KEY, label TEXT)"]
    >>> connection = open_database(None, schema=schema, version=1)
    >>> with transaction(connection):
    ...     _ = connection.execute("INSERT INTO labels VALUES ('a.jpg', 'cat')")
    >>> connection.execute("SELECT * FROM labels").fetchall()
    [('a.jpg', 'cat')]
    >>> connection.close()
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is there is not opened here: to close it again would release the locks that
        # other connections of this process have on it, and another process would take its log away.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for setting in settings:
            connection.execute(f"PRAGMA {setting}")
        _use_write_ahead_log(connection)
        with transaction(connection):
            (present,) = connection.execute("PRAGMA user_version").fetchone()
            (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if present != version and (present, n_tables) != (0, 0):
                raise OtherVersionError(f"its layout is {present}, and {version} is needed")
            if n_tables == 0:
                for statement in schema:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version:d}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Begin as a writer; commit at the end of the block, or undo it all on an exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file's content is damaged."""
    # A table that the version number implies and that is missing is damage as well.
    return isinstance(error, sqlite3.Error) and (
        _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or str(error).startswith(("no such table", "no such column", "malformed"))
    )


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for its lock here, so two processes that start at once must.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _code(error: sqlite3.Error) -> int:
    # The lowest byte says what it is; the others say in what part of SQLite.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
