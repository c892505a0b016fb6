"""The artefact `MODEL.trust`: what it must hold, and how it is written and read.

It is a directory with a manifest and arrays, and no pickle. `Manifest` says what stands in the
manifest, and `_check_arrays` which arrays belong to it, with their kinds and shapes. This module
imports pydantic, so programs that neither write nor read an artefact do not import it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trustvlm.exceptions import ArtefactError
from trustvlm.files import ABANDONED_SECONDS, atomic_folder, sync, url_of
from trustvlm.risk_control.prediction_sets import SET_METHODS
from trustvlm.serialization import first_invalid
from trustvlm.storage import RemoteFolder

FORMAT_VERSION = 1
_FORMAT = "trustvlm.model"
_MANIFEST, _ARRAYS = "manifest.json", "arrays.safetensors"
# Where folders cannot change places, a second name keeps new arrays apart from older ones.
_ARRAYS_NAME = re.compile(r"arrays(-[0-9a-f]{16})?\.safetensors")
_HASHED = "manifest_sha256"
# The largest manifests, with the paths of 10^6 images, have 200 MB; none is nested more than 10.
_MOST_JSON, _MOST_DEPTH = 2**30, 32


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
    n: int = Field(ge=0)
    aurc: float | None
    untuned_aurc: float | None
    parameters: dict[str, float]
    remark: str
    images: tuple[ImageEntry, ...] = ()


class ScoreEntry(_Entry):
    """The score, its parameters as given or selected, how they were, and whose code it is."""

    name: str
    parameters: dict[str, Any]
    selection: SelectionEntry | None = None
    plugin: dict[str, str] | None = None


class ShotsEntry(_Entry):
    """The shots, how they were drawn, how many each class has, and which were unreadable."""

    per_class: int | None = Field(ge=1)
    draw: int = Field(ge=0)
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
    n: int = Field(ge=0)
    images: tuple[ImageEntry, ...]
    unreadable: tuple[str, ...]
    looks: int = Field(default=1, ge=1)
    # Of earlier calibrations; newer files have `looked_at` instead.
    earlier: tuple[str, ...] = ()
    given_labels: bool = False
    groups: str = ""


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
    protocol: Literal["clean", "paper"]
    precision: str
    draft: bool = False
    logit_scale: float = Field(gt=0, le=1e6)
    logit_bias: float | None = Field(default=None, ge=-1e6, le=1e6)
    classes: tuple[str, ...] = Field(min_length=1)
    folders: tuple[str, ...] = Field(min_length=1)
    class_texts: tuple[str, ...] = ()
    other_classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = Field(min_length=1)
    score: ScoreEntry
    shots: ShotsEntry
    finetuning: FinetuningEntry | None
    adaptation: AdaptationEntry | None = None
    calibration: CalibrationEntry | None
    looked_at: dict[str, Annotated[int, Field(ge=1)]] = {}
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
    file = _place(path) / _MANIFEST
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
    _check_arrays(_place(path), manifest, arrays)
    return manifest, arrays


_REMEDY = "Copy the model again, or fit again with `trustvlm fit`."


def _check_arrays(
    path: Path | RemoteFolder, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]
) -> None:
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
        vectors = {"calibration_features": "nd", "calibration_image_embeddings": "ne"}
        if arrays.keys() & vectors.keys():
            expected |= {name: ("f", letters) for name, letters in vectors.items()}
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
    for name in {"text_embeddings", "other_text_embeddings", "learned_prototypes"} & set(arrays):
        lengths = np.linalg.norm(arrays[name].astype(np.float64), axis=1)
        if name == "learned_prototypes":
            lengths = lengths[arrays["prototype_counts"] > 0]
        # Without a vision-language model texts have no dimensions.
        if arrays[name].shape[1] and not np.isclose(lengths, 1, atol=1e-3).all():
            raise refuse(name, "is expected to hold rows of length 1")
    if "calibration_correct" in arrays:
        right = arrays["calibration_prediction"] == arrays["calibration_label"]
        if (arrays["calibration_correct"] != right).any():
            raise refuse("calibration_correct", "differs from predictions and labels")
    typicality = arrays.get("calibration_typicality", np.empty(0))
    if (np.abs(typicality) > 1 + 1e-3).any():
        raise refuse("calibration_typicality", "is expected to hold cosines")
    if [shot.label for shot in manifest.shots.images] != arrays["support_labels"].tolist():
        raise refuse("support_labels", "differs from the classes that the manifest gives the shots")
    counts = np.bincount(arrays["support_labels"], minlength=sizes["C"]).tolist()
    stated = manifest.shots.counts or tuple(counts)
    if not counts == list(stated) == arrays["prototype_counts"].tolist():
        raise refuse("prototype_counts", "differs from the numbers of shots")
    sums, features = arrays["prototype_sums"].astype(np.float64), arrays["support_features"]
    expected_sums = np.zeros_like(sums)
    np.add.at(expected_sums, arrays["support_labels"], features.astype(np.float64))
    if not np.allclose(sums, expected_sums, rtol=0, atol=1e-3 * np.abs(sums).max(initial=1e-9)):
        raise refuse("prototype_sums", "differs from the sums of the shots' features")
    if len(manifest.class_texts) not in (0, sizes["C"]):
        raise ArtefactError(
            f"{path / _MANIFEST} names {sizes['C']} `classes`, but {len(manifest.class_texts)} "
            f"`class_texts` of them. {_REMEDY}"
        )
    if len(manifest.folders) != sizes["C"]:
        raise ArtefactError(
            f"{path / _MANIFEST} names {sizes['C']} `classes`, but {len(manifest.folders)} "
            f"`folders` of them. {_REMEDY}"
        )


# The directory.


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Raise `ArtefactError` unless an artefact can be written there without harm to other files.

    Only a folder is ever replaced in which every file is this tool's own: the manifest of a
    trustvlm model and its arrays, and nothing else. Long work asks this before it begins.

    Parameters
    ----------
    path
        Where to write.
    overwrite
        Whether a calibrated model may be replaced.

    Returns
    -------
    str
        What is lost if it is replaced, as a sentence; "" if nothing is calibrated there.

    Raises
    ------
    ArtefactError
        If something else stands at that path, or a calibrated model that may not be replaced, or
        nothing can be written beside it.

    Examples
    --------
    >>> check_target("new.trust")
    ''
    """
    location = _place(path)
    if isinstance(location, RemoteFolder):
        return _check_own(location, overwrite=overwrite) if _names(location) else ""
    path = location
    if path.is_symlink():
        raise ArtefactError(
            f"Expected {str(path)!r} to be a folder, or new, but it is a symbolic link. Name the "
            "folder that it leads to, or remove the link."
        )
    lost = _check_own(path, overwrite=overwrite) if path.exists() else ""
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    try:
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=parent).cleanup()
    except OSError as error:
        raise _not_written(path, error) from error
    return lost


