"""Where a set lies under the data root, what is missing there, and what a reader lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trustvlm.datasets.catalogue import DatasetSpec, bare, imagenet_classes
from trustvlm.exceptions import InputError
from trustvlm.images.references import ImageRef, LabelledImage, shown
from trustvlm.text import join_names

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
    """Return where a set lies under the root: the first of its folders that looks like it."""
    present = [root / folder for folder in spec.folders if (root / folder).is_dir()]
    fitting = [folder for folder in present if _looks_right(spec, folder)]
    return next(iter(fitting + present), None)


def _missing_error(what: str, folder: Path, remedy: str = "", *, where: str = "in") -> InputError:
    """Build the error for something that a folder should hold and does not; say what it holds."""
    message = f"Expected {what} {where} {shown(folder)!r}, but that holds {contents(folder)}."
    return InputError(f"{message} {remedy}".rstrip())


def check_files(spec: DatasetSpec, folder: Path, names: Sequence[str], remedy: str = "") -> None:
    """Raise `InputError` if files of a set are not in its folder."""
    absent = [repr(name) for name in names if not (folder / name).is_file()]
    if absent:
        raise _missing_error(f"{join_names(absent)} of {spec.title}", folder, remedy)


def missing_set_error(spec: DatasetSpec, root: Path) -> InputError:
    """Build the error for a set that is not under the root."""
    first, *others = spec.folders
    also = f" (or {', '.join(map(repr, others))})" if others else ""
    remedy = ""
    if root.name in spec.folders:
        remedy = f"Name the folder above it, {shown(root.parent)!r}."
    elif near := [name for name in _names(root) if bare(name) in map(bare, spec.folders)]:
        remedy = f"Rename {near[0]!r} to {first!r}, or link to it under that name."
    what = f"{spec.title} in the folder {first!r}{also}"
    return _missing_error(what, root, remedy, where="under")


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
    names = {parent: _all_names(base / parent) for parent in parents}

    def exists(path: str) -> bool:
        parent, name = os.path.split(path)
        # A file system that ignores case opens what a listing spells otherwise.
        return bool(names[parent]) and (name in names[parent] or (base / path).is_file())

    return tuple(path for path in paths if not exists(path))


def _all_names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (names alone are asked for)
    except OSError:
        return frozenset()


def _looks_right(spec: DatasetSpec, folder: Path) -> bool:
    if spec.layout == "split file":
        inside = (spec.images, spec.split_file, *spec.other_images)
        return any((folder / part).exists() for part in inside if part)
    if spec.layout == "variant lists":
        return (folder / "variants.txt").is_file()
    if spec.layout == "numbered folders":
        return any(name.isdecimal() for name in _all_names(folder))
    if spec.layout != "class folders":
        return True
    ids = {imagenet_class.wnid for imagenet_class in imagenet_classes(spec.subset)}
    parts = [spec.split_folders.get(split, "") for split in spec.splits]
    return any(not _all_names(folder / part).isdisjoint(ids) for part in parts)


def _names(folder: Path) -> list[str]:
    return sorted(name for name in _all_names(folder) if not name.startswith("."))


class Images(Sequence[LabelledImage]):
    """Labelled images that are made when they are accessed.

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
        """Return the images at these positions, in this order."""
        return Images(self._make, self._positions[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class Listing:
    """One split of one set.

    Attributes
    ----------
    refs
        The n images, in file order.
    labels
        `(n,)` int64 in [0, C).
    class_names, class_ids
        C names for prompts, and C folders or labels that mean the classes.
    missing
        Image files and class folders that are named and do not exist.
    remarks
        Other deviations from the published set, as parts of a sentence.
    """

    refs: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def files_of(
    base: Path, folder: Path, paths: Sequence[str], labels: NDArray[np.int64], ids: Sequence[str]
) -> Images:
    """Return image files by their paths under a folder.

    Parameters
    ----------
    base
        The folder that the paths start from.
    folder
        That of the set, in or above it; shown paths begin with its name.
    paths
        n paths with forward slashes.
    labels
        `(n,)` indices of their classes.
    ids
        What each class is called as a label.
    """
    prefix = base.relative_to(folder.parent).as_posix()

    def make(i: int) -> LabelledImage:
        image = ImageRef(shown(f"{prefix}/{paths[i]}"), base / paths[i])
        return LabelledImage(image, ids[labels[i]])

    return Images(make, np.arange(len(paths)))
