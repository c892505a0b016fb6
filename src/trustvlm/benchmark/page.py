"""A study as one page to browse, with its tables and figures as files beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from trustvlm.benchmark.analysis import analyse
from trustvlm.benchmark.chapter import main_metric, sections
from trustvlm.benchmark.detail_tables import failure_table
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.findings import findings
from trustvlm.benchmark.matrix_figures import encoder_figure
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.outputs import write_drawing, write_statistics, write_table
from trustvlm.benchmark.rendering import Chapter, render
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.table import slug
from trustvlm.exceptions import InputError
from trustvlm.files import write_text

__all__ = ["write_page"]

Progress = Callable[[int, int], None]


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
    target = folder / "index.html"
    write_text(target, render(results, chapters, title, notes, general, failures))
    return target


def _chapters(
    results: Results,
    metrics: Sequence[str],
    n_resamples: int,
    seed: int,
    level: float,
    progress: Progress | None,
) -> list[Chapter]:
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
        chapters.append(Chapter(label, prefix, analysis, sections(analysis, prefix), told))
    return chapters


def _encoders(results: Results, first: Chapter) -> list[Drawing]:
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
