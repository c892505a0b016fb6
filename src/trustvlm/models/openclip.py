"""CLIP, SigLIP and other models that open_clip knows, CLIP's ResNets among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import ModelIdentity, Preprocessing, check_texts
from trustvlm.models.directories import RECORD, refuse_pointers
from trustvlm.models.hub import (
    IN_DIRECTORY,
    IN_HUB,
    OF_OPENCLIP,
    TOKENIZER_FILES,
    ModelFiles,
    WantedFiles,
    check_directory,
    download,
    first_line,
    has_tokenizer,
    no_hub,
    of_directory,
    quiet,
)
from trustvlm.models.names import PROMPTS, VISION, VLM
from trustvlm.models.openclip_files import file_settings, split_options, triple
from trustvlm.models.registry import LoadOptions, register_backend
from trustvlm.models.torch_encoder import (
    TorchImageEncoder,
    inference,
    require_library,
    state_hash,
    to_vectors,
)
from trustvlm.text import did_you_mean

# Names that open_clip looks up in a repository or a directory, weights included.
_SCHEMES = (IN_HUB, IN_DIRECTORY)
# What the weights are called in a repository, unless open_clip's table says otherwise.
_WEIGHTS = (("open_clip_model.safetensors",), ("open_clip_pytorch_model.bin",))
_WANTED = WantedFiles(
    (OF_OPENCLIP, *TOKENIZER_FILES), _WEIGHTS, lambda folder: (folder / OF_OPENCLIP).is_file()
)
# The settings of a text tower of transformers.
_OF_TOWER = "config.json"
_TOWER = WantedFiles((_OF_TOWER,), are_enough=lambda folder: (folder / _OF_TOWER).is_file())
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".npz", ".npy")
_TEXTS_AT_ONCE = 256
_LOCAL = "name a file as openclip:<architecture>/<file>"


def check_weights(name: str) -> None:
    """Refuse a directory or a file of weights that is not there, with `ModelUnavailableError`."""
    if name.startswith(_SCHEMES):
        if name.startswith(IN_DIRECTORY):
            check_directory(name.removeprefix(IN_DIRECTORY), local=True)
        return
    file = Path(split_options(name.partition("/")[2])[0]).expanduser()
    is_path = file.suffix in _SUFFIXES or len(file.parts) > 1
    if is_path and not file.is_file():
        raise ModelUnavailableError(f"There is no file {file}.")
    if file.is_file():
        refuse_pointers([file])


def fetch_files(name: str, revision: str | None) -> tuple[ModelFiles, list[Path]]:
    """Have a repository downloaded; return its directory, and the files that are read of it.

    A tokenizer, and the settings of a text tower, that are in another repository come along.
    """
    library = require_library("open_clip", extra="openclip", purpose=f"The model openclip:{name}")
    if name.startswith(_SCHEMES):
        files = locate(name, revision)
        architecture, wanted = f"{IN_DIRECTORY}{files.directory}", _WANTED
    else:
        architecture, weights, _ = _split(library, name)
        tag = library.get_pretrained_cfg(architecture, weights)
        repository = _fetch(library, name, tag, revision)[0] if tag else None
        if repository is None:
            raise InputError(f"The weights openclip:{name} are a file, in no hub: copy it.")
        files, wanted = repository, wanted_of(str(tag["hf_hub"]).rpartition("/")[2])
    text = library.get_model_config(architecture)["text_cfg"]
    needed = {file.name: file for file in wanted.among(files.directory)}
    if tower := text.get("hf_model_name"):
        needed[_OF_TOWER] = download(tower, _TOWER).directory / _OF_TOWER
    repo = text.get("hf_tokenizer_name", "")
    if repo and repo != files.source:
        of_tokenizer = WantedFiles(TOKENIZER_FILES, are_enough=has_tokenizer)
        folder = download(repo, of_tokenizer).directory
        needed |= {file.name: file for file in of_tokenizer.among(folder)}
    return files, list(needed.values())


@register_backend(
    "openclip",
    roles=(VLM, VISION),
    form="<arch>/<weights>",
    extra="openclip",
    revisions=True,
    check=check_weights,
    fetch=fetch_files,
)
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
    files = None
    try:
        if name.startswith(_SCHEMES):
            files = locate(name, options.revision)
            architecture, weights = f"{IN_DIRECTORY}{files.directory}", None
            settings: dict[str, Any] = {}
        else:
            architecture, weights, of_file = _split(library, name)
            settings = library.get_pretrained_cfg(architecture, weights)
            if settings:
                files, weights = _fetch(library, name, settings, options.revision)
            else:
                settings = file_settings(library, architecture, weights, of_file)
        with quiet():
            model = library.create_model(
                architecture,
                weights,
                # open_clip only warns where an architecture and its weights differ in this.
                force_quick_gelu=bool(settings.get("quick_gelu")),
                force_preprocess_cfg=settings,
                require_pretrained=True,
                weights_only=True,
                **_text_tower(library, architecture, files),
            )
            tokenizer = _tokenizer(library, name, architecture, files)
    except (InputError, MissingExtraError):
        raise
    # open_clip raises whatever the network, the hub's client and torch raise.
    except Exception as error:
        raise ModelUnavailableError(
            f"The model openclip:{name} cannot be had: {first_line(error)}"
        ) from error
    return OpenClipVLM(name, model, tokenizer, options, files)


def locate(name: str, revision: str | None) -> ModelFiles:
    """Find the directory of `hf-hub:<repo>` or `local-dir:<directory>`."""
    if name.startswith(IN_DIRECTORY):
        return of_directory(name.removeprefix(IN_DIRECTORY), _WANTED)
    remedy = no_hub(f"openclip:{name}", revision, _LOCAL)
    return download(name.removeprefix(IN_HUB), _WANTED, revision=revision, remedy=remedy)


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

    def __init__(
        self,
        source: str,
        model: Any,
        tokenizer: Any,
        options: LoadOptions,
        files: ModelFiles | None,
    ) -> None:
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
                source=f"{IN_HUB}{files.source}"
                if files and files.revision and source.startswith(_SCHEMES)
                else source,
                revision=files.revision if files else "",
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


def _fetch(
    library: Any, name: str, tag: dict[str, Any], revision: str | None
) -> tuple[ModelFiles | None, str]:
    """Return the repository of a tag's weights, if it has one, and their file."""
    repo, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    if not repo:
        if revision is not None:
            raise InputError(f"The weights openclip:{name} are a file, which has no revisions.")
        return None, str(library.download_pretrained(tag))
    remedy = no_hub(f"openclip:{name}", revision, _LOCAL)
    files = download(repo, wanted_of(file), revision=revision, remedy=remedy)
    names = [each for (each,) in wanted_of(file).weights]
    here = [files.directory / each for each in names if (files.directory / each).is_file()]
    if not here:
        raise ModelUnavailableError(f"The model repository {repo!r} has no file {names[-1]}.")
    return files, str(here[0])


