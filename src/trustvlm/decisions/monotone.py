"""Isotonic regression: the best non-decreasing function of the confidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

__all__ = ["State", "fit_isotonic", "fit_smoothed", "grouped", "predict_isotonic"]

State = dict[str, NDArray[np.float64]]


def grouped(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distinct confidences `(m,)`, ascending, with how many images and how many right ones.

    Examples
    --------
    >>> grouped(np.array([0.5, 0.1, 0.5]), np.array([True, False, False]))
    (array([0.1, 0.5]), array([1., 2.]), array([0., 1.]))
    """
    values, where = np.unique(confidence, return_inverse=True)
    images = np.bincount(where, minlength=len(values)).astype(np.float64)
    right = np.bincount(where, weights=correct, minlength=len(values)).astype(np.float64)
    return values, images, right


def fit_isotonic(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit by pooling adjacent violators (Zadrozny & Elkan 2002)."""
    values, images, right = grouped(confidence, correct)
    return _thinned(values, isotonic_regression(right / images, weights=images).x)


def fit_smoothed(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit by pooling adjacent violators, each pool's share right drawn in from 0 and 1.

    A pool with k of n right gets (k + 1/2) / (n + 1), the mean after Jeffreys' prior: a few images
    that are all right do not prove that such images always are. Pools that then violate the order
    are pooled again.
    """
    values, images, right = grouped(confidence, correct)
    blocks = isotonic_regression(right / images, weights=images).blocks
    n, k = np.add.reduceat(images, blocks[:-1]), np.add.reduceat(right, blocks[:-1])
    smoothed = isotonic_regression((k + 0.5) / (n + 1), weights=n).x
    return _thinned(values, np.repeat(smoothed, np.diff(blocks)))


def predict_isotonic(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate between the fitted confidences; beyond them the outermost value holds."""
    return np.interp(confidence, state["confidence"], state["probability"])


def _thinned(values: NDArray[np.float64], fitted: NDArray[np.float64]) -> State:
    # Inside a run of equal values nothing is lost without its middle.
    kept = np.ones(len(values), dtype=bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return {"confidence": values[kept], "probability": np.clip(fitted[kept], 0.0, 1.0)}
