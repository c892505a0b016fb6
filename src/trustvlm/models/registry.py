"""From a name to an encoder: a preset's, or one that a registered backend runs."""

from __future__ import annotations

import math
import re
import tomllib
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.resources import files
from inspect import getdoc
from numbers import Integral
from pathlib import Path
from typing import Any, cast

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.models.base import (
    NO_VLM,
    ImageEncoder,
    ModelIdentity,
    NoVLM,
    Preprocessing,
    VisionLanguageModel,
)
from trustvlm.models.hub import OF_OPENCLIP, ModelFiles, hub_repository
from trustvlm.models.prompts import read_prompts
from trustvlm.plugins import (
    Registry,
    describe_failures,
    differs,
    from_where,
    how_to_load,
    load_installed,
    origin,
    plugin_errors,
)
from trustvlm.text import did_you_mean, join_names

# Models by short name.

VLM, VISION = "vlm", "vision"
# The templates that the paper uses, by the kind of model.
PROMPTS = {
    "clip": "a photo of a {}.",
    "siglip": "This is a photo of {}.",
    "chinese": "{}的照片。",  # of the templates of Chinese-CLIP, the one that CLIP's became
}


@dataclass(frozen=True)
class Preset:
    """A model under a short name.

    Attributes
    ----------
    name
        What the user types.
    role
        `vlm` (predicts), `vision` (verifies), or `both`.
    spec
        Where it comes from, as `hf:...`, `openclip:...`, or a name handled by itself.
    extra
        The extra of trustvlm that it needs.
    licence
        Of the weights, as their publisher states it.
    about
        One line for tables.
    good_for
        What it is good for, by its publisher's description.
    card
        Where the facts stand: a repository of the hub, whose model card they are from, or another
        page.
    parameters
        In millions; 0 where it has none of its own.
    resolution
        Pixels along the sides of what the network reads, in words; "" where it has none of its own.
    text_length
        Tokens of a text that it reads; 0 for models that read none.
    prompt
        The template that a VLM uses unless another is given; "" for other models.
    logit_scale
        What a VLM multiplies cosines by, in words; "" for other models.
    """

    name: str
    role: str
    spec: str
    extra: str
    licence: str
    about: str
    good_for: str
    card: str
    parameters: int = 0
    resolution: str = ""
    text_length: int = 0
    prompt: str = ""
    logit_scale: str = ""


@cache
def presets() -> tuple[Preset, ...]:
    """Every model that has a short name; `presets.toml` is read once.

    Examples
    --------
    >>> [preset.name for preset in presets()][:2]
    ['clip-vit-b16', 'clip-vit-b32']
    """
    text = files(__package__).joinpath("presets.toml").read_text("utf-8")
    return tuple(Preset(**facts) for facts in tomllib.loads(text)["preset"])


_DESCRIBED = {VLM: "VLM", VISION: "vision encoder"}
_CLS = "#cls"


# What runs encoders: each backend under the prefix of its specs.


@dataclass(frozen=True)
class LoadOptions:
    """What a backend is asked for, besides the model's name.

    Attributes
    ----------
    role
        `vlm` for an encoder that also encodes texts, `vision` for one of images.
    device
        `auto`, `cpu` or `cuda`.
    precision
        `float32` or `bfloat16`. A backend raises `InputError` for a device or precision that it
        does not offer.
    revision
        Commit, tag or branch; only for a backend with `revisions`.
    pooling
        `mean` of all tokens, or `cls`, the class token; only for a backend with `class_token`.
    """

    role: str
    device: str = "auto"
    precision: str = "float32"
    revision: str | None = None
    pooling: str = "mean"


Loader = Callable[[str, LoadOptions], ImageEncoder]
Check = Callable[[str], None]
Fetch = Callable[[str, str | None], tuple[ModelFiles, list[Path]]]


