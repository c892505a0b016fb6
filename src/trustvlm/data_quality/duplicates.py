"""Near-duplicates: pairs of images so alike that one may be a copy of the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import as_labels, as_matrix, row_blocks, unit_rows
from trustvlm.scores.neighbour_search import NEAR_DUPLICATE

# Copies filed under two classes must not raise the bar for themselves, unless there are many.
_SHARE = 0.9
# Two copies of one picture among the others must not hide other copies.
_USUAL = 0.95


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that are nearly the same.

    Attributes
    ----------
    image, other
        Their indices; for shots among themselves the smaller one first.
    cosine
        Of their features.
    """

    image: int
    other: int
    cosine: float


def near_duplicate_threshold(features: ArrayLike, labels: ArrayLike, *, n_classes: int) -> float:
    """Cosine from which two images count as near-duplicates, in the space of these shots.

    It is `NEAR_DUPLICATE`, or what nine in ten shots stay below with every shot of another class,
    if that is more: images of different classes are no copies of each other, and where even they
    are very alike, a high cosine means little.

    Parameters
    ----------
    features
        `(m, d)` features of the shots.
    labels
        `(m,)` class indices.
    n_classes
        C.

    Examples
    --------
    >>> near_duplicate_threshold([[1.0, 0.0], [0.0, 1.0]], [0, 1], n_classes=2)
    0.95
    """
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    label = as_labels(labels, "labels", n_classes=n_classes, n=len(rows))
    if len(set(label.tolist())) < 2:
        return NEAR_DUPLICATE
    nearest = np.empty(len(rows))
    for block in row_blocks(len(rows), len(rows)):
        cosines = rows[block] @ rows.T
        cosines[label[block, None] == label] = -1.0
        nearest[block] = cosines.max(axis=1)
    # The smallest value that at least this share stays at or below.
    rank = math.ceil(_SHARE * len(nearest) - 1e-9) - 1
    return min(max(NEAR_DUPLICATE, float(np.sort(nearest)[rank])), 1.0 - 1e-6)


def nearer_than_usual(
    features: ArrayLike, others: ArrayLike, *, threshold: float = NEAR_DUPLICATE
) -> NDArray[np.bool_]:
    """`(n,)` whether each image is a near-duplicate of one of m others, nearer than these usually.

    If all were drawn alike, an image would be as near to its nearest of the others as each of those
    is to its own. So what is as near as all but one in twenty of the others are to their nearest
    does not count, however alike all of them are, as the pictures of one fixed camera.

    Parameters
    ----------
    features, others
        `(n, d)` and `(m, d)` features.
    threshold
        Cosine from which two images are nearly the same; see `near_duplicate_threshold`.

    Examples
    --------
    >>> others = [[1.0, 0.0], [0.9, 0.3], [0.0, 1.0]]
    >>> nearer_than_usual([[0.0, 2.0], [1.0, 1.0]], others)
    array([ True, False])
    """
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    columns = unit_rows(as_matrix(others, "others", nonzero=True))
    if not (len(rows) and len(columns)):
        return np.zeros(len(rows), dtype=bool)
    nearest = np.empty(len(rows))
    for block in row_blocks(len(rows), len(columns)):
        nearest[block] = (rows[block] @ columns.T).max(axis=1)
    usual = usually_nearest(others)
    return np.asarray((nearest >= threshold - 1e-12) & (nearest > usual))


def usually_nearest(features: ArrayLike) -> float:
    """Cosine that 19 in 20 images stay at or below with the nearest other one; -1 for one image.

    Examples
    --------
    >>> usually_nearest([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    0.8
    """
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    nearest = np.full(len(rows), -1.0)
    for block in row_blocks(len(rows), len(rows)):
        cosines = rows[block] @ rows.T
        cosines[np.arange(len(cosines)), np.arange(len(rows))[block]] = -1.0
        nearest[block] = cosines.max(axis=1)
    if not len(rows):
        return -1.0
    return float(np.sort(nearest)[math.ceil(_USUAL * len(rows) - 1e-9) - 1])


def near_duplicates(
    features: ArrayLike, others: ArrayLike | None = None, *, threshold: float = NEAR_DUPLICATE
) -> list[DuplicatePair]:
    """List pairs of images with nearly the same features, most alike first.

    Parameters
    ----------
    features
        `(n, d)` features.
    others
        `(m, d)` features to compare with: each of the n images is then listed at most once, with
        the most similar of the m. None compares the n images among themselves: each with the most
        similar of those before it.
    threshold
        Cosine from which a pair is listed, in (-1, 1]; see `near_duplicate_threshold`.

    Raises
    ------
    InputError
        For arrays that do not fit together, or a threshold out of range.

    Examples
    --------
    >>> pairs = near_duplicates([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]])
    >>> [(pair.image, pair.other, round(pair.cosine, 3)) for pair in pairs]
    [(0, 2, 0.999)]
    """
    if not -1 < threshold <= 1:
        raise InputError(f"Expected `threshold` to lie in (-1, 1], but got {threshold}.")
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    columns = rows if others is None else unit_rows(as_matrix(others, "others", nonzero=True))
    if rows.shape[1] != columns.shape[1]:
        raise InputError(
            f"Expected `others` to have {rows.shape[1]} columns like `features`, but got "
            f"{columns.shape[1]}."
        )
    if not len(columns):
        return []
    pairs = []
    for block in row_blocks(len(rows), len(columns)):
        cosines = rows[block] @ columns.T
        if others is None:
            later = np.arange(len(columns)) >= np.arange(len(rows))[block, None]
            cosines[later] = -2.0
        pairs += _best(cosines, block.start, threshold, swap=others is None)
    return sorted(pairs, key=lambda pair: -pair.cosine)


def near_duplicate_groups(
    features: ArrayLike, *, threshold: float = NEAR_DUPLICATE
) -> NDArray[np.int64]:
    """`(n,)` group of each image, 0, 1, ...: those that a chain of near-duplicates connects.

    Parameters
    ----------
    features
        `(n, d)` features.
    threshold
        Cosine from which two images are nearly the same; see `near_duplicate_threshold`.

    Examples
    --------
    >>> near_duplicate_groups([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]])
    array([0, 1, 0])
    """
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    ends = [np.empty((0, 2), dtype=np.int64)]
    for block in row_blocks(len(rows), len(rows)):
        close = np.argwhere(rows[block] @ rows.T >= threshold - 1e-12)
        ends.append(close + np.array([block.start, 0]))
    return connected_groups(len(rows), np.concatenate(ends))


def connected_groups(n: int, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """`(n,)` group of each of n things, of which `(k, 2)` pairs belong together.

    Examples
    --------
    >>> connected_groups(4, np.array([[0, 2], [2, 3]]))
    array([0, 1, 0, 0])
    """
    # Late: predicting needs none of it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    return np.asarray(group, dtype=np.int64)


def _best(
    cosines: NDArray[np.float64], start: int, threshold: float, *, swap: bool
) -> list[DuplicatePair]:
    nearest, highest = cosines.argmax(axis=1), cosines.max(axis=1)
    pairs = []
    # Rounding must not keep two exact copies from having cosine 1.
    for i in np.flatnonzero(highest >= threshold - 1e-12):
        one, other = start + int(i), int(nearest[i])
        images = (other, one) if swap else (one, other)
        pairs.append(DuplicatePair(*images, cosine=min(float(highest[i]), 1.0)))
    return pairs
