"""How one vector is kept as bytes, so that damage is noticed and never believed."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError

__all__ = ["checksum", "pack", "unpack"]


def checksum(fingerprint: str, key: str, blob: bytes) -> int:
    """Return a CRC-32 over the vector and whose it is.

    It covers the key as well: a vector that a damaged index files under another image is found
    out too.
    """
    return zlib.crc32(blob, zlib.crc32(f"{fingerprint}:{key}".encode()))


def pack(vector: NDArray[np.float32]) -> bytes:
    """Return the bytes of a vector: float32, little-endian.

    Raises
    ------
    InputError
        If it is not `(dim,)` finite float32.
    """
    vector = np.asarray(vector)
    if vector.ndim != 1 or vector.dtype != np.float32 or not np.isfinite(vector).all():
        raise InputError(
            "Expected an embedding to be (dim,) finite float32, but got shape "
            f"{vector.shape} of {vector.dtype}."
        )
    return vector.astype("<f4", copy=False).tobytes()


def unpack(
    fingerprint: str, key: str, dim: int, blob: bytes, check: int
) -> NDArray[np.float32] | None:
    """Return `(dim,)` float32, or None if the row is damaged.

    Examples
    --------
    >>> blob = pack(np.array([1.0, 2.0], dtype=np.float32))
    >>> unpack("f", "k", 2, blob, checksum("f", "k", blob))
    array([1., 2.], dtype=float32)
    >>> unpack("f", "k", 2, blob[:-1] + b"x", checksum("f", "k", blob)) is None
    True
    """
    if (
        not isinstance(blob, bytes)
        or len(blob) != 4 * dim
        or checksum(fingerprint, key, blob) != check
    ):
        return None
    return np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)
