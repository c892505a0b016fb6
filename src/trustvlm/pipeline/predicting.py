"""A fitted model, made ready once to judge any number of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from trustvlm.decisions.scope import scope_of_shots
from trustvlm.embeddings import Profile, Progress
from trustvlm.images import ImageSource
from trustvlm.pipeline.gathering import Gathered, gather, gather_all
from trustvlm.pipeline.judge import judge
from trustvlm.pipeline.verdicts import Verdict
from trustvlm.scores import prepare

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["Predictor"]


class Predictor:
    """What does not depend on the images: the examples' evidence, and what the score learns of it.

    Parameters
    ----------
    model
        Fitted; it must not be changed afterwards.

    Raises
    ------
    InputError
        If the model is not fitted, or was calibrated for another score.
    """

    def __init__(self, model: TrustVLM) -> None:
        model.check_ready()
        self.model = model
        self._shots = model.evidence_of_shots()
        self._score = prepare(model.score, self._shots, **model.parameters_)
        self._scope = scope_of_shots(self._shots)

    @property
    def whole_batch(self) -> bool:
        """Whether a verdict depends on the other images that are judged with it."""
        return self._score.score.whole_batch

    def judge(self, found: Gathered[Any]) -> list[Verdict]:
        """Return one verdict per image, in input order, failures included."""
        model = self.model
        evidence = model.evidence(found.image_embeddings, found.features, shots=self._shots)
        labels = model.classes_.labels
        return judge(evidence, self._score, found, labels, self._scope, model.calibration_)

    def chunks(
        self,
        images: Iterable[ImageSource],
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> Iterator[tuple[Gathered[Any], list[Verdict]]]:
        """Yield images chunk by chunk with their verdicts, in input order and bounded memory.

        A score of the whole batch judges all images together, in one chunk.
        """
        profile = profile or Profile()
        if self.whole_batch:
            chunks = iter([gather_all(self.model, images, progress, profile)])
        else:
            chunks = gather(self.model, images, progress, profile)
        for found in chunks:
            with profile.stage("scores"):
                verdicts = self.judge(found)
            yield found, verdicts