@dataclass(frozen=True)
class Backend:
    """A registered backend: its loader, and the facts that tables and errors are made from.

    Attributes
    ----------
    name
        The prefix of its specs.
    load
        Turns what follows the prefix, and `LoadOptions`, into an encoder.
    roles
        Of `vlm` and `vision`, those that it has models for.
    form
        What follows the prefix, for instance `<file>`; "" if nothing does.
    extra
        The extra of trustvlm that it needs; "" for none.
    revisions
        Whether its models have revisions: `<name>@<revision>`, or the option `revision`.
    class_token
        Whether `#cls` may end the spec of a vision encoder.
    check
        Raises at once what can be said of a name before a library is imported, such as that a file
        is missing; None for nothing.
    fetch
        Has the files of a hub model downloaded, by its name and revision; returns where they are
        and which of them are needed. None for a backend whose models are in no hub.
    """

    name: str
    load: Loader
    roles: tuple[str, ...]
    form: str = ""
    extra: str = ""
    revisions: bool = False
    class_token: bool = False
    check: Check | None = None
    fetch: Fetch | None = None

    @property
    def pattern(self) -> str:
        """How a spec is written, for instance `onnx:<file>`."""
        return f"{self.name}:{self.form}" if self.form else self.name

    @property
    def summary(self) -> str:
        """First line of the loader's docstring."""
        return (getdoc(self.load) or "").split("\n")[0]


# Modules that register the backend of that name, imported when somebody asks for it.
_MODULES = {
    "hf": "trustvlm.models.huggingface",
    "openclip": "trustvlm.models.openclip",
    "timm": "trustvlm.models.timm",
    "onnx": "trustvlm.models.onnx",
    "moco-v2-r50": "trustvlm.models.timm",
    "offline": "trustvlm.models.offline.encoders",
}
_BACKENDS: Registry[Backend] = Registry("encoder backend", lambda backend: backend.load)


def register_backend(
    name: str,
    *,
    roles: tuple[str, ...] = (VISION,),
    form: str = "",
    extra: str = "",
    revisions: bool = False,
    class_token: bool = False,
    check: Check | None = None,
    fetch: Fetch | None = None,
) -> Callable[[Loader], Loader]:
    """Register a loader of encoders under the prefix of their specs.

    The loader gets what follows the prefix and `LoadOptions`, and returns an `ImageEncoder`, or a
    `VisionLanguageModel` for the role `vlm`. Whatever can change a number belongs into the
    encoder's `identity`: embeddings are stored, and artefacts checked, by its fingerprint. The
    first line of the loader's docstring is its line in `trustvlm models`.

    Parameters
    ----------
    name, roles, form, extra, revisions, class_token, check, fetch
        As in `Backend`.

    Raises
    ------
    InputError
        If the name is taken or cannot be a prefix, or a role is unknown.

    Examples
    --------
    >>> @register_backend("pixels", form="<size>")
    ... def load_pixels(name, options):
    ...     '''Raw pixels.'''
    >>> [backend.pattern for backend in backends() if backend.name == "pixels"]
    ['pixels:<size>']
    >>> unregister_backend("pixels")
    """
    names_none = not name or set(name) & set(":#") or name == NO_VLM
    if names_none or not roles or set(roles) - {VLM, VISION}:
        raise InputError(
            f"Expected a backend to have a name without : and #, other than {NO_VLM}, and roles of "
            f"{VLM} and {VISION}, but got {name!r} and {roles!r}."
        )

    def decorate(load: Loader) -> Loader:
        built_in = load.__module__ == _MODULES.get(name)
        if not built_in and (name in _MODULES or any(preset.name == name for preset in presets())):
            raise InputError(f"An encoder backend or preset named `{name}` is already registered.")
        facts = (roles, form, extra, revisions, class_token, check, fetch)
        _BACKENDS.add(name, Backend(name, load, *facts))
        return load

    return decorate


def unregister_backend(name: str) -> None:
    """Take a backend out of the registry."""
    _BACKENDS.pop(name)


