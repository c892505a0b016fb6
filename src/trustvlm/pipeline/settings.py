"""All settings of a fitted model, so that another one is fitted like it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.models.registry import at_commit
from trustvlm.pipeline.records import Encoders, describe
from trustvlm.pipeline.state import FittedModel, ModelState, TargetImages


@dataclass(frozen=True)
class StoredTarget:
    """Unlabelled images that a model adapted to, as it holds them, for models like it.

    Attributes
    ----------
    target
        Their vectors, paths and SHA-256.
    fingerprints
        Of the VLM and the vision encoder that these vectors are of.
    """

    target: TargetImages
    fingerprints: tuple[str, ...]

    def of_encoders(self, encoders: Encoders) -> TargetImages:
        """Return the images; raises `InputError` if the vectors are of other encoders."""
        here = (describe(encoder)["fingerprint"] for encoder in (encoders.vlm, encoders.vision))
        if self.fingerprints != tuple(here):
            raise InputError(
                "The images that the other model adapted to are known by their vectors alone, "
                "which are of other encoders: name the images themselves with --adapt-to IMAGES "
                "(adapt_to=)."
            )
        return self.target


@dataclass(frozen=True)
class FitSettings:
    """What a model was fitted with, but for its shots, and for the machine that it runs on.

    Attributes
    ----------
    model
        Keyword arguments of `TrustVLM`.
    fit
        Keyword arguments of `TrustVLM.fit`. Settings that were selected on other labelled images,
        which a model does not hold, are taken as given: among `score_parameters` of `model`.
    """

    model: Mapping[str, Any]
    fit: Mapping[str, Any]


def settings_of(model: FittedModel | str | os.PathLike[str]) -> FitSettings:
    """Return all settings of a fitted model, or of a `.trust` directory.

    Parameters
    ----------
    model
        Fitted, or where it was saved; no encoder is loaded.

    Raises
    ------
    ArtefactError
        If the directory is damaged or of another format version.
    InputError
        If nothing was fitted.

    Examples
    --------
    >>> settings = settings_of("pets.trust")  # doctest: +SKIP
    >>> model = TrustVLM(**{**settings.model, "score": "auto"})  # doctest: +SKIP
    >>> model.fit("new/", **settings.fit).save("new.trust")  # doctest: +SKIP
    """
    state = ModelState.load(model) if isinstance(model, str | os.PathLike) else model.state
    selection = state.selection
    selects = selection is not None and selection.by == "loo"
    target = None
    if state.target is not None:
        roles = ("vlm", "vision")
        fingerprints = tuple(str(state.encoders[role]["fingerprint"]) for role in roles)
        target = StoredTarget(state.target, fingerprints)
    parameters = state.fixed_parameters if selects else state.parameters
    return FitSettings(
        model={
            **constructor_arguments(state),
            # The very commit: the latest may be another model.
            **{
                role: at_commit(entry["spec"], entry.get("source", ""), entry.get("revision", ""))
                for role, entry in state.encoders.items()
            },
            "score_parameters": dict(parameters),
        },
        fit={
            "shots_per_class": state.shots_per_class,
            "draw": state.draw,
            "select": "loo" if selects else None,
            "adapt_to": target,
        },
    )


def constructor_arguments(state: ModelState) -> dict[str, Any]:
    """Return the arguments of `TrustVLM` that a state says, by name."""
    return {
        **{role: entry["spec"] for role, entry in state.encoders.items()},
        "classes": dict(zip(state.classes.folders, state.classes.names, strict=True)),
        "class_texts": {
            folder: text
            for folder, text, name in zip(
                state.classes.folders, state.texts, state.classes.names, strict=True
            )
            if text != name
        },
        "prompt": state.prompts,
        "score": state.score,
        "score_parameters": state.score_parameters,
        "finetune": bool(state.losses),
        "protocol": state.protocol,
        "precision": state.precision,
        "draft": state.draft,
        "other_classes": state.other_classes.names if state.other_classes else (),
    }
