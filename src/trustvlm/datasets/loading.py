"""Find a set, and read one split of it with the reader of its layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm.datasets import layout, readers
from trustvlm.datasets.added import read_by_function, read_labelled
from trustvlm.datasets.catalogue import (
    AS_PUBLISHED,
    DatasetSpec,
    ImageNetRules,
    Split,
    every_set,
    get,
    imagenet_classes,
    mask,
)
from trustvlm.datasets.cifar import read_cifar
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.references import shown


def read_split(
    spec: DatasetSpec,
    root: str | os.PathLike[str],
    split: Split,
    splits_dir: str | os.PathLike[str] | None = None,
    *,
    subset: str | None = None,
) -> tuple[Path, layout.Listing]:
    """Return where a set lies and what one split of it holds, without judging either.

    `subset` lists only some classes of ImageNet: "a" or "r".

    Raises
    ------
    InputError
        As `load` does, but for deviations.
    """
    top = layout.checked_folder(root, "root")
    splits = None if splits_dir is None else layout.checked_folder(splits_dir, "splits_dir")
    if split not in spec.counts:
        hint = (
            " The folder val/ is what the paper tests on: split='test'."
            if spec.split_folders.get("test") == split
            else " Use `load_shots` for its shots."
            if spec.shots_from != spec.name
            else ""
        )
        raise InputError(
            f"Expected `split` of {spec.title} to be one of {', '.join(spec.splits)}, "
            f"but got {split!r}.{hint}"
        )
    folder = layout.find_folder(spec, top)
    if folder is None:
        raise layout.missing_set_error(spec, top)
    match spec.layout:
        case "split file":
            listing = readers.read_split_file(spec, folder, split, splits)
        case "variant lists":
            listing = readers.read_variant_lists(spec, folder, split)
        case "class folders":
            listing = readers.read_class_folders(spec, folder, split, subset)
        case "numbered folders":
            listing = readers.read_numbered_folders(spec, folder)
        case "pickles":
            listing = read_cifar(spec, folder, split)
        case "labelled":
            listing = read_labelled(spec, folder, split)
        case "reader":
            listing = read_by_function(spec, folder, split)
    return folder, listing


def deviations(spec: DatasetSpec, split: Split, listing: layout.Listing) -> tuple[str, ...]:
    """Return in what a split differs from the published one, as parts of a sentence."""
    parts = []
    n_images, n_classes = len(listing.refs), len(listing.class_names)
    if n_images != spec.counts[split]:
        parts.append(f"expected {spec.counts[split]} images, but found {n_images}")
    if n_classes != spec.n_classes:
        parts.append(f"expected {spec.n_classes} classes, but found {n_classes}")
    if listing.missing:
        first = listing.missing[0]
        expected = f"{n_classes} class folders" if first.endswith("/") else f"{n_images} images"
        missing = f"{len(listing.missing)} of {expected} missing or empty"
        parts.append(f"{missing}, such as {shown(first)!r}")
    return (*parts, *listing.remarks)


def report_deviations(
    spec: DatasetSpec, split: Split, folder: Path, listing: layout.Listing, *, strict: bool
) -> None:
    """Warn of deviations from the published set, or refuse them."""
    parts = deviations(spec, split, listing)
    if not parts:
        return
    message = (
        f"{spec.title}, {split}, in {shown(folder)!r}: {'; '.join(parts)}. Numbers will not be "
        "comparable with published ones."
    )
    if strict:
        raise InputError(message)
    warnings.warn(message, TrustVLMWarning, stacklevel=3)


# One split of one set, ready to be encoded.


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset(layout.Listing):
    """Images with their classes: a listing, and what it is of.

    Attributes
    ----------
    spec
        The facts of the set that the images are from.
    split
        Which part of it.
    folder
        Where it lies.
    refs
        The n images in file order, made when they are accessed. Each has a `path` to show,
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
    remarks
        Other deviations from the published set, as parts of a sentence.
    """

    spec: DatasetSpec
    split: Split
    folder: Path

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
    rules: ImageNetRules = AS_PUBLISHED,
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
    rules
        How ImageNet's relatives are read.

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
    report_deviations(spec, split, folder, listing, strict=strict)
    listing = _under_rules(listing, spec, rules.of(spec))
    return Dataset(**vars(listing), spec=spec, split=split, folder=folder)


def _under_rules(
    listing: layout.Listing, spec: DatasetSpec, rules: ImageNetRules
) -> layout.Listing:
    """Give the images of a listing the labels and class names that some rules want."""
    if rules.names == "imagenet":
        every = imagenet_classes()
        listing = replace(
            listing,
            labels=np.array(mask(spec.subset), dtype=np.int64)[listing.labels],
            class_names=tuple(c.name for c in every),
            class_ids=tuple(c.wnid for c in every),
        )
    if rules.folder_order == "text":
        # The rank of a folder among those that there are, sorted by name.
        numbers = np.unique(listing.labels)
        ranks = np.empty(len(listing.class_names), dtype=np.int64)
        ranks[np.array(sorted(numbers, key=str), dtype=np.int64)] = np.arange(len(numbers))
        listing = replace(listing, labels=ranks[listing.labels])
    return listing


# Where the labelled examples of a set come from.


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
    rules: ImageNetRules = AS_PUBLISHED,
) -> Dataset:
    """List the images from which the shots of a set are drawn, with the classes of that set.

    For most sets this is `load(name, root, "train")`. For ImageNet's relatives it is ImageNet's
    training split, without the classes that the relative does not have; `labels` and
    `class_names` are those of the relative. `rules` may want all classes, or the test images.

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
    rules = rules.of(spec)
    if rules.shots_from == "test":
        return load(spec, root, "test", splits_dir=splits_dir, strict=strict, rules=rules)
    if rules.names == "imagenet":
        spec = replace(spec, subset="")
    source = get(spec.shots_from) if spec.shots_from != spec.name else spec
    subset = spec.subset if source is not spec and spec.subset else None
    folder, listing = read_split(source, root, "train", splits_dir, subset=subset)
    expected = source
    if subset is not None:
        counts = {**source.counts, "train": len(listing.refs)}
        expected = replace(source, n_classes=spec.n_classes, counts=counts)
    report_deviations(expected, "train", folder, listing, strict=strict)
    return Dataset(**vars(listing), spec=source, split="train", folder=folder)


