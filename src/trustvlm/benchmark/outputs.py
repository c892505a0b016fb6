"""Sections of figures and tables: on the page of a study, and as files beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustvlm._version import __version__
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.figures import (
    equal_coverage_figure,
    leading_scores,
    modality_figure,
    modality_labels,
    rank_figure,
    risk_coverage_figure,
    shots_figure,
)
from trustvlm.benchmark.results import readable
from trustvlm.benchmark.run import Workers
from trustvlm.benchmark.score_tables import (
    dataset_table,
    difference_table,
    gain_tables,
    metric_table,
    overview_table,
    rank_table,
    shots_table,
    tally_table,
)
from trustvlm.files import write_text
from trustvlm.plots.figure import Figure
from trustvlm.report.page import environment_of
from trustvlm.report.summary import BIBTEX, CITATION, PAPER_URL
from trustvlm.tables import markup
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import Table

if TYPE_CHECKING:
    from jinja2 import Template


# The part of the page about one setting: sections of figures and tables.


@dataclass(frozen=True)
class Section:
    """Figures and tables under one heading; `folded` tables are shown on demand."""

    name: str
    title: str
    words: str
    drawings: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def main_metric(analysis: Analysis) -> str:
    """Return the metric that the figures show: AURC, or the first if that was not measured."""
    return "aurc" if "aurc" in analysis.metrics else analysis.metrics[0]


def sections(analysis: Analysis, prefix: str = "") -> list[Section]:
    """Return what there is to show of one setting; sections without content are left out.

    The names of figures and tables begin with the prefix, and none is given twice.
    """
    found = [
        _ranks(analysis),
        _metrics(analysis),
        _coverage(analysis),
        _modalities(analysis),
        _shots(analysis),
        _differences(analysis),
        _datasets(analysis),
        _classes(analysis),
    ]
    found = [section for section in found if section.drawings or section.tables or section.folded]
    return named(found, prefix)


def named(found: Sequence[Section], prefix: str) -> list[Section]:
    """Let all names of figures and tables begin with a prefix, and give none twice."""
    used: Counter[str] = Counter()
    return [
        replace(
            section,
            drawings=tuple(replace(d, name=f"{prefix}{d.name}") for d in section.drawings),
            tables=tuple(_named(table, prefix, used) for table in section.tables),
            folded=tuple(_named(table, prefix, used) for table in section.folded),
        )
        for section in found
    ]


def _named(table: Table, prefix: str, used: Counter[str]) -> Table:
    # Names of data sets can differ in signs alone, which file names do not have.
    used[table.name] += 1
    times = used[table.name]
    if times > 1:
        return _named(replace(table, name=f"{table.name}-{times}"), prefix, used)
    return replace(table, name=f"{prefix}{table.name}")


def _ranks(analysis: Analysis) -> Section:
    metric = main_metric(analysis)
    several = not math.isnan(analysis.ranks[metric].critical_difference)
    return Section(
        "ranks",
        "Which scores lead",
        "Every score on the same images, with the same shots. A score is called better only where "
        "a test says so.",
        drawings=(rank_figure(analysis, metric),) if several else (),
        tables=(tally_table(analysis),) if analysis.comparisons else (),
        folded=(rank_table(analysis),) if several else (),
    )


def _metrics(analysis: Analysis) -> Section:
    main = main_metric(analysis)
    others = (metric for metric in analysis.metrics if metric != main)
    several = len(analysis.results.datasets) > 1 and len(analysis.metrics) > 1
    overview = (overview_table(analysis, main),) if several else ()
    return Section(
        "metrics",
        "Every metric",
        f"{METRIC_COLUMNS[main].title}: {METRIC_COLUMNS[main].meaning}",
        tables=(*overview, metric_table(analysis, main)),
        folded=tuple(metric_table(analysis, metric) for metric in others),
    )


def _coverage(analysis: Analysis) -> Section:
    drawings = []
    if analysis.resampled:
        scores = leading_scores(analysis, main_metric(analysis))
        sampled = [s for s in scores if any(key[1] == s for key in analysis.results.samples)]
        if sampled:
            drawings = [
                risk_coverage_figure(analysis, sampled),
                equal_coverage_figure(analysis, sampled[:4]),
            ]
    return Section(
        "coverage",
        "What accepting less buys",
        "Accept only the images that a score trusts most, and fewer of the accepted labels are "
        "wrong.",
        drawings=tuple(drawings),
    )


def _modalities(analysis: Analysis) -> Section:
    labels = modality_labels(analysis.results.scores, analysis.results.reference)
    return Section(
        "modalities",
        "Text only, image only, both",
        "What the second look in image space adds to the text, and what it is worth alone.",
        drawings=(modality_figure(analysis, main_metric(analysis), labels),)
        if len(labels) > 1
        else (),
    )


def _shots(analysis: Analysis) -> Section:
    main = main_metric(analysis)
    drawings: list[Figure] = []
    tables: list[Table] = []
    if len(analysis.results.shots) > 1:
        shown = dict.fromkeys([main, *(m for m in analysis.metrics if m == "auroc")])
        drawings += [shots_figure(analysis, m, leading_scores(analysis, m)) for m in shown]
        if len(analysis.results.datasets) > 1:
            scores = leading_scores(analysis, main)
            drawings.append(shots_figure(analysis, main, scores, by_dataset=True))
        tables = [shots_table(analysis, metric) for metric in analysis.metrics]
    return Section(
        "shots",
        "How many shots it takes",
        "Scores of the logits alone do not depend on the shots.",
        drawings=tuple(drawings),
        folded=tuple(tables),
    )


def _differences(analysis: Analysis) -> Section:
    return Section(
        "differences",
        f"Differences to {analysis.results.reference}",
        "How large the differences are, and how far other images of the same kind would move them.",
        folded=tuple(difference_table(analysis, metric) for metric in analysis.metrics)
        if analysis.comparisons
        else (),
    )


def _datasets(analysis: Analysis) -> Section:
    return Section(
        "datasets",
        "Each data set",
        "The same numbers, one table for each data set.",
        folded=tuple(dataset_table(analysis, name) for name in analysis.results.datasets),
    )


def _classes(analysis: Analysis) -> Section:
    return Section(
        "classes",
        "Classes that gain and lose",
        "An average can hide classes that a score makes worse.",
        folded=tuple(gain_tables(analysis)),
    )


# The files beside the page: tables as Markdown and LaTeX, figures, and the statistics as JSON.


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write `tables/<name>.md` and `.tex`; return the files."""
    stem = folder / "tables" / table.name
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("md", "tex")]
    write_text(files[0], readable(markup.render_markdown(table)))
    write_text(files[1], readable(markup.render_latex(table)))
    return files


