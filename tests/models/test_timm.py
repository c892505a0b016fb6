"""Encoders run by timm, against timm's own transform and network; MoCo v2 among them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchvision_schemas import declare_schemas
from trustvlm import models
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import ImageEncoder

pytestmark = pytest.mark.torch

SIZES = [(64, 64), (97, 65), (66, 101), (240, 71), (20, 90), (9, 13)]
SETTINGS = {
    "input_size": [3, 64, 64],
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.25],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "num_classes": 7,
}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "resnet": ("resnet10t", {}, SETTINGS),
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": 64, "depth": 2},
        {**SETTINGS, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
    ),
}


@pytest.fixture(scope="module")
def timm() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    declare_schemas()
    return pytest.importorskip("timm", reason="timm is not installed")


def scramble(model: Any, seed: int) -> None:
    """Give batch normalisation other statistics than it starts with."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)


@pytest.fixture(scope="module")
def saved(timm, tmp_path_factory) -> Path:
    """Folder with a directory per kind, as `local-dir:` wants it."""
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    for kind, (architecture, arguments, settings) in KINDS.items():
        model = timm.create_model(architecture, num_classes=7, **arguments)
        scramble(model, seed=1)
        folder = root / kind
        folder.mkdir()
        config = {
            "architecture": architecture,
            "num_classes": 7,
            "model_args": arguments,
            "pretrained_cfg": settings,
        }
        (folder / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), folder / "model.safetensors")
    return root


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


def test_every_published_model_is_prepared_as_timm_does_or_refused(timm):
    from trustvlm.models.timm import _preprocessing

    kinds = {}
    for name in timm.list_pretrained():
        known = timm.get_pretrained_cfg(name).to_dict()
        settings = timm.data.resolve_data_config(pretrained_cfg=known)
        geometry = {key: value for key, value in settings.items() if key not in ("mean", "std")}
        kinds[str(sorted(geometry.items()))] = name, settings
    assert len(kinds) > 50
    refused = set()
    for name, settings in kinds.values():
        try:
            ours = _preprocessing(name, settings)
        except ModelUnavailableError:
            refused.add((settings["crop_mode"], settings["crop_pct"] == 1.0))
            continue
        transform = timm.data.create_transform(**settings, is_training=False)
        image = pictures()[0].resize((97, 130))
        actual = ours.normalise(ours.pixels(image)[None])[0]
        assert np.abs(actual - transform(image).numpy()).max() < 1e-5, name
    # Padding, and a crop of what was squashed, as of NFNets.
    assert refused <= {("border", True), ("squash", False)}


