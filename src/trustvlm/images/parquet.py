"""Images inside Parquet files, one a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.images.collections import cell_label
from trustvlm.images.errors import refusal
from trustvlm.images.locations import images_beside
from trustvlm.images.references import (
    ImageSource,
    InMemoryImage,
    LabelledImage,
    Skipped,
    UnreadableImage,
    read_group,
    read_probability,
)
from trustvlm.images.streams import Allowance, StreamShard, image_size, size_of

# Rows of a Parquet file that are in memory at once.
_ROWS = 64


@dataclass(frozen=True)
class ParquetShard(StreamShard):
    """The images of a Parquet file, one a row.

    Parameters
    ----------
    path_column
        Text: what an image is called; where no column holds bytes, the paths or URLs of images,
        relative to the file. Without it an image is called `<name>#<row>`, and where rows with
        bytes share a name, each of them `<path>#<row>`.
    image_column
        Bytes, or a struct with `bytes` and `path` as Hugging Face's data sets have, of which one
        may be null, or paths; None takes the only column of the first two kinds. `InputError` if
        there is no column of images, or several, or it holds something else, such as lists.
    label_column
        Texts or numbers, for `labelled`; numbers stand for the names that Hugging Face's data sets
        give them, if there are any.
    confidence_column
        Probabilities that came with the labels; the column may be missing, and cells be null.
    group_column
        Groups of images that are not independent of each other; None for none.
    """

    path_column: str = "path"
    image_column: str | None = None
    label_column: str | None = None
    confidence_column: str | None = None
    group_column: str | None = None

    def _damage(self) -> tuple[type[Exception], ...]:
        return (OSError, _pyarrow().ArrowException)

    def _read(self, start: int, skipped: Skipped) -> Iterator[ImageSource]:  # noqa: ARG002
        parquet = _pyarrow("pyarrow.parquet")
        with ExitStack() as opened:
            stream = opened.enter_context(self.location.open())
            file = opened.enter_context(parquet.ParquetFile(stream))
            column = self._column(file.schema_arrow)
            wanted = {column, self.path_column, self.label_column, self.confidence_column}
            wanted.add(self.group_column)
            names = [name for name in file.schema_arrow.names if name in wanted]
            label_of = self._label_of(file.schema_arrow)
            repeated = self._repeated_names(file, column)
            row, groups = _from_row(start, file.metadata)
            allowance = Allowance(self.limits, size_of(stream))
            batches = file.iter_batches(_ROWS, row_groups=groups, columns=names)
            for batch in batches if groups else ():
                for cells in batch.to_pylist():
                    if row >= start:
                        image = self._image(cells, column, row, repeated)
                        allowance.take(image_size(image))
                        if label_of is not None:
                            p = read_probability(cells.get(self.confidence_column), image.path)
                            by, group = self.group_column, ""
                            if by is not None:
                                group = read_group(cells.get(by), image.path, by)
                            image = LabelledImage(image, label_of(cells, image.path), p, group)
                        yield image
                    row += 1

    def labelled(self) -> Iterator[LabelledImage]:
        """Yield all images with their labels.

        Raises
        ------
        InputError
            If there is no such column, a row has no label, or the file cannot be read.
        """
        for image in self.images():
            if isinstance(image, LabelledImage):
                yield image
            elif isinstance(image, UnreadableImage):  # the end of a file that is damaged
                raise InputError(image.message)

    def _label_of(self, schema: Any) -> Callable[[Mapping[str, Any], str], str] | None:
        """Return what makes the label of a row and its name; None where none is asked for."""
        column = self.label_column
        if column is None:
            return None
        if column not in schema.names:
            raise InputError(
                f"Expected {self.name!r} to have a column {column!r}, but its columns are "
                f"{', '.join(map(repr, schema.names))}. Say which to use (--label-column)."
            )
        names = _class_names(schema, column)

        def label_of(cells: Mapping[str, Any], path: str) -> str:
            value = cells[column]
            label = cell_label(value, names)
            if not label:
                raise InputError(
                    f"Expected a label in every row of {column!r} of {self.name!r}, but got "
                    f"{value!r} for {path!r}. Leave such rows out, or name another column "
                    "(--label-column)."
                )
            return label

        return label_of

    def _column(self, schema: Any) -> str:
        """Return the name of the column of images."""
        columns = [field.name for field in schema if _holds_images(field.type)]
        if self.image_column is not None and self.image_column in schema.names:
            kind = schema.field(self.image_column).type
            if self.image_column not in columns and not _holds_text(kind):
                raise InputError(
                    f"Expected the column {self.image_column!r} of {self.name!r} to hold the bytes "
                    f"or the path of one image in each row, but it holds {kind}. Write a row for "
                    "each image, or name another column (--image-column)."
                )
            return self.image_column
        if len(columns) == 1 and self.image_column is None:
            return str(columns[0])
        if self.path_column in schema.names and self.image_column is None and not columns:
            return self.path_column
        nested = _pyarrow().types.is_nested
        listed = (f"{f.name!r}{f' ({f.type})' if nested(f.type) else ''}" for f in schema)
        raise InputError(
            f"Expected {self.name!r} to have one column with the bytes of images or a column "
            f"{self.image_column or self.path_column!r}, but its columns are "
            f"{', '.join(listed)}. Say which to use (--image-column)."
        )

    def _name_of(self, cells: Mapping[str, Any], column: str) -> str:
        """Return what a row calls its image; "" for nothing."""
        value = cells.get(column)
        named = cells.get(self.path_column)
        if not named and isinstance(value, Mapping):
            named = value.get("path")
        return str(named) if named else ""

    def _repeated_names(self, file: Any, column: str) -> set[str]:
        """Return the names that several rows with bytes have; the bytes are not read."""
        fields = file.schema_arrow
        if _holds_text(fields.field(column).type):
            return set()
        wanted = {self.path_column} & set(fields.names)
        if _is_struct_with(fields.field(column).type, "path", _holds_text):
            wanted.add(f"{column}.path")
        seen: set[str] = set()
        repeated: set[str] = set()
        for group in range(file.metadata.num_row_groups) if wanted else ():
            # What is damaged becomes an error when its images are read.
            with suppress(*self._damage()):
                rows = file.read_row_group(group, columns=sorted(wanted)).to_pylist()
                for name in (self._name_of(cells, column) for cells in rows):
                    (repeated if name in seen else seen).add(name)
        return repeated

    def _image(
        self, cells: Mapping[str, Any], column: str, row: int, repeated: set[str]
    ) -> ImageSource:
        value = cells[column]
        named = self._name_of(cells, column)
        if isinstance(value, str):
            return images_beside(self.location)(value)
        if isinstance(value, Mapping):
            stored, value = value.get("path"), value.get("bytes")
            if value is None and stored:
                # Data sets of Hugging Face hold the bytes of an image, or where it is.
                image = images_beside(self.location)(str(stored))
                return replace(image, path=self._shown(named))
        if repeated and (named in repeated or _ROW.search(named)):
            named = f"{named}#{row}"
        path = self._shown(named) if named else f"{self.name}#{row}"
        if not isinstance(value, bytes):
            empty = refusal("empty", path, "the cell is empty", "Leave the row out")
            return UnreadableImage.of(path, empty)
        return InMemoryImage(path, value)


# How a name ends that was given to one of several rows with the same path.
_ROW = re.compile(r"#\d+$")


def _holds_text(kind: Any) -> bool:
    types = _pyarrow().types
    if types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _holds_bytes(kind: Any) -> bool:
    types = _pyarrow().types
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _holds_images(kind: Any) -> bool:
    """Whether a column holds bytes, or structs of bytes or a path."""
    if _is_struct_with(kind, "bytes", _holds_bytes):
        return True
    return _holds_bytes(kind) or _is_struct_with(kind, "path", _holds_text)


def _is_struct_with(kind: Any, name: str, holds: Callable[[Any], bool]) -> bool:
    types = _pyarrow().types
    if not types.is_struct(kind):
        return False
    position = kind.get_field_index(name)
    return position >= 0 and holds(kind.field(position).type)


def _class_names(schema: Any, column: str) -> list[str]:
    """Return the names of numbered classes, as Hugging Face's data sets store them; [] for none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _from_row(start: int, metadata: Any) -> tuple[int, list[int]]:
    """Return the groups that hold the rows from `start` on, and the first row of these."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    first = 0
    for group, size in enumerate(sizes):
        if first + size > start:
            return first, list(range(group, len(sizes)))
        first += size
    return first, []


def _pyarrow(module: str = "pyarrow") -> ModuleType:
    return require(module, extra="parquet", purpose="Reading Parquet files")
