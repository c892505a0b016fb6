"""Decoders that hang, as one in a C library would that lets other threads run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from trustvlm.embeddings import prefetch
from trustvlm.embeddings.prefetch import n_hanging
from trustvlm.images import Limits


@dataclass(frozen=True)
class Sleep:
    """A task of a `DecodingPool` that hangs."""

    name: str = "hangs"
    seconds: float = 300.0
    limits: Limits = field(default_factory=Limits)
    content: bytes = b""

    def run(self) -> list[bytes]:
        """Hang, in the process."""
        time.sleep(self.seconds)
        return []

    def result(self, parts: Sequence[bytes]) -> list[bytes]:
        """Return nothing in particular."""
        return list(parts)


def hang_on(part: str) -> threading.Event:
    """Let decoding never end for images with this in their name, until the event is set."""
    released, decode = threading.Event(), prefetch.decode

    def hanging(content, limits, *, name, **rest):
        if part in name:
            released.wait()
        return decode(content, limits, name=name, **rest)

    prefetch.decode = hanging
    return released


@contextmanager
def decoders_that_hang_on(part: str) -> Iterator[threading.Event]:
    """Do so inside the block; in the end wait until no thread hangs any more."""
    decode = prefetch.decode
    released = hang_on(part)
    try:
        yield released
    finally:
        prefetch.decode = decode
        released.set()
        wait_until_none_hangs()


def wait_until_none_hangs() -> None:
    """Wait until the threads that were given up have come back."""
    for _ in range(1000):
        if not n_hanging():
            return
        time.sleep(0.01)
    raise AssertionError(f"{n_hanging()} threads hang for ever")
