"""Figures in one light style: SVG within a page, SVG and PDF files; same input, same bytes."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustvlm.exceptions import InputError
from trustvlm.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.figure import FigureBase

INK, MUTED, GRID, RIGHT, WRONG = "#1a2230", "#566072", "#d9dee6", "#0b7457", "#b3401e"
# Colours of the lines of a figure; besides colour, lines differ by dash and marker.
SERIES = (
    *("#0f5fb8", "#b3401e", "#6b3fa0", "#0b7457"),
    *("#8a6400", "#a3246e", "#0e6f7c", "#4a5568"),
)
DASHES: tuple[Any, ...] = (
    *("-", "--", "-.", (0, (1, 1.2))),
    *((0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1)), (0, (5, 4, 1, 4))),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# Heights in CSS pixels: of a line of a warning above a figure, with what surrounds them all, and of
# a row of the legend below it.
_BANNER_LINE, _BANNER_PAD, _LEGEND_ROW = 18, 12, 21
_BANNER_SIZE = 12.5
# Width of a line with its gaps in a legend, and size of its letters.
_HANDLE, _LEGEND_SIZE = 58, 12.5
_STYLE: dict[Any, Any] = {
    # Identifiers in SVG are random without a salt.
    "svg.hashsalt": "trustvlm",
    # Text stays text: it can be read aloud, searched and copied.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 13,
    "legend.fontsize": _LEGEND_SIZE,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    # In inches: room around what is drawn, as pages show figures on cards.
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
# Identifiers and what refers to them, within tags alone: text may hold anything. A page needs no
# prefix before `href`.
_IDENTIFIER = re.compile(r'(?:xlink:)?( id="|href="#|url\(#)(?=[^<>]*>)')


@dataclass(frozen=True)
class Figure:
    """A figure before it has a format.

    Attributes
    ----------
    name
        For file names, and for identifiers within a page.
    title, caption
        A heading, and what readers need to read the figure, in at most forty words. Both are read
        aloud instead of the figure.
    width, height
        In CSS pixels, without the legend and the banner.
    draw
        Puts the contents into an empty Matplotlib figure; returns the handles of the legend.
    labels
        The entries of the legend below the figure, in the order of the handles; none by default.
    banner
        A warning above the figure, within it: figures are copied without their captions.
    notes
        What else is to be said, in the text around the figure: what it rests on, conventions.
    """

    name: str
    title: str
    caption: str
    width: float
    height: float
    draw: Callable[[FigureBase], Sequence[Artist] | None]
    labels: tuple[str, ...] = ()
    banner: str = ""
    notes: str = ""

    def svg(self) -> str:
        """Return an `<svg>` element for a page, also the content of an SVG file."""
        return self._svg

    def keep(self, svg: str) -> None:
        """Take over what `svg` returned for the same figure in another process."""
        self.__dict__["_svg"] = svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure as `.svg` or `.pdf`, whole or not at all.

        Raises
        ------
        InputError
            For a file of another kind.
        """
        suffix = Path(path).suffix
        if suffix == ".svg":
            write_text(path, f"{self.svg()}\n")
        elif suffix == ".pdf":
            nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
            write_bytes(path, self._written("pdf", {**nothing, "Title": self.title}))
        else:
            raise InputError(f"Expected a figure to be .svg or .pdf, but got {os.fspath(path)!r}.")

    def matplotlib(self) -> MatplotlibFigure:
        """Draw the figure with Matplotlib, in the colours and sizes of this package."""
        with _style():
            return self._drawn()

    @cached_property
    def _svg(self) -> str:
        written = self._written("svg", dict.fromkeys(("Creator", "Date", "Format", "Type")))
        # Matplotlib's head is for files of its own: a page takes no second declaration, and the
        # rule for line joins would be one for the whole page.
        body = written.decode().partition("</defs>")[2].strip()
        # Several figures share a page: Matplotlib counts from one in each.
        body = _IDENTIFIER.sub(rf"\g<1>{self.name}-", body)
        width, height = self._size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
            f'aria-labelledby="{self.name}-title {self.name}-description" stroke-linejoin="round">'
            f'<title id="{self.name}-title">{escape(self.title, quote=False)}</title>'
            f'<desc id="{self.name}-description">{escape(self.caption, quote=False)}</desc>'
            f"{body}"
        )

    @property
    def _size(self) -> tuple[float, float]:
        return self.width, self.height + self._banner_height + self._legend_height

    @cached_property
    def _banner_lines(self) -> list[str]:
        return wrap(self.banner, self.width - 16, _BANNER_SIZE, weight="bold")

    @property
    def _banner_height(self) -> float:
        return _BANNER_LINE * len(self._banner_lines) + _BANNER_PAD if self.banner else 0

    @property
    def _columns(self) -> int:
        widest = max((text_width(label, _LEGEND_SIZE) for label in self.labels), default=1)
        entry = _HANDLE + widest
        return max(1, min(int(self.width / entry), len(self.labels)))

    @property
    def _legend_height(self) -> float:
        return _LEGEND_ROW * -(-len(self.labels) // self._columns) + 6 if self.labels else 0

    def _written(self, kind: str, metadata: dict[str, Any]) -> bytes:
        stream = io.BytesIO()
        with _style(), warnings.catch_warnings():
            # Matplotlib's font lacks some alphabets: pages have other fonts, PDF shows boxes.
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
            self._drawn().savefig(stream, format=kind, metadata=metadata)
        return stream.getvalue()

    def _drawn(self) -> MatplotlibFigure:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as MatplotlibFigure

        width, height = self._size
        # Matplotlib draws SVG at 72 dots per inch.
        whole = MatplotlibFigure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(whole)
        below = self._legend_height
        if not below:
            self._draw_body(whole)
            return whole
        parts: Any = whole.subfigures(2, 1, height_ratios=(height - below, below))
        upper, lower = parts
        legend = lower.legend(
            self._draw_body(upper),
            [str(rank) for rank in range(len(self.labels))],
            loc="upper center",
            ncols=self._columns,
            frameon=False,
            borderaxespad=0,
            handlelength=2.6,
            columnspacing=1.4,
        )
        # Set afterwards: Matplotlib leaves labels out that begin with an underscore.
        for text, label in zip(legend.get_texts(), self.labels, strict=True):
            text.set_text(label)
        return whole

    def _draw_body(self, body: FigureBase) -> Sequence[Artist]:
        if self.banner:
            # On the left, which small screens show first.
            body.suptitle(
                "\n".join(self._banner_lines),
                x=0.01,
                ha="left",
                color=WRONG,
                fontsize=_BANNER_SIZE,
                fontweight="bold",
            )
        return self.draw(body) or ()


@contextmanager
def _style() -> Iterator[None]:
    """Let Matplotlib draw in this package's style, which no user file changes."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in the figures' font, in the unit of its size.

    Examples
    --------
    >>> 20 < text_width("msp", 12) < 30
    True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    with warnings.catch_warnings():
        # As where figures are drawn.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def wrap(text: str, room: float, size: float, *, weight: str = "normal") -> list[str]:
    """Break a text after spaces, underscores and slashes into lines that fit the room.

    A piece that is wider by itself is cut, with an ellipsis.

    Examples
    --------
    >>> wrap("office_caltech10 test", 110, 12)
    ['office_caltech10', 'test']
    """
    lines = [""]
    for piece in filter(None, re.findall(r"[^\s_/]*[\s_/]*", " ".join(text.split()))):
        if lines[-1] and text_width((lines[-1] + piece).rstrip(), size, weight) > room:
            lines.append("")
        lines[-1] += piece
    return [_cut(line.rstrip(), room, size, weight) for line in lines]


def _cut(line: str, room: float, size: float, weight: str) -> str:
    if text_width(line, size, weight) <= room:
        return line
    while line and text_width(f"{line}…", size, weight) > room:
        line = line[:-1]
    return f"{line}…"


def ink_on(red: float, green: float, blue: float) -> str:
    """Return black or white, whichever is easier to read on a colour given in [0, 1].

    The contrast is that of WCAG 2.1, with relative luminance.

    Examples
    --------
    >>> ink_on(1.0, 1.0, 0.4), ink_on(0.0, 0.1, 0.3)
    ('#000000', '#ffffff')
    """
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (red, green, blue)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"
