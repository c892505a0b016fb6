"""The experiment grid as a TOML file: read, checked and expanded before any forward pass."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from trustvlm import datasets, metrics
from trustvlm.benchmark.tuning import PRESETS
from trustvlm.exceptions import InputError
from trustvlm.pipeline.records import PROTOCOLS
from trustvlm.pipeline.select import SELECTABLE
from trustvlm.scores import check_parameters, get, names


@dataclass(frozen=True)
class SetConfig:
    """One data set: where its shots come from, and what is tested.

    Attributes
    ----------
    name
        For tables.
    train
        Folder of class folders, or CSV of path and label, that shots are drawn from.
    tests
        The same, to test on, by the name of the split.
    validation
        The same, to select settings on; None if there is none.
    classes
        File of class names; None takes the folder names.
    root, splits_dir
        For a set of the catalogue (`trustvlm datasets`): the folder that holds all data sets, and
        perhaps another one with their split files. Then `train` and `tests` are not given.
    """

    name: str
    train: Path | None = None
    tests: Mapping[str, Path] = field(default_factory=dict)
    validation: Path | None = None
    classes: Path | None = None
    root: Path | None = None
    splits_dir: Path | None = None


@dataclass(frozen=True)
class ModelPair:
    """A VLM and the encoder that verifies it."""

    vlm: str
    vision: str
    prompt: str | tuple[str, ...] | None = None


@dataclass(frozen=True)
class Cell:
    """One point of the grid, for all scores at once: they share its shots and images."""

    dataset: SetConfig
    models: ModelPair
    protocol: str
    shots: int
    draw: int


@dataclass(frozen=True)
class BenchConfig:
    """A whole study.

    Attributes
    ----------
    name
        Title of the page.
    out
        Folder for rows, cells, tables and figures.
    datasets, models, protocols, shots, draws
        The axes of the grid.
    scores
        Names; empty takes every score that the evidence allows.
    parameters
        A score's own parameters, by its name.
    preset
        `untuned` (the scores' defaults, r=1 and T=0.01) or `paper` (for sets of the catalogue, the
        values of the released commands; how those were chosen is not documented); or `loo` or
        `validation`, which select them for every draw on the shots, or on the set's validation
        images.
    convention
        Of the metrics.
    studies
        Names of further studies on the same images (`trustvlm bench study`); each is shown where
        the data sets and the scores allow it.
    """

    name: str
    out: Path
    datasets: tuple[SetConfig, ...]
    models: tuple[ModelPair, ...]
    protocols: tuple[str, ...] = ("clean",)
    shots: tuple[int, ...] = (16,)
    draws: int = 1
    scores: tuple[str, ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset: str = "untuned"
    convention: str = "exact"
    studies: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "float32"

    def parameters_of(self, dataset: SetConfig) -> dict[str, dict[str, Any]]:
        """Return each score's parameters for one data set; what the user wrote comes first."""
        chosen: dict[str, dict[str, Any]] = {}
        if self.preset == "paper" and dataset.root is not None:
            released = datasets.preset(dataset.name)
            given = {name: value for name, value in released.items() if value is not None}
            for score in SELECTABLE:
                known = get(score).parameters
                chosen[score] = {k: v for k, v in given.items() if k in known}
        for score, settings in self.parameters.items():
            chosen[score] = {**chosen.get(score, {}), **settings}
        return chosen

    def cells(self) -> list[Cell]:
        """Expand the grid; the cells of one data set and model stand together."""
        axes = product(self.datasets, self.models, self.protocols, self.shots, range(self.draws))
        return [Cell(*point) for point in axes]


_KEYS = {
    "name",
    "out",
    "datasets",
    "models",
    "protocols",
    "shots",
    "draws",
    "scores",
    "parameters",
    "preset",
    "convention",
    "studies",
    "device",
    "precision",
}