def _check_own(path: Path | RemoteFolder, *, overwrite: bool, instead: Any = None) -> str:
    """Return what is lost with the model at a path; `instead` is the calibration that follows."""
    remedy = "It is not overwritten: name another folder, or move it away first."
    if isinstance(path, Path) and not path.is_dir():
        raise ArtefactError(f"{path} exists and is not a folder. {remedy}")
    manifest: Any = None
    try:
        files = _names(path)
        foreign = sorted(n for n, own in files.items() if not (own and _is_own(n)))
        if not foreign and _MANIFEST in files:
            manifest = _parse(_read(path, _MANIFEST))
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
        # In storage elsewhere, a writer that was killed leaves arrays alone.
        if isinstance(path, RemoteFolder):
            return ""
        raise ArtefactError(
            f"{path} exists and is not a .trust directory: it has no {_MANIFEST}. {remedy}"
        )
    calibration = manifest.get("calibration")
    if calibration is None or calibration == instead:
        return ""
    lost = _describe_calibration(calibration)
    if not overwrite:
        raise ArtefactError(
            f"{path} holds a calibration {lost}. Replacing it would lose that: name another "
            "folder, or say --overwrite (in Python, overwrite=True)."
        )
    return f"{path} held a calibration {lost}. It is replaced"


def _names(path: Path | RemoteFolder) -> dict[str, bool]:
    """Return what there is in a folder, by name, and whether it is an ordinary file.

    Raises
    ------
    ArtefactError
        If storage elsewhere cannot be listed.
    """
    if isinstance(path, RemoteFolder):
        try:
            return {name: size >= 0 for name, size in path.sizes().items()}
        except OSError as error:
            raise _not_reached(path, error) from error
    with os.scandir(path) as entries:
        return {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}


