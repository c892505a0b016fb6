"""Several pictures that a program holds: lists, arrays, data frames, data sets; their labels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar

from trustvlm.cells import number_label
from trustvlm.exceptions import InputError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits
from trustvlm.images.locations import image_at
from trustvlm.images.pictures import Item, batch_of, is_picture, kept, picture_at, share_locks
from trustvlm.images.references import (
    ImageSource,
    LabelledImage,
    read_group,
    read_probability,
    shown,
)
from trustvlm.text import join_names

T_co = TypeVar("T_co", covariant=True)


class MapDataset(Protocol[T_co]):
    """A data set of torch: a length, and what stands at each position."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int, /) -> T_co:
        """Return what stands at a position."""
        ...


def items_of(
    source: Any,
    *,
    path_column: str = "path",
    image_column: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Item] | Iterator[Item]:
    """Return what a source names or holds: a list, or an iterator where it is to be read once.

    Pictures of a list are read when they are needed, those of an iterator or a data set as they
    come, because the caller may close or write over them.

    Parameters
    ----------
    source
        A path or URL, one picture, or several of these: a list, an iterator, a mapping from names
        to pictures, an array `(N, H, W, C)`, a tensor `(N, C, H, W)`, a Series or DataFrame of
        pandas, a `Dataset`, `IterableDataset` or column of Hugging Face's `datasets`, a data set of
        torch. Labels are left aside.
    path_column, image_column
        Of a DataFrame or a `Dataset`; as in `images.image_shards`.
    limits
        Bounds on what is read here.

    Raises
    ------
    InputError
        If it is something else, or a split has to be chosen; for a picture of a wrong type, with
        its position; of an iterator when that is read.

    Examples
    --------
    >>> [item.path for item in items_of({"a.png": b"", "b.png": b""})], items_of("photos/")
    (['a.png', 'b.png'], ['photos/'])
    """
    if isinstance(source, str | os.PathLike):
        return [str(os.fspath(source))]
    if is_picture(source):
        return [picture_at(0, source)]
    _refuse_parts(source)
    if (table := _table_of(source)) is not None:
        items = (image for image, _ in table.pictures(path_column, image_column))
        return (kept(item, limits) for item in items) if table.is_stream else share_locks(items)
    if isinstance(source, Mapping):
        named = enumerate(source.items())
        return share_locks(picture_at(i, value, shown(str(name))) for i, (name, value) in named)
    if _is_torch_dataset(source):
        held = enumerate(_image_of(row, image_column) for row in _rows_of(source))
        return (kept(picture_at(i, value), limits) for i, value in held)
    values = batch_of(source)
    if values is None and not isinstance(source, Iterable):
        _refuse(source)
    items = (_item(i, value) for i, value in enumerate(source if values is None else values))
    # A column of `datasets` decodes each picture when it is asked for.
    is_stream = isinstance(source, Iterator) or type(source).__module__.startswith("datasets.")
    return (kept(item, limits) for item in items) if is_stream else share_locks(items)


def labelled_items(
    source: Any,
    *,
    path_column: str = "path",
    label_column: str = "label",
    image_column: str | None = None,
    confidence_column: str | None = None,
    group_column: str | None = None,
) -> Iterator[LabelledImage]:
    """Yield the pictures that a program holds together with their labels.

    Parameters
    ----------
    source
        A tuple `(images, labels)`, of which the images are anything that `items_of` takes; a list
        or an iterator of pairs; a DataFrame or a data set with a column of labels; a data set of
        torch of pairs.
    path_column, label_column, image_column, confidence_column, group_column
        Of a DataFrame or a `Dataset`; as in `images.find_labelled`.

    Raises
    ------
    InputError
        As `items_of`; if images and labels differ in number, or a label is no text. A number is a
        label where the source says what it is called (`ClassLabel`, `.classes`), and in a column
        without names, as in a file.

    Examples
    --------
    >>> [(image.path, image.label) for image in labelled_items([(b"", "cat"), ("a.png", "dog")])]
    [('image 0', 'cat'), ('a.png', 'dog')]
    """
    _refuse_parts(source)
    if (table := _table_of(source)) is not None:
        labels = table.labels(label_column)
        rows = table.pictures(path_column, image_column)
        for row, (image, cells) in enumerate(rows):
            p = read_probability(cells.get(confidence_column or ""), image.path)
            label = labels(cells[label_column], row)
            by = group_column
            group = "" if by is None else read_group(cells.get(by), image.path, by)
            source_of = _source(kept(image) if table.is_stream else image)
            yield LabelledImage(source_of, label, p, group)
        return
    if group_column is not None:
        raise InputError(
            f"Expected a table with the column {group_column!r} of groups, but got images and "
            "labels: give the groups themselves (groups=)."
        )
    names = _class_names(source) if _is_torch_dataset(source) else ()
    pairs = _rows_of(source) if _is_torch_dataset(source) else source
    images, labels_given = _columns(pairs, image_column or "image", label_column)
    if len(images) != len(labels_given):
        raise InputError(
            f"Expected as many labels as images, but got {len(images)} images and "
            f"{len(labels_given)} labels."
        )
    for position, (image, label) in enumerate(zip(images, labels_given, strict=True)):
        name = class_label(label, names)
        if name is None:
            remedy = " Write what the number stands for." if number_label(label) else ""
            raise InputError(
                f"Expected every label to be the name of a class, but got {label!r} at "
                f"position {position}.{remedy}"
            )
        yield LabelledImage(_source(image), name)


