"""How much more can be accepted at the same risk, before and after a change, with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.metrics.bootstrap import multiplicities, resampled_counts
from trustvlm.metrics.counts import Counts, Ranking, rank
from trustvlm.metrics.intervals import student
from trustvlm.scores import ScoreResult
from trustvlm.scores.arrays import as_labels

# Far below the gap between two shares of counts, above what rounding makes of a bound.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Trial:
    """The same k of n images judged before and after a change.

    Attributes
    ----------
    images
        `(k,)` int64, which of the n these are.
    before, after
        Confidence `(k,)` and whether the prediction is correct `(k,)`.
    """

    images: NDArray[np.int64]
    before: tuple[NDArray[np.float64], NDArray[np.bool_]]
    after: tuple[NDArray[np.float64], NDArray[np.bool_]]

    def rows(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Trial:
        """Return some of the images, by mask or indices."""
        (a, right), (b, right_after) = self.before, self.after
        return Trial(self.images[index], (a[index], right[index]), (b[index], right_after[index]))


@dataclass(frozen=True)
class CoverageGain:
    """Share of images that can be accepted with at most a given share of errors among them.

    Attributes
    ----------
    before, after
        That share, as observed, in [0, 1].
    low, high
        Ends of the interval for the gain that will be seen on other images, as many.
    """

    before: float
    after: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """`after` minus `before`."""
        return self.after - self.before


def coverage_gain(
    trials: Sequence[Trial],
    *,
    risk: float,
    level: float = 0.95,
    n_resamples: int = 500,
    seed: int = 0,
) -> CoverageGain:
    """Average the gain in coverage at a risk over trials, with an interval for the next one.

    Parameters
    ----------
    trials
        At least one, on images among the same n labelled ones.
    risk
        Largest share of errors among the accepted, in [0, 1].
    level
        Of the interval.
    n_resamples, seed
        Of the bootstrap.

    Returns
    -------
    CoverageGain
        Means over the trials. The interval is for the gain of one more trial on other images: the
        variance of the mean over resamples of the n images, each of which counts alike in all
        trials that it is part of, that of a single trial, and what one more error among the most
        trusted would change. How often it holds the gain that is seen: docs/research/intervals.md.

    Examples
    --------
    >>> right = np.array([True, True, False, True])
    >>> before = np.array([0.9, 0.2, 0.8, 0.7])
    >>> after = np.array([0.9, 0.8, 0.2, 0.7])
    >>> gain = coverage_gain([Trial(np.arange(4), (before, right), (after, right))], risk=0.0)
    >>> gain.before, gain.after
    (0.25, 0.75)
    """
    n = 1 + max(int(trial.images.max(initial=-1)) for trial in trials)
    rankings = [(trial.images, rank(*trial.before), rank(*trial.after)) for trial in trials]
    before = np.array([_coverage(ranking.in_blocks, risk) for _, ranking, _ in rankings])
    after = np.array([_coverage(ranking.in_blocks, risk) for _, _, ranking in rankings])
    resampled = np.concatenate(
        [
            np.stack([_difference(pair, weights, risk) for pair in rankings])
            for weights in multiplicities(max(n, 1), n_resamples, np.random.default_rng(seed))
        ],
        axis=1,
    )
    start, end = float(before.mean()), float(after.mean())
    # A gain that is seen is one trial more, on images of its own: to the variance of the mean comes
    # that of a single trial.
    variance = float(resampled.mean(axis=0).var() + resampled.var(axis=1).mean())
    # Resamples cannot show an error that the images lack: one more among the most trusted leaves
    # less to be accepted before, so that there is more to gain, or after.
    room, loss = (
        coverages.mean() - np.mean([_coverage(rank(*one).in_blocks, risk, 1) for one in judged])
        for coverages, judged in (
            (before, [trial.before for trial in trials]),
            (after, [trial.after for trial in trials]),
        )
    )
    gain, z = end - start, student(math.inf, level)
    low = gain - z * math.sqrt(variance + loss**2)
    high = gain + z * math.sqrt(variance + room**2)
    return CoverageGain(start, end, max(low, -1.0), min(high, 1.0))


def _difference(
    pair: tuple[NDArray[np.int64], Ranking, Ranking], weights: NDArray[np.int64], risk: float
) -> NDArray[np.float64]:
    """Coverage after minus before, of each resample."""
    images, *rankings = pair
    before, after = (
        _coverage(resampled_counts(ranking, weights[:, images[ranking.order]]), risk)
        for ranking in rankings
    )
    return after - before


def _coverage(counts: Counts, risk: float, further: int = 0) -> NDArray[np.float64]:
    """Largest share accepted with at most this risk, over the last axis, after further errors."""
    within = counts.wrong + further <= (risk + _ROUNDING) * counts.accepted
    accepted = np.where(within, counts.accepted, 0).max(axis=-1)
    return np.asarray(accepted / np.maximum(counts.n, 1))


# Which class to label next, tried out on labelled images: some become shots, the rest judge.

Judge: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], ScoreResult]
"""Judges some labelled images after others joined the shots: `judge(joined, judged)`."""


@dataclass(frozen=True)
class ClassAdvice:
    """What more examples of one class are expected to buy.

    Attributes
    ----------
    label
        The class.
    added
        Labelled images of it that were tried as examples, on average.
    aurc_gain
        By how much the AURC fell, on average; the classes are ranked by it.
    coverage
        Share that can be accepted at the risk, before and after.
    """

    label: int
    added: float
    aurc_gain: float
    coverage: CoverageGain


@dataclass(frozen=True)
class Advice:
    """Which classes to label next.

    Attributes
    ----------
    n
        Labelled images it rests on.
    risk
        Share of errors among the accepted that coverages are for.
    classes
        Best first; only classes whose examples lowered the AURC.
    together
        Expected of examples of the `n_together` best classes at once. The classes were ranked on
        other images than those that this is measured on, so that luck in the ranking is no gain.
        None where no class helps.
    n_together
        How many classes that is.
    """

    n: int
    risk: float
    classes: tuple[ClassAdvice, ...]
    together: CoverageGain | None
    n_together: int


def label_next(
    judge: Judge,
    labels: ArrayLike,
    *,
    n_classes: int,
    risk: float = 0.05,
    examples: int = 8,
    together: int = 3,
    candidates: int = 20,
    repeats: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Find the classes of which more examples help most, by trying.

    Labelled images of a class are given to the model as further shots, and the others judge what
    that changed; several times, with other images each time. Tried are the classes that take part
    in most errors.

    Parameters
    ----------
    judge
        Judges labelled images, by index, after others of them joined the shots.
    labels
        `(n,)` classes of the labelled images, none of which is a shot.
    n_classes
        C.
    risk
        Share of errors among the accepted that coverages are for, in (0, 1).
    examples
        How many images of a class are tried at most; never more than half of those there are.
    together
        How many of the best classes are tried at once.
    candidates
        How many classes are tried at most.
    repeats
        How often each is tried. The judge is called about `repeats` times `candidates` times.
    seed
        Of the draws.
    progress
        Called with judgements made and the most that can be needed.

    Raises
    ------
    InputError
        If no class has two labelled images, or a number is out of range.

    Examples
    --------
    >>> from trustvlm.scores import compute
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 20)
    >>> x = np.eye(2)[y] + 0.3 * rng.normal(size=(40, 2))
    >>> shots, shot_labels = np.array([[1.0, 0.0], [1.0, 0.5]]), [0, 1]  # a bad example of 1
    >>> def judge(joined, judged):
    ...     return compute("trustvlm_star", logits=np.zeros((len(judged), 2)), features=x[judged],
    ...                    support_features=np.concatenate([shots, x[joined]]),
    ...                    support_labels=np.concatenate([shot_labels, y[joined]]))
    >>> label_next(judge, y, n_classes=2).classes[0].label
    1
    """
    label = as_labels(labels, "labels", n_classes=n_classes)
    _check(risk, examples=examples, together=together, candidates=candidates, repeats=repeats)
    if not (np.bincount(label, minlength=n_classes) > 1).any():
        raise InputError(
            "Expected labelled images of which some class has at least two (one to try as an "
            "example, one to judge), but none has. Label more images."
        )
    nobody = np.empty(0, dtype=np.int64)
    rng = np.random.default_rng(seed)
    tried = _involved(judge(nobody, np.arange(len(label))), label, n_classes)[:candidates]
    judge = _counted(judge, repeats * (len(tried) + 3), progress)
    trials: dict[int, list[Trial]] = {c: [] for c in tried}
    added: dict[int, list[int]] = {c: [] for c in tried}
    at_once = []
    for _ in range(repeats):
        donors, judged = _split(label, rng)
        gifts = {c: own[:examples] for c in tried if len(own := donors[label[donors] == c]) > 0}
        before = _answer(judge(nobody, judged), label[judged])
        for c, given in gifts.items():
            answer = _answer(judge(given, judged), label[judged])
            trials[c].append(Trial(judged, before, answer))
            added[c].append(len(given))
        if gifts:
            latest = {c: trials[c][-1] for c in gifts}
            at_once.append(_best_at_once(judge, gifts, latest, label, together, rng))
    helpful = [
        ClassAdvice(
            label=c,
            added=float(np.mean(added[c])),
            aurc_gain=gain,
            coverage=coverage_gain(trials[c], risk=risk, seed=seed),
        )
        for c in tried
        if trials[c] and (gain := float(np.mean([_aurc_gain(t) for t in trials[c]]))) > 0
    ]
    helpful.sort(key=lambda advice: -advice.aurc_gain)
    n_together = min(together, len(helpful))
    return Advice(
        n=len(label),
        risk=risk,
        classes=tuple(helpful),
        together=coverage_gain(at_once, risk=risk, seed=seed) if at_once and helpful else None,
        n_together=n_together,
    )


