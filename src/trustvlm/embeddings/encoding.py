"""Images in, embeddings out: every image is read once and every vector is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice, tee
from typing import TypeAlias, TypeVar

from trustvlm.embeddings.batches import Batch
from trustvlm.embeddings.chunks import Chunk, joined
from trustvlm.embeddings.preparing import Wanted, run_ahead
from trustvlm.embeddings.profile import Profile
from trustvlm.embeddings.store import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.images import DEFAULT_LIMITS, ImageSource, Limits
from trustvlm.models.base import ImageEncoder

__all__ = ["Progress", "encode_all", "encode_images"]

S = TypeVar("S", bound=ImageSource)
Progress: TypeAlias = Callable[[int, int, int], None]


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
    each encoder, committed before the next. A run that was killed therefore repeats the very
    batches that were lost, and its result equals that of an undisturbed run to the last bit.
    Files are read and decoded in threads, a few chunks ahead; encoders run in the caller's thread.

    Parameters
    ----------
    refs
        The n images. An iterator is drawn on a few chunks ahead, so that a stream of any length
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
        Learns where the time goes.

    Yields
    ------
    Chunk
        `batch_size` images each, in input order; the last may have fewer. An image that cannot be
        used has an error and rows of NaN.

    Raises
    ------
    InputError
        If there is no encoder, `batch_size` or `workers` is below 1, or an encoder returns
        another shape than it promises. What an encoder itself raises is passed on.
    """
    if not encoders:
        raise InputError("Expected at least one encoder, but got none.")
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"Expected `{name}` to be a whole number >= 1, but got {value!r}.")
    return _chunks(
        refs, encoders, store, batch_size, workers, limits, progress, profile or Profile()
    )


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
    chunks = encode_images(
        refs,
        encoders,
        store,
        batch_size=batch_size,
        workers=workers,
        limits=limits,
        progress=progress,
        profile=profile,
    )
    return joined(list(chunks), {name: encoder.dim for name, encoder in encoders.items()})


def _chunks(
    refs: Iterable[S],
    encoders: Mapping[str, ImageEncoder],
    store: EmbeddingStore,
    batch_size: int,
    workers: int | None,
    limits: Limits,
    progress: Progress | None,
    profile: Profile,
) -> Iterator[Chunk[S]]:
    fingerprints = {
        name: encoder.identity.fingerprint(encoder.preprocessing)
        for name, encoder in encoders.items()
    }
    distinct = {fingerprints[name]: encoder for name, encoder in encoders.items()}
    called = {fingerprints[name]: name for name in reversed(list(encoders))}
    total = len(refs) if isinstance(refs, Sized) else 0
    # Chunks wait between the two copies from when they are prepared until they are encoded.
    ahead, parts = tee(_parts(refs, batch_size))
    size = min(batch_size, total or batch_size)
    wanted = Wanted(distinct, store, limits, profile)
    prepared_chunks = run_ahead(ahead, wanted, workers, chunk_size=size)
    done = cached = 0
    try:
        arriving = profile.each("waiting for images", prepared_chunks)
        for prepared, part in zip(arriving, parts, strict=True):
            batch = Batch(part, prepared, store, profile)
            for fingerprint, encoder in distinct.items():
                batch.complete(fingerprint, encoder, called[fingerprint])
            profile.n_images += len(part)
            done += len(part)
            cached += batch.n_cached
            if progress is not None:
                progress(done, total, cached)
            yield batch.chunk(encoders, fingerprints)
    finally:
        prepared_chunks.close()


def _parts(refs: Iterable[S], size: int) -> Iterator[tuple[S, ...]]:
    images = iter(refs)
    while part := tuple(islice(images, size)):
        yield part
