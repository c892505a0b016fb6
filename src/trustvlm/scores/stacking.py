"""Stacking: scorers weighed against each other by what they say about shots held out from them.

Wolpert 1992, "Stacked generalization".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from trustvlm.scores.arrays import CACHED_ROWS, log_softmax

Array = NDArray[np.float64]


def stratified_folds(
    labels: NDArray[np.int64], folds: int, most: int | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide shots into those to fit on and those to judge, fold by fold.

    Every fold leaves out as many shots of each class as of the others, since a class that alone
    lacks a shot would be at a disadvantage, which at two shots a class is grave. A class with
    fewer shots than there are folds leaves out one of its own in every fold, which is judged the
    first time; a single shot stays and is never judged.

    Parameters
    ----------
    labels
        `(m,)` class indices. The j-th shot of a class, in their order, is judged in fold j modulo
        the number of folds.
    folds
        Their number where a class has as many shots; else the most shots of a class.
    most
        How many shots to judge at most: the folds then end early, and of the last one evenly
        spaced shots are judged. Weights of a few scorers need no more, however many there are.

    Examples
    --------
    >>> for fitted, judged in stratified_folds(np.array([0, 0, 1, 1, 2]), 8):
    ...     print(fitted, judged)
    [1 3 4] [0 2]
    [0 2 4] [1 3]
    """
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - first
    counts = np.bincount(labels)[labels] if len(labels) else np.empty(0, dtype=np.int64)
    folds = min(folds, int(counts.max(initial=0)))
    left = len(labels) if most is None else most
    cycle, several = np.minimum(folds, counts), counts > 1
    result = []
    for fold in range(folds if folds > 1 else 0):
        left_out = several & (rank % cycle == fold % cycle)
        judged = np.flatnonzero(several & (rank % folds == fold))
        n = min(left, len(judged))
        if not n:
            break
        left -= n
        result.append((np.flatnonzero(~left_out), judged[np.arange(n) * len(judged) // n]))
    return result


def text_scale(logits: Array, labels: NDArray[np.int64]) -> float:
    """Return the factor that makes softmax(t z) fit the labels best, with a prior around 0.6.

    The most probable t where ln t is normal around ln 0.6 with standard deviation 1. Logits of
    zero-shot models are mostly too sharp.

    Parameters
    ----------
    logits, labels
        `(m, C)` and `(m,)` columns of the true classes.

    Examples
    --------
    >>> round(text_scale(np.empty((0, 2)), np.empty(0, dtype=np.int64)), 3)
    0.6
    """

    def loss(exponent: float) -> float:
        away = exponent - np.log(0.6)
        return float(log_loss(np.exp(exponent) * logits, labels) * len(labels) + away**2 / 2)

    fit = scipy.optimize.minimize_scalar(
        loss, bounds=(-7.0, 7.0), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(fit.x))


def log_loss(logits: Array, labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(logits) at the labels, in nats; 0 if there are none.

    Examples
    --------
    >>> round(log_loss(np.zeros((3, 2)), np.array([0, 1, 0])), 4)
    0.6931
    """
    if not len(labels):
        return 0.0
    return -float(log_softmax(logits)[np.arange(len(labels)), labels].mean())


def scaled_log_loss(table: Array, labels: NDArray[np.int64]) -> float:
    """Return the smallest log loss of any positive multiple of the table `(m, C)`.

    Examples
    --------
    >>> scaled_log_loss(np.eye(2), np.array([0, 1])) < 1e-9
    True
    """
    spread = float(table.std())
    if not spread > 0:
        return log_loss(table, labels)
    table = table / spread
    fit = scipy.optimize.minimize_scalar(
        lambda exponent: log_loss(np.exp(exponent) * table, labels),
        bounds=(-3.0, 5.0),
        method="bounded",
        options={"xatol": 0.05},
    )
    return float(fit.fun)


def fit_weights(
    tables: Sequence[Array] | Array,
    labels: NDArray[np.int64],
    centre: Array,
    spread: Array,
) -> Array:
    """Fit softmax(sum_k w_k tables_k) to labels, w >= 0, with a normal prior on w.

    A conditional logit: convex, K numbers however many classes there are.

    Parameters
    ----------
    tables
        K of them `(m, C)`: evidence for m shots, each held out.
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
    McFadden 1974, "Conditional logit analysis of qualitative choice behavior".

    Examples
    --------
    >>> tables = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    >>> fit_weights(tables, np.array([0, 1, 1]), np.array([1.0]), np.array([100.0])).round(2)
    array([0.69])
    """
    m = len(labels)
    if not m:
        return centre.copy()
    own = np.array([table[np.arange(m), labels].sum() for table in tables])

    def loss(weights: Array) -> tuple[float, Array]:
        normaliser, expected = 0.0, np.zeros(len(weights))
        # A few rows at a time, whose tables stay in the processor's cache.
        for start in range(0, m, CACHED_ROWS):
            parts = [table[start : start + CACHED_ROWS] for table in tables]
            p = weights[0] * parts[0]
            for weight, part in zip(weights[1:], parts[1:], strict=True):
                p += weight * part
            top = p.max(axis=1, keepdims=True)
            p -= top
            np.exp(p, out=p)
            sums = p.sum(axis=1, keepdims=True)
            p /= sums
            normaliser += float((top + np.log(sums)).sum())
            expected += [np.vdot(p, part) for part in parts]
        away = (weights - centre) / spread
        value = normaliser - float(weights @ own) + 0.5 * float((away**2).sum())
        slope = expected - own + away / spread
        return value / m, slope / m

    bounds = [(0.0, None)] * len(tables)
    fit = scipy.optimize.minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(fit.x, dtype=np.float64)


def evidence_scale(table: Array, labels: NDArray[np.int64]) -> float:
    """Return the spread within rows of the wrong classes' entries; 1 if there is none.

    Examples
    --------
    >>> evidence_scale(np.array([[9.0, 1.0, 3.0]]), np.array([0]))
    1.0
    """
    m, n_classes = table.shape
    if n_classes < 3:
        spread = float(table.std()) if table.size else 0.0
        return spread if spread > 0 else 1.0
    if not m:
        return 1.0
    own = (np.arange(m), labels)
    means = (table.sum(axis=1) - table[own]) / (n_classes - 1)
    apart = table - means[:, None]
    apart[own] = 0.0
    spread = float(np.sqrt(np.vdot(apart, apart) / (m * (n_classes - 1))))
    return spread if spread > 0 else 1.0
