"""Transductive scores without shots, `auto_unlabelled`; what the images of a batch say together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.arrays import class_sums, log_odds, log_softmax, row_blocks
from trustvlm.scores.base_scorers import scale_of
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import Evidence, images_in
from trustvlm.scores.neighbour_search import (
    EXACT,
    NEAR_DUPLICATE,
    merge_near_duplicates,
    nearest_others,
    precision_for,
)
from trustvlm.scores.zero_shot import judged_labels

# What the images of one batch say about each other, without any label.

Array = NDArray[Any]
_NEIGHBOURS, _SHARPNESS = 10, 5.0
_MOST, _LEAST, _SHARE = 16, 4, 0.5
_ENOUGH = 6.0
_MASS, _FLOOR, _PRIOR = 1.0, 1e-2, 0.25
ROUNDS = 3


def batch_weight(n: int, n_classes: int, enough: float = _ENOUGH) -> float:
    """How far to believe a batch of n different images about C classes, in [0, 1).

    r^2 / (r^2 + e^2), r = n / C: a half at e = `enough` images a class, so that a handful of images
    leaves every verdict as it is.

    Examples
    --------
    >>> batch_weight(1, 10) < 0.001, batch_weight(60, 10)
    (True, 0.5)
    """
    per_class = n / max(n_classes, 1)
    return per_class**2 / (per_class**2 + enough**2)


@dataclass(frozen=True)
class Batch:
    """n images of which u differ, and the nearest neighbours of these among each other.

    Near-duplicates, by the cosine `NEAR_DUPLICATE` of their features, count as one image, their
    mean: copies must not vouch for each other.

    Attributes
    ----------
    rows
        `(n, d)` unit rows of all.
    group
        `(n,)` int64, which of the u images each of the n is.
    share
        `(n,)` weight of each in that image: equal rows count once.
    distinct
        `(u, d)` unit rows of these.
    scale, centre
        `(d,)` scale of each dimension, and the mean of the scaled rows.
    directions
        `(u, d)` unit rows around that mean.
    neighbours, weights
        `(u, k)` rows of near other images, and how much each counts; weights sum to 1. k is 0 for
        a single image.
    """

    rows: Array
    group: NDArray[np.int64]
    share: Array
    distinct: Array
    scale: Array
    centre: Array
    directions: Array
    neighbours: NDArray[np.int64]
    weights: Array

    def __len__(self) -> int:
        return len(self.distinct)

    @classmethod
    def of(cls, rows: Array) -> Batch:
        """Compare unit rows `(n, d)`, n at least 1, with each other, in blocks of memory."""
        rows = np.ascontiguousarray(rows, dtype=precision_for(len(rows)))
        content = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
        # Sorted by content, whatever order they came in, so that it does not matter to the search.
        _, first, group, counts = np.unique(
            content, return_index=True, return_inverse=True, return_counts=True
        )
        distinct, share = rows[first], (1.0 / counts[group]).astype(rows.dtype)
        while True:
            scale = scale_of(distinct).astype(rows.dtype)
            centre = (distinct / scale).mean(axis=0)
            directions = _unit(distinct / scale - centre)
            u = len(distinct)
            k = min(u - 1, max(1, min(_NEIGHBOURS, u // 4)))
            if not k:
                neighbours, cosines = np.empty((u, 0), dtype=np.int64), np.empty((u, 0))
                break
            neighbours, cosines = nearest_others(directions, k)
            merged = merge_near_duplicates(distinct, neighbours)
            # Copies can hide others from the search, as can their part in the mean: look again.
            if merged is None:
                break
            group = merged[group]
            sums = class_sums(share[:, None] * rows, group, int(merged.max()) + 1, dtype=rows.dtype)
            distinct = _unit(sums)
        return cls(
            rows, group, share, distinct, scale, centre, directions, neighbours, _votes(cosines)
        )

    def mean_of_copies(self, table: Array) -> Array:
        """Average the rows `(n, C)` of copies: `(u, C)`, in the precision of the batch."""
        u, precision = len(self), self.directions.dtype
        if u == len(self.group):
            result = np.empty(table.shape, dtype=precision)
            result[self.group] = table
            return result
        weights = self.share / np.bincount(self.group, self.share)[self.group]
        total = np.zeros((u, table.shape[1]), dtype=precision)
        for columns in row_blocks(table.shape[1], 2 * len(table)):
            weighted = weights[:, None] * table[:, columns]
            total[:, columns] = class_sums(weighted, self.group, u, dtype=precision)
        return total

    def agreement(self, posterior: Array) -> float:
        """Mean probability that an image and its neighbour are of one class.

        Of each by itself, by the posterior `(u, C)`.
        """
        around = self.around(posterior)
        return float(np.einsum("uc,uc->u", posterior, around).mean())

    def around(self, posterior: Array) -> Array:
        """Mean posterior `(u, C)` of each of the u images' neighbours."""
        return mean_posterior(posterior, self.neighbours, self.weights)

    def copy_of(self, rows: Array) -> tuple[Array, NDArray[np.int64]]:
        """Directions `(n, d)` of unit rows of other images, and which of the u each is a copy of.

        -1 for an image that is none of the batch's.
        """
        rows = rows.astype(self.distinct.dtype, copy=False)
        directions = _unit(rows / self.scale - self.centre)
        copies = np.full(len(rows), -1)
        for block in row_blocks(len(rows), len(self.rows)):
            cosines = rows[block] @ self.rows.T
            copy = cosines.max(axis=1) >= NEAR_DUPLICATE
            copies[block] = np.where(copy, self.group[cosines.argmax(axis=1)], -1)
        return directions, copies

    def near(self, directions: Array) -> tuple[NDArray[np.int64], Array]:
        """Neighbours and weights, `(n, k)` each, of other images among the batch's."""
        k = self.neighbours.shape[1]
        cosines = directions @ self.directions.T
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        return nearest, _votes(np.take_along_axis(cosines, nearest, axis=1))


