"""Images and texts to embeddings, computed once and found again by content."""

from __future__ import annotations

from trustvlm.embeddings.chunks import Chunk
from trustvlm.embeddings.encoding import Progress, encode_all, encode_images
from trustvlm.embeddings.forgetful import ForgetfulStore
from trustvlm.embeddings.profile import Profile
from trustvlm.embeddings.statistics import EncoderStats, StoreStats
from trustvlm.embeddings.store import EmbeddingStore
from trustvlm.embeddings.texts import encode_texts

__all__ = [
    "Chunk",
    "EmbeddingStore",
    "EncoderStats",
    "ForgetfulStore",
    "Profile",
    "Progress",
    "StoreStats",
    "encode_all",
    "encode_images",
    "encode_texts",
]
