"""Find a set, and read one split of it with the reader of its layout."""

from __future__ import annotations

import os
from pathlib import Path

from trustvlm.datasets.cifar import read_cifar
from trustvlm.datasets.class_folders import read_class_folders, read_numbered_folders
from trustvlm.datasets.listing import Listing
from trustvlm.datasets.locating import absent, checked_folder, find_folder
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.datasets.split_files import read_split_file
from trustvlm.datasets.variant_lists import read_variant_lists
from trustvlm.exceptions import InputError

__all__ = ["read_split"]


def read_split(
    spec: DatasetSpec,
    root: str | os.PathLike[str],
    split: Split,
    splits_dir: str | os.PathLike[str] | None = None,
    *,
    subset: str | None = None,
) -> tuple[Path, Listing]:
    """Return where a set lies and what one split of it holds, without judging either.

    `subset` lists only some classes of ImageNet: "a" or "r".

    Raises
    ------
    InputError
        As `load` does, but for deviations.
    """
    top = checked_folder(root, "root")
    splits = None if splits_dir is None else checked_folder(splits_dir, "splits_dir")
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
    folder = find_folder(spec, top)
    if folder is None:
        raise absent(spec, top)
    match spec.layout:
        case "split file":
            listing = read_split_file(spec, folder, split, splits)
        case "variant lists":
            listing = read_variant_lists(spec, folder, split)
        case "class folders":
            listing = read_class_folders(spec, folder, split, subset)
        case "numbered folders":
            listing = read_numbered_folders(spec, folder)
        case "pickles":
            listing = read_cifar(spec, folder, split)
    return folder, listing
