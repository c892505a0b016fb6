"""Encoders from ONNX files, against the same arithmetic in NumPy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trustvlm import models
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import ImageEncoder, Preprocessing
from trustvlm.models.onnx import METADATA

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

SIZE = 8
WEIGHTS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
SETTINGS = {
    "size": [SIZE, SIZE],
    "resize": 9,
    "interpolation": "bilinear",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.25],
}


def write(
    file: Path,
    *,
    shape: tuple[Any, ...] = ("n", 3, SIZE, SIZE),
    kind: int = onnx.TensorProto.FLOAT,
    external: str = "",
    metadata: dict[str, str] | None = None,
    settings: dict[str, Any] | None = SETTINGS,
    inputs: int = 1,
) -> Path:
    """Save a graph that averages over four quarters of the image and projects the twelve means.

    Its outputs: `vectors` (n, 5), `maps` (n, 3, 2, 2), `tokens` (n, 3, 4), `pooled`
    (n, 12, 1, 1), `whole` (5,).
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(WEIGHTS, "weights")
    if external:
        weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
        weights.data_location = TensorProto.EXTERNAL
        entry = weights.external_data.add()
        entry.key, entry.value = "location", external
    constants = [
        weights,
        numpy_helper.from_array(np.array([0, 12, 1, 1]), "column"),
        numpy_helper.from_array(np.array([0, 3, 4]), "row"),
        numpy_helper.from_array(np.array([0]), "first"),
    ]
    half = SIZE // 2
    nodes = [
        helper.make_node("Cast", ["x"], ["image"], to=TensorProto.FLOAT),
        helper.make_node(
            "AveragePool", ["image"], ["maps"], kernel_shape=[half, half], strides=[half, half]
        ),
        helper.make_node("Flatten", ["maps"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["vectors"]),
        helper.make_node("Reshape", ["flat", "column"], ["pooled"]),
        helper.make_node("Reshape", ["flat", "row"], ["tokens"]),
        helper.make_node("ReduceSum", ["vectors", "first"], ["whole"], keepdims=0),
    ]
    names = ["x", "y"][:inputs]
    outputs = {"vectors": 2, "maps": 4, "tokens": 3, "pooled": 4, "whole": 1}
    graph = helper.make_graph(
        nodes,
        "quarters",
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in outputs.items()
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if metadata:
        helper.set_model_props(model, metadata)
    file.write_bytes(model.SerializeToString())
    if settings is not None:
        file.with_name(f"{file.name}.json").write_text(json.dumps(settings))
    return file


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    sizes = [(8, 8), (21, 9), (9, 14), (40, 10), (5, 3)]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def expected(pixels: np.ndarray) -> np.ndarray:
    scaled = (pixels / 255 - np.array(SETTINGS["mean"])) / np.array(SETTINGS["std"])
    quarters = scaled.reshape(len(pixels), 2, SIZE // 2, 2, SIZE // 2, 3).mean(axis=(2, 4))
    return quarters.transpose(0, 3, 1, 2).reshape(len(pixels), 12) @ WEIGHTS


@pytest.mark.parametrize(
    "shape",
    [
        ("n", 3, SIZE, SIZE),
        ("n", "c", "h", "w"),
        (None, None, None, None),
        (1, 3, SIZE, SIZE),
        (2, 3, SIZE, SIZE),
    ],
)
def test_images_go_through_the_graph(tmp_path, shape):
    encoder = models.load_vision(f"onnx:{write(tmp_path / 'a.onnx', shape=shape)}", device="cpu")
    assert isinstance(encoder, ImageEncoder)
    assert encoder.preprocessing == Preprocessing(
        (SIZE, SIZE), 9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    )
    pixels = np.stack([encoder.preprocessing.pixels(image) for image in pictures()])
    actual = encoder.encode_pixels(pixels)
    assert (actual.dtype, actual.shape, encoder.dim) == (np.float32, (5, 5), 5)
    np.testing.assert_allclose(actual, expected(pixels), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_pixels(pixels[[3, 1]]), actual[[3, 1]], atol=1e-6)
    assert encoder.encode_pixels(pixels[:0]).shape == (0, 5)


@pytest.mark.parametrize(("output", "axis"), [("tokens", 1), ("maps", 2)])
def test_tokens_and_positions_are_averaged(tmp_path, output, axis):
    encoder = models.load_vision(
        f"onnx:{write(tmp_path / 'a.onnx', settings={**SETTINGS, 'output': output})}"
    )
    pixels = np.stack([encoder.preprocessing.pixels(image) for image in pictures()])
    scaled = (pixels / 255 - np.array(SETTINGS["mean"])) / np.array(SETTINGS["std"])
    half = SIZE // 2
    quarters = scaled.reshape(len(pixels), 2, half, 2, half, 3).mean(axis=(2, 4))
    maps = quarters.transpose(0, 3, 1, 2).reshape(len(pixels), 3, 4)
    actual = encoder.encode_pixels(pixels)
    assert (actual.dtype, encoder.dim) == (np.float32, actual.shape[1])
    np.testing.assert_allclose(actual, maps.mean(axis=axis), atol=1e-5)


def test_an_output_can_be_chosen(tmp_path):
    settings = {**SETTINGS, "output": "pooled"}
    encoder = models.load_vision(f"onnx:{write(tmp_path / 'a.onnx', settings=settings)}")
    pixels = np.stack([encoder.preprocessing.pixels(image) for image in pictures()])
    assert encoder.dim == 12
    np.testing.assert_allclose(encoder.encode_pixels(pixels) @ WEIGHTS, expected(pixels), atol=1e-5)
    first = models.load_vision(f"onnx:{write(tmp_path / 'a.onnx')}")
    assert first.identity.settings["output"] == "vectors"
    assert first.identity.fingerprint(first.preprocessing) != encoder.identity.fingerprint(
        encoder.preprocessing
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nothing", "has no output 'nothing'; it has: vectors, maps, tokens, pooled, whole"),
        ("whole", r"of shape \(n, d\), .* of shape \(5,\)"),
    ],
)
def test_outputs_that_are_no_vectors_are_refused(tmp_path, output, message):
    file = write(tmp_path / "a.onnx", settings={**SETTINGS, "output": output})
    with pytest.raises(ModelUnavailableError, match=message):
        models.load_vision(f"onnx:{file}")


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"shape": ("n", SIZE, SIZE, 3)}, r"x tensor\(float\) \['n', 8, 8, 3\]"),
        ({"shape": ("n", 3, SIZE)}, r"\['n', 3, 8\]"),
        ({"kind": onnx.TensorProto.UINT8}, r"tensor\(uint8\)"),
        ({"inputs": 2}, "x .*, y "),
    ],
)
def test_graphs_that_read_no_images_are_refused(tmp_path, change, stated):
    file = write(tmp_path / "a.onnx", **change)
    with pytest.raises(ModelUnavailableError, match=f"Expected .* one input.*{stated}|cannot read"):
        models.load_vision(f"onnx:{file}")


