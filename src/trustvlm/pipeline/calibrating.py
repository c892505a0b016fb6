"""Calibrate a fitted `TrustVLM` on labelled images that it has not seen."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.decisions import Calibrator, certify
from trustvlm.decisions.scope import scope_of_shots
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import find_labelled
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.gathering import gather_all
from trustvlm.pipeline.leaks import set_apart
from trustvlm.pipeline.naming import name_of
from trustvlm.pipeline.persistence import provenance
from trustvlm.pipeline.views import look
from trustvlm.scores import apply, get

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["calibrate"]


def calibrate(
    model: TrustVLM,
    labelled: Any,
    *,
    risk: float,
    confidence_level: float,
    method: str,
    calibrator: str,
    name: str | None = None,
    exclude_shots: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Learn P(correct) and a certified threshold, as `TrustVLM.calibrate` says.

    Raises
    ------
    LeakError, InputError
        As there.
    """
    certify([], [], risk, confidence_level, method=method)
    if get(model.score).whole_batch:
        raise InputError(
            f"With the score `{model.score}` a verdict depends on the other images of its batch: "
            "what holds on one batch cannot be promised of another. Calibrate another score."
        )
    learner = Calibrator(calibrator).check()
    listing = find_labelled(labelled)
    labels = model.classes_.indices([str(ref.label) for ref in listing.refs])
    found = gather_all(model, listing.refs, progress)
    for failure in found.failures:
        warnings.warn(f"left out: {failure.error}", TrustVLMWarning, stacklevel=4)
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
    repeated = int((fresh & ~once).sum())
    if repeated:
        warnings.warn(
            f"{repeated} copies of other images left out: images must be independent of each other",
            TrustVLMWarning,
            stacklevel=4,
        )
    kept = fresh & once
    if not kept.any():
        raise InputError("No labelled image is left to calibrate on: all are unreadable or shots.")
    evidence = model.evidence(found.image_embeddings[kept], found.features[kept])
    result = apply(model.score, evidence, **model.parameters_)
    unlike = look(evidence, result.prediction, scope_of_shots(evidence)).unlike
    truth = labels[found.readable][kept]
    correct = result.prediction == truth
    pairs = zip(found.refs, found.hashes, kept, strict=True)
    return Calibration(
        certificate=certify(
            result.confidence, correct, risk, confidence_level, method=method, eligible=~unlike
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
