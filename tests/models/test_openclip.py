"""Models run by open_clip, against open_clip's own transform and network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cut_texts import check_cut_texts
from hub_server import serve
from torchvision_schemas import declare_schemas
from trustvlm import models
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import CLIP_MEAN, CLIP_STD, VisionLanguageModel

pytestmark = pytest.mark.torch

SIZES = [(32, 32), (47, 33), (33, 48), (120, 35), (20, 90), (9, 13)]
TEXTS = ["a photo of a cat.", "Dog", "a very long prompt " * 40, "a photo of a golden retriever."]
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
CLIP = (
    "".join(
        f"#{key}={','.join(map(str, values))}"
        for key, values in {"mean": CLIP_MEAN, "std": CLIP_STD}.items()
    )
    + "#interpolation=bicubic#resize_mode=shortest"
)
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"model_cfg": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}},
    "resnet": {
        "model_cfg": {
            "embed_dim": 24,
            "quick_gelu": True,
            "vision_cfg": RESNET,
            "text_cfg": TEXT,
        },
        "preprocess_cfg": {"interpolation": "bilinear", "mean": [0.1, 0.2, 0.3]},
    },
    "siglip": {
        "model_cfg": {
            "embed_dim": 32,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": VIT,
            "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
        },
        "preprocess_cfg": {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    },
}


@pytest.fixture(scope="module")
def open_clip() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    declare_schemas()
    return pytest.importorskip("open_clip", reason="open_clip is not installed")


@pytest.fixture(scope="module")
def saved(open_clip, tmp_path_factory) -> Path:
    """Folder with a directory per configuration, as `local-dir:` wants it."""
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("open_clip")
    for seed, (name, config) in enumerate(CONFIGS.items()):
        folder = root / name
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        model = getattr(open_clip, "CustomTextCLIP" if name == "siglip" else "CLIP")(
            **{key: value for key, value in config["model_cfg"].items() if key != "custom_text"}
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
                elif key == "logit_scale":
                    weight.fill_(4.0)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return root


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


@pytest.fixture(params=CONFIGS)
def pair(request, open_clip, saved):
    """Our encoder, and open_clip's model with its evaluation transform and tokenizer."""
    name = f"local-dir:{saved / request.param}"
    model, _, transform = open_clip.create_model_and_transforms(name, precision="fp32")
    reference = (model.eval(), transform, open_clip.get_tokenizer(name))
    return models.load_vlm(f"openclip:{name}", device="cpu"), reference


def test_images_are_embedded_as_open_clip_does(pair):
    import torch

    encoder, (model, transform, _) = pair
    images = pictures()
    tensor = torch.stack([transform(image) for image in images])
    with torch.inference_mode():
        expected = model.encode_image(tensor).numpy()
    pixels = np.stack([encoder.preprocessing.pixels(image) for image in images])
    np.testing.assert_allclose(encoder.preprocessing.normalise(pixels), tensor.numpy(), atol=1e-6)
    actual = encoder.encode_pixels(pixels)
    assert actual.shape == (len(images), encoder.dim)
    assert actual.dtype == np.float32
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1 * scale, "the images must differ for the network"
    np.testing.assert_allclose(actual, expected, atol=1e-5 * scale)
    for order in ([0], [3, 1], [5, 4, 3, 2, 1, 0]):
        again = encoder.encode_pixels(pixels[order])
        np.testing.assert_allclose(again, expected[order], atol=1e-5 * scale)


def test_texts_are_embedded_as_open_clip_does(pair):
    import torch

    encoder, (model, _, tokenizer) = pair
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(TEXTS)).numpy()
    actual = encoder.encode_texts(TEXTS)
    assert actual.shape == (len(TEXTS), encoder.dim)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5 * np.abs(expected).max())
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_texts_that_are_cut_are_named(pair):
    check_cut_texts(pair[0], "dog ", most=120)


