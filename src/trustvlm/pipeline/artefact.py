"""The artefact `MODEL.trust`: a directory with a manifest and arrays, and no pickle."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trustvlm.exceptions import ArtefactError, TrustVLMWarning

__all__ = [
    "FORMAT_VERSION",
    "check_same_model",
    "check_target",
    "read_artefact",
    "write_artefact",
]

FORMAT_VERSION = 1
_FORMAT = "trustvlm.model"
_MANIFEST, _ARRAYS = "manifest.json", "arrays.safetensors"


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise `ArtefactError` unless an artefact can be written there without harm to other files.

    Only a folder is ever replaced in which every file is this tool's own: the manifest of a
    trustvlm model and its arrays, and nothing else. Long work asks this before it begins.

    Raises
    ------
    ArtefactError
        If something else stands at that path, or nothing can be written beside it.

    Examples
    --------
    >>> check_target("new.trust")
    """
    path = Path(path)
    if path.is_symlink():
        raise ArtefactError(
            f"Expected {str(path)!r} to be a folder, or new, but it is a symbolic link. Name the "
            "folder that it leads to, or remove the link."
        )
    if path.exists():
        _check_own(path)
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    try:
        tempfile.TemporaryDirectory(prefix=_workspace_prefix(path), dir=parent).cleanup()
    except OSError as error:
        raise _not_written(path, error) from error


def _check_own(path: Path) -> None:
    remedy = "It is not overwritten: name another folder, or move it away first."
    if not path.is_dir():
        raise ArtefactError(f"{path} exists and is not a folder. {remedy}")
    try:
        with os.scandir(path) as entries:
            files = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
        foreign = sorted(n for n, own in files.items() if not own or n not in (_MANIFEST, _ARRAYS))
        if not foreign and _MANIFEST in files:
            manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
                foreign = [_MANIFEST]
    except ValueError:
        foreign = [_MANIFEST]
    except OSError as error:
        raise ArtefactError(f"{path} exists and cannot be read: {error}. {remedy}") from error
    if foreign:
        raise ArtefactError(
            f"{path} exists and is not a .trust directory: {foreign[0]!r} in it was not written by "
            f"trustvlm fit. {remedy}"
        )
    if _MANIFEST not in files:
        raise ArtefactError(
            f"{path} exists and is not a .trust directory: it has no {_MANIFEST}. {remedy}"
        )


def _not_written(path: Path, error: OSError) -> ArtefactError:
    return ArtefactError(
        f"{path} cannot be written: {error.strerror or error}. Name a folder inside one that you "
        "may write to."
    )


def write_artefact(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write a `.trust` directory, whole or not at all; an older one of that name is replaced.

    Whenever the process is killed, the older artefact or the new one stands there: both change
    places in one step, where the file system can do that (Linux and macOS, on local disks). Where
    it cannot, the older one has another name for a moment, which reading then tells.

    Raises
    ------
    ArtefactError
        If something else than a `.trust` directory stands at that path, or nothing can be written.
    """
    path = Path(path)
    check_target(path)
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    full = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        **manifest,
        "arrays": {"file": _ARRAYS, "sha256": hashlib.sha256(content).hexdigest()},
    }
    text = json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=_workspace_prefix(path), dir=path.parent))
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        fresh = workspace / "new"
        fresh.mkdir()
        _write_through(fresh / _ARRAYS, content)
        _write_through(fresh / _MANIFEST, (text + "\n").encode())
        _put(fresh, path, workspace / "old")
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        _clear(workspace)


def _write_through(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _put(fresh: Path, path: Path, older: Path) -> None:
    """Let `fresh` stand at `path`; what stood there is then `fresh` or `older`."""
    if not path.exists():
        fresh.rename(path)
        return
    if _exchange(fresh, path):
        return
    path.rename(older)
    try:
        fresh.rename(path)
    except BaseException:
        older.rename(path)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where this system cannot."""
    name, flag = {
        "linux": ("renameat2", 2),  # RENAME_EXCHANGE
        "darwin": ("renameatx_np", 2),  # RENAME_SWAP
    }.get(sys.platform, ("", 0))
    here = {"linux": -100, "darwin": -2}.get(sys.platform, 0)  # AT_FDCWD
    rename = getattr(ctypes.CDLL(None), name, None) if name else None
    if rename is None:
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(flag)) == 0)


def _clear(workspace: Path) -> None:
    """Remove the folder that was written in; of an older artefact, only this tool's own files."""
    for folder in (workspace / "new", workspace / "old"):
        for name in (_MANIFEST, _ARRAYS):
            with suppress(OSError):
                (folder / name).unlink()
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            warnings.warn(
                f"{folder} is left over from the model that was replaced: {error.strerror}",
                TrustVLMWarning,
                stacklevel=2,
            )
    with suppress(OSError):
        workspace.rmdir()


def _workspace_prefix(path: Path) -> str:
    return f".{path.name}."


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
        remedy = "Make one with `trustvlm fit`."
        older = next(path.parent.glob(f"{glob.escape(_workspace_prefix(path))}*/old"), None)
        if older is not None and not path.exists():
            remedy = f"Replacing it was interrupted; the older one is {older}: rename it back."
        raise ArtefactError(
            f"{path} is not a .trust directory: {Path(error.filename).name} is missing. {remedy}"
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
