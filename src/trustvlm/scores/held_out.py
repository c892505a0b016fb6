"""Held-out evidence of the shots: prototypes, neighbours, ridge, and their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from trustvlm.scores.arrays import log_softmax, unit_rows
from trustvlm.scores.evidence import Evidence

# A space that images are compared in: unit vectors, each dimension to scale.

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


# Three experts on what the shots say about an image, each with its leave-one-out answers.

Array = NDArray[np.float64]
_SHARPNESS = 10.0
_PENALTIES = np.geomspace(0.3, 30.0, 5)


@dataclass(frozen=True)
class Expert:
    """Class evidence for images, and for each shot as if it had not been among the shots.

    Attributes
    ----------
    held_out
        `(m, C)`; column of the shot's own class computed without that shot. A row whose class has
        no other shot is not to be used. Columns of classes without shots are 0.
    evidence
        Maps `(n, d)` rows to `(n, C)`; larger speaks for the class.
    """

    held_out: Array
    evidence: Callable[[Array], Array]


def prototypes(shots: Array, labels: NDArray[np.int64], n_classes: int) -> Expert:
    """Cosine with the mean of each class, around the mean of all shots.

    The own class of a shot is compared by the mean of its other shots, which needs no loop:
    the sum of the class less the shot.

    Parameters
    ----------
    shots, labels
        `(m, d)` and `(m,)` class indices.
    n_classes
        C; classes without shots have evidence 0.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> prototypes(shots, np.array([0, 0, 1, 1]), 2).held_out[0].round(2)
    array([ 0.98, -1.  ])
    """
    centre = shots.mean(axis=0)
    directions = unit_rows(shots - centre)
    sums = np.zeros((n_classes, shots.shape[1]))
    np.add.at(sums, labels, directions)
    means = unit_rows(sums)
    held_out = directions @ means.T
    others = unit_rows(sums[labels] - directions)
    held_out[np.arange(len(labels)), labels] = (directions * others).sum(axis=1)
    return Expert(held_out, lambda rows: unit_rows(rows - centre) @ means.T)


def neighbours(shots: Array, labels: NDArray[np.int64], n_classes: int) -> Expert:
    """Soft maximum over each class's shots of the cosine: (1/b) log mean exp(b cos), b = 10.

    Between the nearest shot (b large) and the mean over all (b small), so that a class may have
    several looks.

    Parameters
    ----------
    shots, labels, n_classes
        As of `prototypes`.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> neighbours(shots, np.array([0, 0, 1, 1]), 2).held_out[0]
    array([1., 0.])
    """
    directions = unit_rows(shots)
    counts = np.bincount(labels, minlength=n_classes).astype(np.float64)
    belongs = np.zeros((len(labels), n_classes))
    belongs[np.arange(len(labels)), labels] = 1.0

    def pooled(weights: Array, counts: Array) -> Array:
        mean = np.divide(
            weights @ belongs, counts, out=np.ones((len(weights), n_classes)), where=counts > 0
        )
        return np.asarray(1.0 + np.log(mean) / _SHARPNESS) * (counts > 0)

    weights = np.exp(_SHARPNESS * (directions @ directions.T - 1.0))
    np.fill_diagonal(weights, 0.0)
    left = np.maximum(counts - belongs, 0.0)  # one less of the own class
    held_out = pooled(weights, left)
    return Expert(
        held_out,
        lambda rows: pooled(np.exp(_SHARPNESS * (unit_rows(rows) @ directions.T - 1.0)), counts),
    )


def ridge(shots: Array, labels: NDArray[np.int64], n_classes: int) -> Expert:
    """Ridge regression of the class indicators, its penalty chosen by its held-out errors.

    The held-out answer of shot i is (f_i - h_ii y_i) / (1 - h_ii), h the hat matrix, so that
    leaving out every shot costs one decomposition (Allen 1974, PRESS).

    Parameters
    ----------
    shots, labels, n_classes
        As of `prototypes`.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> bool(ridge(shots, np.array([0, 0, 1, 1]), 2).held_out[0].argmax() == 0)
    True
    """
    centre = shots.mean(axis=0)
    rows = shots - centre
    size = float(np.sqrt((rows**2).sum(axis=1).mean())) or 1.0
    rows = rows / size
    targets = np.zeros((len(labels), n_classes))
    targets[np.arange(len(labels)), labels] = 1.0
    present = np.bincount(labels, minlength=n_classes) > 0
    targets -= targets.mean(axis=0)
    values, vectors = _principal(rows)
    along = vectors.T @ targets
    best: tuple[float, float, Array] | None = None
    # With one shot a class a held-out shot has no class left: the penalty stays in the middle.
    single = bool(np.bincount(labels).max(initial=0) < 2)
    for penalty in (1.0,) if single else _PENALTIES:
        kept = values / (values + penalty)
        leverage = (vectors**2 * kept).sum(axis=1)
        fitted = vectors @ (kept[:, None] * along)
        rest = np.maximum(1.0 - leverage, 1e-12)[:, None]
        held_out = (fitted - leverage[:, None] * targets) / rest
        error = float(((held_out - targets) ** 2).sum())
        if best is None or error < best[0]:
            best = error, float(penalty), held_out
    assert best is not None  # noqa: S101
    _, penalty, held_out = best
    coefficients = rows.T @ (vectors @ (along / (values + penalty)[:, None]))
    return Expert(
        held_out * present, lambda other: ((other - centre) / size) @ coefficients * present
    )


def _principal(rows: Array) -> tuple[Array, Array]:
    """Eigenvalues of the rows' Gram matrix, and its eigenvectors `(n, r)`, null space left out."""
    n, d = rows.shape
    if n <= d:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        return np.maximum(values, 0.0), vectors
    values, axes = np.linalg.eigh(rows.T @ rows)
    # Below this, rounding decides the direction.
    kept = values > values[-1] * n * np.finfo(np.float64).eps
    return values[kept], (rows @ axes[:, kept]) / np.sqrt(values[kept])


EXPERTS = (prototypes, neighbours, ridge)


# Weights of several kinds of class evidence, fitted by the likelihood of held-out shots.


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