def mean_posterior(posterior: Array, neighbours: NDArray[np.int64], weights: Array) -> Array:
    """Mean of the posterior `(u, C)` over neighbours `(n, k)`, by their weights: `(n, C)`."""
    total = np.zeros((len(neighbours), posterior.shape[1]), dtype=posterior.dtype)
    for column in range(neighbours.shape[1]):
        total += weights[:, column, None] * posterior[neighbours[:, column]]
    return total


def _unit(rows: Array) -> Array:
    """Scale each row to length one in its own precision; rows of zeros stay zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))


def _votes(cosines: Array) -> Array:
    if not cosines.shape[1]:
        return cosines
    votes = np.exp(_SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def batch_of(evidence: Evidence) -> Batch:
    """Return the images of the evidence as a batch, compared once for all scores."""
    return evidence.once("batch", lambda: Batch.of(images_in("features", evidence)))


@dataclass(frozen=True)
class Weights:
    """Weights of what a batch says: of cosines, of the neighbours' posterior, of the class mix."""

    prototypes: float
    neighbours: float
    classes: float = _PRIOR

    def times(self, factor: float) -> Weights:
        """Multiply all of them."""
        return Weights(factor * self.prototypes, factor * self.neighbours, factor * self.classes)


@dataclass(frozen=True)
class Round:
    """What the images of a batch say by one posterior of theirs.

    Attributes
    ----------
    batch
        The images.
    posterior
        `(u, C)`.
    sums, mass
        `(C, d)` and `(C,)`, of the images that each class is surest of, weighted by their
        posterior.
    image, label, vote
        `(C k,)` each: these images, for which class, and their posterior.
    spread
        Of the cosines within rows, which is their unit.
    """

    batch: Batch
    posterior: Array
    sums: Array
    mass: Array
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    vote: Array
    spread: float = 1.0

    @classmethod
    def of(cls, batch: Batch, posterior: Array) -> Round:
        """Make prototypes of the images that each class is surest of.

        Up to 16 images a class, and at most half of an even share, each weighted by its posterior.
        """
        u, n_classes = posterior.shape
        k = min(u, max(_LEAST, min(_MOST, round(_SHARE * u / n_classes))))
        image = np.empty((n_classes, k), dtype=np.int64)
        for columns in row_blocks(n_classes, 2 * u):
            part = -posterior[:, columns].T
            image[columns] = np.argpartition(part, k - 1, axis=1)[:, :k]
        vote = posterior[image, np.arange(n_classes)[:, None]]
        sums = np.empty((n_classes, batch.directions.shape[1]), dtype=posterior.dtype)
        for rows in row_blocks(n_classes, k * sums.shape[1]):
            sums[rows] = np.einsum("ck,ckd->cd", vote[rows], batch.directions[image[rows]])
        label = np.repeat(np.arange(n_classes), k)
        made = cls(batch, posterior, sums, vote.sum(axis=1), image.ravel(), label, vote.ravel())
        # Of many images some, evenly spaced, show the spread as well as all.
        some = np.unique(np.linspace(0, u - 1, min(u, EXACT)).astype(np.int64))
        return replace(made, spread=_spread(made._cosines(batch.directions[some], some)))

    def _cosines(self, directions: Array, own: NDArray[np.int64]) -> Array:
        """Cosines `(n, C)` to the prototypes, which the rows that are images `own` are left out of.

        Prototypes that rest on little weight count less.
        """
        squares = np.einsum("cd,cd->c", self.sums, self.sums)
        factors = self.mass / (self.mass + _MASS) / np.sqrt(np.maximum(squares, 1e-12))
        along = directions @ self.sums.T
        row_of = np.full(len(self.batch), -1)
        row_of[own] = np.arange(len(own))
        row = row_of[self.image]
        took_part = row >= 0
        row, label, vote = row[took_part], self.label[took_part], self.vote[took_part]
        product, mass = along[row, label], self.mass[label] - vote
        others = np.maximum(squares[label] - 2.0 * vote * product + vote**2, 1e-12)
        along *= factors
        along[row, label] = (product - vote) / np.sqrt(others) * (mass / (mass + _MASS))
        return np.asarray(along)

    def _terms(
        self, weights: Weights, cosines: Array, neighbours: NDArray[np.int64], votes: Array
    ) -> Array:
        around = mean_posterior(self.posterior, neighbours, votes)
        mix = np.log(self.posterior.mean(axis=0) + 0.5 / cosines.shape[1])
        cosines *= weights.prototypes / self.spread
        cosines += weights.neighbours * np.log(around + _FLOOR)
        cosines += weights.classes * mix
        return cosines

    def of_own(self, weights: Weights, own: NDArray[np.int64]) -> Array:
        """Return what the others say of some of the u images, each once: logits `(n, C)` to add."""
        batch = self.batch
        cosines = self._cosines(batch.directions[own], own)
        return self._terms(weights, cosines, batch.neighbours[own], batch.weights[own])

    def of_others(self, weights: Weights, directions: Array) -> Array:
        """Return what the batch says of other images: logits `(n, C)` to add."""
        cosines = self._cosines(directions, np.empty(0, dtype=np.int64))
        return self._terms(weights, cosines, *self.batch.near(directions))


