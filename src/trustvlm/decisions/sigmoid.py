"""Platt scaling and beta calibration: logistic curves of few parameters, never decreasing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from trustvlm.decisions.monotone import State

__all__ = ["fit_beta", "fit_platt", "predict_beta", "predict_platt"]

_SMALLEST = 1e-12


def fit_platt(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit sigmoid(a s + b), a >= 0, to targets drawn in from 0 and 1 (Platt 1999).

    The confidence s is standardised first, which changes nothing but the rounding.
    """
    location, scale = float(confidence.mean()), float(confidence.std())
    if confidence.min() == confidence.max() or scale == 0:
        # A single confidence tells nothing of a slope.
        weights = np.append(0.0, _logistic(np.ones((len(correct), 1)), correct, increasing=0))
        scale = 1.0
    else:
        standard = (confidence - location) / scale
        columns = np.stack([standard, np.ones_like(standard)], axis=1)
        weights = _logistic(columns, correct, increasing=1)
    return {
        "weights": weights,
        "location": np.array([location]),
        "scale": np.array([scale]),
    }


def predict_platt(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` probabilities."""
    slope, intercept = state["weights"]
    standard = (confidence - state["location"][0]) / state["scale"][0]
    probability: NDArray[np.float64] = special.expit(slope * standard + intercept)
    return probability


def fit_beta(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit sigmoid(a ln p - b ln(1 - p) + c), a, b >= 0, on Platt's probability p.

    Notes
    -----
    Kull, Silva Filho & Flach 2017, "Beta calibration", for probabilities; a score that is none
    becomes one by Platt scaling first, of which this is then the refinement: a = b = 1, c = 0
    gives Platt's back.
    """
    platt = fit_platt(confidence, correct)
    columns = _beta_columns(predict_platt(platt, confidence))
    return {**platt, "beta": _logistic(columns, correct, increasing=2)}


def predict_beta(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` probabilities."""
    columns = _beta_columns(predict_platt(state, confidence))
    probability: NDArray[np.float64] = special.expit(columns @ state["beta"])
    return probability


def _beta_columns(p: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(p, _SMALLEST, 1 - _SMALLEST)
    return np.stack([np.log(inside), -np.log1p(-inside), np.ones_like(inside)], axis=1)


def _logistic(
    columns: NDArray[np.float64], correct: NDArray[np.bool_], increasing: int
) -> NDArray[np.float64]:
    """Logistic regression on Platt's targets, the first `increasing` weights not below 0."""
    right = int(correct.sum())
    wrong = len(correct) - right
    targets = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = columns @ weights
        value = (np.logaddexp(0.0, z) - targets * z).mean()
        return float(value), columns.T @ (special.expit(z) - targets) / len(z)

    start = np.zeros(columns.shape[1])
    start[:increasing] = 1.0
    bounds = [(0.0, None)] * increasing + [(None, None)] * (len(start) - increasing)
    found = optimize.minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    return np.asarray(found.x, dtype=np.float64)
