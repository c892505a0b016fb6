"""The statements that look vectors up and put them in."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings.rows import checksum, unpack

__all__ = ["insert", "select", "transaction"]

_DAY = 86_400
# SQLite allows 999 variables in one statement where it is old.
_VARIABLES = 500


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


def select(
    connection: sqlite3.Connection, fingerprint: str, keys: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the undamaged vectors among some keys."""
    found: dict[str, NDArray[np.float32]] = {}
    stale: list[int] = []
    now = int(time.time())
    for start in range(0, len(keys), _VARIABLES):
        part = keys[start : start + _VARIABLES]
        marks = ",".join("?" * len(part))
        rows = connection.execute(
            "SELECT rowid, content, dim, vector, checksum, used FROM embeddings "  # noqa: S608
            "WHERE encoder = (SELECT id FROM encoders WHERE fingerprint = ?) "
            f"AND content IN ({marks})",
            (fingerprint, *part),
        )
        for row, key, dim, blob, check, used in rows:
            vector = unpack(fingerprint, key, dim, blob, check)
            if vector is not None:
                found[key] = vector
                if used < now - _DAY:
                    stale.append(row)
    if stale:
        # To the day is exact enough for pruning, and keeps reading from being writing.
        with transaction(connection):
            connection.executemany(
                "UPDATE embeddings SET used = ? WHERE rowid = ?", ((now, row) for row in stale)
            )
    return found


def insert(
    connection: sqlite3.Connection, fingerprint: str, spec: str, packed: Mapping[str, bytes]
) -> None:
    """Store packed vectors, all or none; a stored one is replaced."""
    now = int(time.time())
    with transaction(connection):
        connection.execute(
            "INSERT INTO encoders (fingerprint, spec) VALUES (?, ?) "
            "ON CONFLICT (fingerprint) DO UPDATE SET spec = excluded.spec "
            "WHERE excluded.spec != ''",
            (fingerprint, spec),
        )
        (encoder,) = connection.execute(
            "SELECT id FROM encoders WHERE fingerprint = ?", (fingerprint,)
        ).fetchone()
        connection.executemany(
            "INSERT OR REPLACE INTO embeddings (encoder, content, dim, checksum, used, vector) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                (encoder, key, len(blob) // 4, checksum(fingerprint, key, blob), now, blob)
                for key, blob in packed.items()
            ),
        )
