"""Watch whether incoming images still resemble those that a model was made for, run after run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.files import local_path, write_text
from trustvlm.images import Columns, ImageSource, Source, open_images
from trustvlm.monitoring.drift import DriftMonitor
from trustvlm.monitoring.ood import held_out_typicality
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.cross_validate import cross_validate
from trustvlm.pipeline.labellers import Labeller
from trustvlm.pipeline.records import encode_in_chunks
from trustvlm.pipeline.state import FittedModel, ModelState
from trustvlm.pipeline.verdict import Verdict, Verdicts, failures_of
from trustvlm.scores import get as get_score
from trustvlm.scores import prepare
from trustvlm.text import counted

# The two numbers that are watched: a confidence and a typicality per image.

# Of the SHA-256 of an image that was seen; enough to tell 10^8 images apart.
DIGITS = 16


@dataclass(frozen=True)
class WatchedNumbers:
    """What was read off some images.

    Attributes
    ----------
    streams
        By name, one number per image that was looked at.
    seen
        How the SHA-256 of each of these begins.
    repeated
        Images left out because the same content was seen before.
    failures
        Verdicts of those that could not be read.
    """

    streams: Mapping[str, NDArray[np.float64]]
    seen: set[str]
    repeated: int
    failures: list[Verdict]


def watched_numbers(
    model: FittedModel,
    images: Source,
    seen: Collection[str],
    progress: Progress | None = None,
    labeller: Labeller | None = None,
    **columns: Unpack[Columns],
) -> WatchedNumbers:
    """Reduce images to two numbers each; each content counts once.

    Without a VLM and a `labeller` there are no labels, and one number is left: the typicality.
    """
    state = _watched_state(model.state, labeller)
    shots = state.evidence_of_shots()
    stream, name, parameters = watched_score(state)
    score = prepare(name, shots, **parameters)
    confidence: list[NDArray[np.float64]] = [np.empty(0)]
    typicality: list[NDArray[np.float64]] = [np.empty(0)]
    fresh: set[str] = set()
    repeated, failures = 0, []
    sources = open_images(images, limits=model.embedder.limits, **columns)
    if labeller is not None:
        sources = _with_label(sources, labeller)
    for encoded in encode_in_chunks(sources, model.embedder, progress):
        if labeller is not None:
            encoded = labeller.of_class(encoded)
        failures += failures_of(encoded)
        readable = encoded.readable()
        keep = np.zeros(len(readable), dtype=bool)
        for i, digest in enumerate(readable.hashes):
            short = digest[:DIGITS]
            if short not in seen and short not in fresh:
                fresh.add(short)
                keep[i] = True
        repeated += int((~keep).sum())
        if keep.any():
            new = readable.select(keep)
            given = {} if labeller is None else labeller.pieces(new.refs, get_score(name))
            if state.has_vlm or labeller is not None:
                evidence = state.evidence(new.image_embeddings, new.features, shots=shots, **given)
                confidence.append(score(evidence).confidence)
            if state.bank.present_.any():
                typicality.append(np.nanmax(state.bank.similarities(new.features), axis=1))
    streams = {stream: np.concatenate(confidence), "typicality": np.concatenate(typicality)}
    return WatchedNumbers(streams, fresh, repeated, failures)


def _watched_state(state: ModelState, labeller: Labeller | None) -> ModelState:
    """Return the model as it judges what is watched: given labels, or else its own."""
    return state if state.has_vlm and labeller is None else state.for_given_labels()


def _with_label(images: Iterable[ImageSource], labeller: Labeller) -> Iterator[ImageSource]:
    """Yield the images that have a given label; warn of how many have none."""
    without = 0
    for image in images:
        if labeller.label_of(image) is None:
            without += 1
        else:
            yield image
    if without:
        warnings.warn(
            f"left out: {counted(without, 'image')} without a given label (they are matched by "
            "their files)",
            TrustVLMWarning,
            stacklevel=2,
        )


def watched_score(state: ModelState) -> tuple[str, str, Mapping[str, Any]]:
    """Return what to call the watched confidence, the score that gives it, and its parameters.

    A score that adapts to the batch would hide that the batch changed: the text's own confidence
    is then watched.
    """
    if state.whole_batch:
        return "text_confidence", "msp", {}
    return "confidence", state.score, state.parameters


# The state of a drift monitor between runs: one JSON file, bound to its model.

_FORMAT, _FORMAT_VERSION = "trustvlm.monitor", 1


@dataclass(frozen=True)
class MonitorState:
    """What is kept between runs.

    Attributes
    ----------
    monitor
        The statistics.
    calibrated_on
        In words, which images count as ordinary.
    seen
        How the SHA-256 of every image that was watched begins.
    drifted
        Whether an alarm was raised before the monitor was begun anew, as the service does.
    """

    monitor: DriftMonitor
    calibrated_on: str
    seen: frozenset[str]
    drifted: bool = False


def write_state(
    path: str | os.PathLike[str], model: ModelState, state: MonitorState, *, given: bool = False
) -> None:
    """Write the state of the monitor of a model, whole or not at all, for its owner alone.

    `given` says whether labels from elsewhere are watched.
    """
    content = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "model": _fingerprint(model, given=given),
        "calibrated_on": state.calibrated_on,
        "monitor": state.monitor.to_dict(),
        "seen": sorted(state.seen),
        "drifted": state.drifted or state.monitor.drifted,
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text, private=True)


def read_state(
    path: str | os.PathLike[str], model: ModelState, *, given: bool = False
) -> MonitorState | None:
    """Read the state of a monitor of this model; None if there is no such file.

    `given` as in `write_state`.

    Raises
    ------
    InputError
        If the file is no state, is damaged, of another format version, or of another model.
    """
    path = local_path(path, "file")
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as the state of a monitor: {error}. Name another file: one "
            "that is not there is begun."
        ) from error
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise InputError(f"{path} is not the state of a monitor: name another file.")
    if stored.get("format_version") != _FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {stored.get('format_version')}, but this trustvlm reads "
            f"version {_FORMAT_VERSION}: start a new state file."
        )
    if stored.get("model") == _fingerprint(model, given=not given):
        raise InputError(
            f"{path} watches {'the labels of the model' if given else 'given labels'}: name "
            f"another file, or {'leave out' if given else 'name'} --given-labels (labeller=...)."
        )
    if stored.get("model") != _fingerprint(model, given=given):
        raise InputError(
            f"{path} belongs to another model, or to this one before it was fitted or calibrated "
            "again: start a new state file."
        )
    try:
        return MonitorState(
            monitor=DriftMonitor.from_dict(stored["monitor"]),
            calibrated_on=str(stored["calibrated_on"]),
            seen=frozenset(stored["seen"]),
            drifted=bool(stored.get("drifted", False)),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not complete: it lacks or misstates {error}. Start a new one."
        ) from error


def _fingerprint(model: ModelState, *, given: bool = False) -> str:
    """Hash what the watched numbers depend on."""
    manifest = model.to_manifest()
    parts = {
        "models": {role: entry["fingerprint"] for role, entry in manifest["models"].items()},
        "shots": [(shot["sha256"], shot["class"]) for shot in model.shots],
        "score": (model.score, model.parameters),
        "calibrated_at": model.calibration.created_at if model.calibration else None,
        **{
            key: manifest[key]
            for key in ("protocol", "logit_scale", "classes", "prompts", "finetuning")
        },
        **({"given_labels": True} if given else {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# A run of the monitor.

_FOLDS = 8


@dataclass(frozen=True)
class DriftReport:
    """What a run of the monitor says.

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
                    "log_capital": stream.martingale.log_capital,
                    "log_peak": stream.martingale.peak,
                    "calibration": len(stream.calibration),
                    "median_calibration": stream.usual,
                    "median_incoming": stream.lately if stream.arrived else None,
                    "median_new": self.latest[name] if self.new else None,
                }
                for name, stream in self.monitor.streams.items()
            },
        }


