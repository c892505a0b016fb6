"""The artefact `MODEL.trust`: what it must hold, and how it is written and read.

It is a directory with a manifest and arrays, and no pickle. `Manifest` says what stands in the
manifest, and `_check_arrays` which arrays belong to it, with their kinds and shapes. This module
imports pydantic, so whoever neither writes nor reads an artefact does not import it.
"""

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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trustvlm.exceptions import ArtefactError, TrustVLMWarning
from trustvlm.risk_control.prediction_sets import SET_METHODS
from trustvlm.serialization import first_invalid

FORMAT_VERSION = 1
_FORMAT = "trustvlm.model"
_MANIFEST, _ARRAYS = "manifest.json", "arrays.safetensors"


# What a manifest must hold. Fields with a default are those that artefacts of older versions lack.


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class EncoderEntry(_Entry):
    """An encoder: how it is named, and what tells it from others; see `records.describe`."""

    model_config = ConfigDict(extra="allow")

    spec: str
    source: str = ""
    revision: str = ""
    weights: str = ""
    settings: dict[str, Any] = {}
    preprocessing: dict[str, Any] = {}
    fingerprint: str
    note: str = ""


class EncoderEntries(_Entry):
    """The VLM that predicts and the vision encoder that verifies."""

    vlm: EncoderEntry
    vision: EncoderEntry


class ImageEntry(_Entry):
    """An image that the model has learned from."""

    path: str
    sha256: str


class ShotEntry(ImageEntry):
    """A shot, with the index of its class."""

    label: int = Field(alias="class", ge=0)


class SelectionEntry(_Entry):
    """How parameters of the score were selected, and on which images besides the shots."""

    by: str
    score: str
    n: int
    aurc: float | None
    untuned_aurc: float | None
    parameters: dict[str, float]
    remark: str
    images: tuple[ImageEntry, ...] = ()


class ScoreEntry(_Entry):
    """The score, its parameters as given or selected, and how they were selected."""

    name: str
    parameters: dict[str, Any]
    selection: SelectionEntry | None = None


class ShotsEntry(_Entry):
    """The shots, how they were drawn, how many each class has, and which were unreadable."""

    per_class: int | None
    draw: int
    counts: tuple[int, ...] | None = None
    folder: str = ""
    images: tuple[ShotEntry, ...]
    unreadable: tuple[str, ...] = ()


class FinetuningEntry(_Entry):
    """Mean loss of each epoch."""

    losses: tuple[float, ...]


class CalibratedScore(_Entry):
    """The score that was calibrated, and which revision of it; older files have the first."""

    name: str
    parameters: dict[str, Any]
    revision: int = 1


class CalibrationData(_Entry):
    """The n images that a calibration rests on; none are listed where they are the shots."""

    name: str
    n: int
    images: tuple[ImageEntry, ...]
    unreadable: tuple[str, ...]
    looks: int = Field(default=1, ge=1)
    earlier: tuple[str, ...] = ()


class CalibratorEntry(_Entry):
    """The kind of calibrator; what it learned is among the arrays."""

    name: str


class CalibrationEntry(_Entry):
    """Where P(correct) is from, and the certified rule for accepting, if there is one."""

    created_at: str
    score: CalibratedScore
    data: CalibrationData
    certificate: dict[str, Any] | None
    other_rules: tuple[dict[str, Any], ...] = ()
    # What older versions did, and did not say.
    gate: Literal["label", "nearest", "none"] = "nearest"
    calibrator: CalibratorEntry


class AdaptationEntry(_Entry):
    """The unlabelled images that the score adapted to."""

    images: tuple[ImageEntry, ...] = Field(min_length=1)


class LearnedEntry(_Entry):
    """What the score has learned from the shots, besides its arrays; see `scores.compute.Storage`.

    Those of another name, version or parameters (`key`) than this trustvlm's are learned anew.
    """

    name: str
    version: int
    key: str
    values: dict[str, Any]


class Manifest(_Entry):
    """Everything of a fitted model but its arrays; more fields, for readers, are passed over."""

    created_by: str
    created_at: str
    models: EncoderEntries
    protocol: str
    precision: str
    draft: bool = False
    logit_scale: float
    classes: tuple[str, ...] = Field(min_length=1)
    folders: tuple[str, ...] = Field(min_length=1)
    other_classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = Field(min_length=1)
    score: ScoreEntry
    shots: ShotsEntry
    finetuning: FinetuningEntry | None
    adaptation: AdaptationEntry | None = None
    calibration: CalibrationEntry | None
    learned: LearnedEntry | None = None


