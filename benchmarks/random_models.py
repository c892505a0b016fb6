"""Real architectures with random weights, built from their configurations: for speed alone."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from tiny_models import save_tiny_clip, save_tiny_dinov2

_VISION = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}


def save_clip_vit_b16(directory: Path) -> Path:
    """Save a random CLIP ViT-B/16 in the hub's format; its tokenizer is a small one."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    save_tiny_clip(directory)  # tokenizer and preprocessing
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"bos_token_id": 0, "eos_token_id": 2},
        vision_config={**_VISION, "intermediate_size": 3072, "patch_size": 16, "image_size": 224},
        projection_dim=512,
        logit_scale_init_value=4.6052,
    )
    CLIPModel(config).eval().save_pretrained(directory)
    _resize(directory, 32, 224)
    return directory


def save_dinov2_base(directory: Path) -> Path:
    """Save a random DINOv2 base in the hub's format."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    save_tiny_dinov2(directory)
    torch.manual_seed(1)
    Dinov2Model(Dinov2Config(**_VISION, patch_size=14, image_size=518)).eval().save_pretrained(
        directory
    )
    _resize(directory, 28, 224, shortest=256)
    return directory


def _resize(directory: Path, old: int, new: int, shortest: int | None = None) -> None:
    """State the real size in the preprocessing of the small model."""
    file = directory / "preprocessor_config.json"
    text = file.read_text(encoding="utf-8").replace(f": {old}", f": {new}")
    if shortest is not None:
        text = text.replace('"shortest_edge": 32', f'"shortest_edge": {shortest}')
    file.write_text(text, encoding="utf-8")
