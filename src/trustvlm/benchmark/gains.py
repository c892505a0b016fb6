"""Which classes gain and which lose when one score takes the place of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trustvlm.benchmark.comparisons import holm
from trustvlm.benchmark.results import Samples
from trustvlm.exceptions import InputError

__all__ = ["ClassGain", "accepted", "class_gains"]


@dataclass(frozen=True)
class ClassGain:
    """What a change of score does to the images of one class.

    Attributes
    ----------
    name
        The true class.
    n
        Its images.
    before, after
        How many of them turn out well under the first and the second score.
    gained, lost
        Images that turn out well under the second score only, and under the first only.
    p_value, p_holm
        Of no difference (exact McNemar test), alone and after Holm's correction for all classes.
    """

    name: str
    n: int
    before: int
    after: int
    gained: int
    lost: int
    p_value: float
    p_holm: float

    @property
    def net(self) -> int:
        """Images gained less images lost."""
        return self.gained - self.lost


def class_gains(
    first: Samples,
    second: Samples,
    labels: ArrayLike,
    class_names: Sequence[str],
    *,
    coverage: float | None = None,
) -> list[ClassGain]:
    """Compare two scores class by class, on the same images.

    Parameters
    ----------
    first, second
        `(confidence, correct)` of each score, `(n,)` each.
    labels, class_names
        `(n,)` true class indices, and the C names.
    coverage
        None: an image turns out well if its label is right, which tells apart only scores that
        may change labels. A share in (0, 1]: each score accepts this share of all images, and an
        image turns out well if it is right and accepted, or wrong and not accepted.

    Returns
    -------
    list of ClassGain
        Classes with images, largest gain first, then by name.

    Raises
    ------
    InputError
        If the arrays differ in length, or labels or coverage are out of range.

    Notes
    -----
    McNemar 1947: of the images on which the two differ, half would be gained by chance.

    Examples
    --------
    >>> right, other = [1, 0, 1, 1], [1, 1, 1, 0]
    >>> found = class_gains(([4, 3, 2, 1], right), ([4, 3, 2, 1], other), [0, 0, 1, 1], ["a", "b"])
    >>> [(row.name, row.before, row.after, row.gained, row.lost) for row in found]
    [('a', 1, 2, 1, 0), ('b', 2, 1, 0, 1)]
    """
    index = np.asarray(labels)
    before, after = (_turns_out_well(sample, coverage) for sample in (first, second))
    if not index.shape == before.shape == after.shape:
        raise InputError(
            "Expected labels and both scores to have the same images, "
            f"but got {len(index)}, {len(before)} and {len(after)}."
        )
    if len(index) and (index.min() < 0 or index.max() >= len(class_names)):
        raise InputError(
            f"Expected `labels` in [0, {len(class_names)}), but got {index.min()} to {index.max()}."
        )

    def count(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(index[chosen], minlength=len(class_names))

    images, well_before, well_after = count(before | True), count(before), count(after)
    gained, lost = count(after & ~before), count(before & ~after)
    rows = [
        ClassGain(
            name=str(class_names[c]),
            n=int(images[c]),
            before=int(well_before[c]),
            after=int(well_after[c]),
            gained=int(gained[c]),
            lost=int(lost[c]),
            p_value=_mcnemar(int(gained[c]), int(lost[c])),
            p_holm=1.0,
        )
        for c in np.flatnonzero(images).tolist()
    ]
    adjusted = holm([row.p_value for row in rows])
    rows = [replace(row, p_holm=float(p)) for row, p in zip(rows, adjusted, strict=True)]
    return sorted(rows, key=lambda row: (-row.net, row.name))


def accepted(confidence: ArrayLike, coverage: float) -> NDArray[np.bool_]:
    """Accept the most trusted share of the images, a whole number of them.

    Ties at the threshold are broken by a fixed shuffle, the same for every score: images often
    stand in the order of their classes, and the first of a tie must not always win.

    Examples
    --------
    >>> accepted([0.1, 0.9, 0.5, 0.7], 0.5)
    array([False,  True, False,  True])
    """
    if not 0 < coverage <= 1:
        raise InputError(f"Expected `coverage` to lie in (0, 1], but got {coverage}.")
    values = np.asarray(confidence)
    shuffled = np.random.default_rng(0).permutation(len(values))
    order = shuffled[np.argsort(-values[shuffled], kind="stable")]
    chosen = np.zeros(len(values), dtype=bool)
    chosen[order[: round(coverage * len(values))]] = True
    return chosen


def _turns_out_well(sample: Samples, coverage: float | None) -> NDArray[np.bool_]:
    confidence, correct = sample
    right = np.asarray(correct, dtype=bool)
    if coverage is None:
        return right
    chosen = accepted(confidence, coverage)
    if chosen.shape != right.shape:
        raise InputError(
            f"Expected as many confidences as images, but got {len(chosen)} and {len(right)}."
        )
    well: NDArray[np.bool_] = chosen == right
    return well


def _mcnemar(gained: int, lost: int) -> float:
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)
