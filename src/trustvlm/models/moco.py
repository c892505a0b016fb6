"""Read the image encoder out of a MoCo checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.extras import require

__all__ = ["CHECKPOINT", "read_encoder"]

CHECKPOINT = (
    "MoCo v2's is the file moco_v2_800ep_pretrain.pth.tar (ResNet-50, 800 epochs, CC-BY-NC 4.0), "
    "linked from https://github.com/facebookresearch/moco: name it as "
    "--vision moco-v2-r50:<file>."
)

_QUERY_ENCODER = "encoder_q."


def read_encoder(file: str) -> dict[str, Any]:
    """Return the weights of the encoder by their names in a ResNet-50.

    A MoCo checkpoint holds two encoders, a queue and the optimiser's state; the encoder of the
    queries is the one to use, without its projection head.

    Parameters
    ----------
    file
        `.safetensors`, or what torch saved; a pickle may hold tensors and plain values only.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ModelUnavailableError
        If no file is named, or it cannot be read, or holds no weights.
    """
    path = Path(file).expanduser()
    if not file or not path.is_file():
        what = f"There is no file {path}." if file else "moco-v2-r50 needs a checkpoint file."
        raise ModelUnavailableError(f"{what} {CHECKPOINT}")
    torch = require("torch", extra="timm", purpose="MoCo v2's ResNet-50")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files make the two readers raise errors of many kinds.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelUnavailableError(f"{path} cannot be read: {reason} {CHECKPOINT}") from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(map(torch.is_tensor, weights.values())):
        raise ModelUnavailableError(f"{path} holds no table of weights. {CHECKPOINT}")
    named = {str(name).removeprefix("module."): value for name, value in weights.items()}
    if any(name.startswith(_QUERY_ENCODER) for name in named):
        named = {
            name.removeprefix(_QUERY_ENCODER): value
            for name, value in named.items()
            if name.startswith(_QUERY_ENCODER)
        }
    return {name: value for name, value in named.items() if not name.startswith("fc.")}
