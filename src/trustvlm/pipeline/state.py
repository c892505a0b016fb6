"""What a fitted model is, and the artefact `MODEL.trust` that holds it."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trustvlm._version import __version__
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError, InputError, TrustVLMWarning
from trustvlm.images import ClassList, Limits
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.prompts import read_prompts
from trustvlm.models.registry import check_plugin, plugin_of
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.records import Encoders, describe
from trustvlm.pipeline.select import SELECTABLE, Selection
from trustvlm.pipeline.verdict import Verdict, Verdicts, error_verdict
from trustvlm.risk_control.goals import UNCALIBRATED_RULE
from trustvlm.scores import Evidence, PrototypeBank, check_parameters, zero_shot_logits

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


# The artefact `MODEL.trust`: a directory with a manifest and arrays, and no pickle.

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


# What a `TrustVLM` knows once it is fitted or loaded, and the evidence that it makes of it.


class Fitted:
    """Settings and learned state of a `TrustVLM`, described there, without the verbs."""

    vlm: str | VisionLanguageModel
    vision: str | ImageEncoder
    prompt: str | Sequence[str] | os.PathLike[str] | None
    score: str
    score_parameters: Mapping[str, Any] | None
    protocol: str
    device: str
    precision: str
    draft: bool
    store: EmbeddingStore | None
    limits: Limits

    classes_: ClassList
    bank_: PrototypeBank
    text_embeddings_: NDArray[np.float32]
    support_features_: NDArray[np.float32]
    support_image_embeddings_: NDArray[np.float32]
    support_labels_: NDArray[np.int64]
    shots_: tuple[dict[str, Any], ...]
    shots_folder_: str
    shot_failures_: Verdicts
    draw_: int
    shots_per_class_: int | None
    provenance_: dict[str, str]
    losses_: tuple[float, ...]
    selection_: Selection | None
    selection_images_: tuple[dict[str, Any], ...]
    calibration_: Calibration | None

    @cached_property
    def encoders(self) -> Encoders:
        """Both encoders, loaded when they are first needed."""
        return Encoders.load(
            self.vlm,
            self.vision,
            protocol=self.protocol,
            device=self.device,
            precision=self.precision,
            draft=self.draft,
        )

    @cached_property
    def embedding_store(self) -> EmbeddingStore:
        """The store in use, opened when it is first needed."""
        return EmbeddingStore() if self.store is None else self.store

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt templates in use."""
        return read_prompts(self.encoders.vlm.prompt if self.prompt is None else self.prompt)

    @property
    def parameters_(self) -> dict[str, Any]:
        """The parameters of the score in use: those selected, unless they were given."""
        found: Selection | None = getattr(self, "selection_", None)
        fits = found is not None and found.score == SELECTABLE.get(self.score)
        return {**(found.parameters if found and fits else {}), **(self.score_parameters or {})}

    def evidence(
        self,
        embeddings: NDArray[Any],
        features: NDArray[Any],
        *,
        shots: Evidence | None = None,
    ) -> Evidence:
        """Gather everything known about n images, from their `(n, e)` and `(n, d)` vectors.

        `shots` is `evidence_of_shots()`, for callers with many batches.
        """
        return (shots or self.evidence_of_shots()).with_images(
            logits=self._logits(embeddings), features=features, image_embeddings=embeddings
        )

    def evidence_of_shots(self) -> Evidence:
        """Gather everything known from the examples, about no image yet."""
        return Evidence.of(
            logits=np.empty((0, len(self.classes_))),
            bank=self.bank_,
            support_features=self.support_features_,
            support_labels=self.support_labels_,
            support_logits=self._logits(self.support_image_embeddings_),
            text_embeddings=self.text_embeddings_,
            support_image_embeddings=self.support_image_embeddings_,
        )

    def _logits(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        scale = self.encoders.vlm.logit_scale
        return zero_shot_logits(embeddings, self.text_embeddings_, logit_scale=scale)

    def check_fitted(self) -> None:
        """Raise `InputError` unless `fit` or `load` has been called and the score exists."""
        if not hasattr(self, "bank_"):
            raise InputError("This TrustVLM knows no examples yet: call fit(shots) first.")
        self._check_score()

    def check_ready(self) -> None:
        """Raise `InputError` unless fitted, and calibrated for the score in use if at all."""
        self.check_fitted()
        found = self.calibration_
        if found and (found.score, dict(found.parameters)) != (self.score, self.parameters_):
            raise InputError(
                f"This TrustVLM was calibrated for the score `{found.score}` with parameters "
                f"{dict(found.parameters)}, but its score is now `{self.score}` with "
                f"{self.parameters_}: calibrate again."
            )

    def _check_score(self) -> None:
        check_parameters(self.score, self.score_parameters or {})


# What of a fitted `TrustVLM` goes into the artefact, and how it comes back.

_RELOADABLE = ("device", "store", "batch_size", "workers", "limits", "vlm", "vision")


def provenance() -> dict[str, str]:
    """Say which version makes a model, and when."""
    return {
        "created_by": f"trustvlm {__version__}",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def manifest_of(model: TrustVLM) -> dict[str, Any]:
    """Describe a fitted model as plain JSON values."""
    calibration = model.calibration_
    return {
        **model.provenance_,
        "models": {
            "vlm": _described(model.encoders.vlm, model.vlm),
            "vision": _described(model.encoders.vision, model.vision),
        },
        "protocol": model.protocol,
        "precision": model.precision,
        "draft": model.draft,
        "logit_scale": float(model.encoders.vlm.logit_scale),
        "classes": list(model.classes_.names),
        "folders": list(model.classes_.folders),
        "prompts": list(model.prompts),
        "score": {
            "name": model.score,
            "parameters": model.parameters_,
            "selection": None
            if model.selection_ is None
            else {**model.selection_.to_dict(), "images": list(model.selection_images_)},
        },
        "shots": {
            "per_class": model.shots_per_class_,
            "draw": model.draw_,
            "counts": [int(count) for count in model.bank_.counts_],
            "folder": model.shots_folder_,
            "images": list(model.shots_),
            "unreadable": [f.path for f in model.shot_failures_],
        },
        "finetuning": {"losses": list(model.losses_)} if model.losses_ else None,
        "calibration": calibration.to_manifest(len(model.classes_)) if calibration else None,
        "decision_rule": calibration.rule if calibration else UNCALIBRATED_RULE,
    }


def _described(encoder: ImageEncoder, named: str | ImageEncoder) -> dict[str, Any]:
    # What the user named is what loads it again: `same` is not the name of the tower it became.
    if not isinstance(named, str):
        return {**describe(encoder)}
    plugin = plugin_of(named)
    return {**describe(encoder), "spec": named, **({"plugin": plugin} if plugin else {})}


def save_model(model: TrustVLM, path: str | os.PathLike[str]) -> None:
    """Write a fitted model to a `.trust` directory."""
    for role in ("vlm", "vision"):
        if not isinstance(getattr(model, role), str):
            raise InputError(
                f"The {role} was passed as an object, which no other process could load again: "
                "name it by a preset, `hf:<directory>` or another spec to save the model."
            )
    arrays: dict[str, NDArray[Any]] = {
        **({"learned_prototypes": model.bank_.prototypes_} if model.losses_ else {}),
        "prototype_sums": model.bank_.sums_,
        "prototype_counts": model.bank_.counts_,
        "text_embeddings": model.text_embeddings_,
        "support_features": model.support_features_,
        "support_image_embeddings": model.support_image_embeddings_,
        "support_labels": model.support_labels_,
        **(model.calibration_.to_arrays() if model.calibration_ else {}),
    }
    write_artefact(path, manifest_of(model), arrays)


def load_model(
    cls: type[TrustVLM], path: str | os.PathLike[str], settings: Mapping[str, Any]
) -> TrustVLM:
    """Read a `.trust` directory and check it against the models on this machine."""
    unknown = sorted(set(settings) - set(_RELOADABLE))
    if unknown:
        raise InputError(
            f"TrustVLM.load takes {', '.join(_RELOADABLE)} besides the path, but got "
            f"{', '.join(unknown)}: the rest is part of the artefact."
        )
    manifest, arrays = read_artefact(path)
    try:
        options = {
            "vlm": manifest["models"]["vlm"]["spec"],
            "vision": manifest["models"]["vision"]["spec"],
            "prompt": manifest["prompts"],
            "score": manifest["score"]["name"],
            "score_parameters": manifest["score"]["parameters"],
            "protocol": manifest["protocol"],
            "precision": manifest["precision"],
            # Artefacts of older versions know of no draft.
            "draft": manifest.get("draft", False),
            **settings,
        }
        classes = ClassList(tuple(manifest["classes"]), tuple(manifest["folders"]))
        shots = manifest["shots"]
        model = cls(classes=dict(zip(classes.folders, classes.names, strict=True)), **options)
        model.classes_ = classes
        model.bank_ = PrototypeBank()
        model.bank_.sums_ = arrays["prototype_sums"]
        model.bank_.counts_ = arrays["prototype_counts"]
        tuning = manifest["finetuning"]
        model.finetune, model.losses_ = tuning is not None, tuple((tuning or {}).get("losses", ()))
        if tuning is not None:
            learned = arrays["learned_prototypes"]
            model.bank_ = model.bank_.with_prototypes(learned, unit=True)
        # Artefacts of older versions know of no selection.
        selection = manifest["score"].get("selection")
        model.selection_ = None if selection is None else Selection.from_dict(selection)
        model.selection_images_ = tuple((selection or {}).get("images", ()))
        model.text_embeddings_ = arrays["text_embeddings"]
        model.support_features_ = arrays["support_features"]
        model.support_image_embeddings_ = arrays["support_image_embeddings"]
        model.support_labels_ = arrays["support_labels"].astype(np.int64)
        model.shots_ = tuple(shots["images"])
        # Artefacts of older versions do not say where the shots were.
        model.shots_folder_ = shots.get("folder", "")
        model.draw_, model.shots_per_class_ = shots["draw"], shots["per_class"]
        model.shot_failures_ = Verdicts(_unreadable(path) for path in shots.get("unreadable", ()))
        model.provenance_ = {key: manifest[key] for key in ("created_by", "created_at")}
        stored = manifest["models"]
        calibration = manifest["calibration"]
        model.calibration_ = (
            None if calibration is None else Calibration.from_artefact(calibration, arrays)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path} is not complete: its manifest lacks or misstates {error}. Fit again."
        ) from error
    for role, described in stored.items():
        # Only models that a backend from outside the package runs say so.
        if role not in settings and "plugin" in described:
            check_plugin(described["spec"], described["plugin"])
    check_same_model("VLM", stored["vlm"], describe(model.encoders.vlm))
    check_same_model("vision encoder", stored["vision"], describe(model.encoders.vision))
    return model


def _unreadable(path: str) -> Verdict:
    # The artefact names the example images that could not be read, but not what was wrong.
    return error_verdict(path, ValueError(f"{path}: it could not be read when the model was made."))