def write_drawing(drawing: Figure, folder: Path) -> list[Path]:
    """Write `figures/<name>.svg` and `.pdf`; return the files."""
    stem = folder / "figures" / drawing.name
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "pdf")]
    for file in files:
        drawing.save(file)
    return files


def write_sections(
    sections: Iterable[Section], folder: Path, workers: Workers | None = None
) -> None:
    """Write every table and every figure of some sections; workers draw figures side by side."""
    sections = list(sections)
    for section in sections:
        for table in (*section.tables, *section.folded):
            write_table(table, folder)
    drawings = [drawing for section in sections for drawing in section.drawings]
    drawn = (workers or Workers()).map(_drawn, [(drawing, folder) for drawing in drawings])
    for drawing, element in zip(drawings, drawn, strict=True):
        drawing.keep(element)


def _drawn(drawing: Figure, folder: Path) -> str:
    write_drawing(drawing, folder)
    return drawing.svg()


def write_statistics(analyses: Sequence[Analysis], path: Path) -> None:
    """Write spreads, paired tests and ranks as JSON, in fractions; None where undefined."""
    write_text(
        path,
        json.dumps([_statistics(analysis) for analysis in analyses], indent=1, allow_nan=False)
        + "\n",
    )


def _statistics(analysis: Analysis) -> dict[str, Any]:
    spreads = [
        {
            "dataset": dataset,
            "score": score,
            "shots": shots,
            "metric": metric,
            "mean": _number(found.mean),
            "sd": _number(found.sd),
            "draws": found.n,
            "undefined_draws": found.n_undefined,
        }
        for metric, cells in analysis.spreads.items()
        for (dataset, score, shots), found in cells.items()
    ]
    ranks = [
        {
            "metric": metric,
            "average_ranks": dict(zip(found.scores, found.average_ranks.tolist(), strict=True)),
            "datasets": list(found.datasets),
            "left_out": [*found.left_out_scores, *found.left_out_datasets],
            "friedman": _number(found.statistic),
            "friedman_p": _number(found.p_value),
            "iman_davenport": _number(found.f_statistic),
            "iman_davenport_p": _number(found.f_p_value),
            "critical_difference": _number(found.critical_difference),
            "alpha": found.alpha,
        }
        for metric, found in analysis.ranks.items()
    ]
    comparisons = [
        {
            key: _number(value) if isinstance(value, float) else value
            for key, value in found.to_dict().items()
        }
        for found in analysis.comparisons
    ]
    setting = analysis.results.settings[0]._asdict() if analysis.results.rows else {}
    return {
        "setting": setting,
        "convention": analysis.results.convention,
        "reference": analysis.results.reference,
        "bootstrap": {
            "n_resamples": analysis.n_resamples,
            "seed": analysis.seed,
            "level": analysis.level,
            "convention": "exact",
        },
        "spreads": spreads,
        "ranks": ranks,
        "comparisons": comparisons,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# A study as the text of one self-contained HTML page.

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
        version=__version__,
        style=style,
        script=script,
        script_hash=digest,
        table_html=markup.render_html,
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
