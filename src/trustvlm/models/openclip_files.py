"""What a file of open_clip's weights leaves open: how it reads images, and its activation.

open_clip itself takes CLIP's preprocessing and the architecture's activation for every file. Here
they are those on which all its published weights of the architecture agree; where they do not, or
there are none, the name must say: `openclip:ViT-L-14/mine.pt#like=openai`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.text import did_you_mean, join_names

Settings = dict[str, Any]

_QUICK = "quick_gelu"
_LIKE = "like"
_COLOURS = ("mean", "std")
_WORDS: dict[str, dict[str, Any]] = {
    "interpolation": {"bicubic": "bicubic", "bilinear": "bilinear"},
    "resize_mode": {"shortest": "shortest", "squash": "squash"},
    _QUICK: {"true": True, "false": False},
}
_NAMES = (*_COLOURS, *_WORDS)


def split_options(weights: str) -> tuple[str, list[str]]:
    """Split what follows an architecture into a file and its options.

    Examples
    --------
    >>> split_options("w.pt#mean=0.5#std=0.5")
    ('w.pt', ['mean=0.5', 'std=0.5'])
    """
    if "#" not in weights or Path(weights).expanduser().is_file():
        return weights, []
    file, *options = weights.split("#")
    return file, options


def triple(values: Any) -> tuple[float, float, float]:
    """Return a value per colour; open_clip also writes one for all."""
    red, green, blue = (values,) * 3 if isinstance(values, int | float) else values
    return float(red), float(green), float(blue)


def file_settings(library: Any, architecture: str, file: str, options: Iterable[str]) -> Settings:
    """Say how weights from a file read images, and whether their activation is QuickGELU.

    Parameters
    ----------
    library
        open_clip.
    architecture, file, options
        What a name consists of: `openclip:<architecture>/<file>#<option>#<option>`.

    Returns
    -------
    dict
        `mean`, `std`, `interpolation`, `resize_mode` and `quick_gelu`.

    Raises
    ------
    InputError
        For an unknown option or value, and if a setting is neither given nor known.
    """
    name = f"openclip:{architecture}/{file}"
    published = _published(library, architecture)
    settings = _given(name, options, published, lambda like: _of(library, architecture, like))
    always = _is_quick(library, architecture)
    if always and not settings.setdefault(_QUICK, True):
        raise InputError(
            f"Expected {_QUICK} to be true for {architecture}, but got false: name the "
            "architecture without it."
        )
    # Weights of both kinds go by the plain name, and a file does not tell which it holds.
    twin = f"{architecture}-quickgelu" in library.list_models()
    if not twin and not any(preset[_QUICK] for preset in published.values()):
        settings.setdefault(_QUICK, False)
    # What is given narrows them down, if any are like it.
    fitting = [
        preset
        for preset in published.values()
        if all(preset[key] == value for key, value in settings.items())
    ] or list(published.values())
    missing: dict[str, list[Any]] = {}
    for key in _NAMES:
        if key in settings:
            continue
        values = list(dict.fromkeys(preset[key] for preset in fitting))
        if key == _QUICK:
            missing[key] = [True, False]
        elif len(values) == 1:
            settings[key] = values[0]
        else:
            missing[key] = values
    if missing:
        raise InputError(_refusal(name, architecture, missing, published, twin))
    return settings


def as_recorded(spec: str, described: Mapping[str, Any]) -> str:
    """Add to the name of a file what a saved model recorded of it, so that it loads as fitted.

    Parameters
    ----------
    spec
        Any name of a model.
    described
        What the saved model holds of it, as `trustvlm.pipeline.records.describe` gives it.

    Examples
    --------
    >>> as_recorded("clip-vit-b16", {})
    'clip-vit-b16'
    """
    prefix, _, name = spec.partition(":")
    architecture, _, file = name.partition("/")
    is_file = prefix == "openclip" and ":" not in architecture and Path(file).expanduser().is_file()
    if not is_file or "#" in file:
        return spec
    preprocessing = described["preprocessing"]
    if preprocessing["interpolation"] not in _WORDS["interpolation"]:
        return spec  # That of another model, which the paper's protocol puts in its place.
    settings = {
        "mean": tuple(preprocessing["mean"]),
        "std": tuple(preprocessing["std"]),
        "interpolation": preprocessing["interpolation"],
        "resize_mode": "squash" if preprocessing["resize"] is None else "shortest",
        _QUICK: described["settings"]["activation"] == "quick_gelu",
    }
    return spec + "".join(f"#{key}={_shown(value)}" for key, value in settings.items())


def _is_quick(library: Any, architecture: str) -> bool:
    return bool(library.get_model_config(architecture).get(_QUICK))


def _published(library: Any, architecture: str) -> dict[str, Settings]:
    """Return the settings of open_clip's own weights by tag."""
    tags = library.list_pretrained_tags_by_model(architecture)
    return {tag: _of(library, architecture, tag) for tag in tags}