def _place(path: str | os.PathLike[str]) -> Path | RemoteFolder:
    """Return where a model is: a folder of this machine, or one that a URL names."""
    url = url_of(path)
    if url is None:
        return Path(path)
    if url.lower().startswith("file:"):
        return Path(url.partition("://")[2].removeprefix("localhost"))
    return RemoteFolder(url)


def _not_reached(path: RemoteFolder, error: OSError) -> ArtefactError:
    return ArtefactError(
        f"{path} cannot be reached ({error.strerror or error}). Check the URL, the network and "
        "your rights there, and run the same again."
    )


def _describe_calibration(entry: Any) -> str:
    """Say what a calibration rests on, and what it guarantees; whatever the entry lacks."""
    data = entry.get("data") if isinstance(entry, dict) else None
    data = data if isinstance(data, dict) else {}
    n, name = data.get("n", "unknown"), data.get("name")
    of = f" of {name}" if name and data.get("images") else ""
    statement = entry.get("statement") if isinstance(entry, dict) else None
    return f"on {n} images{of}" + (f": {statement}" if statement else "")


def _is_own(name: str) -> bool:
    return name == _MANIFEST or _ARRAYS_NAME.fullmatch(name) is not None


def _not_written(path: Path, error: OSError) -> ArtefactError:
    return ArtefactError(
        f"{path} cannot be written: {error.strerror or error}. Name a folder inside one that you "
        "may write to."
    )


