"""The health of the shots: everything that may be wrong with them, judged by themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.data_quality.duplicates import AlikePair, alike_from, near_duplicates
from trustvlm.data_quality.label_errors import SuspectLabel, shot_posterior, suspect_labels
from trustvlm.data_quality.outliers import OddShot, odd_shots
from trustvlm.data_quality.overlapping_classes import AlikeClasses, alike_classes
from trustvlm.exceptions import InputError
from trustvlm.scores import Evidence
from trustvlm.scores.arrays import as_labels, as_nonzero_rows, class_sums, pick, unit_rows
from trustvlm.scores.held_out import compare_held_out

# How well the shots of a class pin down its prototype, and how many would do.

# What all classes have in common counts as much as so many shots of the class itself.
_PRIOR = 4.0
_LEAST = 1e-3


@dataclass(frozen=True)
class Certainty:
    """How certain the prototype of one class is.

    Attributes
    ----------
    label
        The class.
    shots
        How many it has.
    certainty
        Expected cosine of its prototype with the mean of endlessly many images of the class, both
        taken from the mean of all classes; in [0, 1], 0 without shots.
    enough
        How many shots would be expected to reach the wanted certainty.
    """

    label: int
    shots: int
    certainty: float
    enough: int


def prototype_certainty(
    features: ArrayLike, labels: ArrayLike, *, n_classes: int, wanted: float = 0.9
) -> list[Certainty]:
    """Estimate how certain each class's prototype is, in the order of the classes.

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
        The certainty that `enough` counts for, in (0, 1).

    Raises
    ------
    InputError
        For arrays that do not fit together, or `wanted` outside (0, 1).

    Notes
    -----
    The reliability of a mean of n parallel measurements: Spearman 1910, Brown 1910. With a single
    class, or no class of two shots, nothing is known of s: it counts as one half.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.array([0] * 2 + [1] * 20)
    >>> x = np.eye(2)[y] + 0.5 * rng.normal(size=(22, 2))
    >>> [(c.shots, round(c.certainty, 2)) for c in prototype_certainty(x, y, n_classes=2)]
    [(2, 0.95), (20, 0.99)]
    """
    if not 0 < wanted < 1:
        raise InputError(f"Expected `wanted` to lie in (0, 1), but got {wanted}.")
    rows = unit_rows(as_nonzero_rows(features, "features"))
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
        Certainty(
            label=c,
            shots=n,
            certainty=math.sqrt(s / (s + (1.0 - s) / n)) if n else 0.0,
            enough=math.ceil((1.0 - s) / s * wanted**2 / (1.0 - wanted**2) - 1e-9),
        )
        for c, (n, s) in enumerate(zip(counts.tolist(), shared.tolist(), strict=True))
    ]


# The health of the shots: everything that may be wrong with them, found by themselves.

UNCERTAIN = 0.8
"""Certainty of a prototype below which its class counts as having too few shots."""


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
    odd
        Shots that do not look like the rest of their class, nor like another, oddest first.
    copies
        Pairs of shots that are nearly the same image, most alike first.
    alike_from
        Cosine from which pairs are listed in `copies`.
    relatives
        Pairs of classes that are hard to tell apart, duplicates first.
    certainties
        Of the C prototypes, in the order of the classes.
    """

    n_shots: int
    n_classes: int
    noise: float
    suspects: tuple[SuspectLabel, ...]
    odd: tuple[OddShot, ...]
    copies: tuple[AlikePair, ...]
    alike_from: float
    relatives: tuple[AlikeClasses, ...]
    certainties: tuple[Certainty, ...]

    @property
    def thin(self) -> tuple[Certainty, ...]:
        """Classes with too few shots, the least certain prototype first."""
        few = [found for found in self.certainties if found.certainty < UNCERTAIN]
        return tuple(sorted(few, key=lambda found: found.certainty))

    @property
    def sound(self) -> bool:
        """Whether there is nothing to look at."""
        return not (self.suspects or self.odd or self.copies or self.relatives or self.thin)


def check_shots(
    features: ArrayLike, labels: ArrayLike, *, n_classes: int, logits: ArrayLike | None = None
) -> Health:
    """Look for wrong labels, odd shots, copies, look-alike classes and classes with too few shots.

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
    threshold = alike_from(features, labels, n_classes=n_classes)
    listed = {suspect.shot for suspect in suspects}
    return Health(
        n_shots=len(np.asarray(labels)),
        n_classes=n_classes,
        noise=posterior.noise,
        suspects=tuple(suspects),
        odd=tuple(odd for odd in _odd(features, labels, n_classes) if odd.shot not in listed),
        copies=tuple(near_duplicates(features, threshold=threshold)),
        alike_from=threshold,
        relatives=tuple(alike_classes(features, labels, posterior, n_classes=n_classes)),
        certainties=tuple(prototype_certainty(features, labels, n_classes=n_classes)),
    )


def _odd(features: ArrayLike, labels: ArrayLike, n_classes: int) -> list[OddShot]:
    shots = Evidence.of(
        logits=np.empty((0, n_classes)),
        support_features=features,
        support_labels=labels,
        support_logits=np.zeros((len(np.asarray(labels)), n_classes)),
    )
    held_out = compare_held_out(shots)
    own = pick(held_out.comparison.similarities, held_out.labels)
    return [
        OddShot(int(held_out.kept[odd.shot]), odd.label, odd.similarity, odd.usual, odd.deviation)
        for odd in odd_shots(own, held_out.labels, n_classes=n_classes)
    ]
