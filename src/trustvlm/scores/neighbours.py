"""Scores that look at the shots one by one: the nearest examples of each class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import log_odds, pick, softmax, unit_rows
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import NO_SHOTS, Evidence, FeatureSpace, images_in
from trustvlm.scores.prototypes import NO_PROTOTYPE
from trustvlm.scores.zero_shot import judged_labels


@dataclass(frozen=True)
class _Shots:
    """The shots as unit rows, sorted by class so that classes are runs of columns."""

    directions: NDArray[np.float64]
    labels: NDArray[np.int64]


def _sorted_shots(evidence: Evidence) -> _Shots:
    return _sorted_shots_in("features", evidence)


def _sorted_shots_of_vlm(evidence: Evidence) -> _Shots:
    return _sorted_shots_in("image_embeddings", evidence)


def _sorted_shots_in(space: FeatureSpace, evidence: Evidence) -> _Shots:
    rows, labels = evidence.piece(f"support_{space}"), evidence.piece("support_labels")
    if not len(labels):
        raise InputError(NO_SHOTS)

    def sort() -> _Shots:
        order = np.argsort(labels, kind="stable")
        return _Shots(unit_rows(rows[order]), labels[order])

    return evidence.once(f"sorted shots in {space}", sort)


_register = partial(
    register,
    needs=("logits", "features", "support_features", "support_labels"),
    complexity="O(nmd), m shots",
    fit=_sorted_shots,
)


def _similarities(
    evidence: Evidence, shots: _Shots, space: FeatureSpace = "features"
) -> NDArray[np.float64]:
    def compare() -> NDArray[np.float64]:
        rows = evidence.directions if space == "features" else images_in(space, evidence)
        return np.asarray(rows @ shots.directions.T)

    # Scores may have learned from different shots, and ask about the same images.
    return evidence.once("similarities to shots", compare, of=shots)


def _per_class(
    values: NDArray[np.float64], shots: _Shots, n_classes: int, reduce: np.ufunc, empty: float
) -> NDArray[np.float64]:
    """Reduce the columns of each class to one; classes without shots get `empty`."""
    table = np.full((len(values), n_classes), empty)
    present, starts = np.unique(shots.labels, return_index=True)
    table[:, present] = reduce.reduceat(values, starts, axis=1)
    return table


def nearest_columns(
    similarities: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the k largest entries of each row, largest first, and their columns; ties by column.

    Examples
    --------
    >>> nearest_columns(np.array([[0.1, 0.9, 0.5, 0.9]]), 2)
    (array([[0.9, 0.9]]), array([[1, 3]]))
    """
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
    judges_given=True,
    without_text=True,
)
def knn(
    evidence: Evidence, shots: _Shots, *, k: int = 20, temperature: float = 0.07
) -> ScoreResult:
    """Weighted share of the k nearest shots that belong to the predicted class, in [0, 1].

    A class without shots has share 0.
    """
    if not temperature > 0:
        raise InputError(f"Expected `temperature` to be above 0, but got {temperature}.")
    prediction = judged_labels(evidence)
    nearest, columns = nearest_columns(_similarities(evidence, shots), k)
    votes = softmax(nearest / temperature)
    agrees = shots.labels[columns] == prediction[:, None]
    return ScoreResult(prediction, (votes * agrees).sum(axis=1))


@_register(
    "trust_score",
    formula="d(x, nearest shot of another class) / d(x, nearest shot of yhat)",
    source="Jiang et al. 2018 (arXiv 1805.11783)",
    judges_given=True,
    without_text=True,
)
def trust_score(evidence: Evidence, shots: _Shots) -> ScoreResult:
    """Ratio of the distances to the nearest other class and to the predicted one, 0 or more.

    Euclidean distances of unit vectors, at most 2; the original's density filter is left out, as
    there are few shots. A class without shots lies infinitely far: confidence 0. If only the
    predicted class has shots, the others count as at distance 2.
    """
    prediction = judged_labels(evidence)
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


_TIP_ADAPTER = "Zhang et al. 2022 (arXiv 2207.09519), training-free"


@_register(
    "tip_adapter",
    formula="max softmax(z + a * sum over shots of class c of exp(-b (1 - cos)))",
    source=_TIP_ADAPTER,
    corrects=True,
)
def tip_adapter(
    evidence: Evidence, shots: _Shots, *, alpha: float = 1.0, beta: float = 5.5
) -> ScoreResult:
    """Tip-Adapter: the shots add cached votes to the logits; confidence is the softmax's maximum.

    The original searches `alpha` and `beta` on labelled data; here they are its starting values.
    Cosines are those of the vision encoder. Classes without shots get no votes. Where the softmax
    rounds to 1, images tie: `tip_adapter_log_odds` tells them apart.
    """
    combined = _with_votes(evidence, shots, alpha, beta)
    return ScoreResult(combined.argmax(axis=1), softmax(combined).max(axis=1))


