"""Outliers: shots that resemble the other shots of their class much less than is usual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.metrics.inputs import confidence_array
from trustvlm.scores.arrays import as_labels

# 1 / Phi^-1(3/4): the median deviation of a normal distribution times this is its deviation.
_NORMAL = 1.4826
_FEWEST, _FEWEST_OF_A_CLASS = 10, 4
# Cosines of the same vectors differ by less than this.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Outlier:
    """A shot that does not look like the rest of its class.

    Attributes
    ----------
    shot
        Its index.
    label
        Its class.
    similarity
        Its cosine to the prototype of the class without it.
    usual
        The median of that cosine over the class.
    deviation
        How far below, in robust standard deviations; negative.
    """

    shot: int
    label: int
    similarity: float
    usual: float
    deviation: float


def find_outliers(
    similarity: ArrayLike, labels: ArrayLike, *, n_classes: int, threshold: float = 3.5
) -> list[Outlier]:
    """List the shots whose similarity to their own class is far below the usual, farthest first.

    A cosine is compared with the median of its class, in units of the robust deviation below the
    medians, pooled over classes. Classes of fewer than four shots are not judged: nothing tells
    what is usual there.

    Parameters
    ----------
    similarity
        `(k,)` cosine of each shot to its class's prototype made without it.
    labels
        `(k,)` class indices.
    n_classes
        C.
    threshold
        Deviations below the median from which a shot is listed.

    Returns
    -------
    list of Outlier
        Empty for fewer than ten shots to judge, or where half of them do not deviate at all.

    Raises
    ------
    InputError
        For arrays that do not fit together, NaN or infinity.

    Notes
    -----
    The modified z-score and its threshold 3.5 are those of Iglewicz & Hoaglin 1993, "How to detect
    and handle outliers"; the deviation is taken from the lower half, for the upper is bounded.

    Examples
    --------
    >>> s = [0.70, 0.72, 0.74, 0.76, 0.78, 0.10, 0.71, 0.73, 0.75, 0.77]
    >>> [outlier.shot for outlier in find_outliers(s, [0] * 10, n_classes=1)]
    [5]
    """
    cosine = confidence_array(similarity, "similarity").astype(np.float64)
    label = as_labels(labels, "labels", n_classes=n_classes, n=len(cosine))
    judged = np.bincount(label, minlength=n_classes)[label] >= _FEWEST_OF_A_CLASS
    if judged.sum() < _FEWEST:
        return []
    usual = np.zeros(len(cosine))
    for c in np.unique(label[judged]):
        usual[label == c] = np.median(cosine[label == c])
    residual = np.where(judged, cosine - usual, np.inf)
    spread = _NORMAL * float(np.median(-residual[residual <= 0]))
    if spread <= _ROUNDING:
        return []
    order = np.argsort(residual, kind="stable")
    return [
        Outlier(
            shot=int(i),
            label=int(label[i]),
            similarity=float(cosine[i]),
            usual=float(usual[i]),
            deviation=float(residual[i] / spread),
        )
        for i in order
        if residual[i] < -threshold * spread
    ]