def test_a_preprocessing_for_another_size_is_refused(tmp_path):
    file = write(tmp_path / "a.onnx", settings={**SETTINGS, "size": [16, 16]})
    with pytest.raises(ModelUnavailableError, match="cannot read images of 16 x 16 pixels"):
        models.load_vision(f"onnx:{file}")
    encoder = models.load_vision(f"onnx:{write(tmp_path / 'a.onnx')}")
    with pytest.raises(InputError, match="cannot read images of 4 x 9 pixels"):
        encoder.encode_pixels(np.zeros((1, 4, 9, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="Expected `pixels`"):
        encoder.encode_pixels(np.zeros((1, 3, 8, 8), dtype=np.float32))


def test_the_preprocessing_may_stand_in_the_model_or_beside_it(tmp_path):
    inside = write(
        tmp_path / "a.onnx", settings=None, metadata={METADATA: json.dumps(SETTINGS), "other": "1"}
    )
    first = models.load_vision(f"onnx:{inside}").preprocessing
    assert first.resize == 9
    # The file beside the model comes first: it can be corrected without the exporter.
    write(inside, settings={**SETTINGS, "resize": 10}, metadata={METADATA: json.dumps(SETTINGS)})
    assert models.load_vision(f"onnx:{inside}").preprocessing.resize == 10


def test_the_file_that_exporters_write_is_read(tmp_path):
    write(tmp_path / "model.onnx", settings=None)
    exported = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": SETTINGS["mean"],
        "image_std": SETTINGS["std"],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": SIZE, "width": SIZE},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(exported))
    actual = models.load_vision(f"onnx:{tmp_path / 'model.onnx'}").preprocessing
    assert actual == Preprocessing(
        (SIZE, SIZE), None, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    )


def test_without_a_preprocessing_the_error_shows_one_that_works(tmp_path):
    file = write(tmp_path / "a.onnx", settings=None)
    with pytest.raises(ModelUnavailableError, match=r"Write it to a\.onnx\.json") as refusal:
        models.load_vision(f"onnx:{file}")
    example = str(refusal.value)[str(refusal.value).index("{") :]
    file.with_name("a.onnx.json").write_text(example)
    assert models.load_vision(f"onnx:{file}").preprocessing.size == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not hold the settings"),
        ("[]", "no JSON object"),
        (json.dumps({**SETTINGS, "mean": 0.5}), "does not hold the settings"),
        (json.dumps({**SETTINGS, "mean": [0.5]}), "a value per colour"),
        (json.dumps({**SETTINGS, "interpolation": "cubic"}), "`interpolation`"),
        (json.dumps({"size": [8, 8]}), "'resize' is missing"),
    ],
)
def test_a_damaged_preprocessing_is_refused(tmp_path, text, message):
    file = write(tmp_path / "a.onnx")
    file.with_name("a.onnx.json").write_text(text)
    with pytest.raises(ModelUnavailableError, match=message):
        models.load_vision(f"onnx:{file}")


