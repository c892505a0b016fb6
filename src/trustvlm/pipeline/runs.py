"""What holds for the images of a run together: whether the guarantee covers them, and decisions.

A run is a call of `predict` over files, a folder or a stream, or a bulk job. While its images come,
sums over them are kept; at the end these say whether the images are like those that the model was
calibrated on, and, where the threshold follows from the batch, what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.monitoring.ood import OODThreshold, Resemblance, typicality_of_shots
from trustvlm.monitoring.shift import RunStatistics, ShiftReference, ShiftTest
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.state import ModelState
from trustvlm.pipeline.verdict import RunOutcome
from trustvlm.risk_control.conformal_selection import ConformalSelection
from trustvlm.risk_control.per_class import ClassCertificates
from trustvlm.scores import ScoreResult
from trustvlm.text import join_names, short_percent

WHEN_INVALID = ("review", "keep")
"""What becomes of accepted labels when the guarantee does not cover a run."""


def check_when_invalid(name: str) -> str:
    """Return what is to be done, or raise `InputError` for something else.

    Examples
    --------
    >>> check_when_invalid("review")
    'review'
    """
    if name not in WHEN_INVALID:
        raise InputError(
            f"Expected `when_invalid` to be {' or '.join(WHEN_INVALID)}, but got {name!r}."
        )
    return name


@dataclass(frozen=True)
class RunSums:
    """Sums over the readable images of a run, or of a part of it; those of its parts add up.

    Attributes
    ----------
    n, out_of_distribution
        Images, and how many of them resemble none of the classes.
    accepted
        `(C,)` int64, labels that the threshold accepts, by class.
    shift
        What the test against the calibration images needs; None without a guarantee.
    selection
        Counts of conformal selection; None with another guarantee, or none.
    """

    n: int
    out_of_distribution: int
    accepted: NDArray[np.int64]
    shift: RunStatistics | None = None
    selection: NDArray[np.int64] | None = None

    def __add__(self, other: RunSums) -> RunSums:
        """Return the sums over the images of both."""
        shift, selection = self.shift or other.shift, self.selection
        if self.shift is not None and other.shift is not None:
            shift = self.shift + other.shift
        if selection is None:
            selection = other.selection
        elif other.selection is not None:
            selection = selection + other.selection
        return RunSums(
            self.n + other.n,
            self.out_of_distribution + other.out_of_distribution,
            self.accepted + other.accepted,
            shift,
            selection,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, of the classes that occur only."""
        classes = np.flatnonzero(self.accepted)
        return {
            "images": self.n,
            "out_of_distribution": self.out_of_distribution,
            "accepted": [classes.tolist(), self.accepted[classes].tolist()],
            "shift": None if self.shift is None else self.shift.to_dict(),
            "selection": None if self.selection is None else self.selection.tolist(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], n_classes: int) -> RunSums:
        """Restore what `to_dict` gave."""
        accepted = np.zeros(n_classes, dtype=np.int64)
        classes, counts = stored["accepted"]
        accepted[classes] = counts
        shift, selection = stored["shift"], stored["selection"]
        return cls(
            stored["images"],
            stored["out_of_distribution"],
            accepted,
            None if shift is None else RunStatistics.from_dict(shift, n_classes),
            None if selection is None else np.array(selection, dtype=np.int64),
        )