def write_artefact(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a `.trust` directory, whole or not at all; an older one of that name is replaced.

    Whenever the process is killed, or the power fails, the older artefact or the new one stands
    there whole. Both change places in one step, where the file system can do that (Linux and macOS,
    on local disks). Where it cannot, the new arrays are put beside the older ones, under a name of
    their own, and the new manifest, which names them, replaces the older one in one step. So it is
    done in object storage, too: in S3, Google Cloud Storage and Azure, a reader after a write
    sees what was written.

    Parameters
    ----------
    path
        Where to write.
    manifest, arrays
        As in `Manifest` and `read_model`.
    overwrite
        Whether a model with another calibration may be replaced.

    Raises
    ------
    ArtefactError
        As `check_target`.
    """
    check_target(path, overwrite=True)
    content = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={_HASHED: "sha256"},
    )
    full = {
        **_without_hash(manifest),
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "arrays": {"file": _ARRAYS, "sha256": hashlib.sha256(content).hexdigest()},
    }
    location = _place(path)
    if isinstance(location, RemoteFolder):
        _write_remote(location, full, content, overwrite=overwrite)
        return
    path, text = location, _manifest_text(full)
    if path.exists():
        instead = json.loads(text).get("calibration")
        _check_own(path, overwrite=overwrite, instead=instead)

    def replace(fresh: Path) -> None:
        _replace_within(fresh, path, full)

    try:
        with atomic_folder(path, is_own=_is_own, replace=replace) as fresh:
            (fresh / _ARRAYS).write_bytes(content)
            (fresh / _MANIFEST).write_bytes(text)
    except OSError as error:
        raise _not_written(path, error) from error


def _write_remote(
    folder: RemoteFolder, full: Mapping[str, Any], content: bytes, *, overwrite: bool
) -> None:
    """Write arrays under a name of their own, the manifest that names them, and clear up."""
    # A name that no other writer has: none removes what another is about to name.
    newer, older = _ARRAYS.replace(".", f"-{secrets.token_hex(8)}."), ""
    before = _names(folder)
    entry = {"file": newer, "sha256": full["arrays"]["sha256"]}
    text = _manifest_text({**full, "arrays": entry})
    _check_own(folder, overwrite=overwrite, instead=json.loads(text).get("calibration"))
    if _MANIFEST in before:
        older = _arrays_of(_parse(_read(folder, _MANIFEST)))
    try:
        folder.write(newer, content)
        folder.write(_MANIFEST, text)
    except BaseException as error:
        with suppress(OSError):
            stated = folder.read(_MANIFEST) if older else b""
            # The answer may be lost of a manifest that is there.
            if stated != text:
                folder.remove(newer)
        if isinstance(error, OSError):
            raise _not_reached(folder, error) from error
        raise
    # Who is about to read the older arrays reads the manifest again. Those of another writer, who
    # may be about to name them, stay for an hour.
    for name in filter(_ARRAYS_NAME.fullmatch, before):
        with suppress(OSError):
            if name == older or folder.seconds_between(name, newer) > ABANDONED_SECONDS:
                folder.remove(name)


def _manifest_text(full: Mapping[str, Any]) -> bytes:
    """Return a manifest as it is written, with the SHA-256 of all that it says."""
    hashed = {**full, _HASHED: _hash_of(full)}
    return (json.dumps(hashed, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _hash_of(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(_without_hash(manifest), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def copy_artefact(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> Path:
    """Copy a `.trust` directory to a new path, whole or not at all; return where it is.

    Raises
    ------
    ArtefactError
        If something stands there already, or nothing can be written.
    """
    path, to = Path(path), Path(to)
    if os.path.lexists(to):
        raise ArtefactError(f"{to} exists already: name another folder.")
    try:
        with atomic_folder(to, is_own=_is_own) as fresh:
            for file in path.iterdir():
                if _is_own(file.name):
                    shutil.copyfile(file, fresh / file.name)
    except OSError as error:
        raise _not_written(to, error) from error
    return to


def remove_artefact(path: Path) -> None:
    """Remove a copy that `copy_artefact` made; what cannot be removed stays."""
    with suppress(OSError):
        for file in list(path.iterdir()):
            if _is_own(file.name):
                file.unlink()
        path.rmdir()


def _without_hash(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name != _HASHED}


def _replace_within(fresh: Path, path: Path, full: Mapping[str, Any]) -> None:
    """Replace the model in a folder by the one in `fresh`; the step is that of its manifest."""
    older = _arrays_of(_parse((path / _MANIFEST).read_bytes()))
    digest = full["arrays"]["sha256"]
    newer = _ARRAYS.replace(".", f"-{digest[:16]}.")
    text = _manifest_text({**full, "arrays": {"file": newer, "sha256": digest}})
    (fresh / _MANIFEST).write_bytes(text)
    sync(fresh / _MANIFEST)
    (fresh / _ARRAYS).replace(path / newer)
    sync(path)
    (fresh / _MANIFEST).replace(path / _MANIFEST)
    sync(path)
    # Those of another writer, who may be about to name them, stay for an hour.
    past = time.time() - ABANDONED_SECONDS
    for file in path.iterdir():
        if file.name != newer and _ARRAYS_NAME.fullmatch(file.name):
            with suppress(OSError):
                if file.name == older or file.stat().st_mtime < past:
                    file.unlink()


def read_artefact(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read the manifest and the arrays of a `.trust` directory, checked against each other.

    Where another process replaces it meanwhile, one of both is read whole.

    Raises
    ------
    ArtefactError
        If the directory is missing, incomplete, damaged, or of another format version.
    """
    location = _place(path)
    stated: bytes | None = None
    while True:
        last, stated = stated, _read(location, _MANIFEST, _MOST_JSON)
        try:
            return _read_as_stated(location, stated)
        except ArtefactError:
            # A manifest that is still the same is not being replaced: its fault is its own.
            if stated == last:
                raise


def _read(path: Path | RemoteFolder, name: str, most: int = 0) -> bytes:
    """Return the content of an ordinary file of at most so many bytes, where that is not 0."""
    file = path / name
    try:
        if isinstance(path, RemoteFolder):
            content = path.read(name, most + 1 if most else None)
        else:
            with open(path / name, "rb", opener=_open_at_once) as stream:
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ArtefactError(f"{file} is not an ordinary file. {_REMEDY}")
                content = stream.read(most + 1 if most else -1)
    except (FileNotFoundError, NotADirectoryError) as error:
        gone = isinstance(path, Path) and not path.exists()
        problem = "there is no such directory" if gone else f"{name} is missing"
        raise ArtefactError(
            f"{path} is not a .trust directory: {problem}. Make one with `trustvlm fit`."
        ) from error
    except OSError as error:
        if isinstance(path, RemoteFolder):
            raise _not_reached(path, error) from error
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    if most and len(content) > most:
        raise ArtefactError(f"{file} has more than {most >> 20} MiB, as no manifest has. {_REMEDY}")
    return content


def _open_at_once(file: str, flags: int) -> int:
    # A pipe without a writer would be waited for.
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def _parse(content: bytes) -> Any:
    """Read JSON of finite numbers and bounded depth; raises `ValueError` for anything else."""

    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}, which is no JSON")

    try:
        value = json.loads(content.decode("utf-8"), parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_MOST_DEPTH):
        if not level:
            return value
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError("it holds a number beyond all bounds")
        level = inner
    raise ValueError("it is nested too deeply")


