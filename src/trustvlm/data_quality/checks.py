"""Everything that may be wrong with the shots of a model, judged by the shots themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.data_quality.duplicates import (
    DuplicatePair,
    near_duplicate_threshold,
    near_duplicates,
)
from trustvlm.data_quality.label_errors import SuspectLabel, shot_posterior, suspect_labels
from trustvlm.data_quality.outliers import Outlier, find_outliers
from trustvlm.data_quality.overlapping_classes import OverlappingClasses, overlapping_classes
from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import as_labels, as_matrix, class_sums, unit_rows

# How reliable the prototype of a class is, and how many shots would do.

# What all classes have in common counts as much as so many shots of the class itself.
_PRIOR = 4.0
_LEAST = 1e-3


@dataclass(frozen=True)
class PrototypeReliability:
    """How reliable the prototype of one class is.

    Attributes
    ----------
    label
        The class.
    shots
        How many it has.
    reliability
        Expected cosine of its prototype with the mean of endlessly many images of the class, both
        taken from the mean of all classes; in [0, 1], 0 without shots.
    enough
        How many shots would be expected to reach the wanted reliability.
    """

    label: int
    shots: int
    reliability: float
    enough: int

    @property
    def certainty(self) -> float:
        """`reliability`, by its former name."""
        return self.reliability


def prototype_reliability(
    features: ArrayLike, labels: ArrayLike, *, n_classes: int, wanted: float = 0.9
) -> list[PrototypeReliability]:
    """Estimate how reliable each class's prototype is, in the order of the classes.

    Of n shots with mean pairwise similarity s, from the mean of the classes, the prototype has
    expected cosine sqrt(s / (s + (1 - s) / n)) with the true mean. A class's own s is shrunk
    towards that of all classes, which also stands in for it where there is one shot or none.

    Parameters
    ----------
    features
        `(m, d)` features of the shots.
    labels
        `(m,)` class indices.
    n_classes
        C.
    wanted
        The reliability that `enough` counts for, in (0, 1).

    Raises
    ------
    InputError
        For arrays that do not fit together, or `wanted` outside (0, 1).

    Notes
    -----
    The reliability of a mean of n parallel measurements: Spearman 1910, Brown 1910. With a single
    class, or no class of two shots, nothing tells s: it counts as one half.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.array([0] * 2 + [1] * 20)
    >>> x = np.eye(2)[y] + 0.5 * rng.normal(size=(22, 2))
    >>> [(c.shots, round(c.reliability, 2)) for c in prototype_reliability(x, y, n_classes=2)]
    [(2, 0.95), (20, 0.99)]
    """
    if not 0 < wanted < 1:
        raise InputError(f"Expected `wanted` to lie in (0, 1), but got {wanted}.")
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    label = as_labels(labels, "labels", n_classes=n_classes, n=len(rows))
    counts = np.bincount(label, minlength=n_classes)
    sums = class_sums(rows, label, n_classes)
    present = counts > 0
    if present.sum() > 1:
        centre = (sums[present] / counts[present, None]).mean(axis=0)
        rows = rows - centre
        sums -= counts[:, None] * centre
    lengths = np.bincount(label, weights=(rows**2).sum(axis=1), minlength=n_classes)
    # Sum over the pairs of a class, as a share of what identical shots would have, times n - 1.
    pairs = (sums**2).sum(axis=1) - lengths
    several = (counts > 1) & (lengths > 0)
    own = np.zeros(n_classes)
    own[several] = pairs[several] / lengths[several]
    weight = np.where(several, counts - 1.0, 0.0)
    pooled = 0.5
    if several.any() and present.sum() > 1:
        pooled = float(np.average(own[several] / weight[several], weights=weight[several]))
    shared = np.clip((own + _PRIOR * pooled) / (weight + _PRIOR), _LEAST, 1.0 - _LEAST)
    return [
        PrototypeReliability(
            label=c,
            shots=n,
            reliability=math.sqrt(s / (s + (1.0 - s) / n)) if n else 0.0,
            enough=math.ceil((1.0 - s) / s * wanted**2 / (1.0 - wanted**2) - 1e-9),
        )
        for c, (n, s) in enumerate(zip(counts.tolist(), shared.tolist(), strict=True))
    ]


# All checks at once.

RELIABLE = 0.8
"""Reliability of a prototype below which its class counts as having too few shots."""

# Former names of attributes.
_FORMER = {
    "odd": "outliers",
    "copies": "near_duplicates",
    "alike_from": "near_duplicate_threshold",
    "relatives": "overlapping_classes",
    "certainties": "prototype_reliability",
    "thin": "too_few_shots",
}


@dataclass(frozen=True)
class Health:
    """What is remarkable about m shots of C classes; indices of shots and classes.

    Attributes
    ----------
    n_shots, n_classes
        m and C.
    noise
        Estimated share of wrong labels among the shots; at least 0.01 where it could be estimated.
    suspects
        Shots whose label looks wrong, surest first.
    outliers
        Shots that do not look like the rest of their class, nor like another, the least similar
        first.
    near_duplicates
        Pairs of shots that are nearly the same image, most alike first.
    near_duplicate_threshold
        Cosine from which pairs are listed in `near_duplicates`.
    overlapping_classes
        Pairs of classes that are hard to tell apart, duplicates first.
    prototype_reliability
        Of the C prototypes, in the order of the classes.
    expected_wrong
        Expected number of wrong labels among all shots, those in `suspects` included.
    """

    n_shots: int
    n_classes: int
    noise: float
    suspects: tuple[SuspectLabel, ...]
    outliers: tuple[Outlier, ...]
    near_duplicates: tuple[DuplicatePair, ...]
    near_duplicate_threshold: float
    overlapping_classes: tuple[OverlappingClasses, ...]
    prototype_reliability: tuple[PrototypeReliability, ...]
    expected_wrong: float = 0.0

    def __getattr__(self, name: str) -> Any:
        if name in _FORMER:
            return getattr(self, _FORMER[name])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def too_few_shots(self) -> tuple[PrototypeReliability, ...]:
        """Classes with too few shots, the least reliable prototype first."""
        few = [one for one in self.prototype_reliability if one.reliability < RELIABLE]
        return tuple(sorted(few, key=lambda one: one.reliability))

    @property
    def sound(self) -> bool:
        """Whether there is nothing to look at."""
        return not (
            self.suspects
            or self.outliers
            or self.near_duplicates
            or self.overlapping_classes
            or self.too_few_shots
        )


def check_shots(
    features: ArrayLike, labels: ArrayLike, *, n_classes: int, logits: ArrayLike | None = None
) -> Health:
    """Look for label errors, outliers, near-duplicates, overlapping classes and too few shots.

    Parameters
    ----------
    features
        `(m, d)` features of the shots.
    labels
        `(m,)` class indices.
    n_classes
        C.
    logits
        `(m, C)` zero-shot logits of the shots, which help where the text knows the classes.

    Raises
    ------
    InputError
        For arrays that do not fit together, NaN, or rows of zeros.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 12)
    >>> x = np.eye(2)[y] + 0.1 * rng.normal(size=(24, 2))
    >>> y[5] = 1  # planted
    >>> [suspect.shot for suspect in check_shots(x, y, n_classes=2).suspects]
    [5]
    """
    posterior = shot_posterior(features, labels, n_classes=n_classes, logits=logits)
    suspects = suspect_labels(posterior)
    threshold = near_duplicate_threshold(features, labels, n_classes=n_classes)
    suspected = {suspect.shot for suspect in suspects}
    outliers = [
        replace(outlier, shot=int(posterior.kept[outlier.shot]))
        for outlier in find_outliers(posterior.similarity, posterior.labels, n_classes=n_classes)
    ]
    return Health(
        n_shots=len(np.asarray(labels)),
        n_classes=n_classes,
        noise=posterior.noise,
        suspects=tuple(suspects),
        outliers=tuple(outlier for outlier in outliers if outlier.shot not in suspected),
        near_duplicates=tuple(near_duplicates(features, threshold=threshold)),
        near_duplicate_threshold=threshold,
        overlapping_classes=tuple(
            overlapping_classes(features, labels, posterior, n_classes=n_classes)
        ),
        prototype_reliability=tuple(prototype_reliability(features, labels, n_classes=n_classes)),
        expected_wrong=float(posterior.mislabelled.sum()),
    )
