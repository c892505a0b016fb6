"""Read the layouts of the published sets: split files, variant lists, class folders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trustvlm.datasets.catalogue import DatasetSpec, ImageNetClass, Split, imagenet_classes
from trustvlm.datasets.layout import Listing, check_files, contents, files_of, missing_files
from trustvlm.exceptions import InputError
from trustvlm.images.formats import looks_like_image
from trustvlm.images.references import shown
from trustvlm.images.tables import read_text
from trustvlm.text import counted

# Sets whose splits are listed in a `split_zhou_*.json`.

_ROW = "[path, label, class name]"


def find_split_file(spec: DatasetSpec, folder: Path, splits_dir: Path | None) -> Path:
    """Return where the split file is.

    Looked for in the folder that the user names, in one named like the set inside that, and in
    the set's own folder.

    Raises
    ------
    InputError
        If it is in none of them.
    """
    assert spec.split_file is not None  # noqa: S101 (this layout has one)
    named = [] if splits_dir is None else [splits_dir, *(splits_dir / f for f in spec.folders)]
    for candidate in (*named, folder):
        if (candidate / spec.split_file).is_file():
            return candidate / spec.split_file
    present = "; ".join(f"{shown(f)!r} holds {contents(f)}" for f in (*named[:1], folder))
    raise InputError(
        f"Expected the splits of {spec.title} in the file {spec.split_file!r}, but {present}. "
        "CoOp's DATASETS.md links to it; if it lies elsewhere, name that folder as `splits_dir`."
    )


def read_split_file(
    spec: DatasetSpec, folder: Path, split: Split, splits_dir: Path | None = None
) -> Listing:
    """List one split in the order of the file; class names are those of the file.

    Raises
    ------
    InputError
        If the file is not there or not of that form, or if not one image is where it says.
    """
    file = find_split_file(spec, folder, splits_dir)
    splits = _parse_splits(file)
    names = _class_names(splits, file)
    rows = [(path, label) for path, label, _ in splits[split]]
    return _listed_images(spec, folder, rows, names, file.name)


def _parse_splits(file: Path) -> Mapping[str, list[tuple[str, int, str]]]:
    try:
        content = json.loads(read_text(file))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Expected {shown(file)!r} to be JSON, but: {error}.") from error
    if not isinstance(content, dict) or not {"train", "val", "test"} <= content.keys():
        got = sorted(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise InputError(
            f"Expected {shown(file)!r} to hold the lists train, val and test, but got {got}."
        )
    return {split: _rows(content[split], split, file) for split in ("train", "val", "test")}


def _rows(rows: Any, split: str, file: Path) -> list[tuple[str, int, str]]:
    if not isinstance(rows, list):
        raise InputError(
            f"Expected {split!r} in {shown(file)!r} to be a list, but got a {type(rows).__name__}."
        )
    for i, row in enumerate(rows):
        if not _is_row(row):
            raise InputError(
                f"Expected row {i} of {split!r} in {shown(file)!r} to be {_ROW} with a path "
                f"below the image folder and a label >= 0, but got {row!r}."
            )
    return [(row[0], row[1], row[2]) for row in rows]


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 3:
        return False
    path, label, name = row
    return (
        isinstance(path, str)
        and isinstance(name, str)
        and type(label) is int
        and label >= 0
        and bool(name.strip())
        and path not in ("", ".")
        and not path.startswith("/")
        and "\0" not in path
        and ".." not in PurePosixPath(path).parts
    )


def _class_names(splits: Mapping[str, list[tuple[str, int, str]]], file: Path) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for rows in splits.values():
        for path, label, name in rows:
            if names.setdefault(label, name) != name:
                raise InputError(
                    f"Expected label {label} in {shown(file)!r} to have one name, but it has "
                    f"{names[label]!r} and, for {path!r}, {name!r}."
                )
    gaps = sorted(set(range(len(names))) - names.keys())
    if gaps or not names:
        raise InputError(
            f"Expected the labels in {shown(file)!r} to be 0, 1, ... without a gap, but there is "
            f"no image of {gaps[0] if gaps else 0}."
        )
    return tuple(names[label] for label in range(len(names)))


# FGVC-Aircraft as published: a list of variants, and one of images for each split.


def read_variant_lists(spec: DatasetSpec, folder: Path, split: Split) -> Listing:
    """List one split in the order of its file; classes are in the order of `variants.txt`.

    Raises
    ------
    InputError
        If a list is not there or names a variant that `variants.txt` does not, or if not one
        image is where it should be.
    """
    variants_file, images_file = "variants.txt", f"images_variant_{split}.txt"
    check_files(spec, folder, (variants_file, images_file))
    variants = tuple(filter(None, map(str.strip, read_text(folder / variants_file).splitlines())))
    index = {name: i for i, name in enumerate(variants)}
    rows: list[tuple[str, int]] = []
    for number, line in enumerate(read_text(folder / images_file).splitlines(), start=1):
        if not line.strip():
            continue
        image, _, variant = line.strip().partition(" ")
        if variant.strip() not in index:
            raise InputError(
                f"Expected line {number} of {shown(folder / images_file)!r} to be an image and "
                f"one of the {len(index)} variants in {variants_file!r}, but got {line!r}."
            )
        rows.append((f"{image}.jpg", index[variant.strip()]))
    return _listed_images(spec, folder, rows, variants, images_file)


def _listed_images(
    spec: DatasetSpec,
    folder: Path,
    rows: Sequence[tuple[str, int]],
    names: tuple[str, ...],
    list_name: str,
) -> Listing:
    """Return the images that a list names by path and label; at least one must exist."""
    paths = [path for path, _ in rows]
    base, missing = _base(spec, folder, paths)
    if paths and len(missing) == len(paths):
        raise InputError(
            f"Expected the images of {spec.title}, such as {paths[0]!r}, under "
            f"{shown(folder / spec.images)!r}, but not one of the {len(paths)} in "
            f"{list_name!r} is there: {shown(folder)!r} holds {contents(folder)}."
        )
    labels = np.array([label for _, label in rows], dtype=np.int64)
    return Listing(files_of(base, folder, paths, labels, names), labels, names, names, missing)


def _base(spec: DatasetSpec, folder: Path, paths: list[str]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that the paths start from, and which of them it lacks.

    TPT has the images of some sets in the set's folder, CoOp in a folder inside it, and an archive
    that is unpacked in the set's folder may make one more.
    """
    best, missing = folder / spec.images, missing_files(folder / spec.images, paths)
    for base in (folder, *(folder / part for part in spec.other_images)):
        if not missing:
            break
        if base != best and base.is_dir():
            missing_otherwise = missing_files(base, paths)
            if len(missing_otherwise) < len(missing):
                best, missing = base, missing_otherwise
    return best, missing


