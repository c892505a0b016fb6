"""The table of presets says what the loaded models do."""

from __future__ import annotations

from pathlib import Path

import pytest

from trustvlm.models import Preset, load_vlm, presets, read_prompts
from trustvlm.models.registry import PROMPTS


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_a_prompt_and_a_scale_belong_to_what_predicts(preset: Preset) -> None:
    assert preset.role in ("vlm", "vision", "both")
    predicts = preset.role in ("vlm", "both")
    assert bool(preset.prompt) == bool(preset.logit_scale) == predicts
    if predicts:
        assert read_prompts(preset.prompt) == (preset.prompt,)


def test_prompts_are_those_of_the_paper() -> None:
    stated = {preset.name: preset.prompt for preset in presets() if preset.prompt}
    kinds = {name: "siglip" if name.startswith("siglip") else "clip" for name in stated}
    assert stated == {name: PROMPTS[kind] for name, kind in kinds.items()}


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