def rounds_of(start: Array, batch: Batch, weights: Weights) -> Iterator[tuple[Round, Array]]:
    """Let the u different images of a batch inform each other, beginning with logits `(u, C)`.

    In each of the rounds the posterior makes prototypes of the surest images and is smoothed over
    neighbours; both are added to the logits that it began with.

    Yields
    ------
    round, logits
        What the images say by the posterior before, and the `(u, C)` logits after.
    """
    logits = start
    for _ in range(ROUNDS):
        posterior = log_softmax_of(logits)
        np.exp(posterior, out=posterior)
        here, logits = Round.of(batch, posterior), np.empty_like(start)
        for block in row_blocks(*start.shape):
            own = np.arange(block.start, block.stop)
            logits[block] = start[block] + here.of_own(weights, own)
        yield here, logits


def refine(start: Array, batch: Batch, weights: Weights, *, first: Array | None = None) -> Array:
    """Refine logits `(n, C)` by what the images of their batch say, averaged over the rounds.

    Averaging the rounds, the untouched answer `first` among them, by default `start`, limits what a
    wrong start can be amplified to. What is said of an image is said of all its copies.
    """
    own = batch.mean_of_copies(start)
    total = log_softmax_of(start if first is None else first)
    for _, logits in rounds_of(own, batch, weights):
        for block in row_blocks(*start.shape):
            group = batch.group[block]
            total[block] += log_softmax(start[block] + (logits[group] - own[group]))
    total /= ROUNDS + 1
    return total


