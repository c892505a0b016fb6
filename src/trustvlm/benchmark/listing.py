"""What images a data set of a study has, before any of them is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import datasets
from trustvlm.benchmark.config import SetConfig
from trustvlm.images import ClassList, ImageSource, find_labelled, read_classes

__all__ = ["ListedSet", "ListedSplit", "list_set"]


@dataclass(frozen=True)
class ListedSplit:
    """n images and their class indices."""

    refs: Sequence[ImageSource]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ListedSet:
    """The images that shots are drawn from, those to test on, and perhaps to select on."""

    class_names: tuple[str, ...]
    train: ListedSplit
    tests: Mapping[str, ListedSplit]
    validation: ListedSplit | None = None


def list_set(dataset: SetConfig, *, validation: bool = False) -> ListedSet:
    """List the images of folders, CSVs, or one of the catalogue's sets.

    Parameters
    ----------
    dataset
        What the study says of it.
    validation
        Whether the validation images are wanted.

    Raises
    ------
    InputError
        If something is missing, or labels and classes do not fit.
    """
    if dataset.root is not None:
        options: dict[str, Any] = {"splits_dir": dataset.splits_dir}
        shots = datasets.load_shots(dataset.name, dataset.root, **options)
        test = datasets.load(dataset.name, dataset.root, "test", **options)
        val = datasets.load(dataset.name, dataset.root, "val", **options) if validation else None
        return ListedSet(
            class_names=tuple(test.class_names),
            train=ListedSplit(shots.refs, shots.labels),
            tests={"test": ListedSplit(test.refs, test.labels)},
            validation=None if val is None else ListedSplit(val.refs, val.labels),
        )
    assert dataset.train is not None  # noqa: S101 -- the configuration has a root or folders
    found = find_labelled(dataset.train)
    classes = read_classes(found.classes if dataset.classes is None else dataset.classes)
    return ListedSet(
        class_names=tuple(classes.names),
        train=ListedSplit(found.refs, classes.indices(found.labels)),
        tests={split: _split(path, classes) for split, path in dataset.tests.items()},
        validation=_split(dataset.validation, classes)
        if validation and dataset.validation is not None
        else None,
    )


def _split(path: Path, classes: ClassList) -> ListedSplit:
    found = find_labelled(path)
    return ListedSplit(found.refs, classes.indices(found.labels))
