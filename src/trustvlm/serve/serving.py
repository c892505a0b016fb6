"""A fitted model made ready to judge uploads, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustvlm.decisions.scope import scope_of_shots
from trustvlm.images import InMemoryImage, Limits
from trustvlm.pipeline import TrustVLM
from trustvlm.pipeline.gathering import Gathered, gather_all
from trustvlm.pipeline.judge import judge
from trustvlm.pipeline.persistence import manifest_of
from trustvlm.pipeline.verdicts import Verdict
from trustvlm.scores import prepare
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
    """

    verdict: Verdict
    digest: str
    kind: str = ""


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

    Raises
    ------
    ArtefactError
        If the artefact is damaged or does not fit the models on this machine.
    """

    def __init__(
        self, name: str, path: Path, *, limits: Limits, batch_images: int, remember: int
    ) -> None:
        self.name = name
        self.path = path
        self.limits = limits
        store = RecentEmbeddings(2 * remember)
        self.model = TrustVLM.load(path, store=store, batch_size=batch_images)
        self.model.check_ready()
        self._shots = self.model.evidence_of_shots()
        self._score = prepare(self.model.score, self._shots, **self.model.parameters_)
        self._scope = scope_of_shots(self._shots)

    def judge(self, requests: Sequence[Sequence[InMemoryImage]]) -> list[list[Judged]]:
        """Judge the images of several requests; they share forward passes and nothing else.

        A score that looks at the whole batch sees one request at a time, so that no client's
        answer depends on another's images.
        """
        if self._score.score.whole_batch:
            return [self._judged(self._gathered(images)) for images in requests]
        found = self._gathered([image for images in requests for image in images])
        everything = iter(self._judged(found))
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

    def _gathered(self, images: Sequence[InMemoryImage]) -> Gathered[InMemoryImage]:
        return gather_all(self.model, images, limits=self.limits)

    def _judged(self, found: Gathered[InMemoryImage]) -> list[Judged]:
        evidence = self.model.evidence(found.image_embeddings, found.features, shots=self._shots)
        verdicts = judge(
            evidence,
            self._score,
            found,
            self.model.classes_.labels,
            self._scope,
            self.model.calibration_,
        )
        digests, kinds = iter(found.hashes), iter(found.failure_kinds)
        return [
            Judged(verdict, next(digests)) if readable else Judged(verdict, "", next(kinds))
            for verdict, readable in zip(verdicts, found.readable, strict=True)
        ]