def monitor(
    model: FittedModel,
    images: Source,
    *,
    state: str | os.PathLike[str] | None = None,
    reference: Source | None = None,
    false_alarm: float = 1e-4,
    labeller: Labeller | None = None,
    progress: Progress | None = None,
    **columns: Unpack[Columns],
) -> DriftReport:
    """Watch incoming images for drift, going on from where the last run stopped.

    Two numbers per image are watched: the confidence of its verdict (of the text alone, if the
    model's score adapts to the batch), and its typicality, the cosine to the most similar
    prototype. With a `labeller`, the first is the confidence in its label, if the model is
    calibrated for it or a reference is named: what is usual of its labels no example says. Without
    labels, of a VLM or given, the typicality alone is watched.

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
        None takes the calibration images, or the shots, each held out, if there are none; of what
        rests on shots, only a fall raises the alarm. They also stand in for the typicality of
        calibration images where a calibration of an older version does not hold it.
    false_alarm
        Bound on the chance that an alarm is ever raised if incoming and reference images are
        exchangeable, in (0, 1).
    labeller
        Labels from elsewhere of the incoming images, and of the reference:
        `TrustVLM.labeller(...)`. Images without one are left out.
    progress
        As in `TrustVLM.iter_predict`.
    **columns
        Of tables, incoming or reference: `path_column`, `image_column`; see `images.Columns`.

    Raises
    ------
    InputError
        If the state is of another model, or of another reference or bound, or is damaged; or
        there is nothing to compare with.
    """
    fitted, given = model.state, labeller is not None
    stored = None if state is None else read_state(state, fitted, given=given)
    if stored is None:
        watching, calibrated_on = start_monitor(
            model, reference, false_alarm, progress, labeller, **columns
        )
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
    numbers = watched_numbers(model, images, seen, progress, labeller, **columns)
    watching = watching.after({name: numbers.streams[name] for name in watching.streams})
    if state is not None:
        after = MonitorState(watching, calibrated_on, frozenset(seen | numbers.seen))
        write_state(state, fitted, after, given=given)
    return DriftReport(
        monitor=watching,
        calibrated_on=calibrated_on,
        new=len(numbers.seen),
        repeated=numbers.repeated,
        latest={
            name: float(np.median(numbers.streams[name])) if numbers.seen else math.nan
            for name in watching.streams
        },
        failures=Verdicts(numbers.failures),
    )


