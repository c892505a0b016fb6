"""Studies: one question each, what is measured to answer it, and the figures and tables that do.

A `Study` is the question; `StudyRunner` measures some of them on one data set after another, and
keeps what is finished on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.dataset import ArraySet, EncodedDataset
from trustvlm.benchmark.findings import describe_finding, find
from trustvlm.benchmark.results import (
    Results,
    Row,
    Setting,
    read_cell,
    setting_of,
    write_cell,
)
from trustvlm.benchmark.run import (
    Measurement,
    measure_draw,
    metric_values,
    usable_scores,
)
from trustvlm.plots.figure import Figure
from trustvlm.scores import Evidence, PreparedScore, ScoreResult, prepare
from trustvlm.tables.table import Table
from trustvlm.text import join_names


@dataclass(frozen=True)
class ReportSection:
    """Figures and tables under one heading, and in a sentence what they come to.

    `folded` tables are shown on demand.
    """

    name: str
    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    finding: str = ""


@dataclass(frozen=True)
class StudySettings:
    """What a study may vary, and how it measures.

    Attributes
    ----------
    shots, draws
        Numbers of shots per class, and how many draws; draw 0 is the paper's.
    convention
        Of the metrics.
    metric
        The one that figures show.
    scores
        Those that may be shown; empty allows every one.
    """

    shots: tuple[int, ...] = (16,)
    draws: int = 1
    convention: str = "exact"
    metric: str = "aurc"
    scores: tuple[str, ...] = ()

    @property
    def largest(self) -> int:
        """The most shots."""
        return max(self.shots)

    def usable(self, wanted: Sequence[str], encoded: EncodedDataset) -> list[str]:
        """Return those of some scores that are allowed, registered, and have their evidence."""
        usable = set(usable_scores(encoded.support))
        return [
            score
            for score in wanted
            if score in usable and (not self.scores or score in self.scores)
        ]


class Study(ABC):
    """One question that reviewers ask of a score.

    Attributes
    ----------
    name
        What users type.
    title, question
        A heading, and what is asked.
    scores
        Those that are compared, where they are allowed and have their evidence.
    needed
        Scores without which there is nothing to show.
    varied
        What the study itself varies, for the names of its cells.
    across
        Whether the question is about several pairs of models.
    of_the_grid
        Whether the cells of a grid answer it already.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    scores: ClassVar[tuple[str, ...]]
    needed: ClassVar[tuple[str, ...]] = ("trustvlm",)
    varied: ClassVar[Mapping[str, Any]] = {}
    across: ClassVar[bool] = False
    of_the_grid: ClassVar[bool] = False

    @abstractmethod
    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Return rows of one data set with one pair of models.

        Each has `dataset`, `score`, `shots`, `draw`, `n`, the metrics as fractions, and the study's
        own keys.
        """

    @abstractmethod
    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Make figures and tables of all rows that share models, or of all rows if `across`."""

    @abstractmethod
    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say in a sentence what the rows of `show` come to; empty if they come to nothing."""

    def lacks(self, encoded: EncodedDataset, settings: StudySettings) -> str:
        """Say what this data set lacks to answer the question; empty if it lacks nothing."""
        del encoded, settings
        return ""

    def why_not(self, encoded: EncodedDataset, settings: StudySettings) -> str:
        """Say why this data set cannot answer the question; empty if it can."""
        usable = settings.usable(self.needed, encoded)
        missing = [score for score in self.needed if score not in usable]
        if missing:
            return f"the study has no score {' and no '.join(missing)}"
        return self.lacks(encoded, settings)

    def section(
        self,
        figures: Iterable[Figure],
        tables: Iterable[Table] = (),
        folded: Iterable[Table] = (),
        *,
        note: str = "",
    ) -> ReportSection:
        """Put figures and tables under the study's heading."""
        text = f"{self.question} {note}".rstrip()
        return ReportSection(
            self.name, self.title, text, tuple(figures), tuple(tables), tuple(folded)
        )


