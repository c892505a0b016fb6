"""Label errors: which class each shot seems to show, judged by the other shots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores import Evidence
from trustvlm.scores.arrays import class_sums, log_softmax, pick, unit_rows
from trustvlm.scores.held_out import compare_held_out, held_out_indicators

# The posterior of each shot's class, judged by the other shots, and whether its label is wrong. The
# labels themselves may be wrong, so the posterior is fitted under a model of label noise: a share e
# of the labels was replaced, by any other class, all equally likely; or, if that explains the
# labels much better, a share l of these by a class that resembles the true one.

# The parameters are fitted on at most this many shots.
_ENOUGH = 4000
_BOUNDS = (-9.0, 9.0)
# Log-likelihoods this close, summed over the shots, say nothing for either fit.
_EQUALLY_WELL = 0.5
# Without it a single wrong label is taken for unsure evidence. Northcutt et al. count 3 % wrong
# labels in the test sets of ten well-kept benchmarks.
_LEAST_NOISE = 0.01
# Share of images that show another class than theirs to the encoder, rightly labelled as they are:
# no evidence makes a label surely wrong.
_ODD = 0.002
# Look-alikes: by how many ranks of similarity their weight falls to 1/e, and by how much more
# log-likelihood a shot, and in all, they must explain the labels than errors at random do. Some
# images of well-kept sets are ambiguous, too: without planted look-alikes it is up to 0.013 a shot
# on sets of 500 shots and more, with 5 % of them 0.03 to 0.1; on 160 shots chance alone gives 0.03.
_RANKS = 3.0
_BETTER_PER_SHOT = 0.02
_BETTER = 4.0
# Rows of an `(m, C)` table that are worked on at once.
_BLOCK = 2048


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
    similarity
        `(k,)` float64, cosine of each to the prototype of its class without it.
    look_alike
        Estimated share of the wrong labels that confuse classes which resemble each other, in
        [0, 1]; the others may be any class.
    """

    kept: NDArray[np.int64]
    labels: NDArray[np.int64]
    log_probability: NDArray[np.float64]
    mislabelled: NDArray[np.float64]
    noise: float
    similarity: NDArray[np.float64]
    look_alike: float = 0.0

    def ranking(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rank the k labels by how likely they are wrong, and count the wrong ones on the way.

        Returns
        -------
        order
            `(k,)` int64, rows of this posterior, the most doubtful label first, equal ones in
            their order.
        expected_wrong
            `(k,)` float64, expected number of wrong labels among the first 1, 2, ..., k: the sum
            of their probabilities.

        Examples
        --------
        >>> zeros = np.zeros(3)
        >>> table, doubts = np.log(np.full((3, 2), 0.5)), np.array([0.25, 1.0, 0.5])
        >>> ShotPosterior(np.arange(3), np.arange(3) % 2, table, doubts, 0.1, zeros).ranking()
        (array([1, 2, 0]), array([1.  , 1.5 , 1.75]))
        """
        order = np.argsort(-self.mislabelled, kind="stable")
        return order, np.cumsum(self.mislabelled[order])


def shot_posterior(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    n_classes: int,
    logits: ArrayLike | None = None,
) -> ShotPosterior:
    """Estimate the class of every shot from the other shots, and whether its label is wrong.

    The log-posterior is a weighted sum of held-out cosines to the prototypes, of a leave-one-out
    linear classifier and, where passed, of the text's logits. The weights, the share of wrong
    labels e, and the share l of these that confuse look-alikes maximise the likelihood of the
    labels y as given,

        (1 - e) p(y | x) + e [(1 - l) (1 - p(y | x)) / (C - 1) + l s(y | x)],

    where s(y | x) = sum over c of p(c | x) K(c, y) is the chance that a look-alike's label was
    given, K falling geometrically with the rank of y among the classes nearest to c. l is 0 unless
    the likelihood is much greater with it. The second term's share is the probability that the
    label is wrong. With fewer than two classes that have shots nothing can be compared, and no
    label is doubted.

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
    Uniform label noise is the model of Angluin & Laird 1988, "Learning from noisy examples", and a
    matrix of transitions that of Patrini et al. 2017 (arXiv 1609.03683), here with two numbers in
    place of C x C, which few shots could not tell; reading label errors off held-out probabilities
    is confident learning, Northcutt et al. 2021 (arXiv 1911.00068). The constants of the
    look-alikes were chosen on sets with planted errors, see benchmarks/RESULTS.md.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 10)
    >>> x = np.eye(2)[y] + 0.1 * rng.normal(size=(20, 2))
    >>> y[3] = 1  # planted
    >>> posterior = shot_posterior(x, y, n_classes=2)
    >>> np.flatnonzero(posterior.mislabelled > 0.5), round(posterior.noise, 2)
    (array([3]), 0.05)
    """
    evidence = Evidence.of(
        logits=np.empty((0, n_classes)),
        support_features=features,
        support_labels=labels,
        support_logits=np.zeros((len(np.asarray(labels)), n_classes)) if logits is None else logits,
    )
    held_out = compare_held_out(evidence)
    kept, given, present = held_out.kept, held_out.labels, held_out.comparison.present
    similarity = pick(held_out.comparison.similarities, given)
    shots, every = evidence.piece("support_features"), evidence.piece("support_labels")
    if present.sum() < 2 or not len(kept):
        certain = np.full((len(kept), n_classes), -np.inf)
        certain[np.arange(len(kept)), given] = 0.0
        return ShotPosterior(kept, given, certain, np.zeros(len(kept)), 0.0, similarity)
    # Only classes with shots compete; their columns stand side by side.
    columns = np.flatnonzero(present)
    views = [
        held_out.comparison.similarities[:, columns],
        held_out_indicators(shots.astype(np.float64), every, n_classes)[np.ix_(kept, columns)],
    ]
    if logits is not None:
        views.append(held_out.comparison.logits[:, columns].astype(np.float64))
    compact = np.searchsorted(columns, given)
    model = _fit(views, compact, _at_random(len(columns)))
    look_alikes = _look_alikes(class_sums(unit_rows(shots), every, n_classes)[columns])
    mixed_up = _fit(views, compact, look_alikes)
    better = mixed_up.log_likelihood - model.log_likelihood
    if better > max(_BETTER_PER_SHOT, _BETTER / len(kept)):
        model = mixed_up
    look_alike = model.look_alike if model is mixed_up else 0.0
    log_probability = np.full((len(kept), n_classes), -np.inf)
    mislabelled = np.empty(len(kept))
    for start in range(0, len(kept), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = _Labels([view[rows] for view in views], compact[rows], model.confusion)
        p, own, swapped = block.probabilities(model.weights)
        right, wrong = model.likelihoods(own, swapped)
        mislabelled[rows] = wrong / np.maximum(right + wrong, 1e-300)
        log_probability[rows, columns] = np.log(p)
    return ShotPosterior(
        kept, given, log_probability, mislabelled, model.noise, similarity, look_alike
    )


def _at_random(n_classes: int) -> NDArray[np.float64]:
    """Chance that class y is given instead of c, where all others are equally likely."""
    return (1.0 - np.eye(n_classes)) / (n_classes - 1)


def _look_alikes(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance K(c, y) that class y is given instead of c, of classes that look alike, `(C, C)`.

    From the sums of each class's shots. By the rank of the prototypes' cosine around their mean,
    not by the cosine, which every encoder spreads differently; classes equally near share ranks.
    """
    directions = unit_rows(sums)
    directions = unit_rows(directions - directions.mean(axis=0))
    # Rounded, so that identical prototypes are equally near whatever the order of summation.
    distances = -np.round(directions @ directions.T, 9)
    np.fill_diagonal(distances, np.inf)
    table = np.exp((1.0 - scipy.stats.rankdata(distances, axis=1)) / _RANKS)
    np.fill_diagonal(table, 0.0)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


