"""Draw the few labelled images per class that prototypes are made of."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import as_labels


@dataclass(frozen=True)
class ShotDraw:
    """The images that were drawn.

    Attributes
    ----------
    indices
        `(k,)` int64 positions in the labels, class by class, in the order drawn.
    counts
        `(C,)` int64, how many there are of each class: at most the number asked for.
    """

    indices: NDArray[np.int64]
    counts: NDArray[np.int64]


def draw_shots(labels: ArrayLike, n_classes: int, shots: int, draw: int = 0) -> ShotDraw:
    """Draw up to `shots` images of every class, reproducibly.

    For each class anew, Python's generator is seeded with `draw` and samples without replacement
    from the positions of that class in file order. Draw 0 is that of the released TrustVLM
    script (arXiv 2505.23745), in which the draw does not depend on the run's seed; other draws
    serve to measure the variance over draws. The state of the `random` module is left alone.

    Parameters
    ----------
    labels
        `(n,)` class indices in [0, C), in file order.
    n_classes
        Number of classes C.
    shots
        Images per class, N. A class with fewer gives all it has (the script crashes there).
    draw
        Number of the draw, 0 or greater.

    Raises
    ------
    InputError
        If labels are not whole numbers in [0, C), or another argument is out of range.

    Examples
    --------
    >>> drawn = draw_shots(np.zeros(60, dtype=int), n_classes=2, shots=16)
    >>> drawn.indices
    array([54, 24, 48, 56, 26,  2, 16, 32, 31, 25, 19, 30, 22, 37, 13, 52])
    >>> drawn.counts
    array([16,  0])
    """
    for name, value, least in (("n_classes", n_classes, 1), ("shots", shots, 1), ("draw", draw, 0)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise InputError(
                f"Expected `{name}` to be a whole number >= {least}, but got {value!r}."
            )
    y = as_labels(labels, "labels", n_classes=n_classes)
    # A stable sort keeps the file order inside each class and needs one pass for all classes.
    order = np.argsort(y, kind="stable")
    counts = np.bincount(y, minlength=n_classes)
    drawn: list[int] = []
    for members in np.split(order, np.cumsum(counts)[:-1]):
        generator = random.Random(int(draw))  # noqa: S311
        drawn += generator.sample(members.tolist(), min(int(shots), len(members)))
    return ShotDraw(np.array(drawn, dtype=np.int64), np.minimum(counts, int(shots)))