def backends() -> tuple[Backend, ...]:
    """Every registered backend; those of the package come first.

    Examples
    --------
    >>> [backend.pattern for backend in backends()][:2]
    ['hf:<repo or directory>', 'openclip:<arch>/<weights>']
    """
    for name, module in _MODULES.items():
        if name not in _BACKENDS:
            import_module(module)
    return tuple(_BACKENDS[name] for name in dict.fromkeys((*_MODULES, *_BACKENDS)))


def _backend(name: str) -> Backend | None:
    """Look a backend up in this package, in loaded files, then in installed packages."""
    if name not in _BACKENDS:
        if name in _MODULES:
            import_module(_MODULES[name])
        else:
            load_installed()
    return _BACKENDS.get(name)


# From a spec to an encoder.


def load_vlm(
    spec: str, *, device: str = "auto", precision: str = "float32", revision: str | None = None
) -> VisionLanguageModel:
    """Load the model that predicts.

    Parameters
    ----------
    spec
        A preset, `hf:<repo or directory>`, `openclip:<arch>/<weights>`, `offline`, or whatever
        another registered backend takes; `none` for no model at all. A preset or a model of a
        repository may be followed by `@` and a commit, tag or branch of it.
    device
        `auto`, `cpu` or `cuda`.
    precision
        `float32`, or `bfloat16` for matrix products and convolutions of the image side in that.
        Models that ONNX Runtime runs, `offline` among them, offer `float32` only.
    revision
        The same commit, tag or branch, by itself.

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
    if spec == NO_VLM:
        return NoVLM()
    options = LoadOptions(VLM, device, precision, revision)
    return cast(VisionLanguageModel, _load(spec, options))


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
        `onnx:<file>`, `moco-v2-r50:<file>`, `offline`, or whatever another registered backend
        takes. A preset or `hf:...` may end in `#cls`: then the class token is taken instead of
        the mean of all tokens; `@<revision>` stands before it.
    vlm
        The VLM whose image tower `same` stands for.
    device, precision, revision
        As in `load_vlm`.

    Raises
    ------
    InputError, MissingExtraError, ModelUnavailableError
        As `load_vlm`.
    """
    options = LoadOptions(VISION, device, precision, revision)
    if spec.removesuffix(_CLS) == "same":
        _check_options("same", replace(options, pooling=_parse(spec, VISION).pooling))
        if vlm is None or not vlm.dim:
            raise InputError("`same` is the VLM's own image tower: pass the VLM as `vlm`.")
        return vlm
    return _load(spec, options)


def check_name(spec: str, role: str) -> None:
    """Refuse the name of a model that cannot be had, as far as that can be said at once.

    No library that runs models is imported, and nothing is downloaded.

    Parameters
    ----------
    spec
        As in `load_vlm` and `load_vision`.
    role
        `vlm` or `vision`.

    Raises
    ------
    InputError
        If no model has that name.
    ModelUnavailableError
        If it names a file or a directory that is not there.

    Examples
    --------
    >>> check_name("offline", "vlm")
    """
    if spec == NO_VLM and role == VLM:
        return
    if spec.removesuffix(_CLS) != "same":
        _resolved(spec, LoadOptions(role))


def fetch_files(spec: str, *, revision: str | None = None) -> tuple[ModelFiles, list[Path]]:
    """Have the files of a hub model downloaded; return where they are, and those that are needed.

    Raises
    ------
    InputError
        If no model has that name, or it has no files in a hub.
    ModelUnavailableError, MissingExtraError
        If they cannot be had.
    """
    spec = spec.removesuffix(_CLS)
    base = spec.partition("@")[0]
    by_name = {preset.name: preset for preset in presets()}
    if base == NO_VLM or (base in by_name and by_name[base].spec == base):
        raise InputError(f"The model {base!r} has no files in a hub: there is nothing to fetch.")
    backend = None if base in by_name else _backend(base.partition(":")[0])
    roles = (by_name[base].role,) if base in by_name else backend.roles if backend else (VLM,)
    # What is no name at all may stand for vision encoders alone, which the error then suggests.
    only_vision = backend is None and f"--{VISION}" in _near_names(base, VLM)
    role = VISION if roles == (VISION,) or only_vision else VLM
    backend, name, options = _resolved(spec, LoadOptions(role, revision=revision))
    if backend.fetch is None:
        raise InputError(
            f"Models of `{backend.name}` are in no hub: there is nothing to fetch for {spec!r}. "
            "Copy its files."
        )
    files, needed = backend.fetch(name, options.revision)
    if not files.revision:
        raise InputError(f"{spec!r} is a directory on this machine: copy it as it is.")
    return files, needed


