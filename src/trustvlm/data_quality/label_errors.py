"""Label errors: which class each shot seems to show, judged by the other shots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from trustvlm.exceptions import InputError
from trustvlm.scores import Evidence
from trustvlm.scores.arrays import log_softmax
from trustvlm.scores.held_out import compare_held_out, held_out_indicators

# Which class each shot seems to show, judged by the other shots, and whether its label is wrong.
#
# The labels themselves may be wrong, so the posterior is fitted under a model of label noise: with
# probability e a label was replaced by one of the other classes, all equally likely.

# The weights are fitted on at most this many shots.
_ENOUGH = 4000
_BOUNDS = (-9.0, 9.0)
# Log-likelihoods this close, summed over the shots, say nothing for either fit.
_EQUALLY_WELL = 0.5
# Without it a single wrong label is taken for unsure evidence. Northcutt et al. found 3 % wrong
# labels in the test sets of ten well-kept benchmarks.
_LEAST_NOISE = 0.01
# Share of images that show another class than theirs to the encoder, rightly labelled as they are:
# no evidence makes a label surely wrong.
_ODD = 0.002


@dataclass(frozen=True)
class ShotPosterior:
    """What the other shots say about k of the m shots: those whose class has at least two.

    Attributes
    ----------
    kept
        `(k,)` int64, which shots these are.
    labels
        `(k,)` int64, their labels as given.
    log_probability
        `(k, C)` float64, log of the probability of each class; -inf for classes without shots.
    mislabelled
        `(k,)` float64, probability that the given label is wrong.
    noise
        Estimated share of wrong labels, e; at least 0.01, or 0 if nothing could be compared.
    """

    kept: NDArray[np.int64]
    labels: NDArray[np.int64]
    log_probability: NDArray[np.float64]
    mislabelled: NDArray[np.float64]
    noise: float


def shot_posterior(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    n_classes: int,
    logits: ArrayLike | None = None,
) -> ShotPosterior:
    """Estimate the class of every shot from the other shots, and whether its label is wrong.

    The log-posterior is a weighted sum of held-out cosines to the prototypes, of a leave-one-out
    linear classifier and, where passed, of the text's logits. The weights and the share of wrong
    labels e maximise the likelihood of the labels y as given,

        (1 - e) p(y | x) + e (1 - p(y | x)) / (C - 1),

    and the second term's share of it is the probability that the label is wrong. With fewer than
    two classes that have shots nothing can be compared, and no label is doubted.

    Parameters
    ----------
    features
        `(m, d)` features of the shots.
    labels
        `(m,)` their class indices.
    n_classes
        C.
    logits
        `(m, C)` zero-shot logits of the shots; None leaves the text out.

    Raises
    ------
    InputError
        For arrays that do not fit together, NaN, or rows of zeros.

    Notes
    -----
    The model of uniform label noise is that of Angluin & Laird 1988, "Learning from noisy
    examples"; reading label errors off held-out probabilities is confident learning, Northcutt et
    al. 2021 (arXiv 1911.00068).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 10)
    >>> x = np.eye(2)[y] + 0.1 * rng.normal(size=(20, 2))
    >>> y[3] = 1  # planted
    >>> found = shot_posterior(x, y, n_classes=2)
    >>> np.flatnonzero(found.mislabelled > 0.5), round(found.noise, 2)
    (array([3]), 0.05)
    """
    n_text = 0.0 if logits is None else 1.0
    evidence = Evidence.of(
        logits=np.empty((0, n_classes)),
        support_features=features,
        support_labels=labels,
        support_logits=np.zeros((len(np.asarray(labels)), n_classes)) if logits is None else logits,
    )
    held_out = compare_held_out(evidence)
    kept, given, present = held_out.kept, held_out.labels, held_out.comparison.present
    shots, every = evidence.support_features, evidence.support_labels
    assert shots is not None  # noqa: S101 -- passed above
    assert every is not None  # noqa: S101
    if present.sum() < 2 or not len(kept):
        certain = np.full((len(kept), n_classes), -np.inf)
        certain[np.arange(len(kept)), given] = 0.0
        return ShotPosterior(kept, given, certain, np.zeros(len(kept)), 0.0)
    # Only classes with shots compete; their columns stand side by side.
    columns = np.flatnonzero(present)
    views = [
        held_out.comparison.similarities[:, columns],
        held_out_indicators(shots.astype(np.float64), every, n_classes)[np.ix_(kept, columns)],
    ]
    if n_text:
        views.append(held_out.comparison.logits[:, columns].astype(np.float64))
    compact = np.searchsorted(columns, given)
    weights, noise = _fit(views, compact)
    narrow = np.log(_with_odd_ones(np.exp(log_softmax(_mixed(views, weights)))))
    log_probability = np.full((len(kept), n_classes), -np.inf)
    log_probability[:, columns] = narrow
    right = np.exp(narrow[np.arange(len(kept)), compact])
    wrong = noise * (1.0 - right) / (len(columns) - 1)
    total = (1.0 - noise) * right + wrong
    return ShotPosterior(kept, given, log_probability, wrong / np.maximum(total, 1e-300), noise)


def _mixed(
    views: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(sum(weight * view for weight, view in zip(weights, views, strict=True)))


def _fit(
    views: list[NDArray[np.float64]], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Weights of the views and share of wrong labels of the greatest likelihood."""
    if len(labels) > _ENOUGH:
        some = np.random.default_rng(0).choice(len(labels), _ENOUGH, replace=False)
        views, labels = [view[some] for view in views], labels[some]
    rows = np.arange(len(labels))
    others = views[0].shape[1] - 1

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, noise = np.exp(theta[:-1]), _noise(theta[-1])
        p = np.exp(log_softmax(_mixed(views, weights)))
        sure = p[rows, labels]
        right = _with_odd_ones(p)[rows, labels]
        q = np.maximum((1.0 - noise) * right + noise * (1.0 - right) / others, 1e-300)
        by_right = (1.0 - _ODD) * (1.0 - noise - noise / others) / q
        slopes = [
            weight * (by_right * sure * (view[rows, labels] - (p * view).sum(axis=1))).mean()
            for weight, view in zip(weights, views, strict=True)
        ]
        by_noise = ((1.0 - right) / others - right) / q
        rising = (noise - _LEAST_NOISE) * (0.5 - noise) / (0.5 - _LEAST_NOISE)
        slopes.append(float(by_noise.mean()) * rising)
        return -float(np.log(q).mean()), -np.array(slopes)

    # Two explanations of odd labels are local optima: unsure evidence, and wrong labels. They can
    # fit equally well, with two classes above all; the second is then the one worth a look.
    scale = -np.log([max(float(view.std()), 1e-6) for view in views])
    fits = [
        minimize(
            loss,
            np.clip([*(scale + np.log(factor)), np.log(0.1)], *_BOUNDS),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * (len(views) + 1),
        )
        for factor in (1.0, 10.0)
    ]
    unsure, sure = fits
    best = sure if sure.fun <= unsure.fun + _EQUALLY_WELL / len(labels) else unsure
    return np.exp(best.x[:-1]), _noise(float(best.x[-1]))


