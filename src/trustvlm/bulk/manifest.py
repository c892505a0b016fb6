"""What a bulk job is: its inputs, its model and its settings, written down when it begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trustvlm
from trustvlm.exceptions import InputError
from trustvlm.files import write_text

__all__ = ["FOLDER", "agree_on", "identify"]

FOLDER = "_trustvlm"
_FORMAT, _VERSION = "trustvlm.bulk", 1


def identify(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return a fingerprint of each side of a model that can change a verdict.

    Parameters
    ----------
    manifest
        Of the `.trust` directory.
    """
    models = manifest["models"]
    sides = {
        "VLM": models["vlm"]["fingerprint"],
        "vision encoder": models["vision"]["fingerprint"],
        "classes": [manifest["classes"], manifest["folders"]],
        "prompts": manifest["prompts"],
        "score": [manifest["score"]["name"], manifest["score"]["parameters"]],
        "protocol": [manifest["protocol"], manifest["precision"]],
        "calibration": [manifest["calibration"], manifest["decision_rule"]],
        "shots": [shot["sha256"] for shot in manifest["shots"]["images"]],
        "prototypes": manifest["arrays"]["sha256"],
    }
    return {name: _hash(value) for name, value in sides.items()}


def agree_on(
    output: Path, inputs: list[str], model: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Write the manifest of a new job, or check that the one there is of the same job.

    Raises
    ------
    InputError
        If the folder holds something else, or a job that differs; the message says in what.
    """
    wanted = {"inputs": inputs, "model": dict(model), "settings": dict(settings)}
    file = output / FOLDER / "manifest.json"
    if not file.exists():
        strangers = (
            [p.name for p in output.iterdir() if p.name != FOLDER] if output.exists() else []
        )
        if strangers:
            raise InputError(
                f"Expected {str(output)!r} to be new, empty, or a folder of an earlier run, but "
                f"it holds {strangers[0]!r}. Choose another folder."
            )
        described = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "created_by": f"trustvlm {trustvlm.__version__}",
            **wanted,
        }
        write_text(file, json.dumps(described, indent=2, ensure_ascii=False) + "\n")
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        same_version = (found["format"], found["format_version"]) == (_FORMAT, _VERSION)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}). Choose another folder.") from error
    if not same_version:
        raise InputError(f"{file} was made by another version of trustvlm. Choose another folder.")
    if found["inputs"] != inputs:
        raise InputError(
            f"{str(output)!r} holds verdicts on other inputs: {', '.join(found['inputs'])}, and "
            f"not {', '.join(inputs)}. Name the same, or choose another folder."
        )
    sides: tuple[tuple[str, Mapping[str, Any]], ...] = (("model", model), ("settings", settings))
    for what, ours in sides:
        theirs = found[what]
        differing = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if differing:
            detail = "; ".join(
                f"{name}: {_short(theirs.get(name))} there, {_short(ours.get(name))} now"
                for name in differing
            )
            raise InputError(
                f"{str(output)!r} was begun with another {what.removesuffix('s')} ({detail}). "
                "Continue with the same, or choose another folder."
            )


def _hash(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)
