"""Run images through both encoders and keep what the rest of the pipeline reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Chunk, Progress, encode_all, encode_images
from trustvlm.embeddings.profile import Profile
from trustvlm.images import ImageSource
from trustvlm.models.base import ImageEncoder
from trustvlm.pipeline.verdicts import Verdict, error_verdict

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["Gathered", "gather", "gather_all"]

S = TypeVar("S", bound=ImageSource)


@dataclass(frozen=True)
class Gathered(Generic[S]):
    """Some images, readable or not, with the vectors of the readable ones.

    Attributes
    ----------
    readable
        `(n,)` bool, in input order.
    refs, hashes
        The k readable images and the SHA-256 of their bytes.
    image_embeddings, features
        `(k, e)` of the VLM and `(k, d)` of the vision encoder, float32, un-normalised.
    failures
        The error verdicts on the others, in input order.
    failure_kinds
        The word for each of them; a key of `images.KINDS`.
    """

    readable: NDArray[np.bool_]
    refs: list[S]
    hashes: list[str]
    image_embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    failures: list[Verdict]
    failure_kinds: list[str]

    def in_order(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Merge the verdicts on the readable images with the failures, in input order."""
        judged, failed = iter(verdicts), iter(self.failures)
        return [next(judged if ok else failed) for ok in self.readable]


def gather(
    model: TrustVLM,
    refs: Iterable[S],
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> Iterator[Gathered[S]]:
    """Yield images in fixed chunks, in input order, encoded by both encoders."""
    chunks = encode_images(
        refs,
        _encoders(model),
        model.embedding_store,
        batch_size=model.batch_size,
        workers=model.workers,
        limits=model.limits,
        progress=progress,
        profile=profile,
    )
    return map(_gathered, chunks)


def gather_all(
    model: TrustVLM,
    refs: Iterable[S],
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> Gathered[S]:
    """Encode all images at once; memory grows with their number."""
    chunk = encode_all(
        refs,
        _encoders(model),
        model.embedding_store,
        batch_size=model.batch_size,
        workers=model.workers,
        limits=model.limits,
        progress=progress,
        profile=profile,
    )
    return _gathered(chunk)


def _encoders(model: TrustVLM) -> dict[str, ImageEncoder]:
    return {"vlm": model.encoders.vlm, "vision": model.encoders.vision}


def _gathered(chunk: Chunk[S]) -> Gathered[S]:
    readable = chunk.readable
    kept = np.flatnonzero(readable)
    return Gathered(
        readable=readable,
        refs=[chunk.refs[i] for i in kept],
        hashes=[chunk.hashes[i] for i in kept],
        image_embeddings=chunk.embeddings["vlm"][readable],
        features=chunk.embeddings["vision"][readable],
        failures=[
            error_verdict(ref.path, error)
            for ref, error in zip(chunk.refs, chunk.errors, strict=True)
            if error is not None
        ],
        failure_kinds=[error.kind for error in chunk.errors if error is not None],
    )
