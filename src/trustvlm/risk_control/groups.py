"""Groups of images that are right or wrong together: one image of each, drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from trustvlm.cells import cell_text
from trustvlm.exceptions import InputError

GROUP_SEED = 0
"""Of the draw, fixed, so that nobody draws until a certificate pleases."""


def one_per_group(
    groups: Sequence[Hashable], keys: Sequence[str] | None = None, *, seed: int = GROUP_SEED
) -> NDArray[np.int64]:
    """`(k,)` ascending positions of one image of each of the k groups, drawn at random.

    The frames of a scene, or the scans of a patient, are not independent of each other: n of them
    say less than n images do. One of each group, drawn without a look at anything else of it, is
    as good as an independent draw if the groups are; and what holds for such draws holds where
    every group counts once, however many images it has.

    Parameters
    ----------
    groups
        `(n,)` what the images of one group have in common: texts or numbers, where 7, 7.0 and "7"
        are the same, as in a table. Images that stand alone need a group of their own.
    keys
        `(n,)` names of the images, by which the draw does not depend on their order; by default
        their positions are.
    seed
        Of the draw.

    Raises
    ------
    InputError
        If groups and keys differ in number, or an image has no group: None, NaN or "".

    Examples
    --------
    >>> chosen = one_per_group(["a", "a", "b", "a", "b"])
    >>> len(chosen), [("a", "a", "b", "a", "b")[i] for i in chosen.tolist()].count("a")
    (2, 1)
    """
    names = [str(i) for i in range(len(groups))] if keys is None else keys
    drawn: dict[str, tuple[bytes, int]] = {}
    for i, (group, name) in enumerate(zip(group_names(groups, len(names)), names, strict=True)):
        text = f"{seed}\0{group}\0{name}".encode("utf-8", "surrogatepass")
        lot = hashlib.sha256(text).digest(), i
        drawn[group] = min(lot, drawn.get(group, lot))
    return np.array(sorted(i for _, i in drawn.values()), dtype=np.int64)


def group_names(groups: Sequence[Hashable], n: int) -> list[str]:
    """Return what tells the groups of n images from each other, as `one_per_group` reads them.

    Raises
    ------
    InputError
        If there are not n of them, or an image has no group: None, NaN or "".

    Examples
    --------
    >>> group_names([7, 7.0, "7", "b "], 4)
    ['7', '7', '7', 'b']
    """
    if len(groups) != n:
        raise InputError(
            f"Expected a group of each image, but got {n} images and {len(groups)} groups."
        )
    # Arrays that have values of their own for what is missing give None for it there.
    values = groups.tolist() if hasattr(groups, "tolist") else groups
    names = [cell_text(group) for group in values]
    if "" in names:
        # Each NaN is another value: images without a group would count as independent.
        i = names.index("")
        raise InputError(
            f"Expected a group of each image, but image {i} has none ({list(values)[i]!r}): give "
            "images that stand alone a group of their own."
        )
    return names


def groups_statement(groups: str) -> str:
    """Say what a guarantee is about that rests on one image of each group.

    Examples
    --------
    >>> print(groups_statement("scene"))
    One image of each group (scene) was used, drawn at random: the guarantee is about images drawn \
so, in which every group counts once
    """
    return (
        f"One image of each group ({groups}) was used, drawn at random: the guarantee is about "
        "images drawn so, in which every group counts once"
    )
