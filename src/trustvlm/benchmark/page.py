"""A study as one page to browse, with its tables and figures as files beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.captions import Scope, cautions, findings
from trustvlm.benchmark.outputs import (
    Chapter,
    Content,
    Section,
    main_metric,
    named,
    render,
    sections,
    write_sections,
    write_statistics,
    write_table,
)
from trustvlm.benchmark.results import Results, Setting
from trustvlm.benchmark.run import Workers
from trustvlm.benchmark.score_tables import failure_table
from trustvlm.benchmark.studies.comparisons import ENCODERS
from trustvlm.benchmark.studies.study import Plan
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import slug

Progress = Callable[[int, int], None]


def write_page(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    title: str = "Benchmark of confidence scores",
    notes: Sequence[str] = (),
    studies: Mapping[Setting, Sequence[Section]] | None = None,
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
    parts = [results.of(setting) for setting in results.settings]
    parts = [part for part in parts if part.scores]
    analyses = _analyses(parts, metrics, n_resamples, seed, level, progress)
    chapters = []
    for place, analysis in enumerate(analyses):
        setting = analysis.results.settings[0]
        # Labels can differ in what a slug drops: the number keeps the names apart.
        prefix = f"{place + 1}-{slug(setting.label)}-" if len(parts) > 1 else ""
        found = [*sections(analysis), *(studies or {}).get(setting, ())]
        found = [section for section in found if section.name not in without]
        told = findings(analysis, main_metric(analysis))
        chapters.append(Chapter(setting.label, prefix, named(found, prefix), told))
    general = _encoders(results, main_metric(analyses[0]))
    failures = failure_table(results.failures) if results.failures else None
    if not alone:
        for chapter in chapters:
            write_sections(chapter.sections, folder, workers)
        write_sections(general, folder, workers)
        if failures is not None:
            write_table(failures, folder)
        write_statistics(analyses, folder / "statistics.json")
    tests = f"bootstrap over images, {n_resamples:,} resamples, seed {seed}, {100 * level:g} %"
    scope = Scope.of(results.rows)
    content = Content(
        title=title,
        tiles=scope.tiles(),
        chapters=chapters,
        facts=scope.facts(results.convention, ("paired tests", tests)),
        notes=notes,
        cautions=cautions(results),
        general=general,
        failures=failures,
        rows_file="statistics.json",
        rows_words="Every mean, test and rank is in",
        with_files=not alone,
    )
    target = folder / "index.html"
    write_text(target, render(content))
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
    found = []
    for part in parts:

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        found.append(
            analyse(part, metrics, n_resamples=n_resamples, seed=seed, level=level, progress=report)
        )
        before += len(part.datasets)
    return found


def _encoders(results: Results, metric: str) -> list[Section]:
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
    plan = Plan(metric=metric, convention=results.convention)
    return [ENCODERS.show(rows, plan)] if len(pairs) > 1 and rows else []
