"""Calibrate a fitted `TrustVLM` on labelled images that it has not seen, or on its shots."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions import Calibrator
from trustvlm.decisions.goals import Goal
from trustvlm.decisions.scope import scope_of_shots
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import find_labelled
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.crossvalidation import cross_validate
from trustvlm.pipeline.gathering import Gathered, gather_all
from trustvlm.pipeline.leaks import set_apart
from trustvlm.pipeline.naming import name_of
from trustvlm.pipeline.persistence import provenance
from trustvlm.pipeline.views import look
from trustvlm.scores import apply, get

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["calibrate", "calibrate_on_shots"]


def calibrate(
    model: TrustVLM,
    labelled: Any,
    goal: Goal,
    calibrator: str,
    *,
    name: str | None = None,
    exclude_shots: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Learn P(correct) and a rule for accepting, as `TrustVLM.calibrate` says.

    Raises
    ------
    LeakError, InputError
        As there.
    """
    goal.check()
    learner = _learner(model, calibrator)
    listing = find_labelled(labelled)
    labels = model.classes_.indices([str(ref.label) for ref in listing.refs])
    found = gather_all(model, listing.refs, progress)
    kept = _usable(model, found, exclude_shots)
    evidence = model.evidence(found.image_embeddings[kept], found.features[kept])
    result = apply(model.score, evidence, **model.parameters_)
    # Images of no class are reviewed whatever their confidence, so the promise is about the others.
    unlike = look(evidence, result.prediction, scope_of_shots(evidence)).unlike
    truth = labels[found.readable][kept]
    correct = result.prediction == truth
    pairs = zip(found.refs, found.hashes, kept, strict=True)
    return Calibration(
        certificate=goal.rule(
            result.confidence, correct, result.prediction, len(model.classes_), ~unlike
        ),
        calibrator=learner.fit(result.confidence, correct),
        result=result,
        labels=truth,
        images=tuple({"path": ref.path, "sha256": h} for ref, h, keep in pairs if keep),
        dataset=name_of(labelled) if name is None else name,
        score=model.score,
        parameters=dict(model.parameters_),
        created_at=provenance()["created_at"],
        unreadable=tuple(failure.path for failure in found.failures),
    )


def calibrate_on_shots(model: TrustVLM, calibrator: str) -> Calibration:
    """Learn P(correct) from the shots, each judged without itself, as `TrustVLM` says.

    Raises
    ------
    InputError
        If no class has two shots.
    """
    learner = _learner(model, calibrator)
    folds = max(2, int(np.bincount(model.support_labels_).max(initial=0)))
    found = cross_validate(
        model.evidence_of_shots(),
        [model.score],
        folds=folds,
        parameters={model.score: model.parameters_},
    )
    result = found.results[get(model.score).name]
    return Calibration(
        certificate=None,
        calibrator=learner.fit(result.confidence, result.prediction == found.labels),
        result=result,
        labels=found.labels,
        images=(),
        dataset="shots",
        score=model.score,
        parameters=dict(model.parameters_),
        created_at=provenance()["created_at"],
    )


def _learner(model: TrustVLM, calibrator: str) -> Calibrator:
    if get(model.score).whole_batch:
        raise InputError(
            f"With the score `{model.score}` a verdict depends on the other images of its batch: "
            "what holds on one batch cannot be promised of another. Calibrate another score."
        )
    return Calibrator(calibrator).check()


def _usable(model: TrustVLM, found: Gathered[Any], exclude_shots: bool) -> NDArray[np.bool_]:
    """`(k,)` bool: which readable images are fresh, and not copies of others before them."""
    for failure in found.failures:
        warnings.warn(f"left out: {failure.error}", TrustVLMWarning, stacklevel=5)
    fresh, _ = set_apart(
        model,
        found,
        exclude=exclude_shots,
        calibrated_on=False,
        purpose="the model would seem better than it is. Calibrate on other images",
    )
    _, first = np.unique(found.hashes, return_index=True)
    once = np.zeros(len(found.hashes), dtype=bool)
    once[first] = True
    copies = int((fresh & ~once).sum())
    if copies:
        warnings.warn(
            f"{copies} copies of other images left out: images must be independent of each other",
            TrustVLMWarning,
            stacklevel=5,
        )
    kept: NDArray[np.bool_] = fresh & once
    if not kept.any():
        raise InputError("No labelled image is left to calibrate on: all are unreadable or shots.")
    return kept