def _load(spec: str, options: LoadOptions) -> ImageEncoder:
    backend, name, options = _resolved(spec, options)
    outside = from_where(backend.load)
    failure = f"The encoder backend `{backend.name}`{outside} fails to load {spec!r}"
    with plugin_errors(failure) if outside else nullcontext():
        encoder = backend.load(name, options)
    expected = VisionLanguageModel if options.role == VLM else ImageEncoder
    if not isinstance(encoder, expected):
        raise InputError(
            f"Expected the backend `{backend.name}` to load a {expected.__name__} for {spec!r}, "
            f"but got a {type(encoder).__name__}, which lacks attributes or methods of one."
        )
    if outside:
        _check_facts(encoder, f"the backend `{backend.name}`{outside} to load for {spec!r}")
    code = " ".join(origin(backend.load).values())
    encoder.identity = replace(encoder.identity, spec=spec, code=code)
    named = _parse(spec, options.role).name
    preset = {preset.name: preset for preset in presets()}.get(named)
    if preset and isinstance(encoder, VisionLanguageModel):
        encoder.prompt = preset.prompt
    return encoder


def _check_facts(encoder: ImageEncoder, where: str) -> None:
    """Check what an encoder from outside the package says of itself."""
    identity: Any = encoder.identity  # of any type: nobody checked them yet
    preprocessing: Any = encoder.preprocessing
    dim: Any = encoder.dim
    if not isinstance(identity, ModelIdentity) or not identity.weights:
        raise InputError(
            f"Expected {where} an encoder whose `identity` is a ModelIdentity with a SHA-256 of "
            f"its weights: embeddings are stored under it; but got {identity!r}."
        )
    if not isinstance(preprocessing, Preprocessing):
        raise InputError(
            f"Expected {where} an encoder whose `preprocessing` is a Preprocessing, but got "
            f"{preprocessing!r}."
        )
    if not isinstance(dim, Integral) or dim < 1:
        raise InputError(
            f"Expected {where} an encoder whose `dim` is a whole number of at least 1, but got "
            f"{dim!r}."
        )
    if isinstance(encoder, VisionLanguageModel):
        if not math.isfinite(encoder.logit_scale) or encoder.logit_scale <= 0:
            raise InputError(
                f"Expected {where} a model whose `logit_scale` is above 0, but got "
                f"{encoder.logit_scale!r}."
            )
        read_prompts(encoder.prompt)


def _resolved(spec: str, options: LoadOptions) -> tuple[Backend, str, LoadOptions]:
    """Return the backend, the name that it shall load, and how, after all that can be checked."""
    parsed = _parse(spec, options.role)
    if parsed.revision is not None and options.revision not in (None, parsed.revision):
        raise InputError(
            f"Expected one revision, but got {parsed.revision!r} in {spec!r} and "
            f"{options.revision!r}: leave one of them out."
        )
    revision = options.revision if parsed.revision is None else parsed.revision
    if revision is not None and (not revision or revision != revision.strip()):
        raise InputError(
            f"Expected a commit, tag or branch as the revision of {spec!r}, but got {revision!r}."
        )
    options = replace(options, revision=revision, pooling=parsed.pooling)
    backend, name = _resolve(parsed.name, options.role)
    if name.endswith(_CLS):  # A preset's, whose own pooling that is.
        name, options = name.removesuffix(_CLS), replace(options, pooling="cls")
    _check_options(parsed.name, options, backend)
    if backend.check is not None:
        backend.check(name)
    if revision is not None and _is_local(f"{backend.name}:{name}"):
        raise InputError(
            f"A revision was given, {revision!r}, but {name!r} is on this machine, where only one "
            "is: leave it out."
        )
    return backend, name, options


