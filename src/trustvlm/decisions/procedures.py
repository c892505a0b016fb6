"""Which of several hypotheses are rejected so that a false rejection at all is rare."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bonferroni", "fixed_sequence", "holm"]


def fixed_sequence(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Reject in the given order, each at the full level, up to the first that is not rejected.

    Examples
    --------
    >>> fixed_sequence([0.01, 0.04, 0.2, 0.01], 0.05)
    array([ True,  True, False, False])
    """
    return np.logical_and.accumulate(np.asarray(p_values, dtype=np.float64) <= level)


def bonferroni(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Reject whatever has a p-value of at most the level divided by the number of hypotheses.

    Examples
    --------
    >>> bonferroni([0.01, 0.04, 0.2, 0.01], 0.05)
    array([ True, False, False,  True])
    """
    p = np.asarray(p_values, dtype=np.float64)
    rejected: NDArray[np.bool_] = p <= level / max(1, p.size)
    return rejected


def holm(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Reject by Bonferroni, over and over on what is left (Holm 1979).

    Examples
    --------
    >>> holm([0.01, 0.02, 0.2, 0.01], 0.05)
    array([ True,  True, False,  True])
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    rejected = np.zeros(p.size, dtype=bool)
    rejected[order] = fixed_sequence(p[order] * np.arange(p.size, 0, -1), level)
    return rejected
