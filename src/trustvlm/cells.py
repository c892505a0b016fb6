"""Cells of tables: which hold nothing, and those of CSV that a spreadsheet would run, and back.

Names of files and classes come from anywhere. A spreadsheet runs a cell that begins with an equals
sign, and a terminal obeys control characters. Tables are read again, by path, so both are undone.
"""

from __future__ import annotations

import re
from decimal import Decimal
from numbers import Integral, Number, Real
from typing import Any

from trustvlm.text import UNSAFE

# What a formula begins with, in all widths; spreadsheets pass over blanks and quotation marks.
_BLANKS = r"[\s'\"\u200b-\u200d\u2060\ufeff]*"
_STARTS = "[=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]"
_FORMULA = re.compile(_BLANKS + _STARTS)
# Where a semicolon parts cells, as in many countries, quotation marks do not help.
_FORMULA_INSIDE = re.compile(f";(?={_BLANKS}{_STARTS})")

_QUOTED = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_LETTERS = {"\\": "\\", "'": "'", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPES = {ord(sign): f"\\{letter}" for letter, sign in _LETTERS.items()}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(.))")


def to_cell(text: str) -> str:
    r"""Return a text as a cell that nothing runs; most texts stay as they are.

    A formula gets an apostrophe before it, as OWASP advises. A text with control characters, or
    with blanks at an end, is quoted as a shell quotes it: `$'two\nlines.jpg'`. `from_cell` undoes
    both. Numbers are no texts: a column of them is written as it is.

    Examples
    --------
    >>> to_cell("cat.jpg"), to_cell("=1+1.jpg"), to_cell("'=1+1.jpg")
    ('cat.jpg', "'=1+1.jpg", "''=1+1.jpg")
    >>> print(to_cell("two\nlines.jpg"))
    $'two\nlines.jpg'
    """
    if (
        text != text.strip()
        or UNSAFE.search(text)
        or _FORMULA_INSIDE.search(text)
        or _QUOTED.fullmatch(text)
    ):
        escaped = _FORMULA_INSIDE.sub(r"\\x3b", text.translate(_ESCAPES))
        return f"$'{UNSAFE.sub(_numbered, escaped)}'"
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    r"""Return the text of which `to_cell` made a cell; other cells stay as they are.

    Examples
    --------
    >>> from_cell("'=1+1.jpg"), from_cell("'tis.jpg"), from_cell("-1"), from_cell(r"sub\new.jpg")
    ('=1+1.jpg', "'tis.jpg", '-1', 'sub\\new.jpg')
    >>> from_cell(r"$'two\nlines.jpg'")
    'two\nlines.jpg'
    """
    quoted = _QUOTED.fullmatch(cell)
    if quoted is not None:
        return _ESCAPE.sub(_plain, quoted[1])
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


def _numbered(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}"


def _plain(match: re.Match[str]) -> str:
    if digits := match[1] or match[2]:
        return chr(int(digits, 16))
    return _LETTERS.get(match[3], match[0])


def is_missing(cell: Any) -> bool:
    """Whether a cell holds None, NaN, NaT or pandas' NA: nothing.

    Examples
    --------
    >>> is_missing(None), is_missing(float("nan")), is_missing(""), is_missing(0)
    (True, True, False, False)
    """
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    # NumPy's scalars are no Number all of them. What is not a number differs from itself.
    is_scalar = isinstance(cell, Number) or getattr(cell, "shape", None) == ()
    return is_scalar and bool(cell != cell)


def number_label(value: Any) -> str:
    """Return the label that a whole number stands for; "" for anything else.

    A column of whole numbers in which one is missing holds 3.0 for 3; one of a database may hold
    decimal numbers.

    Examples
    --------
    >>> number_label(3), number_label(3.0), number_label(3.5), number_label(True), number_label("3")
    ('3', '3', '', '', '')
    """
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return ""
    if isinstance(value, Integral):
        return str(value)
    number = float(value)
    return str(int(number)) if number.is_integer() else ""


def cell_text(cell: Any) -> str:
    """Return what a cell says, such as a label or a group; "" where it holds nothing.

    Examples
    --------
    >>> cell_text(7), cell_text(7.0), cell_text(" b "), cell_text(None)
    ('7', '7', 'b', '')
    """
    return "" if is_missing(cell) else number_label(cell) or str(cell).strip()
