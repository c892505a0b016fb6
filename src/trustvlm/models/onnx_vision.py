"""Image encoders from an ONNX file, run without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.extras import require
from trustvlm.models.base import ModelIdentity
from trustvlm.models.hashing import files_hash
from trustvlm.models.inputs import check_pixels
from trustvlm.models.onnx_file import OnnxFile, read_onnx
from trustvlm.models.preprocessing import Preprocessing

__all__ = ["OnnxVision"]

# Axes over which the mean is taken: none, tokens, positions.
_POOLING: dict[int, tuple[int, ...]] = {2: (), 3: (1,), 4: (2, 3)}
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxVision:
    """An image encoder run by ONNX Runtime; `OnnxVision.load` makes one.

    The graph reads normalised `(n, 3, height, width)` float32. Its output is one vector per image,
    `(n, d)`, or is pooled to it: `(n, tokens, d)` by the mean over all tokens, as TrustVLM-D does
    with DINOv2's, and `(n, d, height, width)` by the mean over all positions.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.
    """

    note = ""

    def __init__(self, spec: str, content: OnnxFile, session: Any) -> None:
        self._session = session
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

    @classmethod
    def load(cls, name: str, *, device: str = "auto", precision: str = "float32") -> OnnxVision:
        """Load an `.onnx` file with the preprocessing that is stated beside or in it.

        Parameters
        ----------
        name
            The file; see `trustvlm.models.onnx_file.read_onnx` for the preprocessing.
        device
            `auto`, `cpu` or `cuda`.
        precision
            `float32` only: what the graph computes in is part of the file.

        Raises
        ------
        InputError
            For another device or precision, or a device that ONNX Runtime cannot use here.
        MissingExtraError
            If onnx or ONNX Runtime is not installed.
        ModelUnavailableError
            If the file cannot be read or is no image encoder.
        """
        if precision != "float32":
            raise InputError(
                f"Expected `precision` to be float32, since an ONNX file has its own, "
                f"but got {precision!r}."
            )
        spec = f"onnx:{name}"
        runtime = require("onnxruntime", extra="onnx", purpose=f"The model {spec}")
        providers = _providers(runtime, device)
        content = read_onnx(Path(name).expanduser())
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = runtime.InferenceSession(str(content.file), options, providers=providers)
        # The runtime's own exception classes derive from nothing narrower.
        except Exception as error:
            raise ModelUnavailableError(
                f"ONNX Runtime cannot read {content.file}: {error}"
            ) from error
        return cls(spec, content, session)

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
            found = self._session.run([self._output], {self._input.name: tensor})[0]
        except Exception as error:
            raise InputError(
                f"{self.identity.spec} cannot read images of {pixels.shape[1]} x "
                f"{pixels.shape[2]} pixels: {error}"
            ) from error
        if found.ndim not in _POOLING or len(found) != len(tensor) or found.dtype.kind != "f":
            raise InputError(
                f"Expected the output {self._output!r} of {self.identity.spec} to hold "
                "floating-point numbers of shape (n, d), (n, tokens, d) or (n, d, height, width), "
                f"but {len(tensor)} images gave {found.dtype} of shape {found.shape}."
            )
        rows = found[:n].astype(np.float32, copy=False)
        return np.asarray(rows.mean(axis=_POOLING[found.ndim])) if found.ndim > 2 else rows


def _providers(runtime: Any, device: str) -> list[str]:
    available = runtime.get_available_providers()
    if device == "cpu" or (device == "auto" and _CUDA not in available):
        return [_CPU]
    if device not in ("auto", "cuda"):
        raise InputError(f"Expected `device` to be auto, cpu or cuda, but got {device!r}.")
    if _CUDA not in available:
        raise InputError(
            "This ONNX Runtime cannot use a CUDA device: install onnxruntime-gpu in place of "
            "onnxruntime, or use --device cpu or auto."
        )
    return [_CUDA, _CPU]


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
