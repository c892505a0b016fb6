"""The content-addressed store of embeddings, shared by runs and processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm.cache_dir import cache_dir
from trustvlm.embeddings import pruning
from trustvlm.embeddings.guarded import GuardedDatabase
from trustvlm.embeddings.queries import insert, select
from trustvlm.embeddings.rows import pack
from trustvlm.embeddings.statistics import StoreStats
from trustvlm.exceptions import InputError

__all__ = ["EmbeddingStore"]


class EmbeddingStore:
    """Vectors by content and encoder, in one SQLite file.

    A vector is found again by the SHA-256 of what it was computed from and the fingerprint of
    what computed it, so it can never be out of date: other weights, settings or preprocessing
    have another fingerprint. Several threads and processes may use one store. A store never
    stops the work it serves: where the file cannot be used, a warning says so and vectors are
    kept in memory; a damaged file is moved aside and begun anew; a damaged row is not returned.

    Parameters
    ----------
    path
        The database file; by default `embeddings.sqlite` in `cache_dir()`.

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
        self._use(cache_dir() / "embeddings.sqlite" if path is None else Path(path))

    @classmethod
    def memory(cls) -> EmbeddingStore:
        """Return a store that lives as long as this object and leaves nothing on disk."""
        store = cls.__new__(cls)
        store._use(None)
        return store

    @property
    def path(self) -> Path | None:
        """The database file; None for a store in memory."""
        return self._database.path

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
        return self._database.run(lambda connection: select(connection, fingerprint, keys))

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
        if not vectors:
            return
        packed = {key: pack(vector) for key, vector in vectors.items()}
        self._database.run(lambda connection: insert(connection, fingerprint, spec, packed))

    def stats(self) -> StoreStats:
        """Count what is stored, in all and per encoder."""
        return self._database.run(lambda connection: pruning.measure(connection, self.path))

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
        return self._database.run(
            lambda connection: pruning.prune(connection, seconds, max_bytes, encoder)
        )

    def clear(self) -> int:
        """Remove everything and return how many vectors that were."""
        return self._database.run(pruning.clear)

    def close(self) -> None:
        """Close the file; it is opened again when the store is used again."""
        if self.path is not None:
            self._database.close()

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _use(self, path: Path | None) -> None:
        self._database = GuardedDatabase(path)
        # Trouble is reported when the store is made, not in the middle of a run.
        self._database.run(lambda connection: connection.total_changes)