def log_softmax_of(logits: Array) -> Array:
    """Logarithm of the softmax of each row `(n, C)`, in the precision that the logits have."""
    result = np.empty_like(logits)
    for block in row_blocks(*logits.shape):
        result[block] = log_softmax(logits[block])
    return result


def _spread(table: Array) -> float:
    """Spread within rows; the largest entry, which speaks for a class, is left out."""
    if table.shape[1] < 3:
        spread = float(table.std())
    else:
        rest = np.sort(table, axis=1)[:, :-1]
        spread = float((rest - rest.mean(axis=1, keepdims=True)).std())
    return spread if spread > 0 else 1.0


# `auto_unlabelled`: no shots at all; the batch itself shows what the classes look like.

_UNLABELLED_FORMULA = (
    "log-odds of yhat in the mean over rounds of softmax(a z + b S + log neighbours), "
    "S cosines to prototypes of the batch's own surest images"
)
# Chosen on training parts of real CLIP and of stand-ins: no set loses accuracy with them.
_TEXT, _CENTRING, _ENOUGH_UNLABELLED = 0.6, 0.6, 12.0


def unlabelled_logits(evidence: Evidence) -> Array:
    """Combine the logits with what the images of the batch say about each other, `(n, C)`.

    The logits are first freed of part of what all images of the batch have in common, which is
    mostly the model's fondness for some names. With few images a class, all of it fades and the
    logits stay. Near-duplicates count as one image, and get the same answer.

    Examples
    --------
    >>> one = Evidence.of(logits=[[2.0, 0.0]], features=[[1.0, 0.0]])
    >>> unlabelled_logits(one)
    array([[2., 0.]])
    """
    return evidence.once("auto_unlabelled", lambda: _combined_unlabelled(evidence))


def _combined_unlabelled(evidence: Evidence) -> Array:
    batch = batch_of(evidence) if evidence.n > 1 and evidence.n_classes > 1 else None
    if batch is None or len(batch) < 2:
        return evidence.logits.astype(np.float64)
    belief = batch_weight(len(batch), evidence.n_classes, _ENOUGH_UNLABELLED)
    tempered = evidence.logits.astype(batch.directions.dtype) * _TEXT**belief
    common = batch.mean_of_copies(tempered).mean(axis=0, dtype=np.float64)
    start = tempered - (belief * _CENTRING * (common - common.mean())).astype(tempered.dtype)
    return refine(start, batch, Weights(1.0, 1.0).times(belief), first=tempered)


_register_unlabelled = partial(
    register,
    needs=("logits", "features"),
    source="this project; docs/research/auto.md",
    complexity="O(n^1.5 d + n C d)",
    whole_batch=True,
    log_odds=True,
    revision=2,
)


@_register_unlabelled("auto_unlabelled", formula=_UNLABELLED_FORMULA)
def auto_unlabelled(evidence: Evidence) -> ScoreResult:
    """Log-odds of the VLM's prediction, verified against the batch's own images; no shots.

    A verdict depends on the other images of the batch. A single image has the log-odds of MSP.
    """
    prediction = judged_labels(evidence)
    return ScoreResult(prediction, log_odds(unlabelled_logits(evidence), prediction))


@_register_unlabelled(
    "auto_unlabelled_star",
    formula=_UNLABELLED_FORMULA.replace("yhat", "the best class"),
    corrects=True,
)
def auto_unlabelled_star(evidence: Evidence) -> ScoreResult:
    """As `auto_unlabelled`, but the prediction is the class that the batch favours."""
    logits = unlabelled_logits(evidence)
    prediction = logits.argmax(axis=1)
    return ScoreResult(prediction, log_odds(logits, prediction))
