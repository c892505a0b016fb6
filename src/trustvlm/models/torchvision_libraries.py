"""What open_clip and timm have in common: they need torchvision, and share its preprocessing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

from trustvlm.exceptions import MissingExtraError, ModelUnavailableError
from trustvlm.extras import require
from trustvlm.models.preprocessing import Preprocessing
from trustvlm.models.quiet import download_bars, quiet

__all__ = [
    "centre_crop",
    "first_line",
    "reach_repository",
    "require_library",
    "state_hash",
    "vector_length",
]


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
            f"pip install -c constraints.txt 'trustvlm[{extra}]'"
        ) from error


def reach_repository(repo: str) -> Path:
    """Get the small files of a hub repository and return where its snapshot lies.

    Without a connection this returns what an earlier download left or fails within seconds, where
    the libraries try again and again for most of a minute.

    Raises
    ------
    ModelUnavailableError
        If the hub does not answer or has no such repository, and nothing of it is here.
    """
    purpose = f"The repository {repo}"
    hub = require("huggingface_hub", extra="torch", purpose=purpose)
    constants = require("huggingface_hub.constants", extra="torch", purpose=purpose)
    with download_bars(shown=False):
        try:
            # A download would wait for ever for a hub that does not answer.
            hub.HfApi().model_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return Path(hub.snapshot_download(repo, allow_patterns=["*.json"]))
        # Whatever the HTTP library raises: refused, timed out, switched off, not found.
        except Exception as error:
            try:
                return Path(hub.snapshot_download(repo, local_files_only=True))
            except Exception:
                raise ModelUnavailableError(
                    f"the hub does not give the repository {repo!r} ({first_line(error)[:-1]})."
                ) from error


def centre_crop(
    size: tuple[int, int],
    resize: int,
    *,
    interpolation: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Preprocessing:
    """Resize the shorter side and crop the centre, with torchvision's rounding."""
    return Preprocessing(size, resize, interpolation, mean, std, rounding="even")


def state_hash(model: Any) -> str:
    """SHA-256 in hex over the names, shapes and values of a network's weights and buffers."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def vector_length(source: str, features: Any, preprocessing: Preprocessing) -> int:
    """Encode a black image to see how long the vectors are.

    Parameters
    ----------
    source
        What to call the model in an error message.
    features
        Turns `(n, 3, height, width)` into `(n, dim)`, in float32 on the CPU.
    preprocessing
        Its `size` is what the network reads.

    Raises
    ------
    ModelUnavailableError
        If the network gives anything else than one vector per image.
    """
    import torch

    with torch.inference_mode():
        found = features(torch.zeros(1, 3, *preprocessing.size))
    if found.ndim != 2:
        raise ModelUnavailableError(
            f"{source} gives no single vector per image but an array of shape "
            f"{tuple(found.shape)}: it cannot be used as an encoder."
        )
    return int(found.shape[1])


def first_line(error: Exception) -> str:
    """Return the first line of an error message, as a sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."
