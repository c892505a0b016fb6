"""Checks that turn what a user passes into arrays that every score may rely on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError

__all__ = [
    "as_labels",
    "as_matrix",
    "as_nonzero_rows",
    "cached_rows",
    "row_blocks",
    "rows_and_lengths",
]

# Rows are worked on in blocks of about this many bytes, whatever n is.
_BLOCK_BYTES = 64 * 2**20
_CACHED_ROWS = 128


def as_matrix(value: ArrayLike, name: str) -> NDArray[np.floating[Any]]:
    """Return a finite, two-dimensional floating-point array.

    float16 is widened to float32, integers to float64; float32 and float64 are not copied.

    Raises
    ------
    InputError
        If the array is not two-dimensional and numeric, or holds NaN or infinity.

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
    return array


def as_nonzero_rows(value: ArrayLike, name: str) -> NDArray[np.floating[Any]]:
    """Return `as_matrix(value)`, refusing rows of zeros, which have no direction.

    Raises
    ------
    InputError
        As `as_matrix`, or if a row is all zeros.
    """
    array = as_matrix(value, name)
    zero = ~array.any(axis=1)
    if zero.any():
        bad = np.flatnonzero(zero)
        raise InputError(
            f"Expected the rows of `{name}` to have a direction, but {bad.size} of {len(array)} "
            f"are all zeros, the first is row {bad[0]}: their cosine is undefined."
        )
    return array


def rows_and_lengths(
    value: ArrayLike, name: str
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return `as_nonzero_rows(value)` and the `(n,)` Euclidean lengths of the rows, in its dtype.

    One pass over rows of ordinary length finds all that the checks look for.

    Raises
    ------
    InputError
        As `as_nonzero_rows`.

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
    array = as_nonzero_rows(value, name)
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


def cached_rows(n: int) -> Iterator[slice]:
    """Cut n rows into slices on which several passes stay in the processor's cache.

    Examples
    --------
    >>> list(cached_rows(130))
    [slice(0, 128, None), slice(128, 130, None)]
    """
    for start in range(0, n, _CACHED_ROWS):
        yield slice(start, min(start + _CACHED_ROWS, n))