@dataclass(frozen=True)
class _Parsed:
    """What a spec consists of: a preset or `<backend>:<name>`, a revision, and the pooling."""

    name: str
    revision: str | None
    pooling: str


def _parse(spec: str, role: str) -> _Parsed:
    pooling = "mean"
    if role == VISION and spec.endswith(_CLS):
        spec, pooling = spec.removesuffix(_CLS), "cls"
    base, separator, revision = spec.partition("@")
    prefix, _, name = base.partition(":")
    names = {preset.name for preset in presets()}
    backend = None if base in names else _backend(prefix)
    takes_none = backend is not None and not backend.revisions
    # That is how papers write the resolution.
    takes_none |= f"{base}-{revision.removesuffix('px')}" in names
    # A file or directory may have the sign in its name.
    if not separator or takes_none or _is_local(spec) or _is_path(name, revision):
        return _Parsed(spec, None, pooling)
    if not revision:
        raise InputError(f"Expected a commit, tag or branch after the @ of {spec!r}, but got none.")
    return _Parsed(base, revision, pooling)


_SCHEMES = ("hf-hub:", "local-dir:")
_FILE = re.compile(r"\.(pt|pth|bin|safetensors|ckpt|npz|npy|tar)(#.*)?")


def _is_path(name: str, rest: str) -> bool:
    """Whether what is before and after an @ can be nothing but a path, to a missing file or not."""
    return name.startswith((".", "~", "/", _SCHEMES[1])) or bool(_FILE.search(rest))


def _is_local(spec: str) -> bool:
    """Whether a spec names a file or directory that is here."""
    prefix, _, name = spec.partition(":")
    if name.startswith(_SCHEMES[0]):
        return False
    # Here a file follows the name of an architecture.
    path = name.partition("/")[2].partition("#")[0] if prefix == "openclip" else ""
    paths = [Path(text).expanduser() for text in (name.removeprefix(_SCHEMES[1]), path) if text]
    return any(path.exists() for path in paths)


def at_revision(spec: str, revision: str) -> str:
    """Name a revision of a VLM that is given by itself.

    Raises
    ------
    InputError
        If the name has another one, or the model has none.
    ModelUnavailableError
        As `check_name`.

    Examples
    --------
    >>> at_revision("clip-vit-b16", "main")
    'clip-vit-b16@main'
    """
    backend, _, _ = _resolved(spec, LoadOptions(VLM, revision=revision))
    return f"{spec.removesuffix(f'@{revision}')}@{revision}" if backend.revisions else spec


def at_commit(spec: str, source: str, revision: str) -> str:
    """Name the very commit of a model that was saved with its name, source and revision.

    A directory that is not here is replaced by the repository that it was fetched from.

    Examples
    --------
    >>> at_commit("dinov2-base#cls", "facebook/dinov2-base", 40 * "a")[-12:]
    'aaaaaaaa#cls'
    >>> at_commit("hf:./clip", "openai/clip", 40 * "a")[:18]
    'hf:openai/clip@aaa'
    >>> at_commit("same", "openai/clip", 40 * "a")
    'same'
    >>> at_commit("offline", "...", "0.1.0"), at_commit("hf:./clip", "./clip", "")
    ('offline', 'hf:./clip')
    """
    if not re.fullmatch("[0-9a-f]{40}", revision):
        return spec
    parsed = _parse(spec, VISION)  # a spec of a VLM has nothing besides
    end = _CLS if parsed.pooling == "cls" else ""
    by_name = {preset.name: preset.spec for preset in presets()}
    prefix, _, name = by_name.get(parsed.name, parsed.name).partition(":")
    backend = _backend(prefix)
    if backend is None or not backend.revisions or _is_local(parsed.name):
        return spec
    is_directory = name.startswith((".", "~", "/", _SCHEMES[1])) or prefix == "hf"
    if is_directory and parsed.name not in by_name:
        return f"{prefix}:{source}@{revision}{end}"
    return f"{parsed.name}@{revision}{end}"


