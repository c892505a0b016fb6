"""From a name to an encoder."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Any, TypeVar

from trustvlm.exceptions import InputError
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.presets import PRESETS, VISION, VLM

Encoder = TypeVar("Encoder", bound=ImageEncoder)

_PREFIXES = {
    VLM: ("hf:<repo or directory>", "openclip:<arch>/<weights>"),
    VISION: (
        "hf:<repo or directory>",
        "openclip:<arch>/<weights>",
        "timm:<name>",
        "onnx:<file>",
        "moco-v2-r50:<file>",
    ),
}
_CLS = "#cls"
_CALLED = {VLM: "VLM", VISION: "vision encoder"}


def load_vlm(
    spec: str, *, device: str = "auto", precision: str = "float32", revision: str | None = None
) -> VisionLanguageModel:
    """Load the model that predicts.

    Parameters
    ----------
    spec
        A preset, `hf:<repo or directory>`, `openclip:<arch>/<weights>` or `offline`.
    device
        `auto`, `cpu` or `cuda`.
    precision
        `float32`, or `bfloat16` for matrix products and convolutions of the image side in that.
        Models that ONNX Runtime runs, `offline` among them, know `float32` only.
    revision
        Commit, tag or branch of a hub repository, for models that `hf:` stands for.

    Raises
    ------
    InputError
        If no model has that name (near names are suggested), for an unknown device or precision,
        and for a revision of a model that has none.
    MissingExtraError
        If the library that runs it is not installed.
    ModelUnavailableError
        If the weights cannot be had.
    """
    source = _resolve(spec, VLM)
    _check_revision(spec, source, revision)
    options: dict[str, Any] = {"device": device, "precision": precision}
    if source == "offline":
        from trustvlm.models.offline import load_vlm as load_offline

        _check_offline(precision)
        return load_offline()
    kind, _, name = source.partition(":")
    if kind == "openclip":
        from trustvlm.models.openclip import OpenClipVLM

        return _named(OpenClipVLM.load(name, **options), spec)
    from trustvlm.models.huggingface import load_hf_vlm

    return _named(load_hf_vlm(name, revision=revision, **options), spec)


def load_vision(
    spec: str,
    *,
    vlm: VisionLanguageModel | None = None,
    device: str = "auto",
    precision: str = "float32",
    revision: str | None = None,
) -> ImageEncoder:
    """Load the encoder that verifies.

    Parameters
    ----------
    spec
        A preset, `same`, `hf:<repo or directory>`, `openclip:<arch>/<weights>`, `timm:<name>`,
        `onnx:<file>`, `moco-v2-r50:<file>` or `offline`. A preset or `hf:...` may end in `#cls`:
        then the class token is taken in place of the mean of all tokens.
    vlm
        The VLM whose image tower `same` stands for.
    device, precision, revision
        As in `load_vlm`.

    Raises
    ------
    InputError, MissingExtraError, ModelUnavailableError
        As `load_vlm`.
    """
    named, pooling = (spec.removesuffix(_CLS), "cls") if spec.endswith(_CLS) else (spec, "mean")
    source = _resolve(named, VISION)
    if pooling == "cls" and not source.startswith("hf:"):
        raise InputError(f"{_CLS} is for models that transformers runs, but {named!r} is not.")
    _check_revision(spec, source, revision)
    options: dict[str, Any] = {"device": device, "precision": precision}
    if source == "same":
        if vlm is None:
            raise InputError("`same` is the VLM's own image tower: pass the VLM as `vlm`.")
        return vlm
    if source == "offline":
        from trustvlm.models.offline import load_vision as load_offline

        _check_offline(precision)
        return load_offline()
    kind, _, name = source.partition(":")
    encoder: ImageEncoder
    if kind == "onnx":
        from trustvlm.models.onnx import OnnxVision

        encoder = OnnxVision.load(name, **options)
    elif kind == "timm":
        from trustvlm.models.timm import TimmVision

        encoder = TimmVision.load(name, **options)
    elif kind == "moco-v2-r50":
        from trustvlm.models.timm import TimmVision

        encoder = TimmVision.load_moco(name, **options)
    elif kind == "openclip":
        from trustvlm.models.openclip import OpenClipVLM

        encoder = OpenClipVLM.load(name, **options)
    else:
        from trustvlm.models.huggingface import load_hf_vision

        encoder = load_hf_vision(name, pooling=pooling, revision=revision, **options)
    return _named(encoder, spec)


def _check_revision(spec: str, source: str, revision: str | None) -> None:
    if revision is not None and not source.startswith("hf:"):
        raise InputError(f"A revision was given, {revision!r}, but the model {spec!r} has none.")


def _check_offline(precision: str) -> None:
    if precision != "float32":
        raise InputError(
            "Expected `precision` to be float32 with the offline models, which know nothing else, "
            f"but got {precision!r}."
        )


def _named(encoder: Encoder, spec: str) -> Encoder:
    encoder.identity = replace(encoder.identity, spec=spec)
    return encoder


def _resolve(spec: str, role: str) -> str:
    """Turn a preset into its source, and refuse what no loader of this role knows."""
    known = [preset for preset in PRESETS if preset.role in (role, "both")]
    for preset in known:
        if preset.name == spec:
            return preset.spec
    prefixes = [prefix.split(":")[0] for prefix in _PREFIXES[role]]
    kind, separator, rest = spec.partition(":")
    if separator and kind in prefixes and rest:
        return spec
    names = [preset.name for preset in known]
    near = get_close_matches(spec, names, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Presets: {', '.join(names)}."
    if any(preset.name == spec for preset in PRESETS):
        other = VISION if role == VLM else VLM
        hint = f"It is a {_CALLED[other]}: --{other} {spec}. {hint}"
    raise InputError(
        f"There is no {_CALLED[role]} named {spec!r}. {hint} "
        f"Besides presets: {', '.join(_PREFIXES[role])}."
    )
