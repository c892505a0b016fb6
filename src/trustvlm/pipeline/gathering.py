"""Run images through both encoders and keep what the rest of the pipeline reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import encode_images
from trustvlm.images import ImageRef
from trustvlm.pipeline.encoders import fingerprint
from trustvlm.pipeline.verdicts import Verdict, error_verdict

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["EncodedChunk", "Gathered", "Progress", "encoded_chunks", "gather"]

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class EncodedChunk:
    """Some consecutive images, readable or not, with the vectors of the readable ones.

    Attributes
    ----------
    refs, hashes, failures
        One entry per image: the image, its SHA-256, and its error verdict or None.
    readable
        `(n,)` bool.
    image_embeddings, features
        `(k, e)` and `(k, d)` float32 of the k readable ones.
    """

    refs: Sequence[ImageRef]
    hashes: Sequence[str]
    failures: Sequence[Verdict | None]
    readable: NDArray[np.bool_]
    image_embeddings: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Gathered:
    """The readable ones of some images, with their vectors, and the verdicts on the others."""

    refs: list[ImageRef]
    hashes: list[str]
    readable: NDArray[np.bool_]
    image_embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    failures: list[Verdict]


def encoded_chunks(
    model: TrustVLM, refs: Sequence[ImageRef], progress: Progress | None = None
) -> Iterator[EncodedChunk]:
    """Yield images in fixed chunks, in input order, with both encoders' vectors."""
    encoders = model.encoders
    vlm, vision = fingerprint(encoders.vlm), fingerprint(encoders.vision)
    chunks = encode_images(
        refs,
        encoders.by_fingerprint,
        model.embedding_store,
        batch_size=model.batch_size,
        workers=model.workers,
        progress=progress,
    )
    for chunk in chunks:
        failures = [
            None if error is None else error_verdict(ref.path, error)
            for ref, error in zip(chunk.refs, chunk.errors, strict=True)
        ]
        readable = np.array([failure is None for failure in failures], dtype=bool)
        yield EncodedChunk(
            refs=chunk.refs,
            hashes=chunk.hashes,
            failures=failures,
            readable=readable,
            image_embeddings=chunk.embeddings[vlm][readable],
            features=chunk.embeddings[vision][readable],
        )


def gather(
    model: TrustVLM, refs: Sequence[ImageRef], progress: Progress | None = None
) -> Gathered:
    """Encode all images and keep the vectors of the readable ones."""
    chunks = list(encoded_chunks(model, refs, progress))
    kept = [
        (ref, digest)
        for chunk in chunks
        for ref, digest, ok in zip(chunk.refs, chunk.hashes, chunk.readable, strict=True)
        if ok
    ]
    return Gathered(
        refs=[ref for ref, _ in kept],
        hashes=[digest for _, digest in kept],
        readable=_joined([chunk.readable for chunk in chunks], np.empty(0, dtype=bool)),
        image_embeddings=_joined(
            [chunk.image_embeddings for chunk in chunks],
            np.empty((0, model.encoders.vlm.dim), dtype=np.float32),
        ),
        features=_joined(
            [chunk.features for chunk in chunks],
            np.empty((0, model.encoders.vision.dim), dtype=np.float32),
        ),
        failures=[f for chunk in chunks for f in chunk.failures if f is not None],
    )


def _joined(parts: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else empty