def _check_options(named: str, options: LoadOptions, backend: Backend | None = None) -> None:
    if options.pooling == "cls" and not (backend and backend.class_token):
        raise InputError(f"{_CLS} is for models that transformers runs, but {named!r} is not.")
    if options.revision is not None and not (backend and backend.revisions):
        raise InputError(
            f"A revision was given, {options.revision!r}, but the model {named!r} has none."
        )


def _resolve(spec: str, role: str) -> tuple[Backend, str]:
    """Return the backend of a preset or spec and what it shall load; refuse other roles' specs."""
    by_name = {preset.name: preset for preset in presets() if preset.role in (role, "both")}
    source = by_name[spec].spec if spec in by_name else spec
    prefix, separator, name = source.partition(":")
    backend = _backend(prefix)
    if backend and role in backend.roles:
        complete = bool(name) if backend.form else not separator
        if complete or spec in by_name:
            return backend, name
    offered = {offer.name: offer.pattern for offer in backends() if role in offer.roles}
    exact = any(preset.name == spec for preset in presets())
    near = _near_names(spec, role) or did_you_mean(prefix, (by_name | offered).keys() - {prefix})
    every = f"Presets: {', '.join(by_name)}."
    hint = every if exact else near.replace("did", "Did", 1) or every
    if exact:
        other = VISION if role == VLM else VLM
        hint = f"It is a {_DESCRIBED[other]}: --{other} {spec}. {hint}"
    elif backend and role not in backend.roles:
        other = VISION if role == VLM else VLM
        hint = f"`{prefix}` has no {_DESCRIBED[role]}s, only {_DESCRIBED[other]}s. {hint}"
    elif backend and backend.form and spec.rstrip(":") == prefix:
        hint = f"Write {backend.pattern}. {hint}"
    patterns = ", ".join(pattern for pattern in offered.values() if pattern not in by_name)
    text = f"There is no {_DESCRIBED[role]} named {spec!r}. {hint} Besides presets: {patterns}."
    if separator and not backend and not hub_repository(spec):
        text += (
            f" A backend `{prefix}` of your own is registered by the file, --plugin FILE.py, or "
            "the installed package that brings it."
        )
        text += describe_failures()
    raise InputError(text)


