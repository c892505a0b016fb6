"""Whether a run of images is like the calibration images: one test for the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array
from trustvlm.scores.arrays import as_labels

FALSE_ALARM = 1e-3
"""Bound on the share of runs of the same kind of images that are called different."""

# Resamples of the class mix where counts are too small for the chi-squared distribution.
_RESAMPLES = 9_999
# As few as these expected in a class that is rare double the level of the chi-squared distribution
# at 1 / 3000 if they are 5, and raise it by a tenth if they are 50.
_EXPECTED = 50
# Resamples at a time, in counts; and the images from which on NumPy refuses to draw without
# replacement, where drawing with replacement is the same.
_AT_ONCE, _COUNTS_AT_ONCE, _MANY = 1_000, 2_000_000, 10**9
# So many resamples as unusual as the run end the sampling.
_ENOUGH_ALIKE = 50


@dataclass(frozen=True)
class RunStatistics:
    """What the test needs of the images of a run: sums over images, so that their order is nothing.

    Attributes
    ----------
    images
        `(C,)` int64, images by predicted class.
    larger
        By stream, `(C,)` float64: of the pairs of a calibration image and an image of the run that
        were given the same class, in how many the run's value is the larger one; a tie is half.

    Examples
    --------
    >>> reference = ShiftReference({"typicality": [0.5, 0.7]}, [0, 0], n_classes=2)
    >>> a, b = (reference.statistics({"typicality": [t]}, [0]) for t in (0.6, 0.7))
    >>> (a + b).images, (a + b).larger["typicality"]
    (array([2, 0]), array([2.5, 0. ]))
    """

    images: NDArray[np.int64]
    larger: Mapping[str, NDArray[np.float64]]

    def __add__(self, other: RunStatistics) -> RunStatistics:
        """Return the statistics of both runs' images together."""
        return RunStatistics(
            self.images + other.images,
            {name: values + other.larger[name] for name, values in self.larger.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, of the classes with images only."""
        classes = np.flatnonzero(self.images)
        return {
            "classes": classes.tolist(),
            "images": self.images[classes].tolist(),
            "larger": {name: values[classes].tolist() for name, values in self.larger.items()},
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], n_classes: int) -> RunStatistics:
        """Restore what `to_dict` gave."""
        images = np.zeros(n_classes, dtype=np.int64)
        images[stored["classes"]] = stored["images"]
        larger = {name: np.zeros(n_classes) for name in stored["larger"]}
        for name, values in stored["larger"].items():
            larger[name][stored["classes"]] = values
        return cls(images, larger)


@dataclass(frozen=True)
class ShiftTest:
    """What the test says of a run.

    Attributes
    ----------
    n
        Images of the run.
    p_values
        By stream, and of `class_mix`: how often a run like the calibration images looks as
        different as this one. NaN where nothing can be compared.
    false_alarm
        The level, shared evenly by these tests.
    classes
        Classes whose share differs most from that among the calibration images, the largest
        difference first, three at most.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(100) % 5
    >>> reference = ShiftReference(
    ...     {"typicality": rng.normal(size=100)}, labels, 5, mix=np.bincount(labels))
    >>> reference.test({"typicality": rng.normal(size=50)}, np.arange(50) % 5).other_kind
    False
    >>> reference.test({"typicality": rng.normal(size=50) - 2}, np.arange(50) % 5).other_kind
    True
    >>> reference.test({"typicality": rng.normal(size=50)}, np.zeros(50, dtype=int)).other_mix
    True
    """

    n: int
    p_values: Mapping[str, float]
    false_alarm: float
    classes: tuple[int, ...]

    @property
    def other_kind(self) -> bool:
        """Whether the images are of another kind than the calibration images."""
        return any(self._rejects(name) for name in self.p_values if name != "class_mix")

    @property
    def other_mix(self) -> bool:
        """Whether the classes are mixed in other shares."""
        return "class_mix" in self.p_values and self._rejects("class_mix")

    def _rejects(self, name: str) -> bool:
        return self.p_values[name] <= self.false_alarm / len(self.p_values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; None for what cannot be compared."""
        p_values = {name: None if np.isnan(p) else p for name, p in self.p_values.items()}
        return {
            "images": self.n,
            "false_alarm": self.false_alarm,
            "p_values": p_values,
            "other_kind": self.other_kind,
            "other_mix": self.other_mix,
        }


class ShiftReference:
    """Values of the calibration images that those of a run are compared with, class by class.

    Images are compared with calibration images of the same predicted class, so that another mix
    of classes alone does not make images seem to be of another kind; the mix has a test of its own.

    Parameters
    ----------
    streams
        `(n,)` real numbers each, by name, such as confidence and typicality; NaN is left out.
    prediction
        `(n,)` predicted classes of the calibration images.
    n_classes
        C.
    low_side
        Streams of which only lower values count as a difference. If the calibration values are
        lower than those of ordinary images, as those of held-out shots are, the bound on false
        alarms still holds.
    mix
        `(C,)` how many calibration images were given each class; None compares no mix, as with
        shots, whose mix is no sample.

    Raises
    ------
    InputError
        For arrays that do not fit, infinity, or classes out of range.

    Notes
    -----
    For each stream, Wilcoxon's rank-sum test stratified by predicted class, with the weights
    1 / (n_c + m_c + 1) of van Elteren 1960, in the normal approximation with a correction for
    continuity and without one for ties, which makes it the more careful the more ties there are.
    For the mix, Pearson's chi-squared test of homogeneity; where an expected count is below 50 its
    null distribution is sampled with both margins fixed. The level is shared by Bonferroni.
    """

    def __init__(
        self,
        streams: Mapping[str, ArrayLike],
        prediction: ArrayLike,
        n_classes: int,
        *,
        low_side: frozenset[str] = frozenset(),
        mix: ArrayLike | None = None,
    ) -> None:
        labels = as_labels(prediction, "prediction", n_classes=n_classes)
        self.n_classes, self.low_side = n_classes, low_side
        self.mix = None if mix is None else np.asarray(mix, dtype=np.int64)
        self._streams = {
            name: _ByClass(_values(values, name, len(labels)), labels, n_classes)
            for name, values in streams.items()
        }

    def statistics(self, streams: Mapping[str, ArrayLike], prediction: ArrayLike) -> RunStatistics:
        """Reduce `(m,)` images of a run to sums; those of several parts of it add up.

        Raises
        ------
        InputError
            As for the class; every stream of the calibration images must be there.
        """
        labels = as_labels(prediction, "prediction", n_classes=self.n_classes)
        missing = self._streams.keys() - streams.keys()
        if missing:
            raise InputError(
                f"Expected values of {', '.join(self._streams)}, but got no {missing}."
            )
        return RunStatistics(
            np.bincount(labels, minlength=self.n_classes),
            {
                name: reference.pairs_below(_values(streams[name], name, len(labels)), labels)
                for name, reference in self._streams.items()
            },
        )

    def test(
        self, streams: Mapping[str, ArrayLike], prediction: ArrayLike, **settings: Any
    ) -> ShiftTest:
        """Test `(m,)` images of a run at once; settings as in `test_statistics`."""
        return self.test_statistics(self.statistics(streams, prediction), **settings)

    def test_statistics(
        self, run: RunStatistics, *, false_alarm: float = FALSE_ALARM, seed: int = 0
    ) -> ShiftTest:
        """Test a run by its statistics.

        Parameters
        ----------
        run
            Sums over its images.
        false_alarm
            Bound on the chance that a run of the same kind and mix is called different.
        seed
            Of the resamples of the class mix.
        """
        p_values = {
            name: reference.p_value(run.larger[name], run.images, lower=name in self.low_side)
            for name, reference in self._streams.items()
        }
        classes: tuple[int, ...] = ()
        if self.mix is not None:
            p_values["class_mix"] = _mix_p_value(self.mix, run.images, seed)
            excess = np.abs(_shares(run.images) - _shares(self.mix))
            order = np.argsort(-excess, kind="stable")[:3]
            classes = tuple(int(c) for c in order if excess[c] > 0)
        return ShiftTest(int(run.images.sum()), p_values, false_alarm, classes)


class _ByClass:
    """A stream's calibration values, in order within each predicted class."""

    def __init__(
        self, values: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int
    ) -> None:
        usable = ~np.isnan(values)
        values, labels = values[usable], labels[usable]
        self.levels = np.unique(values)
        self.keys = np.sort(self._keys(values, labels))
        self.counts = np.bincount(labels, minlength=n_classes)
        self.starts = np.cumsum(self.counts) - self.counts

    def _keys(self, values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Map values to whole numbers in the same order, those of a class after the classes before.

        A value among the n distinct calibration values has an odd number, one between them an even
        one, all below 2 n + 1.
        """
        left = np.searchsorted(self.levels, values, side="left")
        right = np.searchsorted(self.levels, values, side="right")
        return labels * (2 * len(self.levels) + 1) + left + right

    def pairs_below(
        self, values: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """By class, pairs in which the calibration value is the smaller one; ties are half.

        NaN counts as equal to all, as it tells nothing.
        """
        keys = self._keys(values, labels)
        left = np.searchsorted(self.keys, keys, side="left")
        right = np.searchsorted(self.keys, keys, side="right")
        below = (left + right) / 2 - self.starts[labels]
        below = np.where(np.isnan(values), self.counts[labels] / 2, below)
        sums = np.bincount(labels, weights=below, minlength=len(self.counts))
        return np.asarray(sums, dtype=np.float64)

    def p_value(
        self, larger: NDArray[np.float64], images: NDArray[np.int64], *, lower: bool
    ) -> float:
        """Van Elteren's test of sums by class; NaN without classes that have both."""
        n, m = self.counts.astype(np.float64), images.astype(np.float64)
        weights = np.where(n * m > 0, 1 / (n + m + 1), 0.0)
        variance = (weights**2 * n * m * (n + m + 1) / 12).sum()
        if variance == 0:
            return float("nan")
        excess = (weights * (larger - n * m / 2)).sum()
        # Half a step of the sum: a pair more in a class of the largest weight. Without it, classes
        # with one image each, whose sum is binomial, give up to half as many alarms again.
        half = weights.max() / 2
        if lower:
            return _normal_tail(-(excess + half) / np.sqrt(variance))
        return min(1.0, 2 * _normal_tail((abs(excess) - half) / np.sqrt(variance)))


def _mix_p_value(mix: NDArray[np.int64], run: NDArray[np.int64], seed: int) -> float:
    """Chi-squared test of homogeneity of two rows of counts; NaN if there is nothing to compare."""
    total = mix + run
    mix, run, total = (counts[total > 0] for counts in (mix, run, total))
    n, m = int(mix.sum()), int(run.sum())
    if n == 0 or m == 0:
        return float("nan")
    if len(total) < 2:
        return 1.0

    def statistic(counts: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        # Of one row, of this size: counts lie as far from the expected ones in the other.
        expected = total * (size / (n + m))
        result: NDArray[np.float64] = ((counts - expected) ** 2 / total).sum(axis=-1)
        return result

    observed = statistic(run, m)
    p_value = _chi_squared_tail(float(observed) * (n + m) ** 2 / (n * m), len(total) - 1)
    if total.min() * min(n, m) >= _EXPECTED * (n + m) or p_value > 0.05:
        return p_value
    rng = np.random.default_rng(seed)
    fewer, as_unusual, left = min(n, m), 0, _RESAMPLES
    while left:
        size = min(left, max(1, min(_AT_ONCE, _COUNTS_AT_ONCE // len(total))))
        if n + m < _MANY:
            drawn = rng.multivariate_hypergeometric(total, fewer, size=size)
        else:
            drawn = rng.multinomial(fewer, total / (n + m), size=size)
        as_unusual += int((statistic(drawn, fewer) >= observed * (1 - 1e-12)).sum())
        left -= size
        if as_unusual >= _ENOUGH_ALIKE:
            # Far from the level: the share so far will do (Besag & Clifford 1991).
            return as_unusual / (_RESAMPLES - left)
    return (1 + as_unusual) / (_RESAMPLES + 1)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / max(1, counts.sum())
    return shares


def _values(values: ArrayLike, name: str, n: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise InputError(f"Expected `{name}` to be {n} numbers, but got shape {array.shape}.")
    confidence_array(array[~np.isnan(array)], name)
    return array


# SciPy has these two, and takes longer to load than one image to judge.


def _normal_tail(z: float) -> float:
    """Return the probability that a standard normal is above z."""
    return math.erfc(z / math.sqrt(2)) / 2


def _chi_squared_tail(x: float, degrees: int) -> float:
    """Return the probability that chi-squared of whole degrees is above x."""
    half = x / 2
    if half <= 0:
        return 1.0
    # Integration by parts, two degrees at a time, down to 2 (exponential) or 1 (a squared normal).
    orders = (i / 2 for i in range(degrees % 2, degrees, 2))
    terms = (math.exp(i * math.log(half) - half - math.lgamma(i + 1)) for i in orders)
    return min(1.0, math.fsum(terms) + (math.erfc(math.sqrt(half)) if degrees % 2 else 0.0))
