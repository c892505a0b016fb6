"""Walk folders for image files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trustvlm.exceptions import InputError
from trustvlm.images.formats import IMAGE_EXTENSIONS
from trustvlm.images.references import FoundImages, ImageRef, shown


def looks_like_image(name: str) -> bool:
    """Whether a file name has the extension of an image, in any case.

    Examples
    --------
    >>> looks_like_image("IMG_0001.JPG"), looks_like_image("notes.txt")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in IMAGE_EXTENSIONS


def images_below(folder: Path, *, prefix: str = "", label: str | None = None) -> FoundImages:
    """List the image files in a folder and everything below it.

    Hidden files and folders are left out, symbolic links are followed, and a link back to a
    folder above itself is not. The order is that of the relative paths, folder by folder.

    Parameters
    ----------
    folder
        Where to look.
    prefix
        Put before each shown path, with a slash.
    label
        Given to every image.

    Raises
    ------
    InputError
        If a folder cannot be listed.
    """
    skipped: Counter[str] = Counter()
    return FoundImages(walk_images(folder, prefix=prefix, label=label, skipped=skipped), skipped)


def walk_images(
    folder: Path,
    *,
    prefix: str = "",
    label: str | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[ImageRef]:
    """Yield the images that `images_below` lists, in the memory of the largest single folder.

    Parameters
    ----------
    folder, prefix, label
        As in `images_below`.
    skipped
        Counts the files passed over, by extension, as the walk goes on.
    """
    start = f"{prefix}/" if prefix else ""
    for relative in _files_below(folder):
        if looks_like_image(relative.name):
            yield ImageRef(shown(f"{start}{relative}"), folder / relative, label)
        elif skipped is not None:
            skipped[relative.suffix.lower() or "(none)"] += 1


def class_folders(folder: Path) -> tuple[list[str], FoundImages]:
    """Return the sorted names of the folders in a folder, and the image files beside them.

    Raises
    ------
    InputError
        If the folder cannot be listed.
    """
    names: list[str] = []
    loose: list[str] = []
    skipped: Counter[str] = Counter()
    here = {_identity(folder)}
    for entry in _entries(folder):
        if _is_folder(entry):
            if _identity(Path(entry.path)) not in here:
                names.append(entry.name)
        elif looks_like_image(entry.name):
            loose.append(entry.name)
        else:
            skipped[PurePosixPath(entry.name).suffix.lower() or "(none)"] += 1
    refs = (ImageRef(shown(name), folder / name) for name in sorted(loose))
    return sorted(names), FoundImages(refs, skipped)


def _files_below(top: Path) -> Iterator[PurePosixPath]:
    """Yield the relative path of every file, ordered by its parts."""
    # Names are reversed, so that the next one is the last of the list.
    levels = [(PurePosixPath(), _listed(top), frozenset({_identity(top)}))]
    while levels:
        relative, names, above = levels[-1]
        if not names:
            levels.pop()
            continue
        name, is_folder = names.pop()
        if not is_folder:
            yield relative / name
        elif (identity := _identity(top / relative / name)) not in above:
            below = relative / name
            levels.append((below, _listed(top / below), above | {identity}))


def _listed(folder: Path) -> list[tuple[str, bool]]:
    names = [(entry.name, _is_folder(entry)) for entry in _entries(folder)]
    return sorted(names, reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"Expected {shown(folder)!r} to be a folder that can be listed, but got: "
            f"{error.strerror}. Allow yourself to read it, or leave it out."
        ) from error


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
