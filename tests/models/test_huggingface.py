"""Models in the hub's format give the numbers that transformers gives by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cut_texts import check_cut_texts
from tiny_models import (
    save_tiny_clip,
    save_tiny_dinov2,
    save_tiny_resnet,
    save_tiny_siglip,
    save_tiny_siglip2,
)
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models import ImageEncoder, VisionLanguageModel, load_vision, load_vlm
from trustvlm.models.huggingface import HuggingFaceVLM

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.torch

SAVE: dict[str, Callable[..., Path]] = {
    "clip": save_tiny_clip,
    "siglip": save_tiny_siglip,
    "siglip2": save_tiny_siglip2,
    "dinov2": save_tiny_dinov2,
    "resnet": save_tiny_resnet,
}
VLMS = ("clip", "siglip", "siglip2")
VISION = ("dinov2", "resnet", "clip", "siglip2")
# (width, height): square, odd, long, smaller than the crop, one pixel
SIZES = ((64, 64), (333, 251), (97, 401), (20, 11), (1, 1), (35, 32), (500, 33))
TEXTS = ("a photo of a cat.", "dog", "a photo of a golden retriever, striped!", "", "ü 漢 7")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name == "siglip":
            pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
        if name not in made:
            made[name] = SAVE[name](tmp_path_factory.mktemp("tiny") / name)
        return made[name]

    return find


@pytest.fixture
def copied(directory: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model's directory that a test may spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(directory(name), tmp_path / name))

    return copy


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in SIZES]
    return [Image.fromarray(array) for array in arrays]


def pixels(encoder: ImageEncoder) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([encoder.preprocessing.pixels(image) for image in pictures()])


def processor(directory: Path) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")


def reference_images(directory: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Each image alone through transformers' own processor and model."""
    model = transformers.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    rows = []
    for image in pictures():
        inputs = processor(directory)(image, return_tensors="pt")
        with torch.no_grad():
            if hasattr(model, "get_image_features"):
                rows.append(model.get_image_features(**inputs).pooler_output[0])
            else:
                hidden = model(**inputs).last_hidden_state
                # every token, or every position of the feature map
                tokens = hidden if hidden.ndim == 3 else hidden.flatten(2).transpose(1, 2)
                rows.append(sum(tokens[0, i] for i in range(tokens.shape[1])) / tokens.shape[1])
    return torch.stack(rows).numpy()


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own that can import what tests share."""
    tests = str(Path(__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def load(name: str, directory: Path, role: str = "") -> Any:
    loader = load_vlm if (role or ("vlm" if name in VLMS else "vision")) == "vlm" else load_vision
    return loader(f"hf:{directory}", device="cpu")


@pytest.mark.parametrize("name", SAVE)
def test_pixels_are_those_of_transformers(name: str, directory: Callable[[str], Path]) -> None:
    encoder = load(name, directory(name))
    unscaled = processor(directory(name))(
        pictures(), do_rescale=False, do_normalize=False, return_tensors="np"
    )["pixel_values"]
    np.testing.assert_array_equal(pixels(encoder), unscaled.transpose(0, 2, 3, 1))
    scaled = processor(directory(name))(pictures(), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(encoder.preprocessing.normalise(pixels(encoder)), scaled, atol=1e-6)


@pytest.mark.parametrize("name", SAVE)
def test_image_embeddings_are_those_of_transformers(
    name: str, directory: Callable[[str], Path]
) -> None:
    encoder = load(name, directory(name))
    expected = reference_images(directory(name))
    assert encoder.dim == expected.shape[1]
    actual = encoder.encode_pixels(pixels(encoder))
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    # It is a test only if the images differ.
    assert np.ptp(expected, axis=0).max() > 1e-2


@pytest.mark.parametrize("name", ["clip", "dinov2", "resnet"])
def test_company_and_order_change_nothing(name: str, directory: Callable[[str], Path]) -> None:
    encoder = load(name, directory(name))
    batch = pixels(encoder)
    together = encoder.encode_pixels(batch)
    alone = np.concatenate([encoder.encode_pixels(batch[i : i + 1]) for i in range(len(batch))])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    order = np.random.default_rng(1).permutation(len(batch))
    np.testing.assert_allclose(encoder.encode_pixels(batch[order]), together[order], atol=1e-5)
    assert encoder.encode_pixels(batch[:0]).shape == (0, encoder.dim)


def test_clip_as_verifier_gives_the_same_as_in_the_vlm(directory: Callable[[str], Path]) -> None:
    vlm, vision = load("clip", directory("clip")), load("clip", directory("clip"), "vision")
    np.testing.assert_array_equal(vlm.encode_pixels(pixels(vlm)), vision.encode_pixels(pixels(vlm)))
    assert not hasattr(vision, "encode_texts")
    assert load_vision("same", vlm=vlm) is vlm


@pytest.mark.parametrize("name", VLMS)
def test_text_embeddings_are_those_of_transformers(
    name: str, directory: Callable[[str], Path]
) -> None:
    encoder = load(name, directory(name))
    model = transformers.AutoModel.from_pretrained(directory(name), dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory(name))
    length = model.config.text_config.max_position_embeddings
    texts = [*TEXTS, "a photo of a dog " * 50]
    tokens = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    tokens.pop("attention_mask", None)
    assert tokens["input_ids"].shape == (len(texts), length)
    # Without a mask: CLIP's causal one keeps padding out, and SigLIP attends to it.
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output.numpy()
    actual = encoder.encode_texts(texts)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    for i, text in enumerate(texts):
        np.testing.assert_allclose(encoder.encode_texts([text])[0], actual[i], atol=1e-5)
    assert np.ptp(actual, axis=0).max() > 1e-2


def test_many_texts_are_encoded_in_parts(directory: Callable[[str], Path]) -> None:
    encoder = load("clip", directory("clip"))
    whole = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS, batch_size=2), whole, atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_clip_pads_to_the_longest_of_like_texts_and_gives_what_full_length_gives(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load("clip", directory("clip"))
    names = ("cat", "dog", "river", "golden retriever")
    templates = ("{}", "a photo of a {}.", "a satellite image of a {}, and of another {}.")
    texts = [template.replace("{}", name) for name in names for template in templates]
    shapes, inner = [], encoder._model.get_text_features

    def watched(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return inner(**inputs)

    monkeypatch.setattr(encoder._model, "get_text_features", watched)
    actual = encoder.encode_texts(texts, batch_size=4)
    widths = [width for _, width in shapes]
    lengths = sorted(len(ids) for ids in encoder._tokenizer(texts)["input_ids"])
    assert widths == lengths[3::4]  # the longest of each four, shortest texts first
    tokens = encoder._tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        full = inner(input_ids=tokens["input_ids"]).pooler_output.numpy()
    scale = np.linalg.norm(full, axis=1, keepdims=True)
    np.testing.assert_allclose(actual / scale, full / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_siglip_is_never_cut(
    name: str, directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(name, directory(name))
    shapes, inner = [], encoder._model.get_text_features
    monkeypatch.setattr(
        encoder._model,
        "get_text_features",
        lambda **inputs: shapes.append(tuple(inputs["input_ids"].shape)) or inner(**inputs),
    )
    encoder.encode_texts(TEXTS, batch_size=2)
    assert shapes == [(2, 64), (2, 64), (1, 64)]


@pytest.mark.parametrize("name", VLMS)
def test_texts_that_are_cut_are_named(name: str, directory: Callable[[str], Path]) -> None:
    check_cut_texts(load(name, directory(name)), "dog ", most=120)


@pytest.mark.parametrize("name", VLMS)
def test_case_does_not_matter(name: str, directory: Callable[[str], Path]) -> None:
    encoder = load(name, directory(name))
    lower, upper = encoder.encode_texts(["a photo of a cat.", "A Photo of a CAT."])
    np.testing.assert_allclose(lower, upper, atol=1e-6)


@pytest.mark.parametrize("texts", ["one string", [b"bytes"], [None]])
def test_texts_must_be_several_strings(texts: Any, directory: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="sequence of strings"):
        load("clip", directory("clip")).encode_texts(texts)


def test_what_a_vlm_says_of_itself(directory: Callable[[str], Path]) -> None:
    clip, siglip = load("clip", directory("clip")), load("siglip2", directory("siglip2"))
    for encoder in (clip, siglip):
        assert isinstance(encoder, VisionLanguageModel)
        scale = transformers.AutoModel.from_pretrained(encoder.identity.source).logit_scale
        assert encoder.logit_scale == pytest.approx(float(np.exp(scale.item())), rel=1e-6)
    assert clip.prompt == "a photo of a {}."
    assert siglip.prompt == "This is a photo of {}."
    # The paper's protocol asks for it by this name.
    assert clip.identity.settings["family"] == "clip"
    assert siglip.identity.settings["family"] == "siglip"


def test_bfloat16_runs_and_is_near(directory: Callable[[str], Path]) -> None:
    exact = load("clip", directory("clip"))
    rough = load_vlm(f"hf:{directory('clip')}", device="cpu", precision="bfloat16")
    assert rough.logit_scale == exact.logit_scale
    expected, actual = (encoder.encode_pixels(pixels(exact)) for encoder in (exact, rough))
    assert actual.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    assert (np.sum(expected * actual, axis=1) / lengths).min() > 0.999
    assert not np.array_equal(expected, actual)
    # Texts are few and encoded once: they are worth all bits.
    np.testing.assert_array_equal(rough.encode_texts(TEXTS), exact.encode_texts(TEXTS))
    fingerprints = {e.identity.fingerprint(e.preprocessing) for e in (exact, rough)}
    assert len(fingerprints) == 2
    assert rough.identity.settings["precision"] == "bfloat16 autocast for images"
    assert {p.dtype for p in rough._model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"device": "gpu"}, "gpu"),
        ({"device": "cuda:999"}, "cuda:999"),
        ({"device": "meta"}, "no device 'meta'"),
        *([] if torch.backends.mps.is_available() else [({"device": "mps"}, "no device 'mps'")]),
        ({"precision": "float16"}, "float32 or bfloat16"),
    ],
)
def test_unknown_device_or_precision(
    options: dict[str, str], named: str, directory: Callable[[str], Path]
) -> None:
    with pytest.raises(InputError, match=named):
        load_vlm(f"hf:{directory('clip')}", **options)


def test_pixels_are_checked(directory: Callable[[str], Path]) -> None:
    encoder = load("clip", directory("clip"))
    good = pixels(encoder)
    for wrong in (good.astype(np.float32), good[0], good.transpose(0, 3, 1, 2), good.tolist()):
        with pytest.raises(InputError, match="uint8 of shape"):
            encoder.encode_pixels(wrong)
    with pytest.raises(InputError, match="cannot read images of 40 x 48 pixels"):
        encoder.encode_pixels(np.zeros((1, 40, 48, 3), dtype=np.uint8))


def test_dinov2_reads_the_pixels_of_another_encoder(directory: Callable[[str], Path]) -> None:
    """The paper's protocol gives it the VLM's."""
    encoder = load("dinov2", directory("dinov2"))
    large = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    assert encoder.encode_pixels(large).shape == (2, encoder.dim)


def test_a_text_model_encodes_no_images(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailableError, match="bert model, which encodes no images"):
        load_vision(f"hf:{tmp_path}")


def test_a_vision_model_is_no_vlm(directory: Callable[[str], Path]) -> None:
    with pytest.raises(ModelUnavailableError, match=r"dinov2 model, .* no texts .* --vision hf:"):
        load_vlm(f"hf:{directory('dinov2')}")


def test_weights_without_some_tensors_are_refused(copied: Callable[[str], Path]) -> None:
    from safetensors.numpy import load_file, save_file

    file = copied("clip") / "model.safetensors"
    tensors = load_file(file)
    del tensors["visual_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match=r"1 tensors.*visual_projection\.weight"):
        load_vlm(f"hf:{file.parent}")


def test_an_image_encoder_without_its_pooler_is_accepted(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", "size": 16}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load_vision(f"hf:{tmp_path}", device="cpu")
    expected = reference_images(tmp_path)
    np.testing.assert_allclose(encoder.encode_pixels(pixels(encoder)), expected, atol=1e-5)


def test_a_missing_sentencepiece_names_the_extra(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = directory("siglip")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match=r"sentencepiece.*trustvlm\[torch\]"):
        load_vlm(f"hf:{source}")


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_a_missing_library_names_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"{missing}.*trustvlm\[torch\]"):
        load_vlm("clip-vit-b16")


def test_a_part_of_transformers_that_cannot_be_imported(directory: Callable[[str], Path]) -> None:
    """As with a torchvision that was built for another torch; in a process of its own."""
    program = """
