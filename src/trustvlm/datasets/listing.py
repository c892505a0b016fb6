"""What a reader finds on the disk: images, labels, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trustvlm.images import ImageRef, ImageSource
from trustvlm.images.references import shown

__all__ = ["Images", "Listing", "files"]


class Images(Sequence[ImageSource]):
    """Images that come into being when they are looked at.

    The training set of ImageNet as a list of `ImageRef` would take a gigabyte; slices and
    selections share what they are made from.

    Parameters
    ----------
    make
        Makes the image at a position.
    positions
        `(n,)` int64, which of them there are, in order.

    Examples
    --------
    >>> from trustvlm.images import InMemoryImage
    >>> images = Images(lambda i: InMemoryImage(f"{i}.ppm", b"P6"), np.arange(4))
    >>> images[3].path, len(images[:2]), images.at([2, 0])[0].path
    ('3.ppm', 2, '2.ppm')
    """

    def __init__(self, make: Callable[[int], ImageSource], positions: NDArray[np.integer]) -> None:
        self._make = make
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> ImageSource: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> ImageSource | Images:
        if isinstance(index, slice):
            return Images(self._make, self._positions[index])
        return self._make(int(self._positions[index]))

    def at(self, indices: Sequence[int] | NDArray[np.integer]) -> Images:
        """Return the images at these places, in this order."""
        return Images(self._make, self._positions[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class Listing:
    """One split of one set.

    Attributes
    ----------
    images
        The n images, in file order.
    labels
        `(n,)` int64 in [0, C).
    class_names, class_ids
        C names for prompts, and C folders or labels that mean the classes.
    missing
        What is named and is not there: image files, class folders.
    remarks
        Other things that the user should know, as parts of a sentence.
    """

    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def files(
    base: Path, shown_as: str, paths: Sequence[str], labels: NDArray[np.int64], ids: Sequence[str]
) -> Images:
    """Return image files by their paths under a folder.

    Parameters
    ----------
    base
        The folder.
    shown_as
        What to call it in front of each path; "" for nothing.
    paths
        n paths with forward slashes.
    labels
        `(n,)` indices of their classes.
    ids
        What each class is called as a label.
    """
    prefix = f"{shown_as}/" if shown_as else ""

    def make(i: int) -> ImageRef:
        return ImageRef(shown(prefix + paths[i]), base / paths[i], ids[labels[i]])

    return Images(make, np.arange(len(paths)))
