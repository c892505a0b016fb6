"""Models of families after CLIP and DINOv2 give the numbers that transformers gives by itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny_families
import tiny_models
from pictures import COLOURS, write_class_folders
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.embeddings.decoding_pool import PixelsTask
from trustvlm.exceptions import InputError, ModelUnavailableError, TrustVLMWarning
from trustvlm.images import DEFAULT_LIMITS
from trustvlm.models import Preprocessing, load_vision, load_vlm
from trustvlm.models.huggingface import _unpacked

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.torch

VLMS = ("metaclip2", "altclip", "chinese_clip", "tipsv2", "naflex")
VISION = ("dinov2_with_registers", "dinov3", "radio")
# (width, height): square, odd, long, smaller than what is read, one pixel
SIZES = ((64, 64), (333, 251), (97, 401), (20, 11), (1, 1), (35, 32), (500, 33))
TEXTS = ("a photo of a cat.", "dog", "a Photo of a golden retriever, striped!", "一张猫的照片。")
# Neither is read by a Pillow version in transformers, and torchvision is not installed everywhere.
TORCHVISION = ("dinov3", "tipsv2")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            save = getattr(tiny_families, f"save_tiny_{name}")
            made[name] = save(tmp_path_factory.mktemp("tiny") / name)
        return made[name]

    return find


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in SIZES]
    return [Image.fromarray(array) for array in arrays]


def load(name: str, directory: Path) -> Any:
    loader = load_vlm if name in VLMS else load_vision
    return loader(f"hf:{directory}", device="cpu")


def model_of(directory: Path) -> Any:
    return transformers.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()


def prepared(directory: Path, image: Image.Image) -> Any:
    backend = "torchvision" if directory.name in TORCHVISION else "pil"
    if backend == "torchvision":
        pytest.importorskip("torchvision", reason="torchvision is not installed")
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend=backend)
    return processor(image, return_tensors="pt")


def embedded(encoder: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    pixels = [encoder.preprocessing.pixels(image) for image in pictures()]
    return encoder.encode_pixels(np.stack(pixels))


@pytest.mark.parametrize("name", [*VLMS, *VISION])
def test_images_are_those_of_transformers(name: str, directory: Callable[[str], Path]) -> None:
    encoder, model = load(name, directory(name)), model_of(directory(name))
    rows, differences = [], []
    for image in pictures():
        inputs = prepared(directory(name), image)
        ours = encoder.preprocessing.normalise(encoder.preprocessing.pixels(image)[None])
        if name == "naflex":
            unpacked = _unpacked(torch.from_numpy(ours), encoder.preprocessing)
            for key in ("pixel_attention_mask", "spatial_shapes"):
                np.testing.assert_array_equal(unpacked[key], inputs[key])
            ours = unpacked["pixel_values"].numpy()
        differences.append(np.abs(ours - inputs["pixel_values"].numpy()).max())
        with torch.no_grad():
            if name in VLMS:
                rows.append(model.get_image_features(**inputs).pooler_output[0])
            elif name == "radio":
                rows.append(model(**inputs).summary[0])
            else:
                rows.append(model(**inputs).last_hidden_state[0].mean(dim=0))
    # torchvision and Pillow round the pixels of TIPS differently, by one in 255.
    assert max(differences) <= (1.01 / 255 if name == "tipsv2" else 1e-4)
    expected = torch.stack(rows).numpy()
    actual = embedded(encoder)
    assert actual.dtype == np.float32
    assert actual.shape == (len(SIZES), encoder.dim) == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, atol=(1e-2 if name == "tipsv2" else 1e-4) * scale)
    assert np.ptp(expected, axis=0).max() > 1e-2 * scale


@pytest.mark.parametrize("name", VISION[:2])
def test_the_class_token_is_what_the_library_calls_pooled(
    name: str, directory: Callable[[str], Path]
) -> None:
    encoder = load_vision(f"hf:{directory(name)}#cls", device="cpu")
    model = model_of(directory(name))
    with torch.no_grad():
        rows = [model(**prepared(directory(name), image)).pooler_output[0] for image in pictures()]
    np.testing.assert_allclose(embedded(encoder), torch.stack(rows).numpy(), atol=1e-4)


@pytest.mark.parametrize("name", VLMS)
def test_texts_and_logits_are_those_of_transformers(
    name: str, directory: Callable[[str], Path]
) -> None:
    encoder, model = load(name, directory(name)), model_of(directory(name))
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory(name))
    full = {"padding": "max_length", "max_length": 64}
    image = pictures()[1]
    rows, logits = [], []
    for text in TEXTS:
        settings = full if name in ("tipsv2", "naflex") else {}
        lowered = text.lower() if name == "naflex" else text
        tokens = tokenizer([lowered], return_tensors="pt", **settings)
        if name == "naflex":
            tokens.pop("attention_mask", None)
        with torch.no_grad():
            rows.append(model.get_text_features(**tokens).pooler_output[0])
            inputs = prepared(directory(name), image) if name not in TORCHVISION else None
            if inputs is not None:
                logits.append(model(**tokens, **inputs).logits_per_image[0, 0].item())
    expected = torch.stack(rows).numpy()
    actual = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 1e-3
    if logits:
        pixels = encoder.encode_pixels(np.stack([encoder.preprocessing.pixels(image)]))[0]
        cosines = actual @ pixels / np.linalg.norm(actual, axis=1) / np.linalg.norm(pixels)
        ours = encoder.logit_scale * cosines + (encoder.logit_bias or 0)
        np.testing.assert_allclose(ours, logits, atol=1e-3)


@pytest.mark.parametrize(("name", "length"), [("altclip", 64), ("chinese_clip", 52)])
def test_long_texts_are_cut_where_the_model_ends(
    name: str, length: int, directory: Callable[[str], Path]
) -> None:
    encoder = load(name, directory(name))
    at_most, longer = "a " * (length - 2), "a " * (length - 1)
    assert encoder.cut_texts([at_most, longer]) == [longer]
    np.testing.assert_allclose(*encoder.encode_texts([at_most, longer]), atol=1e-5)


def test_the_texts_of_chinese_clip_are_chinese(directory: Callable[[str], Path]) -> None:
    assert load("chinese_clip", directory("chinese_clip")).prompt == "{}的照片。"
    assert load("metaclip2", directory("metaclip2")).prompt == "a photo of a {}."
    assert load("naflex", directory("naflex")).prompt == "This is a photo of {}."


def save_dual(directory: Path) -> Path:
    """A family that no list names: two encoders that were trained to go together."""
    vision, text = tiny_models.VISION, tiny_models.TEXT
    tiny_families.save_tiny_chinese_clip(directory)
    pieces = len((directory / "vocab.txt").read_text("utf-8").split("\n")) - 1
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.ViTConfig(**vision),
        transformers.BertConfig(**text, vocab_size=pieces, max_position_embeddings=64),
        projection_dim=24,
    )
    torch.manual_seed(0)
    transformers.VisionTextDualEncoderModel(config).save_pretrained(directory)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"})
    )
    return directory


def test_what_embeds_images_and_texts_predicts_whatever_its_family(tmp_path: Path) -> None:
    folder = save_dual(tmp_path / "dual")
    encoder, model = load_vlm(f"hf:{folder}", device="cpu"), model_of(folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        ["a cab", "a dog on a bed"], padding=True, return_tensors="pt"
    )
    image = pictures()[1]
    inputs = prepared(folder, image)
    with torch.no_grad():
        expected = model(**tokens, **inputs).logits_per_image[0].numpy()
    texts = encoder.encode_texts(["a cab", "a dog on a bed"])
    pixels = encoder.encode_pixels(np.stack([encoder.preprocessing.pixels(image)]))[0]
    cosines = texts @ pixels / np.linalg.norm(texts, axis=1) / np.linalg.norm(pixels)
    np.testing.assert_allclose(encoder.logit_scale * cosines, expected, atol=1e-4)


def test_code_of_a_repository_is_not_run(tmp_path: Path) -> None:
    tiny_families.save_tiny_dinov3(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "jina_clip"
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ModelUnavailableError, match="which trustvlm does not run"):
        load_vlm(f"hf:{tmp_path}")


def test_a_family_that_compares_in_another_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_dual(tmp_path / "dual")
    kind = transformers.VisionTextDualEncoderModel
    own = kind.forward

    def other(self: Any, **inputs: Any) -> Any:
        output = own(self, **inputs)
        output.logits_per_image = output.logits_per_image + 1
        return output

    monkeypatch.setattr(kind, "forward", other)
    with pytest.raises(ModelUnavailableError, match="not a scaled cosine"):
        load_vlm(f"hf:{folder}", device="cpu")


def test_what_reads_a_random_part_of_an_image_is_refused(tmp_path: Path) -> None:
    config = transformers.ViTMAEConfig(**tiny_models.VISION)
    transformers.ViTMAEModel(config).save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelUnavailableError, match="another vector each time"):
        load_vision(f"hf:{tmp_path}", device="cpu")


def test_a_model_of_videos_encodes_no_images(tmp_path: Path) -> None:
    config = transformers.VivitConfig(**tiny_models.VISION, num_frames=2)
    transformers.VivitModel(config).save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelUnavailableError, match="vivit model, which cannot be used as an enc"):
        load_vision(f"hf:{tmp_path}", device="cpu")


def test_their_pixels_go_through_the_pipeline(
    directory: Callable[[str], Path], tmp_path: Path
) -> None:
    """Patches in a packed array, and fractions, in place of a picture of whole numbers."""
    shots = write_class_folders(tmp_path / "shots", per_class=3)
    model = TrustVLM(
        vlm=f"hf:{directory('naflex')}",
        vision=f"hf:{directory('dinov3')}",
        score="msp",
        score_parameters={"link": "sigmoid"},
        store=EmbeddingStore.memory(),
        device="cpu",
    )
    with warnings.catch_warnings():
        # Random weights tell colours apart by hardly anything.
        warnings.simplefilter("ignore", TrustVLMWarning)
        verdicts = model.fit(shots).predict(shots)
        model.save(tmp_path / "m.trust")
        again = TrustVLM.load(tmp_path / "m.trust", device="cpu", store=EmbeddingStore.memory())
        assert again.predict(shots).to_csv() == verdicts.to_csv()
    assert set(verdicts.column("label")) <= set(COLOURS)
    with pytest.raises(InputError, match="of no fixed size: use `clean`"):
        TrustVLM(model.vlm, model.vision, protocol="paper", device="cpu").fit(shots)
    # A service decodes in other processes, which send bytes.
    file = next(shots.rglob("*.png"))
    encoders = (model.encoders.vlm, model.encoders.vision)
    wanted = tuple(encoder.preprocessing for encoder in encoders)
    task = PixelsTask(file.read_bytes(), file.name, DEFAULT_LIMITS, wanted)
    received = task.result(task.run())
    for preprocessing in wanted:
        np.testing.assert_array_equal(
            received[preprocessing], preprocessing.pixels(Image.open(file).convert("RGB"))
        )
    assert Preprocessing.from_dict(wanted[0].to_dict()) == wanted[0]
    assert Preprocessing.from_dict(wanted[1].to_dict()) == wanted[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": 8, "rounded": False}, "`rounded` to be true with a centre crop"),
        ({"patch": 16, "patches": 4}, r"`size` to be \(5, 256\) and `resize` None for 4 patches"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing((8, 8), **settings)
