"""Tasks and answers of Label Studio: its JSON with predictions, its JSON, JSON-MIN and CSV exports.

Formats: https://labelstud.io/guide/tasks (tasks), /guide/predictions and /guide/export.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from trustvlm.adapters.annotations import (
    Annotation,
    checked,
    classes_to_choose,
    image_url,
    parse_json,
    path_of_url,
    to_review,
    without_nothing,
    write_json,
    xml_text,
)
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.pipeline.verdict import Verdict

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files below its `LOCAL_FILES_DOCUMENT_ROOT`."""

_FIELDS = ("confidence", "p_correct", "decision", "runner_up", "reason")
# Above so many classes a list to search in is shown instead of all at once.
_MANY = 30


def write_label_studio(
    verdicts: Iterable[Verdict],
    file: str | os.PathLike[str],
    *,
    only: str | None = None,
    classes: Sequence[str] | None = None,
    url_prefix: str = LOCAL_FILES,
    model_version: str = "trustvlm",
    from_name: str = "label",
    to_name: str = "image",
) -> tuple[Path, Path]:
    """Write tasks with predictions to import, and the labelling set-up beside them.

    The label of each verdict is the prediction, shown before a person answers; P(correct), or
    confidence without it, is its score. Paths, decisions and reasons are data of the task.

    Parameters
    ----------
    verdicts
        What `predict` or `verify` returned.
    file
        A name that ends in `.json`; the set-up goes into `.config.xml` of the same name.
    only
        `review` or `accept`: leave other images out.
    classes
        To choose from; by default those that the verdicts name.
    url_prefix
        Put before each path: where Label Studio finds the images.
    model_version
        Who predicted.
    from_name, to_name
        What the choices and the image are called in the set-up.

    Returns
    -------
    tuple of Path
        Tasks and set-up.

    Raises
    ------
    InputError
        If no image is left, or a name is one of the task's own data.
    """
    if from_name in _DATA or not from_name:
        raise InputError(
            f"Expected the choices to be called otherwise than data of the tasks "
            f"({', '.join(sorted(_DATA))}), but got {from_name!r}."
        )
    rows = list(verdicts)
    names = classes_to_choose(classes, rows)
    tasks = [
        _task(row, set(names), url_prefix, model_version, from_name, to_name)
        for row in to_review(rows, only)
    ]
    target = Path(file)
    config = target.with_suffix(".config.xml")
    write_text(config, label_studio_config(names, from_name=from_name, to_name=to_name))
    write_json(target, tasks)
    return target, config


_DATA = frozenset({"image", "path", "predicted", *_FIELDS})


def _task(
    row: Verdict, classes: set[str], prefix: str, version: str, from_name: str, to_name: str
) -> dict[str, Any]:
    data = {"image": image_url(row.path, prefix), "path": row.path, "predicted": row.label}
    task: dict[str, Any] = {
        "data": data | without_nothing({name: getattr(row, name) for name in _FIELDS})
    }
    if row.label in classes:
        score = without_nothing({"p": row.p_correct, "confidence": row.confidence})
        result = {
            "from_name": from_name,
            "to_name": to_name,
            "type": "choices",
            "value": {"choices": [row.label]},
        }
        prediction: dict[str, Any] = {"model_version": version, "result": [result]}
        if score:
            prediction["score"] = next(iter(score.values()))
        task["predictions"] = [prediction]
    return task


def label_studio_config(
    classes: Iterable[str], *, from_name: str = "label", to_name: str = "image"
) -> str:
    """Return the labelling set-up: the image, why it is shown, and one choice among the classes.

    Examples
    --------
    >>> print(label_studio_config(["cat", "dog"]).strip())
    <View>
      <Header value="$reason"/>
      <Image name="image" value="$image"/>
      <Choices name="label" toName="image" choice="single" required="true">
        <Choice value="cat"/>
        <Choice value="dog"/>
      </Choices>
    </View>
    """
    names = [quoteattr(xml_text(name)) for name in classes]
    layout = ' layout="select"' if len(names) > _MANY else ""
    choices = "\n".join(f"    <Choice value={name}/>" for name in names)
    return (
        '<View>\n  <Header value="$reason"/>\n'
        f'  <Image name={quoteattr(to_name)} value="$image"/>\n'
        f"  <Choices name={quoteattr(from_name)} toName={quoteattr(to_name)} "
        f'choice="single" required="true"{layout}>\n{choices}\n  </Choices>\n</View>\n'
    )


