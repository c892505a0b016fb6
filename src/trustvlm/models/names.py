"""Models by short name, and what else people call them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from trustvlm.models.base import NO_VLM
from trustvlm.models.hub import (
    IN_DIRECTORY,
    IN_HUB,
    OF_OPENCLIP,
    hub_repository,
    is_repository,
)

VLM, VISION = "vlm", "vision"
CLS = "#cls"
"""What ends the spec of a vision encoder of which the class token is taken."""
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
# How papers write the resolution.
_PIXELS = re.compile(r"@(\d+)px")
_MOST_NAMES = 6
# A preset, or how to name a model that has none.
_Name = Preset | str


def why_refused(spec: str) -> str:
    """Say why a model does not work with any name; "" if nothing is known against it.

    Examples
    --------
    >>> why_refused("blip-itm-base")
    "BLIP's image processor is not followed here."
    """
    # With the owner of its repository, or without.
    names = (_letters(spec), _letters(spec.rstrip("/").split("/")[-1]))
    return next(
        (why for begin, why in _REFUSED.items() if any(n.startswith(begin) for n in names)), ""
    )


def near_names(spec: str, role: str) -> list[str]:
    """Name the models that a name which no model has may stand for, best first.

    Parameters
    ----------
    spec
        What was typed: a name in print, that of another library, an address of the hub, a path.
    role
        `vlm` or `vision`; models for the other one follow its option, such as `--vision NAME`. The
        image tower of a VLM verifies under the VLM's full name.

    Examples
    --------
    >>> near_names("bioclip", "vlm"), near_names("dinov2_vits14", "vlm")
    (['bioclip-2'], ['--vision dinov2-small'])
    """
    spec = spec.strip().removesuffix(CLS)
    ways = (_of_repository, _of_path, _of_name, _of_other_repository, _of_prefix, _of_none)
    names = next(filter(None, (way(spec, role) for way in ways)), [])
    presets_named = [name for name in names if isinstance(name, Preset)]
    fitting = [p for p in presets_named if p.role in (role, "both")] or presets_named
    towers = [p.spec for p in fitting if (p.role, role) == (VLM, VISION)]
    return [
        *(towers if len(towers) == 1 else ()),
        *(
            preset.name if preset.role in (role, "both") else f"--{preset.role} {preset.name}"
            for preset in fitting[:_MOST_NAMES]
        ),
    ] + [
        f"--{VISION} {name}"
        if role == VLM and name.startswith(("timm:", "onnx:", "hf:facebook/dino"))
        else name
        for name in names
        if isinstance(name, str)
    ]


def _of_repository(spec: str, role: str) -> list[_Name]:
    """Name the presets of a repository that was given without a prefix, or by its address."""
    meant = _repository_meant(spec).lower()
    return [p for p in _ordered(role) if meant and (_repository(p.spec) or "").lower() == meant]


def _of_path(spec: str, role: str) -> list[_Name]:  # noqa: ARG001
    """Name a file or directory that is here."""
    path = Path(spec).expanduser()
    if not spec or not path.exists():
        return []
    if path.is_dir():
        of_openclip = (path / OF_OPENCLIP).is_file()
        return [f"openclip:{IN_DIRECTORY}{spec}" if of_openclip else f"hf:{spec}"]
    return [f"onnx:{spec}" if path.suffix == ".onnx" else f"openclip:<arch>/{spec}"]


def _of_name(spec: str, role: str) -> list[_Name]:
    """Name what people and libraries call so, without a prefix."""
    if ":" in spec or hub_repository(spec):
        return []
    typed = _letters(spec)
    typed = typed if typed in _ALIASES else typed.removeprefix("openai") or typed
    alias = _ALIASES.get(typed, typed)
    if ":" in alias:
        return [alias]
    meant = _letters(alias)
    if len(meant) >= len("dino"):
        ways: tuple[Callable[[Preset], str], ...] = (
            lambda preset: preset.name,
            lambda preset: preset.spec.split("/")[-1],
            lambda preset: preset.spec.removeprefix("openclip:").split("/")[0],
        )
        for called in ways:
            named = [p for p in _ordered(role) if _letters(called(p)).startswith(meant)]
            # A whole name begins others: dinov2-base does dinov2-base-registers.
            if named:
                return [p for p in named if _letters(called(p)) == meant] or [*named]
    if of_openclip := _OF_OPENCLIP.fullmatch(spec):
        return [f"openclip:{spec}" if of_openclip[4] else f"openclip:{spec}/<weights>"]
    if of_timm := _OF_TIMM.fullmatch(spec):
        return [f"timm:{of_timm[2]}"]
    return []


def _of_other_repository(spec: str, role: str) -> list[_Name]:
    """Name a repository that is no preset's by what it is called, else each way to load one."""
    repository = _repository_meant(spec)
    if "/" not in repository or not is_repository(repository):
        return []
    last = _letters(spec.rstrip("/").split("/")[-1])
    named = [preset for preset in _ordered(role) if _letters(preset.name) == last]
    alias = _ALIASES.get(last, "")
    if ":" in alias:
        return [*named, alias]
    of_vision = [f"timm:{IN_HUB}{repository}"] if role == VISION else []
    return [*named, f"hf:{repository}", f"openclip:{IN_HUB}{repository}", *of_vision]


def _of_prefix(spec: str, role: str) -> list[_Name]:  # noqa: ARG001
    """Name a model that stands behind the name of a library."""
    prefix, _, name = spec.partition(":")
    backend = _PREFIXES.get(_letters(prefix))
    return [f"{backend}:{name}"] if backend and name else []


def _of_none(spec: str, role: str) -> list[_Name]:
    return [NO_VLM] if role == VLM and _letters(spec) == NO_VLM else []


def _ordered(role: str) -> list[Preset]:
    """Return the presets, those for a role first."""
    return sorted(presets(), key=lambda preset: preset.role not in (role, "both"))


def _repository_meant(spec: str) -> str:
    return hub_repository(spec) or spec.removeprefix(IN_HUB).rstrip("/")


def _repository(spec: str) -> str | None:
    """Return the repository of the hub that a preset names as such; None for the others."""
    for prefix in ("hf:", f"openclip:{IN_HUB}"):
        if spec.startswith(prefix):
            return spec.removeprefix(prefix).partition("#")[0]
    return None


def _letters(name: str) -> str:
    return "".join(sign for sign in _PIXELS.sub(r"\1", name.lower()) if sign.isalnum())