def _with_odd_ones(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave every class a small chance, whatever the evidence."""
    return np.asarray((1.0 - _ODD) * p + _ODD / p.shape[1])


def _noise(theta: float) -> float:
    """Map a real number to a share of wrong labels between the least and one half."""
    return _LEAST_NOISE + (0.5 - _LEAST_NOISE) / (1.0 + math.exp(-theta))


# Shots whose label looks wrong.


@dataclass(frozen=True)
class SuspectLabel:
    """A shot that seems to show another class than its label says.

    Attributes
    ----------
    shot
        Its index.
    label, looks_like
        The class it was given, and the class it resembles most of the others.
    probability
        That the label is wrong, in [0, 1].
    """

    shot: int
    label: int
    looks_like: int
    probability: float


def suspect_labels(posterior: ShotPosterior, *, false_share: float = 0.2) -> list[SuspectLabel]:
    """List the shots whose label looks wrong, surest first.

    The list holds every label that is more likely wrong than right, and goes on as long as the
    expected share of right labels in it stays within `false_share`: the mean of one minus the
    probabilities is the estimated false discovery rate.

    Parameters
    ----------
    posterior
        Of the shots, from `shot_posterior`.
    false_share
        Share of the listed shots that may be expected to be right after all, in [0, 1).

    Raises
    ------
    InputError
        If `false_share` is outside [0, 1).

    Notes
    -----
    Sun & Cai 2007, "Oracle and adaptive compound decision rules for false discovery rate
    control": rank by the local false discovery rate and accept while its mean is at most the
    level. It rests on the noise model; labels mixed up between look-alikes are harder to see.

    Examples
    --------
    >>> from trustvlm.data_quality.label_errors import shot_posterior
    >>> x = np.repeat(np.eye(2), 6, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(12, 2))
    >>> y = np.repeat([0, 1], 6)
    >>> y[2] = 1  # planted
    >>> [(s.shot, s.label, s.looks_like) for s in suspect_labels(shot_posterior(x, y, n_classes=2))]
    [(2, 1, 0)]
    """
    if not 0 <= false_share < 1:
        raise InputError(f"Expected `false_share` to lie in [0, 1), but got {false_share}.")
    order = np.argsort(-posterior.mislabelled, kind="stable")
    doubts = 1.0 - posterior.mislabelled[order]
    means = np.cumsum(doubts) / np.arange(1, len(order) + 1)
    # Doubts and their means rise from first to last.
    listed = order[: int(((means <= false_share) | (doubts < 0.5)).sum())]
    others = _second_choice(posterior)
    return [
        SuspectLabel(
            shot=int(posterior.kept[i]),
            label=int(posterior.labels[i]),
            looks_like=int(others[i]),
            probability=float(posterior.mislabelled[i]),
        )
        for i in listed
    ]


def _second_choice(posterior: ShotPosterior) -> NDArray[np.int64]:
    """Most probable class that is not the label."""
    table = posterior.log_probability.copy()
    np.put_along_axis(table, posterior.labels[:, None], -np.inf, axis=1)
    chosen: NDArray[np.int64] = table.argmax(axis=1)
    return chosen
