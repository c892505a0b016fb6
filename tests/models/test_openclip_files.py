"""What a file of open_clip's weights leaves open, for every architecture that open_clip names."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchvision_schemas import declare_schemas
from trustvlm.exceptions import InputError
from trustvlm.models.openclip import _preprocessing
from trustvlm.models.openclip_files import as_recorded, file_settings, split_options

pytestmark = pytest.mark.torch

CLIP_LIKE = {"mean": (0.48145466, 0.4578275, 0.40821073), "resize_mode": "shortest"}
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def open_clip() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    declare_schemas()
    return pytest.importorskip("open_clip", reason="open_clip is not installed")


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def theirs(open_clip: Any, architecture: str, known: dict[str, Any]) -> dict[str, Any]:
    """What open_clip's `create_model` sets as a network's preprocessing."""
    transform = open_clip.transform
    settings = transform.merge_preprocess_dict(transform.PreprocessCfg(), known)
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    return {**settings, "size": size}


def test_every_published_model_is_prepared_as_open_clip_does(open_clip):
    seen = {}
    for architecture, tag in open_clip.list_pretrained():
        known = open_clip.get_pretrained_cfg(architecture, tag)
        settings = theirs(open_clip, architecture, known)
        like = file_settings(open_clip, architecture, "w.pt", [f"like={tag}"])
        assert {key: settings[key] for key in ("interpolation", "resize_mode")} == {
            key: like[key] for key in ("interpolation", "resize_mode")
        }
        assert like["quick_gelu"] == bool(
            known.get("quick_gelu") or open_clip.get_model_config(architecture).get("quick_gelu")
        )
        ours = _preprocessing("", {**settings, **like})
        assert ours == _preprocessing("", settings)
        seen[tuple(map(str, settings.values()))] = settings, ours
    assert len(seen) > 15, "the kinds that are compared in pixels"
    for settings, ours in seen.values():
        config = open_clip.transform.PreprocessCfg(**settings)
        transform = open_clip.transform.image_transform_v2(config, is_train=False)
        for image in (picture(301, 200), picture(97, 260)):
            actual = ours.normalise(ours.pixels(image)[None])[0]
            np.testing.assert_allclose(actual, transform(image).numpy(), atol=1e-5)


def test_a_file_is_read_as_all_published_weights_of_its_architecture_or_refused(open_clip):
    settled, refused = [], []
    for architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        published = [
            {
                **file_settings(open_clip, architecture, "w.pt", [f"like={tag}"]),
                "plain": not open_clip.get_model_config(architecture).get("quick_gelu"),
            }
            for tag in tags
        ]
        try:
            settings = file_settings(open_clip, architecture, "w.pt", [])
        except InputError:
            refused.append(architecture)
            # Weights of several kinds, or none, or QuickGELU's under a plain name.
            kinds = {str(known) for known in published}
            quick = any(known["quick_gelu"] and known["plain"] for known in published)
            assert len(kinds) != 1 or quick
        else:
            settled.append(architecture)
            for known in published:
                assert settings == {key: known[key] for key in settings}
            assert published
    assert {"PE-Core-B-16", "MobileCLIP2-S2", "EVA02-B-16", "ViT-B-32-quickgelu"} <= set(settled)
    assert {"ViT-B-32", "ViT-L-14", "RN50", "ViT-H-14-quickgelu", "ViT-S-16"} <= set(refused)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (
            "PE-Core-B-16",
            {"mean": HALF, "std": HALF, "interpolation": "bilinear", "resize_mode": "squash"},
        ),
        ("MobileCLIP2-S2", {"mean": (0, 0, 0), "std": (1, 1, 1), "interpolation": "bilinear"}),
        ("MobileCLIP2-S4", {**CLIP_LIKE, "interpolation": "bilinear"}),
        ("ViT-B-16-SigLIP2", {"mean": HALF, "interpolation": "bicubic", "resize_mode": "squash"}),
        ("ViT-B-32-quickgelu", {**CLIP_LIKE, "quick_gelu": True}),
        ("roberta-ViT-B-32", {"quick_gelu": True}),
    ],
)
def test_files_of_known_architectures_need_no_options(open_clip, architecture, expected):
    settings = file_settings(open_clip, architecture, "w.pt", [])
    assert {key: settings[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("architecture", "options", "expected"),
    [
        ("ViT-L-14", ["quick_gelu=true"], {**CLIP_LIKE, "quick_gelu": True}),
        ("ViT-L-14", ["like=laion2b_s32b_b82k"], {"mean": HALF, "quick_gelu": False}),
        ("ViT-L-14", ["like=laion2b_s32b_b82k", "mean=0.1,0.2,0.3"], {"mean": (0.1, 0.2, 0.3)}),
        ("ViT-S-16", ["like=PE-Core-B-16/meta"], {"mean": HALF, "resize_mode": "squash"}),
        (
            "ViT-H-14-quickgelu",
            ["resize_mode=squash"],
            {"quick_gelu": True, "mean": CLIP_LIKE["mean"]},
        ),
        ("PE-Core-B-16", ["mean=0", "std=1"], {"mean": (0, 0, 0), "std": (1, 1, 1)}),
    ],
)
def test_options_settle_what_is_open(open_clip, architecture, options, expected):
    settings = file_settings(open_clip, architecture, "w.pt", options)
    assert {key: settings[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("ViT-B-32", [], r"#quick_gelu=true or false; .*#like=openai.* ViT-B-32-quickgelu"),
        ("ViT-L-14", ["quick_gelu=false"], r"#mean=0\.48145466,.* or 0\.5;"),
        ("ViT-S-16", ["mean=0.5"], r"are none\. .*: #std=\.\.\.; #interpolation=\.\.\."),
        ("ViT-L-14", ["mean=0.3"], r"#std=0\.26862954,.* or 0\.5; #quick_gelu"),
        ("RN50-quickgelu", ["quick_gelu=false"], "name the architecture without it"),
        ("RN50", ["like=opena"], "Did you mean openai"),
        ("RN50", ["meen=0.5"], "Did you mean mean"),
        ("RN50", ["mean=0.5", "mean=0.4"], "each once"),
        ("RN50", ["mean"], "with a value"),
        ("RN50", ["mean=red"], "Expected mean to be a number, or three"),
        ("RN50", ["mean=nan"], "Expected mean to be a number, or three"),
        ("RN50", ["mean=0.5,0.5"], "Expected mean to be a number, or three"),
        ("RN50", ["std=0"], "above zero, but got '0'"),
        ("RN50", ["resize_mode=longest"], "shortest or squash, but got 'longest'"),
        ("RN50", ["quick_gelu=yes"], "true or false, but got 'yes'"),
    ],
)
def test_what_stays_open_is_refused(open_clip, architecture, options, message):
    with pytest.raises(InputError, match=message):
        file_settings(open_clip, architecture, "w.pt", options)


def test_a_recorded_model_gives_back_its_settings(open_clip, tmp_path):
    file = tmp_path / "w.pt"
    file.touch()
    random.seed(0)
    for _ in range(20):
        given = {
            "mean": tuple(random.random() for _ in range(3)),
            "std": (random.random() + 0.1,) * 3,
            "interpolation": random.choice(["bicubic", "bilinear"]),
            "resize_mode": random.choice(["shortest", "squash"]),
            "quick_gelu": random.random() < 0.5,
        }
        entry = {
            "preprocessing": dataclasses.asdict(_preprocessing("", {**given, "size": 32})),
            "settings": {"activation": "quick_gelu" if given["quick_gelu"] else "gelu"},
        }
        spec = as_recorded(f"openclip:ViT-B-32/{file}", entry)
        name, options = split_options(spec.partition("/")[2])
        assert name == str(file)
        assert file_settings(open_clip, "ViT-B-32", name, options) == given
        assert as_recorded(spec, entry) == spec
    for other in (
        "openclip:ViT-B-32/openai",
        "openclip:hf-hub:org/name",
        "clip-rn50",
        f"onnx:{file}",
    ):
        assert as_recorded(other, entry) == other


def test_a_file_may_have_a_hash_in_its_name(tmp_path):
    file = tmp_path / "run#3=best.pt"
    file.touch()
    assert split_options(str(file)) == (str(file), [])
