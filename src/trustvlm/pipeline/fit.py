"""What a user should know about the examples of a fitted model."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.embeddings import Progress
from trustvlm.environment import require
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.images import find_labelled, read_classes
from trustvlm.pipeline.records import embed_classes, gather_all
from trustvlm.pipeline.select import (
    SELECTABLE,
    Selection,
    free_settings,
    select_by_holding_out,
    select_on,
)
from trustvlm.pipeline.state import provenance
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.scores import PrototypeBank
from trustvlm.scores.few_shot import draw_shots
from trustvlm.scores.finetuning import FineTuned, Recipe, checked_shots, finetune_prototypes

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


def warn_about_shots(model: TrustVLM) -> None:
    """Warn of unreadable shots, classes that share a name, and those with few shots or none."""
    counts = model.bank_.counts_
    for failure in model.shot_failures_:
        warnings.warn(f"shot left out: {failure.error}", TrustVLMWarning, stacklevel=5)
    names = np.asarray(model.classes_.labels)
    shared = names != np.asarray(model.classes_.names)
    if shared.any():
        warnings.warn(
            f"classes that share a name: {_listed(names[shared])}: the text cannot tell these "
            "apart, only the examples can",
            TrustVLMWarning,
            stacklevel=5,
        )
    if (counts == 0).any():
        warnings.warn(
            f"no example images of {_listed(names[counts == 0])}: "
            "only the text supports these labels",
            TrustVLMWarning,
            stacklevel=5,
        )
    wanted = model.shots_per_class_
    if wanted is not None and ((counts > 0) & (counts < wanted)).any():
        few = (counts > 0) & (counts < wanted)
        warnings.warn(
            f"fewer than {wanted} example images of {_listed(names[few])}: all are used",
            TrustVLMWarning,
            stacklevel=5,
        )


def _listed(names: NDArray[Any], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more classes"


# Fine-tuning of prototypes on a torch device, step for step as `scores.finetuning` does it.


def finetune_on(
    device: str,
    bank: PrototypeBank,
    features: ArrayLike,
    labels: ArrayLike,
    recipe: Recipe | None = None,
) -> FineTuned:
    """Fine-tune prototypes on a torch device, such as `cuda`, where classes are thousands.

    The steps, the order of the shots and the results up to rounding are those of
    `scores.finetuning.finetune_prototypes`, in float64.

    Raises
    ------
    InputError
        As there.
    MissingExtraError
        If torch is not installed.
    """
    recipe = recipe or Recipe()
    shots, index = checked_shots(bank, features, labels)
    if not len(shots):
        return finetune_prototypes(bank, features, labels, recipe)
    torch = require("torch", extra="torch", purpose="Fine-tuning on a torch device")
    present = bank.present_
    learned = torch.tensor(bank.prototypes_[present], device=device, requires_grad=True)
    x, y = torch.tensor(shots, device=device), torch.tensor(index, device=device)
    optimiser = torch.optim.AdamW(
        [learned],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
    )
    losses = np.zeros(recipe.epochs)
    for epoch, rate, batch in recipe.steps(len(shots)):
        chosen = torch.tensor(batch, device=device)
        prototypes = torch.nn.functional.normalize(learned, dim=1)
        logits = x[chosen] @ prototypes.T / recipe.temperature
        loss = torch.nn.functional.cross_entropy(logits, y[chosen])
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[epoch] += float(loss.detach()) * len(batch) / len(shots)
    result = np.zeros_like(bank.prototypes_)
    result[present] = learned.detach().cpu().numpy()
    return FineTuned(bank.with_prototypes(result), losses)


# Fit a `TrustVLM`: means of the shots, settings selected, prototypes fine-tuned if asked for.


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
