"""Material for studies from arrays alone: no images, no models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from trustvlm.benchmark.arrays import ArraySet, same_classes
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.measuring import draw_rows
from trustvlm.benchmark.results import Setting

__all__ = ["material_of"]


def material_of(
    support: ArraySet, tests: Sequence[ArraySet], shots: Sequence[int], draws: int
) -> Material:
    """Draw shots from one set and test on others, for every study.

    Raises
    ------
    InputError
        If the sets do not fit together.
    """
    for test in tests:
        same_classes(support, test)
    return Material(
        name=support.name,
        setting=Setting(),
        support=support,
        tests=tuple(tests),
        draws={point: draw_rows(support, *point) for point in product(shots, range(draws))},
    )