def test_the_presets_are_known_to_timm(timm):
    for preset in models.presets():
        name = preset.spec.removeprefix("timm:")
        if name != preset.spec:
            assert name in timm.list_pretrained()
            known = timm.get_pretrained_cfg(name)
            assert preset.resolution == str(known.input_size[-1])
            assert preset.licence.lower().replace(" ", "-") == known.license


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_embedded_as_timm_does(timm, saved, kind):
    import torch

    name = f"local-dir:{saved / kind}"
    model = timm.create_model(name, pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    tensor = torch.stack([transform(image) for image in pictures()])
    with torch.inference_mode():
        features = model.forward_features(tensor)
        expected = model.forward_head(features, pre_logits=True).numpy()

    loaded = models.load_vision(f"timm:{name}", device="cpu")
    assert isinstance(loaded, ImageEncoder)
    pixels = np.stack([loaded.preprocessing.pixels(image) for image in pictures()])
    np.testing.assert_allclose(loaded.preprocessing.normalise(pixels), tensor.numpy(), atol=1e-6)
    actual = loaded.encode_pixels(pixels)
    assert actual.dtype == np.float32
    assert actual.shape == (len(pixels), loaded.dim) == expected.shape
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1 * scale, "the images must differ for the network"
    np.testing.assert_allclose(actual, expected, atol=1e-5 * scale)
    for order in ([0], [3, 1], [5, 4, 3, 2, 1, 0]):
        again = loaded.encode_pixels(pixels[order])
        np.testing.assert_allclose(again, expected[order], atol=1e-5 * scale)


def test_weights_decide_on_the_identity_and_their_folder_does_not(timm, saved, tmp_path):
    shutil.copytree(saved / "resnet", tmp_path / "copy")
    folders = (saved / "resnet", tmp_path / "copy", saved / "vit")
    named = [models.load_vision(f"timm:local-dir:{folder}", device="cpu") for folder in folders]
    first, second, other = [model.identity.fingerprint(model.preprocessing) for model in named]
    assert first == second != other


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", r"no model 'resnt50'\. Did you mean resnet50"),
        ("resnet50.nothing", r"no weights 'nothing' for resnet50. It has: .*resnet50\.a1_in1k"),
        ("vit_giant_patch14_224", "no weights for the model"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(timm, name, message):
    with pytest.raises(InputError, match=message):
        models.load_vision(f"timm:{name}")


@pytest.mark.parametrize(
    "change",
    [
        {"crop_mode": "border"},
        {"crop_mode": "squash"},
        {"input_size": [3, 64, 96]},
        {"interpolation": "random"},
    ],
)
def test_unsupported_preprocessing_is_refused(timm, saved, tmp_path, change):
    shutil.copytree(saved / "resnet", tmp_path / "model")
    config = json.loads((saved / "resnet" / "config.json").read_text())
    config["pretrained_cfg"].update(change)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailableError, match="is not supported: 3 channels"):
        models.load_vision(f"timm:local-dir:{tmp_path / 'model'}")


def test_incomplete_weights_are_refused(timm, saved, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved / "resnet", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["layer1.0.conv1.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ModelUnavailableError, match="cannot be had"):
        models.load_vision(f"timm:local-dir:{tmp_path / 'model'}")


UNREACHABLE = """
import time
from torchvision_schemas import declare_schemas
declare_schemas()
import timm
from trustvlm import models
from trustvlm.exceptions import ModelUnavailableError
for name in ("timm:resnet50.a1_in1k", "timm:hf-hub:timm/none"):
    start = time.monotonic()
    try:
        models.load_vision(name)
    except ModelUnavailableError as error:
        assert "--vision offline" in str(error), error
    else:
        raise AssertionError("it was loaded")
    assert time.monotonic() - start < 10
"""


def test_an_unreachable_hub_is_told_quickly(timm, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"trustvlm\[timm\]"):
        models.load_vision("timm:resnet50")


# MoCo


@pytest.fixture(scope="module")
def encoder(timm) -> Any:
    import torch

    torch.manual_seed(5)
    model = timm.create_model("resnet50", pretrained=False, num_classes=128)
    scramble(model, seed=2)
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(encoder, tmp_path_factory) -> Path:
    """What MoCo's training script saves: two encoders, a queue, the optimiser."""
    import torch

    weights = encoder.state_dict()
    state: dict[str, Any] = {}
    for name, value in weights.items():
        head = name.startswith("fc.")
        state[f"module.encoder_q.{name.replace('fc.', 'fc.2.') if head else name}"] = value
        state[f"module.encoder_k.{name}"] = torch.zeros_like(value)
    state["module.encoder_q.fc.0.weight"] = torch.zeros(2048, 2048)
    state["module.queue"] = torch.zeros(128, 16)
    file = tmp_path_factory.mktemp("moco") / "moco_v2_800ep_pretrain.pth.tar"
    torch.save(
        {
            "epoch": 800,
            "arch": "resnet50",
            "state_dict": state,
            "optimizer": {"param_groups": [{"lr": 0.03}]},
        },
        file,
    )
    return file


def test_moco_gives_the_pooled_features_of_its_query_encoder(encoder, checkpoint):
    import torch
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = pictures()[:3]
    tensor = torch.stack([transform(image) for image in images])
    with torch.inference_mode():
        expected = encoder.forward_features(tensor).mean(dim=(2, 3)).numpy()
    loaded = models.load_vision(f"moco-v2-r50:{checkpoint}", device="cpu")
    assert (loaded.dim, loaded.identity.spec) == (2048, f"moco-v2-r50:{checkpoint}")
    pixels = np.stack([loaded.preprocessing.pixels(image) for image in images])
    np.testing.assert_allclose(loaded.preprocessing.normalise(pixels), tensor.numpy(), atol=1e-6)
    actual = loaded.encode_pixels(pixels)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_moco_may_be_bare_weights_of_any_container(encoder, checkpoint, tmp_path):
    from safetensors.torch import save_file

    named = {name: value for name, value in encoder.state_dict().items() if "fc." not in name}
    save_file(named, tmp_path / "moco.safetensors")
    first = models.load_vision(f"moco-v2-r50:{checkpoint}", device="cpu")
    second = models.load_vision(f"moco-v2-r50:{tmp_path / 'moco.safetensors'}", device="cpu")
    assert first.identity.weights == second.identity.weights
    assert first.identity.fingerprint(first.preprocessing) == second.identity.fingerprint(
        second.preprocessing
    )


def test_moco_without_a_checkpoint_says_where_one_is(tmp_path):
    for spec in ("moco-v2-r50", f"moco-v2-r50:{tmp_path / 'none.pth.tar'}"):
        with pytest.raises(ModelUnavailableError, match=r"facebookresearch/moco: name it as"):
            models.load_vision(spec)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_files_that_are_no_checkpoint_are_refused(timm, tmp_path):
    import torch

    (tmp_path / "noise.pth").write_bytes(b"nothing")
    (tmp_path / "noise.safetensors").write_bytes(b"nothing")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"state_dict": Trap(tmp_path / "sprung")}))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    for file, message in {
        "noise.pth": "cannot be read",
        "noise.safetensors": "cannot be read",
        "trap.pth": "cannot be read",
        "list.pth": "holds no table of weights",
        "numbers.pth": "holds no table of weights",
        "other.pth": "does not hold the weights of a ResNet-50",
    }.items():
        with pytest.raises(ModelUnavailableError, match=message):
            models.load_vision(f"moco-v2-r50:{tmp_path / file}")
    assert not (tmp_path / "sprung").exists()
