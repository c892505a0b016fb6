"""Images and texts in, embeddings out: every vector is computed once."""

from __future__ import annotations

import atexit
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings.prefetch import (
    FORWARD,
    PrefetchSettings,
    PreparedImage,
    Profile,
    chunks_ahead,
    prefetch_chunks,
)
from trustvlm.embeddings.store import EmbeddingStore, NewVectors
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import DEFAULT_LIMITS, ImageSource, Limits, content_hash
from trustvlm.images.errors import refusal
from trustvlm.images.formats import pixel_versions
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.plugins import from_where, plugin_errors
from trustvlm.text import printable

S = TypeVar("S", bound=ImageSource)
Progress: TypeAlias = Callable[[int, int, int], None]
"""Called with images done, images in all (0 if unknown), and those done without a forward pass."""


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


def image_key(encoder: ImageEncoder) -> str:
    """Return the fingerprint under which an encoder's embeddings of images are stored.

    It holds the versions that make the pixels, too, unlike the one by which saved models know their
    encoders: with another Pillow they load, and images are encoded anew.
    """
    key = encoder.identity.storage_key(encoder.preprocessing)
    return hashlib.sha256(f"{key} {pixel_versions()}".encode()).hexdigest()


def encode_images(
    refs: Iterable[S],
    encoders: Mapping[str, ImageEncoder],
    store: EmbeddingStore,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> Iterator[Chunk[S]]:
    """Encode images chunk by chunk, computing only what the store does not have.

    Images are taken in chunks of `batch_size` by position, and what a chunk lacks is one batch of
    each encoder, committed as a whole. A run that was killed therefore repeats the very batches
    that were lost, the last few, and its result equals that of an undisturbed run to the last bit.
    Threads prefetch (read and decode) a few chunks; encoders run in the caller's thread.

    Parameters
    ----------
    refs
        The n images. An iterator is prefetched by a few chunks, so that a stream of any length
        needs the memory of those.
    encoders
        By the names under which their embeddings come back. Encoders with one fingerprint run
        once, and an image is decoded once for all of them.
    store
        Where vectors are looked up and kept.
    batch_size
        Images per chunk.
    workers
        Threads that read and decode; None for one per core, at most 8.
    limits
        Bounds on each image.
    progress
        Called after each chunk with images done, images in all (0 where `refs` has no length), and
        how many of those done needed no forward pass.
    profile
        Measures where the time goes.

    Yields
    ------
    Chunk
        `batch_size` images each, in input order; the last may have fewer. An image that cannot be
        used has an error and rows of NaN.

    Raises
    ------
    InputError
        With the first chunk if there is no encoder, or `batch_size` or `workers` is below 1; if an
        encoder returns another shape than it states. What an encoder itself raises is passed on.
    """
    if not encoders:
        raise InputError("Expected at least one encoder, but got none.")
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"Expected `{name}` to be a whole number >= 1, but got {value!r}.")
    profile = profile or Profile()
    fingerprints = {name: image_key(encoder) for name, encoder in encoders.items()}
    distinct = {fingerprints[name]: encoder for name, encoder in encoders.items()}
    names = {fingerprints[name]: name for name in reversed(list(encoders))}
    total = len(refs) if isinstance(refs, Sized) else 0
    images = iter(refs)
    parts = iter(lambda: tuple(islice(images, batch_size)), ())
    size = min(batch_size, total or batch_size)
    settings = PrefetchSettings(distinct, store, limits, profile)
    prepared_chunks = prefetch_chunks(parts, settings, workers, chunk_size=size)
    writer = StoreWriter(store, profile, chunks_ahead(workers, size))
    done = cached = 0
    try:
        while True:
            with profile.stage("waiting for images"):
                part, prepared = next(prepared_chunks, ((), []))
            if not part:
                return
            batch = Batch(part, prepared, writer, profile)
            for fingerprint, encoder in distinct.items():
                batch.complete(fingerprint, encoder, names[fingerprint])
            batch.store()
            profile.n_images += len(part)
            done += len(part)
            cached += batch.n_cached
            if progress is not None:
                progress(done, total, cached)
            yield batch.chunk(encoders, fingerprints)
    finally:
        prepared_chunks.close()
        writer.close()