def wanted_of(file: str) -> WantedFiles:
    """Say which files of a repository are wanted for weights in a file, "" for the usual one."""
    if not file:
        return WantedFiles(_WANTED.settings, _WEIGHTS)
    named = ((str(Path(file).with_suffix(".safetensors")),), (file,))
    return WantedFiles((*TOKENIZER_FILES, "*config.json"), named)


def _text_tower(library: Any, architecture: str, files: ModelFiles | None) -> dict[str, Any]:
    """Name the settings of a text tower of transformers, which open_clip asks the hub for.

    In a directory that was fetched they lie beside the weights.
    """
    text = library.get_model_config(architecture)["text_cfg"]
    tower = text.get("hf_model_name", "")
    if not tower:
        return {}
    beside = files is not None and (files.directory / RECORD).is_file()
    folder = files.directory if files and beside else download(tower, _TOWER).directory
    return {"text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}


def _tokenizer(library: Any, name: str, architecture: str, files: ModelFiles | None) -> Any:
    """Return the tokenizer that open_clip's table or the repository's settings name."""
    text = library.get_model_config(architecture)["text_cfg"]
    repo = text.get("hf_tokenizer_name", "")
    if not repo or name.startswith(IN_DIRECTORY):
        return library.get_tokenizer(architecture)
    directory = files.directory if files else Path()
    if files is None or files.source != repo:
        try:
            wanted = WantedFiles(TOKENIZER_FILES, are_enough=has_tokenizer)
            directory = download(repo, wanted).directory
        except ModelUnavailableError:
            # As in a directory, the one that came with the weights.
            if files is None or not has_tokenizer(directory):
                raise
    return library.tokenizer.HFTokenizer(
        str(directory),
        context_length=text.get("context_length", library.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )


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
