"""A fitted model, made ready once to judge any number of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trustvlm.embeddings import Profile, Progress
from trustvlm.images import ImageSource
from trustvlm.monitoring.ood import OODThreshold
from trustvlm.pipeline.explain import explain
from trustvlm.pipeline.records import EncodedImages, encode_images, encode_in_chunks
from trustvlm.pipeline.state import FittedModel
from trustvlm.pipeline.verdict import Verdict, in_order, verdicts_with_shots
from trustvlm.scores import Evidence, prepare


class Predictor:
    """What does not depend on the images: the shots' evidence, and what the score learns of it.

    Parameters
    ----------
    model
        Fitted; changes to it later have no effect.

    Raises
    ------
    InputError
        If the model is not fitted, or was calibrated for another score.
    """

    def __init__(self, model: FittedModel) -> None:
        self._state, self._embedder = model.state, model.embedder
        self._state.check_calibration()
        self._shots = self._state.evidence_of_shots()
        self._score = prepare(self._state.score, self._shots, **self._state.parameters)
        self._ood_threshold = OODThreshold.of_shots(self._shots)

    @property
    def whole_batch(self) -> bool:
        """Whether a verdict depends on the other images that are judged with it."""
        return self._score.score.whole_batch

    def encode(self, images: Iterable[ImageSource]) -> EncodedImages[Any]:
        """Encode images at once, as `judge` takes them."""
        return encode_images(images, self._embedder)

    def evidence(self, images: EncodedImages[Any]) -> Evidence:
        """Return the evidence of the readable images."""
        readable = images.readable()
        return self._state.evidence(readable.image_embeddings, readable.features, shots=self._shots)

    def judge(self, images: EncodedImages[Any], evidence: Evidence | None = None) -> list[Verdict]:
        """Return one verdict per image, in input order, failures included.

        Callers that need `evidence` themselves pass it, so that nothing is computed twice.
        """
        evidence, state = evidence or self.evidence(images), self._state
        result = self._score(evidence)
        shown = explain(evidence, result.prediction, self._ood_threshold)
        verdicts = verdicts_with_shots(
            result, shown, images.readable().paths, state.classes.labels, state.calibration
        )
        return in_order(images, verdicts)

    def chunks(
        self,
        images: Iterable[ImageSource],
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> Iterator[tuple[EncodedImages[Any], list[Verdict]]]:
        """Yield images chunk by chunk with their verdicts, in input order and bounded memory.

        A score of the whole batch judges all images together, in one chunk.
        """
        profile = profile or Profile()
        if self._score.score.whole_batch:
            chunks = iter([encode_images(images, self._embedder, progress, profile)])
        else:
            chunks = encode_in_chunks(images, self._embedder, progress, profile)
        for encoded in chunks:
            with profile.stage("scores"):
                verdicts = self.judge(encoded)
            yield encoded, verdicts
