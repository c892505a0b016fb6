"""Tables as LaTeX, with the rules of booktabs."""

from __future__ import annotations

import re
from dataclasses import replace

from trustvlm.benchmark.table import Cell, Head, Line, Table

__all__ = ["escape", "render"]

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
    "−": r"$-$",
    "–": "--",
    "“": "``",
    "”": "''",
    "≤": r"$\leq$",
}
_MARKS = ("Bold", "underlined")
# Lines above which a table does not fit on a page, and is broken over several.
_LONG = 45
# Columns of numbers above which a table comes in parts.
_WIDE = 8
_SPECIAL = re.compile("|".join(map(re.escape, _COMMANDS)))


def escape(text: str) -> str:
    r"""Return text that LaTeX sets as it is, on one line.

    Letters of other alphabets stay: they need a compiler and a font that know them.

    Examples
    --------
    >>> print(escape("50 % of a_b, 1 ± 2"))
    50 \% of a\_b, 1 $\pm$ 2
    """
    # Only plain white space: a no-break space has a meaning in LaTeX too.
    flat = re.sub(r"[ \t\r\n\f\v]+", " ", text).strip()
    flat = "".join(c for c in flat if c.isprintable() or c == "\N{NO-BREAK SPACE}")
    return _SPECIAL.sub(lambda found: _COMMANDS[found[0]], flat)


def render(table: Table) -> str:
    r"""Return `table` environments, shrunk to the width of the text where they are wider.

    They need the packages booktabs and graphicx. What has more columns than can be read comes in
    parts; what is longer than a page becomes a `longtable`, which needs the package of that name.
    Best is bold, second best underlined.

    Examples
    --------
    >>> lines = (Line("msp", (Cell("1.00", "± 0.10", "best"),)),)
    >>> found = render(Table("t", "T", "C.", (Head("Score"), Head("x", "%")), lines))
    >>> [line for line in found.splitlines() if line.endswith(r"\\")]
    ['Score & x (\\%) \\\\', 'msp & \\textbf{1.00} {\\scriptsize $\\pm$ 0.10} \\\\']
    """
    environment = _long if len(table.lines) > _LONG else _float
    package = "longtable" if len(table.lines) > _LONG else "graphicx"
    text = [rf"% Needs \usepackage{{booktabs}} and \usepackage{{{package}}}."]
    for part in _parts(table):
        body = []
        for place, line in enumerate(part.lines):
            if place in part.breaks:
                body.append(r"\midrule")
            body.append(_row([_label(line), *map(_cell, line.cells)]))
        text += environment(part, _row([_head(head) for head in part.heads]), body)
    return "\n".join([*text, ""])


def _parts(table: Table) -> list[Table]:
    """Part the columns after the first evenly, so that none has more than can be read."""
    columns = len(table.heads) - 1
    count = max(1, -(-columns // _WIDE))
    ends = [columns * part // count for part in range(count + 1)]
    if count == 1:
        return [table]
    return [
        replace(
            table,
            name=f"{table.name}-{part + 1}",
            caption=table.caption_with(*_MARKS) if not part else f"{table.title}, continued.",
            heads=(table.heads[0], *table.heads[1 + ends[part] : 1 + ends[part + 1]]),
            lines=tuple(
                replace(line, cells=line.cells[ends[part] : ends[part + 1]]) for line in table.lines
            ),
            marking=None,
        )
        for part in range(count)
    ]


def _align(table: Table) -> str:
    return "".join("l" if not i or head.text else "r" for i, head in enumerate(table.heads))


def _float(table: Table, head: str, body: list[str]) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering",
        _caption(table),
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{_align(table)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]


def _long(table: Table, head: str, body: list[str]) -> list[str]:
    return [
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{{_align(table)}}}",
        _caption(table) + r" \\",
        r"\toprule",
        head,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        head,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *body,
        r"\end{longtable}",
        r"\endgroup",
    ]


def _caption(table: Table) -> str:
    return rf"\caption{{{escape(table.caption_with(*_MARKS))}}}\label{{tab:{table.name}}}"


def _row(cells: list[str]) -> str:
    row = " & ".join(cells)
    # After a line break LaTeX takes a star or a bracket for an argument of it.
    return rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\"


def _head(head: Head) -> str:
    return escape(f"{head.title} ({head.unit})" if head.unit else head.title)


def _label(line: Line) -> str:
    return escape(line.label) + (r"\textsuperscript{\textdagger}" if line.dagger else "")


def _cell(cell: Cell) -> str:
    command = {"best": r"\textbf", "second": r"\underline"}.get(cell.mark)
    text = escape(cell.text)
    shown = f"{command}{{{text}}}" if command else text
    return f"{shown} {{\\scriptsize {escape(cell.aside)}}}" if cell.aside else shown