def class_label(value: Any, names: Sequence[str] = ()) -> str | None:
    """Return the class that a label means; None if it means none.

    Parameters
    ----------
    value
        A text that is not blank, or the number of a class.
    names
        Of numbered classes.

    Examples
    --------
    >>> class_label("cat"), class_label(1, ["cat", "dog"]), class_label(1), class_label(" ")
    ('cat', 'dog', None, None)
    """
    if not isinstance(value, str) and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # of a tensor or an array without axes
    if isinstance(value, str):
        return str(value) if value.strip() else None
    number = int(number_label(value) or -1)
    return names[number] if 0 <= number < len(names) else None


def cell_label(value: Any, names: Sequence[str] = ()) -> str:
    """Return the label in a cell of a table, where numbers without names stand for themselves.

    Examples
    --------
    >>> cell_label(1, ["cat", "dog"]), cell_label(1), cell_label(" cat "), cell_label(None)
    ('dog', '1', 'cat', '')
    """
    return (class_label(value, names) or ("" if names else number_label(value))).strip()


def _item(position: int, value: Any) -> Item:
    """Return a path or URL as it is, which may be that of a folder, and pictures."""
    if isinstance(value, str | os.PathLike):
        return str(os.fspath(value))  # and not NumPy's kind of texts
    return picture_at(position, value)


def _source(item: Item) -> ImageSource:
    """Return the image that a path or URL names, or the picture itself."""
    return image_at(item) if isinstance(item, str) else item


def _refuse(source: Any) -> NoReturn:
    raise InputError(
        "Expected a path or URL, a picture, or several of them as a list, array, tensor, data "
        f"frame or data set, but got a {type(source).__name__}."
    )


def _refuse_parts(source: Any) -> None:
    """Refuse what holds several sources of which one has to be chosen, or batches."""
    kind = type(source).__name__
    if kind in ("DatasetDict", "IterableDatasetDict") and isinstance(source, Mapping):
        splits = [repr(name) for name in source]
        raise InputError(
            f"Expected one split of the data set, but got a {kind} of {join_names(splits)}: pass "
            f"one of them, such as dataset[{splits[0] if splits else '...'}]."
        )
    if kind == "DataLoader" and hasattr(source, "dataset"):
        raise InputError(
            "Expected images one by one, but got a DataLoader, which makes batches in an order of "
            "its own: pass its data set (loader.dataset)."
        )


# Pairs of image and label.


def _columns(
    source: Any, image_column: str, label_column: str
) -> tuple[Sequence[Item], Sequence[Any]]:
    """Return images and labels from a tuple of both, or from pairs or mappings of both."""
    if isinstance(source, list) and len(source) == 2:
        # Two sequences, of images and of labels, unless they are two rows.
        are_rows = any(_is_pair(part) or isinstance(part, Mapping) for part in source)
        source = source if are_rows else tuple(source)
    if isinstance(source, tuple):
        if len(source) != 2 or isinstance(source[0], str | bytes):
            _refuse_pairs(source)
        images, labels = source
        items = items_of([images] if isinstance(images, os.PathLike) else images)
        return list(items), _listed(labels)
    if not isinstance(source, list | Iterator):
        _refuse_pairs(source)
    held: list[Item] = []
    labels = []
    for position, row in enumerate(source):
        if isinstance(row, Mapping) and {image_column, label_column} <= row.keys():
            image, label = row[image_column], row[label_column]
        elif _is_pair(row):
            image, label = row
        else:
            _refuse_pairs(source, f", with a {type(row).__name__} at position {position}")
        item = _item(position, image)
        held.append(kept(item) if isinstance(source, Iterator) else item)
        labels.append(label)
    return share_locks(held), labels


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _listed(labels: Any) -> list[Any]:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise InputError(
            f"Expected a label of each image as a list, but got a {type(labels).__name__}."
        )
    return list(labels)


def _refuse_pairs(source: Any, more: str = "") -> NoReturn:
    raise InputError(
        "Expected a folder, a table, a pair (images, labels), a list or an iterator of pairs "
        "(image, label), or a data frame or data set with labels, but got a "
        f"{type(source).__name__} of something else{more}."
    )


# Rows with columns: DataFrames of pandas, data sets of Hugging Face.


