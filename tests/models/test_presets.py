"""The table of presets says what the loaded models do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pixel_encoder import PixelEncoder
from trustvlm.models import (
    LoadOptions,
    Preset,
    backends,
    load_vision,
    load_vlm,
    presets,
    read_prompts,
    registry,
)
from trustvlm.models.names import PROMPTS


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_a_prompt_and_a_scale_belong_to_what_predicts(preset: Preset) -> None:
    assert preset.role in ("vlm", "vision", "both")
    predicts = preset.role in ("vlm", "both")
    assert bool(preset.prompt) == bool(preset.logit_scale) == predicts
    if predicts:
        assert read_prompts(preset.prompt) == (preset.prompt,)


def test_prompts_are_those_of_the_paper_or_of_the_publisher() -> None:
    stated = {preset.name: preset.prompt for preset in presets() if preset.prompt}
    kinds = {name: "siglip" if "siglip" in name else "clip" for name in stated}
    own = {"chinese-clip-b16": PROMPTS["chinese"], "biomedclip": "this is a photo of {}"}
    assert stated == {name: PROMPTS[kind] for name, kind in kinds.items()} | own


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_every_preset_has_its_facts(preset: Preset) -> None:
    assert min(map(len, (preset.good_for, preset.card, preset.licence))) > 0
    assert (preset.parameters > 0) == bool(preset.resolution) == (preset.name != "same")
    assert (preset.text_length > 0) == (preset.role != "vision")


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_the_documentation_states_its_facts(preset: Preset) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    size = f"{preset.parameters:,}" if preset.parameters else ""
    cells = [size, preset.resolution, str(preset.text_length or ""), preset.licence]
    row = f"| {preset.about}; for {preset.good_for} | {' | '.join(cells)} |"
    assert row in page, "state the facts of presets.toml in the table"
    assert f"| `{preset.name}" in page


def test_a_preset_has_its_own_prompt_and_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loader(name: str, options: LoadOptions) -> PixelEncoder:
        asked.append((name, options.pooling))
        return PixelEncoder()

    for name in ("hf", "openclip"):
        backend = next(backend for backend in backends() if backend.name == name)
        monkeypatch.setitem(registry._BACKENDS, name, replace(backend, load=loader))
    assert load_vlm("chinese-clip-b16").prompt == PROMPTS["chinese"]
    assert load_vlm("hf:org/name").prompt == PixelEncoder().prompt
    load_vision("dinov3-base")
    load_vision("dinov3-base#cls")
    load_vision("dinov2-base")
    dinov3 = ("facebook/dinov3-vitb16-pretrain-lvd1689m", "cls")
    assert asked[2:] == [dinov3, dinov3, ("facebook/dinov2-base", "mean")]


def test_the_offline_model_has_the_stated_prompt_and_scale() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    stated = {preset.name: preset for preset in presets()}["offline"]
    vlm = load_vlm("offline")
    assert (vlm.prompt, vlm.logit_scale) == (stated.prompt, float(stated.logit_scale))


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_hub_models_have_the_stated_prompt(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra torch")
    import tiny_models

    folder = getattr(tiny_models, f"save_tiny_{kind}")(tmp_path / kind)
    stated = {preset.prompt for preset in presets() if preset.name.startswith(f"{kind}-")}
    assert stated == {load_vlm(f"hf:{folder}", device="cpu").prompt}
