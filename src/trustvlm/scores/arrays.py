"""Arrays that every score may rely on: checks, unit rows, blocks, logits, softmax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from trustvlm.exceptions import InputError

# Checks that turn what a user passes into arrays that every score may rely on.

# Rows are worked on in blocks of about this many bytes, whatever n is.
_BLOCK_BYTES = 64 * 2**20
# Several passes over so many rows stay in the processor's cache.
CACHED_ROWS = 128


def as_matrix(value: ArrayLike, name: str, *, nonzero: bool = False) -> NDArray[np.floating[Any]]:
    """Return a finite, two-dimensional floating-point array.

    float16 is widened to float32, integers to float64; float32 and float64 are not copied.
    `nonzero` refuses rows of zeros too, which have no direction.

    Raises
    ------
    InputError
        If the array is not two-dimensional and numeric, or holds NaN, infinity, or rows of zeros
        where these are refused.

    Examples
    --------
    >>> as_matrix([[1, 2]], "logits").dtype
    dtype('float64')
    """
    array = np.asarray(value)
    if array.ndim != 2:
        raise InputError(
            f"Expected `{name}` to have two dimensions (rows, columns), but got shape {array.shape}"
            + ("; pass a single row as array[None, :]." if array.ndim == 1 else ".")
        )
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype.kind in "iub":
        array = array.astype(np.float64)
    elif array.dtype.kind != "f":
        raise InputError(f"Expected `{name}` to hold real numbers, but got dtype {array.dtype}.")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise InputError(
            f"Expected `{name}` to be finite, but {bad.size} of {len(array)} rows hold NaN or "
            f"infinity, the first is row {bad[0]}. Leave such rows out before scoring."
        )
    if nonzero and not (directed := array.any(axis=1)).all():
        bad = np.flatnonzero(~directed)
        raise InputError(
            f"Expected the rows of `{name}` to have a direction, but {bad.size} of {len(array)} "
            f"are all zeros, the first is row {bad[0]}: their cosine is undefined."
        )
    return array


def rows_and_lengths(
    value: ArrayLike, name: str
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return `as_matrix(value, nonzero=True)` and the `(n,)` lengths of its rows, in its dtype.

    One pass over rows of ordinary length finds all that the checks look for.

    Raises
    ------
    InputError
        As `as_matrix`.

    Examples
    --------
    >>> rows_and_lengths([[3.0, 4.0]], "features")
    (array([[3., 4.]]), array([5.]))
    """
    array = np.asarray(value)
    if array.ndim == 2 and array.dtype in (np.float32, np.float64):
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("nd,nd->n", array, array)
        # Outside of these bounds there is something wrong, or squares have lost digits.
        if ((squares > 1e-20) & (squares < 1e30)).all():
            return array, np.sqrt(squares)
    array = as_matrix(value, name, nonzero=True)
    largest = np.abs(array).max(axis=1, keepdims=True)
    lengths = largest[:, 0] * np.linalg.norm(array / largest, axis=1)
    return array, lengths.astype(array.dtype)


def as_labels(value: ArrayLike, name: str, *, n_classes: int, n: int | None = None) -> NDArray[Any]:
    """Return one-dimensional int64 labels in 0 .. n_classes - 1.

    Raises
    ------
    InputError
        If the labels are not whole numbers, are out of range, or are not `n` in number.

    Examples
    --------
    >>> as_labels([0, 1], "labels", n_classes=2)
    array([0, 1])
    """
    array = np.asarray(value)
    if array.ndim != 1:
        raise InputError(f"Expected `{name}` to have one dimension, but got shape {array.shape}.")
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind in "US" or (array.size and isinstance(array.flat[0], str)):
        raise InputError(
            f"Expected `{name}` to hold class indices, the columns of the logits, but got texts "
            f"such as {str(array.flat[0])!r}: write [class_names.index(label) for label in "
            f"{name}], with the class names in the order of the text embeddings."
        )
    if array.dtype.kind not in "iu":
        raise InputError(f"Expected `{name}` to hold integers, but got dtype {array.dtype}.")
    if n is not None and len(array) != n:
        raise InputError(f"Expected `{name}` to have {n} entries, one a row, but got {len(array)}.")
    wrong = (array < 0) | (array >= n_classes)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"Expected `{name}` to lie in 0..{n_classes - 1}, but entry {first} is {array[first]}."
        )
    return array.astype(np.int64)


def row_blocks(n: int, columns: int) -> Iterator[slice]:
    """Cut n rows of `columns` float64 values into slices of bounded memory.

    Examples
    --------
    >>> list(row_blocks(5, 10))
    [slice(0, 5, None)]
    """
    step = max(1, _BLOCK_BYTES // (8 * max(columns, 1)))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


# From embeddings to zero-shot logits, and from logits to probabilities.


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
    images = as_matrix(image_embeddings, "image_embeddings", nonzero=True)
    texts = as_matrix(text_embeddings, "text_embeddings", nonzero=True)
    if images.shape[1] != texts.shape[1]:
        raise InputError(
            f"Expected `image_embeddings` and `text_embeddings` to have as many columns, "
            f"but got {images.shape[1]} and {texts.shape[1]}: they come from different models."
        )
    logits: NDArray[np.float64] = logit_scale * (unit_rows(images) @ unit_rows(texts).T)
    return logits


# SciPy takes longer to load than a loop over so many rows.
_FEW_ROWS = 4096


def class_sums(
    rows: NDArray[Any],
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Sum the rows `(m, d)` of each class, `(C, d)` in a precision; zeros for classes without any.

    Examples
    --------
    >>> class_sums(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 0]), 3).tolist()
    [[5.0], [0.0], [2.0]]
    """
    if len(rows) <= _FEW_ROWS:
        sums = np.zeros((n_classes, rows.shape[1]), dtype=dtype)
        for label, row in zip(labels.tolist(), rows.astype(dtype, copy=False), strict=True):
            sums[label] += row
        return sums
    # A product with the sparse indicators adds row after row, too, to the same bits.
    indicators = scipy.sparse.coo_array(
        (np.ones(len(rows), dtype=dtype), (labels, np.arange(len(rows)))),
        shape=(n_classes, len(rows)),
    )
    return np.asarray(indicators.tocsr() @ rows.astype(dtype, copy=False))


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
    for start in range(0, len(table), CACHED_ROWS):
        rows = table[start : start + CACHED_ROWS]
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
    for start in range(0, len(logits), CACHED_ROWS):
        part = slice(start, start + CACHED_ROWS)
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


def log_odds(logits: NDArray[Any], prediction: NDArray[np.int64]) -> NDArray[np.float64]:
    """Natural logarithm of the odds of the prediction under softmax(logits), `(n,)`.

    0 is even odds. Exact near certainty, where a probability would round to 1. With a single
    class nothing speaks against it: the largest finite log-odds, about 744.

    Examples
    --------
    >>> log_odds(np.array([[2.0, 0.0], [1000.0, 0.0]]), np.array([0, 0]))
    array([   2., 1000.])
    """
    n, n_classes = logits.shape
    if n_classes == 1:
        return np.full(n, -np.log(5e-324))
    own = np.take_along_axis(logits, prediction[:, None], axis=1)
    others = np.array(logits)
    np.put_along_axis(others, prediction[:, None], -np.inf, axis=1)
    top = others.max(axis=1, keepdims=True)
    rest = top + np.log(np.exp(others - top).sum(axis=1, keepdims=True))
    return np.asarray((own - rest)[:, 0])