import sys
from torchvision_schemas import declare_schemas
declare_schemas()
import transformers
class Broken:
    def find_spec(self, name, *rest):
        if name == "transformers.models.clip.modeling_clip":
            raise RuntimeError("operator torchvision::nms does not exist")
sys.meta_path.insert(0, Broken())
from trustvlm.exceptions import MissingExtraError
from trustvlm.models import load_vlm
try:
    load_vlm(sys.argv[1])
except MissingExtraError as error:
    print(error)
"""
    said = run(program, f"hf:{directory('clip')}").stdout
    assert "operator torchvision::nms does not exist" in said
    assert "install both with one command" in said


def test_loading_and_encoding_are_silent(directory: Callable[[str], Path]) -> None:
    """In a process of its own: no bar, no log line, no warning, and nothing switched off after."""
    program = """
import logging, sys, warnings
from torchvision_schemas import declare_schemas
declare_schemas()
import numpy as np
from trustvlm.models import load_vision, load_vlm
for spec in sys.argv[1:]:
    encoder = load_vision(spec) if "dinov2" in spec else load_vlm(spec)
    encoder.encode_pixels(np.zeros((2, *encoder.preprocessing.size, 3), np.uint8))
    if hasattr(encoder, "encode_texts"):
        encoder.encode_texts(["word " * 500])
from transformers.utils import logging as transformers_logging
assert transformers_logging.is_progress_bar_enabled()
assert not logging.root.handlers and logging.root.manager.disable == logging.NOTSET
"""
    specs = [f"hf:{directory(name)}" for name in ("clip", "siglip2", "dinov2")]
    done = run(program, *specs)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_encoder_may_be_copied_with_other_preprocessing(
    directory: Callable[[str], Path],
) -> None:
    import copy

    encoder = load("dinov2", directory("dinov2"))
    other = copy.copy(encoder)
    other.preprocessing = load("clip", directory("clip")).preprocessing
    assert encoder.preprocessing != other.preprocessing
    batch = np.random.default_rng(0).integers(
        0, 256, (1, *other.preprocessing.size, 3), dtype=np.uint8
    )
    assert not np.allclose(encoder.encode_pixels(batch), other.encode_pixels(batch))


def test_it_is_the_documented_class(directory: Callable[[str], Path]) -> None:
    assert isinstance(load("clip", directory("clip")), HuggingFaceVLM)