# What people call models that have another name here, without signs between the letters, and the
# names that are meant: presets, or the beginnings of several, or how to name what is no preset.
_ALIASES = {
    "bioclip": "bioclip-2",
    "bioclip25": "openclip:hf-hub:imageomics/bioclip-2.5-vith14",
    "clip": "clip-vit",
    "clipb16": "clip-vit-b16",
    "clipb32": "clip-vit-b32",
    "clipl14": "clip-vit-l14",
    "clipvitbigg14": "openclip:ViT-bigG-14/laion2b_s39b_b160k",
    "clipvith14": "openclip:ViT-H-14/laion2b_s32b_b79k",
    "cnclip": "chinese-clip",
    "cradio": "c-radio",
    "cradiov4": "c-radio-v4",
    "cradiov4h": "timm:vit_huge_patch16_radio_v4.c_radio",
    "datacomp": "openclip:ViT-B-32/datacomp_xl_s13b_b90k",
    "dfn2b": "openclip:ViT-B-16/dfn2b",
    "dfnclip": "openclip:ViT-B-16/dfn2b",
    "dinov2giant": "hf:facebook/dinov2-giant",
    "dinov2reg": "dinov2-base-registers",
    "dinov2vitb14": "dinov2-base",
    "dinov2vitb14reg": "dinov2-base-registers",
    "dinov2vitg14": "hf:facebook/dinov2-giant",
    "dinov2vitl14": "dinov2-large",
    "dinov2vitl14reg": "dinov2-large-registers",
    "dinov2vits14": "dinov2-small",
    "dinov3vit7b16": "hf:facebook/dinov3-vit7b16-pretrain-lvd1689m#cls",
    "evaclip": "eva02-clip",
    "eva02": "eva02-clip",
    "fashionclip": "hf:patrickjohncyh/fashion-clip",
    "laion2b": "openclip:ViT-B-32/laion2b_s34b_b79k",
    "laion400m": "openclip:ViT-B-32/laion400m_e32",
    "laionclip": "openclip:ViT-B-32/laion2b_s34b_b79k",
    "marqofashionsiglip": "fashion-siglip",
    "metaclip": "metaclip2",
    "mobileclip": "mobileclip2",
    "naflex": "siglip2-b16-naflex",
    "openaiclip": "clip-vit",
    "openclip": "openclip:ViT-B-32/laion2b_s34b_b79k",
    "pe": "pe-core",
    "pecore": "pe-core",
    "perceptionencoder": "pe-core",
    "pubmedclip": "biomedclip",
    "radio": "c-radio",
    "rn101": "clip-rn101",
    "rn50": "clip-rn50",
    "remoteclip": "openclip:ViT-B-32/RemoteCLIP-ViT-B-32.pt#like=laion2b_s34b_b79k",
    "siglipso400m": "hf:google/siglip-so400m-patch14-384",
    "so400m": "siglip2-so400m",
    "tips": "tipsv2",
    "vitb16": "clip-vit-b16",
    "vitb32": "clip-vit-b32",
    "vitl14": "clip-vit-l14",
    "vitl14336": "clip-vit-l14-336",
}
_REFUSED = {
    "blip": "BLIP's image processor is not followed here.",
    "jinaclip": "jina-clip runs code from its repository, which trustvlm does not do.",
    "nomicembedvision": "nomic-embed-vision runs code from its repository, which trustvlm does not "
    "do.",
}
# What libraries call themselves, and their architectures.
_PREFIXES = {"huggingface": "hf", "transformers": "hf", "openclip": "openclip", "timm": "timm"}
_OF_OPENCLIP = re.compile(
    r"(ViT|RN\d+(x\d+)?|EVA0\d|PE-Core|MobileCLIP2?|ViTamin|nllb-clip|coca_ViT)(-[\w.-]+)?"
    r"(/[\w.-]+)?",
    re.IGNORECASE,
)
_OF_TIMM = re.compile(
    r"(timm/)?((?:vit|beit|deit|eva|swin|convnext|resnet|resnext|efficientnet|mobilenet|regnet|"
    r"densenet|hiera|samvit|maxvit|xcit|vgg)[a-z0-9_]*(?:\.[a-z0-9_]+)?)"
)
_MOST_NAMES = 6


def _near_names(spec: str, role: str) -> str:
    """Write a question that names the models that `spec` may stand for; "" if none is known."""
    spec = spec.strip()
    typed, last = _letters(spec), _letters(spec.rstrip("/").split("/")[-1])
    for name, why in _REFUSED.items():
        # With the owner of its repository, or without.
        if typed.startswith(name) or last.startswith(name):
            return why
    ordered = sorted(presets(), key=lambda preset: preset.role not in (role, "both"))
    # A repository of the hub without the prefix, or its address: its preset, or its name.
    repository = hub_repository(spec) or spec.removeprefix("hf-hub:").rstrip("/")
    meant_repository = repository.lower()
    repositories = {preset: _repository(preset.spec) or "" for preset in ordered}
    named = [p for p in ordered if repositories[p] and repositories[p].lower() == meant_repository]
    others: list[str] = []
    if not named and spec and Path(spec).expanduser().exists():
        others = [_of_path(spec)]
    elif not named and ":" not in spec and not hub_repository(spec):
        named, others = _named_alike(spec, typed, ordered)
    if not named and not others and repository.count("/") == 1 and ":" not in repository:
        named = [preset for preset in ordered if _letters(preset.name) == last]
        alias = _ALIASES.get(last, "")
        kind = [f"timm:hf-hub:{repository}"] if role == VISION else []
        hubs = [f"hf:{repository}", f"openclip:hf-hub:{repository}", *kind]
        others = [alias] if ":" in alias else hubs
    prefix, _, name = spec.partition(":")
    if not named and not others and name and _letters(prefix) in _PREFIXES:
        others = [f"{_PREFIXES[_letters(prefix)]}:{name}"]
    if not named and not others and typed == NO_VLM and role == VLM:
        others = [NO_VLM]
    fitting = [preset for preset in named if preset.role in (role, "both")] or named
    names = [
        preset.name if preset.role in (role, "both") else f"--{preset.role} {preset.name}"
        for preset in fitting[:_MOST_NAMES]
    ]
    names += [
        f"--{VISION} {other}"
        if role == VLM and other.startswith(("timm:", "onnx:", "hf:facebook/dino"))
        else other
        for other in others
    ]
    return f"Did you mean {join_names(names, 'or')}?" if names else ""


