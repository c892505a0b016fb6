"""Tables as Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from trustvlm.tables.scores import SIGNS
from trustvlm.tables.table import Cell, Head, Line, Table

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Dialect:
    """How a markup language writes the parts of a table.

    Attributes
    ----------
    escape
        Makes text show as it is.
    marks
        How the text of a best and of a second best cell is written.
    aside, signs
        How the smaller print after a cell is written, and the signs after a label.
    join
        Makes a row of its cells.
    """

    escape: Callable[[str], str]
    marks: Mapping[str, str]
    aside: str
    signs: str
    join: Callable[[list[str]], str]

    def head(self, head: Head) -> str:
        """Write the title of a column."""
        return self.escape(f"{head.title} ({head.unit})" if head.unit else head.title)

    def label(self, line: Line) -> str:
        """Write the label of a line."""
        signs = self.signs.format(self.escape(line.signs)) if line.signs else ""
        return self.escape(line.label) + signs

    def cell(self, cell: Cell) -> str:
        """Write one cell."""
        shown = self.marks.get(cell.mark, "{}").format(self.escape(cell.text))
        return f"{shown} {self.aside.format(self.escape(cell.aside))}" if cell.aside else shown


def written(table: Table, dialect: Dialect) -> tuple[str, list[str]]:
    """Return the row of the heads, and those of the lines."""
    lines = [
        dialect.join([dialect.label(line), *map(dialect.cell, line.cells)]) for line in table.lines
    ]
    return dialect.join([dialect.head(head) for head in table.heads]), lines


def alignment(table: Table, left: str, right: str) -> list[str]:
    """Return the signs of how columns are aligned: labels and names left, numbers right."""
    return [left if not at or head.text else right for at, head in enumerate(table.heads)]


# Tables as Markdown, in the pipe syntax of GitHub and Pandoc.

_SPECIAL_IN_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")


def escape_markdown(text: str) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    Examples
    --------
    >>> print(escape_markdown("a_b | *c*"))
    a\_b \| \*c\*
    """
    return _SPECIAL_IN_MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def render_markdown(table: Table) -> str:
    r"""Return a table with its title and caption; best in bold, second best in italics.

    Examples
    --------
    >>> from trustvlm.tables.table import Head
    >>> lines = (Line("a_b", (Cell("1.00", "± 0.10", "best"),)),)
    >>> heads = (Head("Score"), Head("x", "%"))
    >>> print(render_markdown(Table("t", "Title", "Caption.", heads, lines)))
    ### Title
    <BLANKLINE>
    Caption.
    <BLANKLINE>
    | Score | x (%) |
    |:--|--:|
    | a\_b | **1.00** ± 0.10 |
    <BLANKLINE>
    """
    heads, lines = written(table, _MARKDOWN)
    return "\n".join(
        [
            f"### {escape_markdown(table.title)}",
            "",
            escape_markdown(table.caption_with("Bold", "italics")),
            "",
            heads,
            f"|{'|'.join(alignment(table, ':--', '--:'))}|",
            *lines,
            "",
        ]
    )


_MARKDOWN = Dialect(
    escape_markdown,
    {"best": "**{}**", "second": "*{}*"},
    aside="{}",
    signs=" {}",
    join=lambda cells: f"| {' | '.join(cells)} |",
)


# Tables as LaTeX, with the rules of booktabs.

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
    "−": r"$-$",
    "–": "--",
    "“": "``",
    "”": "''",
    "≤": r"$\leq$",
}
_MARKS = ("Bold", "underlined")
# Lines above which a table does not fit on a page, and is broken over several.
_LONG_IN_LATEX = 45
# Columns of numbers above which a table comes in parts.
_WIDE = 8
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


def render_latex(table: Table) -> str:
    r"""Return `table` environments, shrunk to the width of the text where they are wider.

    They need the packages booktabs and graphicx. What has more columns than can be read comes in
    parts; what is longer than a page becomes a `longtable`, which needs the package of that name.
    Best is bold, second best underlined.

    Examples
    --------
    >>> lines = (Line("msp", (Cell("1.00", "± 0.10", "best"),)),)
    >>> latex = render_latex(Table("t", "T", "C.", (Head("Score"), Head("x", "%")), lines))
    >>> [line for line in latex.splitlines() if line.endswith(r"\\")]
    ['Score & x (\\%) \\\\', 'msp & \\textbf{1.00} {\\scriptsize $\\pm$ 0.10} \\\\']
    """
    long = len(table.lines) > _LONG_IN_LATEX
    package = "longtable" if long else "graphicx"
    text = [rf"% Needs \usepackage{{booktabs}} and \usepackage{{{package}}}."]
    for part in _parts(table):
        heads, lines = written(part, _LATEX)
        for at in sorted(part.breaks, reverse=True):
            lines.insert(at, r"\midrule")
        text += (_long if long else _float)(part, heads, lines)
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


def _float(table: Table, head: str, body: list[str]) -> list[str]:
    columns = "".join(alignment(table, "l", "r"))
    return [
        r"\begin{table}",
        r"\centering",
        _caption(table),
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]


def _long(table: Table, head: str, body: list[str]) -> list[str]:
    columns = "".join(alignment(table, "l", "r"))
    return [
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{{columns}}}",
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
    return rf"\caption{{{escape_latex(table.caption_with(*_MARKS))}}}\label{{tab:{table.name}}}"


def _latex_row(cells: list[str]) -> str:
    row = " & ".join(cells)
    # After a line break LaTeX takes a star or a bracket for an argument of it.
    return rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\"


_LATEX = Dialect(
    escape_latex,
    {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"},
    aside=r"{{\scriptsize {}}}",
    signs=r"\textsuperscript{{{}}}",
    join=_latex_row,
)


# Tables as HTML, for the page: sortable, with the classes of the report's style sheet.


@cache
def environment_of(package: str) -> Environment:
    """Return what fills the HTML templates of a package: data is escaped, gaps are errors."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_html(table: Table) -> Markup:
    """Return a caption and a `<table>` in a region of its own that scrolls sideways.

    Everything from data is escaped.

    Examples
    --------
    >>> lines = (Line("<b>", (Cell("1.00", mark="best", value=1.0),)),)
    >>> html = render_html(Table("t", "T", "C.", (Head("Score"), Head("x")), lines))
    >>> "<b>" in html, '<td class="number best" data-value="1">1.00' in html
    (False, True)
    """
    template = environment_of("trustvlm.tables").get_template("table.html.j2")
    # The template escapes everything that is not its own.
    return Markup(template.render(table=table, signs=SIGNS).removesuffix("\n"))  # noqa: S704
