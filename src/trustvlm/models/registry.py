"""From a name to an encoder: a preset's, or one that a registered backend runs."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
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
from trustvlm.models.hub import IN_DIRECTORY, IN_HUB, ModelFiles, hub_repository
from trustvlm.models.names import (
    CLS,
    VISION,
    VLM,
    near_names,
    presets,
    why_refused,
)
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
            raise InputError(
                f"An encoder backend or preset named `{name}` is already registered: choose "
                "another."
            )
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

_DESCRIBED = {VLM: "VLM", VISION: "vision encoder"}


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
    options = LoadOptions(VLM, device, precision, revision)
    if _needs_no_model(spec, options):
        return NoVLM()
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
    if _needs_no_model(spec, options):
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
    options = LoadOptions(role)
    if not _needs_no_model(spec, options):
        _resolved(spec, options)


def fetch_files(spec: str, *, revision: str | None = None) -> tuple[ModelFiles, list[Path]]:
    """Have the files of a hub model downloaded; return where they are, and those that are needed.

    Raises
    ------
    InputError
        If no model has that name, or it has no files in a hub.
    ModelUnavailableError, MissingExtraError
        If they cannot be had.
    """
    spec = spec.removesuffix(CLS)
    base = spec.partition("@")[0]
    by_name = {preset.name: preset for preset in presets()}
    if base == NO_VLM or (base in by_name and by_name[base].spec == base):
        raise InputError(f"The model {base!r} has no files in a hub: there is nothing to fetch.")
    backend = None if base in by_name else _backend(base.partition(":")[0])
    roles = (by_name[base].role,) if base in by_name else backend.roles if backend else (VLM,)
    # What is no name at all may stand for vision encoders alone, which the error then suggests.
    near = [] if backend else near_names(base, VLM)
    only_vision = any(name.startswith(f"--{VISION} ") for name in near)
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


def _needs_no_model(spec: str, options: LoadOptions) -> bool:
    """Whether a name is `none` as that of a VLM, or `same` as that of a vision encoder.

    Raises
    ------
    InputError
        If a revision or the class token of it is asked for.
    """
    name = NO_VLM if options.role == VLM else "same"
    if not spec.startswith(name):
        return False
    parsed = _parse(spec, options.role)
    if parsed.name != name:
        return False
    revision = options.revision if parsed.revision is None else parsed.revision
    _check_options(name, replace(options, revision=revision, pooling=parsed.pooling))
    return True


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
    if name.endswith(CLS):  # A preset's, whose own pooling that is.
        name, options = name.removesuffix(CLS), replace(options, pooling="cls")
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
    if role == VISION and spec.endswith(CLS):
        spec, pooling = spec.removesuffix(CLS), "cls"
    base, separator, revision = spec.partition("@")
    prefix, _, name = base.partition(":")
    names = {preset.name for preset in presets()}
    backend = None if base in names else _backend(prefix)
    takes_none = backend is not None and not backend.revisions
    # That is how papers write the resolution.
    takes_none |= backend is None and bool(re.fullmatch(r"\d+px", revision))
    takes_none |= f"{base}-{revision}" in names
    # A file or directory may have the sign in its name.
    if not separator or takes_none or _is_local(spec) or _is_path(name, revision):
        return _Parsed(spec, None, pooling)
    if not revision:
        raise InputError(f"Expected a commit, tag or branch after the @ of {spec!r}, but got none.")
    if role == VISION and base.endswith(CLS):
        whole = f"{base.removesuffix(CLS)}@{revision}{CLS}"
        raise InputError(f"Expected {CLS} after the revision, {whole!r}, but got {spec!r}.")
    return _Parsed(base, revision, pooling)


_FILE = re.compile(r"\.(pt|pth|bin|safetensors|ckpt|npz|npy|tar)(#.*)?")


def _is_path(name: str, rest: str) -> bool:
    """Whether what is before and after an @ can be nothing but a path, to a missing file or not."""
    return name.startswith((".", "~", "/", IN_DIRECTORY)) or bool(_FILE.search(rest))


def _is_local(spec: str) -> bool:
    """Whether a spec names a file or directory that is here."""
    prefix, _, name = spec.partition(":")
    if name.startswith(IN_HUB):
        return False
    # Here a file follows the name of an architecture.
    path = name.partition("/")[2].partition("#")[0] if prefix == "openclip" else ""
    paths = [Path(text).expanduser() for text in (name.removeprefix(IN_DIRECTORY), path) if text]
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
    end = CLS if parsed.pooling == "cls" else ""
    by_name = {preset.name: preset.spec for preset in presets()}
    prefix, _, name = by_name.get(parsed.name, parsed.name).partition(":")
    backend = _backend(prefix)
    if backend is None or not backend.revisions or _is_local(parsed.name):
        return spec
    is_directory = name.startswith((".", "~", "/", IN_DIRECTORY)) or prefix == "hf"
    if is_directory and parsed.name not in by_name:
        return f"{prefix}:{source}@{revision}{end}"
    return f"{parsed.name}@{revision}{end}"


def _check_options(named: str, options: LoadOptions, backend: Backend | None = None) -> None:
    if options.pooling == "cls" and not (backend and backend.class_token):
        raise InputError(f"{CLS} is for models that transformers runs, but {named!r} is not.")
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
    named = next((p for p in presets() if p.name == spec.removesuffix(CLS)), None)
    exact = named if named is not None and named.role not in (role, "both") else None
    names = join_names(near_names(spec, role), "or")
    question = f"Did you mean {names}?" if names else ""
    others = (by_name | offered).keys() - {prefix}
    near = why_refused(spec) or question or did_you_mean(prefix, others)
    every = f"Presets: {', '.join(by_name)}."
    hint = every if exact else near.replace("did", "Did", 1) or every
    if exact:
        other = VISION if role == VLM else VLM
        alone = f" As a vision encoder it is named {exact.spec}." if role == VISION else ""
        hint = f"It is a {_DESCRIBED[other]}: --{other} {spec}.{alone} {hint}"
    elif backend and role not in backend.roles:
        other = VISION if role == VLM else VLM
        option = f": --{other} {spec}" if name else ""
        hint = f"`{prefix}` has no {_DESCRIBED[role]}s, only {_DESCRIBED[other]}s{option}. {every}"
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
