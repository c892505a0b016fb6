"""A study as the text of one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import trustvlm
from trustvlm.benchmark import html
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import convention_words
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.findings import cautions
from trustvlm.benchmark.readable import readable
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.table import Table
from trustvlm.report.facts import BIBTEX, CITATION, PAPER_URL
from trustvlm.report.wording import counted, shortened

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Chapter", "render"]


@dataclass(frozen=True)
class Chapter:
    """One setting on the page; `prefix` keeps its names apart from those of the others."""

    label: str
    prefix: str
    analysis: Analysis
    sections: list[Section]
    findings: list[str]


def render(
    results: Results,
    chapters: Sequence[Chapter],
    title: str,
    notes: Sequence[str],
    general: Sequence[Drawing],
    failures: Table | None,
) -> str:
    """Return the page: no other host, and no script but its own, which sorts the tables.

    Parameters
    ----------
    results
        Of all settings.
    chapters
        At least one; the first is shown open.
    title, notes
        Heading, and what readers must know before all else.
    general
        Figures about more than one setting.
    failures
        Cells that failed; None if none did.
    """
    script = _report_file("report.js")
    style = _report_file("report.css") + _own_file("benchmark.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page: str = _template().render(
        title=title,
        version=trustvlm.__version__,
        style=style,
        script=script,
        script_hash=digest,
        results=results,
        images=sum(map(results.images, results.datasets)),
        notes=list(notes),
        cautions=cautions(results),
        chapters=chapters,
        general=general,
        failures=failures,
        facts=_facts(chapters[0].analysis),
        table_html=html.render,
        citation=CITATION,
        bibtex=BIBTEX,
        paper_url=PAPER_URL,
    )
    return readable(page)


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    results = analysis.results
    return [
        ("data sets", ", ".join(results.datasets)),
        ("scores", ", ".join(results.scores)),
        ("shots per class", ", ".join(map(str, results.shots))),
        ("draws of the shots", str(len(results.draws))),
        ("metrics", convention_words(analysis)),
        (
            "paired tests",
            f"bootstrap over images, {analysis.n_resamples:,} resamples, seed {analysis.seed}, "
            f"{100 * analysis.level:g} %",
        ),
        ("software", f"trustvlm {trustvlm.__version__}"),
    ]


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("trustvlm.benchmark"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(shortened=shortened, markup=Markup)
    environment.globals.update(counted=counted)
    return environment.get_template("benchmark.html.j2")


def _report_file(name: str) -> str:
    return resources.files("trustvlm.report").joinpath("templates", name).read_text("utf-8")


def _own_file(name: str) -> str:
    return resources.files("trustvlm.benchmark").joinpath("templates", name).read_text("utf-8")
