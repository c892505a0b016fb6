"""Covariances of few rows in many dimensions, by their principal axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spectrum", "invertible", "ledoit_wolf", "sample_spectrum"]


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


def ledoit_wolf(residuals: NDArray[np.float64]) -> Spectrum:
    """Covariance of centred rows `(m, d)`, shrunk towards a multiple of the identity.

    Notes
    -----
    Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".

    Examples
    --------
    >>> ledoit_wolf(np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])).dense().round(3)
    array([[1.208, 0.   ],
           [0.   , 1.292]])
    """
    m, d = residuals.shape
    sample = sample_spectrum(residuals)
    squares = (sample.variances**2).sum()
    mean_variance = sample.variances.sum() / d
    spread = squares - d * mean_variance**2
    noise = (((residuals**2).sum(axis=1) ** 2).sum() / m - squares) / m
    shrinkage = min(max(noise, 0.0) / spread, 1.0) if spread > 0 else 1.0
    target = shrinkage * mean_variance
    return Spectrum(sample.axes, (1.0 - shrinkage) * sample.variances + target, float(target))


def invertible(covariance: Spectrum) -> Spectrum:
    """Make a covariance invertible: one of nothing (a shot a class) becomes the identity."""
    d = covariance.axes.shape[1]
    total = covariance.variances.sum() + covariance.floor * (d - len(covariance.axes))
    if total <= 0:
        return Spectrum(covariance.axes[:0], covariance.variances[:0], 1.0)
    # One part in 10^9 of the mean variance keeps exact duplicates from making it singular.
    least = 1e-9 * total / d
    return Spectrum(
        covariance.axes, np.maximum(covariance.variances, least), max(covariance.floor, least)
    )
