"""Fit a model: means of the shots, settings selected, prototypes fine-tuned if asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm._version import __version__
from trustvlm.embeddings import Progress
from trustvlm.environment import require
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.images import (
    DEFAULT_LIMITS,
    Columns,
    ImageSource,
    LabelledImage,
    LabelledSource,
    Limits,
    Source,
    classes_of,
    find_labelled,
    open_images,
)
from trustvlm.models.base import VisionLanguageModel
from trustvlm.models.prompts import read_prompts, text_problems
from trustvlm.monitoring.ood import FEWEST_SHOTS
from trustvlm.pipeline.records import (
    ClassSource,
    Embedder,
    EncodedImages,
    ListedImages,
    PromptSource,
    S,
    describe,
    encode_images,
    exclude_leaked,
    list_labelled,
    texts_of,
)
from trustvlm.pipeline.select import (
    check_link,
    check_selectable,
    free_settings,
    select_by_holding_out,
    select_on,
)
from trustvlm.pipeline.settings import StoredTarget
from trustvlm.pipeline.state import DEFAULT_SCORE, ModelState, TargetImages, keeping_labels, now
from trustvlm.pipeline.verdict import folder_of
from trustvlm.scores import PrototypeBank, check_parameters, get, names
from trustvlm.scores.evidence import NO_BIAS
from trustvlm.scores.few_shot import draw_shots
from trustvlm.scores.finetuning import FineTuned, Recipe, checked_shots, finetune_prototypes
from trustvlm.scores.prototype_scores import harm_of_few_shots
from trustvlm.text import counted, join_names


def fit(
    shots: LabelledSource,
    load_embedder: Callable[[], Embedder],
    *,
    classes: ClassSource | None = None,
    prompt: PromptSource | None = None,
    class_texts: Mapping[str, str] | None = None,
    score: str = DEFAULT_SCORE,
    score_parameters: Mapping[str, Any] | None = None,
    finetune: bool = False,
    shots_per_class: int | None = None,
    draw: int = 0,
    select: str | None = None,
    images: LabelledSource | None = None,
    other_classes: Sequence[str] = (),
    adapt_to: Source | StoredTarget | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    **columns: Unpack[Columns],
) -> ModelState:
    """Learn what a model learns from labelled example images, as `TrustVLM.fit` says.

    Parameters
    ----------
    load_embedder
        Loads the encoders, once the shots are listed: what is wrong with these is said before.
    images
        Labelled images to select settings on: `select_on` of `TrustVLM.fit`.
    other_classes
        Names of what images of none of the classes may show.
    adapt_to
        Unlabelled images of the target.
    **columns
        Of tables of any of these.

    Raises
    ------
    InputError, LeakError, ModelUnavailableError, MissingExtraError
        As there.
    """
    given = dict(score_parameters or {})
    check_parameters(score, given)
    if select is not None or images is not None:
        _check_selection(score, given, select, images)
    if adapt_to is not None and not get(score).adapts:
        adapting = join_names([f"`{name}`" for name in names() if get(name).adapts], "or")
        raise InputError(
            f"Expected a score that adapts to images ({adapting}) where `adapt_to` gives some, but "
            f"got `{score}`."
        )
    stored = adapt_to if isinstance(adapt_to, StoredTarget) else None
    target = None
    if adapt_to is not None and not isinstance(adapt_to, StoredTarget):
        target = open_images(adapt_to, limits=limits, **columns)
    labelled = find_labelled(shots, limits=limits, **columns)
    class_list = classes_of(labelled, classes)
    listed = ListedImages(labelled.refs, class_list.indices(labelled.labels))
    if shots_per_class is not None:
        drawn = draw_shots(listed.labels, len(class_list), shots_per_class, draw=draw)
        listed = listed.select(drawn.indices)
    embedder = load_embedder()
    encoders = embedder.encoders
    bias = getattr(encoders.vlm, "logit_bias", None)
    _check_link(given, bias, encoders.protocol)
    held = None if stored is None else stored.of_encoders(encoders)
    has_vlm = encoders.vlm.dim > 0
    if not has_vlm:
        # Of the labels that it judges none is its own, so there is nothing to correct.
        score = keeping_labels(score, text=False)
        check_parameters(score, given)
    texts = texts_of(class_list, class_texts)
    prompts = read_prompts(encoders.vlm.prompt if prompt is None else prompt)
    text_embeddings = np.empty((len(class_list), 0), dtype=np.float32)
    if has_vlm:
        text_embeddings = embedder.embed_classes(texts or class_list.names, prompts)
    others = embedder.embed_others(other_classes, prompts, class_list)
    encoded = encode_images(listed, embedder, progress)
    readable = encoded.readable()
    if not has_vlm:
        _check_every_class(class_list.labels, readable.labels)
    if not len(readable) and "support_labels" in get(score).needs:
        raise InputError(
            f"No example image can be read, and the score {score} learns from them. "
            f"{next(filter(None, encoded.errors))} Without examples, `trustvlm label` labels "
            "images from class names, and the score msp judges labels by the text alone."
        )
    folder = folder_of(shots) if isinstance(shots, (str, os.PathLike)) else None
    state = ModelState(
        classes=class_list,
        prompts=prompts,
        encoders={"vlm": describe(encoders.vlm), "vision": describe(encoders.vision)},
        protocol=encoders.protocol,
        precision=encoders.precision,
        draft=encoders.draft,
        logit_scale=float(encoders.vlm.logit_scale),
        logit_bias=bias,
        score=score,
        score_parameters=given,
        text_embeddings=text_embeddings,
        **_of_shots(Shots.of(readable), len(class_list)),
        shots_folder=str((folder or Path()).absolute()),
        unreadable_shots=tuple(
            (ref.path, str(error))
            for ref, error in zip(encoded.refs, encoded.errors, strict=True)
            if error is not None
        ),
        shots_per_class=shots_per_class,
        draw=draw,
        created_by=f"trustvlm {__version__}",
        created_at=now(),
        other_classes=others,
        class_texts=texts,
    )
    if held is not None:
        own = {image["sha256"] for image in held.images}
        both = [shot["path"] for shot in state.shots if shot["sha256"] in own]
        if both:
            raise LeakError(
                f"{len(both)} of the examples are also among the images that the other model "
                f"adapted to, by content ({both[0]}): leave them out, or name other images with "
                "--adapt-to IMAGES (adapt_to=)."
            )
        state = replace(state, target=held)
    if select is not None:
        state = _select_by_holding_out(state)
    elif images is not None:
        listed = list_labelled(images, class_list, limits=limits, **columns)
        state = _select_on(state, embedder, listed, progress)
    if target is not None:
        state = _adapt(state, embedder, target, progress)
    if finetune:
        state = _finetune(state, encoders.device)
    _warn(state, encoders.vlm)
    return state


@dataclass(frozen=True)
class Shots:
    """m example images, as a model holds them.

    Attributes
    ----------
    features, image_embeddings, labels
        `(m, d)` and `(m, e)` float32 vectors, and `(m,)` int64 classes.
    images
        `path` and `sha256` of each.
    """

    features: NDArray[np.float32]
    image_embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, images: EncodedImages[Any]) -> Shots:
        """Take readable labelled images as shots."""
        return cls(images.features, images.image_embeddings, images.labels, images.contents())

    @classmethod
    def of_model(cls, state: ModelState) -> Shots:
        """Return the shots that a model holds."""
        vectors = state.support_features, state.support_image_embeddings
        return cls(*vectors, state.support_labels, state.shots)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[Any]) -> Shots:
        """Return the shots at some positions, or those where a `(m,)` mask is True."""
        chosen = np.arange(len(self))[rows]
        return Shots(
            self.features[chosen],
            self.image_embeddings[chosen],
            self.labels[chosen],
            tuple(self.images[i] for i in chosen),
        )

    def and_also(self, others: Shots) -> Shots:
        """Return these shots, and others after them."""
        return Shots(
            np.concatenate([self.features, others.features]),
            np.concatenate([self.image_embeddings, others.image_embeddings]),
            np.concatenate([self.labels, others.labels]),
            (*self.images, *others.images),
        )


def _of_shots(shots: Shots, n_classes: int) -> dict[str, Any]:
    """Return the fields of a model that its shots give."""
    labelled = zip(shots.images, shots.labels, strict=True)
    return {
        "bank": PrototypeBank().fit(shots.features, shots.labels, n_classes=n_classes),
        "support_features": shots.features,
        "support_image_embeddings": shots.image_embeddings,
        "support_labels": shots.labels,
        "shots": tuple({**image, "class": int(label)} for image, label in labelled),
    }


def fit_again(state: ModelState, shots: Shots, device: str = "cpu", **changes: Any) -> ModelState:
    """Return a model with other shots and the same settings; what it learned is learned anew.

    That is what `fit` gives for these shots. Settings that were selected on other images stay as
    they were selected, and unlabelled images that it adapted to stay, too. There is no calibration.

    Parameters
    ----------
    state
        The model.
    shots
        All that it has from now on.
    device
        Where prototypes are fine-tuned, if they were.
    **changes
        Other fields of the state, such as `classes`.
    """
    classes = changes.get("classes", state.classes)
    fresh = replace(
        state,
        **_of_shots(shots, len(classes)),
        shots_per_class=None,
        created_by=f"trustvlm {__version__}",
        created_at=now(),
        losses=(),
        calibration=None,
        learned=None,
        _of_shots=[],
        **changes,
    )
    if state.selection is not None and state.selection.by == "loo":
        fresh = _select_by_holding_out(replace(fresh, score_parameters=state.fixed_parameters))
    return _finetune(fresh, device) if state.losses else fresh


def _select_by_holding_out(state: ModelState) -> ModelState:
    given = state.score_parameters
    chosen = select_by_holding_out(state.score, state.evidence_of_shots(), fixed=given)
    return replace(state, selection=chosen)


def _check_every_class(names: Sequence[str], labels: NDArray[np.int64]) -> None:
    missing = sorted(set(range(len(names))) - set(labels.tolist()))
    if missing:
        raise InputError(
            f"Expected examples of every class where there is no vision-language model, but there "
            f"are none of {_quoted(np.asarray(names)[missing])}."
        )


def _check_link(given: Mapping[str, Any], bias: float | None, protocol: str) -> None:
    """Raise `InputError` if a score shall take the sigmoid of what was not trained with it."""
    if given.get("link", "softmax") == "softmax":
        return
    if bias is None:
        raise InputError(NO_BIAS)
    if protocol == "paper":
        raise InputError(
            "The protocol `paper` fixes the logit scale at 100, for which the model's bias is not "
            "meant: use `clean` with the link `sigmoid`."
        )


def _check_selection(score: str, given: Mapping[str, Any], select: str | None, images: Any) -> None:
    """Raise `InputError` unless what is asked for can be selected."""
    if select not in (None, "loo"):
        raise InputError(f"Expected `select` to be 'loo' or None, but got {select!r}.")
    if select is not None and images is not None:
        raise InputError(
            "Expected either `select`, on the shots, or `select_on`, on other images, not both."
        )
    check_selectable(score)
    check_link(score, given)
    if not free_settings(score, given):
        raise InputError(f"Nothing is left to select for the score `{score}`: all of it is given.")


def _select_on(
    state: ModelState,
    embedder: Embedder,
    images: ListedImages[LabelledImage],
    progress: Progress | None,
) -> ModelState:
    """Select settings on other images than the shots, with the means as prototypes."""
    readable = _none_of_the_shots(
        state,
        encode_images(images, embedder, progress),
        "selection",
        to="select on",
        purpose="the prototypes were fitted on those. Remove them from one of the two, or choose "
        "settings on the shots themselves, each held out, with --select loo (select='loo')",
    )
    evidence = state.evidence(readable.image_embeddings, readable.features)
    chosen = select_on(state.score, evidence, readable.labels, fixed=state.score_parameters)
    return replace(state, selection=chosen, selection_images=readable.contents())


def _none_of_the_shots(
    state: ModelState, encoded: EncodedImages[S], of: str, *, to: str, purpose: str
) -> EncodedImages[S]:
    """Return what can be read, warning of the rest, if the model has not learned from any of it."""
    for error in filter(None, encoded.errors):
        warnings.warn(f"left out of the {of}: {error}", TrustVLMWarning, stacklevel=5)
    readable = encoded.readable()
    if not len(readable):
        raise InputError(f"No image to {to} can be read.")
    exclude_leaked(readable, state.learned_from(calibrated_on=True), purpose=purpose)
    return readable


# The fewest that frozen adaptation was measured with: docs/research/auto.md.
_FEWEST_TARGET = 30


def _adapt(
    state: ModelState, embedder: Embedder, images: Iterable[ImageSource], progress: Progress | None
) -> ModelState:
    """Keep what there is on unlabelled images of the target, each content once."""
    readable = _none_of_the_shots(
        state,
        encode_images(images, embedder, progress),
        "adaptation",
        to="adapt to",
        purpose="the model knows their classes, and would take the others for as easy. Adapt to "
        "images that it has learned nothing from",
    )
    different = readable.select(readable.is_first)
    if len(different) < _FEWEST_TARGET:
        warnings.warn(
            f"{counted(len(different), 'different image')} to adapt to hardly show what sets the "
            f"target apart from the examples: give {_FEWEST_TARGET} or more",
            TrustVLMWarning,
            stacklevel=4,
        )
    target = TargetImages(different.features, different.image_embeddings, different.contents())
    return replace(state, target=target)


def _finetune(state: ModelState, device: str) -> ModelState:
    """Let the prototypes go on learning from the shots.

    The temperature is that of the score, where it has one. On a device that is named as CUDA's,
    torch does it; else NumPy does.
    """
    temperature = state.parameters.get("temperature")
    recipe = Recipe() if temperature is None else Recipe(temperature=temperature)
    shots = (state.bank, state.support_features, state.support_labels)
    if device.startswith("cuda"):
        tuned = finetune_on(device, *shots, recipe)
    else:
        tuned = finetune_prototypes(*shots, recipe)
    return replace(state, bank=tuned.bank, losses=tuple(map(float, tuned.losses)))


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


# What a user should know about the shots of a model.


def describe_only_class(state: ModelState) -> str:
    """Say what a model of one class does."""
    stopped = "and only the out-of-distribution gate keeps it from being accepted"
    without = (
        f"whatever it shows. Give {FEWEST_SHOTS} examples or more, from which an "
        "out-of-distribution gate follows, or name other classes"
    )
    return (
        f"'{state.classes.labels[0]}' is the only class: every image gets this label, "
        f"{stopped if state.gate.active else without}"
    )


def _warn(state: ModelState, vlm: VisionLanguageModel) -> None:
    """Warn of unreadable shots, texts that say too little, and classes with few shots or none."""
    counts, wanted = state.bank.counts_, state.shots_per_class or 0
    messages = [f"shot left out: {error}" for _, error in state.unreadable_shots]
    names, classes = np.asarray(state.classes.labels), state.classes
    if state.has_vlm:
        messages += text_problems(
            vlm, classes.labels, state.texts, state.prompts, state.text_embeddings
        )
    few = (counts > 0) & (counts < wanted)
    if len(classes) == 1:
        messages.append(describe_only_class(state))
    if (counts == 0).any():
        messages.append(
            f"no example images of {_quoted(names[counts == 0])}: "
            "only the text supports these labels"
        )
    if few.any():
        messages.append(
            f"fewer than {wanted} example images of {_quoted(names[few])}: all are used"
        )
    if state.losses and "bank" not in get(state.score).needs:
        messages.append(
            f"fine-tuned prototypes do not change the score {state.score}, which learns from the "
            "examples themselves: choose the score trustvlm or trustvlm_star, or do not fine-tune"
        )
    # Classes differ in number: the usual one counts.
    usual = int(np.median(counts[counts > 0])) if counts.any() else 0
    messages += filter(None, [harm_of_few_shots(state.score, usual)])
    for message in messages:
        warnings.warn(message, TrustVLMWarning, stacklevel=4)


def _quoted(names: NDArray[Any], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more classes"
