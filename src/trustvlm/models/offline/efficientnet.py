"""EfficientNet-Lite as a list of blocks.

Source: M. Tan, Q. Le, EfficientNet, ICML 2019 (arXiv 1905.11946), table 1, with the changes of
the Lite family (TensorFlow TPU models, 2020): ReLU6 for swish, no squeeze-and-excitation, stem,
head and the repeats of the first and last stage not scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "CLASSES",
    "HEAD_CHANNELS",
    "LITE0",
    "LITE2",
    "STEM_CHANNELS",
    "Architecture",
    "Block",
]

# Expansion, output channels, repeats, stride, kernel of the seven stages at width and depth 1.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
CLASSES = 1000  # of ImageNet, ILSVRC 2012
_CHANNEL_MULTIPLE = 8


@dataclass(frozen=True)
class Block:
    """One inverted residual block: expand (1x1), depthwise (kxk), project (1x1)."""

    inputs: int
    outputs: int
    expansion: int
    kernel: int
    stride: int

    @property
    def hidden(self) -> int:
        """Channels of the depthwise convolution."""
        return self.inputs * self.expansion

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class Architecture:
    """A member of the family.

    Parameters
    ----------
    name
        Short name, for file names.
    width, depth
        Factors of the channels and of the repeats.
    size
        Side of the square input in pixels, as in training.

    Examples
    --------
    >>> len(LITE0.blocks()), len(LITE2.blocks())
    (16, 21)
    >>> LITE2.blocks()[-1].outputs
    352
    """

    name: str
    width: float
    depth: float
    size: int

    def blocks(self) -> list[Block]:
        """Return the blocks from the stem to the head."""
        return list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        inputs = STEM_CHANNELS
        for index, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES):
            outputs = self._channels(channels)
            if 0 < index < len(_STAGES) - 1:
                repeats = math.ceil(repeats * self.depth)
            for repeat in range(repeats):
                yield Block(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1)
                inputs = outputs

    def _channels(self, channels: int) -> int:
        scaled = channels * self.width
        multiple = _CHANNEL_MULTIPLE
        rounded = max(multiple, int(scaled + multiple / 2) // multiple * multiple)
        # Rounding may not take away more than a tenth.
        return rounded + multiple if rounded < 0.9 * scaled else rounded


LITE0 = Architecture("efficientnet-lite0", width=1.0, depth=1.0, size=224)
LITE2 = Architecture("efficientnet-lite2", width=1.1, depth=1.2, size=260)
