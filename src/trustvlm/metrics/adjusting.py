"""P-values of several tests, so that looking often finds no more by chance than looking once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError

__all__ = ["holm"]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values of one family so that the chance of any false alarm stays below the level.

    Parameters
    ----------
    p_values
        `(m,)` in [0, 1]; NaN where there was no test, which counts for nothing.

    Returns
    -------
    NDArray
        `(m,)` float64, at least as large; NaN stays.

    Raises
    ------
    InputError
        For values outside [0, 1].

    Notes
    -----
    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure". It needs no independence.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise InputError(f"Expected `p_values` in [0, 1], but got {p[tested]}.")
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
