"""Tables as LaTeX, with the rules of booktabs."""

from __future__ import annotations

import re

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
    r"""Return a `table` environment, shrunk to the width of the text if it is wider.

    It needs the packages booktabs and graphicx. Best is bold, second best underlined.

    Examples
    --------
    >>> lines = (Line("msp", (Cell("1.00", "± 0.10", "best"),)),)
    >>> found = render(Table("t", "T", "C.", (Head("Score"), Head("x", "%")), lines))
    >>> [line for line in found.splitlines() if line.endswith(r"\\")]
    ['Score & x (\\%) \\\\', 'msp & \\textbf{1.00} {\\scriptsize $\\pm$ 0.10} \\\\']
    """
    align = "".join("l" if not i or head.text else "r" for i, head in enumerate(table.heads))
    body = []
    for place, line in enumerate(table.lines):
        if place in table.breaks:
            body.append(r"\midrule")
        body.append(_row([_label(line), *map(_cell, line.cells)]))
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs} and \usepackage{graphicx}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(table.caption_with('Bold', 'underlined'))}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            _row([_head(head) for head in table.heads]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


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