def read_config(path: str | os.PathLike[str]) -> BenchConfig:
    """Read a study from TOML; paths in it are relative to the file.

    Raises
    ------
    InputError
        If the file cannot be read, a key is unknown or missing, or a value makes no sense. The
        message names the key.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    try:
        return _config(content, path.parent, path.stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _config(content: dict[str, Any], base: Path, stem: str) -> BenchConfig:
    _check_keys("the file", content, _KEYS, needed={"datasets", "models"})
    scores = content.get("scores", "all")
    chosen = () if scores == "all" else tuple(_texts("scores", scores))
    for name in chosen or names():
        get(name)
    parameters = content.get("parameters", {})
    for name, settings in parameters.items():
        check_parameters(name, settings)
    shots = content.get("shots", [16])
    draws = content.get("draws", 1)
    if not isinstance(shots, list) or not shots or not all(_whole(n) for n in shots):
        raise InputError(f"Expected `shots` to be a list of whole numbers, but got {shots!r}.")
    if not _whole(draws):
        raise InputError(f"Expected `draws` to be a whole number of at least 1, but got {draws!r}.")
    sets = tuple(_set(entry, base) for entry in _tables("datasets", content["datasets"]))
    preset = _among("preset", [content.get("preset", "untuned")], PRESETS)[0]
    if preset == "validation":
        _check_validation(sets)
    return BenchConfig(
        name=str(content.get("name", stem)),
        out=base / str(content.get("out", f"{stem}-results")),
        datasets=sets,
        models=tuple(_pair(entry) for entry in _tables("models", content["models"])),
        protocols=_among("protocols", content.get("protocols", ["clean"]), PROTOCOLS),
        shots=tuple(sorted(set(shots))),
        draws=draws,
        scores=chosen,
        parameters=parameters,
        preset=preset,
        convention=_among("convention", [content.get("convention", "exact")], metrics.CONVENTIONS)[
            0
        ],
        studies=_studies(content.get("studies", "all")),
        device=str(content.get("device", "auto")),
        precision=str(content.get("precision", "float32")),
    )


def _studies(value: Any) -> tuple[str, ...]:
    # The studies work on what this module describes.
    from trustvlm.benchmark.studies import STUDIES

    if value in ("all", []):
        return tuple(STUDIES) if value else ()
    return _among("studies", value, tuple(STUDIES))


def _set(entry: dict[str, Any], base: Path) -> SetConfig:
    if "root" in entry:
        return _catalogued(entry, base)
    known = {"name", "train", "val", "test", "classes"}
    _check_keys("[[datasets]]", entry, known, {"train", "test"})
    train = base / str(entry["train"])
    name = str(entry.get("name", train.parent.name or train.name))
    tests = entry["test"]
    if not isinstance(tests, dict):
        listed = [tests] if isinstance(tests, str) else list(_texts("test", tests))
        tests = {Path(test).stem: test for test in listed}
    validation, classes = entry.get("val"), entry.get("classes")
    found = SetConfig(
        name=name,
        train=train,
        tests={split: base / str(test) for split, test in tests.items()},
        validation=None if validation is None else base / str(validation),
        classes=None if classes is None else base / str(classes),
    )
    others = [place for place in (found.validation, found.classes) if place is not None]
    for place in (train, *found.tests.values(), *others):
        if not place.exists():
            raise InputError(f"The data set `{name}` names {place}, which does not exist.")
    return found


def _catalogued(entry: dict[str, Any], base: Path) -> SetConfig:
    _check_keys("[[datasets]]", entry, {"name", "root", "splits_dir"}, {"name", "root"})
    splits = entry.get("splits_dir")
    return SetConfig(
        name=datasets.get(str(entry["name"])).name,
        root=base / str(entry["root"]),
        splits_dir=None if splits is None else base / str(splits),
    )


def _check_validation(sets: Iterable[SetConfig]) -> None:
    for found in sets:
        if found.root is not None and "val" not in datasets.get(found.name).splits:
            raise InputError(
                f"The preset `validation` needs validation images, and `{found.name}` has none: "
                'take preset = "loo", which selects on the shots.'
            )
        if found.root is None and found.validation is None:
            raise InputError(
                f"The preset `validation` needs validation images of `{found.name}`: name their "
                'folder with val = "...", or take preset = "loo", which selects on the shots.'
            )


def _pair(entry: dict[str, Any]) -> ModelPair:
    _check_keys("[[models]]", entry, {"vlm", "vision", "prompt"}, {"vlm", "vision"})
    prompt = entry.get("prompt")
    if isinstance(prompt, list):
        prompt = tuple(_texts("prompt", prompt))
    return ModelPair(str(entry["vlm"]), str(entry["vision"]), prompt)


def _check_keys(where: str, entry: dict[str, Any], known: set[str], needed: set[str]) -> None:
    unknown, missing = sorted(set(entry) - known), sorted(needed - set(entry))
    if unknown or missing:
        problem = f"does not know `{unknown[0]}`" if unknown else f"needs `{missing[0]}`"
        raise InputError(f"{where} {problem}; it takes {', '.join(sorted(known))}.")


def _tables(key: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise InputError(f"Expected `{key}` to be tables, [[{key}]], but got {value!r}.")
    return value


def _texts(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise InputError(f"Expected `{key}` to be a list of texts, but got {value!r}.")
    return value


def _among(key: str, values: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    for value in _texts(key, values):
        if value not in known:
            raise InputError(f"Expected `{key}` among {', '.join(known)}, but got {value!r}.")
    return tuple(values)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
