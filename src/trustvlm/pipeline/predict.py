"""From evidence to verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.embeddings import Profile, Progress
from trustvlm.images import ImageSource
from trustvlm.monitoring.ood import EVERYTHING, Scope, scope_of_shots
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.explain import Views, look, reasons, with_threshold
from trustvlm.pipeline.records import Gathered, S, gather, gather_all
from trustvlm.pipeline.verdict import Verdict
from trustvlm.risk_control.goals import accept_on_agreement
from trustvlm.scores import Evidence, PreparedScore, ScoreResult, prepare

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


def judge(
    evidence: Evidence,
    score: PreparedScore,
    found: Gathered[S],
    class_names: Sequence[str],
    scope: Scope = EVERYTHING,
    calibration: Calibration | None = None,
) -> list[Verdict]:
    """Return one verdict per image, in input order, failures included."""
    result = score(evidence)
    views = look(evidence, result.prediction, scope)
    paths = [ref.path for ref in found.refs]
    return found.in_order(verdict_rows(result, views, paths, class_names, calibration))


def verdict_rows(
    result: ScoreResult,
    views: Views,
    paths: Sequence[str],
    class_names: Sequence[str],
    calibration: Calibration | None = None,
) -> list[Verdict]:
    """Combine a score's result with the two views of it into n verdicts.

    Decisions and P(correct) are those of the calibration; see `decisions.uncalibrated` without one.
    """
    whys = reasons(result.prediction, views, class_names)
    thresholds = None if calibration is None else calibration.thresholds(result)
    if thresholds is None:
        accepted = accept_on_agreement(result.prediction, views.nearest, views.unlike)
    else:
        accepted = (result.confidence >= thresholds) & ~views.unlike
        whys = with_threshold(whys, result.confidence, thresholds, outside=views.unlike)
    p_correct = np.full(len(paths), math.nan)
    if calibration is not None:
        p_correct = calibration.p_correct(result)
    return [
        Verdict(
            path=path,
            label=class_names[result.prediction[i]],
            confidence=float(result.confidence[i]),
            p_correct=float(p_correct[i]),
            decision="accept" if accepted[i] else "review",
            text_score=float(views.text_score[i]),
            image_score=float(views.image_score[i]),
            runner_up=class_names[views.runner_up[i]] if views.runner_up[i] >= 0 else "",
            reason=whys[i],
            error="",
        )
        for i, path in enumerate(paths)
    ]


# A fitted model, made ready once to judge any number of images.


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

    def evidence(self, found: Gathered[Any]) -> Evidence:
        """Return the evidence of the readable images."""
        return self.model.evidence(found.image_embeddings, found.features, shots=self._shots)

    def judge(self, found: Gathered[Any], evidence: Evidence | None = None) -> list[Verdict]:
        """Return one verdict per image, in input order, failures included.

        Callers that need `evidence` themselves pass it, so that nothing is computed twice.
        """
        model = self.model
        evidence = evidence or self.evidence(found)
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
