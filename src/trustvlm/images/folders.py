"""Walk folders for image files, on this machine or elsewhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.images.formats import looks_like_image
from trustvlm.images.references import ImageRef, ImageSource, shown
from trustvlm.images.remote import Location, RemoteImage, file_system


def walk_images(
    folder: Location, *, prefix: str = "", skipped: Counter[str] | None = None
) -> Iterator[ImageSource]:
    """Yield the image files in a folder and below it, in the memory of the largest single folder.

    Hidden files and folders are left out, symbolic links are followed, and a link back to a
    folder above itself is not. The order is that of the relative paths, folder by folder;
    elsewhere the files of a folder come before those of the folders in it.

    Parameters
    ----------
    folder
        Where to look.
    prefix
        Put before each shown path, with a slash.
    skipped
        Counts the files passed over, by extension, as the walk goes on.

    Raises
    ------
    InputError
        If a folder cannot be listed.
    """
    start = f"{prefix.rstrip('/')}/" if prefix else ""
    if folder.is_url:
        files, top = file_system(folder.text)
        for relative in _remote_files(files, top):
            if _is_image(relative, skipped):
                url = files.unstrip_protocol(f"{top}/{relative}")
                yield RemoteImage(f"{start}{relative}", url)
        return
    for relative in _local_files(Path(folder.text)):
        if _is_image(relative, skipped):
            yield ImageRef(shown(f"{start}{relative}"), Path(folder.text) / relative)


def class_folders(folder: Location, skipped: Counter[str]) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders in a folder, and of the image files beside them.

    `skipped` counts the other files, by extension.

    Raises
    ------
    InputError
        If the folder cannot be listed.
    """
    if folder.is_url:
        files, top = file_system(folder.text)
        _, folders, names = next(files.walk(top, maxdepth=1), (top, [], []))
        entries = [(name, True) for name in folders] + [(name, False) for name in names]
        entries = [entry for entry in entries if not entry[0].startswith(".")]
    else:
        path = Path(folder.text)
        # A link to the folder itself is no class.
        entries = [
            (name, is_folder)
            for name, is_folder in _list(path)
            if not (is_folder and _identity(path / name) == _identity(path))
        ]
    loose = [
        name
        for name, is_folder in entries
        if not is_folder and _is_image(PurePosixPath(name), skipped)
    ]
    return sorted(name for name, is_folder in entries if is_folder), sorted(loose)


def _is_image(file: PurePosixPath, skipped: Counter[str] | None) -> bool:
    if looks_like_image(file.name):
        return True
    if skipped is not None:
        skipped[file.suffix.lower() or "(none)"] += 1
    return False


def _local_files(top: Path) -> Iterator[PurePosixPath]:
    """Yield the relative path of every file, ordered by its parts."""
    # Names are reversed, so that the next one is the last of the list.
    levels = [(PurePosixPath(), _list(top), frozenset({_identity(top)}))]
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
            levels.append((below, _list(top / below), above | {identity}))


def _list(folder: Path) -> list[tuple[str, bool]]:
    """Return names and whether they are folders, in reverse order."""
    try:
        with os.scandir(folder) as entries:
            names = [(e.name, _is_folder(e)) for e in entries if not e.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"Expected {shown(folder)!r} to be a folder that can be listed, but got: "
            f"{error.strerror}. Allow yourself to read it, or leave it out."
        ) from error
    return sorted(names, reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _remote_files(files: Any, top: str) -> Iterator[PurePosixPath]:
    for folder, below, names in files.walk(top):
        # What is left of the list is walked, in its order.
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield PurePosixPath(f"{folder}/{name}").relative_to(top)
