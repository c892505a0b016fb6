"""Find the images that a user means: a file, a folder, a list, a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from trustvlm.exceptions import InputError
from trustvlm.images.folders import class_folders, images_below
from trustvlm.images.formats import IMAGE_EXTENSIONS
from trustvlm.images.references import FoundImages, ImageRef, LabelledImages, shown
from trustvlm.images.tables import TABLE_EXTENSIONS, read_lines, read_table

__all__ = ["LabelledSource", "PathLike", "Source", "find_images", "find_labelled", "no_images"]

PathLike: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = PathLike | Iterable[PathLike]
LabelledSource: TypeAlias = PathLike | tuple[Iterable[PathLike], Iterable[str]]


def find_images(source: Source, *, path_column: str = "path") -> FoundImages:
    """List the images of a source, without opening them.

    Parameters
    ----------
    source
        * a folder: every image file below it, ordered by relative path; hidden files and files
          with other extensions are passed over and counted;
        * a `.csv` or `.tsv` table with a column of paths, or a `.txt` file with one path a line,
          both relative to the file's own folder;
        * any other file: that one image, whatever its extension;
        * a list of these, one after the other; images in folders are then shown with their
          folder. A path in a list, a table or a text file that does not exist is kept: it
          becomes an image with an error, not a missing row.
    path_column
        Name of the column of paths in a table.

    Returns
    -------
    FoundImages
        A list of `ImageRef` with `n_skipped`; a file that is named twice is there twice.

    Raises
    ------
    InputError
        If there is no such path (in a list: none of them), or no image at all.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg"):
    ...     _ = (folder / name).write_bytes(b"x")
    >>> found = find_images(folder)
    >>> [ref.path for ref in found], found.n_skipped
    (['a.PNG', 'b.jpg'], 1)
    """
    if isinstance(source, (str, os.PathLike)):
        items, described = [source], shown(source)
    else:
        items, described = [_checked_path(item) for item in source], "the given list"
    if items and not any(_exists(Path(item)) for item in items):
        others = f" (nor any of the {len(items) - 1} others)" if len(items) > 1 else ""
        raise InputError(
            f"Expected images, folders, CSV files or text files of paths, but there is no "
            f"{shown(items[0])!r}{others}."
        )
    found = FoundImages()
    for item in items:
        # With one source, paths relative to it suffice; several have to be told apart.
        prefix = shown(Path(item).as_posix()) if len(items) > 1 else ""
        part = _one(item, path_column, prefix="" if prefix == "." else prefix)
        found.extend(part)
        found.skipped.update(part.skipped)
    if not found:
        raise InputError(no_images(described, found.skipped))
    return found


def find_labelled(
    source: LabelledSource, *, path_column: str = "path", label_column: str = "label"
) -> LabelledImages:
    """List the images of a source together with their classes.

    Parameters
    ----------
    source
        * a folder of class folders: files at any depth below a class folder belong to it, and
          image files beside the class folders are reported as `loose`;
        * a `.csv` or `.tsv` table with a column of paths, relative to its folder, and one of
          labels;
        * `(paths, labels)`, two sequences of equal length.
    path_column, label_column
        Names of the two columns in a table.

    Raises
    ------
    InputError
        If there is no such path, no class folder, no image, or an image without a label.

    Examples
    --------
    >>> labelled = find_labelled((["1.jpg", "2.jpg"], ["dog", "cat"]))
    >>> labelled.classes, labelled.labels
    (('cat', 'dog'), ['dog', 'cat'])
    """
    if not isinstance(source, (str, os.PathLike)):
        return _labelled_pair(source)
    path = Path(source)
    if _is_folder(path):
        return _labelled_folder(path, shown(source))
    if not _exists(path):
        raise InputError(
            f"Expected a folder of class folders or a CSV with paths and labels, but there is no "
            f"{shown(source)!r}."
        )
    if path.suffix.lower() not in TABLE_EXTENSIONS:
        raise InputError(
            f"Expected a folder of class folders or a CSV with paths and labels, but got the file "
            f"{shown(source)!r}."
        )
    refs = FoundImages(
        ImageRef(shown(name), path.parent / name, label)
        for name, label in (row.cells for row in read_table(path, (path_column, label_column)))
    )
    return _from_refs(refs, shown(source))


def _exists(path: Path) -> bool:
    # Unlike the methods of Path, these do not raise for names that are too long.
    return os.path.exists(path)  # noqa: PTH110


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _checked_path(item: Any) -> PathLike:
    if not isinstance(item, (str, os.PathLike)):
        raise InputError(
            f"Expected every image to be named by a path, but got a {type(item).__name__}."
        )
    return item


def _one(source: PathLike, path_column: str, *, prefix: str) -> FoundImages:
    path = Path(source)
    suffix = path.suffix.lower()
    if _is_folder(path):
        return images_below(path, prefix=prefix)
    if suffix in TABLE_EXTENSIONS and _exists(path):
        names = [row.cells[0] for row in read_table(path, (path_column,))]
    elif suffix == ".txt" and _exists(path):
        names = read_lines(path)
    else:
        return FoundImages([ImageRef(shown(source), path)])
    return FoundImages(ImageRef(shown(name), path.parent / name) for name in names)


def _labelled_folder(folder: Path, described: str) -> LabelledImages:
    names, loose = class_folders(folder)
    if not names:
        raise InputError(
            f"Expected {described!r} to hold one folder per class with its images inside, but it "
            f"holds no folders ({len(loose)} image files)."
        )
    refs = FoundImages(skipped=loose.skipped)
    for name in names:
        part = images_below(folder / name, prefix=name, label=shown(name))
        refs.extend(part)
        refs.skipped.update(part.skipped)
    if not refs:
        raise InputError(no_images(f"the class folders of {described}", refs.skipped))
    return LabelledImages(refs, tuple(map(shown, names)), tuple(ref.path for ref in loose))


def _labelled_pair(source: Any) -> LabelledImages:
    try:
        paths, labels = (None if isinstance(part, str) else list(part) for part in source)
    except (TypeError, ValueError):
        paths = labels = None
    if paths is None or labels is None:
        raise InputError(
            "Expected a folder, a CSV or a pair (paths, labels) of two lists, but got "
            f"a {type(source).__name__} of something else."
        )
    if len(paths) != len(labels):
        raise InputError(
            f"Expected as many labels as paths, but got {len(paths)} paths and "
            f"{len(labels)} labels."
        )
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise InputError(
                f"Expected every label to be the name of a class, but got {label!r} at "
                f"position {position}."
            )
    refs = FoundImages(
        ImageRef(shown(_checked_path(path)), Path(path), str(label))
        for path, label in zip(paths, labels, strict=True)
    )
    return _from_refs(refs, "the given list")


def _from_refs(refs: FoundImages, described: str) -> LabelledImages:
    if not refs:
        raise InputError(f"Expected at least one labelled image, but {described} lists none.")
    return LabelledImages(refs, tuple(sorted({str(ref.label) for ref in refs})))


def no_images(described: str, skipped: Counter[str]) -> str:
    """Say that a source holds no images, and what it holds instead, by extension."""
    others = ""
    if skipped:
        kinds = ", ".join(f"{count} x {suffix}" for suffix, count in skipped.most_common(5))
        others = f" It holds {skipped.total()} other files ({kinds})."
    if skipped.keys() & {".tar", ".gz", ".tgz", ".parquet"}:
        others += " Name archives and Parquet files themselves, as with *.tar."
    return (
        f"Expected at least one image, but found none in {described}.{others} "
        f"Looked for {' '.join(sorted(IMAGE_EXTENSIONS))}."
    )
