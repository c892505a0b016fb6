"""Matplotlib drawings as small, deterministic SVG elements without colours of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["INK", "MUTED", "RIGHT", "SERIES", "WRONG", "canvas", "element"]

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
