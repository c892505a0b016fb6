"""Run a grid: every finished cell is on disk, so an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trustvlm
from trustvlm.benchmark.config import BenchConfig, Cell
from trustvlm.benchmark.encoding import EncodedSet, encode_set
from trustvlm.benchmark.results import Classes
from trustvlm.benchmark.study import measure_draw, usable_scores
from trustvlm.benchmark.tuning import Tuning
from trustvlm.embeddings import EmbeddingStore, Progress
from trustvlm.exceptions import TrustVLMError
from trustvlm.files import atomic_path, write_text
from trustvlm.pipeline.encoders import Encoders, describe
from trustvlm.scores import get, names

__all__ = ["Grid", "run_grid"]

SampleKey = tuple[str, str, tuple[str, str, str]]


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
    computed
        How many cells were not on disk yet.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[SampleKey, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    classes: dict[str, Classes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    computed: int = 0


def run_grid(
    config: BenchConfig,
    *,
    store: EmbeddingStore | None = None,
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
    on_cell, on_image
        Progress callbacks: cells done and in all; as in `encode_images`.

    Raises
    ------
    TrustVLMError
        If a model cannot be loaded. What fails inside a cell is a row with its error.
    """
    store = EmbeddingStore() if store is None else store
    cells, grid = config.cells(), Grid()
    done = 0
    for (models, protocol), of_models in _grouped(cells, lambda c: (c.models, c.protocol)):
        encoders = Encoders.load(
            models.vlm,
            models.vision,
            protocol=protocol,
            device=config.device,
            precision=config.precision,
        )
        grid.notes += [note for note in encoders.notes() if note not in grid.notes]
        settings = _settings(config, encoders, protocol)
        for dataset, points in _grouped(of_models, lambda c: c.dataset):
            try:
                encoded = encode_set(
                    dataset,
                    models,
                    encoders,
                    store,
                    [(point.shots, point.draw) for point in points],
                    on_image,
                    validation=config.preset == "validation",
                )
            except TrustVLMError as error:
                grid.rows += [row for point in points for row in _failed(point, error)]
                done += len(points)
                continue
            for test in encoded.tests:
                grid.classes[test.name] = Classes(test.labels, test.class_names)
            for point in points:
                file = _cell_file(config, settings, encoded, point)
                if not file.is_file():
                    _run_cell(config, settings, encoded, point, file)
                    grid.computed += 1
                _gather(grid, file, point, config)
                done += 1
                if on_cell is not None:
                    on_cell(done, len(cells))
    return grid


def _grouped(cells: list[Cell], key: Callable[[Cell], Any]) -> Iterator[tuple[Any, list[Cell]]]:
    # Groups in the order of their first cell: what shares encoders runs together.
    order = {value: i for i, value in enumerate(dict.fromkeys(repr(key(c)) for c in cells))}
    ordered = sorted(cells, key=lambda c: order[repr(key(c))])
    for _, group in groupby(ordered, key=lambda c: repr(key(c))):
        members = list(group)
        yield key(members[0]), members


def _settings(config: BenchConfig, encoders: Encoders, protocol: str) -> dict[str, Any]:
    return {
        "trustvlm": trustvlm.__version__,
        "vlm": dict(describe(encoders.vlm)),
        "vision": dict(describe(encoders.vision)),
        "logit_scale": float(encoders.vlm.logit_scale),
        "protocol": protocol,
        "precision": config.precision,
        "convention": config.convention,
    }


def _cell_file(
    config: BenchConfig, settings: dict[str, Any], encoded: EncodedSet, cell: Cell
) -> Path:
    """Name a cell by everything that can change its rows, the images' content included."""
    content = {
        "settings": settings,
        "images": encoded.digest,
        "name": cell.dataset.name,
        "shots": cell.shots,
        "draw": cell.draw,
        "scores": {name: get(name).formula for name in config.scores or names()},
        "parameters": config.parameters_of(cell.dataset),
        **_tuning(config, encoded, cell).identity(),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    return config.out / "cells" / f"{key}.json"


def _tuning(config: BenchConfig, encoded: EncodedSet, cell: Cell) -> Tuning:
    return Tuning(config.preset, config.parameters_of(cell.dataset), encoded.validation)


def _about(cell: Cell, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "vlm": cell.models.vlm,
        "vision": cell.models.vision,
        "protocol": cell.protocol,
    }
    if settings is not None:
        about["convention"] = settings["convention"]
        about["versions"] = {"trustvlm": settings["trustvlm"], "numpy": np.__version__}
        about["fingerprints"] = [settings[role]["fingerprint"] for role in ("vlm", "vision")]
    return about


def _run_cell(
    config: BenchConfig, settings: dict[str, Any], encoded: EncodedSet, cell: Cell, file: Path
) -> None:
    rows, samples = _measured(config, cell, encoded)
    if cell.draw == 0:
        with atomic_path(file.with_suffix(".npz")) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, **samples)
    # Written last: a cell is finished when its rows are there.
    about = _about(cell, settings)
    write_text(file, json.dumps([{**row, **about} for row in rows], allow_nan=False))


def _measured(
    config: BenchConfig, cell: Cell, encoded: EncodedSet
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    samples: dict[str, Any] = {}
    chosen = usable_scores(encoded.support, config.scores or None)
    measured = measure_draw(
        encoded.support,
        encoded.tests,
        chosen,
        cell.shots,
        cell.draw,
        config.convention,
        _tuning(config, encoded, cell),
        chosen=encoded.draws[cell.shots, cell.draw],
    )
    for found in measured:
        rows.append({**found.row(), **found.settings()})
        samples[f"{found.dataset}|{found.score}|confidence"] = found.result.confidence
        samples[f"{found.dataset}|{found.score}|correct"] = found.correct
    return rows, samples


def _failed(cell: Cell, error: TrustVLMError) -> list[dict[str, Any]]:
    return [
        {
            "dataset": f"{cell.dataset.name}/{split}",
            "score": None,
            "shots": cell.shots,
            "draw": cell.draw,
            **_about(cell),
            "error": str(error),
        }
        for split in list(cell.dataset.tests) or ["test"]
    ]


def _gather(grid: Grid, file: Path, cell: Cell, config: BenchConfig) -> None:
    grid.rows += json.loads(file.read_text(encoding="utf-8"))
    if cell.draw or cell.shots != max(config.shots):
        return
    setting = (cell.models.vlm, cell.models.vision, cell.protocol)
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        for key in stored.files:
            dataset, score, part = key.split("|")
            if part == "confidence":
                correct = stored[f"{dataset}|{score}|correct"]
                grid.samples[dataset, score, setting] = (stored[key], correct)
