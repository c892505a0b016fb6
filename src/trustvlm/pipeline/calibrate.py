"""Learn from labelled images, or from the shots, how far a model's verdicts can be relied on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from trustvlm.calibration.calibrators import Calibrator
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import LabelledSource
from trustvlm.monitoring.ood import OODThreshold
from trustvlm.pipeline.cross_validate import cross_validate
from trustvlm.pipeline.predict import explain
from trustvlm.pipeline.records import (
    OR_EXCLUDE,
    EncodedImages,
    encode_images,
    exclude_leaked,
    list_labelled,
    name_of,
)
from trustvlm.pipeline.state import Calibration, FittedModel, ModelState, now
from trustvlm.pipeline.verdict import failures_of
from trustvlm.risk_control.goals import Goal
from trustvlm.scores import apply, get


def calibrate(
    model: FittedModel,
    labelled: LabelledSource,
    goal: Goal,
    calibrator: str,
    *,
    name: str | None = None,
    exclude_shots: bool = False,
    progress: Progress | None = None,
) -> ModelState:
    """Learn P(correct) and a rule for accepting, as `TrustVLM.calibrate` says.

    Raises
    ------
    LeakError, InputError
        As there.
    """
    state = model.state
    goal.check()
    learner = _learner(state, calibrator)
    encoded = encode_images(list_labelled(labelled, state.classes), model.embedder, progress)
    images = _usable(state, encoded, exclude_shots)
    evidence = state.evidence(images.image_embeddings, images.features)
    result = apply(state.score, evidence, **state.parameters)
    # Out-of-distribution images are reviewed in any case: the guarantee is about the others.
    shown = explain(evidence, result.prediction, OODThreshold.of_shots(evidence))
    typicality = None if np.isnan(shown.nearest_score).any() else shown.nearest_score
    correct = result.prediction == images.labels
    calibration = Calibration(
        certificate=goal.rule(
            result.confidence, correct, result.prediction, len(state.classes), ~shown.is_ood
        ),
        calibrator=learner.fit(result.confidence, correct),
        result=result,
        labels=images.labels,
        images=images.contents(),
        dataset=name_of(labelled) if name is None else name,
        score=state.score,
        parameters=state.parameters,
        created_at=now(),
        unreadable=tuple(failure.path for failure in failures_of(encoded)),
        typicality=typicality,
    )
    return replace(state, calibration=calibration)


def calibrate_on_shots(state: ModelState, calibrator: str) -> ModelState:
    """Learn P(correct) from the shots, each judged without itself, as `TrustVLM` says.

    Raises
    ------
    InputError
        If no class has two shots.
    """
    learner = _learner(state, calibrator)
    validated = cross_validate(
        state.evidence_of_shots(),
        [state.score],
        folds=max(2, int(np.bincount(state.support_labels).max(initial=0))),
        parameters={state.score: state.parameters},
    )
    result = validated.results[get(state.score).name]
    calibration = Calibration(
        certificate=None,
        calibrator=learner.fit(result.confidence, result.prediction == validated.labels),
        result=result,
        labels=validated.labels,
        images=(),
        dataset="shots",
        score=state.score,
        parameters=state.parameters,
        created_at=now(),
    )
    return replace(state, calibration=calibration)


def _learner(state: ModelState, calibrator: str) -> Calibrator:
    if get(state.score).whole_batch:
        raise InputError(
            f"With the score `{state.score}` a verdict depends on the other images of its batch: "
            "what holds on one batch cannot be guaranteed of another. Calibrate another score."
        )
    return Calibrator(calibrator).check()


def _usable(
    state: ModelState, encoded: EncodedImages[Any], exclude_shots: bool
) -> EncodedImages[Any]:
    """Return the readable images that the model has not learned from, each content once."""
    for failure in failures_of(encoded):
        warnings.warn(f"left out: {failure.error}", TrustVLMWarning, stacklevel=4)
    images, _ = exclude_leaked(
        encoded.readable(),
        state.learned_from(calibrated_on=False),
        exclude=exclude_shots,
        purpose="the model would seem better than it is. Calibrate on other images, " + OR_EXCLUDE,
    )
    copies = int((~images.is_first).sum())
    if copies:
        warnings.warn(
            f"{copies} copies of other images left out: images must be independent of each other",
            TrustVLMWarning,
            stacklevel=4,
        )
    if not len(images):
        raise InputError("No labelled image is left to calibrate on: all are unreadable or shots.")
    return images.select(images.is_first)
