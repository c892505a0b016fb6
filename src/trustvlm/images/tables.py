"""Read lists of images from text files, row by row: CSV, JSON Lines, and one path a line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from trustvlm.cells import from_cell, is_missing, number_label
from trustvlm.exceptions import InputError
from trustvlm.images.locations import Location
from trustvlm.images.references import shown

_JSON = frozenset({".jsonl", ".ndjson", ".json"})
TABLE_EXTENSIONS = frozenset({".csv", ".tsv"}) | _JSON
_DELIMITERS = (",", ";", "\t", "|")
# Stands for "no delimiter": a table of one column, whose cells may hold commas.
_NO_DELIMITER = "\x1f"
# Enough of a table to hold its header.
_HEAD_BYTES = 1 << 16
# What Python puts for a byte that is not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# The longest cell, such as a picture or a vector as text beside its path.
_CELL_CHARACTERS = 2**24
# The line by which a spreadsheet is told how cells are parted.
_SEPARATOR = re.compile(r"\s*\"?sep=(.)\"?\s*")


def read_text(file: Path | Location) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark; UTF-16 with one.

    Raises
    ------
    InputError
        If the file cannot be read, is in another encoding or holds zero bytes.
    """
    location = Location(str(file)) if isinstance(file, Path) else file
    with _open_text(location) as (_, lines):
        return "".join(lines)


def read_lines(location: Location) -> Iterator[str]:
    """Yield the lines of a text file that are not blank, without surrounding blanks.

    Raises
    ------
    InputError
        As `read_text`.
    """
    with _open_text(location) as (_, lines):
        for line in lines:
            if stripped := line.strip():
                yield stripped


def read_table(
    location: Location,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    *,
    renamed_by: str = "--path-column, --label-column",
) -> Iterator[tuple[str, ...]]:
    """Yield some cells of each row of a CSV or JSON file.

    Comma, semicolon, tab and bar are recognised as delimiters by the header; quoting is that of
    spreadsheets, and what `to_cell` did to cells is undone. JSON Lines hold an object in each line,
    a `.json` file those or one list of objects. Blank rows are passed over.

    Parameters
    ----------
    location
        The table; the first row of a CSV names the columns.
    columns
        Names of the columns to return, exactly as in the header.
    optional
        More of them, which may be missing, and cells of which may be empty: then "". Values of JSON
        Lines that are no texts are JSON.
    renamed_by
        The options that say how the columns are called, for the message; "" if there are none.

    Raises
    ------
    InputError
        If one of `columns` is missing (the message lists those there are), a cell of one is
        empty, a row has more cells than the header, or as `read_text`.
    """
    name = shown(location.text)
    with _open_text(location) as (head, lines):
        if location.suffix in _JSON:
            in_list = location.suffix == ".json" and head.lstrip().startswith("[")
            records = _json_list("".join(lines), name) if in_list else _json_lines(lines, name)
            yield from _json_rows(records, columns, optional)
            return
        if _SEPARATOR.fullmatch(head.partition("\n")[0]):
            head = head.partition("\n")[2]
            next(lines)
        delimiter, header = _find_header(name, head, columns, renamed_by)
        _check_distinct(header, [*columns, *optional], name)
        positions = [header.index(column) for column in columns]
        others = [header.index(column) if column in header else -1 for column in optional]
        try:
            for number, (line, cells) in enumerate(_rows(lines, delimiter)):
                if number:  # the first is the header
                    where = f"row {number} (line {line}) of {name!r}"
                    yield _pick(cells, header, positions, where) + tuple(
                        from_cell(cells[i].strip()) if 0 <= i < len(cells) else "" for i in others
                    )
        except csv.Error as error:
            raise InputError(
                f"Expected {name!r} to be a CSV table, but got {error}. Check its quotation marks."
            ) from error


def _check_distinct(header: Sequence[str], columns: Iterable[str], name: str) -> None:
    for column in columns:
        if header.count(column) > 1:
            raise InputError(
                f"Expected {name!r} to have one column {column!r}, but it has "
                f"{header.count(column)}. Rename all but one."
            )


def _json_lines(lines: Iterable[str], name: str) -> Iterator[tuple[str, object]]:
    """Yield where each line stands that is not blank, and its content."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"line {number} of {name!r}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"Expected JSON in {where}, but got: {error}. Write one object a line, or one list "
                "of objects into a .json file."
            ) from error


def _json_list(text: str, name: str) -> Iterator[tuple[str, object]]:
    """Yield where each item of a list stands, and its content."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"Expected {name!r} to hold a list in JSON, but got: {error}.") from error
    for number, record in enumerate(content, start=1):
        yield f"item {number} of {name!r}", record


