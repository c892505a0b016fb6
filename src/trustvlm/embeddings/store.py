"""The content-addressed store of embeddings, shared by runs and processes."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import cache_dir
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.sqlite import is_damage, open_database, transaction

T = TypeVar("T")

# The tables of the store.

SCHEMA_VERSION = 1
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
)
_SETTINGS = (
    "page_size = 16384",  # small pages would waste up to half
    "auto_vacuum = INCREMENTAL",
    # With the write-ahead log, this loses no committed chunk when the process is killed.
    "synchronous = NORMAL",
    # Keys fall all over the index. One of a million vectors, of 30 MB, fits into 64 MiB, and the
    # log of as many collects what changes in a page before it goes to the file, which is synced.
    "cache_size = -65536",
    "wal_autocheckpoint = 4096",
    # What would undo a statement is never written to a file.
    "temp_store = MEMORY",
)
# SHA-256 of contents are kept as their first 16 bytes: 128 bits, of which any two of 10^12 images
# agree with a probability below 2 in 10^15. Each commit rewrites the pages of the index that its
# keys fall into, which are random ones, so that its size is what storing small images costs.
# Rows of older versions have all 64 hexadecimal digits, as text; both are looked up.
_KEY_BYTES = 16
_DIGEST = re.compile("[0-9a-f]{64}").fullmatch


def stored_key(key: str) -> bytes | str:
    """Return a key as new rows have it: a SHA-256 shortened to bytes, anything else as it is."""
    return bytes.fromhex(key[: 2 * _KEY_BYTES]) if _DIGEST(key) else key


def checksum(fingerprint: str, key: str, blob: bytes) -> int:
    """Return a CRC-32 over a vector's bytes and whose it is, so that damage is never believed.

    It covers the key as well: a vector that a damaged index files under another image is
    noticed too.
    """
    return zlib.crc32(blob, zlib.crc32(f"{fingerprint}:{key}".encode()))


# What a store holds, in numbers.


@dataclass(frozen=True)
class EncoderStats:
    """The vectors of one encoder.

    Attributes
    ----------
    fingerprint
        Of its weights, settings and preprocessing.
    spec
        What the user called it when it last stored something.
    entries
        Number of vectors, of images and texts.
    bytes
        Their size.
    last_used
        Seconds since 1970, to the day.
    """

    fingerprint: str
    spec: str
    entries: int
    bytes: int
    last_used: float


@dataclass(frozen=True)
class StoreStats:
    """The whole store.

    Attributes
    ----------
    path
        The database file; None for a store in memory.
    entries, bytes
        Number and size of all vectors.
    file_bytes
        Size of the database with its log on disk; 0 for a store in memory.
    encoders
        One entry each, the last used first.
    """

    path: Path | None
    entries: int
    bytes: int
    file_bytes: int
    encoders: tuple[EncoderStats, ...]


# The statements that look vectors up and put them in.

_DAY = 86_400
# SQLite allows 999 variables in one statement where it is old.
_VARIABLES = 500
_ROWS = _VARIABLES // 6


def select(
    connection: sqlite3.Connection, fingerprint: str, keys: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the undamaged vectors among some keys."""
    vectors: dict[str, NDArray[np.float32]] = {}
    stale: list[int] = []
    now = int(time.time())
    encoder = connection.execute(
        # Texts come before bytes in the index.
        "SELECT id, EXISTS (SELECT 1 FROM embeddings WHERE encoder = id AND content < x'') "
        "FROM encoders WHERE fingerprint = ?",
        (fingerprint,),
    ).fetchone()
    if encoder is None:
        return vectors
    number, has_texts = encoder
    # Each key by what its row may have.
    names: dict[bytes | str, str] = {stored_key(key): key for key in keys}
    if has_texts:
        names |= {key: key for key in keys}
    forms = list(names)
    whose = zlib.crc32(f"{fingerprint}:".encode())
    for start in range(0, len(forms), _VARIABLES):
        part = forms[start : start + _VARIABLES]
        marks = ",".join("?" * len(part))
        rows = connection.execute(
            "SELECT rowid, content, dim, vector, checksum, used FROM embeddings "  # noqa: S608
            f"WHERE encoder = ? AND content IN ({marks})",
            (number, *part),
        )
        for row, form, dim, blob, check, used in rows:
            key = names[form]
            whole = isinstance(blob, bytes) and len(blob) == 4 * dim
            if whole and zlib.crc32(blob, zlib.crc32(key.encode(), whose)) == check:
                vectors[key] = np.frombuffer(blob, "<f4").astype(np.float32, copy=False)
                if used < now - _DAY:
                    stale.append(row)
    if stale:
        # To the day is exact enough for pruning, and keeps reading from being writing.
        with transaction(connection):
            connection.executemany(
                "UPDATE embeddings SET used = ? WHERE rowid = ?", ((now, row) for row in stale)
            )
    return vectors


