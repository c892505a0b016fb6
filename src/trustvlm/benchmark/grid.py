"""Run a grid: every finished cell is on disk, so an interrupted one goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.config import BenchConfig
from trustvlm.benchmark.encoded import Material, Unavailable, materials
from trustvlm.benchmark.results import Classes, cell_file, read_cell, write_cell
from trustvlm.benchmark.run import Workers, measure_draw, one_thread, usable_scores
from trustvlm.benchmark.studies import STUDIES, Plan, Study
from trustvlm.benchmark.studies.runner import Answers
from trustvlm.embeddings import EmbeddingStore, Progress
from trustvlm.files import atomic_path
from trustvlm.scores import get, names

SampleKey = tuple[str, str, tuple[str, str, str]]
Point = tuple[int, int]


@dataclass
class Grid:
    """What a grid found.

    Attributes
    ----------
    rows
        One dict per test split, score, model pair, protocol, number of shots and draw; a failed
        cell is a row with `error`.
    samples
        Confidence and correctness of draw 0 at the most shots, by dataset, score and (vlm, vision,
        protocol).
    classes
        True classes and class names by dataset.
    notes
        Warnings of the models, to show wherever their numbers are.
    answers
        What the further studies found on the same images.
    computed
        How many cells were not on disk yet.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[SampleKey, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    classes: dict[str, Classes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    answers: Answers = field(default_factory=lambda: Answers((), Plan()))
    computed: int = 0


def run_grid(
    config: BenchConfig,
    *,
    store: EmbeddingStore | None = None,
    workers: Workers | None = None,
    on_cell: Callable[[int, int], None] | None = None,
    on_image: Progress | None = None,
) -> Grid:
    """Run every cell of the grid that is not finished, and gather all rows.

    Parameters
    ----------
    config
        The study, already checked.
    store
        Where embeddings are kept; by default the user's cache folder.
    workers
        Processes that share the cells; by default this one alone.
    on_cell, on_image
        Progress callbacks: cells done and in all; as in `encode_images`.

    Raises
    ------
    TrustVLMError
        If a model cannot be loaded. What fails inside a cell is a row with its error.
    """
    store = EmbeddingStore() if store is None else store
    grid, done = Grid(answers=Answers(_further(config), plan_of(config), config.out)), 0
    points = list(product(config.shots, range(config.draws)))
    total = len(config.cells())
    for found in materials(config, store, notes=grid.notes, on_image=on_image):
        if isinstance(found, Unavailable):
            grid.rows += [row for point in points for row in _failed(found, point)]
            done += len(points)
            continue
        for test in found.tests:
            grid.classes[test.name] = Classes(test.labels, test.class_names)
        files = {point: cell_file(config.out, _content(config, found, point)) for point in points}
        missing = [point for point, file in files.items() if not file.is_file()]
        done += len(points) - len(missing)
        tasks = [(config, found, point, files[point]) for point in missing]
        for _ in (workers or Workers()).map(_run_cell, tasks):
            grid.computed += 1
            done += 1
            if on_cell is not None:
                on_cell(done, total)
        if on_cell is not None:
            on_cell(done, total)
        for point, file in files.items():
            _gather(grid, file, found, point, config)
        with one_thread():
            grid.answers.add(found)
    return grid


def plan_of(config: BenchConfig) -> Plan:
    """Return what the studies of a configuration may vary."""
    return Plan(config.shots, config.draws, config.convention, scores=config.scores)


def _further(config: BenchConfig) -> list[Study]:
    return [STUDIES[name] for name in config.studies if not STUDIES[name].of_the_grid]


def _content(config: BenchConfig, material: Material, point: Point) -> dict[str, Any]:
    shots, draw = point
    return {
        **material.identity,
        "shots": shots,
        "draw": draw,
        "scores": {name: get(name).formula for name in config.scores or names()},
    }


def _run_cell(config: BenchConfig, material: Material, point: Point, file: Path) -> None:
    rows, samples = _measured(config, material, point)
    if point[1] == 0:
        with atomic_path(file.with_suffix(".npz")) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, **samples)
    # Written last: a cell is finished when its rows are there.
    write_cell(file, [{**row, **material.about} for row in rows])


def _measured(
    config: BenchConfig, material: Material, point: Point
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    samples: dict[str, Any] = {}
    measured = measure_draw(
        material.support,
        material.tests,
        usable_scores(material.support, config.scores or None),
        *point,
        config.convention,
        material.tuning,
        chosen=material.draws[point],
    )
    for found in measured:
        rows.append({**found.row(), **found.settings()})
        samples[f"{found.dataset}|{found.score}|confidence"] = found.result.confidence
        samples[f"{found.dataset}|{found.score}|correct"] = found.correct
    return rows, samples


def _failed(found: Unavailable, point: Point) -> list[dict[str, Any]]:
    shots, draw = point
    return [
        {
            "dataset": f"{found.dataset.name}/{split}",
            "score": None,
            "shots": shots,
            "draw": draw,
            **found.setting._asdict(),
            "error": str(found.error),
        }
        for split in list(found.dataset.tests) or ["test"]
    ]


def _gather(grid: Grid, file: Path, material: Material, point: Point, config: BenchConfig) -> None:
    grid.rows += read_cell(file)
    shots, draw = point
    if draw or shots != max(config.shots):
        return
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        for key in stored.files:
            dataset, score, part = key.split("|")
            if part == "confidence":
                correct = stored[f"{dataset}|{score}|correct"]
                grid.samples[dataset, score, material.setting] = (stored[key], correct)
