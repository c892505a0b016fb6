"""What every metric takes: a confidence and a correctness for each sample, checked once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError


def confidence_array(value: ArrayLike, name: str = "confidence") -> NDArray[Any]:
    """Return `(n,)` finite real numbers in the type they came in.

    The type is kept because widening or narrowing could make distinct scores equal: int64 beyond
    2^53 does not fit float64.

    Raises
    ------
    InputError
        For another shape or type, NaN, infinity or masked values.

    Examples
    --------
    >>> confidence_array([0.9, 0.1])
    array([0.9, 0.1])
    """
    score = _array(value, name)
    if score.size == 0:
        # An empty list has no type of its own.
        score = score.astype(np.float64)
    if score.ndim != 1 or score.dtype.kind not in "fiub":
        raise InputError(
            f"Expected `{name}` to be a one-dimensional array of real numbers, "
            f"but got shape {score.shape} and dtype {score.dtype}."
        )
    if score.dtype.kind == "f":
        finite = np.isfinite(score)
        if not finite.all():
            _reject(score, ~finite, name, "finite", "NaN or infinite")
    return score


def correctness_array(
    value: ArrayLike, n: int, name: str = "correct", like: str = "confidence"
) -> NDArray[np.bool_]:
    """Return `(n,)` booleans from booleans or numbers 0 and 1.

    Raises
    ------
    InputError
        For another shape or type, or any value besides 0 and 1.

    Examples
    --------
    >>> correctness_array([1, 0.0, True], 3)
    array([ True, False,  True])
    """
    right = _array(value, name)
    if right.shape != (n,):
        raise InputError(
            f"Expected `{name}` to have shape ({n},) like `{like}`, but got {right.shape}."
        )
    if right.size and right.dtype.kind not in "biufO":
        raise InputError(
            f"Expected `{name}` to hold booleans or 0 and 1, but got dtype {right.dtype}."
        )
    if right.dtype.kind == "O":
        # Nullable columns of data frames arrive as objects.
        binary = np.fromiter((_is_binary(v) for v in right), dtype=bool, count=n)
    else:
        binary = (right == 0) | (right == 1)
    if not binary.all():
        _reject(right, ~binary, name, "booleans or 0 and 1", "something else")
    return right.astype(bool)


def weight_array(
    value: ArrayLike, n: int, name: str = "sample_weight", like: str = "confidence"
) -> NDArray[np.float64]:
    """Return `(n,)` finite float64 weights of at least 0.

    Raises
    ------
    InputError
        For another shape or type, NaN, infinity or negative values.

    Examples
    --------
    >>> weight_array([2, 0.5], 2)
    array([2. , 0.5])
    """
    weight = confidence_array(value, name).astype(np.float64)
    if weight.shape != (n,):
        raise InputError(
            f"Expected `{name}` to have shape ({n},) like `{like}`, but got {weight.shape}."
        )
    if (weight < 0).any():
        _reject(weight, weight < 0, name, "at least 0", "negative")
    return weight


def _array(value: ArrayLike, name: str) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(value)
        if masked.any():
            _reject(np.asarray(value), masked, name, "known for every sample", "masked")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Expected `{name}` to be a one-dimensional array, but got something "
            f"that is none: {error}"
        ) from error


def _is_binary(value: object) -> bool:
    return isinstance(value, bool | int | float | np.generic) and bool(value in (0, 1))


def _reject(
    values: NDArray[Any], bad: NDArray[np.bool_], name: str, wanted: str, instead: str
) -> None:
    where = np.flatnonzero(bad)
    raise InputError(
        f"Expected `{name}` to be {wanted}, but {where.size} of {values.size} values are "
        f"{instead}, the first at index {where[0]} ({values.flat[where[0]]})."
    )
