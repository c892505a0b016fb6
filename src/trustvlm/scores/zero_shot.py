"""From embeddings to zero-shot logits, and from logits to probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import as_nonzero_rows, cached_rows

__all__ = [
    "cosines",
    "log_softmax",
    "pick",
    "softmax",
    "top_probability",
    "unit_rows",
    "zero_shot_logits",
]


def unit_rows(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Scale each row to length one, in float64; rows of zeros stay zeros.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    wide: NDArray[np.float64] = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    result: NDArray[np.float64] = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return result


def cosines(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of every row vector `(n, d)` with every column vector `(C, d)`, as `(n, C)`.

    Examples
    --------
    >>> cosines(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]))
    array([[1., 0.]])
    """
    table: NDArray[np.float64] = unit_rows(rows) @ unit_rows(columns).T
    return table


def zero_shot_logits(
    image_embeddings: ArrayLike, text_embeddings: ArrayLike, *, logit_scale: float = 100.0
) -> NDArray[np.float64]:
    """Zero-shot logits z_c(x) = s * cos(image(x), text_c) of a CLIP-like model.

    Parameters
    ----------
    image_embeddings
        `(n, e)`, any length per row.
    text_embeddings
        `(C, e)`, one row per class.
    logit_scale
        The model's learned scale s (100 for CLIP).

    Returns
    -------
    ndarray
        `(n, C)` float64 logits.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN, infinity, or rows of zeros.

    Notes
    -----
    Radford et al. 2021, "Learning transferable visual models from natural language supervision".

    Examples
    --------
    >>> zero_shot_logits([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    array([[100.,   0.]])
    """
    images = as_nonzero_rows(image_embeddings, "image_embeddings")
    texts = as_nonzero_rows(text_embeddings, "text_embeddings")
    if images.shape[1] != texts.shape[1]:
        raise InputError(
            f"Expected `image_embeddings` and `text_embeddings` to have as many columns, "
            f"but got {images.shape[1]} and {texts.shape[1]}: they come from different models."
        )
    logits: NDArray[np.float64] = logit_scale * cosines(images, texts)
    return logits


def pick(table: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[Any]:
    """One entry per row: `table[i, columns[i]]`.

    Examples
    --------
    >>> pick(np.array([[1, 2], [3, 4]]), np.array([1, 0]))
    array([2, 3])
    """
    return np.take_along_axis(table, columns[:, None], axis=1)[:, 0]


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithm of the softmax over the last axis, in float64, safe for any finite logits.

    Examples
    --------
    >>> np.exp(log_softmax(np.array([[0.0, 0.0]])))
    array([[0.5, 0.5]])
    """
    shifted: NDArray[np.float64] = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64, safe for any finite logits.

    Examples
    --------
    >>> softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    result: NDArray[np.float64] = logits.astype(np.float64, order="C")
    table = result.reshape(-1, result.shape[-1])
    for part in cached_rows(len(table)):
        rows = table[part]
        rows -= rows.max(axis=1, keepdims=True)
        np.exp(rows, out=rows)
        rows /= rows.sum(axis=1, keepdims=True)
    return result


def top_probability(logits: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return argmax and maximum of the softmax over the columns, without the softmax itself.

    Parameters
    ----------
    logits
        `(n, C)`, finite. Exponentials are taken in their own precision.

    Returns
    -------
    prediction, probability
        `(n,)` int64, the first column where several are equal, and `(n,)` float64 in (0, 1].

    Notes
    -----
    p = 1 / (1 + sum over the other columns of exp(z_c - max z)): what the others leave is added
    up by itself, so that float32 logits do not round p to 1 where they tell images apart.

    Examples
    --------
    >>> top_probability(np.array([[0.0, 0.0], [0.0, 20.0]], dtype=np.float32))
    (array([0, 1]), array([0.5, 1. ]))
    """
    prediction = np.empty(len(logits), dtype=np.int64)
    probability = np.empty(len(logits))
    # Exponentials below the smallest normal number are slow, and nothing beside 1.
    least = np.log(np.finfo(logits.dtype).tiny)
    for part in cached_rows(len(logits)):
        rows = logits[part]
        top = rows.argmax(axis=1)
        tops, others = (np.arange(len(rows)), top), np.empty_like(rows)
        np.subtract(rows, rows[tops][:, None], out=others)
        np.maximum(others, least, out=others)
        np.exp(others, out=others)
        others[tops] = 0.0
        prediction[part] = top
        probability[part] = 1.0 / (1.0 + others.sum(axis=1).astype(np.float64))
    return prediction, probability
