"""Tables as Markdown, in the pipe syntax of GitHub and Pandoc."""

from __future__ import annotations

import re

from trustvlm.benchmark.table import Cell, Line, Table

__all__ = ["escape", "render"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")


def escape(text: str) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    Examples
    --------
    >>> print(escape("a_b | *c*"))
    a\_b \| \*c\*
    """
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def render(table: Table) -> str:
    r"""Return a table with its title and caption; best in bold, second best in italics.

    Examples
    --------
    >>> from trustvlm.benchmark.table import Head
    >>> lines = (Line("a_b", (Cell("1.00", "± 0.10", "best"),)),)
    >>> print(render(Table("t", "Title", "Caption.", (Head("Score"), Head("x", "%")), lines)))
    ### Title
    <BLANKLINE>
    Caption.
    <BLANKLINE>
    | Score | x (%) |
    |:--|--:|
    | a\_b | **1.00** ± 0.10 |
    <BLANKLINE>
    """
    heads = [
        f"{escape(head.title)} ({escape(head.unit)})" if head.unit else escape(head.title)
        for head in table.heads
    ]
    rules = [":--" if not place or head.text else "--:" for place, head in enumerate(table.heads)]
    body = [_row([_label(line), *map(_cell, line.cells)]) for line in table.lines]
    caption = escape(table.caption_with("Bold", "italics"))
    head = [f"### {escape(table.title)}", "", caption, "", _row(heads), f"|{'|'.join(rules)}|"]
    return "\n".join([*head, *body, ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _label(line: Line) -> str:
    return escape(line.label) + (" †" if line.dagger else "")


def _cell(cell: Cell) -> str:
    around = {"best": "**", "second": "*"}.get(cell.mark, "")
    return " ".join(filter(None, (f"{around}{escape(cell.text)}{around}", escape(cell.aside))))
