"""What an ONNX file says of itself: its weights' files, and how images become pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.extras import require
from trustvlm.models.hub_preprocessing import read_preprocessing
from trustvlm.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

__all__ = ["METADATA", "OnnxFile", "read_onnx"]

# The key under which a model's metadata may hold what the file beside it would.
METADATA = "trustvlm.preprocessing"
_HUB_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model on disk.

    Attributes
    ----------
    file
        The graph.
    external
        Files beside it that hold weights.
    preprocessing
        As stated.
    output
        Name of the output to take; None for the first.
    """

    file: Path
    external: tuple[Path, ...]
    preprocessing: Preprocessing
    output: str | None


def read_onnx(file: Path) -> OnnxFile:
    """Read where an ONNX model's weights are and how its images are prepared.

    The preprocessing stands in a file `<file>.json`, or in the model's metadata under
    `trustvlm.preprocessing`: the settings of `Preprocessing`, and optionally `output`, the name of
    the output to take. Failing both, a `preprocessor_config.json` in the same folder is read, as
    exporters write it.

    Raises
    ------
    MissingExtraError
        If onnx is not installed.
    ModelUnavailableError
        If the file is missing or damaged, wants weights from outside its folder, or the
        preprocessing is stated nowhere or cannot be read.
    """
    if not file.is_file():
        raise ModelUnavailableError(f"There is no file {file}.")
    onnx = require("onnx", extra="onnx", purpose=f"The model onnx:{file}")
    try:
        model = onnx.load(file, load_external_data=False)
    # Damaged files make protobuf raise errors of its own.
    except Exception as error:
        raise ModelUnavailableError(f"{file} is no ONNX file: {error}") from error
    external = tuple(_beside(file, name) for name in sorted(_external_names(onnx, model)))
    preprocessing, output = _preprocessing(file, model)
    return OnnxFile(file, external, preprocessing, output)


def _external_names(onnx: Any, model: Any) -> set[str]:
    return {
        entry.value
        for tensor in _tensors(onnx, model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _tensors(onnx: Any, message: Any) -> Iterator[Any]:
    """Every tensor in a model, wherever: initialisers, attributes, inner graphs, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if hasattr(value, "ListFields") else value:
                yield from _tensors(onnx, inner)


def _beside(file: Path, name: str) -> Path:
    folder = file.resolve().parent
    weights = (folder / name).resolve()
    if weights.parent != folder:
        raise ModelUnavailableError(
            f"{file} wants weights from {name!r}: only files in its own folder are read."
        )
    if not weights.is_file():
        raise ModelUnavailableError(f"{file} wants weights from {name!r}, which is missing.")
    return weights


def _preprocessing(file: Path, model: Any) -> tuple[Preprocessing, str | None]:
    beside = file.with_name(f"{file.name}.json")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if beside.is_file():
        return _parse(str(beside), beside.read_bytes())
    if METADATA in metadata:
        return _parse(f"The metadata of {file}", metadata[METADATA])
    if (file.parent / _HUB_FILE).is_file():
        return read_preprocessing(file.parent), None
    example = {
        "size": _size(model),
        "resize": 256,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }
    raise ModelUnavailableError(
        f"{file} does not say how images become pixels. Write it to {beside.name} beside it; for "
        f"ImageNet's usual preprocessing that is {json.dumps(example)}"
    )


def _parse(where: str, text: str | bytes) -> tuple[Preprocessing, str | None]:
    try:
        settings = json.loads(text)
        if not isinstance(settings, Mapping):
            raise ValueError("it is no JSON object")
        preprocessing = Preprocessing.from_dict({"rounding": "down", **settings})
        return preprocessing, settings.get("output")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelUnavailableError(
            f"{where} does not hold the settings of a `Preprocessing`: {reason.rstrip('.')}."
        ) from error


def _size(model: Any) -> list[int]:
    """Height and width that the first input fixes, or 224 where it does not."""
    if not model.graph.input:
        return [224, 224]
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    return [dimension.dim_value or 224 for dimension in dimensions[2:4]] or [224, 224]
