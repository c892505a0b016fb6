"""Images with their classes: class folders, tables, archives, lists."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.archives import archive_shard
from trustvlm.images.collections import labelled_items
from trustvlm.images.errors import DEFAULT_LIMITS, Limits
from trustvlm.images.inputs import (
    LabelledSource,
    input_kind,
    is_image,
    list_folder,
    no_images,
    walk_images,
    warn_of_skipped,
)
from trustvlm.images.labelled_archives import labels_of, text_endings
from trustvlm.images.locations import Location, expand, file_system, images_beside
from trustvlm.images.parquet import ParquetShard
from trustvlm.images.references import (
    NAMED,
    ImageSource,
    LabelledImage,
    LabelledImages,
    Skipped,
    is_split,
    is_system_folder,
    read_group,
    read_probability,
    shown,
)
from trustvlm.images.streams import StreamShard
from trustvlm.images.tables import read_table
from trustvlm.text import counted, join_names, printable

LABEL_CONFIDENCE = "label_confidence"
"""The column of the probabilities that came with labels, so that they do not pass for ours."""


def find_labelled(
    source: LabelledSource,
    *,
    path_column: str = "path",
    label_column: str = "label",
    image_column: str | None = None,
    confidence_column: str | None = None,
    group_column: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> LabelledImages:
    """List the images of a source together with their classes; files of images are not opened.

    Parameters
    ----------
    source
        * a folder of class folders: files at any depth below a class folder belong to it, and
          image files beside the class folders are reported as `loose`;
        * a folder with a `metadata.csv` or `metadata.jsonl`, as Hugging Face's data sets have it:
          the columns `file_name` and that of labels; what it does not list is `loose`;
        * a `.csv`, `.tsv` or `.jsonl` table with a column of paths or URLs, relative to its
          folder, and one of labels;
        * a `.parquet` file with the bytes of images, or with paths, and a column of labels; its
          images are held in memory;
        * a tar or zip archive, whose images are held in memory, too, with labels beside the images,
          as WebDataset has them (`.cls`, or `label_column` in `.json`), or of class folders, which
          may lie in one folder more; images without a label are `loose`;
        * the URL of any of these; braces stand for several, as in `pets-{000..012}.tar`;
        * a list of these;
        * a tuple `(images, labels)` of equal length, where images are paths, URLs or pictures that
          the program holds; or a list or an iterator of pairs `(image, label)`;
        * a DataFrame, a `Dataset` of Hugging Face's `datasets`, or a data set of torch, of pairs;
          see `images.collections`.
    path_column, label_column, image_column, group_column
        As in `Columns`. Every image needs a group where there is a column of them; folders and
        archives have none.
    confidence_column
        Probabilities that came with labels from elsewhere. Its cells may be empty, and one that is
        called `label_confidence` may be missing; None or "" reads none.
    limits
        Bounds on archives and Parquet files, and what is in them.

    Raises
    ------
    InputError
        If there is no such path, no class folder, no image, an image without a label, a
        probability that is none, or no probability in a column of another name.

    Examples
    --------
    >>> labelled = find_labelled((["1.jpg", "2.jpg"], ["dog", "cat"]))
    >>> labelled.classes, labelled.labels
    (('cat', 'dog'), ['dog', 'cat'])
    """
    listed = _listed(
        source,
        _Reading(path_column, label_column, image_column, confidence_column, group_column, limits),
    )
    if not confidence_column or confidence_column == LABEL_CONFIDENCE:
        return listed
    if all(math.isnan(image.confidence) for image in listed.refs):
        raise InputError(
            f"Expected a column {confidence_column!r} with the probabilities that came with the "
            "labels, but there is none, or it is empty. Look at how the columns are called."
        )
    return listed


class _Reading(NamedTuple):
    """How to read labelled images, as `find_labelled` says."""

    path_column: str
    label_column: str
    image_column: str | None
    confidence_column: str | None
    group_column: str | None
    limits: Limits


def _listed(source: LabelledSource, reading: _Reading) -> LabelledImages:
    names = _several(source)
    if names is None:
        images = labelled_items(
            source,
            path_column=reading.path_column,
            label_column=reading.label_column,
            image_column=reading.image_column,
            confidence_column=reading.confidence_column,
            group_column=reading.group_column,
        )
        return _with_classes(images, "the given list")
    if len(names) == 1:
        return _labelled_at(names[0], "", reading)
    listings = [_labelled_at(name, shown(name), reading) for name in names]
    images = chain.from_iterable(listing.refs for listing in listings)
    skipped = Skipped()
    for listing in listings:
        skipped.merge(Skipped(listing.skipped))
    return replace(
        _with_classes(images, "the given list"),
        loose=tuple(chain.from_iterable(listing.loose for listing in listings)),
        skipped=skipped,
    )


def _several(source: LabelledSource) -> list[str] | None:
    """Return the files or folders that hold labelled images; None for images and their labels."""
    if isinstance(source, str | os.PathLike):
        return expand(os.fspath(source))
    if not isinstance(source, list):
        return None
    names: list[str] = []
    for item in source:
        if not isinstance(item, str | os.PathLike):
            return None
        names += expand(os.fspath(item))
    is_holder = bool(names) and all(input_kind(Location.of(name)) != "image" for name in names)
    return names if is_holder else None


def _labelled_at(source: str, prefix: str, reading: _Reading) -> LabelledImages:
    """Return the labelled images of a file or folder; `prefix` is put before the names in it."""
    location, name = Location.of(source), shown(source)
    label_column, group_column = reading.label_column, reading.group_column
    match input_kind(location):
        case "folder":
            if reading.path_column == "path":
                reading = reading._replace(path_column="file_name")
            metadata = _metadata_of(location, reading.path_column, label_column)
            if metadata is None:
                _check_no_groups(group_column, name)
                _check_no_lists_below(location, reading.path_column, label_column)
                return _from_class_folders(location, name, prefix)
            return _with_loose(_from_table(metadata, reading), location, name)
        case "archive":
            _check_no_groups(group_column, name)
            endings, skipped = text_endings(label_column), Skipped()
            shard = archive_shard(name, location, prefix, skipped, reading.limits, texts=endings)
            return _from_archive(shard, skipped, label_column, reading.confidence_column)
        case "table":
            return _with_classes(_from_table(location, reading), name)
        case "Parquet file":
            rows = ParquetShard(
                name,
                location,
                prefix,
                reading.path_column,
                reading.image_column,
                label_column,
                reading.confidence_column,
                group_column,
                limits=reading.limits,
            )
            return _with_classes(rows.labelled(), name)
    problem = f"got the file {name!r}" if location.exists() else f"there is no {name!r}"
    raise InputError(
        f"Expected a folder of class folders, or a table, an archive or a Parquet file with "
        f"labels, but {problem}."
    )


def _check_no_groups(group_column: str | None, name: str) -> None:
    if group_column is not None:
        raise InputError(
            f"Expected a table or a Parquet file with the column {group_column!r} of groups, but "
            f"{name!r} is neither: write a CSV with the columns path, label and {group_column}."
        )


def _from_table(location: Location, reading: _Reading) -> Iterator[LabelledImage]:
    image_of, group_column = images_beside(location), reading.group_column
    needed = (reading.path_column, reading.label_column)
    others = (reading.confidence_column or "", group_column or "")
    for path, label, p, cell in read_table(location, needed, others):
        group = "" if group_column is None else read_group(cell, path, group_column)
        yield LabelledImage(image_of(path), label, read_probability(p, path), group)


# What data sets of Hugging Face call the list of the images in a folder.
_METADATA = ("metadata.csv", "metadata.jsonl")


def _metadata_of(folder: Location, path_column: str, label_column: str) -> Location | None:
    """Return the list of labelled images in a folder; None if it has none, or none with labels.

    Raises
    ------
    InputError
        If the list has no labels, and there are no class folders either.
    """
    table = next((t for t in map(folder.below, _METADATA) if t.exists()), None)
    if table is None:
        return None
    try:
        if any(label for _, label in read_table(table, (path_column,), (label_column,))):
            return table
    except InputError:
        if not _folders_in(folder):
            raise
    # It may say something else of images that lie in class folders.
    return None if _folders_in(folder) else table


def _check_no_lists_below(folder: Location, path_column: str, label_column: str) -> None:
    """Refuse a folder of parts of a data set that have a list of labelled images each.

    Raises
    ------
    InputError
        If the only folder, or one that is called as a part is, holds such a list.
    """
    folders = _folders_in(folder)
    for name in sorted(folders):
        part = folder.below(name)
        if not (len(folders) == 1 or is_split(name)):
            continue
        try:
            table = _metadata_of(part, path_column, label_column)
        except InputError:
            continue
        if table is not None:
            raise InputError(
                f"Expected {shown(folder.text)!r} to hold one folder per class, but its folder "
                f"{shown(name)!r} has a list of labelled images of its own: name "
                f"{shown(part.text)!r}."
            )


def _with_loose(listed: Iterable[LabelledImage], folder: Location, name: str) -> LabelledImages:
    """Return the images that are listed, and say which others the folder holds."""
    labelled = _with_classes(listed, name)
    skipped = Skipped()

    def key(image: ImageSource) -> str | Path:
        # Lists may spell the name of a file otherwise than it is here.
        return getattr(image, "file", None) or PurePosixPath(image.path).as_posix()

    keys = set(map(key, labelled.refs))
    loose = [image.path for image in walk_images(folder, skipped=skipped) if key(image) not in keys]
    _warn_of_loose(loose, f"in {name} that its metadata does not list")
    return replace(labelled, loose=tuple(loose))


def _from_archive(
    shard: StreamShard, skipped: Skipped, label_column: str, confidence_column: str | None
) -> LabelledImages:
    name = shard.name
    labels = labels_of(shard, label_column, confidence_column, skipped)
    if not labels.images:
        raise InputError(no_images(name, skipped))
    _check_splits(labels.folders, name, "Pack the folder of one of them alone")
    warn_of_skipped(skipped)
    _warn_of_loose(labels.loose, f"in {name} without a label")
    listed = _with_classes(labels.images, name)
    return replace(listed, loose=tuple(labels.loose), skipped=skipped)


def _warn_of_loose(loose: Sequence[str], where: str) -> None:
    """Warn of images that have no label."""
    if loose:
        more = ", ..." if len(loose) > NAMED else ""
        warnings.warn(
            f"{counted(len(loose), 'image')} {where}, of no class and left out: "
            f"{', '.join(map(printable, loose[:NAMED]))}{more}",
            TrustVLMWarning,
            stacklevel=3,
        )


def _from_class_folders(folder: Location, name: str, prefix: str = "") -> LabelledImages:
    skipped = Skipped()
    if folder.is_url:
        files, top = file_system(folder.text)
        _, folders, names = next(files.walk(top, maxdepth=1), (top, [], []))
        entries = [(name, True) for name in folders] + [(name, False) for name in names]
        entries = [
            (name, is_folder)
            for name, is_folder in entries
            if name and not (name.startswith(".") or (is_folder and is_system_folder(name)))
        ]
    else:
        path = Path(folder.text)
        # A link to the folder itself is no class.
        entries = [
            (name, is_folder)
            for name, is_folder in list_folder(path)[1]
            if not (is_folder and path.samefile(path / name))
        ]
    classes = sorted(name for name, is_folder in entries if is_folder)
    loose = sorted(
        name
        for name, is_folder in entries
        if not is_folder
        and is_image(
            PurePosixPath(name), skipped, None if folder.is_url else Path(folder.text) / name
        )
    )
    if not classes:
        raise InputError(
            f"Expected {name!r} to hold one folder per class with its images inside, but it "
            f"holds no folders ({counted(len(loose), 'image file')}). Or name a table with the "
            "columns path and label."
        )
    below = {label: _folders_in(folder.below(label)) for label in classes if is_split(label)}
    nested = next((label for label, folders in below.items() if folders), "")
    _check_splits(
        {label: below.get(label, []) for label in classes},
        name,
        f"Name one of them, such as {folder.below(nested).text}",
    )
    _warn_of_one_class(folder, classes)
    start = f"{prefix.rstrip('/')}/" if prefix else ""
    images = tuple(
        LabelledImage(image, shown(label))
        for label in classes
        for image in walk_images(folder.below(label), prefix=start + label, skipped=skipped)
    )
    if not images:
        raise InputError(no_images(f"the class folders of {name}", skipped))
    warn_of_skipped(skipped)
    _warn_of_loose([*map(shown, loose)], f"beside the class folders of {name}")
    return LabelledImages(images, tuple(map(shown, classes)), tuple(map(shown, loose)), skipped)


def _warn_of_one_class(folder: Location, classes: Sequence[str]) -> None:
    """Warn of a single class that holds folders, as archives are unpacked into one of their own."""
    if len(classes) == 1 and len(below := _folders_in(folder.below(classes[0]))) > 1:
        inside = folder.below(classes[0]).text
        warnings.warn(
            f"{shown(classes[0])!r} is the only class folder, and holds {len(below)} folders: if "
            f"those are the classes, name {shown(inside)!r}",
            TrustVLMWarning,
            stacklevel=2,
        )


def _check_splits(classes: Mapping[str, Collection[str]], name: str, choose: str) -> None:
    """Refuse a folder of splits: two at least are called so, or all there are, and hold folders.

    Parameters
    ----------
    classes
        The class folders, and the folders in those that are called as a split is.
    name
        Of the source.
    choose
        How to name one of them.
    """
    splits = [label for label in classes if is_split(label)]
    others = len(classes) - len(splits)
    if not splits or (others and len(splits) == 1):
        return
    below = [bool(classes[label]) for label in splits]
    # Without folders inside they may be classes, but hardly if there is nothing else.
    if not (all(below) or (not others and len(splits) > 1)):
        return
    remedy = (
        choose
        if any(below)
        else "Sort the images of each into one folder per class, or write a table of paths and "
        "labels"
    )
    raise InputError(
        f"Expected {name!r} to hold one folder per class, but its "
        f"{'folder' if len(splits) == 1 else 'folders'} {join_names([*map(shown, splits)])} "
        f"{'is a split' if len(splits) == 1 else 'are splits'} of a data set. {remedy}."
    )


def _folders_in(folder: Location) -> list[str]:
    if folder.is_url:
        files, top = file_system(folder.text)
        return list(next(files.walk(top, maxdepth=1), (top, [], []))[1])
    return [name for name, is_folder in list_folder(Path(folder.text))[1] if is_folder]


# What becomes of missing labels that are made texts of.
_NOTHING = frozenset({"nan", "<na>"})


def _with_classes(labelled: Iterable[LabelledImage], name: str) -> LabelledImages:
    images = tuple(labelled)
    if not images:
        raise InputError(f"Expected at least one labelled image, but {name} lists none.")
    if n := sum(image.label.casefold() in _NOTHING for image in images):
        warnings.warn(
            f"{counted(n, 'label is', 'labels are')} the text 'nan' or '<NA>' in {name}, as pandas "
            "writes what is missing: leave such rows out, unless a class is called so",
            TrustVLMWarning,
            stacklevel=3,
        )
    return LabelledImages(images, tuple(sorted({image.label for image in images})))