# ImageNet and its relatives: one folder per class, named by WordNet ID or by number.


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
    by_class = {c.wnid: c.wnid for c in classes if c.wnid in present}
    left_out = [] if subset is not None else [name for name in present if name not in by_class]
    if not by_class:
        raise _no_class_folders(spec, base, f"WordNet IDs, such as {classes[0].wnid!r}")
    return _class_folder_images(base, folder, classes, by_class, left_out)


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
        raise _no_class_folders(spec, folder, f"numbers, '0' to '{len(classes) - 1}'")
    return _class_folder_images(folder, folder, classes, by_class, left_out)


def _class_folder_images(
    base: Path,
    folder: Path,
    classes: Sequence[ImageNetClass],
    by_class: Mapping[str, str],
    left_out: Sequence[str],
) -> Listing:
    paths: list[str] = []
    counts: list[int] = []
    missing: list[str] = []
    for imagenet_class in classes:
        name = by_class.get(imagenet_class.wnid)
        images = [] if name is None else _images(base / name)
        if not images:
            missing.append(f"{imagenet_class.wnid if name is None else name}/")
        paths += [f"{name}/{image}" for image in images]
        counts.append(len(images))
    labels = np.repeat(np.arange(len(classes)), counts)
    ids = tuple(c.wnid for c in classes)
    remarks: tuple[str, ...] = ()
    if left_out:
        others = counted(len(left_out), "folder")
        remarks = (f"{others} of other classes left out, such as {left_out[0]!r}",)
    return Listing(
        files_of(base, folder, paths, labels, ids),
        labels,
        tuple(c.name for c in classes),
        ids,
        tuple(missing),
        remarks,
    )


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


def _no_class_folders(spec: DatasetSpec, base: Path, how: str) -> InputError:
    remedy = ""
    if any(looks_like_image(name) for name in os.listdir(base)):  # noqa: PTH208
        remedy = " Images lie loose in it: move each into the folder of its class first."
    return InputError(
        f"Expected {spec.title} to have {spec.n_classes} class folders in {shown(base)!r}, named "
        f"by {how}, but that holds {contents(base)}.{remedy}"
    )
