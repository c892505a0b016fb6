"""Base scorers of `auto`: what the shots say about an image, each of them linear in its features.

Prototypes, ridge regression and a linear discriminant. Each is fitted to the shots and answers with
evidence `(n, C)`, larger for the class it speaks for; how far to believe each is a matter of
`stacking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.arrays import class_sums, unit_rows

Array = NDArray[np.float64]


def scale_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of each dimension, shrunk half-way to all, `(d,)`.

    The variances are averaged with their mean, so that a dimension that hardly varies among a few
    rows is not blown up. Rows without any variation have scale 1.

    Examples
    --------
    >>> scale_of(np.array([[0.0, 1.0], [0.0, 3.0]])) ** 2
    array([0.5, 1.5])
    """
    variance = rows.var(axis=0) if len(rows) else np.zeros(rows.shape[1])
    mean = float(variance.mean()) if variance.size else 0.0
    if not mean > 0:
        return np.ones(rows.shape[1])
    return np.asarray(np.sqrt(variance + mean))


@dataclass(frozen=True)
class LinearScorer:
    """Evidence that is linear in an image's row around a centre.

    Attributes
    ----------
    centre
        `(d,)`, taken from the row.
    coefficients, offsets
        `(d, C)` and `(C,)`.
    unit
        Whether the row is scaled to length one, once the centre is taken from it.

    Examples
    --------
    >>> scorer = LinearScorer(np.array([1.0]), np.array([[2.0, -2.0]]), np.zeros(2))
    >>> scorer.evidence(np.array([[3.0]]))
    array([[ 4., -4.]])
    """

    centre: Array
    coefficients: Array
    offsets: Array
    unit: bool = False

    def evidence(self, rows: Array) -> Array:
        """Return `(n, C)` for `(n, d)` rows."""
        around = rows - self.centre
        return np.asarray((unit_rows(around) if self.unit else around) @ self.coefficients) + (
            self.offsets
        )


def prototypes(
    shots: Array, labels: NDArray[np.int64], n_classes: int, strengths: Sequence[float] = (0.0,)
) -> list[LinearScorer]:
    """Cosine with the mean of each class, around the mean of all shots.

    Parameters
    ----------
    shots, labels
        `(m, d)` and `(m,)` class indices; every class has a shot.
    n_classes
        C.
    strengths
        Of the regularisation: one scorer is returned for each. Prototypes have none.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> [scorer] = prototypes(shots, np.array([0, 0, 1, 1]), 2)
    >>> scorer.evidence(np.array([[3.0, 0.0]]))
    array([[ 1., -1.]])
    """
    centre = shots.mean(axis=0)
    means = unit_rows(class_sums(unit_rows(shots - centre), labels, n_classes))
    return [LinearScorer(centre, means.T, np.zeros(n_classes), unit=True) for _ in strengths]


RIDGE_STRENGTHS = tuple(np.geomspace(0.3, 30.0, 5))


def ridge(
    shots: Array,
    labels: NDArray[np.int64],
    n_classes: int,
    strengths: Sequence[float] = RIDGE_STRENGTHS,
) -> list[LinearScorer]:
    """Ridge regression of the class indicators; penalties in units of the mean squared length.

    Parameters
    ----------
    shots, labels, n_classes, strengths
        As of `prototypes`.

    Notes
    -----
    For classification: Rifkin & Lippert 2007, "Notes on regularized least squares".

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> [scorer] = ridge(shots, np.array([0, 0, 1, 1]), 2, strengths=[1e-9])
    >>> scorer.evidence(np.array([[1.0, 0.0]])).round(3)
    array([[ 0.5, -0.5]])
    """
    centre = shots.mean(axis=0)
    rows = shots - centre
    sums = class_sums(rows, labels, n_classes)
    values, axes = _principal(rows)
    along = axes.T @ sums.T
    length = float((rows**2).sum()) / len(rows) or 1.0
    return [
        LinearScorer(centre, axes @ (along / (values + s * length)[:, None]), np.zeros(n_classes))
        for s in strengths
    ]


DISCRIMINANT_STRENGTHS = tuple(np.geomspace(0.1, 100.0, 7))


def discriminant(
    shots: Array,
    labels: NDArray[np.int64],
    n_classes: int,
    strengths: Sequence[float] = DISCRIMINANT_STRENGTHS,
) -> list[LinearScorer]:
    """Log-density of Gaussians with one covariance, up to what all classes share.

    m_c' A x - m_c' A m_c / 2 with class means m_c around the mean of all shots and A the inverse
    of S + g v I: the covariance S within classes, its mean variance v, and a strength g. Shots
    without any variation within classes stand for a covariance of that of all shots, v I.

    Parameters
    ----------
    shots, labels, n_classes, strengths
        As of `prototypes`.

    Notes
    -----
    Friedman 1989, "Regularized discriminant analysis"; for CLIP: Wang et al. 2024
    (arXiv 2402.04087).

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> [scorer] = discriminant(shots, np.array([0, 0, 1, 1]), 2, strengths=[1.0])
    >>> scorer.evidence(np.array([[0.0, 5.0]]))  # as far from both
    array([[-50., -50.]])
    """
    m, d = shots.shape
    centre = shots.mean(axis=0)
    rows = shots - centre
    means = class_sums(rows, labels, n_classes)
    means /= np.bincount(labels, minlength=n_classes)[:, None]
    residuals = rows - means[labels]
    values, axes = _principal(residuals)
    total = float(values.sum())
    freedom = m - n_classes
    if freedom > 0 and total > 1e-12 * float((rows**2).sum()):
        values, variance = values / freedom, total / freedom / d
    else:
        values, axes = np.zeros(1), np.zeros((d, 1))
        variance = float((rows**2).sum()) / m / d or 1.0
    along = axes.T @ means.T
    scorers = []
    for strength in strengths:
        floor = strength * variance
        # A = (I - V diag(l / (l + f)) V') / f: only along the axes differs it from the floor.
        coefficients = (means.T - axes @ (along * (values / (values + floor))[:, None])) / floor
        offsets = -0.5 * (means.T * coefficients).sum(axis=0)
        scorers.append(LinearScorer(centre, coefficients, offsets))
    return scorers


def _principal(rows: Array) -> tuple[Array, Array]:
    """Eigenvalues `(r,)` of R'R and its eigenvectors `(d, r)`, those of the null space left out."""
    m, d = rows.shape
    values, vectors = np.linalg.eigh(rows @ rows.T if m < d else rows.T @ rows)
    kept = values > max(m, d) * np.finfo(np.float64).eps * max(float(values[-1]), 1e-300)
    values, vectors = values[kept], vectors[:, kept]
    return values, (rows.T @ vectors) / np.sqrt(values) if m < d else vectors
