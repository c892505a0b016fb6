"""Conformal p-values: how unusual a value is among values it should be exchangeable with."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.inputs import confidence_array

__all__ = ["online_p_values", "p_values"]


def p_values(calibration: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """P-value of each value for being as low as it is: (1 + #{c <= v}) / (n + 1).

    If a value is exchangeable with the n calibration values, its p-value is at most a with
    probability at most a, for every a. The values are judged one by one.

    Parameters
    ----------
    calibration
        `(n,)` values; with none every p-value is 1.
    values
        `(k,)` values, higher is more usual.

    Returns
    -------
    ndarray
        `(k,)` float64 in [1 / (n + 1), 1].

    Notes
    -----
    Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World".

    Examples
    --------
    >>> p_values([0.5, 0.6, 0.7], [0.4, 0.6])
    array([0.25, 0.75])
    """
    known = np.sort(confidence_array(calibration, "calibration").astype(np.float64))
    value = confidence_array(values, "values").astype(np.float64)
    at_most = np.searchsorted(known, value, side="right")
    return np.asarray((1.0 + at_most) / (len(known) + 1.0))


def online_p_values(
    seen: Sequence[float], values: ArrayLike, rng: np.random.Generator
) -> tuple[NDArray[np.float64], list[float]]:
    """Smoothed p-value of each value among all before it, which it then joins.

    p = (#{lower} + u (#{equal} + 1)) / (n + 1) with u uniform. If all values, seen and new, are
    exchangeable, these p-values are independent and uniform on [0, 1], exactly.

    Parameters
    ----------
    seen
        Values so far, ascending.
    values
        `(k,)` new values, in the order of arrival.
    rng
        Draws one u for each new value.

    Returns
    -------
    p_values
        `(k,)` float64; low where a value is lower than those before it.
    seen
        All n + k values, ascending.

    Notes
    -----
    Vovk, Nouretdinov & Gammerman 2003, "Testing exchangeability on-line", theorem 1.

    Examples
    --------
    >>> found, seen = online_p_values([1.0, 2.0], [0.5, 3.0], np.random.default_rng(0))
    >>> found.round(2), seen
    (array([0.21, 0.82]), [0.5, 1.0, 2.0, 3.0])
    """
    value = confidence_array(values, "values").astype(np.float64).tolist()
    ordered = list(seen)
    found = []
    for v, u in zip(value, rng.random(len(value)).tolist(), strict=True):
        lower, at_most = bisect_left(ordered, v), bisect_right(ordered, v)
        found.append((lower + u * (at_most - lower + 1)) / (len(ordered) + 1))
        ordered.insert(at_most, v)
    return np.array(found, dtype=np.float64), ordered