def _arrays_of(manifest: Any) -> str:
    """Return the name of the file of arrays; one that is none of this tool's is not opened."""
    entry = manifest.get("arrays")
    name = entry.get("file", _ARRAYS) if isinstance(entry, dict) else _ARRAYS
    return name if isinstance(name, str) and _ARRAYS_NAME.fullmatch(name) else _ARRAYS


def _read_as_stated(
    path: Path | RemoteFolder, stated: bytes
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what a manifest describes."""
    try:
        manifest = _parse(stated)
    except ValueError as error:
        raise ArtefactError(f"{path / _MANIFEST} cannot be read: {error}. {_REMEDY}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ArtefactError(f"{path / _MANIFEST} is not the manifest of a trustvlm model.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise ArtefactError(
            f"{path} has format version {version}, but this trustvlm reads version "
            f"{FORMAT_VERSION}: it was made by {manifest.get('created_by', 'an unknown version')}. "
            "Install that version, or fit again."
        )
    name, entry = _arrays_of(manifest), manifest.get("arrays")
    file, content = path / name, _read(path, name)
    digest = hashlib.sha256(content).hexdigest()
    expected = entry.get("sha256") if isinstance(entry, dict) else None
    if digest != expected:
        raise ArtefactError(
            f"{file} is not the file that the manifest describes (SHA-256 {digest[:12]}, "
            f"expected {str(expected)[:12]}): the copy is damaged or mixed up. Copy it again."
        )
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    # Kinds of numbers that NumPy lacks are KeyErrors.
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtefactError(f"{file} cannot be read: {error}. {_REMEDY}") from error
    # Artefacts of older versions have no hash of the manifest; arrays say of newer ones that they
    # have it, so that it cannot be left out.
    hashed = _HASHED in (header.get("__metadata__") or {}) or _HASHED in manifest
    if hashed and manifest.get(_HASHED) != _hash_of(manifest):
        raise ArtefactError(
            f"{path / _MANIFEST} was changed after it was written: its SHA-256 is not the one "
            f"that it states. {_REMEDY}"
        )
    return manifest, arrays
