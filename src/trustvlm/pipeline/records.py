"""From images to records of what both encoders say about them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm import models
from trustvlm.embeddings import Chunk, Progress, encode_all, encode_images, encode_texts
from trustvlm.embeddings.profile import Profile
from trustvlm.exceptions import InputError
from trustvlm.images import ImageSource
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.prompts import class_embeddings
from trustvlm.pipeline.verdict import Verdict, error_verdict

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


# The two encoders that look at every image, as the protocol wants them.

Encoder = TypeVar("Encoder", bound=ImageEncoder)

PROTOCOLS = ("clean", "paper")


@dataclass(frozen=True)
class Encoders:
    """The VLM that predicts and the vision encoder that verifies."""

    vlm: VisionLanguageModel
    vision: ImageEncoder

    @classmethod
    def load(
        cls,
        vlm: str | VisionLanguageModel,
        vision: str | ImageEncoder,
        *,
        protocol: str = "clean",
        device: str = "auto",
        precision: str = "float32",
        draft: bool = False,
    ) -> Encoders:
        """Load both encoders by name, or take them as they are.

        `protocol="clean"` gives each encoder its own preprocessing. `protocol="paper"` does what
        the released script did: the vision encoder receives the VLM's pixels, normalised with the
        VLM's mean and standard deviation, and SigLIP's logit scale is 100. Crops are placed as
        torchvision places them, which the script is taken to use. `draft=True` lets both decode
        large JPEGs at a reduced size.

        Raises
        ------
        InputError
            For an unknown protocol or model name.
        ModelUnavailableError, MissingExtraError
            If a model cannot be had here.
        """
        if protocol not in PROTOCOLS:
            raise InputError(
                f"Expected `protocol` to be {' or '.join(PROTOCOLS)}, but got {protocol!r}."
            )
        settings = {"device": device, "precision": precision}
        loaded = models.load_vlm(vlm, **settings) if isinstance(vlm, str) else vlm
        verifier = (
            models.load_vision(vision, vlm=loaded, **settings)
            if isinstance(vision, str)
            else vision
        )
        if protocol == "paper":
            loaded, verifier = copy.copy(loaded), copy.copy(verifier)
            loaded.preprocessing = replace(loaded.preprocessing, rounding="even")
            verifier.preprocessing = loaded.preprocessing
            if loaded.identity.settings.get("family") == "siglip":
                loaded.logit_scale = 100.0
        if draft:
            loaded, verifier = _drafting(loaded), _drafting(verifier)
        return cls(loaded, verifier)

    def notes(self) -> list[str]:
        """Warnings to show wherever the models are named."""
        return list(dict.fromkeys(e.note for e in (self.vlm, self.vision) if e.note))


def _drafting(encoder: Encoder) -> Encoder:
    other = copy.copy(encoder)
    other.preprocessing = replace(encoder.preprocessing, draft=True)
    return other


def describe(encoder: ImageEncoder) -> Mapping[str, Any]:
    """Return what an artefact stores about an encoder, as plain JSON values."""
    return {
        **encoder.identity.to_dict(),
        "preprocessing": encoder.preprocessing.to_dict(),
        "fingerprint": encoder.identity.fingerprint(encoder.preprocessing),
        "note": encoder.note,
    }


# Run images through both encoders and keep what the rest of the pipeline reads.

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


# Class texts of a model, encoded once and kept in the store.


def embed_classes(model: TrustVLM, names: Sequence[str]) -> NDArray[np.float32]:
    """Return one unit row per class name, `(C, e)`, with the prompts of the model."""
    vlm = model.encoders.vlm
    return class_embeddings(
        vlm,
        names,
        model.prompts,
        encode=lambda texts: encode_texts(vlm, texts, model.embedding_store),
    )
