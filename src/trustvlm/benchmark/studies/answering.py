"""Measure studies on materials; what is finished is kept on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trustvlm.benchmark.basis import listed
from trustvlm.benchmark.cells import cell_file, read_cell, write_cell
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.results import Row, Setting, setting_of
from trustvlm.benchmark.studies.study import Plan, Study
from trustvlm.scores import get, names

__all__ = ["Answers"]


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
            f"The study {name} says nothing about {listed(datasets)}: {reason}."
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
