"""Text lists and tables of any length, read row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from trustvlm.exceptions import InputError
from trustvlm.images.locations import Location
from trustvlm.images.references import shown
from trustvlm.images.tables import read_header, row_cells

__all__ = ["stream_column", "stream_lines"]

_HEAD = 1 << 16


def stream_lines(location: Location) -> Iterator[str]:
    """Yield the lines of a text file that are not blank, without surrounding blanks.

    Raises
    ------
    InputError
        If the file cannot be read, or is no text.
    """
    with _text(location) as (_, stream):
        for line in stream:
            if stripped := line.strip():
                yield stripped


def stream_column(location: Location, column: str) -> Iterator[str]:
    """Yield the cells of one column of a CSV file; see `tables.read_table`.

    Raises
    ------
    InputError
        If the column is missing, a cell is empty, a row does not fit the header, or the file
        cannot be read.
    """
    name = shown(location.text)
    with _text(location) as (head, stream):
        delimiter, header = read_header(name, head, (column,))
        reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
        position, seen = [header.index(column)], -1
        try:
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                seen += 1
                if seen:
                    where = f"row {seen} (line {reader.line_num}) of {name!r}"
                    yield row_cells(cells, header, (column,), position, where).cells[0]
        except csv.Error as error:
            raise InputError(
                f"Expected {name!r} to be a CSV table, but got {error} in line {reader.line_num}. "
                "Check its quotation marks."
            ) from error


@contextmanager
def _text(location: Location) -> Iterator[tuple[str, TextIO]]:
    """Open a text as `tables.read_text` does; yield its beginning, and all of it as a stream."""
    name = shown(location.text)
    try:
        with location.open() as raw:
            encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            raw.seek(0)
            head = io.TextIOWrapper(io.BytesIO(raw.read(_HEAD)), encoding, "ignore", newline="")
            raw.seek(0)
            stream = io.TextIOWrapper(raw, encoding, newline="")
            yield head.read(), stream
            stream.detach()
    except UnicodeDecodeError as error:
        raise InputError(
            f"Expected {name!r} to be UTF-8 text, but it is not. "
            "Save it as UTF-8 (in a spreadsheet: `CSV UTF-8`)."
        ) from error
    except OSError as error:
        raise InputError(
            f"Expected {name!r} to be a file that can be read, but got: "
            f"{error.strerror or type(error).__name__}."
        ) from error
