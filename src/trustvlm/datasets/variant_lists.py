"""Read FGVC-Aircraft as published: a list of variants, and one of images for each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trustvlm.datasets.listing import Listing, files
from trustvlm.datasets.locating import contents, missing_files
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.exceptions import InputError
from trustvlm.images.references import shown
from trustvlm.images.tables import read_text

__all__ = ["read_variant_lists"]


def read_variant_lists(spec: DatasetSpec, folder: Path, split: Split) -> Listing:
    """List one split in the order of its file; classes are in the order of `variants.txt`.

    Raises
    ------
    InputError
        If a list is not there or names a variant that `variants.txt` does not, or if not one
        image is where it should be.
    """
    lists = {"variants.txt": [], f"images_variant_{split}.txt": []}  # type: dict[str, list[str]]
    absent = [name for name in lists if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"Expected {' and '.join(map(repr, absent))} of {spec.title} in {shown(folder)!r}, "
            f"but that holds {contents(folder)}."
        )
    for name in lists:
        lists[name] = read_text(folder / name).splitlines()
    variants_file, images_file = lists
    variants = tuple(line.strip() for line in lists[variants_file] if line.strip())
    index = {name: i for i, name in enumerate(variants)}
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(lists[images_file], start=1):
        if not line.strip():
            continue
        image, _, variant = line.strip().partition(" ")
        if variant.strip() not in index:
            raise InputError(
                f"Expected line {number} of {shown(folder / images_file)!r} to be an image and "
                f"one of the {len(index)} variants in {variants_file!r}, but got {line!r}."
            )
        paths.append(f"{image}.jpg")
        labels.append(index[variant.strip()])
    base = folder / spec.images
    missing = missing_files(base, paths)
    if paths and len(missing) == len(paths):
        raise InputError(
            f"Expected the images of {spec.title}, such as {paths[0]!r}, in {shown(base)!r}, but "
            f"not one of the {len(paths)} is there: {shown(folder)!r} holds {contents(folder)}."
        )
    y = np.array(labels, dtype=np.int64)
    images = files(base, f"{folder.name}/{spec.images}", paths, y, variants)
    return Listing(images, y, variants, variants, missing)
