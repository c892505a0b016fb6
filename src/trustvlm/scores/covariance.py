"""Covariances of few rows in many dimensions, by their principal axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

__all__ = [
    "RidgedCovariance",
    "Rows",
    "Spectrum",
    "leading_axes",
    "ledoit_wolf",
    "sample_spectrum",
]


@dataclass(frozen=True)
class Spectrum:
    """A covariance by its principal axes, with one variance for all directions beside them.

    Features have more dimensions than there are shots, so this is far smaller than a matrix.
    """

    axes: NDArray[np.float64]
    variances: NDArray[np.float64]
    floor: float

    def solve(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply rows `(n, d)` by the inverse covariance."""
        along = rows @ self.axes.T
        solved: NDArray[np.float64] = along * (1.0 / self.variances - 1.0 / self.floor) @ self.axes
        solved += rows / self.floor
        return solved

    def dense(self) -> NDArray[np.float64]:
        """Return the covariance as a `(d, d)` matrix."""
        d = self.axes.shape[1]
        spread = (self.axes.T * (self.variances - self.floor)) @ self.axes
        return np.asarray(spread + self.floor * np.eye(d))


def sample_spectrum(residuals: NDArray[np.float64]) -> Spectrum:
    """Return the covariance R'R / m of centred rows `(m, d)`; nothing beside its axes."""
    m, d = residuals.shape
    if m < d:
        values, left = np.linalg.eigh(residuals @ residuals.T)
        keep = values > 1e-12 * max(values[-1], 1e-300)
        axes = (left[:, keep].T @ residuals) / np.sqrt(values[keep])[:, None]
    else:
        values, right = np.linalg.eigh(residuals.T @ residuals)
        keep = values > 1e-12 * max(values[-1], 1e-300)
        axes = right[:, keep].T
    return Spectrum(axes, values[keep] / m, 0.0)


@dataclass(frozen=True)
class Rows:
    """Centred rows `(m, d)`, and what covariances need of them, computed once."""

    values: NDArray[np.float64]

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """R R' or R'R, whichever is smaller."""
        m, d = self.values.shape
        gram: NDArray[np.float64] = (
            self.values @ self.values.T if m < d else self.values.T @ self.values
        )
        return gram

    @cached_property
    def total(self) -> float:
        """Sum of all squares."""
        return float((self.values**2).sum())


@dataclass(frozen=True)
class RidgedCovariance:
    """The matrix s R'R + f I of centred rows R, a scale s >= 0 and a floor f."""

    rows: Rows
    scale: float
    floor: float

    def dense(self) -> NDArray[np.float64]:
        """Return it as a `(d, d)` matrix."""
        values = self.rows.values
        return np.asarray(self.scale * values.T @ values + self.floor * np.eye(values.shape[1]))

    def invertible(self) -> RidgedCovariance:
        """Make it invertible: one of nothing (a shot a class) becomes the identity."""
        d = self.rows.values.shape[1]
        total = self.scale * self.rows.total + self.floor * d
        if total <= 0:
            return RidgedCovariance(self.rows, 0.0, 1.0)
        # One part in 10^9 of the mean variance keeps exact duplicates from making it singular.
        return RidgedCovariance(self.rows, self.scale, max(self.floor, 1e-9 * total / d))

    def solve(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply vectors `(n, d)` by the inverse; the floor must be above 0."""
        values, (m, d) = self.rows.values, self.rows.values.shape
        if not self.scale:
            return np.asarray(vectors / self.floor)
        if m >= d:
            return np.asarray(cho_solve(self._factor, vectors.T).T)
        # Woodbury: only as many directions as there are rows differ from the floor.
        along = cho_solve(self._factor, (vectors @ values.T).T).T
        return np.asarray((vectors - self.scale * along @ values) / self.floor)

    @cached_property
    def log_determinant(self) -> float:
        """Logarithm of the determinant; the floor must be above 0."""
        m, d = self.rows.values.shape
        floor = math.log(self.floor)
        if not self.scale:
            return float(d * floor)
        # R R' and R'R share what is not 0 of their spectra: the rest of it is the floor.
        return float(2 * np.log(np.diag(self._factor[0])).sum() + max(d - m, 0) * floor)

    @cached_property
    def _factor(self) -> tuple[NDArray[np.float64], bool]:
        matrix = self.scale * self.rows.gram
        matrix[np.diag_indices_from(matrix)] += self.floor
        factor: tuple[NDArray[np.float64], bool] = cho_factor(matrix)
        return factor


def ledoit_wolf(rows: Rows) -> RidgedCovariance:
    """Covariance of centred rows, shrunk towards a multiple of the identity.

    Notes
    -----
    Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".

    Examples
    --------
    >>> ledoit_wolf(Rows(np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]]))).dense().round(3)
    array([[1.208, 0.   ],
           [0.   , 1.292]])
    """
    m, d = rows.values.shape
    # Sums of the variances along all principal axes, and of their squares.
    total, squares = rows.total / m, float((rows.gram**2).sum()) / m**2
    mean_variance = total / d
    spread = squares - d * mean_variance**2
    noise = (((rows.values**2).sum(axis=1) ** 2).sum() / m - squares) / m
    shrinkage = min(max(noise, 0.0) / spread, 1.0) if spread > 0 else 1.0
    return RidgedCovariance(rows, (1.0 - shrinkage) / m, shrinkage * mean_variance)


def leading_axes(rows: Rows, count: int) -> NDArray[np.float64]:
    """Return up to `count` principal axes `(k, d)` of centred rows, largest variance first.

    Axes along which nothing varies are left out.
    """
    m, d = rows.values.shape
    size = len(rows.gram)
    # A few of many axes are found faster by themselves.
    wanted = [size - count, size - 1] if size > 4 * count else None
    values, vectors = eigh(rows.gram, subset_by_index=wanted)
    keep = values > 1e-12 * max(values[-1], 1e-300)
    values, vectors = values[keep][::-1][:count], vectors[:, keep][:, ::-1][:, :count]
    axes = (vectors.T @ rows.values) / np.sqrt(values)[:, None] if m < d else vectors.T
    return np.ascontiguousarray(axes)
