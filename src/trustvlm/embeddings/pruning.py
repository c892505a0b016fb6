"""Count and remove what a store holds."""

from __future__ import annotations

import math
import sqlite3
import time
from pathlib import Path

from trustvlm.embeddings.queries import transaction
from trustvlm.embeddings.statistics import EncoderStats, StoreStats
from trustvlm.exceptions import InputError

__all__ = ["clear", "measure", "prune"]


def measure(connection: sqlite3.Connection, path: Path | None) -> StoreStats:
    """Count entries and bytes per encoder."""
    rows = connection.execute(
        "SELECT fingerprint, spec, count(*), 4 * sum(dim), max(used) FROM embeddings "
        "JOIN encoders ON encoders.id = embeddings.encoder GROUP BY encoders.id "
        "ORDER BY max(used) DESC, spec, fingerprint"
    )
    encoders = tuple(EncoderStats(*row) for row in rows)
    return StoreStats(
        path=path,
        entries=sum(encoder.entries for encoder in encoders),
        bytes=sum(encoder.bytes for encoder in encoders),
        file_bytes=0 if path is None else _size_on_disk(path),
        encoders=encoders,
    )


def prune(
    connection: sqlite3.Connection,
    older_than: float | None,
    max_bytes: int | None,
    encoder: str | None,
) -> int:
    """Remove by age in seconds and encoder, then by size; return how many rows went."""
    removed = 0
    if older_than is not None or encoder is not None:
        ids = _encoder_ids(connection, encoder)
        before = math.inf if older_than is None else time.time() - older_than
        marks = ",".join("?" * len(ids))
        with transaction(connection):
            removed += connection.execute(
                f"DELETE FROM embeddings WHERE used <= ? AND encoder IN ({marks})",  # noqa: S608
                (before, *ids),
            ).rowcount
    if max_bytes is not None:
        removed += _shrink(connection, max_bytes)
    _give_back_space(connection)
    return removed


def clear(connection: sqlite3.Connection) -> int:
    """Remove everything."""
    with transaction(connection):
        removed = connection.execute("DELETE FROM embeddings WHERE true").rowcount
        connection.execute("DELETE FROM encoders")
    _give_back_space(connection)
    return removed


def _encoder_ids(connection: sqlite3.Connection, encoder: str | None) -> list[int]:
    known = connection.execute("SELECT id, fingerprint, spec FROM encoders").fetchall()
    ids = [
        number
        for number, fingerprint, spec in known
        if encoder is None or spec == encoder or (encoder and fingerprint.startswith(encoder))
    ]
    if encoder is not None and not ids:
        specs = ", ".join(sorted({repr(spec) for _, _, spec in known})) or "none"
        raise InputError(
            f"Expected `encoder` to name one whose vectors are stored, but got {encoder!r}. "
            f"There are: {specs}."
        )
    return ids


def _shrink(connection: sqlite3.Connection, max_bytes: int) -> int:
    removed = 0
    while (used := _bytes_in_use(connection)) > max_bytes:
        (entries,) = connection.execute("SELECT count(*) FROM embeddings").fetchone()
        if entries == 0:
            break
        # Vectors have about one size; what the estimate leaves over, the next round removes.
        surplus = math.ceil(entries * (1 - max_bytes / used))
        with transaction(connection):
            removed += connection.execute(
                "DELETE FROM embeddings WHERE rowid IN "
                "(SELECT rowid FROM embeddings ORDER BY used, rowid LIMIT ?)",
                (surplus,),
            ).rowcount
    return removed


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _give_back_space(connection: sqlite3.Connection) -> None:
    # `execute` would stop after one page, since the statement has no columns.
    connection.executescript("PRAGMA incremental_vacuum")
    # Without this the log would stay as long as it ever was.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _size_on_disk(path: Path) -> int:
    parts = (path.with_name(path.name + suffix) for suffix in ("", "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())
