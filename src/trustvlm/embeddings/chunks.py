"""What encoding gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import ImageError
from trustvlm.images import ImageSource

__all__ = ["Chunk", "joined"]

S = TypeVar("S", bound=ImageSource)


@dataclass(frozen=True)
class Chunk(Generic[S]):
    """Some consecutive images with their embeddings.

    Attributes
    ----------
    refs
        The n images, in input order.
    hashes
        SHA-256 of each image's bytes; "" where there were none to read.
    errors
        Why an image has no embedding; None where it has one.
    embeddings
        `(n, dim)` float32 by the encoder's name, not L2-normalised; rows of NaN for images with
        an error.
    """

    refs: tuple[S, ...]
    hashes: tuple[str, ...]
    errors: tuple[ImageError | None, ...]
    embeddings: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """`(n,)` bool, True where there is no error."""
        return np.array([error is None for error in self.errors], dtype=bool)


def joined(chunks: Sequence[Chunk[S]], dims: dict[str, int]) -> Chunk[S]:
    """Put chunks one after the other; `dims` gives the widths, should there be no chunk."""
    return Chunk(
        refs=tuple(ref for chunk in chunks for ref in chunk.refs),
        hashes=tuple(digest for chunk in chunks for digest in chunk.hashes),
        errors=tuple(error for chunk in chunks for error in chunk.errors),
        embeddings={
            name: np.concatenate(
                [np.empty((0, dim), np.float32)] + [chunk.embeddings[name] for chunk in chunks]
            )
            for name, dim in dims.items()
        },
    )
