"""Unsupervised domain adaptation: `auto_adapted`, for images that differ from the shots.

It learns from unlabelled images of the target. These are the batch that is scored; or, where the
evidence has images of the target (`target_logits`, `target_features`, `target_image_embeddings`),
these alone. Both go by one name, since the score is the same and only where its images are from
differs: as with the shots, what the evidence holds is learned from once. What was learned so is of
no batch: each image is judged by itself, can be calibrated for, and streamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.arrays import class_sums, log_odds
from trustvlm.scores.auto import (
    NEEDS,
    OPTIONAL,
    AutoModel,
    auto_logits,
    different_shots,
    fit_auto,
    pack,
    unpack,
)
from trustvlm.scores.auto import STORAGE as AUTO
from trustvlm.scores.compute import Packed, ScoreResult, Storage, register
from trustvlm.scores.evidence import Evidence, FeatureSpace, images_in, shots_in
from trustvlm.scores.transductive import (
    ROUNDS,
    Batch,
    Round,
    Weights,
    batch_of,
    batch_weight,
    log_softmax_of,
    refine,
    rounds_of,
)
from trustvlm.scores.zero_shot import judged_labels

Array = NDArray[Any]

_FORMULA = (
    "as auto, the images moved by what sets the target apart from the shots, then refined by the "
    "target's own surest images"
)
_WEIGHTS = Weights(prototypes=0.5, neighbours=0.5)
# In-class differences may be this share of the shift before they are taken for proportions.
_IN_SPAN = 0.2
# Squared shifts, as shares of the variance within classes, up to which images are like the shots,
# and from which they are another domain.
_ALIKE, _APART = 0.01, 0.03
# Without a shift the batch counts half at so many shots a class, and fully only where images and
# their neighbours agree as much as this.
_SHOTS, _AGREEMENT = 4.0, 0.4


# In what the target differs from the shots.


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


def domain_weight(squared_shift: float, within: float) -> float:
    """How surely a target is another domain than the shots, in [0, 1].

    0 where the squared shift is up to 0.01 of the variance within classes, 1 from 0.03. On the
    sets that this was chosen on it was at most 0.019 where nothing but chance told test images
    from shots, and at least 0.029 between photographs and drawings, or two cameras.

    Examples
    --------
    >>> [round(domain_weight(shift, 20.0), 2) for shift in (0.1, 0.4, 2.0)]
    [0.0, 0.5, 1.0]
    """
    share = squared_shift / within if within > 0 else 0.0
    return float(np.clip((share - _ALIKE) / (_APART - _ALIKE), 0.0, 1.0))


@dataclass(frozen=True)
class Adaptation:
    """What was learned from the images of a target; none of it depends on the images scored.

    Attributes
    ----------
    shift
        `(d,)` by space, what is taken from scaled images before they are compared with the shots.
    batch
        The target's images.
    weights
        Of what they say.
    rounds
        What they say, in each round; none where the weights are 0.
    """

    shift: Mapping[FeatureSpace, Array]
    batch: Batch
    weights: Weights
    rounds: tuple[Round, ...] = ()

    def logits(self, evidence: Evidence, model: AutoModel) -> Array:
        """Judge each image by itself, `(n, C)`; a near-duplicate of the target's by the others."""
        start = model.logits(evidence, self.shift)
        if not self.rounds:
            return start
        directions, copies = self.batch.copy_of(images_in("features", evidence))
        copied, which = np.unique(copies[copies >= 0], return_inverse=True)
        total = log_softmax_of(start)
        for each in self.rounds:
            terms = each.of_others(self.weights, directions)
            terms[copies >= 0] = each.of_own(self.weights, copied)[which]
            total += log_softmax_of(start + terms)
        return np.asarray(total / (ROUNDS + 1))


@dataclass(frozen=True)
class AdaptedModel:
    """`auto`, where its shots lie, and what was learned from the target, if it was passed.

    Attributes
    ----------
    auto
        What `auto` learned from the shots.
    shots
        Where the shots lie, by space.
    shots_per_class
        Mean number over the classes that have any.
    adaptation
        To images of the target that were passed with the shots; None to adapt to each batch.
    """

    auto: AutoModel
    shots: Mapping[FeatureSpace, ShotSpread]
    shots_per_class: float
    adaptation: Adaptation | None = None

    def adapt(self, target: Evidence) -> tuple[Adaptation, Array]:
        """Learn from unlabelled images of the target; also their `auto` logits after the shift.

        How much the images say depends on whether they are another domain than the shots. Where
        they are not, the more shots there are the less does the batch add, and it misleads where
        images and their neighbours are of different classes.
        """
        batch = batch_of(target)
        if len(batch) < 2:
            return Adaptation({}, batch, _WEIGHTS.times(0.0)), auto_logits(target, self.auto)
        scaled = {
            space: batch.mean_of_copies(images_in(space, target)) / self.auto.spaces[space].scale
            for space in self.shots
        }
        shift = {space: shift_of(scaled[space], shots) for space, shots in self.shots.items()}
        features = shift["features"]
        apart = domain_weight(float(features @ features), self.shots["features"].within)
        shift = {space: apart * vector for space, vector in shift.items()} if apart else {}
        start = _in_blocks(self.auto, target, shift)
        say = 1.0
        if apart < 1.0:
            agreement = batch.agreement(np.exp(log_softmax_of(batch.mean_of_copies(start))))
            few = 1.0 / (1.0 + (self.shots_per_class / _SHOTS) ** 2)
            say = max(apart, few * min(1.0, agreement / _AGREEMENT) ** 2)
        belief = say * batch_weight(len(batch), target.n_classes)
        return Adaptation(shift, batch, _WEIGHTS.times(belief)), start


