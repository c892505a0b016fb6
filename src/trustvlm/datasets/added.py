"""Data sets of one's own in the catalogue: by facts in a TOML file, or with a reader in Python."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trustvlm.datasets.catalogue import ADDED, DatasetSpec, Reader, Split, bare, every_set
from trustvlm.datasets.layout import Images, Listing, files_of, missing_files
from trustvlm.exceptions import InputError
from trustvlm.images.classes import ClassList, classes_of, read_classes
from trustvlm.images.labelled import find_labelled
from trustvlm.images.references import LabelledImage, shown
from trustvlm.models.prompts import read_prompts
from trustvlm.plugins import from_where, plugin_errors
from trustvlm.serialization import first_invalid, read_toml
from trustvlm.text import did_you_mean

# What a TOML file may say of a set, besides name, layout, classes and counts.
_NEEDED = ("name", "layout", "n_classes", "counts")
_OPTIONAL = (
    *("title", "folders", "images", "split_folders", "split_file", "classes"),
    *("citation", "terms", "template"),
)
_LAYOUTS = ("labelled", "split file")


def register(
    name: str,
    *,
    classes: Sequence[str],
    counts: Mapping[Split, int],
    title: str = "",
    folders: Sequence[str] = (),
    citation: str = "",
    terms: str = "",
    template: str = "a photo of a {}.",
) -> Callable[[Reader], Reader]:
    """Add a data set with a layout of its own to the catalogue, by a function that reads it.

    `reader(folder, split)` lists the images of one split, in the folder of the set: pairs of a
    path, relative to that folder or below it, and a label, one of the class names.

    Parameters
    ----------
    name
        Short name for commands and rows.
    classes
        The C class names, in the order of their labels.
    counts
        Images in each split that there is, of `train`, `val` and `test`.
    title, folders
        Name in print, and where the set may lie under the data root; by default the name.
    citation, terms, template
        As in `DatasetSpec`.

    Raises
    ------
    InputError
        If the name is taken or is none, or there are no classes, or no such split, or a number of
        images is none.

    Examples
    --------
    >>> from trustvlm import datasets
    >>> @datasets.register("pairs", classes=["cat", "dog"], counts={"train": 2, "test": 2})
    ... def read_pairs(folder, split):
    ...     return [(f"{split}/{name}.png", name) for name in ("cat", "dog")]
    >>> datasets.get("pairs").n_classes
    2
    >>> datasets.unregister("pairs")
    """
    for fact, texts in (("classes", classes), ("folders", folders)):
        if isinstance(texts, str) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise InputError(f"Expected `{fact}` of {name!r} to be a list of names.")
    if len({text.strip() for text in classes}) != len(classes) or len(classes) < 2:
        raise InputError(f"Expected {name!r} to have at least two classes, all different.")

    def decorate(reader: Reader) -> Reader:
        _add(
            DatasetSpec(
                name=name,
                title=title or name,
                layout="reader",
                folders=tuple(folders) or (name,),
                n_classes=len(classes),
                counts=dict(counts),
                citation=citation,
                terms=terms,
                template=template,
                classes=tuple(classes),
                reader=reader,
            )
        )
        return reader

    return decorate


def unregister(name: str) -> None:
    """Take a set that was added out of the catalogue."""
    if name not in ADDED:
        raise InputError(f"There is no data set {name!r} that was added.")
    del ADDED[name]


def add_catalogue(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Add the sets that a TOML file describes to the catalogue; return their names.

    Each is a table `[[dataset]]` with `name`, `layout`, `n_classes` and `counts`. With the layout
    `labelled`, `split_folders` names for each split a folder of class folders or a table of paths
    and labels; with `split file`, `split_file` names a list of Zhou et al.'s form, and `images` the
    folder of its images. All paths are relative to the set's folder under the data root, `folders`.
    Nothing in the file is executed.

    Raises
    ------
    InputError
        If the file cannot be read, a set is not described in full, or a name is taken.
    """
    from pydantic import TypeAdapter, ValidationError

    path = Path(path)
    content = read_toml(path)
    entries = content.get("dataset")
    if not isinstance(entries, list) or not entries or set(content) != {"dataset"}:
        raise InputError(
            f"Expected {path} to hold tables [[dataset]] and nothing else, but got "
            f"{', '.join(content) or 'nothing'}."
        )
    specs = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, data set {number}"
        _check_keys(entry, where)
        facts = {"title": entry["name"], "folders": [entry["name"]], "citation": "", "terms": ""}
        try:
            spec = TypeAdapter(DatasetSpec).validate_python(facts | entry)
        except ValidationError as error:
            key, problem = first_invalid(error)
            raise InputError(f"{where}: `{key}` is not valid: {problem}.") from error
        if spec.layout == "labelled" and set(spec.split_folders) != set(spec.counts):
            raise InputError(
                f"{where}: Expected `split_folders` to name a folder or table for each of "
                f"{', '.join(spec.counts)}, but got {', '.join(spec.split_folders) or 'none'}."
            )
        if spec.layout == "split file" and spec.split_file is None:
            raise InputError(f"{where}: the layout `split file` needs `split_file`.")
        specs.append(spec)
    for spec in specs:
        _add(spec)
    return tuple(spec.name for spec in specs)


