"""Which vector a transformer's tokens become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch")
pytest.importorskip("transformers", reason="needs the extra torch")

from tiny_models import save_tiny_clip, save_tiny_dinov2
from trustvlm import models
from trustvlm.exceptions import InputError

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dinov2(tmp_path_factory.mktemp("hub") / "dinov2")


def test_mean_takes_all_tokens_and_cls_the_first(dinov2: Path) -> None:
    import torch
    from transformers import Dinov2Model

    mean = models.load_vision(f"hf:{dinov2}", device="cpu")
    cls = models.load_vision(f"hf:{dinov2}#cls", device="cpu")
    height, width = mean.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    with torch.inference_mode():
        tensor = torch.from_numpy(mean.preprocessing.normalise(pixels))
        model = Dinov2Model.from_pretrained(dinov2).eval()
        hidden = model(pixel_values=tensor).last_hidden_state.numpy()
    # One class token, and a token per patch.
    assert hidden.shape[1] > 1
    np.testing.assert_allclose(mean.encode_pixels(pixels), hidden.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(cls.encode_pixels(pixels), hidden[:, 0], atol=1e-5)
    assert (mean.identity.settings["pooling"], cls.identity.settings["pooling"]) == ("mean", "cls")
    assert cls.identity.spec == f"hf:{dinov2}#cls"
    assert mean.identity.fingerprint(mean.preprocessing) != cls.identity.fingerprint(
        cls.preprocessing
    )


def test_models_without_a_class_token_to_take(tmp_path: Path) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    with pytest.raises(InputError, match="a clip model, which offers no class token"):
        models.load_vision(f"hf:{clip}#cls")

    from transformers import ResNetConfig, ResNetModel

    sizes = [4, 6, 8, 10]
    network = ResNetConfig(embedding_size=4, hidden_sizes=sizes, depths=[1, 1, 1, 1])
    ResNetModel(network).save_pretrained(tmp_path / "resnet")
    with pytest.raises(InputError, match="a resnet model, which offers no class token"):
        models.load_vision(f"hf:{tmp_path / 'resnet'}#cls")


@pytest.mark.parametrize("spec", ["offline#cls", "same#cls", "onnx:a.onnx#cls", "moco-v2-r50#cls"])
def test_other_kinds_have_no_such_choice(spec: str) -> None:
    with pytest.raises(InputError, match="#cls is for models that transformers runs"):
        models.load_vision(spec)


def test_a_vlm_has_no_such_choice() -> None:
    with pytest.raises(InputError, match="no VLM named 'clip-vit-b16#cls'"):
        models.load_vlm("clip-vit-b16#cls")
