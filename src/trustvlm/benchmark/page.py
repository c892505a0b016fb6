"""A study as one page to browse, with its tables and figures as files beside it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import trustvlm
from trustvlm.benchmark import html
from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.captions import convention_words
from trustvlm.benchmark.chapter import Section, main_metric, sections
from trustvlm.benchmark.detail_tables import failure_table
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.findings import cautions, findings
from trustvlm.benchmark.matrix_figures import encoder_figure
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.outputs import write_drawing, write_statistics, write_table
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.table import slug
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.report.facts import BIBTEX, CITATION, PAPER_URL
from trustvlm.report.wording import counted, shortened

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["write_page"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Chapter:
    """One setting on the page; `prefix` keeps its names apart from those of the others."""

    label: str
    prefix: str
    analysis: Analysis
    sections: list[Section]
    findings: list[str]


def write_page(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    title: str = "Benchmark of confidence scores",
    notes: Sequence[str] = (),
    studies: Sequence[Drawing] = (),
    metrics: Sequence[str] = tuple(METRIC_COLUMNS),
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress | None = None,
) -> Path:
    """Write `index.html`, `tables/*.md` and `*.tex`, `figures/*.svg` and `*.pdf`.

    The page loads nothing from anywhere. The same results give the same bytes. Besides, there is
    `statistics.json` with every mean, test and rank.

    Parameters
    ----------
    results
        Rows, samples and classes of the study.
    folder
        Where to write; files of the same names are replaced.
    title
        Heading of the page.
    notes
        What readers must know before all else, such as what the models are and are not.
    studies
        Further figures, such as those of `matrix_figures`.
    metrics
        Which metrics, in the order of the tables.
    n_resamples, seed, level
        Of the paired bootstrap; see `analyse`.
    progress
        Called with the analysed data sets and their number, over all settings.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        If there are no rows, or they do not fit together.

    Examples
    --------
    >>> import tempfile
    >>> rows = [
    ...     {"dataset": "pets", "score": score, "shots": 16, "draw": 0, "aurc": aurc, "n": 40}
    ...     for score, aurc in (("msp", 0.2), ("trustvlm", 0.1))
    ... ]
    >>> write_page(Results(rows), tempfile.mkdtemp(), metrics=["aurc"]).name
    'index.html'
    """
    if not results.scores:
        raise InputError("Expected rows of at least one score, but there are none.")
    folder = Path(folder)
    chapters = _chapters(results, metrics, n_resamples, seed, level, progress)
    general = (*_encoders(results, chapters[0]), *studies)
    failures = failure_table(results.failures) if results.failures else None
    for chapter in chapters:
        for section in chapter.sections:
            for table in (*section.tables, *section.folded):
                write_table(table, folder)
            for drawing in section.drawings:
                write_drawing(drawing, folder)
    for drawing in general:
        write_drawing(drawing, folder)
    if failures is not None:
        write_table(failures, folder)
    write_statistics([chapter.analysis for chapter in chapters], folder / "statistics.json")
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
    target = folder / "index.html"
    # File names need not be UTF-8: Python marks such bytes with lone surrogates.
    write_text(target, page.encode("utf-8", "replace").decode("utf-8"))
    return target


def _chapters(
    results: Results,
    metrics: Sequence[str],
    n_resamples: int,
    seed: int,
    level: float,
    progress: Progress | None,
) -> list[_Chapter]:
    parts = [results.of(setting) for setting in results.settings]
    parts = [part for part in parts if part.scores]
    total, before = sum(len(part.datasets) for part in parts), 0
    chapters = []
    for place, part in enumerate(parts):

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        analysis = analyse(
            part, metrics, n_resamples=n_resamples, seed=seed, level=level, progress=report
        )
        before += len(part.datasets)
        label = part.settings[0].label
        # Labels can differ in what a slug drops: the number keeps the names apart.
        prefix = f"{place + 1}-{slug(label)}-" if len(parts) > 1 else ""
        told = findings(analysis, main_metric(analysis))
        chapters.append(_Chapter(label, prefix, analysis, sections(analysis, prefix), told))
    return chapters


def _encoders(results: Results, first: _Chapter) -> list[Drawing]:
    """Return the matrix of models and encoders, if the rows have several of either."""
    pairs = {(setting.vlm, setting.vision) for setting in results.settings}
    metric, reference = main_metric(first.analysis), results.reference
    protocol = results.settings[0].protocol
    rows = [
        row
        for row in results.rows
        if (row["score"], row["shots"]) == (reference, results.largest)
        and str(row.get("protocol") or "") == protocol
        and {"vlm", "vision"} <= row.keys()
    ]
    return [encoder_figure(rows, metric)] if len(pairs) > 1 and rows else []


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
