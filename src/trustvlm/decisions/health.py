"""The health of the shots: everything that may be wrong with them, found by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.decisions.alike_classes import AlikeClasses, alike_classes
from trustvlm.decisions.certainty import Certainty, prototype_certainty
from trustvlm.decisions.duplicates import AlikePair, alike_from, near_duplicates
from trustvlm.decisions.mislabels import SuspectLabel, suspect_labels
from trustvlm.decisions.outliers import OddShot, odd_shots
from trustvlm.decisions.shot_posterior import shot_posterior
from trustvlm.scores import Evidence
from trustvlm.scores.comparison import compare_held_out
from trustvlm.scores.zero_shot import pick

__all__ = ["UNCERTAIN", "Health", "check_shots"]

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
