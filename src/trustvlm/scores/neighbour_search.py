"""Nearest neighbours among the images of one batch, and its near-duplicates, counted once.

Up to `EXACT` images all pairs are compared. Above that the images lie in k-means cells, and each is
compared with those of the cells around its own: n^1.5 comparisons instead of n^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from trustvlm.scores.arrays import class_sums, row_blocks, unit_rows

NEAR_DUPLICATE = 0.95
"""Cosine that a lightly edited copy keeps: stored again as JPEG at quality 60, cropped to 95 % of
its sides, or brightened by a fifth. With the offline vision encoder nine in ten such copies of 180
photographs do; of mirrored ones two in three, of grey or strongly cropped ones one in four."""

EXACT = 4096
"""Up to so many images all pairs are compared, in float64; above, in cells and in float32."""

# An image is compared with at most so many times the square root of n others, in the cells whose
# centres are nearest to its own cell's.
_CANDIDATES = 12.0
_ITERATIONS, _SAMPLE_PER_CELL = 5, 32


def precision_for(n: int) -> type[np.floating[Any]]:
    """Return the floating-point type in which n images are compared.

    Examples
    --------
    >>> precision_for(10), precision_for(100_000)
    (<class 'numpy.float64'>, <class 'numpy.float32'>)
    """
    return np.float64 if n <= EXACT else np.float32


def nearest_others(directions: NDArray[Any], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Find k near neighbours of each of n images among the others.

    Parameters
    ----------
    directions
        `(n, d)` unit rows, n greater than k.
    k
        How many, at least 1.

    Returns
    -------
    neighbours, cosines
        `(n, k)` row numbers, in no order, and their cosines. For more than `EXACT` images some of
        them may be a little farther than the nearest.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> nearest_others(rows, 1)
    (array([[1],
           [0],
           [1]]), array([[0.8],
           [0.8],
           [0.6]]))
    """
    n = len(directions)
    neighbours = np.empty((n, k), dtype=np.int64)
    cosines = np.empty((n, k), dtype=directions.dtype)

    def search(queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> None:
        columns = directions[candidates].T
        position = np.full(n, -1)
        position[candidates] = np.arange(len(candidates))
        for block in row_blocks(len(queries), 3 * len(candidates)):
            rows = queries[block]
            table = directions[rows] @ columns
            own = position[rows]
            table[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
            near = np.argpartition(-table, k - 1, axis=1)[:, :k]
            neighbours[rows] = candidates[near]
            cosines[rows] = np.take_along_axis(table, near, axis=1)

    everything = np.arange(n)
    if n <= EXACT:
        search(everything, everything)
        return neighbours, cosines
    cells, centres = _cells(directions)
    counts = np.bincount(cells, minlength=len(centres))
    members = np.split(np.argsort(cells, kind="stable"), counts.cumsum()[:-1])
    most = int(_CANDIDATES * np.sqrt(n))
    for cell, queries in enumerate(members):
        if not len(queries):
            continue
        chosen: list[NDArray[np.int64]] = []
        total = 0
        for other in np.argsort(-(centres @ centres[cell]), kind="stable"):
            chosen.append(members[other])
            total += len(members[other])
            if total >= most:
                break
        candidates = np.concatenate(chosen)
        if total > most:  # an even share of each, so that a crowded cell costs no more
            candidates = candidates[np.linspace(0, total - 1, most).astype(np.int64)]
        search(queries, candidates)
    return neighbours, cosines


def _cells(directions: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Put n unit rows into about sqrt(n) k-means cells: cell of each `(n,)`, and unit centres.

    The centres begin with, and learn from, rows that are evenly spaced among the n.
    """
    n, k = len(directions), int(np.sqrt(len(directions)))

    def spaced(count: int) -> NDArray[Any]:
        return directions[np.linspace(0, n - 1, min(n, count)).astype(np.int64)]

    sample, centres = spaced(k * _SAMPLE_PER_CELL), spaced(k)
    for _ in range(_ITERATIONS):
        cells = _nearest_centre(sample, centres)
        moved = unit_rows(class_sums(sample, cells, k, dtype=sample.dtype)).astype(directions.dtype)
        centres = np.where(np.bincount(cells, minlength=k)[:, None] > 0, moved, centres)
    return _nearest_centre(directions, centres), centres


def _nearest_centre(rows: NDArray[Any], centres: NDArray[Any]) -> NDArray[np.int64]:
    blocks = row_blocks(len(rows), len(centres))
    return np.concatenate([(rows[block] @ centres.T).argmax(axis=1) for block in blocks])


def merge_near_duplicates(
    rows: NDArray[Any], neighbours: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Group images with those of their neighbours that are nearly the same.

    Images belong together if a chain of near-duplicates leads from one to the other.

    Parameters
    ----------
    rows
        `(n, d)` unit rows.
    neighbours
        `(n, k)` those to compare with, from `nearest_others`.

    Returns
    -------
    ndarray or None
        `(n,)` int64 number of each image's group, from 0; None if no two images are the same.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> merge_near_duplicates(rows, np.array([[1], [0], [0]]))
    array([0, 0, 1])
    """
    n, k = neighbours.shape
    near = np.zeros((n, k), dtype=bool)
    for column in range(k):
        for block in row_blocks(n, 2 * rows.shape[1]):
            others = rows[neighbours[block, column]]
            cosines = np.einsum("nd,nd->n", rows[block], others)
            near[block, column] = cosines >= NEAR_DUPLICATE
    if not near.any():
        return None
    image = np.nonzero(near)[0]
    links = scipy.sparse.coo_array(
        (np.ones(len(image), dtype=bool), (image, neighbours[near])), shape=(n, n)
    )
    return np.asarray(
        scipy.sparse.csgraph.connected_components(links, directed=False)[1], dtype=np.int64
    )
