"""Classes of whole images in COCO's JSON.

COCO itself annotates objects. For whole images the convention is the one that Datumaro calls
`coco_labels` and FiftyOne reads with `label_type="classifications"`: an annotation has an
`image_id` and a `category_id`, and no `bbox`. A `score` marks a prediction, as in COCO's results.
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
    image_size,
    parse_json,
    to_review,
    without_nothing,
    write_json,
)
from trustvlm.exceptions import InputError
from trustvlm.pipeline.verdict import Verdict

_ATTRIBUTES = ("confidence", "p_correct", "decision", "runner_up", "reason")


def write_coco(
    verdicts: Iterable[Verdict],
    file: str | os.PathLike[str],
    *,
    only: str | None = None,
    classes: Sequence[str] | None = None,
    images: str | os.PathLike[str] = ".",
) -> Path:
    """Write images, categories and one annotation an image.

    `score` is P(correct), or confidence without it; both, the decision and the reason are
    `attributes` of the annotation. Numbers start at 1: some readers take 0 for the background.

    Parameters
    ----------
    verdicts
        What `predict` or `verify` returned.
    file
        A name that ends in `.json`.
    only
        `review` or `accept`: leave other images out.
    classes
        The categories; by default those that the verdicts name.
    images
        The folder that the verdicts' paths are relative to, for widths and heights; these are left
        out where an image cannot be read there.

    Raises
    ------
    InputError
        If no image is left.
    """
    rows = list(verdicts)
    numbers = {name: i for i, name in enumerate(classes_to_choose(classes, rows), start=1)}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(to_review(rows, only), start=1):
        size = image_size(row.path, Path(images))
        sides = {} if size is None else {"width": size[0], "height": size[1]}
        entries.append({"id": number, "file_name": row.path, **sides})
        if row.label not in numbers:
            continue
        attributes = without_nothing({name: getattr(row, name) for name in _ATTRIBUTES})
        scores = [attributes[name] for name in ("p_correct", "confidence") if name in attributes]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": numbers[row.label],
                **({"score": scores[0]} if scores else {}),
                "attributes": attributes,
            }
        )
    categories = [{"id": i, "name": name, "supercategory": ""} for name, i in numbers.items()]
    content = {
        "info": {"description": "Verdicts of trustvlm"},
        "licenses": [],
        "images": entries,
        "categories": categories,
        "annotations": annotations,
    }
    write_json(file, content)
    return Path(file)


def read_coco(content: bytes, name: str) -> list[Annotation]:
    """Read the categories of images; several annotations of one category count as one.

    Raises
    ------
    InputError
        If it is no such file, two images have one number, or an annotation names no image or
        category.
    """
    from pydantic import BaseModel, TypeAdapter

    class Image(BaseModel):
        id: int | str
        file_name: str

    class Category(BaseModel):
        id: int | str
        name: str

    class Label(BaseModel):
        image_id: int | str
        category_id: int | str
        score: float | None = None

    class Coco(BaseModel):
        images: list[Image]
        categories: list[Category]
        annotations: list[Label]

    coco: Coco = checked(TypeAdapter(Coco), parse_json(content, name), "COCO's JSON", name)
    paths = _by_number(((image.id, image.file_name) for image in coco.images), "images", name)
    names = _by_number(((one.id, one.name) for one in coco.categories), "categories", name)
    labels: dict[int | str, list[Label]] = {number: [] for number in paths}
    for label in coco.annotations:
        for number, of, what in (
            (label.image_id, paths, "image"),
            (label.category_id, names, "category"),
        ):
            if number not in of:
                raise InputError(f"Expected an {what} {number!r} in {name!r}, but there is none.")
        labels[label.image_id].append(label)
    annotations = []
    for number, path in paths.items():
        by_people = [label for label in labels[number] if label.score is None]
        predicted = [label for label in labels[number] if label.score is not None]
        annotations.append(
            Annotation(
                path,
                tuple(dict.fromkeys(names[x.category_id] for x in by_people or predicted)),
                predicted=names[predicted[0].category_id] if predicted else "",
                unchanged=not by_people,
            )
        )
    return annotations


def _by_number(pairs: Iterable[tuple[Any, str]], what: str, name: str) -> dict[Any, str]:
    result: dict[Any, str] = {}
    for number, value in pairs:
        if result.setdefault(number, value) != value:
            raise InputError(
                f"Expected {what} of different numbers in {name!r}, but {number!r} is there twice."
            )
    return result