@dataclass(frozen=True)
class _Table:
    """Rows of named cells.

    Attributes
    ----------
    kind
        What the user calls it.
    columns
        Their names; none if only the rows say them.
    rows
        A mapping each.
    image_columns
        Those that are said to hold images.
    class_names
        Of the numbers in some columns.
    is_stream
        Whether it is read once, row by row.
    """

    kind: str
    columns: Sequence[str]
    rows: Iterable[Mapping[str, Any]]
    image_columns: Sequence[str] = ()
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_stream: bool = False

    def pictures(
        self, path_column: str, image_column: str | None
    ) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Yield the picture and the cells of each row."""
        column = self._image_column(path_column, image_column) if self.columns else ""
        for position, cells in enumerate(self.rows):
            column = column or self._image_column(path_column, image_column, tuple(cells))
            named = cells.get(path_column) if column != path_column else None
            name = shown(named) if isinstance(named, str) and named else ""
            yield picture_at(position, cells[column], name), cells

    def labels(self, column: str) -> Any:
        """Return what makes the class of a cell in the column of labels."""
        if self.columns and column not in self.columns:
            self._refuse_column(column, "label_column", self.columns)
        names = self.class_names.get(column, ())

        def label_of(value: Any, row: int) -> str:
            label = cell_label(value, names)
            if not label:
                raise InputError(
                    f"Expected a label in every row of {column!r}, but got {value!r} in row {row} "
                    f"of the {self.kind}. Leave such rows out, or name another column "
                    "(label_column=)."
                )
            return label

        return label_of

    def _image_column(
        self, path_column: str, image_column: str | None, columns: Sequence[str] = ()
    ) -> str:
        columns = columns or self.columns
        candidates = [image_column] if image_column is not None else [*self.image_columns]
        if not candidates:
            candidates = [name for name in ("image", path_column) if name in columns][:1]
        if len(candidates) > 1:
            raise InputError(
                f"Expected the {self.kind} to have one column of images, but it has "
                f"{join_names([*map(repr, candidates)])}. Say which to use (image_column=)."
            )
        if not candidates or candidates[0] not in columns:
            option = "path_column" if image_column is None else "image_column"
            self._refuse_column(image_column or path_column, option, columns)
        return candidates[0]

    def _refuse_column(self, column: str, option: str, columns: Sequence[str]) -> NoReturn:
        raise InputError(
            f"Expected the {self.kind} to have a column {column!r}, but its columns are "
            f"{', '.join(map(repr, columns))}. Say which to use ({option}=)."
        )


def _table_of(source: Any) -> _Table | None:
    """Return the rows of a DataFrame or data set; None for anything else."""
    if isinstance(source, _classes("pandas", "DataFrame")):
        columns = [str(name) for name in source.columns]
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise InputError(
                f"Expected a DataFrame to have one column {twice[0]!r}, but it has "
                f"{columns.count(twice[0])}. Rename all but one."
            )
        if not columns:
            raise InputError(
                "Expected a DataFrame with columns of images and labels, but it has none. Pass "
                "frame.reset_index() if they are its index."
            )
        cells = [source.iloc[:, i] for i in range(len(columns))]
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True))
        return _Table("DataFrame", columns, rows)
    if not isinstance(source, _classes("datasets", "Dataset", "IterableDataset")):
        return None
    features = source.features or {}
    images = [name for name, of in features.items() if type(of).__name__ == "Image"]
    names = {name: [*map(str, of.names)] for name, of in features.items() if hasattr(of, "names")}
    # The files themselves, if they are there; without transforms, which encoders have of their own.
    source = source.with_format(None)
    for name in images:
        source = source.cast_column(name, type(features[name])(decode=False))
    return _Table("data set", list(features), source, images, names, is_stream=True)


def _classes(module: str, *names: str) -> tuple[type[Any], ...]:
    """Return classes of a library, if that is in use."""
    loaded = sys.modules.get(module)
    return tuple(c for name in names if isinstance(c := getattr(loaded, name, None), type))


# Data sets of torch.


def _is_torch_dataset(source: Any) -> bool:
    return isinstance(source, _classes("torch.utils.data", "Dataset"))


def _rows_of(dataset: Any) -> Iterator[Any]:
    """Yield what stands at each position; those without a length are iterated over."""
    if not hasattr(dataset, "__len__"):
        yield from dataset
        return
    # Not all of them say by an IndexError where they end.
    for position in range(len(dataset)):
        yield dataset[position]


def _image_of(row: Any, image_column: str | None) -> Any:
    """Return the picture of a row, with or without a label."""
    if isinstance(row, Mapping):
        return row.get(image_column or "image")
    return row[0] if isinstance(row, tuple | list) and row else row


def _class_names(dataset: Any) -> Sequence[str]:
    """Return the names of the classes of a data set, of that of which it is a part, or its parts.

    Parts whose numbers mean different classes have no names together.
    """
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return names
        parts = getattr(dataset, "datasets", None)
        if isinstance(parts, list | tuple):
            of_parts = {tuple(_class_names(part)) for part in parts}
            return of_parts.pop() if len(of_parts) == 1 else ()
        dataset = getattr(dataset, "dataset", None)
    return ()
