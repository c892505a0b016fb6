"""Conformal prediction sets: the labels that an image may have, the true one among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.risk_control.tests import check_fraction
from trustvlm.scores.arrays import as_labels
from trustvlm.text import join_names

SET_METHODS = ("lac", "aps", "raps")
"""How a label is found unusual: by its probability, by that of all more probable labels and its
own, or by the latter and its rank."""

# Of RAPS: labels beyond this rank cost so much each. Fixed, so that nothing is chosen on the
# calibration images; the values are those of the paper's authors for ImageNet.
_RANK, _COST = 5, 0.01


def check_set_method(name: str) -> None:
    """Raise `InputError` for a method that is not offered.

    Examples
    --------
    >>> check_set_method("aps")
    """
    if name not in SET_METHODS:
        raise InputError(
            f"Expected the method of prediction sets to be {join_names(SET_METHODS, 'or')}, but "
            f"got {name!r}."
        )


def nonconformity(probabilities: ArrayLike, method: str = "lac") -> NDArray[np.float64]:
    """Say how unusual each label would be for each image.

    Parameters
    ----------
    probabilities
        `(n, C)` of the classes, rows that sum to 1; any scores in [0, 1] do.
    method
        `lac`: one minus the probability of the label. `aps`: the sum of the probabilities of all
        labels at least as probable. `raps`: the same, plus 0.01 for every rank beyond the fifth.

    Returns
    -------
    ndarray
        `(n, C)` float64, higher is more unusual.

    Raises
    ------
    InputError
        For another method, another shape, or values outside [0, 1].

    Notes
    -----
    Sadinle, Lei & Wasserman 2019 (LAC); Romano, Sesia & Candes 2020 (APS), without randomisation,
    which makes sets larger and the same each time; Angelopoulos et al. 2021 (RAPS).

    Examples
    --------
    >>> p = [[0.7, 0.2, 0.1]]
    >>> nonconformity(p).round(2), nonconformity(p, "aps").round(2)
    (array([[0.3, 0.8, 0.9]]), array([[0.7, 0.9, 1. ]]))
    """
    p = np.asarray(probabilities, dtype=np.float64)
    check_set_method(method)
    if p.ndim != 2 or not ((p >= 0) & (p <= 1 + 1e-9)).all():
        raise InputError(f"Expected `probabilities` to be (n, C) in [0, 1], but got {p.shape}.")
    if method == "lac":
        return np.asarray(1 - p)
    order = np.argsort(-p, axis=1, kind="stable")
    descending = np.take_along_axis(p, order, axis=1)
    sums = np.cumsum(descending, axis=1)
    # Tied labels come into a set together: all have the sum up to the last of them.
    for column in range(p.shape[1] - 2, -1, -1):
        tied = descending[:, column] == descending[:, column + 1]
        sums[:, column] = np.where(tied, sums[:, column + 1], sums[:, column])
    if method == "raps":
        sums += _COST * np.maximum(0, np.arange(1, p.shape[1] + 1) - _RANK)
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


@dataclass(frozen=True)
class PredictionSets:
    """From the probabilities of the classes to the set of labels that an image may have.

    Attributes
    ----------
    level
        The true label is in the set with at least this probability, over the draw of the
        calibration images and the new one.
    method
        Of `SET_METHODS`.
    quantiles
        `(C,)` by label: it is in the set if its nonconformity is at most this; infinite where
        the calibration images are too few to leave a label out.
    own
        `(C,)` bool: labels with enough calibration images for a quantile of their own. For images
        of each of these classes the level holds as well; for those of the others, together.
    """

    level: float
    method: str
    quantiles: NDArray[np.float64]
    own: NDArray[np.bool_]

    @classmethod
    def fit(
        cls,
        calibration: ArrayLike,
        labels: ArrayLike,
        n_classes: int,
        *,
        level: float = 0.95,
        method: str = "lac",
        class_conditional: bool = True,
    ) -> PredictionSets:
        """Learn from `n` calibration images how unusual true labels are.

        Parameters
        ----------
        calibration
            `(n,)` nonconformity of the true label of each, of the same method.
        labels
            `(n,)` true classes.
        n_classes
            C.
        level
            In (0, 1).
        method
            Of `SET_METHODS`.
        class_conditional
            Give every class with enough images a quantile of its own, and the others one together.

        Raises
        ------
        InputError
            For arrays that do not fit, NaN, or a level outside (0, 1).

        Notes
        -----
        Split conformal prediction: Vovk, Gammerman & Shafer 2005; the quantile is the
        ceil((n + 1) level)-th smallest of n. Class by class it is Mondrian, or label-conditional,
        conformal prediction, whose categories here are the classes with more than
        k = level / (1 - level) images, the new one among them, and all others as one, so that the
        level holds for all images together as well. With the new image's label a class with k
        calibration images has k + 1, and a quantile of its own; without, it is one of the others,
        and its images count among theirs. If they did not, the others would lack a class in just
        those calibration sets that hold many of it.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.integers(0, 3, 300)
        >>> p = rng.dirichlet(np.ones(3), 300) / 3 + np.eye(3)[truth] * 2 / 3
        >>> unusual = nonconformity(p)[np.arange(300), truth]
        >>> sets = PredictionSets.fit(unusual, truth, 3, level=0.9)
        >>> int(sets.contains(p).sum(axis=1).max()), sets.own
        (1, array([ True,  True,  True]))
        """
        check_fraction(level, "level")
        check_set_method(method)
        unusual = np.asarray(calibration, dtype=np.float64)
        truth = as_labels(labels, "labels", n_classes=n_classes, n=len(unusual))
        if unusual.ndim != 1 or np.isnan(unusual).any():
            raise InputError("Expected `calibration` to be (n,) numbers, none of them NaN.")
        counts = np.bincount(truth, minlength=n_classes)
        own = _enough(counts, level) & class_conditional
        # As it would be without one of the images: see the notes.
        others = ~(own & _enough(counts - 1, level))
        quantiles = np.full(n_classes, _quantile(unusual[others[truth]], level))
        for label in np.flatnonzero(own):
            quantiles[label] = _quantile(unusual[truth == label], level)
        return cls(level, method, quantiles, own)

    def contains(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """`(n, C)` booleans: which labels are in the set of each of n images.

        The most probable label always is, so that no set is empty.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        members = nonconformity(p, self.method) <= self.quantiles
        members[np.arange(len(p)), p.argmax(axis=1)] = True
        return np.asarray(members)


def _enough(n: NDArray[np.int64], level: float) -> NDArray[np.bool_]:
    """Whether n values have a finite `_quantile`."""
    return np.asarray(np.ceil((n + 1) * level - 1e-9) <= n)


def _quantile(values: NDArray[np.float64], level: float) -> float:
    """Return the ceil((n + 1) level)-th smallest of n values; infinity if there are too few."""
    rank = math.ceil((len(values) + 1) * level - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf


def true_label_scores(
    probabilities: ArrayLike, labels: NDArray[np.int64]
) -> Mapping[str, NDArray[np.float64]]:
    """Return the nonconformity of the true label of `n` images by every method, `(n,)` each.

    Examples
    --------
    >>> {k: v.round(2).tolist() for k, v in true_label_scores([[0.7, 0.3]], np.array([1])).items()}
    {'lac': [0.7], 'aps': [1.0], 'raps': [1.0]}
    """
    rows = np.arange(len(labels))
    return {method: nonconformity(probabilities, method)[rows, labels] for method in SET_METHODS}
