"""Tables as HTML, for the page: sortable, with the classes of the report's style sheet."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from trustvlm.benchmark.table import UNDEFINED, Cell, Head, Line, Table

__all__ = ["render"]

# Lines above which a table scrolls within itself.
_LONG = 40
_MARK_WORDS = {"best": "best", "second": "second best"}


def render(table: Table) -> Markup:
    """Return a caption and a `<table>` in a region of its own that scrolls sideways.

    Everything from data is escaped.

    Examples
    --------
    >>> lines = (Line("<b>", (Cell("1.00", mark="best", value=1.0),)),)
    >>> found = render(Table("t", "T", "C.", (Head("Score"), Head("x")), lines))
    >>> "<b>" in found, '<td class="number best" data-value="1">1.00' in found
    (False, True)
    """
    heads = Markup("").join(
        _head(head, text=head.text or not place) for place, head in enumerate(table.heads)
    )
    lines = Markup("\n").join(
        _line(line, [head.text for head in table.heads[1:]]) for line in table.lines
    )
    return Markup(
        '<p class="caption">{caption}</p>\n'
        '<div class="{scroll}" role="region" aria-label="{title}" tabindex="0">\n'
        '<table class="sortable">\n'
        '<caption class="unseen">{title}. The column headers are buttons that sort the rows.'
        "</caption>\n"
        "<thead>\n<tr>{heads}</tr>\n</thead>\n<tbody>\n{lines}\n</tbody>\n</table>\n</div>"
    ).format(
        caption=table.caption_with("★", "underlined"),
        scroll="scroll tall" if len(table.lines) > _LONG else "scroll",
        title=table.title,
        heads=heads,
        lines=lines,
    )


def _head(head: Head, *, text: bool) -> Markup:
    unit = Markup(' <span class="unit">{}</span>').format(head.unit) if head.unit else ""
    return Markup(
        '<th scope="col" aria-sort="none" data-first="{}"{}>'
        '<button type="button">{}{}</button></th>'
    ).format(
        "descending" if head.falling else "ascending",
        Markup("") if text else Markup(' class="number"'),
        head.title,
        unit,
    )


def _line(line: Line, texts: list[bool]) -> Markup:
    dagger = (
        Markup('<sup title="may change the predicted label">†</sup>') if line.dagger else Markup("")
    )
    cells = Markup("").join(
        _cell(cell, text=text) for cell, text in zip(line.cells, texts, strict=True)
    )
    return Markup('<tr{}><th scope="row" data-value="{}">{}{}</th>{}</tr>').format(
        Markup(' class="own"') if line.own else Markup(""),
        line.label,
        # Long names may break after an underscore.
        escape(line.label).replace("_", Markup("_<wbr>")),
        dagger,
        cells,
    )


def _cell(cell: Cell, *, text: bool) -> Markup:
    lacking = isinstance(cell.value, float) and math.isnan(cell.value)
    # More digits than anyone sorts by would be half of the page.
    value = "" if lacking else f"{cell.value:.7g}" if isinstance(cell.value, float) else cell.value
    if text:
        return Markup('<td class="name" data-value="{}">{}</td>').format(value, cell.text)
    if lacking and cell.text == UNDEFINED:
        return Markup(
            '<td class="number undefined" data-value=""><span aria-hidden="true">–</span>'
            '<span class="unseen">undefined</span></td>'
        )
    classes = " ".join(filter(None, ("number", cell.mark, "undefined" if lacking else "")))
    aside = Markup(' <span class="unit">{}</span>').format(cell.aside) if cell.aside else ""
    word = (
        Markup('<span class="unseen"> ({})</span>').format(_MARK_WORDS[cell.mark])
        if cell.mark
        else ""
    )
    shown = Markup("<span>{}</span>").format(cell.text) if cell.mark == "second" else cell.text
    return Markup('<td class="{}" data-value="{}">{}{}{}</td>').format(
        classes, value, shown, aside, word
    )
