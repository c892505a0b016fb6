"""What an ONNX file says of itself: its weights' files, and how images become pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import require
from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.models.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ModelIdentity,
    Preprocessing,
    check_pixels,
)
from trustvlm.models.directories import files_hash, refuse_pointers
from trustvlm.models.hub import read_preprocessing
from trustvlm.models.registry import LoadOptions, register_backend

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


def check_file(name: str) -> None:
    """Refuse a file that is not there, with `ModelUnavailableError`."""
    file = Path(name).expanduser()
    if not file.is_file():
        raise ModelUnavailableError(f"There is no file {file}.")
    refuse_pointers([file])


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
    check_file(str(file))
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


# Image encoders from an ONNX file, run without torch.

# Axes over which the mean is taken: none, tokens, positions.
_POOLING: dict[int, tuple[int, ...]] = {2: (), 3: (1,), 4: (2, 3)}
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@register_backend("onnx", form="<file>", extra="onnx", check=check_file)
def load(name: str, options: LoadOptions) -> OnnxVision:
    """Load an `.onnx` file with the preprocessing that is stated beside or in it.

    See `read_onnx` for the preprocessing. The precision is `float32` only: what the graph computes
    in is part of the file.

    Raises
    ------
    InputError
        For another device or precision, or a device that ONNX Runtime cannot use here.
    MissingExtraError
        If onnx or ONNX Runtime is not installed.
    ModelUnavailableError
        If the file cannot be read or is no image encoder.
    """
    if options.precision != "float32":
        raise InputError(
            f"Expected `precision` to be float32, since an ONNX file has its own, "
            f"but got {options.precision!r}."
        )
    spec = f"onnx:{name}"
    runtime = require("onnxruntime", extra="onnx", purpose=f"The model {spec}")
    providers = _providers(runtime, options.device)
    content = read_onnx(Path(name).expanduser())
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(content.file), settings, providers=providers)
    # The runtime's own exception classes derive from nothing narrower.
    except Exception as error:
        raise ModelUnavailableError(f"ONNX Runtime cannot read {content.file}: {error}") from error
    if session.get_providers()[:1] != [_CUDA] and options.device.startswith("cuda"):
        raise InputError(
            f"This machine has no device {options.device!r} that ONNX Runtime can use; use "
            "--device cpu or auto."
        )
    return OnnxVision(spec, content, session)


class OnnxVision:
    """An image encoder run by ONNX Runtime.

    The graph reads normalised `(n, 3, height, width)` float32. Its output is one vector per image,
    `(n, d)`, or is pooled to it: `(n, tokens, d)` by the mean over all tokens, as TrustVLM-D does
    with DINOv2's, and `(n, d, height, width)` by the mean over all positions.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.
    device
        Where it computes: `cpu` or `cuda`.
    """

    note = ""

    def __init__(self, spec: str, content: OnnxFile, session: Any) -> None:
        self._session = session
        self.device = "cuda" if session.get_providers()[0] == _CUDA else "cpu"
        self._input = _the_input(content.file, session)
        self._output = _the_output(content, session)
        batch = self._input.shape[0]
        self._batch = batch if isinstance(batch, int) else None
        self.preprocessing: Preprocessing = content.preprocessing
        self.identity = ModelIdentity(
            spec=spec,
            source=str(content.file),
            revision="",
            weights=files_hash([content.file, *content.external]),
            settings={"family": "onnx", "output": self._output},
        )
        height, width = self.preprocessing.size
        self.dim = 0
        blank = np.zeros((1, height, width, 3), dtype=np.uint8)
        try:
            self.dim = self.encode_pixels(blank).shape[1]
        except InputError as error:
            raise ModelUnavailableError(str(error)) from error

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` uint8 RGB to `(n, dim)` float32, not L2-normalised.

        Raises
        ------
        InputError
            If the pixels have another type or shape, or a size that the graph cannot read.
        """
        check_pixels(pixels)
        if not len(pixels):
            return np.empty((0, self.dim), dtype=np.float32)
        step = self._batch or len(pixels)
        parts = [self._run(pixels[i : i + step]) for i in range(0, len(pixels), step)]
        return np.concatenate(parts)

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        n = len(pixels)
        tensor = self.preprocessing.normalise(pixels)
        if self._batch is not None:
            tensor = np.pad(tensor, ((0, self._batch - n), (0, 0), (0, 0), (0, 0)))
        try:
            output = self._session.run([self._output], {self._input.name: tensor})[0]
        except Exception as error:
            raise InputError(
                f"{self.identity.spec} cannot read images of {pixels.shape[1]} x "
                f"{pixels.shape[2]} pixels: {error}"
            ) from error
        if output.ndim not in _POOLING or len(output) != len(tensor) or output.dtype.kind != "f":
            raise InputError(
                f"Expected the output {self._output!r} of {self.identity.spec} to hold "
                "floating-point numbers of shape (n, d), (n, tokens, d) or (n, d, height, width), "
                f"but {len(tensor)} images gave {output.dtype} of shape {output.shape}."
            )
        rows = output[:n].astype(np.float32, copy=False)
        return np.asarray(rows.mean(axis=_POOLING[output.ndim])) if output.ndim > 2 else rows


def _providers(runtime: Any, device: str) -> list[str | tuple[str, dict[str, str]]]:
    available = runtime.get_available_providers()
    if device == "cpu" or (device == "auto" and _CUDA not in available):
        return [_CPU]
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda") or (number and not number.isdecimal()):
        raise InputError(
            f"Expected `device` to be auto, cpu, cuda or cuda:1 with a model of ONNX, but got "
            f"{device!r}."
        )
    if _CUDA not in available:
        raise InputError(
            "This ONNX Runtime cannot use a CUDA device: install onnxruntime-gpu instead of "
            "onnxruntime, or use --device cpu or auto."
        )
    return [(_CUDA, {"device_id": number}) if number else _CUDA, _CPU]


def _the_input(file: Path, session: Any) -> Any:
    inputs = session.get_inputs()
    stated = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
    if (
        len(inputs) == 1
        and inputs[0].type == "tensor(float)"
        and len(inputs[0].shape) == 4
        and (inputs[0].shape[1] == 3 or not isinstance(inputs[0].shape[1], int))
    ):
        return inputs[0]
    raise ModelUnavailableError(
        f"Expected {file} to have one input, float32 of shape (n, 3, height, width), "
        f"but it has: {stated or 'none'}."
    )


def _the_output(content: OnnxFile, session: Any) -> str:
    names = [each.name for each in session.get_outputs()]
    if content.output is None:
        return str(names[0])
    if content.output not in names:
        raise ModelUnavailableError(
            f"{content.file} has no output {content.output!r}; it has: {', '.join(names)}."
        )
    return content.output
