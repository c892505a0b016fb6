"""Venn-Abers prediction: isotonic regression with the new image as if right, and as if wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from trustvlm.decisions.monotone import State, grouped

__all__ = ["fit_venn_abers", "predict_venn_abers"]


def fit_venn_abers(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Compute the pair of probabilities (p0, p1) at every distinct confidence and between them.

    p1 is the isotonic fit at the new image, added to the calibration set as right, p0 as wrong.
    One of the two is calibrated whatever the distribution; the single probability made of them,
    p1 / (1 - p0 + p1), is the one of least regret in log loss, and is never 0 or 1.

    Notes
    -----
    Vovk & Petej 2014, "Venn-Abers predictors"; Vovk, Petej & Fedorova 2015 (arXiv 1511.00213).
    A pool of the isotonic fit that the new image does not fall into stays whole, so each of the
    2 m + 1 fits runs over pools and the members of one pool only.
    """
    values, images, right = grouped(confidence, correct)
    fit = isotonic_regression(right / images, weights=images)
    starts = fit.blocks[:-1]
    pool_images, pool_right = np.add.reduceat(images, starts), np.add.reduceat(right, starts)
    m = len(values)
    low, high = np.empty(2 * m + 1), np.empty(2 * m + 1)
    # Position 2 i is the gap before value i, position 2 i + 1 the value itself.
    for position in range(2 * m + 1):
        i, at_value = divmod(position, 2)
        pool = int(np.searchsorted(starts, min(i, m - 1), side="right")) - 1
        first = starts[pool]
        last = starts[pool + 1] if pool + 1 < len(starts) else m
        n = np.concatenate([pool_images[:pool], images[first:last], pool_images[pool + 1 :]])
        k = np.concatenate([pool_right[:pool], right[first:last], pool_right[pool + 1 :]])
        at = pool + i - first
        if at_value:
            n[at] += 1
        else:
            n, k = np.insert(n, at, 1.0), np.insert(k, at, 0.0)
        low[position] = isotonic_regression(k / n, weights=n).x[at]
        k[at] += 1
        high[position] = isotonic_regression(k / n, weights=n).x[at]
    return {"confidence": values, "low": low, "high": high}


def predict_venn_abers(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` single probabilities p1 / (1 - p0 + p1)."""
    values = state["confidence"]
    at = np.searchsorted(values, confidence, side="left")
    at_value = values[np.minimum(at, len(values) - 1)] == confidence
    position = 2 * at + np.where((at < len(values)) & at_value, 1, 0)
    low, high = state["low"][position], state["high"][position]
    merged: NDArray[np.float64] = high / (1 - low + high)
    return merged
