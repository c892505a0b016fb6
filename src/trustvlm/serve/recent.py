"""Embeddings of recent images, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import EmbeddingStore

__all__ = ["RecentEmbeddings"]


class RecentEmbeddings(EmbeddingStore):
    """A store that forgets the least recently used vectors and leaves nothing on disk.

    A service sees images of other people: it should neither keep them nor grow.

    Parameters
    ----------
    capacity
        Vectors to keep; 0 keeps none.

    Examples
    --------
    >>> store = RecentEmbeddings(1)
    >>> store.put_many("f", {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    >>> store.get_many("f", ["a", "b"])
    {'b': array([1., 1.], dtype=float32)}
    """

    def __init__(self, capacity: int) -> None:
        super()._use(None)
        self._capacity = capacity
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self._turn = threading.Lock()

    def get_many(self, fingerprint: str, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Look up vectors; see `EmbeddingStore.get_many`."""
        found = {}
        with self._turn:
            for key in keys:
                vector = self._vectors.get((fingerprint, key))
                if vector is not None:
                    self._vectors.move_to_end((fingerprint, key))
                    found[key] = vector
        return found

    def put_many(
        self,
        fingerprint: str,
        vectors: Mapping[str, NDArray[np.float32]],
        *,
        spec: str = "",  # noqa: ARG002
    ) -> None:
        """Store vectors; see `EmbeddingStore.put_many`."""
        with self._turn:
            for key, vector in vectors.items():
                # A copy, because a row of a batch would keep the whole batch alive.
                self._vectors[fingerprint, key] = vector.copy()
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
