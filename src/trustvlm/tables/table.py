"""A table before it is Markdown, LaTeX or HTML: plain text, numbers, and which of them lead."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

UNDEFINED = "–"
# Before the label of the reference, so that it can be told from what a test marks.
OWN = "▸"

# What a cell leads by, where a test says so.
Mark: TypeAlias = Literal["", "best", "second"]


@dataclass(frozen=True)
class Spread:
    """A metric over several draws.

    Attributes
    ----------
    mean
        Over the draws in which it is defined; NaN if there are none.
    sd
        Standard deviation of the sample (n - 1 in the denominator); NaN below two draws.
    n
        Draws in which it is defined.
    n_undefined
        Draws in which it is not.
    """

    mean: float
    sd: float
    n: int
    n_undefined: int = 0


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes
    ----------
    text
        What it says, without markup.
    aside
        Smaller print after it, such as "± 0.31".
    mark
        Whether it is significantly best or second best of its column.
    value
        What it is sorted by; NaN for entries without a value.
    """

    text: str
    aside: str = ""
    mark: Mark = ""
    value: float | str = math.nan


@dataclass(frozen=True)
class Head:
    """A column's title; `falling` if the larger values come first when it is sorted."""

    title: str
    unit: str = ""
    falling: bool = False
    text: bool = False


@dataclass(frozen=True)
class Line:
    """A row: its label, whether it is the reference, and the signs after its label."""

    label: str
    cells: tuple[Cell, ...]
    own: bool = False
    signs: str = ""


@dataclass(frozen=True)
class Marking:
    """What the two marks mean; ends of a sentence that names the test they are given by."""

    best: str
    second: str


@dataclass(frozen=True)
class Table:
    """A table with everything that is to be said of it.

    Attributes
    ----------
    name
        For file names and labels.
    title, caption
        A heading, and what readers need to read the numbers: at most forty words together with the
        marks and the legend. Plain text.
    heads
        Of the first column, which holds the lines' labels, and of the others.
    lines
        Rows, each with one cell less than there are heads.
    marking
        Meaning of the marks; None in tables without.
    breaks
        Numbers of the lines before which printed tables have a rule.
    legend
        What the signs of the labels mean; the end of the caption.
    notes
        What else is to be said, in the text around the table: conventions, tests, what is left out.
    """

    name: str
    title: str
    caption: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    marking: Marking | None = None
    breaks: tuple[int, ...] = ()
    legend: str = ""
    notes: str = ""

    def caption_with(self, best: str, second: str) -> str:
        """Return the caption, the marks called by how a format shows them.

        Examples
        --------
        >>> marking = Marking("the best", "the second best, by lot")
        >>> Table("t", "T", "About it.", (), (), marking).caption_with("Bold", "italic")
        'About it. Bold: the best; italic: the second best, by lot.'
        """
        marks = ""
        if self.marking is not None:
            marks = f"{best}: {self.marking.best}; {second}: {self.marking.second}."
        return " ".join(filter(None, (self.caption, marks, self.legend)))


def spread_cell(spread: Spread, scale: float, mark: Mark = "", *, failed: bool = False) -> Cell:
    """Write a mean, and the spread over draws where there is one.

    Examples
    --------
    >>> spread_cell(Spread(0.1234, 0.011, 5), 100)
    Cell(text='12.34', aside='± 1.10', mark='', value=12.34)
    >>> spread_cell(Spread(math.nan, math.nan, 0, 5), 100).text
    '–'
    """
    if math.isnan(spread.mean):
        return Cell("failed" if failed else UNDEFINED)
    notes = [f"± {scale * spread.sd:.2f}"] if spread.sd > 0 else []
    if spread.n_undefined:
        notes.append(f"({spread.n}/{spread.n + spread.n_undefined})")
    value = scale * spread.mean
    return Cell(f"{value:.2f}", " ".join(notes), mark, value)


def rank_cell(rank: float) -> Cell:
    """Write an average rank.

    Examples
    --------
    >>> rank_cell(2.5).text, rank_cell(math.nan).text
    ('2.50', '–')
    """
    return Cell(UNDEFINED) if math.isnan(rank) else Cell(f"{rank:.2f}", value=rank)


def signed(value: float, digits: int = 2, *, star: bool = False) -> str:
    """Write a difference with its sign, which a rounded zero has not, and a star if asked for.

    Examples
    --------
    >>> signed(1.234), signed(-0.5, star=True), signed(-0.001)
    ('+1.23', '−0.50*', '0.00')
    """
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"
    return f"{sign}{text}{'*' if star else ''}"


def slug(text: str) -> str:
    """Make a name of small letters, digits and dashes, for files and labels.

    Examples
    --------
    >>> slug("CLIP ViT-B/16 + dinov2"), slug("花")
    ('clip-vit-b-16-dinov2', 'x')
    """
    kept = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower())
    return "-".join(kept.split()) or "x"
