"""Watch whether incoming images still resemble those that a model was made for, run after run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions.drift import DriftMonitor
from trustvlm.decisions.scope import held_out_typicality
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError
from trustvlm.pipeline.crossvalidation import cross_validate
from trustvlm.pipeline.monitor_state import MonitorState, read_state, write_state
from trustvlm.pipeline.verdicts import Verdicts
from trustvlm.pipeline.watched_numbers import watched_numbers, watched_score

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["Watched", "monitor", "start_monitor"]

_FOLDS = 8


@dataclass(frozen=True)
class Watched:
    """What a run of the monitor found.

    Attributes
    ----------
    monitor
        The state after it.
    calibrated_on
        In words, which images count as ordinary.
    new, repeated
        Incoming images that were watched in this run, and those left out because the same content
        was seen before.
    latest
        Median of each watched number over the new images; NaN if there are none.
    failures
        Verdicts of the images that could not be read.
    """

    monitor: DriftMonitor
    calibrated_on: str
    new: int
    repeated: int
    latest: Mapping[str, float]
    failures: Verdicts

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain JSON values."""
        return {
            "drifted": self.monitor.drifted,
            "images": self.monitor.n,
            "new": self.new,
            "repeated": self.repeated,
            "failures": [{"path": v.path, "error": v.error} for v in self.failures],
            "calibrated_on": self.calibrated_on,
            "false_alarm": self.monitor.false_alarm,
            "alarm_at": self.monitor.alarm_at,
            "streams": {
                name: {
                    "drifted_after": stream.drifted_after,
                    "log_capital": stream.bettor.log_capital,
                    "log_peak": stream.bettor.peak,
                    "calibration": len(stream.calibration),
                    "median_calibration": stream.usual,
                    "median_incoming": stream.lately if stream.arrived else None,
                    "median_new": self.latest[name] if self.new else None,
                }
                for name, stream in self.monitor.streams.items()
            },
        }


def monitor(
    model: TrustVLM,
    images: Any,
    *,
    state: str | os.PathLike[str] | None = None,
    reference: Any = None,
    false_alarm: float = 1e-4,
    progress: Progress | None = None,
) -> Watched:
    """Watch incoming images for drift, going on from where the last run stopped.

    Two numbers per image are watched: the confidence of its verdict (of the text alone, if the
    model's score adapts to the batch), and its typicality, the cosine to the most similar
    prototype.

    Parameters
    ----------
    model
        A fitted model.
    images
        Incoming images, as for `TrustVLM.predict`. Images whose content was seen before are left
        out, so that a growing folder can be watched.
    state
        File of the state; it is read if it exists, and written whole at the end. None watches
        these images alone.
    reference
        Ordinary images, unlabelled, that incoming ones should resemble; they start the state.
        None takes the calibration images' confidences, if the model is calibrated, and for the
        rest the shots, each held out; of what rests on shots, only a fall raises the alarm.
    false_alarm
        Bound on the chance that an alarm is ever raised if incoming and reference images are
        exchangeable, in (0, 1).
    progress
        As in `TrustVLM.iter_predict`.

    Raises
    ------
    InputError
        If the state is of another model, or of another reference or bound, or is damaged; or
        there is nothing to compare with.
    """
    model.check_fitted()
    stored = None if state is None else read_state(state, model)
    if stored is None:
        watching, calibrated_on = start_monitor(model, reference, false_alarm, progress)
        seen: set[str] = set()
    else:
        if reference is not None:
            raise InputError(
                f"{state} has a reference already: leave it out, or name another state file."
            )
        watching, calibrated_on, seen = stored.monitor, stored.calibrated_on, set(stored.seen)
        if watching.false_alarm != false_alarm:
            raise InputError(
                f"{state} was started with a false-alarm bound of {watching.false_alarm}, but got "
                f"{false_alarm}: name another state file."
            )
    found = watched_numbers(model, images, seen, progress)
    watching = watching.after({name: found.streams[name] for name in watching.streams})
    if state is not None:
        write_state(
            state, model, MonitorState(watching, calibrated_on, frozenset(seen | found.seen))
        )
    return Watched(
        monitor=watching,
        calibrated_on=calibrated_on,
        new=len(found.seen),
        repeated=found.repeated,
        latest={
            name: float(np.median(found.streams[name])) if found.seen else math.nan
            for name in watching.streams
        },
        failures=Verdicts(found.failures),
    )


def start_monitor(
    model: TrustVLM, reference: Any, false_alarm: float, progress: Progress | None = None
) -> tuple[DriftMonitor, str]:
    """Return a monitor that has seen nothing yet, and what it compares with, in words.

    Parameters
    ----------
    model, reference, false_alarm, progress
        As `monitor`.

    Raises
    ------
    InputError
        If there is nothing to compare with.
    """
    if reference is None:
        return _start_from_model(model, false_alarm)
    found = watched_numbers(model, reference, frozenset(), progress)
    streams = {name: values for name, values in found.streams.items() if len(values)}
    if not streams:
        raise InputError("None of the reference images can be read.")
    monitor = DriftMonitor.start(streams, false_alarm=false_alarm)
    return monitor, f"{len(found.seen)} reference images"


def _start_from_model(model: TrustVLM, false_alarm: float) -> tuple[DriftMonitor, str]:
    shots = model.evidence_of_shots()
    stream, name, parameters = watched_score(model)
    streams: dict[str, NDArray[np.float64]] = {}
    words, low_side = [], []
    calibrated = _calibrated(model) if stream == "confidence" else None
    if calibrated is not None:
        streams[stream] = calibrated
        words.append(f"{len(calibrated)} calibration images (confidence)")
    typicality = held_out_typicality(shots)
    if len(typicality):
        # Held-out shots are judged with fewer shots than incoming images: they seem less typical.
        if calibrated is None:
            own = cross_validate(shots, [name], folds=_FOLDS, parameters={name: parameters})
            streams[stream] = own.results[name].confidence
            low_side.append(stream)
        streams["typicality"] = typicality
        low_side.append("typicality")
        words.append(f"{len(typicality)} example images, each held out")
    if not streams:
        raise InputError(
            "No class has two example images, so nothing says what is usual. Name ordinary images "
            "with --reference (reference=...)."
        )
    monitor = DriftMonitor.start(streams, false_alarm=false_alarm, low_side=low_side)
    return monitor, " and ".join(words)


def _calibrated(model: TrustVLM) -> NDArray[np.float64] | None:
    """Confidences of the calibration images, if the model's score was calibrated on images."""
    found = model.calibration_
    if found is None or not found.images:
        return None
    same = (found.score, dict(found.parameters)) == (model.score, dict(model.parameters_))
    return found.result.confidence if same else None
