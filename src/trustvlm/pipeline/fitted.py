"""What a `TrustVLM` knows once it is fitted or loaded, and the evidence that it makes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.images import ClassList, Limits
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.prompts import read_prompts
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.encoders import Encoders
from trustvlm.pipeline.selection import SELECTABLE, Selection
from trustvlm.pipeline.verdicts import Verdicts
from trustvlm.scores import Evidence, PrototypeBank, check_parameters, zero_shot_logits

__all__ = ["Fitted"]


class Fitted:
    """Settings and learned state of a `TrustVLM`, described there, without the verbs."""

    vlm: str | VisionLanguageModel
    vision: str | ImageEncoder
    prompt: str | Sequence[str] | os.PathLike[str] | None
    score: str
    score_parameters: Mapping[str, Any] | None
    protocol: str
    device: str
    precision: str
    draft: bool
    store: EmbeddingStore | None
    limits: Limits

    classes_: ClassList
    bank_: PrototypeBank
    text_embeddings_: NDArray[np.float32]
    support_features_: NDArray[np.float32]
    support_image_embeddings_: NDArray[np.float32]
    support_labels_: NDArray[np.int64]
    shots_: tuple[dict[str, Any], ...]
    shots_folder_: str
    shot_failures_: Verdicts
    draw_: int
    shots_per_class_: int | None
    provenance_: dict[str, str]
    losses_: tuple[float, ...]
    selection_: Selection | None
    selection_images_: tuple[dict[str, Any], ...]
    calibration_: Calibration | None

    @cached_property
    def encoders(self) -> Encoders:
        """Both encoders, loaded when they are first needed."""
        return Encoders.load(
            self.vlm,
            self.vision,
            protocol=self.protocol,
            device=self.device,
            precision=self.precision,
            draft=self.draft,
        )

    @cached_property
    def embedding_store(self) -> EmbeddingStore:
        """The store in use, opened when it is first needed."""
        return EmbeddingStore() if self.store is None else self.store

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt templates in use."""
        return read_prompts(self.encoders.vlm.prompt if self.prompt is None else self.prompt)

    @property
    def parameters_(self) -> dict[str, Any]:
        """The parameters of the score in use: those selected, unless they were given."""
        found: Selection | None = getattr(self, "selection_", None)
        fits = found is not None and found.score == SELECTABLE.get(self.score)
        return {**(found.parameters if found and fits else {}), **(self.score_parameters or {})}

    def evidence(
        self,
        embeddings: NDArray[Any],
        features: NDArray[Any],
        *,
        shots: Evidence | None = None,
    ) -> Evidence:
        """Gather everything known about n images, from their `(n, e)` and `(n, d)` vectors.

        `shots` is `evidence_of_shots()`, for callers with many batches.
        """
        return (shots or self.evidence_of_shots()).with_images(
            logits=self._logits(embeddings), features=features, image_embeddings=embeddings
        )

    def evidence_of_shots(self) -> Evidence:
        """Gather everything known from the examples, about no image yet."""
        return Evidence.of(
            logits=np.empty((0, len(self.classes_))),
            bank=self.bank_,
            support_features=self.support_features_,
            support_labels=self.support_labels_,
            support_logits=self._logits(self.support_image_embeddings_),
            text_embeddings=self.text_embeddings_,
            support_image_embeddings=self.support_image_embeddings_,
        )

    def _logits(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        scale = self.encoders.vlm.logit_scale
        return zero_shot_logits(embeddings, self.text_embeddings_, logit_scale=scale)

    def check_fitted(self) -> None:
        """Raise `InputError` unless `fit` or `load` has been called and the score exists."""
        if not hasattr(self, "bank_"):
            raise InputError("This TrustVLM knows no examples yet: call fit(shots) first.")
        self._check_score()

    def check_ready(self) -> None:
        """Raise `InputError` unless fitted, and calibrated for the score in use if at all."""
        self.check_fitted()
        found = self.calibration_
        if found and (found.score, dict(found.parameters)) != (self.score, self.parameters_):
            raise InputError(
                f"This TrustVLM was calibrated for the score `{found.score}` with parameters "
                f"{dict(found.parameters)}, but its score is now `{self.score}` with "
                f"{self.parameters_}: calibrate again."
            )

    def _check_score(self) -> None:
        check_parameters(self.score, self.score_parameters or {})
