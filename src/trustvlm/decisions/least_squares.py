"""Leave-one-out predictions of a linear classifier of the shots, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.zero_shot import unit_rows

__all__ = ["held_out_regression"]

_RIDGES = np.logspace(-2, 2, 9)


def held_out_regression(
    features: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int
) -> NDArray[np.float64]:
    """Predict the class indicators of every shot by ridge regression on all other shots.

    Rows are scaled to length one. The penalty is, of nine around the mean eigenvalue of the Gram
    matrix, the one with the smallest leave-one-out error (PRESS).

    Parameters
    ----------
    features
        `(m, d)`, no row of zeros.
    labels
        `(m,)` class indices.
    n_classes
        C.

    Returns
    -------
    ndarray
        `(m, C)` float64, near 1 for the class that the other shots speak for and near 0 for the
        rest. Zeros for fewer than three shots, or where all are alike.

    Notes
    -----
    With hat matrix H the prediction without shot i is y_i - (y_i - (Hy)_i) / (1 - H_ii): Allen
    1974, "The relationship between variable selection and data augmentation and a method for
    prediction"; for classification Rifkin & Lippert 2007, "Notes on regularized least squares".

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> held_out_regression(x, np.array([0, 0, 1, 1]), 2).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    m = len(labels)
    indicators = np.eye(n_classes)[labels]
    if m < 3:
        return np.zeros((m, n_classes))
    rows = unit_rows(features)
    rows -= rows.mean(axis=0)
    values, axes = _left_axes(rows)
    if not len(values):
        return np.zeros((m, n_classes))
    shares = indicators.mean(axis=0)
    targets = indicators - shares
    along = axes.T @ targets
    best, smallest = targets, np.inf
    for ridge in _RIDGES * values.sum() / m:
        damping = values / (values + ridge)
        fitted = axes @ (damping[:, None] * along)
        # The mean, which is not penalised, adds 1/m to every leverage.
        leverage = np.minimum((axes**2) @ damping + 1.0 / m, 1.0 - 1e-9)
        errors = (targets - fitted) / (1.0 - leverage)[:, None]
        press = float((errors**2).sum())
        if press < smallest:
            best, smallest = targets - errors, press
    return np.asarray(best + shares)


def _left_axes(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of the Gram matrix above rounding, and its eigenvectors as columns."""
    m, d = rows.shape
    if m <= d:
        values, axes = np.linalg.eigh(rows @ rows.T)
    else:
        values, right = np.linalg.eigh(rows.T @ rows)
        axes = rows @ right
    keep = values > 1e-10 * max(values[-1], 1e-12)
    values, axes = values[keep], axes[:, keep]
    return values, axes if m <= d else axes / np.sqrt(values)