class Run:
    """The images of one run of a model, as they come.

    Parameters
    ----------
    state
        Of the model.

    Attributes
    ----------
    sums : RunSums
        Over the images so far.
    n_classes : int
        C.
    """

    def __init__(self, state: ModelState) -> None:
        calibration = state.calibration
        rule = None if calibration is None else calibration.certificate
        self._class_names, self._calibration, self._state = state.classes.labels, calibration, state
        self.n_classes = len(self._class_names)
        self._rule = rule if rule is not None and rule.certified else None
        self._reference = (
            None if self._rule is None or calibration is None else reference_of(state, calibration)
        )
        self.sums = RunSums(0, 0, np.zeros(self.n_classes, dtype=np.int64))

    @property
    def decides(self) -> bool:
        """Whether only the whole run says which labels are accepted."""
        return isinstance(self._rule, ConformalSelection)

    def add(
        self,
        result: ScoreResult,
        typicality: NDArray[np.float64],
        resemblance: Resemblance,
        accepted: NDArray[np.bool_],
    ) -> None:
        """Take in some images.

        Parameters
        ----------
        result
            What the model's score says of n images.
        typicality
            `(n,)` cosine to the most similar prototype, NaN without prototypes.
        resemblance
            Which labels may be accepted, and which images are out-of-distribution.
        accepted
            `(n,)` which labels a threshold accepts.
        """
        streams = {"confidence": result.confidence, "typicality": typicality}
        sums = RunSums(
            len(accepted),
            int(resemblance.is_ood.sum()),
            np.bincount(result.prediction[accepted], minlength=len(self._class_names)),
            None
            if self._reference is None
            else self._reference.statistics(streams, result.prediction),
            self._rule.counts(result.confidence, resemblance.eligible)
            if isinstance(self._rule, ConformalSelection)
            else None,
        )
        self.sums += sums

    def outcome(self, sums: RunSums | None = None, when_invalid: str = "review") -> RunOutcome:
        """Say what holds for the run, now that it is complete.

        Parameters
        ----------
        sums
            Over the images of the run; by default those that were taken in.
        when_invalid
            Of `WHEN_INVALID`.
        """
        sums = sums or self.sums
        if self._reference is None or sums.shift is None or self._calibration is None:
            return RunOutcome(sums.n, sums.out_of_distribution, when_invalid=when_invalid)
        test = self._reference.test_statistics(sums.shift)
        threshold = None
        if isinstance(self._rule, ConformalSelection) and sums.selection is not None:
            threshold = self._rule.batch_threshold(sums.selection)
        return RunOutcome(
            sums.n,
            sums.out_of_distribution,
            test,
            tuple(self._problems(test, sums, self._calibration)),
            threshold,
            when_invalid,
        )

    def _problems(self, test: ShiftTest, sums: RunSums, calibration: Calibration) -> Iterable[str]:
        rarely = f"of runs like the calibration images at most {short_percent(test.false_alarm)}"
        if test.other_kind:
            p_values = join_names(
                [f"{name} p = {p:.1g}" for name, p in test.p_values.items() if name != "class_mix"]
            )
            yield (
                f"the images are of another kind than the calibration images ({p_values}; "
                f"{rarely} look so)"
            )
        # A risk of its own for every predicted class does not depend on their mix.
        if test.other_mix and not isinstance(self._rule, ClassCertificates):
            before = np.bincount(
                calibration.result.prediction, minlength=len(self._class_names)
            ) / len(calibration.labels)
            assert sums.shift is not None  # noqa: S101 -- the test rests on it
            now = sums.shift.images / sums.shift.images.sum()
            shares = join_names(
                [
                    f"{self._class_names[c]} {short_percent(now[c])} instead of "
                    f"{short_percent(before[c])}"
                    for c in test.classes
                ]
            )
            yield (
                f"the predicted classes are mixed in other shares ({shares}; p = "
                f"{test.p_values['class_mix']:.1g})" + self._reweighted(sums, calibration)
            )

    def _reweighted(self, sums: RunSums, calibration: Calibration) -> str:
        """Estimate the risk of the run's mix from the accepted calibration images, in words."""
        thresholds = calibration.thresholds(calibration.result)
        # `sums.accepted` are not the labels that a batch has accepted.
        if thresholds is None or self.decides or not sums.accepted.any():
            return ""
        accepted = calibration.result.confidence >= thresholds
        if calibration.eligible is not None:
            accepted &= calibration.eligible
        elif calibration.gate == "nearest" and calibration.typicality is not None:
            # As an older version calibrated it.
            ood = OODThreshold.of_shots(self._state.evidence_of_shots())
            accepted &= ~ood.is_ood(calibration.typicality)
        prediction = calibration.result.prediction[accepted]
        n = np.bincount(prediction, minlength=len(sums.accepted))
        wrong = np.bincount(
            prediction[~calibration.correct[accepted]], minlength=len(sums.accepted)
        )
        seen = n > 0
        weights = np.where(seen, sums.accepted, 0)
        if not weights.any():
            return "; no calibration image of the accepted classes says how often they are wrong"
        risk = (weights[seen] * wrong[seen] / n[seen]).sum() / weights.sum()
        text = (
            f"; weighted to this mix, {short_percent(float(risk))} of the accepted calibration "
            "labels are wrong"
        )
        unseen = 1 - weights.sum() / sums.accepted.sum()
        if unseen > 0:
            text += f" ({short_percent(float(unseen))} of the accepted ones are of classes without)"
        return text


def reference_of(state: ModelState, calibration: Calibration) -> ShiftReference:
    """Return what the images of a run are compared with.

    The calibration images, by confidence and typicality; a calibration of an older version, which
    does not say how typical they were, has the shots, each held out, stand in for these: of them
    only lower typicality counts.
    """
    n_classes, prediction = len(state.classes), calibration.result.prediction
    confidence, typicality = calibration.result.confidence, calibration.typicality
    mix = np.bincount(prediction, minlength=n_classes)
    if typicality is not None:
        streams = {"confidence": confidence, "typicality": typicality}
        return ShiftReference(streams, prediction, n_classes, mix=mix)
    shots = state.evidence_of_shots()
    of_shots = typicality_of_shots(shots)
    judged = ~np.isnan(of_shots)
    held_out, labels = of_shots[judged], shots.piece("support_labels")[judged]
    streams = {
        "confidence": np.append(confidence, np.full(len(held_out), np.nan)),
        "typicality": np.append(np.full(len(confidence), np.nan), held_out),
    }
    return ShiftReference(
        streams,
        np.append(prediction, labels),
        n_classes,
        low_side=frozenset({"typicality"}),
        mix=mix,
    )
