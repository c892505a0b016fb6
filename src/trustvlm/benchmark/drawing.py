"""A figure that can become SVG inline in a page, an SVG file, or a PDF; same input, same bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trustvlm.benchmark.theme import PAGE, Palette, style_sheet_colours
from trustvlm.report import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BANNER_HEIGHT",
    "DASHES",
    "MARKERS",
    "Drawing",
    "above_legend",
    "legend_height",
    "write_banner",
]

# Of a warning above a figure, in CSS pixels.
BANNER_HEIGHT = 30

# Besides colour, lines differ by dash and marker.
DASHES: tuple[Any, ...] = (
    *("-", "--", "-.", (0, (1, 1.2))),
    *((0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1)), (0, (5, 4, 1, 4))),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_THEMED = re.compile(r"([\w-]+): (currentColor|var\(--([\w-]+), #[0-9a-f]{6}\))(?:; )?")
_PLACES = re.compile(r' (?:(?:d|x|y)="[^"]*"|transform="rotate[^"]*")')
_NO_TURN = re.compile(r' transform="rotate\(-?0 [^"]*"')
_MANY_DIGITS = re.compile(r"(\.\d\d)\d+")
_SPACES = re.compile(r"\s*([A-Za-z])\s*|\s+")
_BARE_GROUP = re.compile(r"<g>((?:(?!</?g[ >]).)*)</g>", re.DOTALL)
_BETWEEN_TAGS = re.compile(r">\s+<")
_STYLED = re.compile(r'style="([^"]*)"')
# Widths in a legend, in CSS pixels: a line with its gaps, and a letter.
_HANDLE, _LETTER = 58, 8


@dataclass(frozen=True)
class Drawing:
    """A figure before it has a format.

    Attributes
    ----------
    name
        For file names, and for identifiers within a page.
    title, caption
        A heading, and sentences that say what is drawn, in which units, by which convention.
    width, height
        In CSS pixels.
    draw
        Puts the figure's contents into an empty Matplotlib figure, in the colours of a palette.
    """

    name: str
    title: str
    caption: str
    width: float
    height: float
    draw: Callable[[Figure, Palette], None]

    def svg(self) -> str:
        """Return an `<svg>` element for a page, in the page's colours; text stays text."""
        return self._element

    def keep(self, element: str) -> None:
        """Take over what `svg` returned for the same drawing in another process."""
        self.__dict__["_element"] = element

    @cached_property
    def _element(self) -> str:
        with _canvas(self.width, self.height) as figure:
            self.draw(figure, PAGE)
            drawn = svg.element(figure, name=self.name, title=self.title, description=self.caption)
        return _compact(drawn)

    def svg_file(self) -> str:
        """Return an SVG document with colours of its own: light, or dark where that is preferred.

        Colours are plain attributes that a media query overrides, so that programs which know no
        style sheets show the light ones.
        """
        light, dark = style_sheet_colours()
        used: dict[str, str] = {}

        def plain(found: re.Match[str]) -> str:
            attributes, classes = [], []
            for key, _, variable in _THEMED.findall(found[1]):
                colour = variable or "text"
                used[f"{key}-{colour}"] = f"{{ {key}: {dark[colour]}; }}"
                attributes.append(f'{key}="{light[colour]}"')
                classes.append(f"{key}-{colour}")
            if not classes:
                return found[0]
            rest = _THEMED.sub("", found[1]).rstrip("; ")
            style = [f'style="{rest}"'] if rest else []
            return " ".join([f'class="{" ".join(classes)}"', *attributes, *style])

        drawn = _STYLED.sub(plain, self._element)
        rules = " ".join(f".{name} {rule}" for name, rule in sorted(used.items()))
        style = (
            "<style>:root { color-scheme: light dark; } "
            f"@media (prefers-color-scheme: dark) {{ {rules} }}</style>"
        )
        head, end, body = drawn.partition(">")
        return f"{head}{end}{style}{body}\n"

    def pdf(self) -> bytes:
        """Return a PDF page of the figure's size, in the light colours, with fonts embedded."""
        import matplotlib as mpl

        palette = Palette.of(style_sheet_colours()[0])
        stream = io.BytesIO()
        with _canvas(self.width, self.height) as figure:
            mpl.rcParams.update(_print_settings(palette))
            self.draw(figure, palette)
            nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
            figure.savefig(stream, format="pdf", metadata={**nothing, "Title": self.title})
        return stream.getvalue()


def above_legend(figure: Figure, labels: Sequence[str]) -> tuple[Any, Callable[[Any], None]]:
    """Part a figure into room for panels and room for a legend below them.

    Returns the upper part, and what puts the handles of the labels into the lower one.
    """
    width, height = (72 * size for size in figure.get_size_inches())
    below = legend_height(width, labels)
    parts: Any = figure.subfigures(2, 1, height_ratios=(height - below, below))
    upper, lower = parts

    def fill(handles: Any) -> None:
        legend = lower.legend(
            handles,
            [str(place) for place in range(len(labels))],
            loc="upper center",
            ncols=_columns(width, labels),
            frameon=False,
            borderaxespad=0,
            handlelength=2.6,
            columnspacing=1.4,
        )
        # Set afterwards: Matplotlib leaves labels out that begin with an underscore.
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(label)

    return upper, fill


def legend_height(width: float, labels: Sequence[str]) -> float:
    """Return the height in CSS pixels that a legend with these labels takes."""
    return 21 * -(-len(labels) // _columns(width, labels)) + 6


def write_banner(figure: Any, palette: Palette, text: str) -> None:
    """Write a warning above a figure, within it: figures are copied without their captions."""
    if text:
        # On the left, which small screens show first.
        figure.suptitle(
            text, x=0.01, ha="left", color=palette.series[1], fontsize=12.5, fontweight="bold"
        )


@contextmanager
def _canvas(width: float, height: float) -> Iterator[Figure]:
    with warnings.catch_warnings(), svg.canvas(width, height) as figure:
        # Matplotlib's font lacks some alphabets: pages have other fonts, PDF shows boxes.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.set_layout_engine("constrained")
        yield figure


def _compact(drawn: str) -> str:
    """Leave out of an SVG what nobody sees: it is half of what Matplotlib writes.

    Examples
    --------
    >>> _compact('<svg> <g> <g><path d="M 1.23456 2  L 0 3  " /></g> </g> </svg>')
    '<svg><path d="M1.23 2L0 3" /></svg>'
    """
    # Millionths of a pixel, and turns by no angle.
    drawn = _NO_TURN.sub("", drawn)
    drawn = _PLACES.sub(lambda places: _MANY_DIGITS.sub(r"\1", places[0]), drawn)
    drawn = re.sub(
        r' d="([^"]*)"', lambda d: f' d="{_SPACES.sub(_without_spaces, d[1].strip())}"', drawn
    )
    drawn = _BETWEEN_TAGS.sub("><", drawn)
    # Groups that say nothing, from the inside out.
    replaced = 1
    while replaced:
        drawn, replaced = _BARE_GROUP.subn(r"\1", drawn)
    return drawn


def _without_spaces(found: re.Match[str]) -> str:
    return found[1] or " "


def _columns(width: float, labels: Sequence[str]) -> int:
    entry = _HANDLE + _LETTER * max(map(len, labels), default=1)
    return max(1, min(int(width / entry), len(labels)))


def _print_settings(palette: Palette) -> dict[Any, Any]:
    return {
        "pdf.fonttype": 42,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.muted,
        "grid.color": palette.grid,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
    }
