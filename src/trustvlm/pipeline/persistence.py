"""What of a fitted `TrustVLM` goes into the artefact, and how it comes back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import trustvlm
from trustvlm.decisions import UNCALIBRATED_RULE
from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.images import ClassList
from trustvlm.models.base import ImageEncoder
from trustvlm.pipeline.artefact import check_same_model, read_artefact, write_artefact
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.encoders import describe
from trustvlm.pipeline.selection import Selection
from trustvlm.pipeline.verdicts import Verdict, Verdicts, error_verdict
from trustvlm.scores import PrototypeBank

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["load_model", "manifest_of", "provenance", "save_model"]

_RELOADABLE = ("device", "store", "batch_size", "workers", "limits", "vlm", "vision")


def provenance() -> dict[str, str]:
    """Say which version makes a model, and when."""
    return {
        "created_by": f"trustvlm {trustvlm.__version__}",
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
    return {**describe(encoder), **({"spec": named} if isinstance(named, str) else {})}


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
    check_same_model("VLM", stored["vlm"], describe(model.encoders.vlm))
    check_same_model("vision encoder", stored["vision"], describe(model.encoders.vision))
    return model


def _unreadable(path: str) -> Verdict:
    # The artefact names the example images that could not be read, but not what was wrong.
    return error_verdict(path, ValueError(f"{path}: it could not be read when the model was made."))
