"""Compare scores on arrays: every score, number of shots and draw, on the same images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.benchmark.arrays import ArraySet, refuse_shared_images, same_classes
from trustvlm.benchmark.tuning import Tuned, Tuning
from trustvlm.exceptions import InputError, TrustVLMWarning, UndefinedMetricWarning
from trustvlm.scores import Evidence, ScoreResult, get, names, prepare
from trustvlm.scores.shots import draw_shots

__all__ = ["ROW_KEYS", "Measured", "StudyResult", "measure_draw", "run_study", "usable_scores"]

ROW_KEYS = ("dataset", "score", "shots", "draw", *metrics.METRICS, "n")
_OF_SHOTS = ("bank", "support_features", "support_labels", "support_logits")


@dataclass(frozen=True)
class Measured:
    """One score on one test set, with one draw of the shots."""

    dataset: str
    score: str
    shots: int
    draw: int
    result: ScoreResult
    correct: NDArray[np.bool_]
    measured: metrics.Evaluation
    tuned: Tuned = field(default_factory=Tuned)

    def row(self) -> dict[str, Any]:
        """Return the cell as a flat row; undefined metrics are None."""
        values = {name: getattr(self.measured, name) for name in metrics.METRICS}
        return {
            "dataset": self.dataset,
            "score": self.score,
            "shots": self.shots,
            "draw": self.draw,
            **{name: None if math.isnan(value) else value for name, value in values.items()},
            "n": self.measured.n,
        }

    def settings(self) -> dict[str, Any]:
        """Return all the score's parameters, and how some of them were selected, if they were."""
        chosen = self.tuned.selection
        return {
            "parameters": {**get(self.score).parameters, **self.tuned.parameters},
            **({} if chosen is None else {"selection": chosen.to_dict()}),
        }


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


def usable_scores(support: ArraySet, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the scores that these arrays have the evidence for; wanted ones must be.

    Raises
    ------
    InputError, EvidenceMissingError
        If a wanted score does not exist, or lacks evidence.
    """
    evidence = support.shots(np.arange(len(support))).with_images(
        logits=support.logits[:1],
        features=support.features[:1],
        image_embeddings=None if support.image_embeddings is None else support.image_embeddings[:1],
    )
    if wanted is None:
        return [name for name, needs in names().items() if all(map(evidence.has, needs))]
    for name in wanted:
        evidence.demand(get(name).needs, by=name)
    return list(dict.fromkeys(wanted))


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
    progress
        Called with cells done and cells in all.

    Raises
    ------
    LeakError
        If something would be selected on images that are also tested, or are shots.
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
    drawn = {(s, d): _drawn(support, s, d) for s in shots for d in range(draws)}
    if tuning.selects:
        used = np.unique(np.concatenate(list(drawn.values())))
        refuse_shared_images(support.rows(used), tests, validation)
    study, largest = StudyResult(), max(shots)
    total, done = len(tests) * len(shots) * draws * len(chosen), 0
    fixed: dict[tuple[str, str], Measured] = {}
    for (n_shots, draw), rows in drawn.items():
        for cell in measure_draw(
            support, tests, chosen, n_shots, draw, convention, tuning, fixed, rows
        ):
            study.rows.append({**cell.row(), **(cell.settings() if tuning.selects else {})})
            if draw == 0 and n_shots == largest:
                study.verdicts[cell.dataset, cell.score] = cell.result
                study.correct[cell.dataset, cell.score] = cell.correct
            done += 1
            if progress is not None:
                progress(done, total)
    return study


def measure_draw(
    support: ArraySet,
    tests: Sequence[ArraySet],
    scores: Sequence[str],
    shots: int,
    draw: int,
    convention: str = "exact",
    tuning: Tuning | None = None,
    fixed: dict[tuple[str, str], Measured] | None = None,
    chosen: NDArray[np.int64] | None = None,
) -> Iterator[Measured]:
    """Measure scores with one draw of the shots, on every test set.

    `tuning` sets their parameters, which it may select anew for these shots. `fixed` carries the
    scores that do not depend on shots from one call to the next. `chosen` are rows of `support`
    that have been drawn already.
    """
    fixed = {} if fixed is None else fixed
    if chosen is None:
        chosen = _drawn(support, shots, draw)
    known = support.shots(chosen)
    evidence = [_about(test, known) for test in tests]
    settings = (tuning or Tuning()).settings(scores, known)
    for name in scores:
        if not any(need in _OF_SHOTS for need in get(name).needs) and fixed.keys() >= {
            (test.name, name) for test in tests
        }:
            for test in tests:
                cell = fixed[test.name, name]
                yield replace(cell, shots=shots, draw=draw)
            continue
        tuned = settings[name]
        score = prepare(name, known, **tuned.parameters)
        for test, about in zip(tests, evidence, strict=True):
            result = score(about)
            cell = replace(_measured(test, name, shots, draw, result, convention), tuned=tuned)
            fixed[test.name, name] = cell
            yield cell


def _drawn(support: ArraySet, shots: int, draw: int) -> NDArray[np.int64]:
    drawn = draw_shots(support.labels, support.n_classes, shots, draw=draw)
    if draw == 0 and (drawn.counts < shots).any():
        few = int((drawn.counts < shots).sum())
        warnings.warn(
            f"{support.name}: {few} of {support.n_classes} classes have fewer than {shots} "
            "images: all of theirs are used",
            TrustVLMWarning,
            stacklevel=5,
        )
    return drawn.indices


def _about(test: ArraySet, known: Evidence) -> Evidence:
    return known.with_images(
        logits=test.logits, features=test.features, image_embeddings=test.image_embeddings
    )


def _measured(
    test: ArraySet, name: str, shots: int, draw: int, result: ScoreResult, convention: str
) -> Measured:
    correct = result.prediction == test.labels
    with warnings.catch_warnings():
        # Undefined metrics are None in the rows; a warning per cell would say no more.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        measured = metrics.evaluate(result.confidence, correct, convention=convention)
    return Measured(test.name, name, shots, draw, result, correct, measured)
