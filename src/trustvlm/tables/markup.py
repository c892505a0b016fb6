"""Tables as Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from markupsafe import Markup, escape

from trustvlm.tables.table import UNDEFINED, Cell, Head, Line, Table

# Tables as Markdown, in the pipe syntax of GitHub and Pandoc.

_SPECIAL_IN_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")


def escape_markdown(text: str) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    Examples
    --------
    >>> print(escape("a_b | *c*"))
    a\_b \| \*c\*
    """
    return _SPECIAL_IN_MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def render_markdown(table: Table) -> str:
    r"""Return a table with its title and caption; best in bold, second best in italics.

    Examples
    --------
    >>> from trustvlm.tables.table import Head
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
        f"{escape_markdown(head.title)} ({escape_markdown(head.unit)})"
        if head.unit
        else escape_markdown(head.title)
        for head in table.heads
    ]
    rules = [":--" if not place or head.text else "--:" for place, head in enumerate(table.heads)]
    body = [
        _markdown_row([_markdown_label(line), *map(_markdown_cell, line.cells)])
        for line in table.lines
    ]
    caption = escape_markdown(table.caption_with("Bold", "italics"))
    head = [
        f"### {escape_markdown(table.title)}",
        "",
        caption,
        "",
        _markdown_row(heads),
        f"|{'|'.join(rules)}|",
    ]
    return "\n".join([*head, *body, ""])


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_label(line: Line) -> str:
    return escape_markdown(line.label) + (" †" if line.dagger else "")


def _markdown_cell(cell: Cell) -> str:
    around = {"best": "**", "second": "*"}.get(cell.mark, "")
    return " ".join(
        filter(None, (f"{around}{escape_markdown(cell.text)}{around}", escape_markdown(cell.aside)))
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
    >>> print(escape("50 % of a_b, 1 ± 2"))
    50 \% of a\_b, 1 $\pm$ 2
    """
    # Only plain white space: a no-break space has a meaning in LaTeX too.
    flat = re.sub(r"[ \t\r\n\f\v]+", " ", text).strip()
    flat = "".join(c for c in flat if c.isprintable() or c == "\N{NO-BREAK SPACE}")
    return _SPECIAL_IN_LATEX.sub(lambda found: _COMMANDS[found[0]], flat)


def render_latex(table: Table) -> str:
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
    environment = _long if len(table.lines) > _LONG_IN_LATEX else _float
    package = "longtable" if len(table.lines) > _LONG_IN_LATEX else "graphicx"
    text = [rf"% Needs \usepackage{{booktabs}} and \usepackage{{{package}}}."]
    for part in _parts(table):
        body = []
        for place, line in enumerate(part.lines):
            if place in part.breaks:
                body.append(r"\midrule")
            body.append(_latex_row([_latex_label(line), *map(_latex_cell, line.cells)]))
        text += environment(part, _latex_row([_latex_head(head) for head in part.heads]), body)
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
    return rf"\caption{{{escape_latex(table.caption_with(*_MARKS))}}}\label{{tab:{table.name}}}"


def _latex_row(cells: list[str]) -> str:
    row = " & ".join(cells)
    # After a line break LaTeX takes a star or a bracket for an argument of it.
    return rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\"


def _latex_head(head: Head) -> str:
    return escape_latex(f"{head.title} ({head.unit})" if head.unit else head.title)


def _latex_label(line: Line) -> str:
    return escape_latex(line.label) + (r"\textsuperscript{\textdagger}" if line.dagger else "")


def _latex_cell(cell: Cell) -> str:
    command = {"best": r"\textbf", "second": r"\underline"}.get(cell.mark)
    text = escape_latex(cell.text)
    shown = f"{command}{{{text}}}" if command else text
    return f"{shown} {{\\scriptsize {escape_latex(cell.aside)}}}" if cell.aside else shown


# Tables as HTML, for the page: sortable, with the classes of the report's style sheet.

# Lines above which a table scrolls within itself.
_LONG = 40
_MARK_WORDS = {"best": "best", "second": "second best"}


def render_html(table: Table) -> Markup:
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
        _html_head(head, text=head.text or not place) for place, head in enumerate(table.heads)
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


def _html_head(head: Head, *, text: bool) -> Markup:
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
        _html_cell(cell, text=text) for cell, text in zip(line.cells, texts, strict=True)
    )
    return Markup('<tr{}><th scope="row" data-value="{}">{}{}</th>{}</tr>').format(
        Markup(' class="own"') if line.own else Markup(""),
        line.label,
        # Long names may break after an underscore.
        escape(line.label).replace("_", Markup("_<wbr>")),
        dagger,
        cells,
    )


def _html_cell(cell: Cell, *, text: bool) -> Markup:
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