class _Labels:
    """Views of some shots, their labels, and from which classes each label may come by mistake."""

    def __init__(
        self,
        views: Sequence[NDArray[np.float64]],
        labels: NDArray[np.int64],
        confusion: NDArray[np.float64],
    ) -> None:
        self.views, self.labels = views, labels
        self.sources = confusion.T[labels]

    def probabilities(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return p(c | x) `(n, C)`, p(y | x) and s(y | x), `(n,)` each."""
        mixed = sum(weight * view for weight, view in zip(weights, self.views, strict=True))
        p = np.exp(log_softmax(np.asarray(mixed)))
        p = (1.0 - _ODD) * p + _ODD / p.shape[1]
        return p, pick(p, self.labels), (p * self.sources).sum(axis=1)


@dataclass(frozen=True)
class _NoiseModel:
    """Weights of the views, and the shares of wrong labels and of `confusion` among them.

    `log_likelihood` is the mean over the shots that it was fitted on.
    """

    confusion: NDArray[np.float64]
    weights: NDArray[np.float64]
    noise: float
    look_alike: float
    log_likelihood: float = -math.inf

    @classmethod
    def of(
        cls,
        confusion: NDArray[np.float64],
        theta: NDArray[np.float64],
        log_likelihood: float = -math.inf,
    ) -> _NoiseModel:
        """Read it from unbounded numbers; the noise is between the least and one half."""
        noise = _LEAST_NOISE + (0.5 - _LEAST_NOISE) * _sigmoid(theta[-2])
        return cls(confusion, np.exp(theta[:-2]), noise, _sigmoid(theta[-1]), log_likelihood)

    def likelihoods(
        self, own: NDArray[np.float64], swapped: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Joint probabilities of each label with being right, and with being wrong."""
        anything = (1.0 - own) / (len(self.confusion) - 1)
        wrong = (1.0 - self.look_alike) * anything + self.look_alike * swapped
        return (1.0 - self.noise) * own, self.noise * wrong


def _fit(
    views: list[NDArray[np.float64]], labels: NDArray[np.int64], confusion: NDArray[np.float64]
) -> _NoiseModel:
    """Fit the noise model of the greatest likelihood."""
    if len(labels) > _ENOUGH:
        some = np.random.default_rng(0).choice(len(labels), _ENOUGH, replace=False)
        views, labels = [view[some] for view in views], labels[some]
    n, n_classes = views[0].shape
    data = _Labels(views, labels, confusion)

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        model = _NoiseModel.of(confusion, theta)
        noise, share = model.noise, model.look_alike
        p, own, swapped = data.probabilities(model.weights)
        right, wrong = model.likelihoods(own, swapped)
        q = np.maximum(right + wrong, 1e-300)
        # q is linear in p(y | x) and s(y | x), and of p the softmax alone moves with the weights.
        by_own = 1.0 - noise - noise * (1.0 - share) / (n_classes - 1)
        moving = p - _ODD / n_classes
        swapping = moving * data.sources
        slopes = []
        for weight, view in zip(model.weights, views, strict=True):
            mean = (moving * view).sum(axis=1) / (1.0 - _ODD)
            own_slope = pick(moving, labels) * (pick(view, labels) - mean)
            swapped_slope = (swapping * view).sum(axis=1) - swapping.sum(axis=1) * mean
            slope = by_own * own_slope + noise * share * swapped_slope
            slopes.append(weight * (slope / q).mean())
        by_noise = ((wrong / noise - right / (1.0 - noise)) / q).mean()
        slopes.append(by_noise * (noise - _LEAST_NOISE) * (0.5 - noise) / (0.5 - _LEAST_NOISE))
        by_share = noise * (swapped - (1.0 - own) / (n_classes - 1))
        slopes.append((by_share / q).mean() * share * (1.0 - share))
        return -float(np.log(q).mean()), -np.array(slopes)

    # Two explanations of odd labels are local optima: unsure evidence, and wrong labels. They can
    # fit equally well, with two classes above all; the second is then the one worth a look.
    scale = -np.log([max(float(view.std()), 1e-6) for view in views])
    unsure, sure = (
        scipy.optimize.minimize(
            loss,
            np.clip([*(scale + np.log(factor)), np.log(0.1), 0.0], *_BOUNDS),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * (len(views) + 2),
        )
        for factor in (1.0, 10.0)
    )
    best = sure if sure.fun <= unsure.fun + _EQUALLY_WELL / n else unsure
    return _NoiseModel.of(confusion, best.x, -float(best.fun))


def _sigmoid(theta: float) -> float:
    return 1.0 / (1.0 + math.exp(-theta))


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
    expected_wrong
        Expected number of wrong labels among this one and those that are listed before it.
    """

    shot: int
    label: int
    looks_like: int
    probability: float
    expected_wrong: float


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
    level.

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
    order, expected_wrong = posterior.ranking()
    # Probabilities and their means fall from first to last.
    means = expected_wrong / np.arange(1, len(order) + 1)
    likely = posterior.mislabelled[order] > 0.5
    listed = order[: int(((1.0 - means <= false_share) | likely).sum())]
    others = _second_choice(posterior)
    return [
        SuspectLabel(
            shot=int(posterior.kept[i]),
            label=int(posterior.labels[i]),
            looks_like=int(others[i]),
            probability=float(posterior.mislabelled[i]),
            expected_wrong=float(wrong),
        )
        for i, wrong in zip(listed, expected_wrong, strict=False)
    ]


def _second_choice(posterior: ShotPosterior) -> NDArray[np.int64]:
    """Most probable class that is not the label."""
    table = posterior.log_probability.copy()
    np.put_along_axis(table, posterior.labels[:, None], -np.inf, axis=1)
    chosen: NDArray[np.int64] = table.argmax(axis=1)
    return chosen
