"""Weights of several kinds of class evidence, fitted by the likelihood of held-out shots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from trustvlm.scores.zero_shot import log_softmax

__all__ = ["evidence_scale", "fit_weights", "log_odds"]

Array = NDArray[np.float64]


def fit_weights(
    tables: Array, labels: NDArray[np.int64], centre: Array, spread: Array
) -> NDArray[np.float64]:
    """Fit softmax(sum_k w_k tables_k) to labels, w >= 0, with a normal prior on w.

    A conditional logit: convex, K numbers however many classes there are.

    Parameters
    ----------
    tables
        `(K, m, C)` evidence for m shots, each held out.
    labels
        `(m,)` columns of the true classes.
    centre, spread
        `(K,)` mean and standard deviation of the prior. Without shots the weights are `centre`.

    Returns
    -------
    ndarray
        `(K,)` weights, 0 or greater.

    Notes
    -----
    Stacking: Wolpert 1992, "Stacked generalization"; McFadden 1974 for the model.

    Examples
    --------
    >>> tables = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    >>> fit_weights(tables, np.array([0, 1, 1]), np.array([1.0]), np.array([100.0])).round(2)
    array([0.69])
    """
    m = len(labels)
    if not m:
        return centre.copy()
    own = tables[:, np.arange(m), labels]

    def loss(weights: Array) -> tuple[float, Array]:
        log_p = log_softmax(np.tensordot(weights, tables, axes=1))
        expected = np.einsum("mc,kmc->km", np.exp(log_p), tables)
        away = (weights - centre) / spread
        value = -log_p[np.arange(m), labels].sum() + 0.5 * (away**2).sum()
        slope = (expected - own).sum(axis=1) + away / spread
        return float(value) / m, slope / m

    bounds = [(0.0, None)] * len(tables)
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x, dtype=np.float64)


def evidence_scale(table: Array, labels: NDArray[np.int64]) -> float:
    """Return the spread within rows of the wrong classes' entries; 1 if there is none.

    Examples
    --------
    >>> evidence_scale(np.array([[9.0, 1.0, 3.0]]), np.array([0]))
    1.0
    """
    if table.shape[1] < 3:
        spread = float(table.std()) if table.size else 0.0
        return spread if spread > 0 else 1.0
    wrong = np.ones(table.shape, dtype=bool)
    wrong[np.arange(len(labels)), labels] = False
    entries = table[wrong].reshape(len(labels), -1)
    spread = float((entries - entries.mean(axis=1, keepdims=True)).std()) if len(labels) else 0.0
    return spread if spread > 0 else 1.0


def log_odds(logits: Array, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
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
