"""Which image of one run is which image of another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.report.runs import Run

__all__ = ["Pairing", "pair"]


@dataclass(frozen=True)
class Pairing:
    """Images that are in both runs.

    Attributes
    ----------
    a, b
        `(k,)` positions in either run, in the order of a.
    by
        What they were recognised by: `content` or `path`.
    only_a, only_b
        How many images are in one run alone.
    relabelled
        How many images in both have another true label in either.
    """

    a: NDArray[np.intp]
    b: NDArray[np.intp]
    by: str
    only_a: int
    only_b: int
    relabelled: int


def pair(a: Run, b: Run) -> Pairing:
    """Pair the images of two runs by content, or by path where a run does not know the contents.

    Copies of one image are paired in their order.

    Raises
    ------
    InputError
        If the runs have no image in common.
    """
    known = all(a.hashes) and all(b.hashes)
    left, right = _matched(*((a.hashes, b.hashes) if known else (a.paths, b.paths)))
    if not len(left):
        raise InputError(
            f"Expected two runs on the same images, but {a.name} ({len(a)} images) and {b.name} "
            f"({len(b)} images) have none in common, by {'content' if known else 'path'}."
        )
    relabelled = sum(a.truths[i] != b.truths[j] for i, j in zip(left, right, strict=True))
    return Pairing(
        a=left,
        b=right,
        by="content" if known else "path",
        only_a=len(a) - len(left),
        only_b=len(b) - len(right),
        relabelled=relabelled,
    )


def _matched(
    a: Sequence[str | None], b: Sequence[str | None]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    waiting: dict[str | None, list[int]] = defaultdict(list)
    for place in reversed(range(len(b))):
        waiting[b[place]].append(place)
    pairs = [(i, waiting[key].pop()) for i, key in enumerate(a) if waiting.get(key)]
    found = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]
