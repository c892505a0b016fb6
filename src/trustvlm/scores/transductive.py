"""Transductive scores, of a whole unlabelled batch: `auto_adapted`, `auto_unlabelled`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.arrays import class_sums, log_odds, log_softmax, row_blocks, unit_rows
from trustvlm.scores.auto import NEEDS, OPTIONAL, AutoModel, auto_logits, fit_auto
from trustvlm.scores.base_scorers import scale_of
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import Evidence, FeatureSpace, images_in, shots_in
from trustvlm.scores.zero_shot import vlm_prediction

# What the images of one batch say about each other, without any label.

Array = NDArray[np.float64]
_NEIGHBOURS, _SHARPNESS = 10, 5.0
_MOST, _LEAST, _SHARE = 16, 4, 0.5
_ENOUGH = 6.0
_MASS, _FLOOR, _PRIOR = 1.0, 1e-2, 0.25


def batch_weight(n: int, n_classes: int) -> float:
    """How far to believe a batch of n images about C classes, in [0, 1).

    r^2 / (r^2 + 36), r = n / C: a half at six images a class, so that a handful of images leaves
    every verdict as it is.

    Examples
    --------
    >>> batch_weight(1, 10) < 0.001, batch_weight(60, 10)
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
        moved = rows / scale_of(rows)
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
    weights fade with `batch_weight`.

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
    belief = batch_weight(n, n_classes)
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
        spread = float(table.std())
    else:
        rest = np.sort(table, axis=1)[:, :-1]
        spread = float((rest - rest.mean(axis=1, keepdims=True)).std())
    return spread if spread > 0 else 1.0


# `auto_adapted`: shots, and the unlabelled batch, for images that differ from the shots.

_FORMULA = (
    "as auto, the images moved by what sets the batch apart from the shots, then refined by the "
    "batch's own surest images"
)
# In-class differences may be this share of the shift before they are taken for proportions.
_IN_SPAN = 0.2


@dataclass(frozen=True)
class ShotSpread:
    """Where the shots lie in one space, in the space's scale.

    Attributes
    ----------
    centre, basis
        `(d,)` mean of the class means and `(d, r)` orthonormal basis of their differences.
    within
        Variance within classes, summed over the dimensions.
    count
        Number of shots.
    """

    centre: Array
    basis: Array
    within: float
    count: int


@dataclass(frozen=True)
class _Adapted:
    model: AutoModel
    shots: dict[FeatureSpace, ShotSpread]


def shift_of(images: Array, shots: ShotSpread) -> Array:
    """Say by which vector `(d,)` the images of a batch lie apart from the shots, as a domain.

    The difference of means has two causes: other proportions of the classes, which move it inside
    the span of the class means, and another kind of picture, which moves it anywhere. What lies
    outside the span is the domain's, less what sampling explains. What lies inside is the
    domain's too only where it is small beside that: a random direction hardly meets the span.

    Parameters
    ----------
    images
        `(n, d)` scaled images.
    shots
        Where the shots lie.

    Examples
    --------
    >>> shots = ShotSpread(np.zeros(2), np.array([[1.0], [0.0]]), within=1.0, count=50)
    >>> images = np.array([[5.0, 0.0]] * 50)  # all of one class: no shift
    >>> float(np.abs(shift_of(images, shots)).sum())
    0.0
    """
    apart = images.mean(axis=0) - shots.centre
    inside = shots.basis @ (shots.basis.T @ apart)
    outside = apart - inside
    chance = shots.within * (1.0 / len(images) + 1.0 / shots.count)
    beyond = float((outside**2).sum())
    if beyond <= chance:
        return np.zeros_like(apart)
    certain = beyond - chance
    whole = max(0.0, 1.0 - float((inside**2).sum()) / (_IN_SPAN * certain))
    return np.asarray(certain / beyond * (outside + whole * inside))


def fit_adapted(evidence: Evidence) -> _Adapted:
    """Learn `auto` and the shots' means and spread."""
    return evidence.once("auto_adapted", lambda: _fitted(evidence))


def _fitted(evidence: Evidence) -> _Adapted:
    model = fit_auto(evidence)
    column = (np.cumsum(model.present) - 1)[evidence.piece("support_labels")]
    n_present = int(model.present.sum())
    shots: dict[FeatureSpace, ShotSpread] = {}
    for space, part in model.spaces.items():
        rows = shots_in(space, evidence) / part.scale
        means = class_sums(rows, column, n_present) / np.bincount(column)[:, None]
        centre = means.mean(axis=0)
        _, sizes, axes = np.linalg.svd(means - centre, full_matrices=False)
        basis = axes[sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-300)].T
        # With a shot a class nothing tells the spread within: all variance stands for it.
        freedom = len(rows) - n_present
        residuals = rows - means[column] if freedom else rows - centre
        within = float((residuals**2).sum()) / max(freedom or len(rows) - 1, 1)
        shots[space] = ShotSpread(centre, basis, within, len(rows))
    return _Adapted(model, shots)