def _in_blocks(model: AutoModel, evidence: Evidence, shift: Mapping[FeatureSpace, Array]) -> Array:
    parts = [model.logits(block, shift) for block in evidence.blocks()]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def fit_adapted(evidence: Evidence) -> AdaptedModel:
    """Learn `auto`, the shots' means and spread, and from images of the target, if there are any.

    Raises
    ------
    InputError
        If there are no shots.
    """
    return evidence.learned(STORAGE.key({}), lambda: _fitted(evidence))


def _fitted(evidence: Evidence) -> AdaptedModel:
    model = fit_auto(evidence)
    kept = different_shots(evidence)
    column = (np.cumsum(model.present) - 1)[evidence.piece("support_labels")[kept]]
    n_present = int(model.present.sum())
    shots: dict[FeatureSpace, ShotSpread] = {}
    for space, part in model.spaces.items():
        rows = shots_in(space, evidence)[kept] / part.scale
        means = class_sums(rows, column, n_present) / np.bincount(column)[:, None]
        centre = means.mean(axis=0)
        _, sizes, axes = np.linalg.svd(means - centre, full_matrices=False)
        basis = axes[sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-300)].T
        # With a shot a class nothing tells the spread within: all variance stands for it.
        freedom = len(rows) - n_present
        residuals = rows - means[column] if freedom else rows - centre
        within = float((residuals**2).sum()) / max(freedom or len(rows) - 1, 1)
        shots[space] = ShotSpread(centre, basis, within, len(rows))
    learned = AdaptedModel(model, shots, len(kept) / n_present)
    target = evidence.target()
    if target is None or evidence.n_classes < 2:
        return learned
    adaptation, start = learned.adapt(target)
    if adaptation.weights.prototypes > 0:
        own = adaptation.batch.mean_of_copies(start)
        rounds = tuple(r for r, _ in rounds_of(own, adaptation.batch, adaptation.weights))
        adaptation = replace(adaptation, rounds=rounds)
    return replace(learned, adaptation=adaptation)


def adapted_logits(evidence: Evidence, learned: AdaptedModel) -> Array:
    """Combine text, shots and target into `(n, C)` logits.

    Where no images of the target were learned from, the batch itself is the target; a single image
    then gets `auto`'s logits.
    """
    if learned.adaptation is None and (evidence.n < 2 or evidence.n_classes < 2):
        return auto_logits(evidence, learned.auto)
    return evidence.once("logits of auto_adapted", lambda: _combined(evidence, learned), of=learned)


def _combined(evidence: Evidence, learned: AdaptedModel) -> Array:
    if learned.adaptation is not None:
        return learned.adaptation.logits(evidence, learned.auto)
    adaptation, start = learned.adapt(evidence)
    batch, weights = adaptation.batch, adaptation.weights
    if not weights.prototypes:
        return start
    return refine(start.astype(batch.directions.dtype, copy=False), batch, weights)


def _unpack(evidence: Evidence, packed: Packed) -> AdaptedModel:
    """Only what is costly is stored: `auto`; the rest is learned anew from shots and target."""
    model = unpack(evidence, packed)
    evidence.learned(AUTO.key({}), lambda: model)
    return _fitted(evidence)


STORAGE = Storage("auto_adapted", 1, lambda model: pack(model.auto), _unpack)

_register_adapted = partial(
    register,
    needs=NEEDS,
    optional=OPTIONAL,
    formula=_FORMULA,
    source="this project; docs/research/auto.md",
    complexity="O(n^1.5 d + n C d), fit as auto",
    fit=fit_adapted,
    whole_batch=True,
    adapts=True,
    log_odds=True,
    revision=2,
    storage=STORAGE,
)


@_register_adapted("auto_adapted")
def auto_adapted(evidence: Evidence, learned: AdaptedModel) -> ScoreResult:
    """Log-odds of the VLM's prediction by `auto`, adapted to the batch that the image came in.

    For images of another kind than the shots: drawings, another camera. A verdict then depends on
    the other images of the batch.
    """
    prediction = judged_labels(evidence)
    return ScoreResult(prediction, log_odds(adapted_logits(evidence, learned), prediction))


@_register_adapted("auto_adapted_star", corrects=True)
def auto_adapted_star(evidence: Evidence, learned: AdaptedModel) -> ScoreResult:
    """As `auto_adapted`, but the prediction is the class that text, shots and batch favour."""
    logits = adapted_logits(evidence, learned)
    prediction = learned.auto.best(logits, judged_labels(evidence))
    return ScoreResult(prediction, log_odds(logits, prediction))
