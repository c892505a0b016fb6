"""Models by short name: the table that docs and `trustvlm models` are rendered from."""

from __future__ import annotations

from dataclasses import dataclass

VLM, VISION = "vlm", "vision"
# The templates that the paper uses, by the kind of model.
PROMPTS = {"clip": "a photo of a {}.", "siglip": "This is a photo of {}."}


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
    prompt: str = ""
    logit_scale: str = ""


_CLIP = (PROMPTS["clip"], "the model's own, about 100")
_SIGLIP = (PROMPTS["siglip"], "the model's own; 100 under the paper's protocol")

PRESETS = (
    Preset("clip-vit-b16", VLM, "hf:openai/clip-vit-base-patch16", "torch", "MIT",
           "CLIP ViT-B/16, the paper's main model", *_CLIP),
    Preset("clip-vit-b32", VLM, "hf:openai/clip-vit-base-patch32", "torch", "MIT",
           "CLIP ViT-B/32", *_CLIP),
    Preset("clip-vit-l14", VLM, "hf:openai/clip-vit-large-patch14", "torch", "MIT",
           "CLIP ViT-L/14", *_CLIP),
    Preset("clip-rn50", VLM, "openclip:RN50/openai", "openclip", "MIT",
           "CLIP ResNet-50", *_CLIP),
    Preset("clip-rn101", VLM, "openclip:RN101/openai", "openclip", "MIT",
           "CLIP ResNet-101", *_CLIP),
    Preset("siglip-b16-224", VLM, "hf:google/siglip-base-patch16-224", "torch", "Apache-2.0",
           "SigLIP base, 224 px", *_SIGLIP),
    Preset("siglip2-b16-224", VLM, "hf:google/siglip2-base-patch16-224", "torch", "Apache-2.0",
           "SigLIP 2 base, 224 px", *_SIGLIP),
    Preset("dinov2-small", VISION, "hf:facebook/dinov2-small", "torch", "Apache-2.0",
           "DINOv2 small, mean of all tokens"),
    Preset("dinov2-base", VISION, "hf:facebook/dinov2-base", "torch", "Apache-2.0",
           "DINOv2 base, mean of all tokens: TrustVLM-D"),
    Preset("dinov2-large", VISION, "hf:facebook/dinov2-large", "torch", "Apache-2.0",
           "DINOv2 large, mean of all tokens"),
    Preset("moco-v2-r50", VISION, "moco-v2-r50", "timm", "CC-BY-NC-4.0",
           "MoCo v2 ResNet-50 from a checkpoint file, moco-v2-r50:<file>: TrustVLM-M"),
    Preset("same", VISION, "same", "", "as the VLM", "the VLM's own image tower: TrustVLM"),
    Preset("offline", "both", "offline", "offline", "Apache-2.0",
           "EfficientNet-Lite and MiniLM joined by ConSE: weak, real, needs no hub; not CLIP",
           PROMPTS["clip"], "20"),
)  # fmt: skip


def presets() -> tuple[Preset, ...]:
    """Every model that has a short name.

    Examples
    --------
    >>> [preset.name for preset in presets()][:2]
    ['clip-vit-b16', 'clip-vit-b32']
    """
    return PRESETS