def _of(library: Any, architecture: str, like: str) -> Settings:
    """Return the settings of published weights, named by their tag or `<architecture>/<tag>`."""
    other, _, tag = like.rpartition("/")
    preset = library.get_pretrained_cfg(other or architecture, tag)
    if not preset:
        tags = library.list_pretrained_tags_by_model(other or architecture)
        hint = did_you_mean(tag, tags).replace("did", " Did", 1)
        raise InputError(
            f"Expected {_LIKE} to name weights of open_clip, a tag or <architecture>/<tag>, but "
            f"got {like!r}.{hint}"
        )
    transform = library.transform
    preset = preset | transform.merge_preprocess_dict(transform.PreprocessCfg(), preset)
    return {
        "mean": triple(preset["mean"]),
        "std": triple(preset["std"]),
        # As open_clip's own transform has it.
        "interpolation": "bilinear" if preset["interpolation"] == "bilinear" else "bicubic",
        "resize_mode": preset["resize_mode"],
        _QUICK: bool(preset.get(_QUICK)) or _is_quick(library, other or architecture),
    }


def _given(
    name: str,
    options: Iterable[str],
    published: Mapping[str, Settings],
    settings_like: Callable[[str], Settings],
) -> Settings:
    like: Settings = {}
    settings: Settings = {}
    seen = set()
    for option in options:
        key, separator, text = option.partition("=")
        if not separator or key not in (*_NAMES, _LIKE) or key in seen:
            hint = did_you_mean(key, (*_NAMES, _LIKE)).replace("did", " Did", 1)
            raise InputError(
                f"Expected options of {name} to be {join_names([*_NAMES, _LIKE], 'or')}, each once "
                f"and with a value, as in #{_LIKE}={next(iter(published), 'ViT-B-32/openai')}, "
                f"but got {'#' + option!r}.{hint}"
            )
        seen.add(key)
        if key == _LIKE:
            like = settings_like(text)
        elif key in _COLOURS:
            settings[key] = _colours(key, text)
        elif text in _WORDS[key]:
            settings[key] = _WORDS[key][text]
        else:
            raise InputError(
                f"Expected {key} of {name} to be {join_names(list(_WORDS[key]), 'or')}, "
                f"but got {text!r}."
            )
    return like | settings


def _colours(key: str, text: str) -> tuple[float, float, float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    least = 0.0 if key == "std" else -math.inf
    if len(values) not in (1, 3) or not all(least < value < math.inf for value in values):
        above = ", above zero" if key == "std" else ""
        raise InputError(
            f"Expected {key} to be a number, or three with commas between them, for pixel values "
            f"from 0 to 1{above}, but got {text!r}."
        )
    return triple(values[0] if len(values) == 1 else values)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(repr, value[:1] if len(set(value)) == 1 else value))
    return str(value)


def _refusal(
    name: str,
    architecture: str,
    missing: Mapping[str, list[Any]],
    published: Mapping[str, Settings],
    twin: bool,
) -> str:
    why = "leave that open" if published else "are none"
    wanted = "; ".join(
        f"#{key}=" + (join_names([_shown(value) for value in values], "or") or "...")
        for key, values in missing.items()
    )
    like = next(iter(published), "<architecture>/<tag>")
    quick = (
        f" For weights with QuickGELU there is also {architecture}-quickgelu."
        if twin and _QUICK in missing
        else ""
    )
    return (
        f"A file does not say how its weights read images, or which activation they have, and "
        f"open_clip's own weights of {architecture} {why}. Add what holds for this file: "
        f"{wanted}; or the published weights that it is like, as in {name}#{_LIKE}={like}.{quick}"
    )