def _json_rows(
    records: Iterable[tuple[str, object]], columns: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Yield the values of some keys of each object as text."""
    for where, record in records:
        if not isinstance(record, dict):
            raise InputError(
                f"Expected an object in {where}, but got a {type(record).__name__}. Write one "
                f'{{"{columns[0]}": ...}} for each image.'
            )
        cells = []
        for column in columns:
            value = record.get(column)
            value = number_label(value) or value
            if not isinstance(value, str):
                keys = ", ".join(map(repr, record)) or "none"
                raise InputError(
                    f"Expected a text under {column!r} in {where}, but got {value!r} (the keys are "
                    f"{keys})."
                )
            if not value.strip():
                raise InputError(f"Expected a {column!r} in {where}, but the text is empty.")
            # Blanks in JSON are meant: they may begin a file's name.
            cells.append(value)
        others = (record.get(column) for column in optional)
        yield (*cells, *("" if is_missing(value) else _json_cell(value) for value in others))


def _json_cell(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return number_label(value) or json.dumps(value, ensure_ascii=False)


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the number of its last line."""
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARACTERS))
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise csv.Error(f"{error} in line {reader.line_num}") from error


def _pick(cells: list[str], header: list[str], positions: list[int], where: str) -> tuple[str, ...]:
    if len(cells) > len(header):
        raise InputError(
            f"Expected {len(header)} cells in {where}, but got {len(cells)}. "
            "Put cells that hold the delimiter in quotation marks."
        )
    chosen = tuple(from_cell(cells[i].strip()) if i < len(cells) else "" for i in positions)
    for position, cell in zip(positions, chosen, strict=True):
        if not cell:
            raise InputError(f"Expected a {header[position]!r} in {where}, but the cell is empty.")
    return chosen


def _find_header(
    name: str, head: str, columns: Sequence[str], renamed_by: str
) -> tuple[str, list[str]]:
    """Return the delimiter and the cells of the first row, from the beginning of a table."""
    headers = {delimiter: _header(head, delimiter) for delimiter in _DELIMITERS}
    for delimiter, header in headers.items():
        if all(column in header for column in columns):
            return (delimiter if len(header) > 1 else _NO_DELIMITER), header
    widest = max(headers.values(), key=len)
    if not any(widest):
        raise InputError(f"Expected {name!r} to hold a table, but it is empty.")
    missing = next(column for column in columns if column not in widest)
    raise InputError(
        f"Expected {name!r} to have a column {missing!r}, but its columns are "
        f"{', '.join(map(repr, widest))}. Rename one"
        f"{f', or say which to use ({renamed_by})' if renamed_by else ''}."
    )


def _header(head: str, delimiter: str) -> list[str]:
    try:
        _, cells = next(_rows(io.StringIO(head, newline=""), delimiter), (0, []))
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


@contextmanager
def _open_text(location: Location) -> Iterator[tuple[str, Iterator[str]]]:
    """Open a text file; yield its beginning, and all its lines with their ends as they are."""
    name = shown(location.text)
    try:
        with location.open() as raw:
            encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            raw.seek(0)
            # Incremental, for the cut may split a character.
            decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
            head = io.StringIO(decoder.decode(raw.read(_HEAD_BYTES)), newline="")
            raw.seek(0)
            stream = io.TextIOWrapper(raw, encoding, "surrogateescape", newline="")
            yield "".join(_check_lines(head, name)), _check_lines(stream, name)
            stream.detach()
    except UnicodeDecodeError as error:
        raise InputError(_not_utf8(name, "it")) from error
    except OSError as error:
        raise InputError(
            f"Expected {name!r} to be a file that can be read, but got: "
            f"{error.strerror or type(error).__name__}."
        ) from error


def _check_lines(stream: TextIO, name: str) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if not line.isascii() and _NOT_UTF8.search(line):
            raise InputError(_not_utf8(name, f"line {number}"))
        if "\0" in line:
            raise InputError(f"Expected {name!r} to be text, but it holds zero bytes.")
        yield line


def _not_utf8(name: str, what: str) -> str:
    return (
        f"Expected {name!r} to be UTF-8 text, but {what} is not. "
        "Save it as UTF-8 (in a spreadsheet: `CSV UTF-8`)."
    )
