"""What labelled images say about a model's verdicts: P(correct), and when to accept."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from trustvlm.calibration.calibrators import DEFAULT_CALIBRATOR, Calibrator
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import find_labelled
from trustvlm.monitoring.ood import OODThreshold
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.cross_validate import cross_validate
from trustvlm.pipeline.explain import look
from trustvlm.pipeline.leaks import name_of, set_apart
from trustvlm.pipeline.records import Gathered, gather_all
from trustvlm.pipeline.state import Fitted, provenance
from trustvlm.risk_control.certify import DEFAULT_METHOD
from trustvlm.risk_control.goals import Goal
from trustvlm.scores import apply, get

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


# Calibrate a fitted `TrustVLM` on labelled images that it has not seen, or on its shots.


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
    unlike = look(evidence, result.prediction, OODThreshold.of_shots(evidence)).unlike
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


# The part of `TrustVLM` that learns how far its verdicts can be relied on.


class Calibratable(Fitted):
    """Adds `calibrate` and `calibrate_on_shots`; see `TrustVLM`."""

    def calibrate(
        self,
        labelled: Any,
        *,
        risk: float = 0.05,
        confidence_level: float = 0.95,
        per_class: bool = False,
        min_coverage: float | None = None,
        cost_error: float | None = None,
        cost_review: float | None = None,
        method: str = DEFAULT_METHOD,
        calibrator: str = DEFAULT_CALIBRATOR,
        name: str | None = None,
        exclude_shots: bool = False,
        progress: Progress | None = None,
    ) -> TrustVLM:
        """Learn P(correct), and certify a threshold for accepting labels unseen.

        With probability `confidence_level` over the draw of the labelled images, at most the share
        `risk` of what is accepted is wrong, for new images like these. Where no threshold can be
        certified, everything is sent to review. `calibration_` says what was found.

        Parameters
        ----------
        labelled
            Folder of class folders, CSV with `path,label`, or `(paths, labels)`: images that are
            like those to come, and not among the shots.
        risk, confidence_level
            In (0, 1).
        per_class
            Let the risk hold for the accepted labels of every class, all at once.
        min_coverage
            Instead of a risk: accept at least this share of new images, at the smallest risk that
            can be certified.
        cost_error, cost_review
            Instead of a risk: accept where that costs less than a review, at these prices.
        method
            Of `decisions.METHODS`.
        calibrator
            Of `decisions.CALIBRATORS`.
        name
            What the artefact calls the images; None takes the folder's or file's name.
        exclude_shots
            Leave out images that are also among the shots, instead of refusing.
        progress
            As in `iter_predict`.

        Raises
        ------
        LeakError
            If images are also among the shots, or were selected on, and `exclude_shots` is False.
        InputError
            If the input does not exist, holds no images, or settings make no sense.

        Warns
        -----
        TrustVLMWarning
            If images cannot be read, or are copies of each other.
        """
        self.check_fitted()
        goal = Goal(
            risk, confidence_level, per_class, min_coverage, cost_error, cost_review, method
        )
        model = cast("TrustVLM", self)
        self.calibration_ = calibrate(
            model,
            labelled,
            goal,
            calibrator,
            name=name,
            exclude_shots=exclude_shots,
            progress=progress,
        )
        return model

    def calibrate_on_shots(self, *, calibrator: str = DEFAULT_CALIBRATOR) -> TrustVLM:
        """Learn P(correct) from the shots alone, each judged without itself.

        Optimistic where new images differ from the shots. Nothing can be promised with it:
        decisions stay as they are without a calibration.

        Parameters
        ----------
        calibrator
            Of `decisions.CALIBRATORS`.

        Raises
        ------
        InputError
            If no class has two shots, or the score depends on the batch.
        """
        self.check_fitted()
        model = cast("TrustVLM", self)
        self.calibration_ = calibrate_on_shots(model, calibrator)
        return model
