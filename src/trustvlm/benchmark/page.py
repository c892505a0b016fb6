"""A study as one page to browse, with its tables and figures as files beside it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from trustvlm._version import __version__
from trustvlm.benchmark import figures, score_tables
from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.captions import describe_convention
from trustvlm.benchmark.findings import (
    cautions,
    describe_finding,
    find,
    finding_table,
    headline,
)
from trustvlm.benchmark.results import Results, RowSet, Setting, readable, setting_of, write_rows
from trustvlm.benchmark.run import Workers
from trustvlm.benchmark.statistics import LEVEL, SEED
from trustvlm.benchmark.studies import STUDIES
from trustvlm.benchmark.studies.study import ReportSection, StudyRunner, StudySettings
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.plots.figure import Figure
from trustvlm.report.page import render
from trustvlm.serialization import nan_to_null
from trustvlm.tables.latex import render_latex
from trustvlm.tables.markup import render_html, render_markdown
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import Table, slug
from trustvlm.text import counted

Progress = Callable[[int, int], None]


# What there is to show of one setting.


@dataclass(frozen=True)
class ReportGroup:
    """One setting on the page; `prefix` keeps its names apart from those of the others.

    What was found of it: a headline, sentences, and a small table.
    """

    label: str
    prefix: str
    sections: Sequence[ReportSection]
    headline: str = ""
    findings: Sequence[str] = ()
    table: Table | None = None


def main_metric(analysis: Analysis) -> str:
    """Return the metric that the figures show: AURC, or the first if that was not measured."""
    return "aurc" if "aurc" in analysis.metrics else analysis.metrics[0]


def sections(analysis: Analysis) -> list[ReportSection]:
    """Return what there is to show of one setting; sections without content are left out.

    No name of a figure or table is given twice.
    """
    results, metrics, main = analysis.results, analysis.metrics, main_metric(analysis)
    several = len(results.datasets) > 1 and len(metrics) > 1
    overview = (score_tables.overview_table(analysis, main),) if several else ()
    ranked = not math.isnan(analysis.ranks[main].critical_difference)
    labels = figures.modality_labels(results.scores, results.reference)
    every = [
        ReportSection(
            "ranks",
            "Which scores lead",
            "Every score on the same images, with the same shots. A score is called better only "
            "where a test says so.",
            figures=(figures.rank_figure(analysis, main),) if ranked else (),
            tables=(score_tables.tally_table(analysis),) if analysis.comparisons else (),
            folded=(score_tables.rank_table(analysis),) if ranked else (),
        ),
        ReportSection(
            "metrics",
            "Every metric",
            f"{METRIC_COLUMNS[main].title}: {METRIC_COLUMNS[main].meaning}",
            tables=(*overview, score_tables.metric_table(analysis, main)),
            folded=tuple(score_tables.metric_table(analysis, m) for m in metrics if m != main),
        ),
        ReportSection(
            "coverage",
            "What accepting less buys",
            "Accept only the images that a score trusts most, and fewer of the accepted labels are "
            "wrong.",
            figures=_coverage_figures(analysis),
        ),
        ReportSection(
            "modalities",
            "Text only, image only, both",
            "What the second look in image space adds to the text, and what it is worth alone.",
            figures=(figures.modality_figure(analysis, main, labels),) if len(labels) > 1 else (),
        ),
        _shots_section(analysis),
        ReportSection(
            "differences",
            f"Differences to {results.reference}",
            "How large the differences are, and how far other images of the same kind would move "
            "them.",
            folded=tuple(score_tables.difference_table(analysis, metric) for metric in metrics)
            if analysis.comparisons
            else (),
        ),
        ReportSection(
            "datasets",
            "Each data set",
            "The same numbers, one table for each data set.",
            folded=tuple(score_tables.dataset_table(analysis, name) for name in results.datasets),
        ),
        ReportSection(
            "classes",
            "Classes that gain and lose",
            "An average can hide classes that a score makes worse.",
            folded=tuple(score_tables.gain_tables(analysis)),
        ),
    ]
    return named([s for s in every if s.figures or s.tables or s.folded])


def _coverage_figures(analysis: Analysis) -> tuple[Figure, ...]:
    scores = figures.leading_scores(analysis, main_metric(analysis))
    sampled = [s for s in scores if any(key[1] == s for key in analysis.results.samples)]
    if not analysis.resampled or not sampled:
        return ()
    return (
        figures.risk_coverage_figure(analysis, sampled),
        figures.equal_coverage_figure(analysis, sampled[:4]),
    )


def _shots_section(analysis: Analysis) -> ReportSection:
    metrics, main = analysis.metrics, main_metric(analysis)
    drawn: list[Figure] = []
    if several := len(analysis.results.shots) > 1:
        for metric in dict.fromkeys([main, *(m for m in metrics if m == "auroc")]):
            leading = figures.leading_scores(analysis, metric)
            drawn.append(figures.shots_figure(analysis, metric, leading))
        if len(analysis.results.datasets) > 1:
            leading = figures.leading_scores(analysis, main)
            drawn.append(figures.shots_figure(analysis, main, leading, by_dataset=True))
    return ReportSection(
        "shots",
        "How many shots it takes",
        "Scores of the logits alone do not depend on the shots.",
        figures=tuple(drawn),
        folded=tuple(score_tables.shots_table(analysis, m) for m in metrics if several),
    )


def named(sections: Sequence[ReportSection], prefix: str = "") -> list[ReportSection]:
    """Let all names of figures and tables begin with a prefix, and give none twice."""
    used: Counter[str] = Counter()

    def name(table: Table) -> Table:
        # Names of data sets can differ in signs alone, which file names do not have.
        used[table.name] += 1
        if used[table.name] > 1:
            return name(replace(table, name=f"{table.name}-{used[table.name]}"))
        return replace(table, name=f"{prefix}{table.name}")

    return [
        replace(
            section,
            figures=tuple(replace(f, name=f"{prefix}{f.name}") for f in section.figures),
            tables=tuple(map(name, section.tables)),
            folded=tuple(map(name, section.folded)),
        )
        for section in sections
    ]


# The files beside the page: tables as Markdown and LaTeX, figures, and the statistics as JSON.


def write_table(table: Table, folder: Path) -> None:
    """Write `tables/<name>.md` and `.tex`."""
    for suffix, write in (("md", render_markdown), ("tex", render_latex)):
        write_text(folder / "tables" / f"{table.name}.{suffix}", readable(write(table)))


def write_sections(
    sections: Iterable[ReportSection], folder: Path, workers: Workers | None = None
) -> None:
    """Write every table and every figure of some sections; workers draw figures side by side."""
    sections = list(sections)
    for section in sections:
        for table in (*section.tables, *section.folded):
            write_table(table, folder)
    tasks = [(figure, folder) for section in sections for figure in section.figures]
    written = (workers or Workers()).map(_write_figure, tasks)
    for (figure, _), svg in zip(tasks, written, strict=True):
        figure.keep(svg)


def _write_figure(figure: Figure, folder: Path) -> str:
    for suffix in ("svg", "pdf"):
        figure.save(folder / "figures" / f"{figure.name}.{suffix}")
    return figure.svg()


def write_statistics(analyses: Sequence[Analysis], path: Path) -> None:
    """Write spreads, paired tests and ranks as JSON, in fractions; None where undefined."""
    content = nan_to_null([_statistics(analysis) for analysis in analyses])
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _statistics(analysis: Analysis) -> dict[str, Any]:
    return {
        "setting": analysis.results.settings[0]._asdict() if analysis.results.rows else {},
        "convention": analysis.results.convention,
        "reference": analysis.results.reference,
        "bootstrap": {
            "n_resamples": analysis.n_resamples,
            "seed": SEED,
            "level": LEVEL,
            "convention": "exact",
        },
        "spreads": [
            {
                "dataset": dataset,
                "score": score,
                "shots": shots,
                "metric": metric,
                "mean": spread.mean,
                "sd": spread.sd,
                "draws": spread.n,
                "undefined_draws": spread.n_undefined,
            }
            for metric, cells in analysis.spreads.items()
            for (dataset, score, shots), spread in cells.items()
        ],
        "ranks": [
            {
                "metric": metric,
                "average_ranks": dict(zip(ranks.scores, ranks.average_ranks.tolist(), strict=True)),
                "datasets": list(ranks.datasets),
                "units": list(ranks.units),
                "left_out": [*ranks.left_out_scores, *ranks.left_out_datasets],
                "friedman": ranks.statistic,
                "friedman_p": ranks.p_value,
                "iman_davenport": ranks.f_statistic,
                "iman_davenport_p": ranks.f_p_value,
                "critical_difference": ranks.critical_difference,
                "alpha": ranks.alpha,
            }
            for metric, ranks in analysis.ranks.items()
        ],
        "comparisons": [asdict(comparison) for comparison in analysis.comparisons],
    }


# The page of a grid, or of a study from arrays: every setting, and what compares them.


def _groups(
    shown: Mapping[Setting, Sequence[ReportSection]],
    analyses: Sequence[Analysis] = (),
    metric: str = "",
) -> list[ReportGroup]:
    """Put the sections of each setting, with what was found, apart from those of the others."""
    groups = []
    for rank, (setting, of_setting) in enumerate(shown.items()):
        prefix = f"{rank + 1}-{slug(setting.label)}-" if len(shown) > 1 else ""
        group = ReportGroup(setting.label, prefix, named(of_setting, prefix))
        finding = find(analyses[rank], metric) if analyses else None
        if finding is not None:
            group = replace(
                group,
                headline=headline(finding),
                findings=describe_finding(finding, analyses[rank]),
                table=finding_table(finding, analyses[rank].results.reference),
            )
        groups.append(group)
    return groups


def _tiles(about: RowSet) -> list[tuple[str, str]]:
    """Return values and what they count, for the head of a page.

    Examples
    --------
    >>> about = {"score": "msp", "shots": 16, "draw": 0, "n": 50}
    >>> _tiles(RowSet([{**about, "dataset": "pets"}, {**about, "dataset": "cars"}]))[1]
    ('2', 'data sets, 100 images')
    """
    sets, draws = (
        counted(len(names), noun).partition(" ")[2]
        for names, noun in ((about.datasets, "data set"), (about.draws, "draw"))
    )
    images = sum(about.sizes.values())
    return [
        (str(len(about.scores)), "scores compared"),
        (str(len(about.datasets)), f"{sets}, {counted(images, 'image')}" if images else sets),
        (", ".join(map(str, about.shots)), "shots per class"),
        (str(len(about.draws)), f"{draws} of the shots"),
    ]


def _write_html(
    folder: Path, about: RowSet, convention: str, *facts: tuple[str, str], **content: Any
) -> Path:
    """Fill the template with what rows are about and how they were made, and further content."""
    target = folder / "index.html"
    html = render(
        "benchmark.html.j2",
        package="trustvlm.benchmark",
        style="benchmark.css",
        tiles=_tiles(about),
        facts=[
            ("data sets", ", ".join(about.datasets)),
            ("scores", ", ".join(about.scores)),
            ("shots per class", ", ".join(map(str, about.shots))),
            ("draws of the shots", str(len(about.draws))),
            ("metrics", describe_convention(convention)),
            *facts,
            ("software", f"trustvlm {__version__}"),
        ],
        table_html=render_html,
        **content,
    )
    write_text(target, html)
    return target


def write_page(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    title: str = "Benchmark of confidence scores",
    notes: Sequence[str] = (),
    studies: Mapping[Setting, Sequence[ReportSection]] | None = None,
    metrics: Sequence[str] | None = None,
    n_resamples: int = 2000,
    workers: Workers | None = None,
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
        Further sections by setting, such as those of `benchmark.studies`.
    metrics
        Which metrics, in the order of the tables; None for all.
    n_resamples
        Of the paired bootstrap; see `analyse`.
    workers
        Processes that share the drawing of figures; by default this one alone.
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
    parts = [part for part in map(results.of, results.settings) if part.scores]
    analyses = _analyses(parts, metrics, n_resamples, progress)
    main = main_metric(analyses[0])
    shown = {
        part.settings[0]: [*sections(analysis), *(studies or {}).get(part.settings[0], ())]
        for part, analysis in zip(parts, analyses, strict=True)
    }
    groups = _groups(shown, analyses, main)
    general = _compare_encoders(results, main)
    failures = score_tables.failure_table(results.failures) if results.failures else None
    for group in groups:
        write_sections(group.sections, folder, workers)
    write_sections(general, folder, workers)
    if failures is not None:
        write_table(failures, folder)
    write_statistics(analyses, folder / "statistics.json")
    test = f"bootstrap over images, {n_resamples:,} resamples, seed {SEED}, {100 * LEVEL:g} %"
    return _write_html(
        folder,
        results,
        results.convention,
        ("paired tests", test),
        title=title,
        groups=groups,
        notes=notes,
        cautions=cautions(results),
        general=general,
        failures=failures,
        rows_file="statistics.json",
        rows_text="Every mean, test and rank is in",
    )


def _analyses(
    parts: Sequence[Results],
    metrics: Sequence[str] | None,
    n_resamples: int,
    progress: Progress | None,
) -> list[Analysis]:
    total, done = sum(len(part.datasets) for part in parts), count(1)

    def report(_done: int, _of: int) -> None:
        if progress is not None:
            progress(next(done), total)

    return [analyse(part, metrics, n_resamples=n_resamples, progress=report) for part in parts]


def _compare_encoders(results: Results, metric: str) -> list[ReportSection]:
    """Return the matrix of models and encoders, if the rows have several of either."""
    pairs = {(setting.vlm, setting.vision) for setting in results.settings}
    protocol = results.settings[0].protocol
    rows = [
        row
        for row in results.rows
        if row["shots"] == results.largest
        and row["score"] in (results.reference, f"{results.reference}_star")
        and str(row.get("protocol") or "") == protocol
        and {"vlm", "vision"} <= row.keys()
    ]
    settings = StudySettings(metric=metric, convention=results.convention)
    return [STUDIES["encoders"].show(rows, settings)] if len(pairs) > 1 and rows else []


# The page of some studies alone, without a grid.


def write_study_page(
    runner: StudyRunner,
    folder: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    cautions: Sequence[str] = (),
) -> Path:
    """Write the page of some studies alone, without a grid, and the files beside it.

    These are `index.html`, `tables/*.md` and `*.tex`, `figures/*.svg` and `*.pdf`, and the rows of
    each study in `rows/<study>/rows.jsonl` (and `.parquet`).

    Parameters
    ----------
    runner
        Has measured the studies.
    folder
        Where to write; files of the same names are replaced.
    title, notes
        Heading, and what readers must know before all else, such as what the models are not.
    cautions
        What else limits the conclusions, such as data sets that failed.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        If there is nothing to show; the message says why.
    """
    rows = [row for of_study in runner.rows.values() for row in of_study]
    by_setting = {s: runner.sections(s) for s in dict.fromkeys(map(setting_of, rows))}
    groups = _groups({setting: shown for setting, shown in by_setting.items() if shown})
    general = runner.general()
    remarks = runner.remarks()
    if not groups and not general:
        raise InputError(" ".join(["There is nothing to show.", *remarks, *cautions]))
    write_sections([*(s for group in groups for s in group.sections), *general], folder)
    for name, of_study in runner.rows.items():
        write_rows(of_study, folder / "rows" / name)
    return _write_html(
        folder,
        RowSet(rows),
        runner.settings.convention,
        title=title,
        groups=groups or [ReportGroup("", "", [])],
        notes=notes,
        cautions=[*cautions, *remarks],
        general=general,
        failures=None,
        rows_file=f"rows/{next(iter(runner.rows))}/rows.jsonl",
        rows_text="Every number is in the files of rows/, such as",
    )
