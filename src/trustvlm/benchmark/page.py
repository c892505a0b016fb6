"""A study as one page to browse, with its tables and figures as files beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.captions import RowsSummary, cautions, findings
from trustvlm.benchmark.report_sections import (
    ReportSection,
    main_metric,
    named,
    sections,
    write_sections,
    write_statistics,
    write_table,
)
from trustvlm.benchmark.results import Results, Setting, setting_of, write_rows
from trustvlm.benchmark.run import Workers
from trustvlm.benchmark.score_tables import failure_table
from trustvlm.benchmark.studies import STUDIES
from trustvlm.benchmark.studies.study import StudyRunner, StudySettings
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.report.page import render as render_page
from trustvlm.tables import markup
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import Table, slug

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReportGroup:
    """One setting on the page; `prefix` keeps its names apart from those of the others."""

    label: str
    prefix: str
    sections: Sequence[ReportSection]
    findings: Sequence[str] = ()


@dataclass(frozen=True)
class PageContext:
    """Everything that a page says.

    Attributes
    ----------
    title
        Its heading.
    tiles
        What it is about, in numbers: values and what they count.
    notes, cautions
        What readers must know before all else; notes are set in bold.
    groups
        At least one; the first is shown open.
    general
        Sections about more than one setting.
    failures
        Cells that failed; None if none did.
    facts
        How it was made, by what.
    rows_file, rows_text
        A file beside the page with its numbers, and what it holds; empty if there is none.
    with_files
        Whether tables and figures are beside the page as files too.
    """

    title: str
    tiles: Sequence[tuple[str, str]]
    groups: Sequence[ReportGroup]
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
    cautions: Sequence[str] = ()
    general: Sequence[ReportSection] = ()
    failures: Table | None = None
    rows_file: str = ""
    rows_text: str = ""
    with_files: bool = True


def render(context: PageContext) -> str:
    """Return the page: no other host, and no script but its own, which sorts the tables."""
    return render_page(
        "benchmark.html.j2",
        package="trustvlm.benchmark",
        style="benchmark.css",
        table_html=markup.render_html,
        **vars(context),
    )


# The page of a grid, or of a study from arrays: every setting, and what compares them.


def write_page(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    title: str = "Benchmark of confidence scores",
    notes: Sequence[str] = (),
    studies: Mapping[Setting, Sequence[ReportSection]] | None = None,
    metrics: Sequence[str] = tuple(METRIC_COLUMNS),
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    alone: bool = False,
    without: Collection[str] = (),
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
        Which metrics, in the order of the tables.
    n_resamples, seed, level
        Of the paired bootstrap; see `analyse`.
    alone
        Whether to write the page alone, without the files.
    without
        Names of sections to leave out, such as `classes`.
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
    analyses = _analyses(parts, metrics, n_resamples, seed, level, progress)
    groups = []
    for rank, analysis in enumerate(analyses, 1):
        setting = analysis.results.settings[0]
        # Labels can differ in what a slug drops: the number keeps the names apart.
        prefix = f"{rank}-{slug(setting.label)}-" if len(parts) > 1 else ""
        shown = [*sections(analysis), *(studies or {}).get(setting, ())]
        shown = named([section for section in shown if section.name not in without], prefix)
        sentences = findings(analysis, main_metric(analysis))
        groups.append(ReportGroup(setting.label, prefix, shown, sentences))
    general = _compare_encoders(results, main_metric(analyses[0]))
    failures = failure_table(results.failures) if results.failures else None
    if not alone:
        for group in groups:
            write_sections(group.sections, folder, workers)
        write_sections(general, folder, workers)
        if failures is not None:
            write_table(failures, folder)
        write_statistics(analyses, folder / "statistics.json")
    tests = f"bootstrap over images, {n_resamples:,} resamples, seed {seed}, {100 * level:g} %"
    summary = RowsSummary.of(results.rows)
    context = PageContext(
        title=title,
        tiles=summary.tiles(),
        groups=groups,
        facts=summary.facts(results.convention, ("paired tests", tests)),
        notes=notes,
        cautions=cautions(results),
        general=general,
        failures=failures,
        rows_file="statistics.json",
        rows_text="Every mean, test and rank is in",
        with_files=not alone,
    )
    target = folder / "index.html"
    write_text(target, render(context))
    return target


def _analyses(
    parts: Sequence[Results],
    metrics: Sequence[str],
    n_resamples: int,
    seed: int,
    level: float,
    progress: Progress | None,
) -> list[Analysis]:
    total, before = sum(len(part.datasets) for part in parts), 0
    analyses = []
    for part in parts:

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        analyses.append(
            analyse(part, metrics, n_resamples=n_resamples, seed=seed, level=level, progress=report)
        )
        before += len(part.datasets)
    return analyses


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
    by_setting = {setting: shown for setting, shown in by_setting.items() if shown}
    groups = []
    for rank, (setting, shown) in enumerate(by_setting.items(), 1):
        prefix = f"{rank}-{slug(setting.label)}-" if len(by_setting) > 1 else ""
        groups.append(ReportGroup(setting.label, prefix, named(shown, prefix)))
    general = runner.general()
    remarks = runner.remarks()
    if not groups and not general:
        raise InputError(" ".join(["There is nothing to show.", *remarks, *cautions]))
    write_sections([*(s for group in groups for s in group.sections), *general], folder)
    for name, of_study in runner.rows.items():
        write_rows(of_study, folder / "rows" / name)
    summary = RowsSummary.of(rows)
    context = PageContext(
        title=title,
        tiles=summary.tiles(),
        groups=groups or [ReportGroup("", "", [])],
        facts=summary.facts(runner.settings.convention),
        notes=notes,
        cautions=[*cautions, *remarks],
        general=general,
        rows_file=f"rows/{next(iter(runner.rows))}/rows.jsonl",
        rows_text="Every number is in the files of rows/, such as",
    )
    page = folder / "index.html"
    write_text(page, render(context))
    return page
