"""Measure scores on arrays: with one draw of the shots, or every cell of a study, side by side."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm.benchmark.dataset import (
    ArraySet,
    EncodedDataset,
    ScoreSettings,
    Tuning,
    refuse_shared_images,
    same_classes,
    warn_of_shared_images,
)
from trustvlm.exceptions import InputError, TrustVLMWarning, UndefinedMetricWarning
from trustvlm.plugins import load_installed, load_plugin, loaded_plugins
from trustvlm.scores import Evidence, ScoreResult, canonical_name, get, names, prepare
from trustvlm.scores.compute import OF_SHOTS, score_together
from trustvlm.serialization import nan_to_null
from trustvlm.text import join_names

# Cells side by side: one process a core, one thread each.


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep linear algebra to one thread.

    Cells are many and their matrices small: threads that wait for each other cost more than they
    gain, and numbers would depend on the count of cores.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@dataclass
class Workers:
    """Who computes the cells of a study.

    Attributes
    ----------
    jobs
        Processes at most; 1 computes here. Results do not depend on it.
    plugins
        Files that register scores, to be executed in every process, as are those that this one has
        loaded. Scores that the running program registered itself are known only here: use them
        with `jobs=1`.
    start_seconds
        What processes take to start and to import; less work than this is done here.

    Examples
    --------
    >>> list(Workers().map(pow, [(2, 3), (3, 2)]))
    [8, 9]
    """

    jobs: int = 1
    plugins: tuple[Path, ...] = ()
    start_seconds: float = 3.0
    _started: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the number."""
        if self.jobs < 1:
            raise InputError(f"Expected at least one job, but got {self.jobs}.")

    def map(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield what a function returns for each task, in their order.

        Processes are started once what is left, at the pace so far, would take longer than they
        take to start; from then on they do all tasks. Warnings of other processes are raised here.
        """
        done = 0
        begun = time.perf_counter()
        while done < len(tasks):
            left = len(tasks) - done
            pace = (time.perf_counter() - begun) / max(done, 1)
            if done and self.jobs > 1 and left > 1 and pace * left > self.start_seconds:
                self._started = True
            if self._started:
                yield from self._elsewhere(function, tasks[done:])
                return
            with one_thread():
                result = function(*tasks[done])
            done += 1
            yield result

    def _elsewhere(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[Any]:
        from joblib import Parallel, delayed, parallel_config

        plugins = tuple(dict.fromkeys((*loaded_plugins(), *self.plugins)))
        with parallel_config("loky", n_jobs=self.jobs, inner_max_num_threads=1):
            with _interrupts_ignored():
                results = Parallel(return_as="generator")(
                    delayed(_in_worker)(plugins, function, task) for task in tasks
                )
            for result, caught in results:
                for message, category in caught:
                    warnings.warn(message, category, stacklevel=3)
                yield result


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C while the block starts processes, which take after it for good.

    A terminal interrupts all processes: the first one ends the others, and they say nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_worker(
    plugins: tuple[Path, ...], function: Callable[..., Any], task: tuple[Any, ...]
) -> tuple[Any, list[tuple[str, type[Warning]]]]:
    _scores_from(plugins)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*task)
    return result, [(str(warning.message), warning.category) for warning in caught]


@cache
def _scores_from(plugins: tuple[Path, ...]) -> None:
    load_installed()
    for plugin in plugins:
        load_plugin(plugin)


# Measure scores with one draw of the shots: the same shots and images for all of them.


@dataclass(frozen=True)
class Measurement:
    """One score on one test set, with one draw of the shots."""

    dataset: str
    score: str
    shots: int
    draw: int
    result: ScoreResult
    correct: NDArray[np.bool_]
    values: Mapping[str, Any]
    settings: ScoreSettings

    def row(self) -> dict[str, Any]:
        """Return the cell as a flat row; undefined metrics are None."""
        return {
            "dataset": self.dataset,
            "score": self.score,
            "shots": self.shots,
            "draw": self.draw,
            **self.values,
        }

    def row_with_settings(self) -> dict[str, Any]:
        """Return the row with the score's parameters, and how some were selected, if they were."""
        chosen = self.settings.selection
        return {
            **self.row(),
            "parameters": {**get(self.score).parameters, **self.settings.parameters},
            **({} if chosen is None else {"selection": chosen.to_dict()}),
        }


def usable_scores(support: ArraySet, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the scores that these arrays have the evidence for; wanted ones must be.

    Names may be those of papers, such as `TrustVLM*`.

    Raises
    ------
    InputError, EvidenceMissingError
        If a wanted score does not exist, or lacks evidence.
    """
    evidence = _evidence(support)
    if wanted is None:
        return [name for name, needs in names().items() if all(map(evidence.has, needs))]
    chosen = list(dict.fromkeys(map(canonical_name, wanted)))
    for name in chosen:
        evidence.demand(get(name).needs, by=name)
    return chosen


def _evidence(support: ArraySet) -> Evidence:
    return support.rows(np.arange(1)).about(support.shots(np.arange(len(support))))


def warn_of_scores_left_out(support: ArraySet) -> None:
    """Warn, for each kind of evidence that these arrays lack, of the scores that need it."""
    evidence = _evidence(support)
    lacking: dict[tuple[str, ...], list[str]] = {}
    for name, needs in names().items():
        if missing := tuple(need for need in needs if not evidence.has(need)):
            lacking.setdefault(missing, []).append(name)
    for missing, left_out in lacking.items():
        warnings.warn(
            f"{support.name} has no {join_names([f'`{m}`' for m in missing], last='or')}: "
            f"{join_names(left_out)} {'is' if len(left_out) == 1 else 'are'} left out",
            TrustVLMWarning,
            stacklevel=3,
        )


def measure_draw(
    encoded: EncodedDataset,
    scores: Sequence[str],
    shots: int,
    draw: int,
    convention: str,
    fixed: dict[tuple[str, str], Measurement] | None = None,
) -> Iterator[Measurement]:
    """Measure scores with one draw of the shots, on every test set.

    Their parameters may be selected anew for these shots. `fixed` carries the scores that do not
    depend on shots from one call to the next.
    """
    fixed, tests = {} if fixed is None else fixed, encoded.tests
    evidence = encoded.support.shots(encoded.draws[shots, draw])
    settings = encoded.tuning.settings(scores, evidence)
    fixed_already = {
        name
        for name in scores
        if not any(need in OF_SHOTS for need in get(name).needs)
        and all((test.name, name) in fixed for test in tests)
    }
    prepared = {
        name: prepare(name, evidence, **settings[name].parameters)
        for name in scores
        if name not in fixed_already
    }
    results = {test.name: score_together(prepared, test.about(evidence)) for test in tests}
    for name in scores:
        for test in tests:
            if name in fixed_already:
                yield replace(fixed[test.name, name], shots=shots, draw=draw)
                continue
            result = results[test.name][name]
            correct = result.prediction == test.labels
            values = metric_values(result.confidence, correct, convention)
            fixed[test.name, name] = Measurement(
                test.name, name, shots, draw, result, correct, values, settings[name]
            )
            yield fixed[test.name, name]


def metric_values(confidence: ArrayLike, correct: ArrayLike, convention: str) -> dict[str, Any]:
    """Return metrics as a row has them: fractions, None where undefined, and the count."""
    with warnings.catch_warnings():
        # That a metric is undefined the rows say themselves.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        evaluation = metrics.evaluate(confidence, correct, convention=convention)
    values: dict[str, Any] = nan_to_null({n: getattr(evaluation, n) for n in metrics.names()})
    return {**values, "n": evaluation.n}


# Compare scores on arrays: every score, number of shots and draw, on the same images.

ROW_KEYS = ("dataset", "score", "shots", "draw", *metrics.METRICS, "n")
"""Keys of a row; where metrics are registered, theirs stand before `n`."""


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
        `parameters`, as with `parameters` given, and, where something was selected, `selection`.
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
    if validation is not None:
        same_classes(support, validation)
    tuning = Tuning(preset, parameters or {}, validation)
    chosen = usable_scores(support, scores)
    if scores is None:
        warn_of_scores_left_out(support)
    encoded = replace(EncodedDataset.from_arrays(support, tests, shots, draws), tuning=tuning)
    used = support.rows(np.unique(np.concatenate(list(encoded.draws.values()))))
    if tuning.selects:
        refuse_shared_images(used, tests, validation)
    else:
        warn_of_shared_images(used, tests)
    study, largest = StudyResult(), max(shots)
    shown = tuning.selects or bool(tuning.parameters)
    total, done = len(tests) * len(shots) * draws * len(chosen), 0
    # Filled by the first cells: scores of the logits alone are computed once.
    fixed: dict[tuple[str, str], Measurement] = {}
    tasks = [(encoded, chosen, *point, convention, fixed) for point in encoded.draws]
    for cells in (workers or Workers()).map(_measure_all, tasks):
        for cell in cells:
            study.rows.append(cell.row_with_settings() if shown else cell.row())
            if cell.draw == 0 and cell.shots == largest:
                study.verdicts[cell.dataset, cell.score] = cell.result
                study.correct[cell.dataset, cell.score] = cell.correct
            done += 1
            if progress is not None:
                progress(done, total)
    return study


def _measure_all(*task: Any) -> list[Measurement]:
    return list(measure_draw(*task))
