"""What the images of one batch say about each other, without any label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.arrays import row_blocks
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.spaces import images_in, scale_of, scaled
from trustvlm.scores.zero_shot import log_softmax, unit_rows

__all__ = ["Batch", "batch_of", "fullness", "refine"]

Array = NDArray[np.float64]
_NEIGHBOURS, _SHARPNESS = 10, 5.0
_MOST, _LEAST, _SHARE = 16, 4, 0.5
_ENOUGH = 6.0
_MASS, _FLOOR, _PRIOR = 1.0, 1e-2, 0.25


def fullness(n: int, n_classes: int) -> float:
    """How far to believe a batch of n images about C classes, in [0, 1).

    r^2 / (r^2 + 36), r = n / C: a half at six images a class, so that a handful of images leaves
    every verdict as it is.

    Examples
    --------
    >>> fullness(1, 10) < 0.001, fullness(60, 10)
    (True, 0.5)
    """
    per_class = n / max(n_classes, 1)
    return per_class**2 / (per_class**2 + _ENOUGH**2)


@dataclass(frozen=True)
class Batch:
    """n images and their nearest neighbours among each other.

    Attributes
    ----------
    directions
        `(n, d)` unit rows around the batch's mean, each dimension to the batch's scale.
    neighbours, weights
        `(n, k)` rows of the nearest other images, and how much each counts; weights sum to 1.
    """

    directions: Array
    neighbours: NDArray[np.int64]
    weights: Array

    @classmethod
    def of(cls, rows: Array) -> Batch:
        """Compare unit rows `(n, d)`, n at least 2, with each other, in blocks of memory."""
        moved = scaled(rows, scale_of(rows))
        directions = unit_rows(moved - moved.mean(axis=0))
        n = len(rows)
        k = max(1, min(_NEIGHBOURS, n // 4))
        neighbours, weights = np.empty((n, k), dtype=np.int64), np.empty((n, k))
        for block in row_blocks(n, 3 * n):
            cosines = directions[block] @ directions.T
            cosines[np.arange(len(cosines)), np.arange(block.start, block.stop)] = -np.inf
            nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
            near = np.take_along_axis(cosines, nearest, axis=1)
            votes = np.exp(_SHARPNESS * (near - near.max(axis=1, keepdims=True)))
            neighbours[block] = nearest
            weights[block] = votes / votes.sum(axis=1, keepdims=True)
        return cls(directions, neighbours, weights)

    def around(self, posterior: Array) -> Array:
        """Mean posterior `(n, C)` of each image's neighbours."""
        total = np.zeros_like(posterior)
        for column in range(self.neighbours.shape[1]):
            near = posterior[self.neighbours[:, column]]
            total += self.weights[:, column, None] * near
        return total

    def to_prototypes(self, posterior: Array) -> Array:
        """Cosine with prototypes made of the images that each class is surest of, `(n, C)`.

        Up to 16 images a class, and at most half of an even share, each weighted by its posterior;
        an image takes no part in the prototype it is compared with. Prototypes that rest on little
        weight count less. The result is in units of its own spread within rows.
        """
        n, n_classes = posterior.shape
        k = min(n, max(_LEAST, min(_MOST, round(_SHARE * n / n_classes))))
        chosen = np.argsort(-posterior, axis=0, kind="stable")[:k]
        votes = np.zeros_like(posterior)
        np.put_along_axis(votes, chosen, np.take_along_axis(posterior, chosen, axis=0), axis=0)
        sums = votes.T @ self.directions
        along = self.directions @ sums.T
        squares = (sums**2).sum(axis=1) - 2.0 * votes * along + votes**2
        own_left_out = (along - votes) / np.sqrt(np.maximum(squares, 1e-12))
        mass = votes.sum(axis=0) - votes
        cosines = own_left_out * (mass / (mass + _MASS))
        return np.asarray(cosines / _spread(cosines))


def batch_of(evidence: Evidence) -> Batch:
    """Return the images of the evidence as a batch, compared once for all scores."""
    return evidence.once("batch", lambda: Batch.of(images_in("features", evidence)))


def refine(
    start: Array,
    batch: Batch,
    *,
    first: Array,
    keep: float,
    prototypes: float,
    neighbours: float,
    rounds: int = 3,
) -> Array:
    """Let the images of a batch inform each other: logits `(n, C)`, averaged over the rounds.

    In each round the posterior makes prototypes of the surest images and is smoothed over
    neighbours; both are added to `keep` times the starting logits. Averaging the rounds, the
    untouched answer `first` among them, limits what a wrong start can be amplified to. All
    weights fade with `fullness`.

    Parameters
    ----------
    start
        `(n, C)` logits that every round starts from.
    batch
        The images.
    first
        `(n, C)` logits that are averaged with the rounds' answers.
    keep, prototypes, neighbours
        Weights of the start, of the cosines and of the logarithm of the neighbours' posterior.
    rounds
        How often.
    """
    n, n_classes = start.shape
    belief = fullness(n, n_classes)
    fixed = keep**belief * start
    total, logits = log_softmax(first), start
    for _ in range(rounds):
        posterior = np.exp(log_softmax(logits))
        logits = (
            fixed
            + belief * prototypes * batch.to_prototypes(posterior)
            + belief * neighbours * np.log(batch.around(posterior) + _FLOOR)
            + belief * _PRIOR * np.log(posterior.mean(axis=0) + 0.5 / n_classes)
        )
        total += log_softmax(logits)
    return np.asarray(total / (rounds + 1))


def _spread(table: Array) -> float:
    """Spread within rows; the largest entry, which speaks for a class, is left out."""
    if table.shape[1] < 3:
        found = float(table.std())
    else:
        rest = np.sort(table, axis=1)[:, :-1]
        found = float((rest - rest.mean(axis=1, keepdims=True)).std())
    return found if found > 0 else 1.0
