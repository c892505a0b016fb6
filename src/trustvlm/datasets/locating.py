"""Find a set under the data root, and say what was expected and found where it is not."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from trustvlm.datasets.imagenet import imagenet_classes
from trustvlm.datasets.specs import DatasetSpec
from trustvlm.exceptions import InputError
from trustvlm.images.references import shown

__all__ = ["absent", "checked_folder", "contents", "find_folder", "missing_files"]

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