def test_it_keeps_the_contract(pair):
    encoder, _ = pair
    siglip = encoder.identity.settings["family"] == "siglip"
    assert isinstance(encoder, VisionLanguageModel)
    assert encoder.logit_scale == pytest.approx(np.exp(4.0))
    assert encoder.prompt == ("This is a photo of {}." if siglip else "a photo of a {}.")
    assert len(encoder.identity.weights) == 64
    # The paper's protocol fixes SigLIP's scale.
    encoder.logit_scale = 100.0
    assert encoder.logit_scale == 100.0
    with pytest.raises(InputError, match="sequence of strings"):
        encoder.encode_texts("a cat")
    with pytest.raises(InputError, match="Expected `pixels`"):
        encoder.encode_pixels(np.zeros((1, 3, 32, 32), dtype=np.float32))


def test_weights_decide_on_the_identity_and_their_folder_does_not(open_clip, saved, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(saved / "vit", copy)
    named = [models.load_vision(f"openclip:local-dir:{saved / 'vit'}", device="cpu")]
    named.append(models.load_vision(f"openclip:local-dir:{copy}", device="cpu"))
    named.append(models.load_vision(f"openclip:local-dir:{saved / 'resnet'}", device="cpu"))
    first, second, other = [model.identity.fingerprint(model.preprocessing) for model in named]
    assert first == second != other


def test_bfloat16_is_near(open_clip, saved):
    spec = f"openclip:local-dir:{saved / 'vit'}"
    full = models.load_vlm(spec, device="cpu")
    half = models.load_vlm(spec, device="cpu", precision="bfloat16")
    pixels = np.stack([full.preprocessing.pixels(image) for image in pictures()])
    a, b = full.encode_pixels(pixels), half.encode_pixels(pixels)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert b.dtype == np.float32
    assert cosines.min() > 0.99
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(half.encode_texts(TEXTS), full.encode_texts(TEXTS))
    assert half.logit_scale == full.logit_scale
    assert half.identity.settings["precision"] == "bfloat16 autocast for images"


@pytest.fixture
def tagged(open_clip, saved, tmp_path, monkeypatch) -> str:
    """Architecture `tiny-rn`, whose tag `openai` was trained with QuickGELU as RN50's was."""
    config = {**CONFIGS["resnet"]["model_cfg"], "quick_gelu": False}
    (tmp_path / "tiny-rn.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    paths = list(open_clip.factory._MODEL_CONFIG_PATHS)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", paths)
    open_clip.add_model_config(tmp_path / "tiny-rn.json")
    file = str(saved / "resnet" / "open_clip_model.safetensors")
    tag = {"file": file, "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "interpolation": "bilinear"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-rn", {"openai": tag})
    return file


def test_activation_and_preprocessing_follow_the_weights(open_clip, saved, tagged):
    tag = models.load_vlm("openclip:tiny-rn/openai", device="cpu")
    file = models.load_vlm(f"openclip:tiny-rn/{tagged}#like=openai", device="cpu")
    plain = models.load_vlm(f"openclip:tiny-rn/{tagged}#quick_gelu=false{CLIP}", device="cpu")
    directory = models.load_vlm(f"openclip:local-dir:{saved / 'resnet'}", device="cpu")
    assert tag.preprocessing == directory.preprocessing
    pixels = np.stack([tag.preprocessing.pixels(image) for image in pictures()])
    np.testing.assert_array_equal(tag.encode_pixels(pixels), directory.encode_pixels(pixels))
    assert tag.identity.settings["activation"] == "quick_gelu"
    assert file.preprocessing == tag.preprocessing
    assert file.identity.fingerprint(file.preprocessing) == tag.identity.fingerprint(
        tag.preprocessing
    )
    assert plain.identity.settings["activation"] == "gelu"
    assert plain.preprocessing.mean == CLIP_MEAN
    assert plain.identity.weights == tag.identity.weights
    assert plain.identity.fingerprint(tag.preprocessing) != tag.identity.fingerprint(
        tag.preprocessing
    )
    assert not np.allclose(plain.encode_pixels(pixels), tag.encode_pixels(pixels), rtol=1e-3)


@pytest.mark.parametrize("older", [False, True])
def test_a_saved_model_of_a_file_loads_as_it_was_fitted(tagged, tmp_path, monkeypatch, older):
    from trustvlm import TrustVLM
    from trustvlm.models import openclip

    for name in ("cat", "dog"):
        (tmp_path / "shots" / name).mkdir(parents=True)
        for index, image in enumerate(pictures()[:2]):
            turned = image.transpose(Image.Transpose.ROTATE_180) if name == "dog" else image
            turned.save(tmp_path / "shots" / name / f"{index}.png")
    spec = f"openclip:tiny-rn/{tagged}" + ("" if older else "#like=openai#mean=0.3")
    with monkeypatch.context() as patch:
        if older:  # Versions before took CLIP's preprocessing and the architecture's activation.
            patch.setattr(openclip, "file_settings", lambda *_: {})
        model = TrustVLM(vlm=spec, vision="same", device="cpu").fit(tmp_path / "shots")
        model.save(tmp_path / "m.trust")
        expected = model.predict(tmp_path / "shots")
    if older:
        with pytest.raises(InputError, match="or which activation they have"):
            models.load_vlm(spec)
    loaded = TrustVLM.load(tmp_path / "m.trust", device="cpu")
    assert str(list(loaded.predict(tmp_path / "shots"))) == str(list(expected))
    vlm = loaded.encoders.vlm
    assert vlm.preprocessing.mean == (CLIP_MEAN if older else (0.3, 0.3, 0.3))
    assert vlm.identity.settings["activation"] == ("gelu" if older else "quick_gelu")
    loaded.save(tmp_path / "again.trust")
    again = TrustVLM.load(tmp_path / "again.trust", device="cpu")
    assert again.encoders.vlm.preprocessing == vlm.preprocessing


def test_the_presets_are_known_to_open_clip(open_clip):
    for preset in models.presets():
        name = preset.spec.removeprefix("openclip:")
        if name != preset.spec and not name.startswith("hf-hub:"):
            architecture, tag = name.split("/")
            assert tag in open_clip.list_pretrained_tags_by_model(architecture)
            quick = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu")
            assert bool(quick) == preset.name.startswith("clip-rn")
            sizes = open_clip.get_model_config(architecture)
            assert preset.text_length == sizes["text_cfg"].get("context_length", 77)
            assert preset.resolution == str(sizes["vision_cfg"].get("image_size", 224))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN5/openai", "no model 'RN5'. Did you mean RN50"),
        ("RN50/opena", "Did you mean openai"),
        ("RN50", "to name a file or one of openai"),
        ("RN50/there", "to name a file or one of openai"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(open_clip, name, message):
    with pytest.raises(InputError, match=message):
        models.load_vlm(f"openclip:{name}")


def test_files_that_do_not_fit_are_refused(open_clip, saved, tagged, tmp_path):
    vit = saved / "vit" / "open_clip_model.safetensors"
    with pytest.raises(ModelUnavailableError, match=r"cannot be had: .*state_dict"):
        models.load_vlm(f"openclip:tiny-rn/{vit}#like=openai")
    (tmp_path / "broken.bin").write_bytes(b"nothing")
    with pytest.raises(ModelUnavailableError, match="cannot be had"):
        models.load_vlm(f"openclip:tiny-rn/{tmp_path / 'broken.bin'}#like=openai")
    with pytest.raises(ModelUnavailableError, match="There is no directory"):
        models.load_vlm(f"openclip:local-dir:{tmp_path / 'nowhere'}")
    config = json.dumps(CONFIGS["vit"])
    (tmp_path / "open_clip_config.json").write_text(config)
    (tmp_path / "broken.bin").unlink()
    with pytest.raises(ModelUnavailableError, match="could not be loaded"):
        models.load_vlm(f"openclip:local-dir:{tmp_path}")


def test_a_pickle_is_not_executed(open_clip, tagged, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "trap.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelUnavailableError, match="cannot be had"):
        models.load_vlm(f"openclip:tiny-rn/{tmp_path / 'trap.pt'}#like=openai")
    assert not (tmp_path / "sprung").exists()


def test_unsupported_preprocessing_is_refused(open_clip, saved, tmp_path):
    import shutil

    shutil.copytree(saved / "vit", tmp_path / "vit")
    config = {**CONFIGS["vit"], "preprocess_cfg": {"resize_mode": "longest"}}
    (tmp_path / "vit" / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailableError, match="not supported: resize_mode is longest"):
        models.load_vlm(f"openclip:local-dir:{tmp_path / 'vit'}")


PROGRAM = """
import sys, time
from torchvision_schemas import declare_schemas
declare_schemas()
import open_clip
from trustvlm import models
from trustvlm.exceptions import ModelUnavailableError
open_clip.add_model_config(sys.argv[1])
tag = {"hf_hub": "tiny/rn/", "quick_gelu": True, "mean": (0.1, 0.2, 0.3)}
open_clip.pretrained._PRETRAINED["tiny-rn"] = {"openai": tag}
for name in sys.argv[2:]:
    start = time.monotonic()
    try:
        model = models.load_vlm(name, device="cpu")
        print(model.identity.weights, model.identity.settings["activation"])
    except ModelUnavailableError as error:
        print(error)
    assert time.monotonic() - start < 60
"""


@pytest.fixture
def load(open_clip, tmp_path) -> Callable[..., list[str]]:
    """Load models in a process of its own, with its own cache; a line for each."""
    config = {**CONFIGS["resnet"]["model_cfg"], "quick_gelu": False}
    (tmp_path / "tiny-rn.json").write_text(json.dumps(config))

    def run(*names: str, **variables: str) -> list[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_ETAG_TIMEOUT": "1",
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny-rn.json"), *names],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        # Nothing of what the libraries say reaches the user, in a pipe not even a bar.
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


def test_weights_come_from_the_hub_once(saved, load):
    expected = models.load_vlm(f"openclip:local-dir:{saved / 'resnet'}", device="cpu")
    line = f"{expected.identity.weights} quick_gelu"
    names = ("openclip:tiny-rn/openai", "openclip:hf-hub:tiny/rn")
    with serve({"tiny/rn": saved / "resnet"}) as hub:
        assert load(*names, HF_ENDPOINT=hub.address) == [line] * 2
        assert hub.sent.count("open_clip_model.safetensors") == 1
    # Once here, they are had without a hub.
    assert load(names[0], HF_ENDPOINT="http://127.0.0.1:9") == [line]


@pytest.mark.parametrize("hub", ["silent", "switched off", "empty"])
def test_what_cannot_be_had_is_told_quickly(load, hub):
    names = ("clip-rn50", "openclip:hf-hub:laion/none")
    with serve({}, silent=hub == "silent") as running:
        offline = str(int(hub == "switched off"))
        lines = load(*names, HF_ENDPOINT=running.address, HF_HUB_OFFLINE=offline)
    asked = {"RN50/openai": "timm/resnet50_clip.openai", "hf-hub:laion/none": "laion/none"}
    for line, (name, repo) in zip(lines, asked.items(), strict=True):
        assert line.startswith(f"The model openclip:{name} cannot be had: ")
        assert f"model repository {repo!r}" in line
        assert ("There is no" if hub == "empty" else "--vlm offline") in line


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"trustvlm\[openclip\]"):
        models.load_vlm("clip-rn50")


def test_a_torchvision_for_another_torch_is_explained(monkeypatch):
    import trustvlm.models.torch_encoder as libraries

    def broken(module: str, **_: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(libraries, "require", broken)
    with pytest.raises(MissingExtraError, match=r"nms does not exist\. Install both"):
        models.load_vlm("clip-rn50")
