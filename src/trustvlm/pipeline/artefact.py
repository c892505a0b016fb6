"""The artefact `MODEL.trust`: a directory with a manifest and arrays, and no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trustvlm.exceptions import ArtefactError

__all__ = ["FORMAT_VERSION", "check_same_model", "read_artefact", "write_artefact"]

FORMAT_VERSION = 1
_FORMAT = "trustvlm.model"
_MANIFEST, _ARRAYS = "manifest.json", "arrays.safetensors"


def write_artefact(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write a `.trust` directory, whole or not at all; an older one of that name is replaced.

    Raises
    ------
    ArtefactError
        If something else than a `.trust` directory stands at that path.
    """
    path = Path(path)
    if path.exists() and not (path / _MANIFEST).is_file():
        raise ArtefactError(f"{path} exists and is not a .trust directory: it is not overwritten.")
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    full = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        **manifest,
        "arrays": {"file": _ARRAYS, "sha256": hashlib.sha256(content).hexdigest()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        fresh = workspace / "new"
        fresh.mkdir()
        (fresh / _ARRAYS).write_bytes(content)
        text = json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False)
        (fresh / _MANIFEST).write_text(text + "\n", encoding="utf-8")
        if path.exists():
            path.rename(workspace / "old")
        fresh.rename(path)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def read_artefact(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read the manifest and the arrays of a `.trust` directory, checked against each other.

    Raises
    ------
    ArtefactError
        If the directory is missing, incomplete, damaged, or of another format version.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        content = (path / _ARRAYS).read_bytes()
    except FileNotFoundError as error:
        raise ArtefactError(
            f"{path} is not a .trust directory: {Path(error.filename).name} is missing. "
            "Make one with `trustvlm fit`."
        ) from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ArtefactError(f"{path / _MANIFEST} is not the manifest of a trustvlm model.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise ArtefactError(
            f"{path} has format version {version}, but this trustvlm reads version "
            f"{FORMAT_VERSION}: it was made by {manifest.get('created_by', 'an unknown version')}. "
            "Install that version, or fit again."
        )
    digest = hashlib.sha256(content).hexdigest()
    expected = manifest.get("arrays", {}).get("sha256")
    if digest != expected:
        raise ArtefactError(
            f"{path / _ARRAYS} is not the file that the manifest describes (SHA-256 {digest[:12]}, "
            f"expected {str(expected)[:12]}): the copy is damaged or mixed up. Copy it again."
        )
    try:
        return manifest, load(content)
    except SafetensorError as error:
        raise ArtefactError(f"{path / _ARRAYS} cannot be read: {error}") from error


def check_same_model(role: str, stored: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise `ArtefactError` unless the model on this machine is the one the artefact was made with.

    Parameters
    ----------
    role
        What the model is for, as the subject of the message.
    stored, here
        Descriptions with `fingerprint`, `weights`, `revision`, `settings`, `preprocessing`.

    Examples
    --------
    >>> same = {"fingerprint": "a", "weights": "w"}
    >>> check_same_model("VLM", same, same)
    """
    if stored["fingerprint"] == here["fingerprint"]:
        return
    parts = ("weights", "revision", "settings", "preprocessing")
    differing = [part for part in parts if stored.get(part) != here.get(part)]
    detail = "; ".join(
        f"{part}: {_short(stored.get(part))} in the artefact, {_short(here.get(part))} here"
        for part in differing
    )
    raise ArtefactError(
        f"The {role} on this machine ({here.get('spec')}) is not the one that the artefact was "
        f"made with ({stored.get('spec')}). {detail or 'The fingerprints differ'}. Use the same "
        "model and versions, or fit again."
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{text[:12]}..." if isinstance(value, str) and len(text) > 16 else text or "none"
