"""A fitted model made ready to judge uploads, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustvlm.images import InMemoryImage, Limits
from trustvlm.pipeline import TrustVLM
from trustvlm.pipeline.artefact import read_artefact
from trustvlm.pipeline.encoders import describe
from trustvlm.pipeline.gathering import gather_all
from trustvlm.pipeline.persistence import manifest_of
from trustvlm.pipeline.predicting import Predictor
from trustvlm.pipeline.verdicts import Verdict
from trustvlm.serve.drifting import DriftWatch
from trustvlm.serve.examples import Examples, Look
from trustvlm.serve.recent import RecentEmbeddings

__all__ = ["Judged", "ServedModel"]


@dataclass(frozen=True)
class Judged:
    """What the service found out about one upload.

    Attributes
    ----------
    verdict
        As `TrustVLM.predict` gives it.
    digest
        SHA-256 of the bytes; "" if there were none to read.
    kind
        A key of `images.KINDS` if the image cannot be used, else "".
    look
        The most similar example images; None if the image cannot be used.
    """

    verdict: Verdict
    digest: str
    kind: str = ""
    look: Look | None = None


class ServedModel:
    """Judges uploads as `trustvlm predict` would; what all of them share is prepared once.

    Parameters
    ----------
    name
        What clients call it.
    path
        The `.trust` directory.
    limits
        Bounds on each image.
    batch_images
        Images per forward pass.
    remember
        Images whose embeddings are kept in memory.
    shots
        Folder of the example images; None for where they were when the model was fitted.
    before
        What this one replaces: encoders that both need are not loaded a second time.

    Raises
    ------
    ArtefactError
        If the artefact is damaged or does not fit the models on this machine.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        limits: Limits,
        batch_images: int,
        remember: int,
        shots: Path | None = None,
        before: ServedModel | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self.limits = limits
        store = RecentEmbeddings(2 * remember)
        shared = {} if before is None else _same_encoders(path, before.model)
        self.model: TrustVLM = TrustVLM.load(
            path, store=store, batch_size=batch_images, limits=limits, **shared
        )
        self._predictor = Predictor(self.model)
        self.examples = Examples(self.model, shots)
        self.drift = DriftWatch(self.model)

    def judge(self, requests: Sequence[Sequence[InMemoryImage]]) -> list[list[Judged]]:
        """Judge the images of several requests; they share forward passes and nothing else.

        A score that looks at the whole batch sees one request at a time, so that no client's
        answer depends on another's images.
        """
        if self._predictor.whole_batch:
            return [self._judged(images) for images in requests]
        everything = iter(self._judged([image for images in requests for image in images]))
        return [[next(everything) for _ in images] for images in requests]

    def describe(self) -> dict[str, Any]:
        """Return what clients may know of the model, as plain JSON values."""
        manifest = manifest_of(self.model)
        calibration = self.model.calibration_
        return {
            "name": self.name,
            "classes": list(self.model.classes_.labels),
            "score": self.model.score,
            "models": {
                role: {key: known.get(key, "") for key in ("spec", "fingerprint", "note")}
                for role, known in manifest["models"].items()
            },
            "shots": manifest["shots"]["counts"],
            "calibrated": calibration is not None,
            "decision_rule": manifest["decision_rule"],
            "created_by": manifest["created_by"],
            "created_at": manifest["created_at"],
        }

    def _judged(self, images: Sequence[InMemoryImage]) -> list[Judged]:
        found = gather_all(self.model, images)
        verdicts = self._predictor.judge(found)
        digests, kinds = iter(found.hashes), iter(found.failure_kinds)
        looks = iter(self.examples.look(found.features))
        judged = []
        for verdict, readable in zip(verdicts, found.readable, strict=True):
            if not readable:
                judged.append(Judged(verdict, "", next(kinds)))
                continue
            digest, look = next(digests), next(looks)
            judged.append(Judged(verdict, digest, look=look))
            self.drift.see(digest, verdict.confidence, look.typicality)
        return judged


def _same_encoders(path: Path, model: TrustVLM) -> dict[str, Any]:
    """Return those encoders of a model that an artefact asks for, by their fingerprints."""
    stored = read_artefact(path)[0].get("models")
    if not isinstance(stored, dict):
        return {}
    return {
        role: encoder
        for role, encoder in (("vlm", model.encoders.vlm), ("vision", model.encoders.vision))
        if stored.get(role, {}).get("fingerprint") == describe(encoder)["fingerprint"]
    }
