"""Images in Parquet files: their bytes in a column, or paths of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.images.errors import refusal
from trustvlm.images.references import ImageSource, InMemoryImage, UnreadableImage, shown
from trustvlm.images.remote import Location, image_at
from trustvlm.images.shards import read_ahead, read_patiently, stamp_of

_ROWS = 64


@dataclass(frozen=True)
class ParquetShard:
    """The images of a Parquet file, one a row.

    Parameters
    ----------
    name
        What the user calls the file.
    location
        Where it is.
    path_column
        Text: what an image is called; where no column holds bytes, the paths or URLs of images,
        relative to the file. Without it an image is called `<name>#<row>`.
    image_column
        Bytes, or a struct with `bytes` and `path` as Hugging Face's data sets have; None takes
        the only such column.
    prefix
        Put before `path_column`, with a slash.
    """

    name: str
    location: Location
    path_column: str = "path"
    image_column: str | None = None
    prefix: str = ""

    @property
    def length(self) -> None:
        """Not known without reading."""
        return

    def stamp(self) -> str:
        """Tell this file from another by its size and date."""
        return stamp_of(self.location)

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        """Yield the images from a row on.

        Raises
        ------
        InputError
            If there is no column of images, or several.
        """
        pyarrow = require("pyarrow", extra="parquet", purpose="Reading Parquet files")
        damage = (OSError, pyarrow.ArrowException)
        images = read_patiently(self._images, start, self.location, self.name, damage)
        return read_ahead(images)

    def _images(self, start: int) -> Iterator[ImageSource]:
        pyarrow = require("pyarrow", extra="parquet", purpose="Reading Parquet files")
        parquet = require("pyarrow.parquet", extra="parquet", purpose="Reading Parquet files")
        with ExitStack() as opened:
            stream = opened.enter_context(self.location.open())
            file = opened.enter_context(parquet.ParquetFile(stream))
            column = self._column(pyarrow, file.schema_arrow)
            names = {column, self.path_column} & set(file.schema_arrow.names)
            row, groups = _from_row(start, file.metadata)
            batches = file.iter_batches(_ROWS, row_groups=groups, columns=sorted(names))
            for batch in batches if groups else ():
                for cells in batch.to_pylist():
                    if row >= start:
                        yield self._image(cells, column, row)
                    row += 1

    def _column(self, pyarrow: Any, schema: Any) -> str:
        def holds_images(kind: Any) -> bool:
            types = pyarrow.types
            if types.is_struct(kind):
                found = kind.get_field_index("bytes")
                return found >= 0 and holds_images(kind.field(found).type)
            return bool(types.is_binary(kind) or types.is_large_binary(kind))

        if self.image_column is not None and self.image_column in schema.names:
            return self.image_column
        found = [field.name for field in schema if holds_images(field.type)]
        if len(found) == 1 and self.image_column is None:
            return str(found[0])
        if self.path_column in schema.names and self.image_column is None and not found:
            return self.path_column
        raise InputError(
            f"Expected {self.name!r} to have one column with the bytes of images or a column "
            f"{self.image_column or self.path_column!r}, but its columns are "
            f"{', '.join(map(repr, schema.names))}. Say which to use (--image-column)."
        )

    def _image(self, cells: Mapping[str, Any], column: str, row: int) -> ImageSource:
        value = cells[column]
        named = cells.get(self.path_column)
        if isinstance(value, str):
            return image_at(value, beside=self.location)
        if isinstance(value, Mapping):
            named = named or value.get("path")
            value = value.get("bytes")
        start = f"{self.prefix}/" if self.prefix else ""
        path = shown(f"{start}{named}") if named else f"{self.name}#{row}"
        if not isinstance(value, bytes):
            missing = refusal("empty", path, "the cell is empty", "Leave the row out")
            return UnreadableImage.of(path, missing)
        return InMemoryImage(path, value)


def _from_row(start: int, metadata: Any) -> tuple[int, list[int]]:
    """Return the groups that hold the rows from `start` on, and the first row of these."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    first = 0
    for group, size in enumerate(sizes):
        if first + size > start:
            return first, list(range(group, len(sizes)))
        first += size
    return first, []
