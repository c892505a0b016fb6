"""The part of `TrustVLM` that learns how far its verdicts can be relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from trustvlm.decisions import DEFAULT_CALIBRATOR, DEFAULT_METHOD
from trustvlm.decisions.goals import Goal
from trustvlm.embeddings import Progress
from trustvlm.pipeline.calibrating import calibrate, calibrate_on_shots
from trustvlm.pipeline.fitted import Fitted

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["Calibratable"]


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
