"""What encoders that torch runs have in common: device, precision, preprocessing, libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import pip_install, require
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import ModelIdentity, Preprocessing, check_pixels
from trustvlm.models.hub import first_line, quiet
from trustvlm.models.registry import LoadOptions

# Where and how torch runs: device, precision, and pixels on their way to it and back.

# By what users call them: what the identity of an encoder calls them, which is part of its
# fingerprint. Under autocast weights, residuals, norms and softmax stay in float32, and only matrix
# products and convolutions are in bfloat16; texts, which are few and encoded once, stay in float32
# altogether. That is an eighth of the error of bfloat16 throughout, for a fifth of its speed
# (benchmarks/RESULTS.md).
PRECISIONS = {"float32": "float32", "bfloat16": "bfloat16 autocast for images"}


def to_device(model: Any, device: str, precision: str) -> tuple[Any, Any, Any]:
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
            f"Expected `device` to be auto, cpu, cuda, cuda:1 or mps, but got {device!r}."
        ) from error
    lacks = InputError(f"This machine has no device {device!r}; use --device cpu or auto.")
    if where.type == "cuda" and not 0 <= (where.index or 0) < torch.cuda.device_count():
        raise lacks
    try:
        model = model.to(device=where, dtype=torch.float32)
    except torch.OutOfMemoryError:
        raise
    # Each kind of device says in its own way that it is not there, or holds no values (meta).
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise lacks from error
    if where.type == "meta":
        raise lacks
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


def to_tensor(pixels: NDArray[Any], preprocessing: Preprocessing, device: Any) -> Any:
    """Move pixels to the device and normalise them there, in float32."""
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


# What all image encoders that torch runs have in common.


class TorchImageEncoder:
    """Pixels to a tensor, through a network, and back to vectors.

    Parameters
    ----------
    model
        The network.
    identity, preprocessing
        As in `trustvlm.models.base.ImageEncoder`; the precision is added to the identity.
    options
        Device and precision.
    dim
        Length of a vector; None encodes a black image to see.

    Raises
    ------
    ModelUnavailableError
        If `dim` is None and the network gives anything else than one vector per image.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.
    device
        Where the network computes, such as `cpu` or `cuda:1`.
    """

    note = ""

    def __init__(
        self,
        model: Any,
        *,
        identity: ModelIdentity,
        preprocessing: Preprocessing,
        options: LoadOptions,
        dim: int | None = None,
    ) -> None:
        self._model = model.eval()
        if dim is None:
            import torch

            with torch.inference_mode():
                shape = tuple(self._features(torch.zeros(1, 3, *preprocessing.size)).shape)
            if len(shape) != 2:
                raise ModelUnavailableError(
                    f"{identity.spec} gives no single vector per image but an array of shape "
                    f"{shape}: it cannot be used as an encoder."
                )
            dim = int(shape[1])
        self._model, self._device, self._dtype = to_device(model, options.device, options.precision)
        self.device = str(self._device)
        precision = PRECISIONS[options.precision]
        self.identity = replace(identity, settings={**identity.settings, "precision": precision})
        self.preprocessing = preprocessing
        self.dim = dim

    def _features(self, tensor: Any) -> Any:
        """Turn normalised `(n, 3, height, width)` into `(n, dim)`, both on the device."""
        return self._model(tensor)

    def encode_pixels(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` RGB to `(n, dim)` float32, not L2-normalised.

        Raises
        ------
        InputError
            If the pixels have another type or shape, or a size that the network cannot read.
        """
        check_pixels(pixels, self.preprocessing.dtype)
        if not len(pixels):
            return np.empty((0, self.dim), dtype=np.float32)
        with inference(self._device, self._dtype):
            tensor = to_tensor(pixels, self.preprocessing, self._device)
            try:
                return to_vectors(self._features(tensor))
            except (ValueError, AssertionError) as error:
                raise InputError(
                    f"{self.identity.spec} cannot read images of {pixels.shape[1]} x "
                    f"{pixels.shape[2]} pixels: {error}"
                ) from error


# What open_clip and timm have in common: they need torchvision, and share its preprocessing.


def require_library(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import open_clip or timm, or say what keeps them from being imported.

    Raises
    ------
    MissingExtraError
        If it is not installed, or the torchvision beside it was built for another torch.
    """
    try:
        with quiet():
            return require(module, extra=extra, purpose=purpose)
    except (RuntimeError, OSError) as error:
        raise MissingExtraError(
            f"{purpose} needs a torchvision that fits the torch beside it, but importing it fails: "
            f"{first_line(error)} Install both with one command: "
            f"{pip_install(extra)}"
        ) from error


def state_hash(model: Any) -> str:
    """SHA-256 in hex over the names, shapes and values of a network's weights and buffers."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
