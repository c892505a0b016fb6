"""Verdicts as a folder that FiftyOne imports, and the labels it exports; neither needs FiftyOne.

Format: `FiftyOneImageClassificationDataset` of https://docs.voxel51.com/user_guide/import_datasets.html
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trustvlm.adapters.annotations import (
    Annotation,
    checked,
    classes_to_choose,
    parse_json,
    read_bounded,
    to_review,
    without_nothing,
    write_json,
)
from trustvlm.exceptions import InputError
from trustvlm.images.locations import Location
from trustvlm.images.references import shown
from trustvlm.pipeline.verdict import Verdict, Verdicts

_ATTRIBUTES = (
    *("p_correct", "decision", "text_score", "image_score", "runner_up", "reason"),
    *("vlm_label", "corrected"),
)


def write_fiftyone(
    verdicts: Verdicts | Sequence[Verdict],
    folder: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] = ".",
    only: str | None = None,
    classes: Sequence[str] | None = None,
) -> Path:
    """Write `data.json` and `labels.json` of a `FiftyOneImageClassificationDataset`.

    Images stay where they are: `data.json` holds their absolute paths. Trust is the confidence of
    each label; P(correct), the decision, the reason and so on are its attributes, and `predicted`
    is the label once more, for it to be told from one that a person put there. Images with an error
    are left out. The most doubtful come first.

    Parameters
    ----------
    verdicts
        What `predict` returned.
    folder
        Where to write.
    images
        The folder that the verdicts' paths are relative to, as `predict` was given it.
    only
        `review` or `accept`: leave other images out.
    classes
        To choose from; by default those that the verdicts name.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If no verdict is left.

    Notes
    -----
    Import it with `fiftyone.Dataset.from_dir(folder, dataset_type=..., data_path="data.json")`, the
    type being `fiftyone.types.FiftyOneImageClassificationDataset`.

    The format is that of FiftyOne's documentation; versions that know no attributes pass over them.
    """
    everything = list(verdicts)
    rows = to_review(everything, only)
    given = classes_to_choose(classes, everything) if classes is not None else []
    names_of_classes = sorted({*given, *(row.label for row in rows)})
    index = {name: i for i, name in enumerate(names_of_classes)}
    # Numbers as names: a path with dots would lose its end, where extensions are dropped.
    names = [f"{i:08d}" for i in range(len(rows))]
    base = Path(images).absolute()
    data = {
        name: row.path if Location(row.path).is_url else str(base / row.path)
        for name, row in zip(names, rows, strict=True)
    }
    labels = {
        name: without_nothing({"label": index[row.label], "confidence": row.confidence})
        | {"attributes": _attributes(row)}
        for name, row in zip(names, rows, strict=True)
    }
    target = Path(folder)
    write_json(target / "data.json", data)
    write_json(target / "labels.json", {"classes": names_of_classes, "labels": labels})
    return target


def _attributes(row: Verdict) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _ATTRIBUTES}
    return without_nothing(values | {"predicted": row.label})


def read_fiftyone(source: str | os.PathLike[str]) -> list[Annotation]:
    """Read the labels of an exported `FiftyOneImageClassificationDataset`.

    A label that still is the `predicted` one of its attributes counts as unchanged.

    Parameters
    ----------
    source
        The folder, or `labels.json` in it. Which image a label is of says the key, if it is an
        absolute path, or `data.json`, or else the folder `data` with copies of the images.

    Raises
    ------
    InputError
        If it is no such export, or does not say which images the labels are of.
    """
    from pydantic import BaseModel, TypeAdapter

    class Label(BaseModel):
        label: int | str
        attributes: dict[str, Any] = {}

    class Labels(BaseModel):
        classes: list[str] | None = None
        labels: dict[str, Label | list[Label | int | str] | int | str | None]

    file = Path(source)
    if file.is_dir():
        file = file / "labels.json"
        if not file.exists():
            raise InputError(
                f"Expected {shown(file.parent)!r} to be a data set that FiftyOne exported, but it "
                "holds no labels.json."
            )
    name = shown(file)
    content = parse_json(read_bounded(Location(os.fspath(file))), name)
    dataset: Labels = checked(TypeAdapter(Labels), content, "labels of FiftyOne", name)
    paths = _paths_of(file.parent, dataset.labels)

    def text(label: int | str) -> str:
        if isinstance(label, str):
            return label
        if not 0 <= label < len(dataset.classes or ()):
            raise InputError(f"Expected a class number {label} in {name!r}, but there is none.")
        return (dataset.classes or [])[label]

    annotations = []
    for key, value in dataset.labels.items():
        if key not in paths:
            raise InputError(
                f"Expected {name!r} to say which image {shown(key)!r} is, but it does not. "
                "Export with abs_paths=True."
            )
        several = value if isinstance(value, list) else [value] if value is not None else []
        objects = [one if isinstance(one, Label) else Label(label=one) for one in several]
        labels = tuple(text(one.label) for one in objects)
        predicted = str(objects[0].attributes.get("predicted") or "") if objects else ""
        unchanged = labels == (predicted,)
        annotations.append(Annotation(paths[key], labels, predicted=predicted, unchanged=unchanged))
    return annotations


def _paths_of(folder: Path, keys: Iterable[str]) -> dict[str, str]:
    from pydantic import TypeAdapter

    paths = {key: key for key in keys if Path(key).is_absolute() or Location(key).is_url}
    manifest = folder / "data.json"
    if manifest.is_file():
        content = parse_json(read_bounded(Location(os.fspath(manifest))), shown(manifest))
        adapter = TypeAdapter(dict[str, str])
        of_keys: dict[str, str] = checked(adapter, content, "paths by name", shown(manifest))
        return paths | of_keys
    for file in sorted((folder / "data").rglob("*")):
        key = file.relative_to(folder / "data").with_suffix("").as_posix()
        if file.is_file() and paths.setdefault(key, str(file.absolute())) != str(file.absolute()):
            raise InputError(
                f"Expected names in {shown(folder / 'data')!r} that differ in more than their "
                f"endings, but {shown(key)!r} is there twice. Export with abs_paths=True."
            )
    return paths