# Which of the sets are on a disk, and whether they are as published.

State = Literal["complete", "counts differ", "partial", "absent"]


@dataclass(frozen=True)
class DatasetStatus:
    """How much of one set is there.

    Attributes
    ----------
    name
        Name of the set.
    state
        "complete": as published. "counts differ": nothing that is named is missing, but there are
        more or fewer images or classes. "partial": a file, folder or split is missing. "absent".
    folder
        Where it is; None if absent.
    counts
        Images in each split; None for a split that cannot be read.
    details
        What is missing or differs, as sentences.
    """

    name: str
    state: State
    folder: Path | None
    counts: Mapping[Split, int | None]
    details: tuple[str, ...] = ()


def status(
    root: str | os.PathLike[str],
    *,
    splits_dir: str | os.PathLike[str] | None = None,
    specs: Iterable[DatasetSpec] | None = None,
) -> list[DatasetStatus]:
    """Look for every set under a folder; folders are listed, images are not opened.

    Parameters
    ----------
    root
        The folder above the sets.
    splits_dir
        Where `split_zhou_*.json` lie, if not in the folders of the sets.
    specs
        Which sets to look for; None for all 17, and those that were added.

    Raises
    ------
    InputError
        If `root` or `splits_dir` is no folder.

    Examples
    --------
    >>> import tempfile
    >>> {dataset.state for dataset in status(tempfile.mkdtemp())}
    {'absent'}
    """
    top = layout.checked_folder(root, "root")
    splits = None if splits_dir is None else layout.checked_folder(splits_dir, "splits_dir")
    wanted = every_set() if specs is None else specs
    return [_status(spec, top, splits) for spec in wanted]


def _status(spec: DatasetSpec, root: Path, splits_dir: Path | None) -> DatasetStatus:
    folder = layout.find_folder(spec, root)
    if folder is None:
        details = (str(layout.missing_set_error(spec, root)),)
        return DatasetStatus(spec.name, "absent", None, dict.fromkeys(spec.splits), details)
    counts: dict[Split, int | None] = {}
    remarks: list[str] = []
    partial = False
    for split in spec.splits:
        try:
            _, listing = read_split(spec, root, split, splits_dir)
        except InputError as error:
            partial = True
            counts[split] = None
            remarks.append(str(error))
            continue
        partial = partial or bool(listing.missing)
        counts[split] = len(listing.refs)
        if parts := deviations(spec, split, listing):
            remarks.append(f"{split}: {'; '.join(parts)}.")
    state: State = "partial" if partial else "counts differ" if remarks else "complete"
    # What is wrong with a file that all splits share is said once.
    return DatasetStatus(spec.name, state, folder, counts, tuple(dict.fromkeys(remarks)))
