"""The state of a drift monitor between runs: one JSON file, bound to its model."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trustvlm.decisions.drift import DriftMonitor
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.pipeline.persistence import manifest_of

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["MonitorState", "read_state", "write_state"]

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
    """

    monitor: DriftMonitor
    calibrated_on: str
    seen: frozenset[str]


def write_state(path: str | os.PathLike[str], model: TrustVLM, state: MonitorState) -> None:
    """Write the state, whole or not at all."""
    content = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "model": _fingerprint(model),
        "calibrated_on": state.calibrated_on,
        "monitor": state.monitor.to_dict(),
        "seen": sorted(state.seen),
    }
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def read_state(path: str | os.PathLike[str], model: TrustVLM) -> MonitorState | None:
    """Read a state of this model; None if there is no such file.

    Raises
    ------
    InputError
        If the file is no state, is damaged, of another format version, or of another model.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as the state of a monitor: {error}") from error
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise InputError(f"{path} is not the state of a monitor: name another file.")
    if stored.get("format_version") != _FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {stored.get('format_version')}, but this trustvlm reads "
            f"version {_FORMAT_VERSION}: start a new state file."
        )
    if stored.get("model") != _fingerprint(model):
        raise InputError(
            f"{path} belongs to another model, or to this one before it was fitted or calibrated "
            "again: start a new state file."
        )
    try:
        return MonitorState(
            monitor=DriftMonitor.from_dict(stored["monitor"]),
            calibrated_on=str(stored["calibrated_on"]),
            seen=frozenset(stored["seen"]),
        )
    except KeyError as error:
        raise InputError(f"{path} is not complete: it lacks {error}. Start a new one.") from error


def _fingerprint(model: TrustVLM) -> str:
    """Hash what the watched numbers depend on."""
    manifest = manifest_of(model)
    parts = {
        "models": {role: made["fingerprint"] for role, made in manifest["models"].items()},
        "shots": [(shot["sha256"], shot["class"]) for shot in model.shots_],
        "score": (model.score, model.parameters_),
        "calibrated_at": model.calibration_.created_at if model.calibration_ else None,
        **{
            key: manifest[key]
            for key in ("protocol", "logit_scale", "classes", "prompts", "finetuning")
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
