"""Held-out evidence: what the other shots say about each shot, as if it had not been among them.

Prototypes, neighbours and ridge regression, each of them without the shot itself. Prototypes are
held out in two ways. `compare_held_out` takes a shot from every class, so that cosines can be
compared between classes as those of new images are; what settings, out-of-distribution thresholds
and shot checks are calibrated on. `prototypes` takes the shot from its own class alone, which costs
no loop; weights that are fitted on it make up for what its class lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from trustvlm.exceptions import EvidenceMissingError
from trustvlm.scores.arrays import class_sums, log_softmax, unit_rows
from trustvlm.scores.evidence import Comparison, Evidence, Tabulated
from trustvlm.scores.prototypes import NO_PROTOTYPE

Array = NDArray[np.float64]

# The shots as images that all prototypes were made without.

# Sums of shots shorter than this share of the shots' own lengths are rounding residue.
_NO_DIRECTION = 1e-9


@dataclass(frozen=True)
class HeldOut:
    """The shots as images that the prototypes were made without.

    Attributes
    ----------
    comparison
        Of k of the m shots, in their order.
    labels
        `(k,)` int64, their classes.
    kept
        `(k,)` int64, which of the m shots these are.
    """

    comparison: Comparison
    labels: NDArray[np.int64]
    kept: NDArray[np.int64]


def compare_held_out(evidence: Evidence) -> HeldOut:
    """Compare every shot with prototypes that were made without it.

    The j-th shot of a class is compared with the prototypes of all classes without their j-th
    shots: every prototype lacks one shot, or the true class alone would be at a disadvantage,
    which at two shots per class is grave. A class with fewer shots than j lacks another one of
    its own. A class with a single shot keeps it, and that shot itself is left out of the result:
    without it there is nothing to compare with. The same holds for a shot without which the
    others of its class cancel each other.

    Parameters
    ----------
    evidence
        With `support_features`, `support_labels` and `support_logits`; images and bank are not
        looked at.

    Raises
    ------
    EvidenceMissingError
        If the shots, or their logits, are not there.

    Examples
    --------
    >>> shots = Evidence.of(
    ...     logits=np.empty((0, 2)), support_features=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
    ...     support_labels=[0, 0, 1], support_logits=np.zeros((3, 2)))
    >>> held_out = compare_held_out(shots)
    >>> held_out.kept, held_out.comparison.similarities.round(2)
    (array([0, 1]), array([[0.  , 0.71],
           [0.  , 0.71]]))
    """
    features, labels, logits = (
        evidence.support_features,
        evidence.support_labels,
        evidence.support_logits,
    )
    if features is None or labels is None or logits is None:
        raise EvidenceMissingError(
            "Holding out shots needs `support_features`, `support_labels` and `support_logits`."
        )
    n_classes = evidence.n_classes
    order = np.argsort(labels, kind="stable")
    vectors, classes = features[order].astype(np.float64), labels[order]
    counts = np.bincount(labels, minlength=n_classes)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(order)) - first[classes]  # among the shots of its class
    sums = class_sums(vectors, classes, n_classes)
    norms = np.linalg.norm(vectors, axis=1)
    lengths = np.bincount(classes, weights=norms, minlength=n_classes)
    several = np.flatnonzero(counts > 1)
    directions = unit_rows(vectors)
    similarities = np.full((len(order), n_classes), NO_PROTOTYPE)
    present = counts > 0
    kept = counts[classes] > 1
    for j in range(int(counts.max(initial=0))):
        rest = sums.copy()
        rest[several] -= vectors[first[several] + j % counts[several]]
        lost = np.linalg.norm(rest, axis=1) <= _NO_DIRECTION * lengths
        rest[lost] = 0.0
        of_j = rank == j
        similarities[np.ix_(of_j, present)] = (directions[of_j] @ unit_rows(rest).T)[:, present]
        kept[of_j] &= ~lost[classes[of_j]]
    back = np.argsort(order, kind="stable")
    chosen = np.flatnonzero(kept[back])
    comparison = Tabulated(logits[chosen], present, similarities[back[chosen]])
    return HeldOut(comparison, labels[chosen], chosen)


# Feature spaces that images are compared in: unit vectors, each dimension to scale.

FeatureSpace = Literal["features", "image_embeddings"]
# The vision encoder's space first; the VLM's own image space where its vectors are at hand.
FEATURE_SPACES: tuple[FeatureSpace, ...] = ("features", "image_embeddings")


def images_in(space: FeatureSpace, evidence: Evidence) -> NDArray[np.float64]:
    """Return the images of the evidence as unit rows `(n, d)` of a space."""
    return unit_rows(evidence.piece(space))


def shots_in(space: FeatureSpace, evidence: Evidence) -> NDArray[np.float64]:
    """Return the shots of the evidence as unit rows `(m, d)` of a space."""
    return unit_rows(evidence.piece(f"support_{space}"))


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


# Three base scorers of what the shots say about an image, each with its leave-one-out answers.

_SHARPNESS = 10.0
_PENALTIES = np.geomspace(0.3, 30.0, 5)


@dataclass(frozen=True)
class BaseScorer:
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


def prototypes(shots: Array, labels: NDArray[np.int64], n_classes: int) -> BaseScorer:
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
    sums = class_sums(directions, labels, n_classes)
    means = unit_rows(sums)
    held_out = directions @ means.T
    others = unit_rows(sums[labels] - directions)
    held_out[np.arange(len(labels)), labels] = (directions * others).sum(axis=1)
    return BaseScorer(held_out, lambda rows: unit_rows(rows - centre) @ means.T)


def neighbours(shots: Array, labels: NDArray[np.int64], n_classes: int) -> BaseScorer:
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
    belongs = np.eye(n_classes)[labels]

    def pooled(weights: Array, counts: Array) -> Array:
        mean = np.divide(
            weights @ belongs, counts, out=np.ones((len(weights), n_classes)), where=counts > 0
        )
        return np.asarray(1.0 + np.log(mean) / _SHARPNESS) * (counts > 0)

    weights = np.exp(_SHARPNESS * (directions @ directions.T - 1.0))
    np.fill_diagonal(weights, 0.0)
    left = np.maximum(counts - belongs, 0.0)  # one less of the own class
    held_out = pooled(weights, left)
    return BaseScorer(
        held_out,
        lambda rows: pooled(np.exp(_SHARPNESS * (unit_rows(rows) @ directions.T - 1.0)), counts),
    )


def ridge(shots: Array, labels: NDArray[np.int64], n_classes: int) -> BaseScorer:
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
    targets = np.eye(n_classes)[labels]
    targets -= targets.mean(axis=0)
    counts = np.bincount(labels, minlength=n_classes)
    values, vectors = _principal(rows)
    # With one shot a class a held-out shot has no class left: the penalty stays in the middle.
    penalties = [1.0] if counts.max(initial=0) < 2 else _PENALTIES
    held_out, penalty = _leave_one_out(values, vectors, targets, penalties)
    coefficients = rows.T @ (vectors @ ((vectors.T @ targets) / (values + penalty)[:, None]))
    return BaseScorer(
        held_out * (counts > 0),
        lambda other: ((other - centre) / size) @ coefficients * (counts > 0),
    )


def held_out_indicators(shots: Array, labels: NDArray[np.int64], n_classes: int) -> Array:
    """Predict the class indicators of every shot by ridge regression on all other shots.

    As `ridge`, but of rows scaled to length one, and the mean of the indicators is held out too:
    near 1 for the class that the other shots speak for, near 0 for the rest. The penalty is one of
    nine around the mean eigenvalue of the Gram matrix.

    Parameters
    ----------
    shots, labels, n_classes
        As of `prototypes`; no row of zeros.

    Returns
    -------
    ndarray
        `(m, C)`; zeros for fewer than three shots, or where all are alike.

    Notes
    -----
    For classification: Rifkin & Lippert 2007, "Notes on regularized least squares".

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> held_out_indicators(x, np.array([0, 0, 1, 1]), 2).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    m = len(labels)
    if m < 3:
        return np.zeros((m, n_classes))
    rows = unit_rows(shots)
    rows -= rows.mean(axis=0)
    values, vectors = _principal(rows, least=1e-10)
    if not len(values):
        return np.zeros((m, n_classes))
    indicators = np.eye(n_classes)[labels]
    shares = indicators.mean(axis=0)
    penalties = np.logspace(-2, 2, 9) * values.sum() / m
    held_out, _ = _leave_one_out(values, vectors, indicators - shares, penalties, mean_too=True)
    return np.asarray(held_out + shares)


