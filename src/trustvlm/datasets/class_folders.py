"""Read ImageNet and its relatives: one folder per class, named by WordNet ID or by number."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trustvlm.datasets.imagenet import ImageNetClass, imagenet_classes
from trustvlm.datasets.listing import Listing, files
from trustvlm.datasets.locating import contents
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.exceptions import InputError
from trustvlm.images.folders import looks_like_image
from trustvlm.images.references import shown

__all__ = ["read_class_folders", "read_numbered_folders"]


def read_class_folders(
    spec: DatasetSpec, folder: Path, split: Split, subset: str | None = None
) -> Listing:
    """List the images in folders that are named by WordNet ID.

    Classes are in the order of ImageNet's indices, images in that of their file names.

    Parameters
    ----------
    spec, folder, split
        The set, where it is, and which split of it.
    subset
        Which of ImageNet's classes to list; those of the set by default. Folders of other
        classes are then passed over without a word.

    Raises
    ------
    InputError
        If there is no such folder, or no class folder in it.
    """
    base = folder / spec.split_folders.get(split, "")
    classes = imagenet_classes(spec.subset if subset is None else subset)
    present = _folders(base, spec)
    by_class = {known.wnid: known.wnid for known in classes if known.wnid in present}
    left_out = [] if subset is not None else [name for name in present if name not in by_class]
    if not by_class:
        raise InputError(_no_class_folders(spec, base, f"WordNet IDs, such as {classes[0].wnid!r}"))
    return _listing(base, folder.parent, classes, by_class, left_out)


def read_numbered_folders(spec: DatasetSpec, folder: Path) -> Listing:
    """List the images in folders that are named by ImageNet's indices, 0 to 999.

    Sorted as text, 10 would come before 2 and most labels would be wrong; they are numbers here.

    Raises
    ------
    InputError
        If there is no numbered folder, or if two mean the same class.
    """
    classes = imagenet_classes(spec.subset)
    by_class: dict[str, str] = {}
    left_out: list[str] = []
    for name in _folders(folder, spec):
        if not (name.isascii() and name.isdecimal()) or int(name) >= len(classes):
            left_out.append(name)
            continue
        wnid = classes[int(name)].wnid
        if wnid in by_class:
            raise InputError(
                f"Expected one folder per class in {shown(folder)!r}, but {by_class[wnid]!r} and "
                f"{name!r} both mean class {int(name)}."
            )
        by_class[wnid] = name
    if not by_class:
        raise InputError(_no_class_folders(spec, folder, f"numbers, '0' to '{len(classes) - 1}'"))
    return _listing(folder, folder.parent, classes, by_class, left_out)


def _listing(
    base: Path,
    above: Path,
    classes: Sequence[ImageNetClass],
    by_class: Mapping[str, str],
    left_out: Sequence[str],
) -> Listing:
    paths: list[str] = []
    labels: list[int] = []
    missing: list[str] = []
    for label, known in enumerate(classes):
        name = by_class.get(known.wnid)
        found = [] if name is None else _images(base / name)
        if not found:
            missing.append(f"{known.wnid if name is None else name}/")
        paths += [f"{name}/{image}" for image in found]
        labels += [label] * len(found)
    y = np.array(labels, dtype=np.int64)
    ids = tuple(known.wnid for known in classes)
    remarks = (
        (f"{_folder_count(len(left_out))} of other classes left out, such as {left_out[0]!r}",)
        if left_out
        else ()
    )
    images = files(base, base.relative_to(above).as_posix(), paths, y, ids)
    names = tuple(known.name for known in classes)
    return Listing(images, y, names, ids, tuple(missing), remarks)


def _folders(base: Path, spec: DatasetSpec) -> list[str]:
    try:
        with os.scandir(base) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        above = base.parent
        raise InputError(
            f"Expected {spec.title} to have the folder {shown(base)!r}, but got: "
            f"{error.strerror}. {shown(above)!r} holds {contents(above)}."
        ) from error


def _images(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            # Names alone: asking what each entry is would double the time for ImageNet.
            names = (entry.name for entry in entries)
            return sorted(n for n in names if looks_like_image(n) and not n.startswith("."))
    except OSError as error:
        raise InputError(
            f"Expected {shown(folder)!r} to be a folder that can be listed, but got: "
            f"{error.strerror}."
        ) from error


def _no_class_folders(spec: DatasetSpec, base: Path, how: str) -> str:
    remedy = ""
    if any(looks_like_image(name) for name in os.listdir(base)):  # noqa: PTH208
        remedy = " Images lie loose in it: move each into the folder of its class first."
    return (
        f"Expected {spec.title} to have {spec.n_classes} class folders in {shown(base)!r}, named "
        f"by {how}, but that holds {contents(base)}.{remedy}"
    )


def _folder_count(n: int) -> str:
    return "1 folder" if n == 1 else f"{n} folders"