def test_external_weights_are_read_and_count_for_the_identity(tmp_path):
    (tmp_path / "a.bin").write_bytes(WEIGHTS.tobytes())
    file = write(tmp_path / "a.onnx", external="a.bin")
    encoder = models.load_vision(f"onnx:{file}")
    pixels = np.stack([encoder.preprocessing.pixels(image) for image in pictures()])
    np.testing.assert_allclose(encoder.encode_pixels(pixels), expected(pixels), atol=1e-5)
    (tmp_path / "a.bin").write_bytes((2 * WEIGHTS).tobytes())
    doubled = models.load_vision(f"onnx:{file}")
    np.testing.assert_allclose(doubled.encode_pixels(pixels), 2 * expected(pixels), atol=1e-4)
    assert doubled.identity.weights != encoder.identity.weights


@pytest.mark.parametrize("place", ["above", "absolute", "link"])
def test_external_weights_from_elsewhere_are_refused(tmp_path, place):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    names = {
        "above": "../secret.bin",
        "absolute": str(tmp_path / "secret.bin"),
        "link": "link.bin",
    }
    file = write(folder / "a.onnx", external=names[place])
    with pytest.raises(ModelUnavailableError, match="only files in its own folder are read"):
        models.load_vision(f"onnx:{file}")


def test_missing_and_damaged_files_are_told(tmp_path):
    with pytest.raises(ModelUnavailableError, match="There is no file"):
        models.load_vision(f"onnx:{tmp_path / 'none.onnx'}")
    (tmp_path / "noise.onnx").write_bytes(b"this is no graph")
    with pytest.raises(ModelUnavailableError, match="is no ONNX file"):
        models.load_vision(f"onnx:{tmp_path / 'noise.onnx'}")
    file = write(tmp_path / "a.onnx", external="a.bin")
    with pytest.raises(ModelUnavailableError, match="which is missing"):
        models.load_vision(f"onnx:{file}")
    (tmp_path / "a.bin").write_bytes(b"too short")
    with pytest.raises(ModelUnavailableError, match="ONNX Runtime cannot read"):
        models.load_vision(f"onnx:{file}")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelUnavailableError):
        models.load_vision(f"onnx:{tmp_path / 'empty.onnx'}")


def test_device_and_precision(tmp_path):
    file = write(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="Expected `precision` to be float32"):
        models.load_vision(f"onnx:{file}", precision="bfloat16")
    with pytest.raises(InputError, match="Expected `device` to be auto, cpu, cuda or cuda:1"):
        models.load_vision(f"onnx:{file}", device="tpu")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        for device in ("cuda", "cuda:1"):
            with pytest.raises(InputError, match="cannot use a CUDA device"):
                models.load_vision(f"onnx:{file}", device=device)
    with pytest.raises(InputError, match=r"cuda:1 with a model of ONNX, but got 'cuda:x'"):
        models.load_vision(f"onnx:{file}", device="cuda:x")
    assert models.load_vision(f"onnx:{file}", device="cpu").device == "cpu"


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, module):
    file = write(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"trustvlm\[onnx\]"):
        models.load_vision(f"onnx:{file}")