def read_model(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Read a `.trust` directory whose manifest and arrays fit each other.

    Raises
    ------
    ArtefactError
        As `read_artefact`; or if the manifest lacks or misstates a field, or an array is missing,
        of another kind or shape than the manifest says, or not finite.
    """
    stored, arrays = read_artefact(path)
    file = Path(path) / _MANIFEST
    try:
        # In strict mode only JSON has tuples: there they are lists.
        manifest = Manifest.model_validate_json(json.dumps(stored), strict=True)
    except ValidationError as error:
        field, wrong = first_invalid(error)
        others = error.error_count() - 1
        more = f" (and {others} more fields)" if others else ""
        raise ArtefactError(
            f"{file} is not complete: its field `{field}` is missing or misstated: {wrong}{more}. "
            f"{_REMEDY}"
        ) from error
    _check_arrays(Path(path), manifest, arrays)
    return manifest, arrays


_REMEDY = "Copy the model again, or fit again with `trustvlm fit`."


def _check_arrays(path: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check names, kinds, shapes and values of arrays against each other and the manifest."""
    # C classes, m shots, n calibration images, t images adapted to; d and e are the dimensions of
    # the two encoders.
    sizes = {"C": len(manifest.classes), "m": len(manifest.shots.images)}
    expected = {
        "prototype_sums": ("f", "Cd"),
        "prototype_counts": ("i", "C"),
        "text_embeddings": ("f", "Ce"),
        "support_features": ("f", "md"),
        "support_image_embeddings": ("f", "me"),
        "support_labels": ("i", "m"),
    }
    if manifest.other_classes:
        sizes["k"] = len(manifest.other_classes)
        expected["other_text_embeddings"] = ("f", "ke")
    if manifest.finetuning is not None:
        expected["learned_prototypes"] = ("f", "Cd")
    if manifest.adaptation is not None:
        sizes["t"] = len(manifest.adaptation.images)
        expected |= {"target_features": ("f", "td"), "target_image_embeddings": ("f", "te")}
    if manifest.calibration is not None:
        sizes["n"] = manifest.calibration.data.n
        expected |= {
            "calibration_confidence": ("f", "n"),
            "calibration_correct": ("b", "n"),
            "calibration_prediction": ("i", "n"),
            "calibration_label": ("i", "n"),
        }
        # Those that calibrations of older versions lack.
        later = ("calibration_typicality", *(f"calibration_set_{m}" for m in SET_METHODS))
        expected |= {name: ("f", "n") for name in later if name in arrays}
        if "calibration_eligible" in arrays:
            expected["calibration_eligible"] = ("b", "n")
    kinds = {"f": "floating-point numbers", "i": "whole numbers", "b": "booleans"}

    def refuse(name: str, what: str) -> ArtefactError:
        return ArtefactError(f"{path / _ARRAYS}: the array `{name}` {what}. {_REMEDY}")

    for name, (kind, letters) in expected.items():
        array = arrays.get(name)
        if array is None:
            raise refuse(name, "is missing")
        if array.dtype.kind != kind:
            raise refuse(name, f"is expected to hold {kinds[kind]}, but is {array.dtype}")
        # A dimension is what the first array with it says, unless the manifest says it.
        given = dict(zip(letters, array.shape, strict=False))
        shape = tuple(sizes.setdefault(s, given.get(s, -1)) for s in letters)
        if array.shape != shape:
            raise refuse(name, f"is expected to have the shape {shape}, but has {array.shape}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise refuse(name, "holds NaN or infinity")
    for name in ("support_labels", "calibration_prediction", "calibration_label"):
        labels = arrays.get(name, np.empty(0))
        if len(labels) and not 0 <= labels.min() <= labels.max() < sizes["C"]:
            raise refuse(name, f"names classes that the {sizes['C']} of the manifest lack")
    if [shot.label for shot in manifest.shots.images] != arrays["support_labels"].tolist():
        raise refuse("support_labels", "differs from the classes that the manifest gives the shots")
    counts = np.bincount(arrays["support_labels"], minlength=sizes["C"]).tolist()
    stated = manifest.shots.counts or tuple(counts)
    if not counts == list(stated) == arrays["prototype_counts"].tolist():
        raise refuse("prototype_counts", "differs from the numbers of shots")
    if len(manifest.folders) != sizes["C"]:
        raise ArtefactError(
            f"{path / _MANIFEST} names {sizes['C']} `classes`, but {len(manifest.folders)} "
            f"`folders` of them. {_REMEDY}"
        )


# The directory.


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
    calls = {"linux": ("renameat2", -100), "darwin": ("renameatx_np", -2)}  # with AT_FDCWD
    name, here = calls.get(sys.platform, ("", 0))
    rename = getattr(ctypes.CDLL(None), name, None) if name else None
    if rename is None:
        return False
    swap = ctypes.c_uint(2)  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


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
