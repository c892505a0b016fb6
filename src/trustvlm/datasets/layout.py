"""Where a set is on a disk, and what a reader lists there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trustvlm.datasets.catalogue import DatasetSpec
from trustvlm.datasets.imagenet import imagenet_classes
from trustvlm.exceptions import InputError
from trustvlm.images import ImageRef, LabelledImage
from trustvlm.images.references import shown

# Find a set under the data root, and say what was expected and found where it is not.

_MOST = 12


def checked_folder(folder: str | os.PathLike[str], what: str) -> Path:
    """Return a folder of the user's, or raise `InputError` that names what it was given as."""
    path = Path(folder).expanduser()
    if not os.path.isdir(path):  # noqa: PTH112 (does not raise for names that are too long)
        raise InputError(
            f"Expected `{what}` to be a folder, but there is no folder {shown(folder)!r}."
        )
    return path


def find_folder(spec: DatasetSpec, root: Path) -> Path | None:
    """Return where a set lies under the root: the first of its places that looks like it."""
    there = [root / place for place in spec.folders if (root / place).is_dir()]
    return next((folder for folder in there if _looks_right(spec, folder)), next(iter(there), None))


def absent(spec: DatasetSpec, root: Path) -> InputError:
    """Build the error for a set that is not under the root."""
    first, *others = spec.folders
    also = f" (or {', '.join(map(repr, others))})" if others else ""
    message = (
        f"Expected {spec.title} in the folder {first!r}{also} under {shown(root)!r}, "
        f"but that holds {contents(root)}."
    )
    if root.name in spec.folders:
        return InputError(f"{message} Name the folder above it, {shown(root.parent)!r}.")
    wanted = {_bare(place) for place in spec.folders}
    near = [name for name in _names(root) if _bare(name) in wanted]
    if near:
        message += f" Rename {near[0]!r} to {first!r}, or link to it under that name."
    return InputError(message)


def contents(folder: Path) -> str:
    """Describe in words what a folder holds.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> contents(folder)
    'nothing'
    >>> (folder / "DTD").mkdir()
    >>> contents(folder)
    'DTD/'
    """
    names = _names(folder)
    if not names:
        return "nothing"
    marked = [name + "/" if (folder / name).is_dir() else name for name in names[:_MOST]]
    more = f", ... ({len(names)} in all)" if len(names) > _MOST else ""
    return ", ".join(map(shown, marked)) + more


def missing_files(base: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Return which paths under a folder are no files, in order.

    Folders are listed once each, which on a network disk is much faster than asking for files.
    """
    parents = {os.path.dirname(path) for path in paths}  # noqa: PTH120 (a tenth of the time)
    listed = {parent: _listed(base / parent) for parent in parents}

    def there(path: str) -> bool:
        parent, name = os.path.split(path)
        names = listed[parent]
        # A file system that ignores case opens what a listing spells otherwise.
        return bool(names) and (name in names or (base / path).is_file())

    return tuple(path for path in paths if not there(path))


def _listed(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (names alone are asked for)
    except OSError:
        return frozenset()


def _looks_right(spec: DatasetSpec, folder: Path) -> bool:
    if spec.layout == "split file":
        return any((folder / part).exists() for part in (spec.images, spec.split_file) if part)
    if spec.layout != "class folders":
        return True
    ids = {known.wnid for known in imagenet_classes(spec.subset)}
    parts = [spec.split_folders.get(split, "") for split in spec.splits]
    return any(not _listed(folder / part).isdisjoint(ids) for part in parts)


def _names(folder: Path) -> list[str]:
    return sorted(name for name in _listed(folder) if not name.startswith("."))


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


# What a reader finds on the disk: images, labels, and what is not as it should be.


class Images(Sequence[LabelledImage]):
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
    >>> pixels = [InMemoryImage(f"{i}.ppm", b"P6") for i in range(4)]
    >>> images = Images(lambda i: LabelledImage(pixels[i], "grey"), np.arange(4))
    >>> images[3].path, len(images[:2]), images.at([2, 0])[0].path
    ('3.ppm', 2, '2.ppm')
    """

    def __init__(
        self, make: Callable[[int], LabelledImage], positions: NDArray[np.integer]
    ) -> None:
        self._make = make
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> LabelledImage: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> LabelledImage | Images:
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


def files_of(
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

    def make(i: int) -> LabelledImage:
        image = ImageRef(shown(prefix + paths[i]), base / paths[i])
        return LabelledImage(image, ids[labels[i]])

    return Images(make, np.arange(len(paths)))
