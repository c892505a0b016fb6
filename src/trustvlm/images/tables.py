"""Read lists of images from text files: CSV tables, and one path a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

from trustvlm.exceptions import InputError
from trustvlm.images.reading import open_regular
from trustvlm.images.references import shown
from trustvlm.images.remote import Location

TABLE_EXTENSIONS = frozenset({".csv", ".tsv"})
_DELIMITERS = (",", ";", "\t", "|")
# Stands for "no delimiter": a table of one column, whose cells may hold commas.
_NONE = "\x1f"


@dataclass(frozen=True)
class TableRow:
    """The cells that were asked for, and where the row is, to be named in errors."""

    cells: tuple[str, ...]
    where: str


def read_text(file: Path) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark; UTF-16 with one.

    Raises
    ------
    InputError
        If the file cannot be read or is in another encoding.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read()
    except OSError as error:
        raise InputError(
            f"Expected {shown(file)!r} to be a file that can be read, but got: {error.strerror}."
        ) from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"Expected {shown(file)!r} to be UTF-8 text, but line {line} is not. "
            "Save it as UTF-8 (in a spreadsheet: `CSV UTF-8`)."
        ) from error
    if "\0" in text:
        raise InputError(f"Expected {shown(file)!r} to be text, but it holds zero bytes.")
    return text


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank, without surrounding blanks."""
    return [line.strip() for line in read_text(file).split("\n") if line.strip()]


def read_table(file: Path, columns: Sequence[str]) -> list[TableRow]:
    """Read some columns of a CSV file.

    Comma, semicolon, tab and bar are recognised as delimiters by the header; quoting is that of
    spreadsheets. Blank rows are passed over.

    Parameters
    ----------
    file
        The table; its first row names the columns.
    columns
        Names of the columns to return, exactly as in the header.

    Raises
    ------
    InputError
        If a column is missing (the message lists those there are), a cell is empty, or a row has
        more or fewer cells than the header.
    """
    text = read_text(file)
    delimiter, header = read_header(shown(file), text, columns)
    positions = [header.index(column) for column in columns]
    rows: list[TableRow] = []
    try:
        for line, cells in islice(_rows(text, delimiter), 1, None):
            where = f"row {len(rows) + 1} (line {line}) of {shown(file)!r}"
            rows.append(row_cells(cells, header, columns, positions, where))
    except csv.Error as error:
        raise InputError(
            f"Expected {shown(file)!r} to be a CSV table, but got {error}. "
            "Check its quotation marks."
        ) from error
    return rows


def row_cells(
    cells: list[str],
    header: list[str],
    columns: Sequence[str],
    positions: list[int],
    where: str,
) -> TableRow:
    """Pick the cells of a row, or raise `InputError` with its place."""
    if len(cells) > len(header):
        raise InputError(
            f"Expected {len(header)} cells in {where}, but got {len(cells)}. "
            "Put cells that hold the delimiter in quotation marks."
        )
    chosen = tuple(cells[i].strip() if i < len(cells) else "" for i in positions)
    for column, cell in zip(columns, chosen, strict=True):
        if not cell:
            raise InputError(f"Expected a {column!r} in {where}, but the cell is empty.")
    return TableRow(chosen, where)


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the number of its last line."""
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise csv.Error(f"{error} in line {reader.line_num}") from error


def read_header(name: str, text: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """Return the delimiter and the cells of the first row.

    Raises
    ------
    InputError
        If a column is missing; `name` is what the message calls the table.
    """
    headers = {delimiter: _header(text, delimiter) for delimiter in _DELIMITERS}
    for delimiter, header in headers.items():
        if all(column in header for column in columns):
            return (delimiter if len(header) > 1 else _NONE), header
    widest = max(headers.values(), key=len)
    if not any(widest):
        raise InputError(f"Expected {name!r} to hold a table, but it is empty.")
    missing = [column for column in columns if column not in widest]
    raise InputError(
        f"Expected {name!r} to have a column {missing[0]!r}, but its columns are "
        f"{', '.join(map(repr, widest))}. Rename one, or say which to use."
    )


def _header(text: str, delimiter: str) -> list[str]:
    try:
        _, cells = next(_rows(text, delimiter), (0, []))
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


# Text lists and tables of any length, read row by row.

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
