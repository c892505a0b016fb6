"""The page of some studies alone: figures, tables and rows, without a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trustvlm.benchmark.chapter import named
from trustvlm.benchmark.outputs import write_sections
from trustvlm.benchmark.rendering import Chapter, Content, render
from trustvlm.benchmark.results import Setting, setting_of
from trustvlm.benchmark.rows import write_rows
from trustvlm.benchmark.scope import Scope
from trustvlm.benchmark.studies.answering import Answers
from trustvlm.benchmark.table import slug
from trustvlm.exceptions import InputError
from trustvlm.files import write_text

__all__ = ["write_answers"]


def write_answers(
    answers: Answers,
    folder: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    cautions: Sequence[str] = (),
) -> Path:
    """Write `index.html`, `tables/*.md` and `*.tex`, `figures/*.svg` and `*.pdf`, and the rows.

    The rows of a study are in `rows/<study>/rows.jsonl` (and `.parquet`).

    Parameters
    ----------
    answers
        What was found.
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
    rows = [row for found in answers.rows.values() for row in found]
    settings = list(dict.fromkeys(setting_of(row) for row in rows))
    chapters = _chapters(answers, settings)
    general = answers.general()
    remarks = answers.remarks()
    if not chapters and not general:
        raise InputError(" ".join(["There is nothing to show.", *remarks, *cautions]))
    for chapter in chapters:
        write_sections(chapter.sections, folder)
    write_sections(general, folder)
    for name, found in answers.rows.items():
        write_rows(found, folder / "rows" / name)
    scope = Scope.of(rows)
    content = Content(
        title=title,
        tiles=scope.tiles(),
        chapters=chapters or [Chapter("", "", [])],
        facts=scope.facts(answers.plan.convention),
        notes=notes,
        cautions=[*cautions, *remarks],
        general=general,
        rows_file=f"rows/{next(iter(answers.rows))}/rows.jsonl",
        rows_words="Every number is in the files of rows/, such as",
    )
    page = folder / "index.html"
    write_text(page, render(content))
    return page


def _chapters(answers: Answers, settings: Sequence[Setting]) -> list[Chapter]:
    found = [(setting, answers.sections(setting)) for setting in settings]
    found = [(setting, sections) for setting, sections in found if sections]
    chapters = []
    for place, (setting, sections) in enumerate(found, 1):
        prefix = f"{place}-{slug(setting.label)}-" if len(found) > 1 else ""
        chapters.append(Chapter(setting.label, prefix, named(sections, prefix)))
    return chapters
