"""Tables as Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from trustvlm.tables.scores import SIGNS
from trustvlm.tables.table import OWN, Cell, Head, Line, Table

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
    own
        What stands before the label of the reference.
    join
        Makes a row of its cells.
    """

    escape: Callable[[str], str]
    marks: Mapping[str, str]
    aside: str
    signs: str
    own: str
    join: Callable[[list[str]], str]

    def head(self, head: Head) -> str:
        """Write the title of a column."""
        return self.escape(f"{head.title} ({head.unit})" if head.unit else head.title)

    def label(self, line: Line) -> str:
        """Write the label of a line."""
        signs = self.signs.format(self.escape(line.signs)) if line.signs else ""
        return (self.own if line.own else "") + self.escape(line.label) + signs

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
    r"""Return a table between its caption and its notes; best in bold, second best in italics.

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
            *([escape_markdown(table.notes), ""] if table.notes else []),
        ]
    )


_MARKDOWN = Dialect(
    escape_markdown,
    {"best": "**{}**", "second": "*{}*"},
    aside="{}",
    signs=" {}",
    own=f"{OWN} ",
    join=lambda cells: f"| {' | '.join(cells)} |",
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
    """Return a caption, a `<table>` in a region of its own that scrolls sideways, and its notes.

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
    return Markup(template.render(table=table, signs=SIGNS, own=OWN).removesuffix("\n"))  # noqa: S704