def adapted_logits(evidence: Evidence, learned: _Adapted) -> Array:
    """Combine text, shots and the batch into `(n, C)` logits; a single image gets `auto`'s."""
    if evidence.n < 2 or evidence.n_classes < 2:
        return auto_logits(evidence, learned.model)
    return evidence.once("logits of auto_adapted", lambda: _combined(evidence, learned), of=learned)


def _combined(evidence: Evidence, learned: _Adapted) -> Array:
    model = learned.model
    shift = {
        space: shift_of(images_in(space, evidence) / model.spaces[space].scale, shots)
        for space, shots in learned.shots.items()
    }
    moved = model.logits(evidence, shift)
    batch = batch_of(evidence)
    return refine(moved, batch, first=moved, keep=1.0, prototypes=0.5, neighbours=0.5)


_register_adapted = partial(
    register,
    needs=NEEDS,
    optional=OPTIONAL,
    formula=_FORMULA,
    source="this project; docs/research/auto.md",
    complexity="O(n^2 d), fit as auto",
    fit=fit_adapted,
    whole_batch=True,
    log_odds=True,
)


@_register_adapted("auto_adapted")
def auto_adapted(evidence: Evidence, learned: _Adapted) -> ScoreResult:
    """Log-odds of the VLM's prediction by `auto`, adapted to the batch that the image came in.

    For images of another kind than the shots: drawings, another camera. A verdict then depends on
    the other images of the batch.
    """
    prediction = vlm_prediction(evidence)
    return ScoreResult(prediction, log_odds(adapted_logits(evidence, learned), prediction))


@_register_adapted("auto_adapted_star", corrects=True)
def auto_adapted_star(evidence: Evidence, learned: _Adapted) -> ScoreResult:
    """As `auto_adapted`, but the prediction is the class that text, shots and batch favour."""
    logits = adapted_logits(evidence, learned)
    prediction = logits.argmax(axis=1)
    return ScoreResult(prediction, log_odds(logits, prediction))


# `auto_unlabelled`: no shots at all; the batch itself shows what the classes look like.

_UNLABELLED_FORMULA = (
    "log-odds of yhat in the mean over rounds of softmax(a z + b S + log neighbours), "
    "S cosines to prototypes of the batch's own surest images"
)
_TEXT, _CENTRING = 0.3, 0.6


def unlabelled_logits(evidence: Evidence) -> NDArray[np.float64]:
    """Combine the logits with what the images of the batch say about each other, `(n, C)`.

    The logits are first freed of part of what all images of the batch have in common, which is
    mostly the model's fondness for some names. With few images a class, all of it fades and the
    logits stay.

    Examples
    --------
    >>> one = Evidence.of(logits=[[2.0, 0.0]], features=[[1.0, 0.0]])
    >>> unlabelled_logits(one)
    array([[2., 0.]])
    """
    return evidence.once("auto_unlabelled", lambda: _combined_unlabelled(evidence))


def _combined_unlabelled(evidence: Evidence) -> NDArray[np.float64]:
    z = evidence.logits.astype(np.float64)
    n, n_classes = z.shape
    if n < 2 or n_classes < 2:
        return z
    belief = batch_weight(n, n_classes)
    common = z.mean(axis=0)
    start = z - belief * _CENTRING * (common - common.mean())
    tempered = _TEXT**belief
    return refine(
        tempered * start,
        batch_of(evidence),
        first=tempered * z,
        keep=1.0,
        prototypes=1.0,
        neighbours=1.0,
    )


_register_unlabelled = partial(
    register,
    needs=("logits", "features"),
    source="this project; docs/research/auto.md",
    complexity="O(n^2 d)",
    whole_batch=True,
    log_odds=True,
)


@_register_unlabelled("auto_unlabelled", formula=_UNLABELLED_FORMULA)
def auto_unlabelled(evidence: Evidence) -> ScoreResult:
    """Log-odds of the VLM's prediction, verified against the batch's own images; no shots.

    A verdict depends on the other images of the batch. A single image has the log-odds of MSP.
    """
    prediction = vlm_prediction(evidence)
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
