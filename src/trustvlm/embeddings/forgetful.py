"""A store that keeps nothing, for work so large that its vectors would fill the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings.store import EmbeddingStore

__all__ = ["ForgetfulStore"]


class ForgetfulStore(EmbeddingStore):
    """Knows no vector and keeps none: every image is encoded each time it comes.

    Examples
    --------
    >>> store = ForgetfulStore()
    >>> store.put_many("fingerprint", {"cat": np.ones(3, dtype=np.float32)})
    >>> store.get_many("fingerprint", ["cat"])
    {}
    """

    def __init__(self) -> None:
        self._use(None)

    @property
    def path(self) -> Path | None:
        """None: there is no file."""
        return None

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
