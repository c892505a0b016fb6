"""Held-out evidence: what the other shots say about each shot, as if it had not been among them.

`compare_held_out` compares each shot with prototypes made without it: what settings,
out-of-distribution thresholds and shot checks are calibrated on. `held_out_indicators` predicts its
class from all other shots, for the search for label errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import EvidenceMissingError
from trustvlm.scores.arrays import class_sums, row_blocks, unit_rows
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
    similarities = np.full((len(labels), evidence.n_classes), NO_PROTOTYPE)
    present = np.bincount(labels, minlength=evidence.n_classes) > 0
    kept = np.zeros(len(labels), dtype=bool)
    for rows, table in held_out_similarities(features, labels, evidence.n_classes):
        similarities[rows], kept[rows] = table, True
    chosen = np.flatnonzero(kept)
    comparison = Tabulated(logits[chosen], present, None, similarities[chosen])
    return HeldOut(comparison, labels[chosen], chosen)


def held_out_similarities(
    features: NDArray[Any], labels: NDArray[np.int64], n_classes: int
) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Compare shots with prototypes made without them, as `compare_held_out`, in bounded memory.

    Yields
    ------
    shots, cosines
        `(k,)` indices of some shots, and their `(k, C)` cosines; -1 for classes without shots. Each
        shot that can be judged is among them once.
    """
    order = np.argsort(labels, kind="stable")
    vectors, classes = features[order].astype(np.float64), labels[order]
    counts = np.bincount(labels, minlength=n_classes)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(order)) - first[classes]  # among the shots of its class
    sums = class_sums(vectors, classes, n_classes)
    norms = np.linalg.norm(vectors, axis=1)
    lengths = np.bincount(classes, weights=norms, minlength=n_classes)
    several = np.flatnonzero(counts > 1)
    absent = counts == 0
    for j in range(int(counts.max(initial=0))):
        rest = sums.copy()
        rest[several] -= vectors[first[several] + j % counts[several]]
        lost = np.linalg.norm(rest, axis=1) <= _NO_DIRECTION * lengths
        rest[lost] = 0.0
        prototypes = unit_rows(rest)
        of_j = np.flatnonzero((rank == j) & (counts[classes] > 1) & ~lost[classes])
        for block in row_blocks(len(of_j), 2 * n_classes):
            rows = of_j[block]
            table = unit_rows(vectors[rows]) @ prototypes.T
            table[:, absent] = NO_PROTOTYPE
            yield order[rows], table


def held_out_indicators(shots: Array, labels: NDArray[np.int64], n_classes: int) -> Array:
    """Predict the class indicators of every shot by ridge regression on all other shots.

    Of rows scaled to length one: near 1 for the class that the other shots speak for, near 0 for
    the rest. The penalty is one of nine around the mean eigenvalue of the Gram matrix.

    Parameters
    ----------
    shots, labels
        `(m, d)` without rows of zeros, and `(m,)` class indices.
    n_classes
        C.

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
    values, vectors = _principal(rows)
    if not len(values):
        return np.zeros((m, n_classes))
    indicators = np.eye(n_classes)[labels]
    shares = indicators.mean(axis=0)
    penalties = np.logspace(-2, 2, 9) * values.sum() / m
    held_out = _leave_one_out(values, vectors, indicators - shares, penalties)
    return np.asarray(held_out + shares)


def _leave_one_out(
    values: Array, vectors: Array, targets: Array, penalties: Sequence[float] | Array
) -> Array:
    """Ridge regression of centred targets `(m, C)`, each answer without its own row.

    The held-out answer of shot i is y_i - (y_i - f_i) / (1 - h_ii), h the hat matrix, so that
    leaving out every shot costs one decomposition (Allen 1974, PRESS). From the eigenvalues and
    eigenvectors of the rows' Gram matrix, for the penalty of the smallest squared error. The mean,
    which is not penalised but held out too, adds 1/m to every leverage.
    """
    along = vectors.T @ targets
    best, smallest = targets, np.inf
    for penalty in penalties:
        damping = values / (values + penalty)
        fitted = vectors @ (damping[:, None] * along)
        leverage = np.minimum((vectors**2) @ damping + 1.0 / len(targets), 1.0 - 1e-9)
        held_out = targets - (targets - fitted) / (1.0 - leverage)[:, None]
        error = float(((held_out - targets) ** 2).sum())
        if error < smallest:
            best, smallest = held_out, error
    return best


def _principal(rows: Array) -> tuple[Array, Array]:
    """Eigenvalues `(r,)` of the rows' Gram matrix, and its eigenvectors `(m, r)`.

    Those are left out whose eigenvalue is below 10^-10 of the largest.
    """
    m, d = rows.shape
    values, vectors = np.linalg.eigh(rows @ rows.T if m <= d else rows.T @ rows)
    kept = values > 1e-10 * max(values[-1], 1e-12)
    values, vectors = values[kept], vectors[:, kept]
    return values, vectors if m <= d else (rows @ vectors) / np.sqrt(values)
