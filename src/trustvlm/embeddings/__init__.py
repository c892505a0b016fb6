"""Images and texts to embeddings, computed once and looked up by content."""

from trustvlm.embeddings.encode import Chunk, Progress, encode_all, encode_images, encode_texts
from trustvlm.embeddings.prefetch import Profile
from trustvlm.embeddings.store import EmbeddingStore, EncoderStats, NullStore, StoreStats

__all__ = [
    "Chunk",
    "EmbeddingStore",
    "EncoderStats",
    "NullStore",
    "Profile",
    "Progress",
    "StoreStats",
    "encode_all",
    "encode_images",
    "encode_texts",
]