def _leave_one_out(
    values: Array,
    vectors: Array,
    targets: Array,
    penalties: Sequence[float] | Array,
    *,
    mean_too: bool = False,
) -> tuple[Array, float]:
    """Ridge regression of centred targets `(m, C)`, each answer without its own row.

    From the eigenvalues and eigenvectors of the rows' Gram matrix; with the penalty, also returned,
    of the smallest squared error. The mean, which is not penalised, adds 1/m to every leverage
    where it is held out too.
    """
    along = vectors.T @ targets
    best, chosen, smallest = targets, 0.0, np.inf
    for penalty in penalties:
        damping = values / (values + penalty)
        fitted = vectors @ (damping[:, None] * along)
        if mean_too:
            leverage = np.minimum((vectors**2) @ damping + 1.0 / len(targets), 1.0 - 1e-9)
            held_out = targets - (targets - fitted) / (1.0 - leverage)[:, None]
        else:
            leverage = (vectors**2 * damping).sum(axis=1)[:, None]
            held_out = (fitted - leverage * targets) / np.maximum(1.0 - leverage, 1e-12)
        error = float(((held_out - targets) ** 2).sum())
        if error < smallest:
            best, chosen, smallest = held_out, float(penalty), error
    return best, chosen


def _principal(rows: Array, least: float | None = None) -> tuple[Array, Array]:
    """Eigenvalues `(r,)` of the rows' Gram matrix, and its eigenvectors `(m, r)`.

    Those are left out whose eigenvalue is below a share of the largest: `least`, or, if there are
    more rows than dimensions, what rounding alone makes of the null space.
    """
    m, d = rows.shape
    if m <= d:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        if least is not None:
            kept = values > least * max(values[-1], 1e-12)
            values, vectors = values[kept], vectors[:, kept]
        return np.maximum(values, 0.0), vectors
    values, axes = np.linalg.eigh(rows.T @ rows)
    share = m * np.finfo(np.float64).eps if least is None else least
    kept = values > share * max(values[-1], 1e-12)
    # The same in either order but for the last bits, and results are kept to the bit.
    vectors = rows @ axes[:, kept] if least is None else (rows @ axes)[:, kept]
    return values[kept], vectors / np.sqrt(values[kept])


BASE_SCORERS = (prototypes, neighbours, ridge)


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
    fit = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(fit.x, dtype=np.float64)


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
