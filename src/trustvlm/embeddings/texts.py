"""Texts in, embeddings out: a text goes through the model once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings.store import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.images import content_hash
from trustvlm.models.base import VisionLanguageModel

__all__ = ["encode_texts", "text_key"]

_AT_ONCE = 256


def text_key(text: str) -> str:
    """Return the key under which a text's embedding is stored.

    Examples
    --------
    >>> text_key("a photo of a cat.")[:8]
    '91e66431'
    """
    return content_hash(f"text:{text}".encode("utf-8", "surrogatepass"))


def encode_texts(
    vlm: VisionLanguageModel, texts: Sequence[str], store: EmbeddingStore
) -> NDArray[np.float32]:
    """Encode m texts; only those that the store does not have go through the model.

    Parameters
    ----------
    vlm
        The model with the text encoder.
    texts
        In any number; repeated ones are encoded once.
    store
        Where embeddings are looked up and kept.

    Returns
    -------
    ndarray
        `(m, dim)` float32 in the order of the texts, not L2-normalised.

    Raises
    ------
    InputError
        If the model returns another shape than it promises, or NaN or infinity. What the model
        itself raises is passed on.
    """
    if isinstance(texts, str):
        raise InputError(f"Expected `texts` to be a list of texts, but got one text, {texts!r}.")
    fingerprint = vlm.identity.fingerprint(vlm.preprocessing)
    keys = {text: text_key(text) for text in texts}
    found = store.get_many(fingerprint, keys.values())
    vectors = {
        text: found[key]
        for text, key in keys.items()
        if key in found and found[key].shape == (vlm.dim,)
    }
    distinct = list(keys)
    # Parts by position, so that a run that was killed repeats the very batches that were lost.
    for start in range(0, len(distinct), _AT_ONCE):
        missing = [t for t in distinct[start : start + _AT_ONCE] if t not in vectors]
        if missing:
            fresh = dict(zip(missing, _forward(vlm, missing), strict=True))
            stored = {keys[text]: row for text, row in fresh.items()}
            store.put_many(fingerprint, stored, spec=vlm.identity.spec)
            vectors |= fresh
    rows = [vectors[text] for text in texts]
    return np.stack(rows) if rows else np.empty((0, vlm.dim), dtype=np.float32)


def _forward(vlm: VisionLanguageModel, texts: Sequence[str]) -> NDArray[np.float32]:
    computed = np.asarray(vlm.encode_texts(texts), dtype=np.float32)
    if computed.shape != (len(texts), vlm.dim):
        raise InputError(
            f"Expected the model {vlm.identity.spec!r} to return shape {(len(texts), vlm.dim)} "
            f"for its texts, but got {computed.shape}."
        )
    for text, row in zip(texts, computed, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"Expected a finite embedding of the text {text!r}, but the model "
                f"{vlm.identity.spec!r} gives NaN or infinity. Run it in float32."
            )
    return computed
