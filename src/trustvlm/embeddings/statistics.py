"""What a store holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["EncoderStats", "StoreStats"]


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
