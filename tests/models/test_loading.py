"""From a name to an encoder, or to an error that says which names there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pixel_encoder import PixelEncoder
from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.models import Preset, check_name, load_vision, load_vlm, presets
from trustvlm.models.registry import _resolve


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("clip-vit-b61", "clip-vit-b16"),
        ("clip_vit_b32", "clip-vit-b32"),
        ("siglip2-b16", "siglip2-b16-224"),
        ("ofline", "offline"),
    ],
)
def test_a_typo_in_a_vlm_is_answered_with_near_names(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"no VLM named '{typed}'.*Did you mean .*{meant}"):
        load_vlm(typed)


@pytest.mark.parametrize(
    ("typed", "meant"), [("dinov2-basic", "dinov2-base"), ("moco-v2", "moco-v2-r50")]
)
def test_a_typo_in_a_vision_encoder_is_answered_with_near_names(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"no vision encoder named '{typed}'.*{meant}"):
        load_vision(typed)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("bioclip2", "bioclip-2"),
        ("BioCLIP", "bioclip-2"),
        ("pe-core", "pe-core-b16 or pe-core-l14-336"),
        ("siglip2", "siglip2-b16-224, siglip2-b16-384, .* or siglip2-so400m-naflex"),
        ("eva-clip", "eva02-clip-b16 or eva02-clip-l14-336"),
        ("metaclip-2", "metaclip2-b16, metaclip2-l14 or metaclip2-h14"),
        ("naflex", "siglip2-b16-naflex"),
        ("clip-vit-l14@336", "clip-vit-l14-336"),
        ("ViT-L/14@336px", r"clip-vit-l14-336\?"),
        ("OpenAI CLIP ViT-B/16", r"clip-vit-b16\?"),
        ("openai", r"clip-rn50 or clip-rn101\?"),
        ("dinov2_vitb14#cls", r"--vision dinov2-base\?"),
        ("facebook/dinov2-base#cls", r"--vision dinov2-base\?"),
        ("ViT-B/32", "clip-vit-b32"),
        ("clip", "clip-vit-b16, clip-vit-b32, clip-vit-l14 or clip-vit-l14-336"),
        ("remoteclip", "openclip:ViT-B-32/RemoteCLIP-ViT-B-32.pt#like="),
        ("google/siglip2-base-patch16-224", "siglip2-b16-224"),
        ("imageomics/bioclip-2", "bioclip-2"),
        ("org/name", "hf:org/name or openclip:hf-hub:org/name"),
        ("OPENAI/CLIP-ViT-Base-Patch32", "clip-vit-b32"),
        ("https://huggingface.co/openai/clip-vit-base-patch32", "clip-vit-b32"),
        ("huggingface.co/org/name/tree/main", "hf:org/name or openclip:hf-hub:org/name"),
        ("hf.co/imageomics/bioclip-2/", "bioclip-2"),
        ("hf-hub:org/name", "hf:org/name or openclip:hf-hub:org/name"),
        ("apple/MobileCLIP2-S0", "mobileclip2-s0, hf:apple/MobileCLIP2-S0 or openclip:"),
        ("chendelong/RemoteCLIP", "openclip:ViT-B-32/RemoteCLIP-ViT-B-32.pt#like="),
        ("ViT-B-32/laion2b_s34b_b79k", "openclip:ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-SO400M-14-SigLIP-384", "openclip:ViT-SO400M-14-SigLIP-384/<weights>"),
        ("EVA02-L-14-336", "eva02-clip-l14-336"),
        ("RN50x4", "openclip:RN50x4/<weights>"),
        ("open_clip:ViT-B-32/openai", "openclip:ViT-B-32/openai"),
        ("laion2b", "openclip:ViT-B-32/laion2b_s34b_b79k"),
        ("clip-b/16", "clip-vit-b16"),
        ("vit_base_patch16_224", "--vision timm:vit_base_patch16_224"),
        ("dinov2-giant", "--vision hf:facebook/dinov2-giant"),
        ("None", "none"),
        ("dinov3", "--vision dinov3-small, --vision dinov3-base or --vision dinov3-large"),
    ],
)
def test_what_people_call_a_vlm_is_answered_with_its_name_here(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"Did you mean {meant}"):
        load_vlm(typed)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("dinov3", "dinov3-small, dinov3-base or dinov3-large"),
        ("dinov3-vitb16", "dinov3-base"),
        ("facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3-base"),
        ("c-radio", "c-radio-v3-b16 or c-radio-v4-so400m"),
        ("tips", "tipsv2-vision-b14"),
        ("pe-core", "pe-core-vision-b16"),
        ("dinov2_vitb14_reg", "dinov2-base-registers"),
        ("dinov3-vit7b16", "hf:facebook/dinov3-vit7b16-pretrain-lvd1689m#cls"),
        ("timm/vit_base_patch16_224", "timm:vit_base_patch16_224"),
        ("resnet50", "timm:resnet50"),
        ("openai/clip-vit-base-patch16", "hf:openai/clip-vit-base-patch16 or --vlm clip-vit-b16"),
        ("ViT-B/16", "hf:openai/clip-vit-base-patch16 or --vlm clip-vit-b16"),
    ],
)
def test_so_is_what_they_call_a_vision_encoder(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"Did you mean {meant}\?"):
        load_vision(typed)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:https://huggingface.co/org/name", "is the address .* name it as hf:org/name"),
        ("hf://org/name", "is the address .* name it as hf:org/name"),
        ("hf:org/name/", r"There is no directory .* named without the slash: hf:org/name\."),
        ("hf: org/name", "is no repository id, .* nor is there a directory"),
    ],
)
def test_an_address_is_no_directory(spec: str, message: str) -> None:
    with pytest.raises(ModelUnavailableError, match=message):
        load_vlm(spec)
    with pytest.raises(ModelUnavailableError) as raised:
        load_vlm("openclip:local-dir:none")
    assert "repository of the hub" not in str(raised.value)


def test_what_lies_here_is_named_with_the_library_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/config.json", "b/open_clip_config.json", "c.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for typed, meant in {"a": "hf:a", "b": "openclip:local-dir:b", "c.onnx": "onnx:c.onnx"}.items():
        with pytest.raises(InputError, match=rf"Did you mean {meant}\?"):
            load_vision(typed)


def test_jina_clip_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="jina-clip runs code from its repository"):
        load_vlm("jina-clip-v2")
    with pytest.raises(InputError, match="jina-clip runs code from its repository"):
        load_vlm("jinaai/jina-clip-v2")


def test_resnets_of_clip_are_meant_by_their_short_names() -> None:
    with pytest.raises(InputError, match=r"Did you mean clip-rn50\?"):
        load_vlm("RN50")


@pytest.mark.parametrize("load", [load_vlm, load_vision])
def test_the_offline_models_run_in_float32_only(load):
    with pytest.raises(InputError, match=r"float32 with the offline models, .* 'bfloat16'"):
        load("offline", precision="bfloat16")
    with pytest.raises(InputError, match=r"cpu or auto with the offline models, .* 'cuda:1'"):
        load("offline", device="cuda:1")


def test_without_a_near_name_all_are_listed() -> None:
    with pytest.raises(InputError) as raised:
        load_vlm("")
    assert "Did you mean" not in str(raised.value)
    with pytest.raises(InputError) as raised:
        load_vlm("xyzzy")
    for name in ("clip-vit-b16", "siglip-b16-224", "offline", "hf:<repo or directory>"):
        assert name in str(raised.value)
    assert "dinov2" not in str(raised.value)
    with pytest.raises(InputError) as raised:
        load_vision("xyzzy")
    for name in ("dinov2-base", "same", "offline", "onnx:<file>", "timm:<name>"):
        assert name in str(raised.value)


@pytest.mark.parametrize(
    "spec", ["", ":", "hf:", "hf", "HF:a/b", "torch:a", "clip-vit-b16:x", "file.onnx"]
)
def test_what_is_no_name_at_all(spec: str) -> None:
    for load in (load_vlm, load_vision):
        with pytest.raises(InputError, match="There is no"):
            load(spec)


@pytest.mark.parametrize("spec", ["dinov2-base", "moco-v2-r50", "same"])
def test_a_vision_encoder_predicts_nothing(spec: str) -> None:
    with pytest.raises(InputError, match=f"is a vision encoder: --vision {spec}"):
        load_vlm(spec)


@pytest.mark.parametrize("spec", ["timm:resnet18", "onnx:x.onnx", "moco-v2-r50:file"])
def test_sources_of_vision_encoders_alone(spec: str) -> None:
    with pytest.raises(InputError, match=f"no VLM named.*only vision encoders: --vision {spec}"):
        load_vlm(spec)


def test_what_can_be_no_repository_is_not_named_as_one() -> None:
    with pytest.raises(InputError) as raised:
        load_vlm("see docs/models.md")
    assert "hf:see" not in str(raised.value)


def test_a_vlm_preset_is_no_verifier() -> None:
    tower = "As a vision encoder it is named hf:openai/clip-vit-base-patch16"
    with pytest.raises(InputError, match=rf"is a VLM: --vlm clip-vit-b16\. {tower}\..*same"):
        load_vision("clip-vit-b16")
    with pytest.raises(InputError, match="is a vision encoder: --vision dinov2-base#cls"):
        load_vlm("dinov2-base#cls")


def test_same_is_the_vlm_itself() -> None:
    vlm = PixelEncoder()
    assert load_vision("same", vlm=vlm) is vlm
    with pytest.raises(InputError, match="pass the VLM as `vlm`"):
        load_vision("same")


@pytest.mark.parametrize("spec", ["offline", "onnx:file", "moco-v2-r50:file", "same"])
def test_a_revision_of_what_has_none(spec: str) -> None:
    with pytest.raises(InputError, match=f"'v1', but the model '{spec}' has none"):
        load_vision(spec, revision="v1")


def test_same_and_none_are_checked_as_they_are_loaded() -> None:
    check_name("same", "vision")
    check_name("none", "vlm")
    for name, role in (("same", "vision"), ("none", "vlm")):
        with pytest.raises(InputError, match=f"'v1', but the model '{name}' has none"):
            check_name(f"{name}@v1", role)
    with pytest.raises(InputError, match="is a vision encoder: --vision same"):
        check_name("same", "vlm")
    with pytest.raises(InputError, match="#cls is for models that transformers runs"):
        check_name("same#cls", "vision")
    with pytest.raises(InputError, match="'v1', but the model 'none' has none"):
        load_vlm("none", revision="v1")


def test_the_class_token_stands_after_the_revision() -> None:
    with pytest.raises(InputError, match="after the revision, 'dinov2-base@v1#cls', but got"):
        load_vision("dinov2-base#cls@v1")


def test_moco_without_a_file_says_where_it_is_published() -> None:
    with pytest.raises(ModelUnavailableError, match=r"facebookresearch/moco.*moco-v2-r50:<file>"):
        load_vision("moco-v2-r50")


def test_offline_serves_both_roles_and_keeps_its_name() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    assert load_vlm("offline").identity.spec == "offline"
    assert load_vision("offline").identity.spec == "offline"


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_every_preset_resolves_in_its_role_and_no_other(preset: Preset) -> None:
    assert preset.role in ("vlm", "vision", "both")
    for role in ("vlm", "vision"):
        if preset.role in (role, "both"):
            if preset.name != "same":
                backend, name = _resolve(preset.name, role)
                assert f"{backend.name}:{name}".rstrip(":") == preset.spec
        else:
            with pytest.raises(InputError):
                _resolve(preset.name, role)
    assert preset.about
    assert preset.licence
    assert preset.extra or preset.name == "same"


def test_the_promised_presets_are_there() -> None:
    names = [preset.name for preset in presets()]
    assert len(set(names)) == len(names)
    vlms = "clip-vit-b16 clip-vit-b32 clip-vit-l14 clip-rn50 clip-rn101 siglip-b16-224"
    vision = "dinov2-small dinov2-base dinov2-large moco-v2-r50 same offline"
    assert {*vlms.split(), "siglip2-b16-224", *vision.split()} <= set(names)


def test_importing_the_models_imports_no_library_that_runs_them() -> None:
    program = """
import sys
import trustvlm.models
heavy = {"torch", "transformers", "onnxruntime", "onnx", "open_clip", "timm", "tokenizers",
         "huggingface_hub", "torchvision", "scipy", "matplotlib"}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
