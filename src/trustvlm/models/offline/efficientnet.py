"""EfficientNet-Lite with its weights as an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import require
from trustvlm.exceptions import ArtefactError

# EfficientNet-Lite as a list of blocks.
#
# Source: M. Tan, Q. Le, EfficientNet, ICML 2019 (arXiv 1905.11946), table 1, with the changes of
# the Lite family (TensorFlow TPU models, 2020): ReLU6 for swish, no squeeze-and-excitation, stem,
# head and the repeats of the first and last stage not scaled.

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
        blocks = []
        inputs = STEM_CHANNELS
        for index, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES):
            outputs = self._channels(channels)
            if 0 < index < len(_STAGES) - 1:
                repeats = math.ceil(repeats * self.depth)
            for repeat in range(repeats):
                blocks.append(
                    Block(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1)
                )
                inputs = outputs
        return blocks

    def _channels(self, channels: int) -> int:
        scaled = channels * self.width
        multiple = _CHANNEL_MULTIPLE
        rounded = max(multiple, int(scaled + multiple / 2) // multiple * multiple)
        # Rounding may not take away more than a tenth.
        return rounded + multiple if rounded < 0.9 * scaled else rounded


LITE0 = Architecture("efficientnet-lite0", width=1.0, depth=1.0, size=224)
LITE2 = Architecture("efficientnet-lite2", width=1.1, depth=1.2, size=260)


# Write EfficientNet-Lite, with its weights, as an ONNX graph.

GRAPH_VERSION = 1  # raise whenever the graph below changes: it is part of the cache's key
BATCH_NORM_EPSILON = 1e-3
# The oldest that hold every operator used, so that older runtimes read the file too.
OPSET, IR_VERSION = 13, 8


def build_graph(architecture: Architecture, weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a serialised ONNX model from pixels to features and logits.

    Input `pixels` `(n, 3, height, width)` float32, normalised; any n, height and width.
    Outputs, float32: `features` `(n, 1280)`, the head averaged over space, and `logits`
    `(n, 1000)` of ImageNet's classes. Batch normalisation is folded into the convolutions.

    Parameters
    ----------
    architecture
        The member of the family that the weights belong to.
    weights
        State dictionary of the PyTorch port, as `read_checkpoint` gives it.

    Raises
    ------
    ArtefactError
        If a weight is missing or has another shape than the architecture says.
    MissingExtraError
        If the package `onnx` is not installed.
    """
    net = _Network(weights, architecture.name)
    x = net.convolution(
        "pixels", "_conv_stem", "_bn0", shape=(STEM_CHANNELS, 3, 3, 3), stride=2, relu=True
    )
    outputs = STEM_CHANNELS
    for index, block in enumerate(architecture.blocks()):
        prefix, shortcut, hidden = f"_blocks.{index}.", x, block.hidden
        if block.expansion != 1:
            shape = (hidden, block.inputs, 1, 1)
            x = net.convolution(x, f"{prefix}_expand_conv", f"{prefix}_bn0", shape=shape, relu=True)
        shape = (hidden, 1, block.kernel, block.kernel)
        x = net.convolution(
            x,
            f"{prefix}_depthwise_conv",
            f"{prefix}_bn1",
            shape=shape,
            stride=block.stride,
            groups=hidden,
            relu=True,
        )
        shape = (block.outputs, hidden, 1, 1)
        x = net.convolution(x, f"{prefix}_project_conv", f"{prefix}_bn2", shape=shape, relu=False)
        if block.residual:
            x = net.node("Add", [x, shortcut], f"{prefix}sum")
        outputs = block.outputs
    x = net.convolution(x, "_conv_head", "_bn1", shape=(HEAD_CHANNELS, outputs, 1, 1), relu=True)
    x = net.node("GlobalAveragePool", [x], "pooled")
    x = net.node("Flatten", [x], "features")
    matrix = net.constant("_fc.weight", net.weight("_fc.weight", (CLASSES, HEAD_CHANNELS)))
    bias = net.constant("_fc.bias", net.weight("_fc.bias", (CLASSES,)))
    net.node("Gemm", [x, matrix, bias], "logits", transB=1)
    return net.serialise({"features": HEAD_CHANNELS, "logits": CLASSES})


class _Network:
    """Nodes and constants of a graph under construction."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], name: str) -> None:
        self._onnx = require("onnx", extra="offline", purpose="Building the offline models")
        self._weights = weights
        self._name = name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._six = self.constant("six", np.float32(6.0))
        self._zero = self.constant("zero", np.float32(0.0))

    def weight(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return a weight in double precision, or say what is wrong with it."""
        value = self._weights.get(name)
        if value is None or value.shape != shape:
            given = "none" if value is None else f"one of shape {value.shape}"
            raise ArtefactError(
                f"Expected the checkpoint of {self._name} to hold `{name}` of shape {shape}, "
                f"but got {given}."
            )
        return value.astype(np.float64)

    def constant(self, name: str, value: NDArray[Any] | np.floating[Any]) -> str:
        """Add a constant, in single precision."""
        array = np.asarray(value, dtype=np.float32)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self._nodes.append(
            self._onnx.helper.make_node(operator, inputs, [output], name=output, **attributes)
        )
        return output

    def convolution(
        self,
        x: str,
        name: str,
        norm: str,
        *,
        shape: tuple[int, int, int, int],
        stride: int = 1,
        groups: int = 1,
        relu: bool,
    ) -> str:
        """Add a convolution with its batch normalisation and, where asked for, ReLU6."""
        channels = (shape[0],)
        gain, shift, mean, variance = (
            self.weight(f"{norm}.{part}", channels)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
        kernel = self.weight(f"{name}.weight", shape) * factor[:, None, None, None]
        out = self.node(
            "Conv",
            [
                x,
                self.constant(f"{name}.weight", kernel),
                self.constant(f"{name}.bias", shift - mean * factor),
            ],
            f"{name}.out",
            # TensorFlow's 'SAME': the odd row or column of padding comes last.
            auto_pad="SAME_UPPER",
            kernel_shape=shape[2:],
            strides=[stride, stride],
            group=groups,
        )
        return self.node("Clip", [out, self._zero, self._six], f"{name}.relu6") if relu else out

    def serialise(self, outputs: Mapping[str, int]) -> bytes:
        """Return the finished model as bytes."""
        helper, single = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info("pixels", single, ["n", 3, "height", "width"])],
            [helper.make_tensor_value_info(key, single, ["n", d]) for key, d in outputs.items()],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
