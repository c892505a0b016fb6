"""Tables in which several labellers, or the probabilities of all classes, stand side by side."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from trustvlm.cells import cell_text
from trustvlm.environment import require
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.classes import ClassList
from trustvlm.images.inputs import PathLike, input_kind
from trustvlm.images.locations import Location, images_beside
from trustvlm.images.references import LabelledImage, LabelledImages, read_probability, shown
from trustvlm.images.tables import read_table
from trustvlm.text import counted, join_names

# A column of probabilities that came with the labels of another is called like it.
CONFIDENCE = "_confidence"
# What rounded probabilities of all classes may sum to.
_MOST_IN_ALL = 1.05
_REMEDY = "Columns that are called as the classes hold their probabilities, as 0.9 and not as 90 %."


def find_labellers(
    source: PathLike, label_columns: Sequence[str], *, path_column: str = "path"
) -> dict[str, LabelledImages]:
    r"""List the images of a table once for each of several labellers.

    Parameters
    ----------
    source
        A CSV, JSON Lines or Parquet file with a column of paths and one of labels for each
        labeller. An empty cell is no label. Where there is a column of the same name that ends in
        `_confidence`, it holds the probabilities that came with the labels.
    label_columns
        Their names, which are those of the labellers.
    path_column
        Paths or URLs.

    Raises
    ------
    InputError
        If the file is none of these, a column is missing or empty, or a probability is none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> table = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = table.write_text("path,ann,bob,bob_confidence\n1.jpg,cat,dog,0.9\n2.jpg,,dog,\n")
    >>> {name: images.labels for name, images in find_labellers(table, ["ann", "bob"]).items()}
    {'ann': ['cat'], 'bob': ['dog', 'dog']}
    """
    names = list(dict.fromkeys(label_columns))
    images: dict[str, list[LabelledImage]] = {name: [] for name in names}
    location = Location.of(source)
    image_of = images_beside(location)
    columns = [*names, *(f"{name}{CONFIDENCE}" for name in names)]
    for path, cells in _rows(location, path_column, columns):
        for name, label, p in zip(names, cells, cells[len(names) :], strict=False):
            if label:
                remedy = f"Rename the column {name + CONFIDENCE!r} if it holds something else."
                probability = read_probability(p, path, remedy)
                images[name].append(LabelledImage(image_of(path), label, probability))
    _check_filled(source, [name for name in names if not images[name]])
    return {
        name: LabelledImages(tuple(own), tuple(sorted({image.label for image in own})))
        for name, own in images.items()
    }


def find_most_probable(
    source: PathLike, classes: ClassList, *, path_column: str = "path"
) -> LabelledImages:
    r"""List images with the class that is the most probable one to whoever labelled them.

    Parameters
    ----------
    source
        A CSV, JSON Lines or Parquet file with a column of paths and one of probabilities for each
        class, called by its name or folder. An empty cell, and NaN, is a probability of 0.
    classes
        Those of the model.
    path_column
        Paths or URLs.

    Returns
    -------
    LabelledImages
        `confidence` of each is the probability of its label; of equal ones the first class.

    Raises
    ------
    InputError
        If the file is none of these, a class has no column, a row has no probability above 0, or
        one is outside [0, 1].

    Warns
    -----
    TrustVLMWarning
        If the probabilities of an image sum to clearly more than one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> table = Path(tempfile.mkdtemp()) / "p.csv"
    >>> _ = table.write_text("path,cat,dog\n1.jpg,0.2,0.8\n")
    >>> images = find_most_probable(table, ClassList(("cat", "dog")))
    >>> images.labels, images.refs[0].confidence
    (['dog'], 0.8)
    """
    location = Location.of(source)
    image_of = images_beside(location)
    n, columns = len(classes), [*classes.labels, *classes.folders]
    images, filled, above_one = [], [False] * n, 0
    for path, cells in _rows(location, path_column, columns):
        given = [cells[c] or cells[n + c] for c in range(n)]
        filled = [before or bool(cell) for before, cell in zip(filled, given, strict=True)]
        p = np.nan_to_num([read_probability(cell, path, _REMEDY) for cell in given])
        if not p.any():
            raise InputError(
                f"Expected the probability of a class at least for {shown(path)!r}, but there is "
                f"none. The columns are called as the classes: {join_names(classes.labels[:5])}"
                f"{', ...' if n > 5 else ''}."
            )
        above_one += p.sum() > _MOST_IN_ALL
        best = int(p.argmax())
        images.append(LabelledImage(image_of(path), classes.labels[best], float(p[best])))
    _check_filled(
        source,
        [name for name, is_there in zip(classes.labels, filled, strict=True) if not is_there],
    )
    if above_one:
        warnings.warn(
            f"the probabilities of {counted(above_one, 'image')} sum to more than one, so that "
            "they are not those of one class among these; the label is the most probable one",
            TrustVLMWarning,
            stacklevel=2,
        )
    return LabelledImages(tuple(images), tuple(sorted({image.label for image in images})))


def _rows(
    location: Location, path_column: str, columns: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the path and some cells of each row, "" for what is not there."""
    name = shown(location.text)
    match input_kind(location):
        case "table":
            for path, *cells in read_table(location, (path_column,), columns):
                yield path, tuple(cells)
        case "Parquet file":
            parquet = require("pyarrow.parquet", extra="parquet", purpose="Parquet files")
            with location.open() as stream:
                table = parquet.read_table(stream)
                if path_column not in table.column_names:
                    raise InputError(
                        f"Expected {name!r} to have a column {path_column!r} of paths, but its "
                        f"columns are {', '.join(map(repr, table.column_names))} (--path-column)."
                    )
                own = [column for column in columns if column in table.column_names]
                rows = table.select([path_column, *dict.fromkeys(own)]).to_pylist()
                for number, row in enumerate(rows):
                    path = cell_text(row[path_column])
                    if not path:
                        raise InputError(
                            f"Expected a {path_column!r} in row {number} of {name!r}, but the cell "
                            "is empty."
                        )
                    yield path, tuple(cell_text(row.get(c)) for c in columns)
        case kind:
            problem = f"{name!r} is a {kind}" if location.exists() else f"there is no {name!r}"
            raise InputError(
                f"Expected a CSV, JSON Lines or Parquet file with a column for each, but {problem}."
            )


def _check_filled(source: PathLike, empty: Sequence[str]) -> None:
    if empty:
        one = len(empty) == 1
        raise InputError(
            f"Expected {shown(source)!r} to have {'a column' if one else 'columns'} "
            f"{join_names([*map(repr, empty[:5])])}{', ...' if len(empty) > 5 else ''} with "
            f"something in {'it' if one else 'them'}, but {'it is' if one else 'they are'} missing "
            "or empty. Look at how the columns of the table are called."
        )
