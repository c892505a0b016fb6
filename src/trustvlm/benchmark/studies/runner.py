"""Measure studies on materials; what is finished is kept on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trustvlm.benchmark.captions import Scope
from trustvlm.benchmark.encoded import Material
from trustvlm.benchmark.outputs import Chapter, Content, Section, named, render, write_sections
from trustvlm.benchmark.results import (
    Row,
    Setting,
    cell_file,
    read_cell,
    setting_of,
    write_cell,
    write_rows,
)
from trustvlm.benchmark.studies.study import Plan, Study
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.scores import get, names
from trustvlm.tables.table import slug
from trustvlm.text import join_names


@dataclass
class Answers:
    """What some studies found.

    Attributes
    ----------
    studies, plan
        Which, and under which plan.
    folder
        Where finished cells are kept; None keeps none.
    rows
        By the study's name.
    silent
        By the study's name, why it says nothing about a data set: reasons with the data sets.
    """

    studies: Sequence[Study]
    plan: Plan
    folder: Path | None = None
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    silent: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, material: Material) -> None:
        """Measure every study on one more material, unless that is finished."""
        for study in self.studies:
            reason = study.why_not(material, self.plan)
            if reason:
                told = self.silent[study.name].setdefault(reason, [])
                told += [material.name] if material.name not in told else []
                continue
            self.rows[study.name] += self._rows(study, material)

    def sections(self, setting: Setting) -> list[Section]:
        """Return what the studies found for one pair of models."""
        shown = []
        for study in self.studies:
            rows = [row for row in self.rows.get(study.name, ()) if setting_of(row) == setting]
            if rows and not study.across:
                shown.append(study.show(rows, self.plan))
        return shown

    def general(self) -> list[Section]:
        """Return what the studies across models found; one pair of models is no comparison."""
        shown = []
        for study in self.studies:
            rows = self.rows.get(study.name, []) if study.across else []
            if len({setting_of(row) for row in rows}) > 1:
                shown.append(study.show(rows, self.plan))
        return shown

    def remarks(self) -> list[str]:
        """Say what the studies say nothing about, and why."""
        told = [
            f"The study {name} says nothing about {join_names(datasets)}: {reason}."
            for name, reasons in self.silent.items()
            for reason, datasets in reasons.items()
        ]
        for study in self.studies:
            rows = self.rows.get(study.name, []) if study.across else []
            if len({setting_of(row) for row in rows}) == 1:
                told.append(f"The study {study.name} compares pairs of models, and here is one.")
        return told

    def _rows(self, study: Study, material: Material) -> list[dict[str, Any]]:
        if self.folder is None:
            return study.measure(material, self.plan)
        content = {
            **material.identity,
            "study": study.name,
            "varied": study.varied,
            "shots": self.plan.shots,
            "draws": self.plan.draws,
            "scores": {name: get(name).formula for name in self.plan.scores or names()},
        }
        file = cell_file(self.folder, content)
        if not file.is_file():
            write_cell(file, study.measure(material, self.plan))
        rows: list[dict[str, Any]] = read_cell(file)
        return rows


# The page of some studies alone: figures, tables and rows, without a grid.


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
