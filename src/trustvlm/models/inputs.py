"""Check what callers hand to an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError

__all__ = ["check_pixels", "check_texts"]


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Refuse what is not `(n, height, width, 3)` uint8.

    Raises
    ------
    InputError
        For another type or shape.

    Examples
    --------
    >>> check_pixels(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    """
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 4
        or pixels.shape[3] != 3
    ):
        shape = getattr(pixels, "shape", None)
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise InputError(
            "Expected `pixels` to be uint8 of shape (n, height, width, 3), "
            f"but got {kind} of shape {shape}."
        )


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list; refuse one string in place of several.

    Raises
    ------
    InputError
        If `texts` is one string, or holds something else than strings.

    Examples
    --------
    >>> check_texts(("a cat", "a dog"))
    ['a cat', 'a dog']
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"Expected `texts` to be a sequence of strings, but got {texts!r}.")
    return list(texts)
