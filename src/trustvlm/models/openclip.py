"""CLIP, SigLIP and other models that open_clip knows, CLIP's ResNets among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.models.base import ModelIdentity, Preprocessing, check_texts
from trustvlm.models.hub import download, first_line, no_hub, quiet
from trustvlm.models.openclip_files import file_settings, split_options, triple
from trustvlm.models.registry import PROMPTS, VISION, VLM, LoadOptions, register_backend
from trustvlm.models.torch_encoder import (
    TorchImageEncoder,
    inference,
    require_library,
    state_hash,
    to_vectors,
)
from trustvlm.text import did_you_mean

# Names that open_clip looks up in a repository or a directory, weights included.
_HUB, _DIRECTORY = "hf-hub:", "local-dir:"
_SCHEMES = (_HUB, _DIRECTORY)
# What the weights are called in a repository, unless open_clip's table says otherwise.
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TEXTS_AT_ONCE = 256
# The small files of a repository, which say what is in it.
_SETTINGS = ("open_clip_config.json", "*.json")
_REMEDY = no_hub("name a file as openclip:<architecture>/<file>")


@register_backend("openclip", roles=(VLM, VISION), form="<arch>/<weights>", extra="openclip")
def load(name: str, options: LoadOptions) -> OpenClipVLM:
    """Load `<architecture>/<weights>`, or `hf-hub:<repo>` or `local-dir:<directory>`.

    The weights are one of open_clip's tags, such as `openai`, or a file; what a file leaves open
    is found, or asked for, as `trustvlm.models.openclip_files` says.

    Raises
    ------
    InputError
        For an unknown architecture, weights, option, device or precision, and for a file whose
        preprocessing or activation is open.
    MissingExtraError
        If open_clip is not installed.
    ModelUnavailableError
        If the weights cannot be had, or do not fit.
    """
    library = require_library("open_clip", extra="openclip", purpose=f"The model openclip:{name}")
    architecture, weights, of_file = (
        (name, None, []) if name.startswith(_SCHEMES) else _split(library, name)
    )
    tag = library.get_pretrained_cfg(architecture, weights) if weights else {}
    settings = tag
    if weights and not tag:
        settings = file_settings(library, architecture, weights, of_file)
    try:
        if tag:
            weights = _fetch(library, tag)
        elif name.startswith(_HUB):
            download(name.removeprefix(_HUB), _SETTINGS)
        with quiet():
            model = library.create_model(
                architecture,
                weights,
                # open_clip only warns where an architecture and its weights differ in this.
                force_quick_gelu=bool(settings.get("quick_gelu")),
                force_preprocess_cfg=settings,
                require_pretrained=True,
                weights_only=True,
            )
            tokenizer = library.get_tokenizer(architecture)
    # open_clip raises whatever the network, the hub's client and torch raise.
    except Exception as error:
        local = not tag and not name.startswith(_HUB)
        raise ModelUnavailableError(
            f"The model openclip:{name} cannot be had: {first_line(error)}"
            f"{'' if local else _REMEDY}"
        ) from error
    return OpenClipVLM(name, model, tokenizer, options)


class OpenClipVLM(TorchImageEncoder):
    """A vision-language model run by open_clip.

    Attributes
    ----------
    identity, preprocessing, dim, note, logit_scale, prompt
        As in `trustvlm.models.base.VisionLanguageModel`.
    logit_bias
        What SigLIP adds to its logits; None for other models. The softmax over classes does not
        see it, the sigmoid does.
    """

    def __init__(self, source: str, model: Any, tokenizer: Any, options: LoadOptions) -> None:
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach())
        family = "clip" if bias is None else "siglip"
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.prompt = PROMPTS[family]
        self._tokenizer = tokenizer
        preprocessing = _preprocessing(source, model.visual.preprocess_cfg)
        super().__init__(
            model,
            identity=ModelIdentity(
                spec=f"openclip:{source}",
                source=source,
                revision="",
                weights=state_hash(model),
                settings={
                    "family": family,
                    "architecture": "" if source.startswith(_SCHEMES) else source.split("/")[0],
                    "activation": _activation(model),
                    "pooling": "projection",
                },
            ),
            preprocessing=preprocessing,
            options=options,
        )

    def _features(self, tensor: Any) -> Any:
        return self._model.encode_image(tensor)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, dim)` float32, not L2-normalised; longer ones are cut.

        Raises
        ------
        InputError
            If `texts` is one string rather than several, or holds something else than strings.
        """
        texts = check_texts(texts)
        parts = [np.empty((0, self.dim), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self._tokenizer(texts[start : start + _TEXTS_AT_ONCE]).to(self._device)
            with inference(self._device):
                parts.append(to_vectors(self._model.encode_text(tokens)))
        return np.concatenate(parts)

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return those texts that have more tokens than the model reads."""
        return [text for text in check_texts(texts) if self._is_cut(text)]

    def _is_cut(self, text: str) -> bool:
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):  # open_clip's own, without its signs of start and end
            return len(tokenizer.encode(text)) + 2 > int(tokenizer.context_length)
        # One of transformers, wrapped.
        cleaned = tokenizer.clean_fn(text)
        tokens = tokenizer.tokenizer(cleaned, verbose=False)["input_ids"]
        return len(tokens) > int(tokenizer.context_length)


def _split(library: Any, name: str) -> tuple[str, str, list[str]]:
    """Return the architecture, a tag or a file, and the options of a file."""
    architecture, _, rest = name.partition("/")
    weights, options = split_options(rest)
    architectures = library.list_models()
    if architecture not in architectures:
        hint = did_you_mean(architecture, architectures).replace("did", " Did", 1)
        raise InputError(f"open_clip has no model {architecture!r}.{hint}")
    tags = library.list_pretrained_tags_by_model(architecture)
    if weights not in tags and not Path(weights).expanduser().is_file():
        hint = did_you_mean(weights, tags).replace("did", " Did", 1)
        raise InputError(
            f"Expected openclip:{architecture}/<weights> to name a file or one of "
            f"{', '.join(tags)}, but got {weights!r}.{hint}"
        )
    if weights in tags and options:
        raise InputError(
            f"Options are for weights from a file, but {weights!r} is a tag of open_clip, whose "
            "settings are known."
        )
    file = weights if weights in tags else str(Path(weights).expanduser())
    return architecture, file, options


def _fetch(library: Any, tag: dict[str, Any]) -> str:
    """Return the file of a tag's weights, downloaded if it is not there yet."""
    repo, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    if repo:
        snapshot = download(repo, _SETTINGS)
        names = (str(Path(file).with_suffix(".safetensors")), file) if file else _WEIGHTS
        for name in names:
            if (snapshot / name).is_file():
                return str(snapshot / name)
    return str(library.download_pretrained(tag))


def _preprocessing(source: str, settings: dict[str, Any]) -> Preprocessing:
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    # open_clip's evaluation transform reads everything but bilinear as bicubic.
    interpolation = "bilinear" if settings["interpolation"] == "bilinear" else "bicubic"
    mean, std = triple(settings["mean"]), triple(settings["std"])
    mode = settings["resize_mode"]
    if mode == "squash":
        return Preprocessing((height, width), None, interpolation, mean, std)
    if mode == "shortest" and height == width:
        return Preprocessing((height, width), height, interpolation, mean, std, rounding="even")
    raise ModelUnavailableError(
        f"The image preprocessing of openclip:{source} is not supported: resize_mode is {mode} "
        f"for {height} x {width} pixels. Supported are squash, and shortest for a square."
    )


def _activation(model: Any) -> str:
    quick = any(type(module).__name__ == "QuickGELU" for module in model.modules())
    return "quick_gelu" if quick else "gelu"
