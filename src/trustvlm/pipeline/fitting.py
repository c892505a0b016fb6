"""Fit a `TrustVLM`: means of the shots, settings selected, prototypes fine-tuned if asked for."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.images import find_labelled, read_classes
from trustvlm.pipeline.finetuning import finetune_on
from trustvlm.pipeline.gathering import gather_all
from trustvlm.pipeline.persistence import provenance
from trustvlm.pipeline.selection import (
    SELECTABLE,
    Selection,
    free_settings,
    select_by_holding_out,
    select_on,
)
from trustvlm.pipeline.shots import warn_about_shots
from trustvlm.pipeline.texts import embed_classes
from trustvlm.pipeline.verdicts import Verdicts
from trustvlm.scores import PrototypeBank
from trustvlm.scores.finetuning import Recipe, finetune_prototypes
from trustvlm.scores.shots import draw_shots

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["fit"]


def fit(
    model: TrustVLM,
    shots: Any,
    *,
    shots_per_class: int | None = None,
    draw: int = 0,
    select: str | None = None,
    images: Any = None,
    progress: Progress | None = None,
) -> None:
    """Learn what a model learns from labelled example images, as `TrustVLM.fit` says.

    Raises
    ------
    InputError, ModelUnavailableError, MissingExtraError
        As there.
    """
    _check_selection(model, select, images)
    labelled = find_labelled(shots)
    model.classes_ = read_classes(labelled.classes if model.classes is None else model.classes)
    labels = model.classes_.indices([str(ref.label) for ref in labelled.refs])
    chosen = np.arange(len(labels))
    if shots_per_class is not None:
        chosen = draw_shots(labels, len(model.classes_), shots_per_class, draw=draw).indices
    model.text_embeddings_ = embed_classes(model, model.classes_.names)
    found = gather_all(model, [labelled.refs[i] for i in chosen], progress)
    model.support_labels_ = labels[chosen][found.readable]
    model.support_features_ = found.features
    model.support_image_embeddings_ = found.image_embeddings
    model.bank_ = PrototypeBank().fit(
        found.features, model.support_labels_, n_classes=len(model.classes_)
    )
    model.shots_ = tuple(
        {"path": ref.path, "sha256": digest, "class": int(label)}
        for ref, digest, label in zip(found.refs, found.hashes, model.support_labels_, strict=True)
    )
    model.shots_folder_ = _folder(shots)
    model.selection_, model.selection_images_ = _select(model, select, images, progress)
    model.losses_ = _finetune(model) if model.finetune else ()
    model.shot_failures_ = Verdicts(found.failures)
    model.draw_, model.shots_per_class_ = draw, shots_per_class
    model.provenance_ = provenance()
    model.calibration_ = None
    warn_about_shots(model)


def _folder(shots: Any) -> str:
    """Return the folder that the names of the shots are relative to."""
    if not isinstance(shots, (str, os.PathLike)):
        return str(Path.cwd())
    path = Path(shots).absolute()
    return str(path if path.is_dir() else path.parent)


def _check_selection(model: TrustVLM, select: str | None, images: Any) -> None:
    """Raise `InputError` unless what is asked for can be selected; nothing is loaded yet."""
    if select not in (None, "loo"):
        raise InputError(f"Expected `select` to be 'loo' or None, but got {select!r}.")
    if select is not None and images is not None:
        raise InputError(
            "Expected either `select`, on the shots, or `select_on`, on other images, not both."
        )
    if select is None and images is None:
        return
    if model.score not in SELECTABLE:
        raise InputError(
            f"The score `{model.score}` has no weight and temperature to select; those that do "
            f"are {', '.join(SELECTABLE)}."
        )
    if not free_settings(model.score, model.score_parameters or {}):
        raise InputError(
            f"Nothing is left to select for the score `{model.score}`: all of it is given."
        )


def _select(
    model: TrustVLM, select: str | None, images: Any, progress: Progress | None = None
) -> tuple[Selection | None, tuple[dict[str, Any], ...]]:
    """Select settings with the means as prototypes; return the images used besides the shots."""
    given = model.score_parameters or {}
    if select is not None:
        return select_by_holding_out(model.score, model.evidence_of_shots(), fixed=given), ()
    if images is None:
        return None, ()
    listing = find_labelled(images)
    labels = model.classes_.indices([str(ref.label) for ref in listing.refs])
    found = gather_all(model, listing.refs, progress)
    for failure in found.failures:
        warnings.warn(f"left out of the selection: {failure.error}", TrustVLMWarning, stacklevel=5)
    if not found.readable.any():
        raise InputError("No image to select on can be read.")
    shots = {shot["sha256"] for shot in model.shots_}
    leaked = sum(digest in shots for digest in found.hashes)
    if leaked:
        raise LeakError(
            f"{leaked} of {len(found.refs)} images to choose settings on are also among the "
            "shots, by content: the prototypes know those by heart. Remove them from one of the "
            "two, or choose on the shots themselves, each held out, with --select loo "
            "(select='loo')."
        )
    evidence = model.evidence(found.image_embeddings, found.features)
    chosen = select_on(model.score, evidence, labels[found.readable], fixed=given)
    pairs = zip(found.refs, found.hashes, strict=True)
    return chosen, tuple({"path": ref.path, "sha256": digest} for ref, digest in pairs)


def _finetune(model: TrustVLM) -> tuple[float, ...]:
    """Let a model's prototypes go on learning from its shots; return the losses.

    The temperature is that of the score, where it has one. On a device that is named as CUDA's,
    torch does it; else NumPy does.
    """
    temperature = model.parameters_.get("temperature")
    recipe = Recipe() if temperature is None else Recipe(temperature=temperature)
    shots = (model.bank_, model.support_features_, model.support_labels_)
    if model.device.startswith("cuda"):
        tuned = finetune_on(model.device, *shots, recipe)
    else:
        tuned = finetune_prototypes(*shots, recipe)
    model.bank_ = tuned.bank
    return tuple(map(float, tuned.losses))
