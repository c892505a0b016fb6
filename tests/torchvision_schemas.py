"""Let a torchvision that was built for another torch be imported beside a CPU build of torch.

Its operators stay missing, which the image transforms that open_clip and timm use do not notice.
Without this its import fails, and that of many a class of transformers with it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

_keep_alive: list[Any] = []


def declare_schemas() -> None:
    """Declare the operators that torchvision expects its own library to bring, if it does not."""
    if _keep_alive or importlib.util.find_spec("torchvision") is None:
        return
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _keep_alive.append(library)
