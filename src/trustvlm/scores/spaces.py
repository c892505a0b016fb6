"""A space that images are compared in: unit vectors, each dimension to scale."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.evidence import Evidence
from trustvlm.scores.zero_shot import unit_rows

__all__ = ["SPACES", "SpaceName", "images_in", "scale_of", "scaled", "shots_in"]

SpaceName = Literal["features", "image_embeddings"]
# The vision encoder's space first; the VLM's own image space where its vectors are at hand.
SPACES: tuple[SpaceName, ...] = ("features", "image_embeddings")


def images_in(space: SpaceName, evidence: Evidence) -> NDArray[np.float64]:
    """Return the images of the evidence as unit rows `(n, d)` of a space."""
    array: NDArray[Any] | None = getattr(evidence, space)
    assert array is not None  # noqa: S101 -- callers ask for spaces that are there
    return unit_rows(array)


def shots_in(space: SpaceName, evidence: Evidence) -> NDArray[np.float64]:
    """Return the shots of the evidence as unit rows `(m, d)` of a space."""
    array: NDArray[Any] | None = getattr(evidence, f"support_{space}")
    assert array is not None  # noqa: S101 -- callers ask for spaces that are there
    return unit_rows(array)


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


def scaled(rows: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide each dimension by its scale."""
    return np.asarray(rows / scale)
