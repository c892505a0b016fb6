"""Scores that look at the shots one by one: the nearest examples of each class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import pick, softmax, unit_rows
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import NO_SHOTS, Evidence
from trustvlm.scores.prototypes import NO_PROTOTYPE
from trustvlm.scores.zero_shot import vlm_prediction


@dataclass(frozen=True)
class _Shots:
    """The shots as unit rows, sorted by class so that classes are runs of columns."""

    directions: NDArray[np.float64]
    labels: NDArray[np.int64]


def _sorted_shots(evidence: Evidence) -> _Shots:
    features, labels = evidence.piece("support_features"), evidence.piece("support_labels")
    if not len(labels):
        raise InputError(NO_SHOTS)

    def sort() -> _Shots:
        order = np.argsort(labels, kind="stable")
        return _Shots(unit_rows(features[order]), labels[order])

    return evidence.once("sorted shots", sort)


_register = partial(
    register,
    needs=("logits", "features", "support_features", "support_labels"),
    complexity="O(nmd), m shots",
    fit=_sorted_shots,
)


def _similarities(evidence: Evidence, shots: _Shots) -> NDArray[np.float64]:
    # Scores may have learned from different shots, and ask about the same images.
    return evidence.once(
        "similarities to shots", lambda: evidence.directions @ shots.directions.T, of=shots
    )


def _per_class(
    values: NDArray[np.float64], shots: _Shots, n_classes: int, reduce: np.ufunc, empty: float
) -> NDArray[np.float64]:
    """Reduce the columns of each class to one; classes without shots get `empty`."""
    table = np.full((len(values), n_classes), empty)
    present, starts = np.unique(shots.labels, return_index=True)
    table[:, present] = reduce.reduceat(values, starts, axis=1)
    return table


def _nearest(
    similarities: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Similarities and columns of the k nearest shots, nearest first; ties by column."""
    if k < 1:
        raise InputError(f"Expected `k` to be at least 1, but got {k}.")
    if k >= similarities.shape[1]:
        columns = np.argsort(-similarities, axis=1, kind="stable")
        return np.take_along_axis(similarities, columns, axis=1), columns
    columns = np.sort(np.argpartition(-similarities, k - 1, axis=1)[:, :k], axis=1)
    nearest = np.take_along_axis(similarities, columns, axis=1)
    # Choosing part of the columns is faster than ordering all, but chooses any of those tied for
    # the last rank: there the order decides.
    tied = (similarities >= nearest.min(axis=1, keepdims=True)).sum(axis=1) > k
    if tied.any():
        columns[tied] = np.argsort(-similarities[tied], axis=1, kind="stable")[:, :k]
        nearest = np.take_along_axis(similarities, columns, axis=1)
    order = np.argsort(-nearest, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(columns, order, axis=1)


@_register(
    "knn",
    formula="sum of exp(cos / T) over the k nearest shots of yhat / the same over the k nearest",
    source="Wu et al. 2018 (arXiv 1805.01978)",
)
def knn(
    evidence: Evidence, shots: _Shots, *, k: int = 20, temperature: float = 0.07
) -> ScoreResult:
    """Weighted share of the k nearest shots that belong to the predicted class, in [0, 1].

    A class without shots has share 0.
    """
    if not temperature > 0:
        raise InputError(f"Expected `temperature` to be above 0, but got {temperature}.")
    prediction = vlm_prediction(evidence)
    nearest, columns = _nearest(_similarities(evidence, shots), k)
    votes = softmax(nearest / temperature)
    agrees = shots.labels[columns] == prediction[:, None]
    return ScoreResult(prediction, (votes * agrees).sum(axis=1))


@_register(
    "trust_score",
    formula="d(x, nearest shot of another class) / d(x, nearest shot of yhat)",
    source="Jiang et al. 2018 (arXiv 1805.11783)",
)
def trust_score(evidence: Evidence, shots: _Shots) -> ScoreResult:
    """Ratio of the distances to the nearest other class and to the predicted one, 0 or more.

    Euclidean distances of unit vectors, at most 2; the original's density filter is left out, as
    there are few shots. A class without shots lies infinitely far: confidence 0. If only the
    predicted class has shots, the others count as at distance 2.
    """
    prediction = vlm_prediction(evidence)
    nearest = _per_class(
        _similarities(evidence, shots), shots, evidence.n_classes, np.maximum, NO_PROTOTYPE
    )
    present = np.isin(np.arange(evidence.n_classes), shots.labels)
    distance = np.sqrt(np.maximum(2.0 - 2.0 * nearest, 0.0))
    own = pick(distance, prediction)
    np.put_along_axis(distance, prediction[:, None], np.inf, axis=1)
    other = np.minimum(distance.min(axis=1), 2.0)
    ratio = other / np.maximum(own, 1e-12)  # as in the original, an exact hit stays finite
    return ScoreResult(prediction, np.where(present[prediction], ratio, 0.0))


@_register(
    "tip_adapter",
    formula="max softmax(z + a * sum over shots of class c of exp(-b (1 - cos)))",
    source="Zhang et al. 2022 (arXiv 2207.09519), training-free",
    corrects=True,
)
def tip_adapter(
    evidence: Evidence, shots: _Shots, *, alpha: float = 1.0, beta: float = 5.5
) -> ScoreResult:
    """Tip-Adapter: the shots add cached votes to the logits; confidence is the softmax's maximum.

    The original searches `alpha` and `beta` on labelled data; here they are its starting values.
    Cosines are those of the vision encoder. Classes without shots get no votes.
    """
    votes = np.exp(-beta * (1.0 - _similarities(evidence, shots)))
    per_class = _per_class(votes, shots, evidence.n_classes, np.add, 0.0)
    combined = evidence.logits.astype(np.float64) + alpha * per_class
    return ScoreResult(combined.argmax(axis=1), softmax(combined).max(axis=1))


@_register(
    "trine",
    formula="sum_r w_r p_{y_r} [y_r = yhat] / sum_r w_r p_{y_r}, w_r = 1 / log2(1 + r), r = 1..k",
    source="after TRINE; this reading of it is ours",
)
def trine(evidence: Evidence, shots: _Shots, *, k: int = 20) -> ScoreResult:
    """Share of the predicted class among rank-weighted neighbours guided by the text, in [0, 1].

    The r-th nearest shot counts less with its rank, and in proportion to the text probability of
    its class. A class without shots, or one the text excludes, has share 0.
    """
    prediction = vlm_prediction(evidence)
    nearest, columns = _nearest(_similarities(evidence, shots), k)
    labels = shots.labels[columns]
    rank_weights = 1.0 / np.log2(np.arange(2, nearest.shape[1] + 2))
    votes = rank_weights * np.take_along_axis(softmax(evidence.logits), labels, axis=1)
    total = votes.sum(axis=1)
    share = (votes * (labels == prediction[:, None])).sum(axis=1)
    return ScoreResult(
        prediction, np.divide(share, total, out=np.zeros(len(total)), where=total > 0)
    )