@_register(
    "tip_adapter_log_odds",
    formula="log-odds of yhat in softmax(z + a * sum over shots of class c of exp(-b (1 - cos)))",
    source=_TIP_ADAPTER,
    corrects=True,
)
def tip_adapter_log_odds(
    evidence: Evidence, shots: _Shots, *, alpha: float = 1.0, beta: float = 5.5
) -> ScoreResult:
    """Tip-Adapter by the log-odds of its label, which do not round to ties near certainty.

    Where `tip_adapter` does not tie, the order is much the same. These log-odds are not calibrated:
    the more shots vote, the larger they are.
    """
    combined = _with_votes(evidence, shots, alpha, beta)
    prediction = combined.argmax(axis=1)
    return ScoreResult(prediction, log_odds(combined, prediction))


def _with_votes(
    evidence: Evidence, shots: _Shots, alpha: float, beta: float
) -> NDArray[np.float64]:
    votes = np.exp(-beta * (1.0 - _similarities(evidence, shots)))
    per_class = _per_class(votes, shots, evidence.n_classes, np.add, 0.0)
    return np.asarray(evidence.logits.astype(np.float64) + alpha * per_class)


_register_trine = partial(
    register,
    formula="s_yhat - max over c != yhat of s_c, s_c = sum_r w_r [y_r = c] / sum_r w_r, w_r = "
    "exp(-a r) (1 + cos(x, x_r)) / 2 (1 + cos(t_yhat, t_{y_r})) / 2, r = 0..k-1",
    source="TRINE 2026 (github.com/sgchr273/TRINE)",
    complexity="O(nm(d + e)), m shots",
    judges_given=True,
)


@_register_trine(
    "trine",
    needs=(
        "logits",
        "image_embeddings",
        "text_embeddings",
        "support_image_embeddings",
        "support_labels",
    ),
    revision=2,
    fit=_sorted_shots_of_vlm,
)
def trine(evidence: Evidence, shots: _Shots, *, k: int = 20, decay: float = 0.1) -> ScoreResult:
    """TRINE: support of the predicted class among the nearest shots less another's, in [-1, 1].

    Neighbours are the k nearest shots in the VLM's own image space, all of them if there are
    fewer. Each counts less with its rank, more the nearer it is, and more the more its class's
    text resembles that of the predicted class. Above 0 the neighbours agree with the prediction.
    A class without shots has support 0.
    """
    return _supported(evidence, shots, "image_embeddings", k, decay)


@_register_trine(
    "trine_vision",
    needs=("logits", "features", "text_embeddings", "support_features", "support_labels"),
    fit=_sorted_shots,
)
def trine_vision(
    evidence: Evidence, shots: _Shots, *, k: int = 20, decay: float = 0.1
) -> ScoreResult:
    """As `trine`, with neighbours in the vision encoder's space, as other scores here have them.

    The original has no second encoder; where the vision encoder is the VLM's own, both agree.
    """
    return _supported(evidence, shots, "features", k, decay)


def _supported(
    evidence: Evidence, shots: _Shots, space: FeatureSpace, k: int, decay: float
) -> ScoreResult:
    prediction = judged_labels(evidence)
    nearest, columns = nearest_columns(_similarities(evidence, shots, space), k)
    labels = shots.labels[columns]
    texts = unit_rows(evidence.piece("text_embeddings"))
    votes = np.exp(-decay * np.arange(nearest.shape[1])) * (1.0 + nearest) / 2.0
    own = texts[prediction]
    for rank, of_rank in enumerate(labels.T):  # one (n, e) table at a time
        votes[:, rank] *= (1.0 + np.einsum("ne,ne->n", own, texts[of_rank])) / 2.0
    votes = np.maximum(votes, 0.0)  # a cosine may round to less than -1
    n, n_classes = evidence.logits.shape
    cells = (np.arange(n)[:, None] * n_classes + labels).ravel()
    support = np.bincount(cells, weights=votes.ravel(), minlength=n * n_classes)
    support = support.reshape(n, n_classes)
    predicted = pick(support, prediction)
    np.put_along_axis(support, prediction[:, None], 0.0, axis=1)
    margin, total = predicted - support.max(axis=1), votes.sum(axis=1)
    return ScoreResult(prediction, np.divide(margin, total, out=np.zeros(n), where=total > 0))