def read_label_studio(
    content: bytes,
    name: str,
    *,
    from_name: str | None = None,
    path_column: str = "path",
    url_prefix: str = LOCAL_FILES,
) -> list[Annotation]:
    """Read answers from an export as JSON, JSON-MIN or CSV.

    Annotations that were cancelled, and empty ones, are such of an image that was passed over.

    Parameters
    ----------
    content, name
        Of the file, which is recognised.
    from_name
        Of the choices; by default the only ones there are, in JSON-MIN and CSV `label`.
    path_column
        The data that name an image; where a task has none, `image` without `url_prefix`.
    url_prefix
        As it was exported.

    Raises
    ------
    InputError
        If it is no such export.
    """

    def path_of(data: dict[str, Any], where: str) -> str:
        path = data.get(path_column)
        if not path and isinstance(data.get("image"), str):
            path = path_of_url(data["image"], url_prefix)
        if not isinstance(path, str) or not path:
            raise InputError(
                f"Expected {path_column!r} or 'image' in {where} of {name!r} to name an image, but "
                f"its data are {', '.join(map(repr, data)) or 'none'}. Name another with "
                "--path-column."
            )
        return path

    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return list(_of_rows(_csv_rows(content, name), from_name or "label", name, path_of))
    value = parse_json(content, name)
    if any(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in value):
        return list(_of_tasks(value, from_name, name, path_of))
    return list(_of_rows(value, from_name or "label", name, path_of))


def _of_tasks(
    value: Any, from_name: str | None, name: str, path_of: Callable[[dict[str, Any], str], str]
) -> Iterator[Annotation]:
    from pydantic import BaseModel, TypeAdapter

    class Result(BaseModel):
        type: str | None = None
        from_name: str | None = None
        value: dict[str, Any] | None = None

    class Answer(BaseModel):
        result: list[Result] | None = None
        was_cancelled: bool | None = None
        ground_truth: bool | None = None
        completed_by: Any = None
        updated_at: str | None = None

    class Task(BaseModel):
        data: dict[str, Any]
        annotations: list[Answer] | None = None

    tasks: list[Task] = checked(TypeAdapter(list[Task]), value, "an export of Label Studio", name)
    names = {
        result.from_name or ""
        for task in tasks
        for answer in task.annotations or ()
        for result in answer.result or ()
        if result.type == "choices"
    }
    wanted = from_name if from_name is not None or len(names) != 1 else next(iter(names))
    if names and wanted not in names:
        raise InputError(
            f"Expected choices called {wanted!r} in {name!r}, but there are "
            f"{', '.join(map(repr, sorted(names)))}. Name them with --from-name."
            if wanted
            else f"Expected one kind of choices in {name!r}, but there are "
            f"{', '.join(map(repr, sorted(names)))}. Name one with --from-name."
        )
    for number, task in enumerate(tasks, start=1):
        path = path_of(task.data, f"task {number}")
        predicted = _text(task.data.get("predicted"))
        if not task.annotations:
            yield Annotation(path, (), predicted=predicted)
        for answer in task.annotations or ():
            labels = [
                str(choice)
                for result in answer.result or ()
                if result.type == "choices" and (result.from_name or "") == wanted
                for choice in _choices(result.value or {})
            ]
            yield Annotation(
                path,
                () if answer.was_cancelled else tuple(labels),
                _annotator(answer.completed_by),
                bool(answer.ground_truth),
                predicted,
                time=answer.updated_at or "",
            )


def _of_rows(
    rows: Any, label: str, name: str, path_of: Callable[[dict[str, Any], str], str]
) -> Iterator[Annotation]:
    """Read rows of JSON-MIN or CSV, one an annotation; cancelled ones are not among them."""
    from pydantic import TypeAdapter

    adapter = TypeAdapter(list[dict[str, Any]])
    rows = checked(adapter, rows, "an export of Label Studio", name)
    if rows and not any(label in row for row in rows):
        raise InputError(
            f"Expected {name!r} to have answers called {label!r}, but it has "
            f"{', '.join(map(repr, rows[0]))}. Name them with --from-name."
        )
    if rows and not any({"annotator", "annotation_id"} & row.keys() for row in rows):
        raise InputError(
            f"Expected an export of Label Studio, which says who annotated, but {name!r} does not. "
            "Is it a table of predictions?"
        )
    for number, row in enumerate(rows, start=1):
        value = row.get(label)
        if isinstance(value, str) and value.startswith('{"choices"'):
            value = parse_json(value.encode(), name)
        yield Annotation(
            path_of(row, f"row {number}"),
            tuple(map(str, _choices(value) if isinstance(value, dict) else [value] * bool(value))),
            _annotator(row.get("annotator")),
            predicted=_text(row.get("predicted")),
            time=_text(row.get("updated_at")),
        )


def _csv_rows(content: bytes, name: str) -> list[dict[str, str]]:
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        reader = csv.DictReader(lines, strict=True)
        rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Expected {name!r} to be JSON or CSV, but got: {error}.") from error
    if any(value is None for row in rows for value in row.values()):
        raise InputError(f"Expected {name!r} to be CSV, but a row has fewer cells than the first.")
    return rows


def _choices(value: dict[str, Any]) -> list[Any]:
    choices = value.get("choices")
    return choices if isinstance(choices, list) else []


def _annotator(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return _text(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