def _named_alike(spec: str, typed: str, ordered: list[Preset]) -> tuple[list[Preset], list[str]]:
    """Return the presets that a name without a prefix stands for, or what it is with one."""
    alias = _ALIASES.get(typed, typed)
    if ":" in alias:
        return [], [alias]
    meant = _letters(alias)
    if len(meant) >= len("dino"):
        ways: tuple[Callable[[Preset], str], ...] = (
            lambda preset: preset.name,
            lambda preset: preset.spec.split("/")[-1],
            lambda preset: preset.spec.removeprefix("openclip:").split("/")[0],
        )
        for called in ways:
            named = [preset for preset in ordered if _letters(called(preset)).startswith(meant)]
            if named:
                return named, []
    if of_openclip := _OF_OPENCLIP.fullmatch(spec):
        return [], [f"openclip:{spec}" if of_openclip[4] else f"openclip:{spec}/<weights>"]
    if of_timm := _OF_TIMM.fullmatch(spec):
        return [], [f"timm:{of_timm[2]}"]
    return [], []


def _of_path(name: str) -> str:
    """Write the spec of a file or directory that is here."""
    path = Path(name).expanduser()
    if path.is_dir():
        of_openclip = (path / OF_OPENCLIP).is_file()
        return f"openclip:{_SCHEMES[1]}{name}" if of_openclip else f"hf:{name}"
    return f"onnx:{name}" if path.suffix == ".onnx" else f"openclip:<arch>/{name}"


def _repository(spec: str) -> str | None:
    """Return the repository of the hub that a preset names as such; None for the others."""
    for prefix in ("hf:", "openclip:hf-hub:"):
        if spec.startswith(prefix):
            return spec.removeprefix(prefix).partition("#")[0]
    return None


def _letters(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


def plugin_of(spec: str) -> dict[str, str]:
    """Say which file or module from outside the package runs a model; {} for the package's own.

    Returns
    -------
    dict
        Its `name` and `sha256`, as `trustvlm.plugins.origin` gives them.

    Examples
    --------
    >>> plugin_of("offline"), plugin_of("dinov2-base")
    ({}, {})
    """
    backend = _BACKENDS.get(spec.partition(":")[0])
    return origin(backend.load) if backend else {}


def check_plugin(spec: str, plugin: Mapping[str, str]) -> None:
    """Check that the backend of a saved model is here, in the version that `plugin` names.

    Raises
    ------
    InputError
        If no backend of that name is registered.

    Warns
    -----
    TrustVLMWarning
        If it comes from another file, or another version of it.
    """
    prefix = spec.partition(":")[0]
    if _backend(prefix) is None:
        raise InputError(
            f"The model {spec!r} needs the encoder backend `{prefix}`, which {plugin['name']} "
            f"registers: {how_to_load(plugin)}.{describe_failures()}"
        )
    if differs(plugin, plugin_of(spec)):
        warnings.warn(
            f"The encoder backend `{prefix}` is not the version of "
            f"{plugin.get('package', plugin['name'])} with which the model {spec!r} was saved.",
            TrustVLMWarning,
            stacklevel=2,
        )