def _check_keys(entry: Any, where: str) -> None:
    fields = (*_NEEDED, *_OPTIONAL)
    for key in entry:
        if key not in fields:
            hint = did_you_mean(key, fields) or f"it takes {', '.join(fields)}."
            raise InputError(f"{where}: there is no key `{key}`; {hint}")
    for key in _NEEDED:
        if key not in entry:
            raise InputError(f"{where} needs `{key}`.")
    if entry["layout"] not in _LAYOUTS:
        raise InputError(
            f"{where}: Expected `layout` to be {' or '.join(_LAYOUTS)}, but got "
            f"{entry['layout']!r}. A layout of its own has a reader in Python: "
            "trustvlm.datasets.register."
        )


def _add(spec: DatasetSpec) -> None:
    if not re.fullmatch(r"[\w.+-]+", spec.name):
        raise InputError(
            "Expected the name of a data set to be letters, digits, and any of . + - _, but got "
            f"{spec.name!r}."
        )
    read_prompts([spec.template])
    if not spec.counts:
        raise InputError(f"Expected {spec.name!r} to have a split of train, val and test.")
    for split, count in spec.counts.items():
        if split not in ("train", "val", "test"):
            raise InputError(f"Expected splits train, val or test, but got {split!r}.")
        if not isinstance(count, int) or count < 1:
            raise InputError(
                f"Expected the number of images of {split} in {spec.name!r}, but got {count!r}."
            )
    if spec.n_classes < 1:
        raise InputError(f"Expected {spec.name!r} to have classes, but got {spec.n_classes}.")
    for other in every_set():
        taken = set(map(bare, (other.name, other.title, *other.aliases)))
        if {bare(spec.name), bare(spec.title)} & taken:
            raise InputError(
                f"A data set named `{other.name}` ({other.title}) is there already: give "
                f"`{spec.name}` another name and title."
            )
    ADDED.add(spec.name, spec)


# Their readers.


def read_labelled(spec: DatasetSpec, folder: Path, split: Split) -> Listing:
    """List one split that is a folder of class folders, or a table of paths and labels.

    Raises
    ------
    InputError
        As `images.find_labelled`, and for a label that is no class.
    """
    labelled = find_labelled(folder / spec.split_folders[split])
    if spec.classes:
        classes = read_classes(folder / str(spec.classes))
    elif split != "train" and "train" in spec.split_folders:
        classes = classes_of(find_labelled(folder / spec.split_folders["train"]))
    else:
        classes = classes_of(labelled)
    return _listed(labelled.refs, classes, labelled.labels)


def _listed(refs: Sequence[Any], classes: ClassList, given: Sequence[str]) -> Listing:
    labels = np.asarray(classes.indices(given), dtype=np.int64)
    ids = tuple(classes.folders)

    def make(i: int) -> LabelledImage:
        return LabelledImage(refs[i], ids[labels[i]])

    return Listing(Images(make, np.arange(len(refs))), labels, tuple(classes.names), ids)


def read_by_function(spec: DatasetSpec, folder: Path, split: Split) -> Listing:
    """List one split as the registered reader does.

    Raises
    ------
    PluginError
        If the reader fails.
    InputError
        If it returns anything but pairs of a path and the name of a class, or none.
    """
    assert spec.reader is not None  # noqa: S101 (this layout has one)
    names = tuple(spec.classes)
    reader = f"reader of {spec.name!r}{from_where(spec.reader)}"
    with plugin_errors(f"The {reader} fails"):
        rows = list(spec.reader(folder, split))
    index = {name: i for i, name in enumerate(names)}
    paths, labels = [], []
    for number, row in enumerate(rows):
        is_pair = isinstance(row, tuple | list) and len(row) == 2
        if not is_pair or not isinstance(row[0], str | Path) or row[1] not in names:
            raise InputError(
                f"Expected the {reader} to list pairs of a path and one of the {len(names)} "
                f"classes, but entry {number} of {split} is {row!r}."
            )
        path = Path(row[0])
        # As `folder.glob` gives it, which need not be absolute.
        if path.is_relative_to(folder) and (path.is_absolute() or not (folder / path).exists()):
            path = path.relative_to(folder)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"Expected the {reader} to list paths in the folder of the set, {shown(folder)!r}, "
                f"but got {str(row[0])!r}."
            )
        paths.append(path.as_posix())
        labels.append(index[row[1]])
    if not rows:
        raise InputError(f"Expected the {reader} to list the images of {split}, but it lists none.")
    array = np.array(labels, dtype=np.int64)
    missing = missing_files(folder, paths)
    return Listing(files_of(folder, folder, paths, array, names), array, names, names, missing)