def encode_all(
    refs: Iterable[S],
    encoders: Mapping[str, ImageEncoder],
    store: EmbeddingStore,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> Chunk[S]:
    """Encode images as `encode_images` does, and return them all in one chunk."""
    chunks = list(
        encode_images(
            refs,
            encoders,
            store,
            batch_size=batch_size,
            workers=workers,
            limits=limits,
            progress=progress,
            profile=profile,
        )
    )
    return Chunk(
        refs=tuple(ref for chunk in chunks for ref in chunk.refs),
        hashes=tuple(digest for chunk in chunks for digest in chunk.hashes),
        errors=tuple(error for chunk in chunks for error in chunk.errors),
        embeddings={
            name: np.concatenate(
                [np.empty((0, encoder.dim), np.float32)]
                + [chunk.embeddings[name] for chunk in chunks]
            )
            for name, encoder in encoders.items()
        },
    )


# Bytes of vectors in one commit, and that may wait: what a kill loses at most, with one chunk. At
# least one chunk is taken.
_COMMIT_BYTES, _WAITING_BYTES = 2**23, 2**24
# A commit waits for more for so many times as long as the last one took, but not beyond so many
# seconds, so that a slow disk gets few large ones.
_REST, _LONGEST_REST = 4.0, 0.5
_WRITER = "trustvlm-store"


class StoreWriter:
    """Stores the vectors of whole chunks in a thread, so that no encoder waits for the disk.

    Whatever waits when a commit begins goes into it, up to a bound: one chunk where encoders are
    slow, many where the disk is, which then has fewer pages to write.

    Parameters
    ----------
    store
        Where the vectors go.
    profile
        Measures where the time goes.
    n_ahead
        How many chunks are looked up in the store before their turn: those after which a stored
        vector is still remembered.
    """

    def __init__(self, store: EmbeddingStore, profile: Profile, n_ahead: int) -> None:
        self._store = store
        self._profile = profile
        self._n_ahead = n_ahead
        self._changed = threading.Condition()
        self._waiting: deque[list[NewVectors]] = deque()
        self._waiting_bytes = 0
        # What was stored since chunks whose turn is still to come were looked up, by the number of
        # chunks put in by then; and every vector that is on its way or among these.
        self._stored: deque[tuple[int, list[NewVectors]]] = deque()
        self._recent: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._n_put = 0
        self._error: BaseException | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def get_many(self, fingerprint: str, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return what was put in since the store was asked for the chunk whose turn it is."""
        if self._store.path is None:
            return self._store.get_many(fingerprint, keys)
        with self._changed:
            recent = {key: self._recent.get((fingerprint, key)) for key in keys}
        return {key: vector for key, vector in recent.items() if vector is not None}

    def put(self, chunk: Sequence[NewVectors]) -> None:
        """Have a chunk stored, as a whole or not at all; wait if too many wait already."""
        chunk = [new for new in chunk if new.vectors]
        if self._store.path is None:
            for new in chunk:
                self._store.put_many(new.fingerprint, new.vectors, spec=new.spec)
            return
        with self._changed:
            self._n_put += 1
            while self._stored and self._stored[0][0] < self._n_put - self._n_ahead:
                self._forget(self._stored.popleft()[1])
            for new in chunk:
                self._recent.update(((new.fingerprint, k), v) for k, v in new.vectors.items())
            if not chunk:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=_WRITER, daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._changed.wait_for(lambda: self._waiting_bytes < _WAITING_BYTES or self._error)
            self._waiting.append(list(chunk))
            self._waiting_bytes += _n_bytes(chunk)
            self._changed.notify_all()
        self._raise()

    def close(self) -> None:
        """Wait until everything is stored, and end the thread."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # The garbage collector may close a run in this thread, which cannot wait for itself.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        rest = 0.0
        while chunks := self._next(rest):
            begun = time.monotonic()
            try:
                with self._profile.stage("committing"):
                    self._store.put_all([new for chunk in chunks for new in chunk])
            except BaseException as error:
                self._error = error
            rest = min(_REST * (time.monotonic() - begun), _LONGEST_REST)
            with self._changed:
                self._stored.extend((self._n_put, chunk) for chunk in chunks)
                self._changed.notify_all()

    def _next(self, rest: float) -> list[list[NewVectors]]:
        """Wait for chunks to commit together; none once there are none to come."""
        chunks: list[list[NewVectors]] = []
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._waiting_bytes >= _COMMIT_BYTES, timeout=rest
            )
            self._changed.wait_for(lambda: self._waiting or self._closed)
            n_bytes = 0
            while self._waiting and n_bytes < _COMMIT_BYTES:
                chunks.append(self._waiting.popleft())
                n_bytes += _n_bytes(chunks[-1])
            self._waiting_bytes -= n_bytes
            self._changed.notify_all()
        return chunks

    def _forget(self, chunk: Sequence[NewVectors]) -> None:
        for new in chunk:
            for key in new.vectors:
                self._recent.pop((new.fingerprint, key), None)


def _n_bytes(chunk: Sequence[NewVectors]) -> int:
    return sum(vector.nbytes for new in chunk for vector in new.vectors.values())


class Batch(Generic[S]):
    """The prepared images of a chunk; images with the same bytes are encoded once.

    Parameters
    ----------
    refs, prepared
        The n images, and what became of each.
    writer
        Keeps computed vectors.
    profile
        Measures where the time goes.
    """

    def __init__(
        self,
        refs: Sequence[S],
        prepared: Sequence[PreparedImage],
        writer: StoreWriter,
        profile: Profile,
    ) -> None:
        self._refs = refs
        self._prepared = prepared
        self._writer = writer
        self._profile = profile
        owners = {item.digest: item for item in prepared if item.digest and item.owner}
        # The order must not depend on which of two equal images a thread came to first.
        order = dict.fromkeys(item.digest for item in prepared if item.digest)
        self._images = {digest: owners[digest] for digest in order}
        self._errors = {d: item.error for d, item in self._images.items() if item.error}
        self._vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
        self._computed: set[str] = set()
        self._new: list[NewVectors] = []

    @property
    def n_cached(self) -> int:
        """How many images needed no forward pass and have no error."""
        spared = self._images.keys() - self._computed - self._errors.keys()
        return sum(item.digest in spared for item in self._prepared)

    def complete(self, fingerprint: str, encoder: ImageEncoder, name: str) -> None:
        """Compute what this encoder lacks, in one batch; `name` is for the profile."""
        vectors = self._vectors[fingerprint] = {
            digest: item.stored[fingerprint]
            for digest, item in self._images.items()
            if fingerprint in item.stored
        }
        missing = [d for d in self._images if d not in vectors and d not in self._errors]
        if missing:
            # A chunk before this one may have computed some of them after they were looked up.
            with self._profile.stage("storing"):
                late = self._writer.get_many(fingerprint, missing)
            vectors.update((d, v) for d, v in late.items() if v.shape == (encoder.dim,))
            missing = [digest for digest in missing if digest not in vectors]
        if not missing:
            return
        self._computed.update(missing)
        pixels = np.stack([self._images[digest].pixels[fingerprint] for digest in missing])
        with self._profile.stage(f"{FORWARD}{name}"):
            computed = _forward(encoder, encoder.encode_pixels, pixels)
        finite = np.asarray(np.isfinite(computed).all(axis=1))
        # Zeros alone have no direction, and so no cosine; without a VLM there are no numbers.
        usable = finite & ((computed != 0).any(axis=1) | (encoder.dim == 0))
        fresh = {digest: computed[i] for i, digest in enumerate(missing) if usable[i]}
        self._new.append(NewVectors(fingerprint, encoder.identity.spec, fresh))
        vectors.update(fresh)
        for digest, is_finite in zip(missing, finite, strict=True):
            if digest not in fresh:
                given = "nothing but zeros" if is_finite else "NaN or infinity"
                self._errors[digest] = refusal(
                    "embedding",
                    self._images[digest].path,
                    f"the encoder {encoder.identity.spec!r} gives {given} for it",
                    "Leave it out" + ("" if is_finite else ", or run the encoder in float32"),
                )

    def store(self) -> None:
        """Store what was computed, of all encoders at once."""
        with self._profile.stage("storing"):
            self._writer.put(self._new)

    def chunk(
        self, encoders: Mapping[str, ImageEncoder], fingerprints: Mapping[str, str]
    ) -> Chunk[S]:
        """Put errors and vectors back into input order."""
        errors: list[ImageError | None] = []
        for ref, item in zip(self._refs, self._prepared, strict=True):
            error = item.error or self._errors.get(item.digest)
            if error is not None and not item.owner:
                # The message begins with the name of the image that was decoded for this one too.
                message = str(error).removeprefix(printable(self._images[item.digest].path))
                error = ImageError(error.kind, f"{printable(ref.path)}{message}")
            errors.append(error)
        embeddings = {}
        for name, encoder in encoders.items():
            rows = np.full((len(errors), encoder.dim), np.nan, dtype=np.float32)
            vectors = self._vectors[fingerprints[name]]
            for row, item, error in zip(rows, self._prepared, errors, strict=True):
                if error is None:
                    row[:] = vectors[item.digest]
            embeddings[name] = rows
        hashes = tuple(item.digest for item in self._prepared)
        return Chunk(tuple(self._refs), hashes, tuple(errors), embeddings)


def _forward(
    encoder: ImageEncoder, method: Callable[[Any], Any], inputs: Any
) -> NDArray[np.float32]:
    """Call a method of an encoder, and return what it gives as float32.

    Raises
    ------
    PluginError
        If an encoder fails that a backend from outside the package loaded. What one raises that was
        passed as an object is passed on.
    InputError
        If it gives anything but real numbers, or not a row of `dim` for each input.
    """
    outside = from_where(type(encoder)) if encoder.identity.code else ""
    name = f"encoder {encoder.identity.spec!r}{outside}"
    with plugin_errors(f"The {name} fails") if outside else nullcontext():
        computed = np.asarray(method(inputs))
    if computed.dtype.kind not in "fiu":
        raise InputError(
            f"Expected the {name} to return real numbers, but got dtype {computed.dtype}."
        )
    if computed.shape != (shape := (len(inputs), encoder.dim)):
        raise InputError(f"Expected the {name} to return shape {shape}, but got {computed.shape}.")
    return np.asarray(computed, dtype=np.float32)


# Texts: each goes through the model once.

_TEXTS_AT_ONCE = 256


def encode_texts(
    vlm: VisionLanguageModel, texts: Sequence[str], store: EmbeddingStore
) -> NDArray[np.float32]:
    """Encode m texts; only those that the store does not have go through the model.

    Parameters
    ----------
    vlm
        The model with the text encoder.
    texts
        In any number; repeated ones are encoded once.
    store
        Where embeddings are looked up and kept.

    Returns
    -------
    ndarray
        `(m, dim)` float32 in the order of the texts, not L2-normalised.

    Raises
    ------
    InputError
        If the model returns another shape than it states, or NaN or infinity. What the model
        itself raises is passed on.
    """
    if isinstance(texts, str):
        raise InputError(f"Expected `texts` to be a list of texts, but got one text, {texts!r}.")
    fingerprint = vlm.identity.storage_key(vlm.preprocessing)
    keys = {text: content_hash(f"text:{text}".encode("utf-8", "surrogatepass")) for text in texts}
    stored = store.get_many(fingerprint, keys.values())
    vectors = {
        text: stored[key]
        for text, key in keys.items()
        if key in stored and stored[key].shape == (vlm.dim,)
    }
    distinct = list(keys)
    # Parts by position, so that a run that was killed repeats the very batches that were lost.
    for start in range(0, len(distinct), _TEXTS_AT_ONCE):
        missing = [t for t in distinct[start : start + _TEXTS_AT_ONCE] if t not in vectors]
        if missing:
            fresh = dict(zip(missing, _forward_texts(vlm, missing), strict=True))
            by_key = {keys[text]: row for text, row in fresh.items()}
            store.put_many(fingerprint, by_key, spec=vlm.identity.spec)
            vectors |= fresh
    rows = [vectors[text] for text in texts]
    return np.stack(rows) if rows else np.empty((0, vlm.dim), dtype=np.float32)


def _forward_texts(vlm: VisionLanguageModel, texts: Sequence[str]) -> NDArray[np.float32]:
    computed = _forward(vlm, vlm.encode_texts, texts)
    for text, row in zip(texts, computed, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"Expected a finite embedding of the text {text!r}, but the model "
                f"{vlm.identity.spec!r} gives NaN or infinity. Run it in float32."
            )
    return computed
