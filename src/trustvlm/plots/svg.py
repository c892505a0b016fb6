"""A figure that can become SVG inline in a page, an SVG file, or a PDF; same input, same bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Matplotlib drawings as small, deterministic SVG elements without colours of their own.

# Stand-ins that Matplotlib draws with; `element` replaces them by what the page decides.
INK, MUTED, GRID, RIGHT, WRONG = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES = tuple(f"#0102{rank:02x}" for rank in range(1, 9))
_FALLBACKS = (
    *("#0f5fb8", "#b3401e", "#6b3fa0", "#0b7457"),
    *("#8a6400", "#a3246e", "#0e6f7c", "#4a5568"),
)
_THEMED = {
    INK: "currentColor",
    MUTED: "var(--muted, #566072)",
    GRID: "var(--line, #d9dee6)",
    RIGHT: "var(--right, #0b7457)",
    WRONG: "var(--wrong, #b3401e)",
    **{
        stand_in: f"var(--series-{rank}, {fallback})"
        for rank, (stand_in, fallback) in enumerate(zip(SERIES, _FALLBACKS, strict=True), 1)
    },
}
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "trustvlm",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": True,
    "font.size": 13,
    "legend.fontsize": 12.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_NAMESPACE = re.compile(r"^\{[^}]*\}")
_REFERENCE = re.compile(r"(?:^|(?<=[\"(]))#([\w.-]+)")
_SIZE = re.compile(r"([\d.]+)px")


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of a size in CSS pixels, under settings that no user file changes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        # Matplotlib draws SVG at 72 dots per inch.
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        yield figure


def element(figure: Figure, *, name: str, title: str, description: str) -> str:
    """Return a figure of `canvas` as an `<svg>` element.

    Identifiers are `name` and a number, fonts are left to the page, colours become `currentColor`
    and CSS variables (`--muted`, `--line`, `--right`, `--wrong`, `--series-1` and so on).
    """
    stream = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    # Parsing is safe here: the text was made one line above.
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("metadata", "style"))]:
            parent.remove(child)
    referenced = dict.fromkeys(_REFERENCE.findall(stream.getvalue().decode()))
    # Matplotlib names some clip paths by where they lie in memory.
    identifiers = {found: f"{name}-{number}" for number, found in enumerate(referenced)}
    for node in root.iter():
        _clean(node, identifiers)
    width, height = root.get("viewBox", "0 0 0 0").split()[2:]
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
        "font-family": "system-ui, sans-serif",
        "stroke-linejoin": "round",
    }
    words = (("title", "title", title), ("desc", "description", description))
    for position, (tag, suffix, content) in enumerate(words):
        label = ElementTree.Element(tag, {"id": f"{name}-{suffix}"})
        label.text = content
        root.insert(position, label)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(node: ElementTree.Element, identifiers: Mapping[str, str]) -> None:
    """Drop namespaces, fonts and unused identifiers; put the page's colours in."""
    node.tag = _NAMESPACE.sub("", node.tag)
    attributes = {}
    for key, value in node.attrib.items():
        key = _NAMESPACE.sub("", key)
        if key == "id" and value not in identifiers:
            continue
        if key == "id":
            value = identifiers[value]
        elif key == "style":
            value = _themed(_without_family(value))
        else:
            value = _REFERENCE.sub(lambda found: f"#{identifiers[found[1]]}", value)
        attributes[key] = value
    node.attrib = attributes


def _themed(style: str) -> str:
    for stand_in, themed in _THEMED.items():
        style = style.replace(stand_in, themed)
    return style


def _without_family(style: str) -> str:
    """Reduce the shorthand `font: 12px 'DejaVu Sans'` and `font-family` to a size.

    >>> _without_family("font: 12px 'DejaVu Sans', sans-serif; text-anchor: middle")
    'font-size: 12px; text-anchor: middle'
    """
    kept = []
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        size = _SIZE.search(value)
        if key == "font" and size:
            kept.append(f"font-size: {size[0]}")
        elif key != "font-family":
            kept.append(f"{key}: {value}")
    return "; ".join(kept)


# The colours of figures: stand-ins for a page, or those of the report's style sheet.

_DECLARATION = re.compile(r"--([\w-]+):\s*(#[0-9a-f]{6})")


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]

    @classmethod
    def of(cls, colours: dict[str, str]) -> Palette:
        """Take the colours of a style sheet."""
        series = tuple(colours[f"series-{rank}"] for rank in range(1, len(SERIES) + 1))
        return cls(colours["text"], colours["muted"], colours["line"], series)


PAGE = Palette(INK, MUTED, GRID, SERIES)


@cache
def style_sheet_colours() -> tuple[dict[str, str], dict[str, str]]:
    """Return the light and the dark colours of the report's style sheet, by name.

    Examples
    --------
    >>> light, dark = style_sheet_colours()
    >>> set(light) == set(dark), light["text"] != dark["text"]
    (True, True)
    """
    sheet = (
        resources.files("trustvlm.report").joinpath("templates", "report.css").read_text("utf-8")
    )
    light, dark = sheet.split("prefers-color-scheme: dark", 1)
    return dict(_DECLARATION.findall(light)), dict(_DECLARATION.findall(dark.split("}", 1)[0]))


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


# A figure that can become SVG inline in a page, an SVG file, or a PDF; same input, same bytes.

# Of a warning above a figure, in CSS pixels.
BANNER_HEIGHT = 30

# Besides colour, lines differ by dash and marker.
DASHES: tuple[Any, ...] = (
    *("-", "--", "-.", (0, (1, 1.2))),
    *((0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1)), (0, (5, 4, 1, 4))),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_THEMED_DRAWING = re.compile(r"([\w-]+): (currentColor|var\(--([\w-]+), #[0-9a-f]{6}\))(?:; )?")
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
            drawn = element(figure, name=self.name, title=self.title, description=self.caption)
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
            for key, _, variable in _THEMED_DRAWING.findall(found[1]):
                colour = variable or "text"
                used[f"{key}-{colour}"] = f"{{ {key}: {dark[colour]}; }}"
                attributes.append(f'{key}="{light[colour]}"')
                classes.append(f"{key}-{colour}")
            if not classes:
                return found[0]
            rest = _THEMED_DRAWING.sub("", found[1]).rstrip("; ")
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
    with warnings.catch_warnings(), canvas(width, height) as figure:
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
