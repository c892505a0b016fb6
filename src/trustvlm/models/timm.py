"""Image encoders that timm knows, and MoCo v2 from its published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

from trustvlm.environment import require
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import IMAGENET_MEAN, IMAGENET_STD, ModelIdentity, Preprocessing
from trustvlm.models.directories import refuse_pointers
from trustvlm.models.hub import (
    IN_DIRECTORY,
    IN_HUB,
    ModelFiles,
    WantedFiles,
    check_directory,
    download,
    first_line,
    no_hub,
    of_directory,
    quiet,
)
from trustvlm.models.registry import LoadOptions, register_backend
from trustvlm.models.torch_encoder import TorchImageEncoder, require_library, state_hash
from trustvlm.text import did_you_mean

# Names that timm looks up in a repository or a directory.
_SETTINGS = "config.json"
_WEIGHTS = (("model.safetensors",), ("pytorch_model.bin",))
_WANTED = WantedFiles((_SETTINGS,), _WEIGHTS, lambda folder: (folder / _SETTINGS).is_file())


def check_name(name: str) -> None:
    """Refuse a directory that is not there, with `ModelUnavailableError`."""
    if name.startswith(IN_DIRECTORY):
        check_directory(name.removeprefix(IN_DIRECTORY), local=True)


def fetch_files(name: str, revision: str | None) -> tuple[ModelFiles, list[Path]]:
    """Have a repository downloaded; return its directory, and the files that are read of it."""
    timm = require_library("timm", extra="timm", purpose=f"The model timm:{name}")
    files, overlay = _files(timm, name, revision)
    if files is None:
        raise InputError(f"The weights of timm:{name} are in no hub: copy their file.")
    weights = Path(overlay["file"]).name if overlay else ""
    wanted = WantedFiles(("*config.json",), ((weights,),)) if weights else _WANTED
    return files, wanted.among(files.directory)


@register_backend(
    "timm",
    form="<name>",
    extra="timm",
    revisions=True,
    check=check_name,
    fetch=fetch_files,
)
def load(name: str, options: LoadOptions) -> TorchImageEncoder:
    """Load `<architecture>.<tag>`, or `hf-hub:<repo>` or `local-dir:<directory>`.

    Without a tag, timm's default weights are taken.

    Raises
    ------
    InputError
        For an unknown name, device or precision.
    MissingExtraError
        If timm is not installed.
    ModelUnavailableError
        If the weights cannot be had, or do not fit.
    """
    timm = require_library("timm", extra="timm", purpose=f"The model timm:{name}")
    try:
        files, overlay = _files(timm, name, options.revision)
        is_named = name.startswith((IN_HUB, IN_DIRECTORY))
        with quiet():
            # Loaded whole, timm refuses weights that lack a part; then the classifier goes.
            model = timm.create_model(
                f"{IN_DIRECTORY}{files.directory}" if files and is_named else name,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
            )
            model.reset_classifier(0)
            settings = timm.data.resolve_model_data_config(model)
    except (InputError, MissingExtraError):
        raise
    # timm raises whatever the network, the hub's client and torch raise.
    except Exception as error:
        raise ModelUnavailableError(
            f"The model timm:{name} cannot be had: {first_line(error)}"
        ) from error
    return _encoder(f"timm:{name}", name, model, _preprocessing(name, settings), options, files)


def _files(
    timm: Any, name: str, revision: str | None
) -> tuple[ModelFiles | None, dict[str, str] | None]:
    """Return the directory of a model, if it has one, and what is to be said of its weights."""
    if name.startswith(IN_DIRECTORY):
        return of_directory(name.removeprefix(IN_DIRECTORY), _WANTED), None
    local = "name a directory as timm:local-dir:<directory>"
    remedy = no_hub(f"timm:{name}", revision, local, "--vision")
    if name.startswith(IN_HUB):
        return download(name.removeprefix(IN_HUB), _WANTED, revision=revision, remedy=remedy), None
    repo, file = _repository(timm, name)
    if not repo:
        if revision is not None:
            raise InputError(f"The weights of timm:{name} are a file, which has no revisions.")
        return None, None
    wanted = wanted_of(file)
    files = download(repo, wanted, revision=revision, remedy=remedy)
    for (weights,) in wanted.weights:
        if (files.directory / weights).is_file():
            return files, {"file": str(files.directory / weights)}
    raise ModelUnavailableError(
        f"The model repository {repo!r} has no file {wanted.weights[-1][0]}."
    )


def wanted_of(file: str) -> WantedFiles:
    """Say which files of a repository are wanted for weights in a file, "" for the usual one."""
    if not file:
        return WantedFiles((_SETTINGS,), _WEIGHTS)
    safe = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
    other = safe.get(file, str(Path(file).with_suffix(".safetensors")))
    names = dict.fromkeys((other, file) if file.endswith(".bin") else (file,))
    return WantedFiles(("*config.json",), tuple((each,) for each in names))


def check_checkpoint(file: str) -> None:
    """Refuse a checkpoint that is not named, or not there, with `ModelUnavailableError`."""
    path = Path(file).expanduser()
    if not file or not path.is_file():
        what = f"There is no file {path}." if file else "moco-v2-r50 needs a checkpoint file."
        raise ModelUnavailableError(f"{what} {CHECKPOINT}")
    refuse_pointers([path])


@register_backend("moco-v2-r50", form="<file>", extra="timm", check=check_checkpoint)
def load_moco(file: str, options: LoadOptions) -> TorchImageEncoder:
    """Load MoCo v2's ResNet-50 (He et al. 2020, Chen et al. 2020) from a checkpoint file.

    It is the published checkpoint, or the encoder's weights under torchvision's names, as
    `.safetensors` or as torch saves them.

    Raises
    ------
    InputError
        For an unknown device or precision.
    MissingExtraError
        If timm is not installed.
    ModelUnavailableError
        If no file is named, or it cannot be read, or holds something else.
    """
    weights = read_encoder(file)
    timm = require_library("timm", extra="timm", purpose="MoCo v2's ResNet-50")
    with quiet():
        model = timm.create_model("resnet50", pretrained=False, num_classes=0)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelUnavailableError(
            f"{file} does not hold the weights of a ResNet-50: {error}. {CHECKPOINT}"
        ) from error
    preprocessing = Preprocessing(
        (224, 224), 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, rounding="even"
    )
    return _encoder(f"moco-v2-r50:{file}", file, model, preprocessing, options)


def _encoder(
    spec: str,
    source: str,
    model: Any,
    preprocessing: Preprocessing,
    options: LoadOptions,
    files: ModelFiles | None = None,
) -> TorchImageEncoder:
    """Return the network without its classifier as an encoder.

    The vector is what the classifier would have read, pooled as the network was trained.
    """
    identity = ModelIdentity(
        spec=spec,
        source=f"{IN_HUB}{files.source}"
        if files and files.revision and source.startswith((IN_HUB, IN_DIRECTORY))
        else source,
        revision=files.revision if files else "",
        weights=state_hash(model),
        settings={
            "family": "timm",
            "architecture": str(model.pretrained_cfg["architecture"]),
            "pooling": str(getattr(model, "global_pool", "") or "timm's own"),
        },
    )
    return TorchImageEncoder(model, identity=identity, preprocessing=preprocessing, options=options)


def _repository(timm: Any, name: str) -> tuple[str, str]:
    """Return the hub repository that a name leads to, "" for none, and the file, if it is named."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models()).replace("did", " Did", 1)
        raise InputError(f"timm has no model {architecture!r}.{hint}")
    published = timm.list_pretrained(f"{architecture}.*") or timm.list_pretrained(architecture)
    if not published:
        raise InputError(f"timm has no weights for the model {architecture!r}.")
    if tag and name not in published:
        raise InputError(
            f"timm has no weights {tag!r} for {architecture}. It has: {', '.join(published)}."
        )
    settings = timm.get_pretrained_cfg(name)
    return str(settings.hf_hub_id or ""), str(settings.hf_hub_filename or "")


