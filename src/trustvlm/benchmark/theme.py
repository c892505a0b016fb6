"""The colours of figures: stand-ins for a page, or those of the report's style sheet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from trustvlm.report import svg

__all__ = ["PAGE", "Palette", "ink_on", "style_sheet_colours"]

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
        series = tuple(colours[f"series-{rank}"] for rank in range(1, len(svg.SERIES) + 1))
        return cls(colours["text"], colours["muted"], colours["line"], series)


PAGE = Palette(svg.INK, svg.MUTED, svg.GRID, svg.SERIES)


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
