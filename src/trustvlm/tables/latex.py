"""Tables as LaTeX at 8 pt, in parts that fit the columns of a paper, with the rules of booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trustvlm.tables.markup import Dialect, alignment
from trustvlm.tables.table import OWN, Cell, Head, Line, Table

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\N{NO-BREAK SPACE}": "~",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "▸": r"$\triangleright$",
    "−": r"$-$",
    "–": "--",
    "“": "``",
    "”": "''",
    "≤": r"$\leq$",
}
_MARKS = ("Bold", "underlined")
_SPECIAL_IN_LATEX = re.compile("|".join(map(re.escape, _COMMANDS)))


def escape_latex(text: str) -> str:
    r"""Return text that LaTeX sets as it is, on one line.

    Letters of other alphabets stay: they need a compiler and a font that know them.

    Examples
    --------
    >>> print(escape_latex("50 % of a_b, 1 ± 2"))
    50 \% of a\_b, 1 $\pm$ 2
    """
    # Only plain white space: a no-break space has a meaning in LaTeX too.
    flat = re.sub(r"[ \t\r\n\f\v]+", " ", text).strip()
    flat = "".join(c for c in flat if c.isprintable() or c == "\N{NO-BREAK SPACE}")
    return _SPECIAL_IN_LATEX.sub(lambda match: _COMMANDS[match[0]], flat)


def _stacked(lines: Sequence[str], side: str, at: str = "t") -> str:
    """Set lines on each other within a cell."""
    if len(lines) < 2:
        return "".join(lines)
    # After a line break LaTeX takes a star or a bracket for an argument of it.
    rows = r" \\ ".join(f"{{}}{line}" if line[:1] in "[*" else line for line in lines)
    return rf"\begin{{tabular}}[{at}]{{@{{}}{side}@{{}}}}{rows}\end{{tabular}}"


def _latex_row(cells: list[str]) -> str:
    row = " & ".join(cells)
    return rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\"


_LATEX = Dialect(
    escape_latex,
    {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"},
    aside=r"{{\scriptsize {}}}",
    signs=r"\textsuperscript{{{}}}",
    own=f"{escape_latex(OWN)}~",
    join=_latex_row,
)


# Widths in points, of Computer Modern at 8 pt: wider than Times, Palatino or Libertine.


@dataclass(frozen=True)
class Paper:
    """Room in a paper, in points.

    Attributes
    ----------
    column, text
        Widths of a column and of both: by default those of LaTeX's own `article` in two columns on
        A4 paper, the narrowest of the usual classes (on letter paper it has 229 and 469, CVPR 237
        and 497, IEEEtran 252 and 516).
    lines
        Lines of a table that a page holds, besides its caption.
    """

    column: float = 221.0
    text: float = 452.0
    lines: int = 45


# Thousandths of the size, from cmr8.tfm.
_THOUSANDTHS = {
    letter: width
    for width, letters in {
        295: " !',.:;[]`il", 325: "fj", 354: "-", 383: "I", 413: "()t", 414: "r", 419: "s",
        472: "cez†‡", 502: "?", 531: "$*/0123456789ago_{}|~^–\"", 545: "J", 561: "kqvxy",
        590: "Sbdhnpu", 649: "Z", 664: "L", 693: "F", 723: "EP", 752: "B", 767: "CTw", 782: "R",
        796: "AHNUVXY", 811: "D", 825: "K", 826: "&+=@OQ<>±×−≤", 834: "G", 885: "#%m", 973: "M",
        1091: "W",
    }.items()
    for letter in letters
}  # fmt: skip
_SIZE, _SMALL = 8.0, 7.0
# How much wider bold digits are, and smaller letters than their size says.
_BOLD, _OF_SMALL = 1.155, 1.075
_GAP = 6.0
# Up to this, names are not broken for the sake of narrow columns of numbers; and the share of the
# page up to which columns of text are not.
_HEAD, _TEXT = 42.0, 0.36


def width_of(text: str, size: float = _SIZE) -> float:
    """Width of a text in points; of letters that are not known, that of an em."""
    return size * sum(_THOUSANDTHS.get(letter, 1062) for letter in text) / 1000


def _cell_width(cell: Cell) -> float:
    width = width_of(cell.text) * (_BOLD if cell.mark == "best" else 1)
    aside = f" {cell.aside}" if cell.aside else ""
    return width + _OF_SMALL * width_of(aside, _SMALL)


def _label_width(line: Line) -> float:
    mark = width_of("× ") if line.own else 0.0
    return mark + width_of(line.label) + _OF_SMALL * width_of(line.signs, 6)


def _broken(text: str, room: float) -> list[str]:
    """Break a text after spaces and signs, where it is wider than there is room."""
    pieces = re.findall(r"[^\s_/,:-]*[\s_/,:-]*", " ".join(text.split()))
    lines = [""]
    for piece in filter(None, pieces):
        if lines[-1] and width_of((lines[-1] + piece).rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


@dataclass(frozen=True)
class _Column:
    """A column of cells as they are set: how wide, and how many lines each takes."""

    width: float
    head: list[str]
    room: float

    @classmethod
    def of(cls, head: Head, cells: Sequence[Cell], widest: float, *, text: bool) -> _Column:
        """Lay out a column, its text no wider than `widest` where it can be broken."""
        title = f"{head.title} ({head.unit})" if head.unit else head.title
        if text:
            lines = [_broken(cell.text, widest) for cell in cells]
            body = max((width_of(one) for broken in lines for one in broken), default=0.0)
        else:
            body = max(map(_cell_width, cells), default=0.0)
        heads = _broken(title, max(body, _HEAD))
        return cls(max([body, *map(width_of, heads)]), heads, widest)


# A table in parts: columns that are as wide as a page together, and lines that are as long.


def render_latex(table: Table, paper: Paper | None = None) -> str:
    r"""Return a `table`, or as many `table*` over both columns of a page as it takes, at 8 pt.

    They need the packages booktabs and graphicx: in a class with less room than `paper` says,
    tables are shrunk to the width of the line. Best is bold, second best underlined, the
    reference has a triangle. What is no caption follows as text, in the command `\tabletext`,
    which may be defined beforehand to leave it out.

    Examples
    --------
    >>> lines = (Line("msp", (Cell("1.00", "± 0.10", "best"),)),)
    >>> latex = render_latex(Table("t", "T", "C.", (Head("Score"), Head("x", "%")), lines))
    >>> [line for line in latex.splitlines() if line.endswith(r"\\")]
    ['Score & x (\\%) \\\\', 'msp & \\textbf{1.00} {\\scriptsize $\\pm$ 0.10} \\\\']
    """
    paper = paper or Paper()
    columns = _columns(table, paper)
    parts = list(_parts(table, columns, paper))
    text = [
        r"% Needs \usepackage{booktabs} and \usepackage{graphicx}. To leave out the text behind:",
        r"% \newcommand{\tabletext}[1]{}",
        r"\providecommand{\tabletext}[1]{\par #1\par}",
    ]
    for rank, (part, kept) in enumerate(parts):
        name = f"{table.name}-{rank + 1}" if len(parts) > 1 else table.name
        caption = (
            rf"{escape_latex(table.title)}, continued from Table~\ref{{tab:{table.name}-1}}."
            if rank
            else escape_latex(table.caption_with(*_MARKS))
        )
        text += _float(replace(part, name=name), [columns[at] for at in kept], caption, paper)
    if table.notes:
        first = f"{table.name}-1" if len(parts) > 1 else table.name
        text.append(rf"\tabletext{{Table~\ref{{tab:{first}}}: {escape_latex(table.notes)}}}")
    return "\n".join([*text, ""])


def _columns(table: Table, paper: Paper) -> list[_Column]:
    widest = _TEXT * paper.text
    labels = [Cell(line.label) for line in table.lines]
    first = _Column.of(table.heads[0], labels, widest, text=True)
    marks = [_label_width(line) for line in table.lines]
    columns = [replace(first, width=max([first.width, *(min(m, widest) for m in marks)]))]
    for at, head in enumerate(table.heads[1:]):
        cells = [line.cells[at] for line in table.lines]
        columns.append(_Column.of(head, cells, widest, text=head.text))
    return columns


def _width(columns: Sequence[_Column]) -> float:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def _parts(
    table: Table, columns: Sequence[_Column], paper: Paper
) -> Iterator[tuple[Table, list[int]]]:
    """Yield parts of a table that a page can hold, and the numbers of their columns."""
    for start, end in _ranges_of_lines(table, columns, paper):
        for kept in _ranges_of_columns(columns, paper):
            lines = tuple(
                replace(line, cells=tuple(line.cells[at - 1] for at in kept[1:]))
                for line in table.lines[start:end]
            )
            yield (
                replace(
                    table,
                    heads=tuple(table.heads[at] for at in kept),
                    lines=lines,
                    breaks=tuple(at - start for at in table.breaks if start < at < end),
                ),
                kept,
            )


def _ranges_of_columns(columns: Sequence[_Column], paper: Paper) -> list[list[int]]:
    """Put columns, each with that of the labels, into as few parts as there can be, and evenly."""
    wanted = list(range(1, len(columns)))

    def filled(room: float) -> list[list[int]]:
        parts: list[list[int]] = [[0]]
        for at in wanted:
            fits = _width([columns[i] for i in (*parts[-1], at)]) <= room
            if len(parts[-1]) > 1 and not fits:
                parts.append([0])
            parts[-1].append(at)
        return parts

    fewest = len(filled(paper.text))
    # The narrowest room in which they take no more parts.
    room = next(r for r in range(0, int(paper.text) + 5, 4) if len(filled(r)) <= fewest)
    return filled(min(room, paper.text))


def _ranges_of_lines(
    table: Table, columns: Sequence[_Column], paper: Paper
) -> Iterator[tuple[int, int]]:
    start = taken = 0
    for at, line in enumerate(table.lines):
        height = _height(line, table.heads, columns)
        if at > start and taken + height > paper.lines:
            yield start, at
            start, taken = at, 0
        taken += height
    yield start, len(table.lines)


def _height(line: Line, heads: Sequence[Head], columns: Sequence[_Column]) -> int:
    texts = [Cell(line.label), *line.cells]
    return max(
        len(_broken(cell.text, column.room)) if head.text or not at else 1
        for at, (cell, head, column) in enumerate(zip(texts, heads, columns, strict=True))
    )


def _float(table: Table, columns: Sequence[_Column], caption: str, paper: Paper) -> list[str]:
    sides = alignment(table, "l", "r")
    both = "*" if _width(columns) > paper.column else ""
    lines = [_set(line, table.heads, columns) for line in table.lines]
    for at in sorted(table.breaks, reverse=True):
        lines.insert(at, r"\midrule")
    heads = [
        _stacked([escape_latex(one) for one in column.head], side, "b")
        for column, side in zip(columns, sides, strict=True)
    ]
    return [
        rf"\begin{{table{both}}}[t]",
        r"\centering",
        rf"\caption{{{caption}}}\label{{tab:{table.name}}}",
        r"\fontsize{8}{9.6}\selectfont\setlength{\tabcolsep}{3pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{''.join(sides)}@{{}}}}",
        r"\toprule",
        _latex_row(heads),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\end{{table{both}}}",
    ]


def _set(line: Line, heads: Sequence[Head], columns: Sequence[_Column]) -> str:
    """Write a line of the table, its texts broken where they are wider than their columns."""
    *above, last = _broken(line.label, columns[0].room)
    label = [*map(escape_latex, above), _LATEX.label(replace(line, label=last, own=False))]
    if line.own:
        label[0] = _LATEX.own + label[0]
    cells = [_stacked(label, "l")]
    for cell, head, column in zip(line.cells, heads[1:], columns[1:], strict=True):
        broken = map(escape_latex, _broken(cell.text, column.room))
        cells.append(_stacked(list(broken), "l") if head.text else _LATEX.cell(cell))
    return _latex_row(cells)