class ComparisonStudy(Study):
    """A study whose rows are ordinary ones of a few scores, as the cells of a grid have them."""

    of_the_grid = True

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Measure the scores at the most shots, with every draw."""
        return self.rows(encoded, settings, [settings.largest])

    def rows(
        self, encoded: EncodedDataset, settings: StudySettings, shots: Iterable[int]
    ) -> list[dict[str, Any]]:
        """Measure the scores that can be, at some numbers of shots and with every draw."""
        usable = settings.usable(self.scores, encoded)
        fixed: dict[tuple[str, str], Measurement] = {}
        return [
            {**cell.row_with_settings(), **encoded.about}
            for point in product(shots, range(settings.draws))
            for cell in measure_draw(encoded, usable, *point, settings.convention, fixed)
        ]

    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say which score has the best mean; no test is made, as there are no samples."""
        analysis = self.analyse(rows, settings)
        best = find(analysis, settings.metric)
        if best is None:
            return ""
        return f"{describe_finding(best, analysis)[0].rstrip('.')}; no test was made."

    def analyse(self, rows: Sequence[Row], settings: StudySettings) -> Analysis:
        """Analyse rows of one setting; without samples no test is made, and nothing is marked."""
        metrics = list(dict.fromkeys((settings.metric, "auroc", "accuracy")))
        return analyse(Results(rows, convention=settings.convention), metrics)


# What the other studies measure with: scores that have learned from some shots.


def prepared_scores(
    encoded: EncodedDataset, scores: Sequence[str], shots: Evidence
) -> dict[str, PreparedScore]:
    """Let some scores learn from shots, with the settings that the study has for these shots."""
    settings = encoded.tuning.settings(scores, shots)
    return {score: prepare(score, shots, **settings[score].parameters) for score in scores}


def metrics_of(result: ScoreResult, test: ArraySet, convention: str) -> dict[str, Any]:
    """Return the metrics of a score on a test set, as a row has them."""
    return metric_values(result.confidence, result.prediction == test.labels, convention)


@dataclass
class StudyRunner:
    """Measures some studies on one data set after another, and shows the results.

    Attributes
    ----------
    studies, settings
        Which, and what they may vary.
    folder
        Where finished cells are kept; None keeps none.
    rows
        By the study's name.
    unanswered
        By the study's name, why it says nothing about a data set: reasons with the data sets.
    """

    studies: Sequence[Study]
    settings: StudySettings
    folder: Path | None = None
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    unanswered: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, encoded: EncodedDataset) -> None:
        """Measure every study on one more data set, unless that is finished."""
        for study in self.studies:
            if reason := study.why_not(encoded, self.settings):
                names_ = self.unanswered[study.name].setdefault(reason, [])
                names_ += [encoded.name] if encoded.name not in names_ else []
            else:
                self.rows[study.name] += self._measure(study, encoded)

    def _measure(self, study: Study, encoded: EncodedDataset) -> list[dict[str, Any]]:
        if self.folder is None:
            return study.measure(encoded, self.settings)
        file = encoded.cell_file(
            self.folder,
            self.settings.scores,
            study=study.name,
            varied=study.varied,
            shots=self.settings.shots,
            draws=self.settings.draws,
        )
        rows = read_cell(file)
        return write_cell(file, study.measure(encoded, self.settings)) if rows is None else rows

    def sections(self, setting: Setting) -> list[ReportSection]:
        """Return the sections of the studies for one pair of models."""
        return [
            self._section(study, of_setting)
            for study, rows in self._measured(across=False)
            if (of_setting := [row for row in rows if setting_of(row) == setting])
        ]

    def general(self) -> list[ReportSection]:
        """Return the sections of the studies across models; one pair of models is no comparison."""
        return [
            self._section(study, rows)
            for study, rows in self._measured(across=True)
            if _pairs_of(rows) > 1
        ]

    def _section(self, study: Study, rows: Sequence[Row]) -> ReportSection:
        finding = study.finding(rows, self.settings)
        return replace(study.show(rows, self.settings), finding=finding)

    def remarks(self) -> list[str]:
        """Say what the studies say nothing about, and why."""
        return [
            *(
                f"The study {name} says nothing about {join_names(datasets)}: {reason}."
                for name, reasons in self.unanswered.items()
                for reason, datasets in reasons.items()
            ),
            *(
                f"The study {study.name} compares pairs of models, and here is one."
                for study, rows in self._measured(across=True)
                if _pairs_of(rows) == 1
            ),
        ]

    def _measured(self, *, across: bool) -> Iterator[tuple[Study, list[Row]]]:
        for study in self.studies:
            if study.across == across:
                yield study, self.rows.get(study.name, [])


def _pairs_of(rows: Sequence[Row]) -> int:
    """Return how many pairs of models there are."""
    return len({(row.get("vlm"), row.get("vision")) for row in rows})