def _preprocessing(name: str, settings: Mapping[str, Any]) -> Preprocessing:
    channels, height, width = settings["input_size"]
    mode, kept = settings["crop_mode"], float(settings["crop_pct"])
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    interpolation = str(settings["interpolation"])
    if channels == 3 and interpolation in ("bilinear", "bicubic", "lanczos"):
        if mode == "squash" and kept == 1.0:
            return Preprocessing((height, width), None, interpolation, mean, std)
        if mode == "center" and height == width:
            resize = floor(height / kept)
            return Preprocessing((height, width), resize, interpolation, mean, std, rounding="even")
    raise ModelUnavailableError(
        f"The image preprocessing of timm:{name} is not supported: {channels} channels of "
        f"{height} x {width}, {interpolation}, crop_mode {mode}, crop_pct {kept}. Supported are "
        "squares cropped from the centre, and squashing to any size."
    )


# Read the image encoder out of a MoCo checkpoint.

CHECKPOINT = (
    "MoCo v2's is the file moco_v2_800ep_pretrain.pth.tar (ResNet-50, 800 epochs, CC-BY-NC 4.0), "
    "linked from https://github.com/facebookresearch/moco: name it as "
    "--vision moco-v2-r50:<file>."
)

_QUERY_ENCODER = "encoder_q."


def read_encoder(file: str) -> dict[str, Any]:
    """Return the weights of the encoder by their names in a ResNet-50.

    A MoCo checkpoint holds two encoders, a queue and the optimiser's state; the encoder of the
    queries is the one to use, without its projection head.

    Parameters
    ----------
    file
        `.safetensors`, or what torch saved; a pickle may hold tensors and plain values only.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ModelUnavailableError
        If no file is named, or it cannot be read, or holds no weights.
    """
    check_checkpoint(file)
    path = Path(file).expanduser()
    torch = require("torch", extra="timm", purpose="MoCo v2's ResNet-50")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files make the two readers raise errors of many kinds.
    except Exception as error:
        raise ModelUnavailableError(
            f"{path} cannot be read: {first_line(error)} {CHECKPOINT}"
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(map(torch.is_tensor, weights.values())):
        raise ModelUnavailableError(f"{path} holds no table of weights. {CHECKPOINT}")
    named = {str(name).removeprefix("module."): value for name, value in weights.items()}
    if any(name.startswith(_QUERY_ENCODER) for name in named):
        named = {
            name.removeprefix(_QUERY_ENCODER): value
            for name, value in named.items()
            if name.startswith(_QUERY_ENCODER)
        }
    return {name: value for name, value in named.items() if not name.startswith("fc.")}
