"""Encoders and their preprocessing, whatever library runs them; heavy imports happen on load."""

from __future__ import annotations

from trustvlm.models.base import ImageEncoder, ModelIdentity, VisionLanguageModel
from trustvlm.models.preprocessing import Preprocessing
from trustvlm.models.presets import Preset, presets
from trustvlm.models.prompts import class_embeddings, fill, read_prompts
from trustvlm.models.registry import load_vision, load_vlm

__all__ = [
    "ImageEncoder",
    "ModelIdentity",
    "Preprocessing",
    "Preset",
    "VisionLanguageModel",
    "class_embeddings",
    "fill",
    "load_vision",
    "load_vlm",
    "presets",
    "read_prompts",
]
