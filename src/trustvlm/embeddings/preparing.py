"""From files to what encoders still have to see, in threads that run ahead of the encoders."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.cores import usable_cores
from trustvlm.embeddings.profile import Profile
from trustvlm.embeddings.store import EmbeddingStore
from trustvlm.exceptions import ImageError
from trustvlm.images import ImageSource, Limits, content_hash, decode
from trustvlm.images.kinds import refusal
from trustvlm.models.base import ImageEncoder
from trustvlm.models.preprocessing import Preprocessing

__all__ = ["Prepared", "Wanted", "pixels_key", "run_ahead"]

S = TypeVar("S", bound=ImageSource)
T = TypeVar("T")

_THREADS = "trustvlm-decode"


@dataclass(frozen=True)
class Prepared:
    """One image, read and, where an encoder has to see it, decoded.

    Attributes
    ----------
    path
        Its name.
    digest
        SHA-256 of its bytes; "" if it could not be read.
    owner
        False if another image of the chunk has the same bytes and was prepared in its place.
    error
        Why it cannot be encoded.
    found
        Stored vectors by fingerprint.
    pixels
        `(height, width, 3)` uint8 for each preprocessing that a missing vector needs.
    """

    path: str
    digest: str = ""
    owner: bool = True
    error: ImageError | None = None
    found: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    pixels: Mapping[Preprocessing, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What to look up and to prepare for: the encoders by fingerprint, the store, the limits.

    `profile` learns where the time goes.
    """

    encoders: Mapping[str, ImageEncoder]
    store: EmbeddingStore
    limits: Limits
    profile: Profile = field(default_factory=Profile)


def pixels_key(preprocessing: Preprocessing) -> Preprocessing:
    """Return what decides on the pixels: everything but mean and standard deviation."""
    return replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def run_ahead(
    chunks: Iterable[Sequence[S]], wanted: Wanted, workers: int | None, *, chunk_size: int
) -> Generator[list[Prepared], None, None]:
    """Yield each chunk prepared, in order, while threads prepare the next few.

    The pool is shut down when the generator ends, is closed, or is left by an exception.
    """
    workers = workers or default_workers()
    # Enough to keep every thread busy while an encoder runs, and no more: this bounds the memory.
    ahead = 1 + max(1, -(-2 * workers // max(chunk_size, 1)))
    pool = ThreadPoolExecutor(workers, thread_name_prefix=_THREADS)
    running: deque[list[Future[Prepared]]] = deque()
    todo = iter(chunks)
    try:
        while True:
            while len(running) <= ahead and (chunk := next(todo, None)) is not None:
                running.append(_submit(pool, chunk, wanted))
            if not running:
                return
            yield [future.result() for future in running.popleft()]
    finally:
        # The garbage collector may close this generator in one of the pool's own threads, which
        # cannot wait for itself.
        own = threading.current_thread().name.startswith(_THREADS)
        pool.shutdown(wait=not own, cancel_futures=True)


def default_workers() -> int:
    """Return how many threads decode: one per core that this process may use, at most 8."""
    return min(8, usable_cores())


def _submit(pool: ThreadPoolExecutor, chunk: Sequence[S], wanted: Wanted) -> list[Future[Prepared]]:
    claims = _Claims()
    return [pool.submit(_prepare, ref, claims, wanted) for ref in chunk]


class _Claims:
    """Lets one of several images with the same bytes be decoded for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    def take(self, digest: str) -> bool:
        with self._lock:
            if digest in self._taken:
                return False
            self._taken.add(digest)
            return True


def _prepare(ref: ImageSource, claims: _Claims, wanted: Wanted) -> Prepared:
    with wanted.profile.stage("reading"):
        content = _guarded(ref, lambda: ref.read(wanted.limits))
        if isinstance(content, ImageError):
            return Prepared(ref.path, error=content)
        digest = content_hash(content)
    if not claims.take(digest):
        return Prepared(ref.path, digest, owner=False)
    found: dict[str, NDArray[np.float32]] = {}
    missing: dict[Preprocessing, Preprocessing] = {}
    for fingerprint, encoder in wanted.encoders.items():
        with wanted.profile.stage("looking up"):
            vector = wanted.store.get_many(fingerprint, [digest]).get(digest)
        if vector is not None and vector.shape == (encoder.dim,):
            found[fingerprint] = vector
        else:
            missing[pixels_key(encoder.preprocessing)] = encoder.preprocessing
    if not missing:
        return Prepared(ref.path, digest, found=found)
    pixels = _guarded(ref, lambda: _pixels(content, ref.path, missing, wanted))
    if isinstance(pixels, ImageError):
        return Prepared(ref.path, digest, error=pixels, found=found)
    return Prepared(ref.path, digest, found=found, pixels=pixels)


def _pixels(
    content: bytes, name: str, needed: Mapping[Preprocessing, Preprocessing], wanted: Wanted
) -> dict[Preprocessing, NDArray[np.uint8]]:
    images: dict[int | None, Image.Image] = {}
    for enough in {preprocessing.enough for preprocessing in needed.values()}:
        with wanted.profile.stage("decoding"):
            images[enough] = decode(content, wanted.limits, name=name, enough=enough)
    with wanted.profile.stage("resizing"):
        return {key: wished.pixels(images[wished.enough]) for key, wished in needed.items()}


def _guarded(ref: ImageSource, work: Callable[[], T]) -> T | ImageError:
    """Turn whatever goes wrong with one image into that image's error."""
    try:
        return work()
    except ImageError as error:
        return error
    except MemoryError:
        what, remedy = "there is not enough memory to decode it", "Make the image smaller"
        return refusal("memory", ref.path, what, remedy)
    except Exception as error:
        what = f"it failed with {type(error).__name__} ({error})"
        return refusal("unexpected", ref.path, what, "Leave it out, and report this as a bug")
