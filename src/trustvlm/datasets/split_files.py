"""Read the sets whose splits are listed in a `split_zhou_*.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trustvlm.datasets.listing import Listing, files
from trustvlm.datasets.locating import contents, missing_files
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.exceptions import InputError
from trustvlm.images.references import shown
from trustvlm.images.tables import read_text

__all__ = ["find_split_file", "read_split_file"]

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
    for place in (*named, folder):
        if (place / spec.split_file).is_file():
            return place / spec.split_file
    found = "; ".join(f"{shown(place)!r} holds {contents(place)}" for place in (*named[:1], folder))
    raise InputError(
        f"Expected the splits of {spec.title} in the file {spec.split_file!r}, but {found}. "
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
    splits = _parsed(file)
    rows = splits[split]
    names = _class_names(splits, file)
    paths = [path for path, _, _ in rows]
    base, missing = _base(spec, folder, paths)
    if paths and len(missing) == len(paths):
        raise InputError(
            f"Expected the images of {spec.title}, such as {paths[0]!r}, under "
            f"{shown(folder / spec.images)!r}, but not one of the {len(paths)} in "
            f"{file.name!r} is there: {shown(folder)!r} holds {contents(folder)}."
        )
    labels = np.array([label for _, label, _ in rows], dtype=np.int64)
    shown_as = folder.name if base == folder else f"{folder.name}/{spec.images}"
    return Listing(files(base, shown_as, paths, labels, names), labels, names, names, missing)


def _base(spec: DatasetSpec, folder: Path, paths: list[str]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that the paths start from, and which of them it lacks.

    TPT has the images of some sets in the set's folder, CoOp in a folder inside it.
    """
    usual = folder / spec.images
    missing = missing_files(usual, paths)
    if missing and usual != folder:
        missing_otherwise = missing_files(folder, paths)
        if len(missing_otherwise) < len(missing):
            return folder, missing_otherwise
    return usual, missing


def _parsed(file: Path) -> Mapping[str, list[tuple[str, int, str]]]:
    try:
        content = json.loads(read_text(file))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Expected {shown(file)!r} to be JSON, but: {error}.") from error
    if not isinstance(content, dict) or not {"train", "val", "test"} <= content.keys():
        found = sorted(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise InputError(
            f"Expected {shown(file)!r} to hold the lists train, val and test, but got {found}."
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
