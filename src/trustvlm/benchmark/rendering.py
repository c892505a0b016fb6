"""A study as the text of one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import trustvlm
from trustvlm.benchmark import html
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.readable import readable
from trustvlm.benchmark.table import Table
from trustvlm.report.facts import BIBTEX, CITATION, PAPER_URL
from trustvlm.report.rendering import environment_of

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Chapter", "Content", "render"]


_FIGURE = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_STYLE = re.compile(r'style="([^"]*)"')
_IDENTIFIER = re.compile(r' id="([^"]*)"')
# Where identifiers stand; names of data sets, which are text, are left alone.
_REFERENCE = re.compile(r'(?: id| aria-labelledby)="[^"]*"|"#[^"]*"|url\(#[^)]*\)')
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Chapter:
    """One setting on the page; `prefix` keeps its names apart from those of the others."""

    label: str
    prefix: str
    sections: Sequence[Section]
    findings: Sequence[str] = ()


@dataclass(frozen=True)
class Content:
    """Everything that a page says.

    Attributes
    ----------
    title
        Its heading.
    tiles
        What it is about, in numbers: values and what they count.
    notes, cautions
        What readers must know before all else; notes are set in bold.
    chapters
        At least one; the first is shown open.
    general
        Sections about more than one setting.
    failures
        Cells that failed; None if none did.
    facts
        How it was made, by what.
    rows_file, rows_words
        A file beside the page with its numbers, and what it holds; empty if there is none.
    with_files
        Whether tables and figures are beside the page as files too.
    """

    title: str
    tiles: Sequence[tuple[str, str]]
    chapters: Sequence[Chapter]
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
    cautions: Sequence[str] = ()
    general: Sequence[Section] = ()
    failures: Table | None = None
    rows_file: str = ""
    rows_words: str = ""
    with_files: bool = True


def render(content: Content) -> str:
    """Return the page: no other host, and no script but its own, which sorts the tables."""
    script = _report_file("report.js")
    style = _report_file("report.css") + _own_file("benchmark.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page: str = _template().render(
        **{field.name: getattr(content, field.name) for field in fields(content)},
        version=trustvlm.__version__,
        style=style,
        script=script,
        script_hash=digest,
        table_html=html.render,
        citation=CITATION,
        bibtex=BIBTEX,
        paper_url=PAPER_URL,
    )
    return readable(_compact(page))


def _compact(page: str) -> str:
    """Name styles and identifiers of the figures briefly: they repeat few, thousands of times.

    Examples
    --------
    >>> _compact('<style>a {}</style><p style="x: y"><svg><g id="long" style="fill: red"/></svg>')
    '<style>a {}.f0{fill: red}</style><p style="x: y"><svg><g id="g0" class="f0"/></svg>'
    """
    styles: dict[str, str] = {}
    identifiers: dict[str, str] = {}

    def style(found: re.Match[str]) -> str:
        return f'class="{styles.setdefault(found[1], f"f{len(styles)}")}"'

    def brief(found: re.Match[str]) -> str:
        return identifiers.get(found[0], found[0])

    def figure(found: re.Match[str]) -> str:
        for name in _IDENTIFIER.findall(found[0]):
            identifiers[name] = f"g{len(identifiers)}"
        named = _REFERENCE.sub(lambda part: _NAME.sub(brief, part[0]), found[0])
        return _STYLE.sub(style, named)

    page = _FIGURE.sub(figure, page)
    rules = "".join(f".{name}{{{found}}}" for found, name in styles.items())
    return page.replace("</style>", f"{rules}</style>", 1)


@cache
def _template() -> Template:
    from markupsafe import Markup

    environment = environment_of("trustvlm.benchmark")
    environment.filters.update(markup=Markup)
    return environment.get_template("benchmark.html.j2")


def _report_file(name: str) -> str:
    return resources.files("trustvlm.report").joinpath("templates", name).read_text("utf-8")


def _own_file(name: str) -> str:
    return resources.files("trustvlm.benchmark").joinpath("templates", name).read_text("utf-8")
