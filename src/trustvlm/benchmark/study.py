"""Compare scores on arrays: every score, number of shots and draw, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.benchmark.arrays import (
    ArraySet,
    refuse_shared_images,
    same_classes,
    warn_of_shared_images,
)
from trustvlm.benchmark.measuring import Measured, draw_rows, measure_draw, usable_scores
from trustvlm.benchmark.tuning import Tuning
from trustvlm.benchmark.workers import Workers
from trustvlm.exceptions import InputError
from trustvlm.scores import ScoreResult

__all__ = ["ROW_KEYS", "StudyResult", "run_study"]

ROW_KEYS = ("dataset", "score", "shots", "draw", *metrics.METRICS, "n")


@dataclass
class StudyResult:
    """Rows of every cell, and the verdicts of draw 0 at the largest number of shots.

    Attributes
    ----------
    rows
        One dict per cell with `ROW_KEYS`; fractions.
    verdicts
        Prediction and confidence by (dataset, score).
    correct
        `(n,)` bool by (dataset, score).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[tuple[str, str], ScoreResult] = field(default_factory=dict)
    correct: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)

    def samples(self) -> dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        """Return confidence and correctness by (dataset, score), for paired tests."""
        return {key: (v.confidence, self.correct[key]) for key, v in self.verdicts.items()}

    def verdict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return `<dataset>/<score>/prediction` and `.../confidence`, for an .npz file."""
        return {
            f"{dataset}/{score}/{part}": getattr(result, part)
            for (dataset, score), result in self.verdicts.items()
            for part in ("prediction", "confidence")
        }


def run_study(
    support: ArraySet,
    tests: Sequence[ArraySet],
    *,
    scores: Sequence[str] | None = None,
    shots: Sequence[int] = (16,),
    draws: int = 1,
    convention: str = "exact",
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str = "untuned",
    validation: ArraySet | None = None,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StudyResult:
    """Measure scores on test sets, with shots drawn from one support set.

    All scores with shots see exactly the same shots. Scores of the logits alone do not depend on
    them and are computed once per test set.

    Parameters
    ----------
    support, tests
        Where shots come from, and what is tested.
    scores
        Names; None takes every score that the arrays have evidence for.
    shots
        Numbers of shots per class; a class with fewer gives what it has, with a warning.
    draws
        How many draws; draw 0 is the paper's.
    convention
        Of the metrics: `exact` or `trustvlm`.
    parameters
        A score's own parameters by its name; defaults otherwise.
    preset
        `untuned`; or `loo` or `validation`, to select the weight and temperature of TrustVLM anew
        for every draw, on the shots, each held out, or on `validation`. The rows then also have
        `parameters` and, where something was selected, `selection`.
    validation
        Labelled images that are neither shots nor tests.
    workers
        Processes that share the work; by default this one alone.
    progress
        Called with cells done and cells in all.

    Raises
    ------
    LeakError
        If something would be selected on images that are also tested, or are shots. Where nothing
        is selected, tested images that are also shots are a warning.
    InputError, EvidenceMissingError
        If sets do not fit together, or a score cannot be computed from them.
    """
    if draws < 1 or not shots or min(shots) < 1:
        raise InputError(
            f"Expected at least one draw and one shot, but got {draws} draws and {list(shots)}."
        )
    for other in [*tests, *([] if validation is None else [validation])]:
        same_classes(support, other)
    tuning = Tuning(preset, parameters or {}, validation)
    chosen = usable_scores(support, scores)
    drawn = {(s, d): draw_rows(support, s, d) for s in shots for d in range(draws)}
    used = support.rows(np.unique(np.concatenate(list(drawn.values()))))
    if tuning.selects:
        refuse_shared_images(used, tests, validation)
    else:
        warn_of_shared_images(used, tests)
    study, largest = StudyResult(), max(shots)
    total, done = len(tests) * len(shots) * draws * len(chosen), 0
    # Filled by the first cells: scores of the logits alone are computed once.
    fixed: dict[tuple[str, str], Measured] = {}
    tasks = [
        (support, tests, chosen, n_shots, draw, convention, tuning, fixed, rows)
        for (n_shots, draw), rows in drawn.items()
    ]
    for cells in (workers or Workers()).map(_measured, tasks):
        for cell in cells:
            study.rows.append({**cell.row(), **(cell.settings() if tuning.selects else {})})
            if cell.draw == 0 and cell.shots == largest:
                study.verdicts[cell.dataset, cell.score] = cell.result
                study.correct[cell.dataset, cell.score] = cell.correct
            done += 1
            if progress is not None:
                progress(done, total)
    return study


def _measured(*task: Any) -> list[Measured]:
    return list(measure_draw(*task))
