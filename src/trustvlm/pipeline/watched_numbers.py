"""The two numbers that the drift monitor watches: a confidence and a typicality per image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Progress
from trustvlm.images import open_images
from trustvlm.pipeline.gathering import gather
from trustvlm.pipeline.verdicts import Verdict
from trustvlm.scores import get, prepare

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["WatchedNumbers", "watched_numbers", "watched_score"]

# Of the SHA-256 of an image that was seen; enough to tell 10^8 images apart.
_DIGITS = 16


@dataclass(frozen=True)
class WatchedNumbers:
    """What was read off some images.

    Attributes
    ----------
    streams
        By name, one number per image that was looked at.
    seen
        How the SHA-256 of each of these begins.
    repeated
        Images left out because the same content was seen before.
    failures
        Verdicts of those that could not be read.
    """

    streams: Mapping[str, NDArray[np.float64]]
    seen: set[str]
    repeated: int
    failures: list[Verdict]


def watched_numbers(
    model: TrustVLM, images: Any, seen: Collection[str], progress: Progress | None = None
) -> WatchedNumbers:
    """Reduce images to two numbers each; each content counts once."""
    shots = model.evidence_of_shots()
    stream, name, parameters = watched_score(model)
    score = prepare(name, shots, **parameters)
    confidence: list[NDArray[np.float64]] = [np.empty(0)]
    typicality: list[NDArray[np.float64]] = [np.empty(0)]
    fresh: set[str] = set()
    repeated, failures = 0, []
    for found in gather(model, open_images(images), progress):
        failures += found.failures
        keep = np.zeros(len(found.hashes), dtype=bool)
        for i, digest in enumerate(found.hashes):
            short = digest[:_DIGITS]
            if short not in seen and short not in fresh:
                fresh.add(short)
                keep[i] = True
        repeated += int((~keep).sum())
        if keep.any():
            evidence = model.evidence(
                found.image_embeddings[keep], found.features[keep], shots=shots
            )
            confidence.append(score(evidence).confidence)
            if model.bank_.present_.any():
                typicality.append(_typicality(model, found.features[keep]))
    streams = {stream: np.concatenate(confidence), "typicality": np.concatenate(typicality)}
    return WatchedNumbers(streams, fresh, repeated, failures)


def watched_score(model: TrustVLM) -> tuple[str, str, Mapping[str, Any]]:
    """Return what to call the watched confidence, the score that gives it, and its parameters.

    A score that adapts to the batch would hide that the batch changed: the text's own confidence
    is then watched.
    """
    if get(model.score).whole_batch:
        return "text_confidence", "msp", {}
    return "confidence", model.score, model.parameters_


def _typicality(model: TrustVLM, features: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.nanmax(model.bank_.similarities(features), axis=1))
