"""Where the labelled examples of a set come from."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from trustvlm.datasets.catalogue import get
from trustvlm.datasets.deviations import deviations, report_deviations
from trustvlm.datasets.imagenet import mask
from trustvlm.datasets.loading import Dataset, as_dataset
from trustvlm.datasets.reading import read_split
from trustvlm.datasets.specs import DatasetSpec, Split

__all__ = ["ShotsSource", "load_shots", "shots_source"]


class ShotsSource(NamedTuple):
    """Which images may be drawn as shots.

    Attributes
    ----------
    dataset, split
        The set and the part of it.
    classes
        C indices: class c of the target is class `classes[c]` of that set.
    """

    dataset: str
    split: Split
    classes: tuple[int, ...]


def shots_source(name: str | DatasetSpec) -> ShotsSource:
    """Return where the shots of a set come from.

    It is the set's own training split. ImageNet-A, -R, -V2 and -Sketch have none: their shots are
    ImageNet's, of the same classes, so that they measure a shift between shots and test images.

    Raises
    ------
    InputError
        If there is no such set.

    Examples
    --------
    >>> shots_source("imagenet-a").dataset, shots_source("imagenet-a").classes[:3]
    ('imagenet', (6, 11, 13))
    """
    spec = get(name) if isinstance(name, str) else name
    classes = mask(spec.subset) if spec.shots_from != spec.name else tuple(range(spec.n_classes))
    return ShotsSource(spec.shots_from, "train", classes)


def load_shots(
    name: str | DatasetSpec,
    root: str | os.PathLike[str],
    *,
    splits_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> Dataset:
    """List the images from which the shots of a set are drawn, with the classes of that set.

    For most sets this is `load(name, root, "train")`. For ImageNet's relatives it is ImageNet's
    training split, without the classes that the relative does not have; `labels` and
    `class_names` are those of the relative.

    Raises
    ------
    InputError
        As `load` does.

    Warns
    -----
    TrustVLMWarning
        As `load` does; of a part of ImageNet, the number of images is not checked.
    """
    spec = get(name) if isinstance(name, str) else name
    source = get(spec.shots_from) if spec.shots_from != spec.name else spec
    subset = spec.subset if source is not spec and spec.subset else None
    folder, listing = read_split(source, root, "train", splits_dir, subset=subset)
    expected = source
    if subset is not None:
        counts = {**source.counts, "train": len(listing.images)}
        expected = replace(source, n_classes=spec.n_classes, counts=counts)
    found = deviations(expected, "train", listing)
    report_deviations(expected, "train", folder, found, strict=strict)
    return as_dataset(source, "train", folder, listing)
