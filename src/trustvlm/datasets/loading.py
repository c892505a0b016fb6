"""One split of one set, ready to be encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm.datasets.catalogue import get
from trustvlm.datasets.deviations import deviations, report_deviations
from trustvlm.datasets.listing import Images, Listing
from trustvlm.datasets.reading import read_split
from trustvlm.datasets.specs import DatasetSpec, Split

__all__ = ["Dataset", "as_dataset", "load"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes.

    Attributes
    ----------
    spec
        The facts of the set that the images are from.
    split
        Which part of it.
    folder
        Where it was found.
    refs
        The n images in file order, made when they are looked at. Each has a `path` to show,
        which begins with the name of the set's folder, a `label` (its entry in `class_ids`) and
        `read()`.
    labels
        `(n,)` int64 in [0, C).
    class_names
        C names for prompts. Two classes of ImageNet may have one name.
    class_ids
        C distinct labels: WordNet IDs for ImageNet and its relatives, else the names.
    missing
        Image files and class folders that are named and are not there. A missing file is among
        `refs`, and becomes an error of its own when it is read.
    """

    spec: DatasetSpec
    split: Split
    folder: Path
    refs: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(C,)` int64, images of each class."""
        return np.bincount(self.labels, minlength=self.n_classes).astype(np.int64)

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> Dataset:
        """Return some of the images, in this order, with the same classes."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, refs=self.refs.at(chosen), labels=self.labels[chosen], missing=())


def load(
    name: str | DatasetSpec,
    root: str | os.PathLike[str],
    split: Split = "test",
    *,
    splits_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> Dataset:
    """List one split of one of the 17 sets, without opening its images.

    Parameters
    ----------
    name
        Name, title or folder of a set, or its facts; `dataclasses.replace(get(name), ...)`
        changes the counts that are expected.
    root
        The folder above the sets, in the layout of CoOp or TPT.
    split
        "train", "val" or "test". ImageNet's own folder `val` is what the paper tests on: its
        split is "test".
    splits_dir
        Where `split_zhou_*.json` lies, if not in the set's folder.
    strict
        Refuse a set that is not as published, rather than warn.

    Raises
    ------
    InputError
        If there is no such set, split, folder or file (the message lists what was expected and
        what was found), if a file is not of its form, and with `strict` for any deviation.

    Warns
    -----
    TrustVLMWarning
        If the number of images or classes is not the published one, or images are missing.

    Examples
    --------
    >>> load("dtd", "/no/such/folder")
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: Expected `root` to be a folder, but there is no folder '/no...
    """
    spec = get(name) if isinstance(name, str) else name
    folder, listing = read_split(spec, root, split, splits_dir)
    report_deviations(spec, split, folder, deviations(spec, split, listing), strict=strict)
    return as_dataset(spec, split, folder, listing)


def as_dataset(spec: DatasetSpec, split: Split, folder: Path, listing: Listing) -> Dataset:
    """Put together what was found of one split."""
    return Dataset(
        spec,
        split,
        folder,
        listing.images,
        listing.labels,
        listing.class_names,
        listing.class_ids,
        listing.missing,
    )
