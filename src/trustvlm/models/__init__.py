"""Encoders and their preprocessing, whatever library runs them; heavy imports happen on load."""

from trustvlm.models.base import ImageEncoder, ModelIdentity, Preprocessing, VisionLanguageModel
from trustvlm.models.fetch import fetch_model
from trustvlm.models.names import Preset, presets
from trustvlm.models.prompts import class_embeddings, fill, read_prompts
from trustvlm.models.registry import (
    Backend,
    LoadOptions,
    backends,
    check_name,
    load_vision,
    load_vlm,
    register_backend,
    unregister_backend,
)

__all__ = [
    "Backend",
    "ImageEncoder",
    "LoadOptions",
    "ModelIdentity",
    "Preprocessing",
    "Preset",
    "VisionLanguageModel",
    "backends",
    "check_name",
    "class_embeddings",
    "fetch_model",
    "fill",
    "load_vision",
    "load_vlm",
    "presets",
    "read_prompts",
    "register_backend",
    "unregister_backend",
]
