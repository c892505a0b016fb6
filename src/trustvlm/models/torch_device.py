"""Where and how torch runs: device, precision, and pixels on their way to it and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.extras import require
from trustvlm.models.preprocessing import Preprocessing

__all__ = ["PRECISIONS", "inference", "place", "to_tensor", "to_vectors"]

# By what users call them: what the identity of an encoder calls them, which is part of its
# fingerprint. Under autocast weights, residuals, norms and softmax stay in float32, and only matrix
# products and convolutions are in bfloat16; texts, which are few and encoded once, stay in float32
# altogether. That is an eighth of the error of bfloat16 throughout, for a fifth of its speed
# (benchmarks/RESULTS.md).
PRECISIONS = {"float32": "float32", "bfloat16": "bfloat16 autocast for images"}


def place(model: Any, device: str, precision: str) -> tuple[Any, Any, Any]:
    """Put a model in evaluation mode onto a device; return it with its device and dtype.

    Weights stay in float32; `dtype` is what `inference` computes products in.

    Raises
    ------
    InputError
        For an unknown device or precision, or a device that this machine lacks.
    """
    torch = require("torch", extra="torch", purpose="This model")
    if precision not in PRECISIONS:
        raise InputError(
            f"Expected `precision` to be {' or '.join(PRECISIONS)}, but got {precision!r}."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"Expected `device` to be auto, cpu or cuda, but got {device!r}."
        ) from error
    if where.type == "cuda" and not 0 <= (where.index or 0) < torch.cuda.device_count():
        raise InputError(f"This machine has no device {device!r}; use --device cpu or auto.")
    model = model.to(device=where, dtype=torch.float32)
    if where.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return model.eval(), where, getattr(torch, precision)


@contextmanager
def inference(device: Any, dtype: Any = None) -> Iterator[None]:
    """Run without gradients, in float32 with all its bits, or under autocast to another dtype.

    On NVIDIA devices torch would otherwise round the inputs of convolutions to TensorFloat-32,
    some three decimal digits.
    """
    import torch

    enabled = dtype not in (None, torch.float32)
    cast = torch.autocast(device.type, dtype=dtype, enabled=enabled)
    with torch.inference_mode(), cast:
        if device.type != "cuda":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield


def to_tensor(pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: Any) -> Any:
    """Move uint8 pixels to the device and normalise them there, in float32."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(pixels))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True)
    scaled = tensor.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    return ((scaled - mean) / std).contiguous()


def to_vectors(tensor: Any) -> NDArray[np.float32]:
    """Bring vectors back as float32 NumPy rows."""
    rows: NDArray[np.float32] = tensor.float().cpu().numpy()
    return rows
