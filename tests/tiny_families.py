"""Random models of some 200 kB of the families that came after CLIP, SigLIP and DINOv2.

Like those of `tiny_models`: only the sizes differ from the real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import (
    CLIP_MEAN,
    CLIP_STD,
    CORPUS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TEXT,
    VISION,
    save_gemma_tokenizer,
    save_model,
)

_CORPUS = (
    *CORPUS,
    "eine Aufnahme einer Katze, une photo de chien; un desierto visto desde el aire",
)
_CROPPED: dict[str, Any] = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": CLIP_MEAN,
    "image_processor_type": "CLIPImageProcessor",
    "image_std": CLIP_STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 32},
}
_SQUASHED: dict[str, Any] = {
    **{key: value for key, value in _CROPPED.items() if "crop" not in key},
    "size": {"height": 32, "width": 32},
}


def save_tiny_metaclip2(directory: Path, *, seed: int = 0) -> Path:
    """Save a MetaCLIP 2 like `facebook/metaclip-2-worldwide-b16`: CLIP with XLM-V's tokenizer."""
    from transformers import MetaClip2Config, MetaClip2Model

    vocabulary = _save_xlm_tokenizer(directory)
    config = MetaClip2Config(
        text_config={**TEXT, "vocab_size": vocabulary, "eos_token_id": 2, "pad_token_id": 1},
        vision_config=dict(VISION),
        projection_dim=24,
        logit_scale_init_value=4.6052,
    )
    return save_model(MetaClip2Model, config, directory, _CROPPED, seed)


def save_tiny_altclip(directory: Path, *, seed: int = 0) -> Path:
    """Save an AltCLIP like `BAAI/AltCLIP`: CLIP's image tower with XLM-RoBERTa for texts."""
    from transformers import AltCLIPConfig, AltCLIPModel

    vocabulary = _save_xlm_tokenizer(directory)
    text = {**TEXT, "vocab_size": vocabulary, "max_position_embeddings": 66, "project_dim": 32}
    config = AltCLIPConfig(
        text_config={**text, "pad_token_id": 1, "hidden_size": 40, "num_attention_heads": 2},
        vision_config=dict(VISION),
        projection_dim=24,
        logit_scale_init_value=4.6052,
    )
    return save_model(AltCLIPModel, config, directory, _CROPPED, seed)


def save_tiny_chinese_clip(directory: Path, *, seed: int = 0) -> Path:
    """Save a Chinese-CLIP like `OFA-Sys/chinese-clip-vit-base-patch16`: BERT's tokenizer."""
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    directory.mkdir(parents=True, exist_ok=True)
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"猫狗的照片一张。,.!",
        *"abcdefghijklmnop",
    ]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnop"]
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = ChineseCLIPConfig(
        text_config={**TEXT, "vocab_size": len(pieces), "max_position_embeddings": 64},
        vision_config=dict(VISION),
        projection_dim=24,
        logit_scale_init_value=4.6052,
    )
    settings = {**_SQUASHED, "feature_extractor_type": "ChineseCLIPFeatureExtractor"}
    settings["do_center_crop"] = False
    del settings["image_processor_type"]
    return save_model(ChineseCLIPModel, config, directory, settings, seed)


def save_tiny_tipsv2(directory: Path, *, seed: int = 0) -> Path:
    """Save a TIPSv2 like `google/tipsv2-b14`: pixels from 0 to 1, a temperature, no projection."""
    from transformers import Tipsv2Config, Tipsv2Model, Tipsv2Tokenizer

    directory.mkdir(parents=True, exist_ok=True)
    letters = sorted(set("".join(_CORPUS).lower()) - {" "})
    pieces = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    tokenizer = Tipsv2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[("▁", "a")][:0]
    )
    tokenizer.save_pretrained(directory)
    text = {**TEXT, "vocab_size": len(pieces), "max_position_embeddings": 64}
    vision = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    config = Tipsv2Config(text_config=text, vision_config={**vision, "num_register_tokens": 1})
    settings = {**_SQUASHED, "image_processor_type": "Tipsv2ImageProcessor", "resample": 2}
    settings = {key: value for key, value in settings.items() if not key.startswith("image_m")}
    return save_model(Tipsv2Model, config, directory, {**settings, "do_normalize": False}, seed)


def save_tiny_naflex(directory: Path, *, seed: int = 0) -> Path:
    """Save a SigLIP 2 like `google/siglip2-base-patch16-naflex`, with at most 16 patches."""
    from transformers import Siglip2Config, Siglip2Model

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = save_gemma_tokenizer(directory)
    text = {**TEXT, "vocab_size": vocabulary, "max_position_embeddings": 64}
    text |= {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "projection_size": 32}
    vision = {key: value for key, value in VISION.items() if key != "image_size"}
    config = Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 16})
    settings = {
        **{key: value for key, value in _SQUASHED.items() if key != "size"},
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Siglip2ImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_num_patches": 16,
        "patch_size": 8,
        "processor_class": "Siglip2Processor",
        "resample": 2,
    }
    return save_model(Siglip2Model, config, directory, settings, seed)


def save_tiny_dinov2_with_registers(directory: Path, *, seed: int = 0) -> Path:
    """Save a model like `facebook/dinov2-with-registers-base`."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    vision = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    config = Dinov2WithRegistersConfig(**vision, num_register_tokens=4)
    settings = {**_CROPPED, "image_processor_type": "BitImageProcessor"}
    settings |= {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    settings["size"] = {"shortest_edge": 36}
    return save_model(Dinov2WithRegistersModel, config, directory, settings, seed)


def save_tiny_dinov3(directory: Path, *, seed: int = 0) -> Path:
    """Save a model like `facebook/dinov3-vitb16-pretrain-lvd1689m`."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(**VISION, num_register_tokens=4)
    settings = {
        **_SQUASHED,
        "crop_size": None,
        "do_center_crop": None,
        "image_mean": IMAGENET_MEAN,
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "image_std": IMAGENET_STD,
        "resample": 2,
    }
    return save_model(DINOv3ViTModel, config, directory, settings, seed)


def save_tiny_radio(directory: Path, *, seed: int = 0) -> Path:
    """Save a model like `nvidia/C-RADIOv4-H`: it normalises pixels itself, and has a summary."""
    from transformers import RadioConfig, RadioModel

    vision = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    config = RadioConfig(**vision, max_img_size=64, num_cls_tokens=3, num_registers=2)
    return save_model(RadioModel, config, directory, {**_CROPPED, "do_normalize": False}, seed)


def _save_xlm_tokenizer(directory: Path) -> int:
    """XLM-RoBERTa's: pieces of a unigram model, `<s>` and `</s>` around a text, `<pad>` is 1."""
    from transformers import XLMRobertaTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(set("".join(_CORPUS)) - {" "})
    words = sorted({f"▁{word}" for text in _CORPUS for word in text.split()})
    pieces = [*special, "▁", *letters, *words, "<mask>"]
    tokenizer = XLMRobertaTokenizer(
        vocab=[(piece, 0.0 if piece in special else -float(len(pieces))) for piece in pieces],
        model_max_length=512,
    )
    tokenizer.save_pretrained(directory)
    return len(tokenizer)