def _check(risk: float, **counts: int) -> None:
    if not 0 < risk < 1:
        raise InputError(f"Expected `risk` to lie in (0, 1), but got {risk}.")
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"Expected `{name}` to be at least 1, but got {value}.")


def _counted(judge: Judge, most: int, progress: Callable[[int, int], None] | None) -> Judge:
    """Report every judgement."""
    if progress is None:
        return judge
    made = 0

    def counting(joined: NDArray[np.int64], judged: NDArray[np.int64]) -> ScoreResult:
        nonlocal made
        result = judge(joined, judged)
        made += 1
        progress(made, most)
        return result

    return counting


def _involved(result: ScoreResult, labels: NDArray[np.int64], n_classes: int) -> list[int]:
    """Classes with two labelled images or more that take part in most errors, right ones last."""
    wrong = result.prediction != labels
    trouble = np.bincount(labels[wrong], minlength=n_classes)
    trouble += np.bincount(result.prediction[wrong], minlength=n_classes)
    enough = np.bincount(labels, minlength=n_classes) > 1
    order = np.argsort(-trouble, kind="stable")
    return [int(c) for c in order if enough[c]]


def _split(
    labels: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Half of each class as donors of examples, rounded down; the rest judge."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    donates = rank < (counts // 2)[labels[order]]
    return order[donates], order[~donates]


def _answer(
    result: ScoreResult, truth: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return result.confidence, result.prediction == truth


def _aurc_gain(trial: Trial) -> float:
    return metrics.aurc(*trial.before) - metrics.aurc(*trial.after)


def _best_at_once(
    judge: Judge,
    gifts: dict[int, NDArray[np.int64]],
    trials: dict[int, Trial],
    labels: NDArray[np.int64],
    together: int,
    rng: np.random.Generator,
) -> Trial:
    """Rank the classes on one half of the judging images, try the best on the other; and back."""
    one = next(iter(trials.values()))
    confidence, correct = one.before[0].copy(), one.before[1].copy()
    first = rng.permutation(len(one.images)) < len(one.images) // 2
    for ranking, measuring in ((first, ~first), (~first, first)):
        if not (ranking.any() and measuring.any()):
            continue
        gains = {c: _aurc_gain(trial.rows(ranking)) for c, trial in trials.items()}
        best = sorted((c for c in gains if gains[c] > 0), key=lambda c: -gains[c])[:together]
        if best:
            judged = one.images[measuring]
            answer = judge(np.concatenate([gifts[c] for c in best]), judged)
            confidence[measuring], correct[measuring] = _answer(answer, labels[judged])
    return Trial(one.images, one.before, (confidence, correct))
