"""Class texts of a model, encoded once and kept in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import encode_texts
from trustvlm.models.prompts import class_embeddings

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["embed_classes"]


def embed_classes(model: TrustVLM, names: Sequence[str]) -> NDArray[np.float32]:
    """Return one unit row per class name, `(C, e)`, with the prompts of the model."""
    vlm = model.encoders.vlm
    return class_embeddings(
        vlm,
        names,
        model.prompts,
        encode=lambda texts: encode_texts(vlm, texts, model.embedding_store),
    )