@dataclass(frozen=True)
class NewVectors:
    """Vectors of one encoder that are to be stored, by key, and what the encoder is called."""

    fingerprint: str
    spec: str
    vectors: Mapping[str, NDArray[np.float32]]

    def packed(self) -> dict[str, bytes]:
        """Return them as the store keeps them; InputError if one is not a finite vector."""
        packed = {}
        for key, given in self.vectors.items():
            vector = np.asarray(given)
            if vector.ndim != 1 or vector.dtype != np.float32 or not np.isfinite(vector).all():
                raise InputError(
                    "Expected an embedding to be (dim,) finite float32, but got shape "
                    f"{vector.shape} of {vector.dtype}."
                )
            packed[key] = vector.astype("<f4", copy=False).tobytes()
        return packed


def insert(
    connection: sqlite3.Connection, new: Iterable[tuple[NewVectors, Mapping[str, bytes]]]
) -> None:
    """Store packed vectors, all or none; a stored one is replaced."""
    now = int(time.time())
    with transaction(connection):
        for encoder, packed in new:
            fingerprint = encoder.fingerprint
            connection.execute(
                "INSERT INTO encoders (fingerprint, spec) VALUES (?, ?) "
                "ON CONFLICT (fingerprint) DO UPDATE SET spec = excluded.spec "
                "WHERE excluded.spec != ''",
                (fingerprint, encoder.spec),
            )
            (number,) = connection.execute(
                "SELECT id FROM encoders WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
            rows = [
                (
                    number,
                    stored_key(key),
                    len(blob) // 4,
                    checksum(fingerprint, key, blob),
                    now,
                    blob,
                )
                for key, blob in sorted(packed.items())
            ]
            # Other threads get their turn after each statement, and not after each row.
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                marks = ",".join(["(?, ?, ?, ?, ?, ?)"] * len(part))
                connection.execute(
                    "INSERT OR REPLACE INTO embeddings "  # noqa: S608
                    f"(encoder, content, dim, checksum, used, vector) VALUES {marks}",
                    [value for row in part for value in row],
                )


# Count and remove what a store holds.


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
    encoders = connection.execute("SELECT id, fingerprint, spec FROM encoders").fetchall()
    ids = [
        number
        for number, fingerprint, spec in encoders
        if encoder is None or spec == encoder or (encoder and fingerprint.startswith(encoder))
    ]
    if encoder is not None and not ids:
        specs = ", ".join(sorted({repr(spec) for _, _, spec in encoders})) or "none"
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


# The content-addressed store of embeddings, shared by runs and processes.


class EmbeddingStore:
    """Vectors by content and encoder, in one SQLite file.

    A vector is looked up by the SHA-256 of what it was computed from and the fingerprint of
    what computed it: other weights, settings or preprocessing have another one, and so have, for
    images, other versions of Pillow and its decoders (`images.formats.pixel_versions`). The
    versions of torch, transformers and ONNX Runtime, and the device, are not part of it: they
    change the last digits (docs/models.md).
    Several threads and processes may use one store. A store does not stop the work it serves:
    where the file cannot be used, a warning says so and vectors are kept in memory; a damaged file
    is moved aside and begun anew; a damaged row is not returned.

    Parameters
    ----------
    path
        The database file; by default `embeddings.sqlite` in `cache_dir()`. As in SQLite,
        `:memory:` is none: the store lives as long as this object.

    Attributes
    ----------
    path
        The database file; None for a store in memory, and once a file had to be given up.

    Warns
    -----
    TrustVLMWarning
        If the file is damaged or cannot be used.

    Examples
    --------
    >>> store = EmbeddingStore.memory()
    >>> store.put_many("fingerprint", {"cat": np.ones(3, dtype=np.float32)}, spec="demo")
    >>> store.get_many("fingerprint", ["cat", "dog"])
    {'cat': array([1., 1., 1.], dtype=float32)}
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        file = cache_dir() / "embeddings.sqlite" if path is None else Path(path)
        self.path = None if path == ":memory:" else file
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closer: weakref.finalize[[], EmbeddingStore] | None = None
        self._process = os.getpid()
        self._file: tuple[int, int] | None = None
        # Trouble is reported when the store is made, not in the middle of a run.
        self._run(lambda connection: connection.total_changes)

    @classmethod
    def memory(cls) -> EmbeddingStore:
        """Return a store that lives as long as this object and leaves nothing on disk."""
        return cls(":memory:")

    def get_many(self, fingerprint: str, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Look up vectors.

        Parameters
        ----------
        fingerprint
            Of the encoder, with its preprocessing.
        keys
            SHA-256 of the contents, in hex.

        Returns
        -------
        dict
            `(dim,)` float32, read-only, for each key that is stored undamaged.
        """
        keys = list(keys)
        return self._run(lambda connection: select(connection, fingerprint, keys))

    def put_many(
        self, fingerprint: str, vectors: Mapping[str, NDArray[np.float32]], *, spec: str = ""
    ) -> None:
        """Store vectors in one transaction: all of them are kept, or none.

        Parameters
        ----------
        fingerprint
            Of the encoder, with its preprocessing.
        vectors
            `(dim,)` each, by the SHA-256 of the content; a stored one is replaced.
        spec
            The encoder's readable name, for `stats`.

        Raises
        ------
        InputError
            If something is not a finite vector.
        """
        self.put_all([NewVectors(fingerprint, spec, vectors)])

    def put_all(self, new: Iterable[NewVectors]) -> None:
        """Store vectors of any number of encoders in one transaction; see `put_many`."""
        packed = [(encoder, encoder.packed()) for encoder in new if encoder.vectors]
        if packed:
            self._run(lambda connection: insert(connection, packed))

    def stats(self) -> StoreStats:
        """Count what is stored, in all and per encoder."""
        return self._run(lambda connection: measure(connection, self.path))

    def prune(
        self,
        *,
        older_than: float | timedelta | None = None,
        max_bytes: int | None = None,
        encoder: str | None = None,
    ) -> int:
        """Remove vectors and give the space back; return how many were removed.

        Parameters
        ----------
        older_than
            Seconds, or a timedelta: remove what was not used for that long.
        max_bytes
            Then remove the least recently used until the file is at most this large.
        encoder
            Remove only vectors of this encoder: its spec, its fingerprint, or how that begins.
            With `older_than`, both must hold. `max_bytes` looks at all encoders.

        Raises
        ------
        InputError
            If no condition is given (see `clear`), one is negative, or there is no such encoder.
        """
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        if seconds is None and max_bytes is None and encoder is None:
            raise InputError("Expected `older_than`, `max_bytes` or `encoder`, but got none.")
        for name, value in (("older_than", seconds), ("max_bytes", max_bytes)):
            if value is not None and not value >= 0:
                raise InputError(f"Expected `{name}` not to be negative, but got {value!r}.")
        return self._run(lambda connection: prune(connection, seconds, max_bytes, encoder))

    def clear(self) -> int:
        """Remove everything and return how many vectors that were."""
        return self._run(clear)

    def close(self) -> None:
        """Close the file; it is opened again when the store is used again."""
        if self.path is not None:
            self._disconnect()

    def __reduce__(self) -> tuple[type[EmbeddingStore], tuple[str]]:
        """Open the same file elsewhere; what a store in memory holds stays behind."""
        return type(self), (":memory:" if self.path is None else str(self.path),)

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns; it may be called again on another connection.

        One thread at a time uses the connection. After an error it is replaced: by one to a new
        file instead of a damaged one, or to the same file, which someone may have deleted and made
        again; then by one in memory.
        """
        with self._lock:
            for recover in (self._replace_damaged, self._use_memory):
                try:
                    return work(self._connected())
                except (sqlite3.Error, OSError) as error:
                    self._disconnect()
                    recover(error)
            return work(self._connected())

    def _disconnect(self) -> None:
        with self._lock:
            if self._closer is not None:
                self._closer()
            self._connection = self._closer = None

    def _connected(self) -> sqlite3.Connection:
        if self._process != os.getpid() and self.path is not None:
            # A connection must not be used on the other side of a fork, nor be closed there.
            if self._closer is not None:
                self._closer.detach()
            self._inherited = self._connection
            self._connection, self._process = None, os.getpid()
        if self._connection is None:
            self._file = _identity(self.path)
            self._connection = open_database(
                self.path, schema=_SCHEMA, version=SCHEMA_VERSION, settings=_SETTINGS
            )
            self._closer = weakref.finalize(self, self._connection.close)
            self._file = _identity(self.path)
        return self._connection

    def _replace_damaged(self, error: sqlite3.Error | OSError) -> None:
        # If another file stands there by now, another process has already replaced this one.
        if not is_damage(error) or self.path is None or _identity(self.path) != self._file:
            return
        try:
            aside = _move_aside(self.path)
        except OSError:
            return
        _warn(
            f"The embedding store {self.path} was damaged ({error}) and is begun anew; "
            f"the damaged file is kept as {aside.name}."
        )

    def _use_memory(self, error: sqlite3.Error | OSError) -> None:
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


# A store that keeps nothing, for work so large that its vectors would fill the disk.


class NullStore(EmbeddingStore):
    """Keeps no vectors: every image is encoded each time it comes.

    Examples
    --------
    >>> store = NullStore()
    >>> store.put_many("fingerprint", {"cat": np.ones(3, dtype=np.float32)})
    >>> store.get_many("fingerprint", ["cat"])
    {}
    """

    def __init__(self, path: str = ":memory:") -> None:  # noqa: ARG002
        super().__init__(":memory:")

    def get_many(
        self,
        fingerprint: str,  # noqa: ARG002
        keys: Iterable[str],  # noqa: ARG002
    ) -> dict[str, NDArray[np.float32]]:
        """Return no vectors."""
        return {}

    def put_many(
        self, fingerprint: str, vectors: Mapping[str, NDArray[np.float32]], *, spec: str = ""
    ) -> None:
        """Keep nothing."""

    def put_all(self, new: Iterable[NewVectors]) -> None:
        """Keep nothing."""