def start_monitor(
    model: FittedModel,
    reference: Source | None,
    false_alarm: float,
    progress: Progress | None = None,
    labeller: Labeller | None = None,
    **columns: Unpack[Columns],
) -> tuple[DriftMonitor, str]:
    """Return a monitor that has seen nothing yet, and what it compares with, in words.

    Parameters
    ----------
    model, reference, false_alarm, progress, labeller, **columns
        As `monitor`.

    Raises
    ------
    InputError
        If there is nothing to compare with.
    """
    if reference is None:
        state = _watched_state(model.state, labeller)
        own_labels = state.has_vlm and labeller is None
        return start_from_model(
            state, false_alarm, own_labels=own_labels, labelled=own_labels or labeller is not None
        )
    numbers = watched_numbers(model, reference, frozenset(), progress, labeller, **columns)
    streams = {name: values for name, values in numbers.streams.items() if len(values)}
    if not streams:
        raise InputError("None of the reference images can be read.")
    monitor = DriftMonitor.start(streams, false_alarm=false_alarm)
    return monitor, f"{len(numbers.seen)} reference images"


def start_from_model(
    model: ModelState, false_alarm: float, *, own_labels: bool, labelled: bool
) -> tuple[DriftMonitor, str]:
    """Return a monitor that compares with what a model was calibrated on, or else with its shots.

    Parameters
    ----------
    model
        As it judges what is watched.
    false_alarm
        As in `monitor`.
    own_labels, labelled
        Whether images come with labels of the model's own, or with any: else only their typicality
        is watched.

    Raises
    ------
    InputError
        If there is nothing to compare with.
    """
    shots = model.evidence_of_shots()
    stream, name, parameters = watched_score(model)
    streams: dict[str, NDArray[np.float64]] = {}
    words, low_side = [], []
    calibration = _calibration(model) if stream == "confidence" else None
    if calibration is not None:
        if labelled:
            streams[stream] = calibration.result.confidence
        if calibration.typicality is not None:
            streams["typicality"] = calibration.typicality
        if streams:
            watched = " and ".join(streams)
            words.append(f"{len(calibration.labels)} calibration images ({watched})")
    typicality = held_out_typicality(shots)
    if len(typicality) and "typicality" not in streams:
        # Held-out shots are judged with fewer shots than incoming images: they seem less typical.
        if calibration is None and own_labels:
            own = cross_validate(shots, [name], folds=_FOLDS, parameters={name: parameters})
            streams[stream] = own.results[name].confidence
            low_side.append(stream)
        streams["typicality"] = typicality
        low_side.append("typicality")
        watched = "" if streams.keys() - {"typicality"} else " (typicality alone)"
        words.append(f"{len(typicality)} example images, each held out{watched}")
    if not streams:
        raise InputError(
            "No class has two example images, so nothing says what is usual. Name ordinary images "
            "with --reference (reference=...)."
        )
    monitor = DriftMonitor.start(streams, false_alarm=false_alarm, low_side=low_side)
    return monitor, " and ".join(words)


def _calibration(model: ModelState) -> Calibration | None:
    """Return the calibration, if the model's score was calibrated on images."""
    calibration = model.calibration
    if calibration is None or not calibration.images:
        return None
    of = (calibration.score, dict(calibration.parameters))
    return calibration if of == (model.score, model.parameters) else None
