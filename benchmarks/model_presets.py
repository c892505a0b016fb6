"""Each preset beside its own library, on random weights of the real architecture.

    python benchmarks/model_presets.py [NAME ...] [--json FILE]

No weights can be had without a hub, so every network is built at its real size with random ones
and read by trustvlm and by its library (transformers, open_clip, timm), which get the same
pictures. What is compared: the tensor that the network reads, the embeddings of pictures and texts
(at length 1), and the probabilities of five texts. The vocabularies of Hugging Face models are
small ones of the same kind, except that CLIP's in open_clip is the real one; embedding tables have
their real sizes. Rows with layers are of networks cut to that many: `metaclip2-h14`, which does not
fit twice into 16 GiB, and with --layers, for want of time, any model of transformers. Random
networks say nothing about accuracy.

Where the sizes are from: the configurations' defaults in transformers, open_clip's and timm's own
tables, and for the rest the config.json of the preset's repository as quoted here.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import tiny_families
import tiny_models
from torchvision_schemas import declare_schemas
from trustvlm.models import load_vision, load_vlm, openclip, presets
from trustvlm.models.huggingface import _unpacked

SIZES = ((640, 480), (333, 500), (97, 401), (64, 64))
TEXTS = ["a photo of a cat.", "dog", "a photo of a golden retriever", "texture of a zebra", "river"]
B: dict[str, int] = {"hidden_size": 768, "intermediate_size": 3072}
B |= {"num_hidden_layers": 12, "num_attention_heads": 12}
L: dict[str, int] = {"hidden_size": 1024, "intermediate_size": 4096}
L |= {"num_hidden_layers": 24, "num_attention_heads": 16}
# google/siglip2-so400m-patch14-384: both towers.
SO: dict[str, int] = {"hidden_size": 1152, "intermediate_size": 4304}
SO |= {"num_hidden_layers": 27, "num_attention_heads": 16}
H: dict[str, int] = {"hidden_size": 1280, "intermediate_size": 5120}
H |= {"num_hidden_layers": 32, "num_attention_heads": 16}


def text_tower(width: int, layers: int = 12, heads: int | None = None) -> dict[str, int]:
    """A text tower of CLIP's kind."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads or width // 64,
    }


@dataclass(frozen=True)
class HubModel:
    """A model of transformers: its tiny likeness gives tokenizer and settings, the rest is real."""

    tiny: Callable[[Path], Path]
    model: str
    vision: dict[str, Any]
    text: dict[str, Any] | None = None
    projection: int | None = None
    pixels: dict[str, Any] | None = None
    layers: int | None = None


def clip(vision: dict[str, Any], width: int, dim: int, size: int, patch: int) -> HubModel:
    """The config.json of openai/clip-vit-*."""
    towers = {**vision, "image_size": size, "patch_size": patch}
    pixels = {"size": size, "crop_size": size}
    text = text_tower(width)
    return HubModel(tiny_models.save_tiny_clip, "CLIP", towers, text, dim, pixels)


def siglip(tower: dict[str, int], size: int, patch: int, *, two: bool = True) -> HubModel:
    """The config.json of google/siglip-* and siglip2-*: towers of one width."""
    save = tiny_models.save_tiny_siglip2 if two else tiny_models.save_tiny_siglip
    text = {
        **tower,
        "projection_size": tower["hidden_size"],
        "vocab_size": 256000 if two else 32000,
    }
    vision = {**tower, "image_size": size, "patch_size": patch}
    return HubModel(save, "Siglip", vision, text, None, {"size": {"height": size, "width": size}})


def naflex(tower: dict[str, int]) -> HubModel:
    """The config.json of google/siglip2-*-naflex."""
    text = {**tower, "projection_size": tower["hidden_size"], "vocab_size": 256000}
    vision = {**tower, "patch_size": 16, "num_patches": 256}
    pixels = {"patch_size": 16, "max_num_patches": 256}
    return HubModel(tiny_families.save_tiny_naflex, "Siglip2", vision, text, None, pixels)


def metaclip2(
    vision: dict[str, Any], patch: int, text: dict[str, int], dim: int, layers: int | None = None
) -> HubModel:
    """facebook/metaclip-2-worldwide-*: XLM-V's vocabulary of 901,629 pieces."""
    towers = {**vision, "image_size": 224, "patch_size": patch}
    words = {**text, "vocab_size": 901629, "eos_token_id": 2, "pad_token_id": 1}
    save = tiny_families.save_tiny_metaclip2
    return HubModel(save, "MetaClip2", towers, words, dim, cropped(224, 224), layers)


def cropped(size: int, shortest: int) -> dict[str, Any]:
    """Settings of an image processor that crops the centre."""
    crop = {"height": size, "width": size}
    return {"crop_size": crop, "size": {"shortest_edge": shortest}}


def dinov2(tower: dict[str, int], *, registers: bool) -> HubModel:
    """The config.json of facebook/dinov2-* and dinov2-with-registers-*."""
    vision = {key: value for key, value in tower.items() if key != "intermediate_size"}
    vision |= {"image_size": 518, "patch_size": 14}
    if registers:
        save, model = tiny_families.save_tiny_dinov2_with_registers, "Dinov2WithRegisters"
        vision["num_register_tokens"] = 4
    else:
        save, model = tiny_models.save_tiny_dinov2, "Dinov2"
    return HubModel(save, model, vision, pixels=cropped(224, 256))


def dinov3(tower: dict[str, int]) -> HubModel:
    """The config.json of facebook/dinov3-vit*16-pretrain-lvd1689m."""
    vision = {**tower, "image_size": 224, "patch_size": 16, "num_register_tokens": 4}
    pixels = {"size": {"height": 224, "width": 224}}
    return HubModel(tiny_families.save_tiny_dinov3, "DINOv3ViT", vision, pixels=pixels)


S = text_tower(384)
SQUARE = {"size": {"height": 224, "width": 224}}
HUB: dict[str, HubModel] = {
    "clip-vit-b16": clip(B, 512, 512, 224, 16),
    "clip-vit-b32": clip(B, 512, 512, 224, 32),
    "clip-vit-l14": clip(L, 768, 768, 224, 14),
    "clip-vit-l14-336": clip(L, 768, 768, 336, 14),
    "streetclip": clip(L, 768, 768, 336, 14),
    "siglip-b16-224": siglip(B, 224, 16, two=False),
    "siglip2-b16-224": siglip(B, 224, 16),
    "siglip2-b16-384": siglip(B, 384, 16),
    "siglip2-l16-256": siglip(L, 256, 16),
    "siglip2-so400m-384": siglip(SO, 384, 14),
    "siglip2-b16-naflex": naflex(B),
    "siglip2-so400m-naflex": naflex(SO),
    "metaclip2-b16": metaclip2(B, 16, text_tower(512), 512),
    "metaclip2-l14": metaclip2(L, 14, text_tower(768), 768),
    "metaclip2-h14": metaclip2(H, 14, text_tower(1024, 24), 1024, layers=4),
    "tipsv2-b14": HubModel(
        tiny_families.save_tiny_tipsv2,
        "Tipsv2",
        {"image_size": 448, "patch_size": 14},
        {},
        None,
        {"size": {"height": 448, "width": 448}},
    ),
    "altclip": HubModel(
        tiny_families.save_tiny_altclip,
        "AltCLIP",
        {**L, "patch_size": 14, "image_size": 224, "projection_dim": 768},
        {"project_dim": 768},
        768,
        cropped(224, 224),
    ),
    "chinese-clip-b16": HubModel(
        tiny_families.save_tiny_chinese_clip,
        "ChineseCLIP",
        {**B, "patch_size": 16, "image_size": 224},
        {"vocab_size": 21128},
        512,
        SQUARE,
    ),
    "dinov2-small": dinov2(text_tower(384, heads=6), registers=False),
    "dinov2-base": dinov2(B, registers=False),
    "dinov2-large": dinov2(L, registers=False),
    "dinov2-base-registers": dinov2(B, registers=True),
    "dinov2-large-registers": dinov2(L, registers=True),
    "dinov3-small": dinov3(text_tower(384, heads=6)),
    "dinov3-base": dinov3(B),
    "dinov3-large": dinov3(L),
}
# What trustvlm and transformers read differently: torchvision is the only backend of these.
TORCHVISION = ("Tipsv2", "DINOv3ViT")
_OPENAI = {"mean": tiny_models.CLIP_MEAN, "std": tiny_models.CLIP_STD}
# open_clip_config.json of the repositories that presets name.
OPEN_CLIP: dict[str, dict[str, Any]] = {
    # imageomics/bioclip-2: its card says ViT-L/14 in open_clip.
    "bioclip-2": {"model_cfg": "ViT-L-14", "preprocess_cfg": _OPENAI},
    # Commit 2584124 of microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224.
    "biomedclip": {
        "model_cfg": {
            "embed_dim": 512,
            "vision_cfg": {
                "timm_model_name": "vit_base_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 224,
            },
            "text_cfg": {
                "hf_model_name": "<bert>",
                "hf_tokenizer_name": "<bert>",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": 256,
            },
        },
        "preprocess_cfg": _OPENAI,
    },
    # Marqo/marqo-fashionSigLIP: fine-tuned from open_clip's ViT-B-16-SigLIP, its card says.
    "fashion-siglip": {
        "model_cfg": "ViT-B-16-SigLIP",
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    },
}


def pictures() -> list[Image.Image]:
    """Coarse patterns with noise."""
    rng = np.random.default_rng(0)
    made = []
    for width, height in SIZES:
        coarse = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8))
        base = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = base + rng.integers(-20, 21, base.shape)
        made.append(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))
    return made


def unit(vectors: Any) -> Any:
    """Rows of length 1, in double precision."""
    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(logits: Any) -> Any:
    """Probabilities of the columns."""
    powers = np.exp(np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def excite(model: Any) -> None:
    """Make random networks tell pictures and texts apart, and logits spread as trained ones do."""
    import torch

    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "embed" not in name:
                value.mul_(1.5)
        if hasattr(model, "logit_scale"):
            model.logit_scale.fill_(4.6)
        if getattr(model, "logit_bias", None) is not None:
            model.logit_bias.fill_(-10.0)
        if hasattr(model, "temperature"):
            model.temperature.fill_(0.01)


@dataclass
class Read:
    """What one side makes of the pictures and texts."""

    tensors: list[Any]
    images: Any
    texts: Any = None
    probabilities: Any = None
    parameters: int = 0


def read_hub(preset: Any, entry: HubModel, folder: Path) -> tuple[Read, str]:
    """Save the real architecture, and let transformers read."""
    import torch
    import transformers

    entry.tiny(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= entry.pixels or {}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    vision, text = dict(entry.vision), dict(entry.text or {})
    if entry.layers:
        vision["num_hidden_layers"] = text["num_hidden_layers"] = entry.layers
    kind = getattr(transformers, f"{entry.model}Model")
    config = getattr(transformers, f"{entry.model}Config")
    if entry.text is None:
        built = config(**vision)
    else:
        # The end of a text is what the small tokenizer says.
        if entry.model == "CLIP":
            text |= {"bos_token_id": 0, "eos_token_id": 2}
        more = {} if entry.projection is None else {"projection_dim": entry.projection}
        built = config(text_config=text, vision_config=vision, **more)
    torch.manual_seed(0)
    model = kind(built).eval()
    excite(model)
    model.save_pretrained(folder)
    backend = "torchvision" if entry.model in TORCHVISION else "pil"
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
    inputs = processor(pictures(), return_tensors="pt")
    tensors = list(inputs["pixel_values"].numpy())
    count = sum(value.numel() for value in model.parameters())
    with torch.inference_mode():
        if preset.role == "vision":
            output = model(**inputs)
            cls = preset.spec.endswith("#cls")
            images = output.pooler_output if cls else output.last_hidden_state.mean(dim=1)
            return Read(tensors, images.numpy(), parameters=count), f"hf:{folder}" + "#cls" * cls
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        full = entry.model in ("Siglip", "Siglip2", "Tipsv2")
        length = {"padding": "max_length", "max_length": 64} if full else {"padding": True}
        tokens = tokenizer(TEXTS, return_tensors="pt", **length)
        if entry.model in ("Siglip", "Siglip2"):
            tokens.pop("attention_mask", None)
        output = model(**inputs, **tokens)
        logits = output.logits_per_image.numpy()
        embeds = output.image_embeds.numpy(), output.text_embeds.numpy()
    return Read(tensors, *embeds, softmax(logits), count), f"hf:{folder}"


def read_open_clip(preset: Any, folder: Path) -> tuple[Read, str]:
    """Save random weights of the architecture, and let open_clip read."""
    import open_clip
    import torch

    name = preset.spec.removeprefix("openclip:")
    torch.manual_seed(0)
    if preset.name in OPEN_CLIP:
        settings = json.loads(json.dumps(OPEN_CLIP[preset.name]))
        if isinstance(settings["model_cfg"], str):
            settings["model_cfg"] = open_clip.get_model_config(settings["model_cfg"])
        text = settings["model_cfg"]["text_cfg"]
        if text.get("hf_model_name") == "<bert>":
            text["hf_model_name"] = text["hf_tokenizer_name"] = str(save_bert(folder))
        elif text.get("hf_tokenizer_name"):  # SigLIP's, of which a small one stands in.
            text["hf_tokenizer_name"] = str(tiny_models.save_tiny_siglip(folder))
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
        spec = f"local-dir:{folder}"
        model = open_clip.create_model(spec, load_weights=False)
        excite(model)
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
        model, _, transform = open_clip.create_model_and_transforms(spec)
        tokenizer = open_clip.get_tokenizer(spec)
    else:
        architecture, tag = name.split("/")
        spec = name
        model = open_clip.create_model(architecture, pretrained=None)
        excite(model)
        torch.save(model.state_dict(), folder / "weights.pt")
        # Nothing but the download is replaced, on both sides.
        open_clip.factory.download_pretrained = lambda *_, **__: str(folder / "weights.pt")
        openclip._fetch = lambda *_: (None, str(folder / "weights.pt"))
        # open_clip only warns where a name without it has weights with QuickGELU, as RN50/openai.
        quick = bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
        model, _, transform = open_clip.create_model_and_transforms(
            architecture, pretrained=tag, force_quick_gelu=quick
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    model.eval()
    batch = torch.stack([transform(picture) for picture in pictures()])
    with torch.inference_mode():
        images, texts = model.encode_image(batch), model.encode_text(tokenizer(TEXTS))
        # As open_clip's own zero-shot classification does it.
        cosines = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
        probabilities = softmax((model.logit_scale.exp() * cosines).numpy())
    count = sum(value.numel() for value in model.parameters())
    read = Read(list(batch.numpy()), images.numpy(), texts.numpy(), probabilities, count)
    return read, f"openclip:{spec}"


def save_bert(folder: Path) -> Path:
    """Save PubMedBERT's sizes, BERT base of 30,522 pieces, with a small vocabulary."""
    from transformers import BertConfig, BertTokenizer

    tiny_families.save_tiny_chinese_clip(folder)
    BertConfig().save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def read_timm(preset: Any, folder: Path) -> tuple[Read, str]:
    """Save random weights with timm's settings of the published ones, and let timm read."""
    import timm
    import torch
    from safetensors.torch import save_file

    name = preset.spec.removeprefix("timm:")
    torch.manual_seed(0)
    architecture = "resnet50" if preset.name == "moco-v2-r50" else name.split(".")[0]
    model = timm.create_model(architecture, pretrained=False)
    if preset.name == "moco-v2-r50":
        from torchvision import transforms

        save_file(model.state_dict(), folder / "moco.safetensors")
        normalise = transforms.Normalize(tiny_models.IMAGENET_MEAN, tiny_models.IMAGENET_STD)
        steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
        transform: Any = transforms.Compose([*steps, normalise])
        spec = f"moco-v2-r50:{folder / 'moco.safetensors'}"
    else:
        excite(model)
        known = timm.get_pretrained_cfg(name).to_dict()
        config = {"architecture": architecture, "num_classes": model.num_classes}
        config |= {"pretrained_cfg": {k: v for k, v in known.items() if v is not None}}
        (folder / "config.json").write_text(json.dumps(config, default=str))
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
        )
        spec = f"timm:local-dir:{folder}"
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        settings = timm.data.resolve_data_config(pretrained_cfg=known)
        transform = timm.data.create_transform(**settings, is_training=False)
    model.eval()
    batch = torch.stack([transform(picture) for picture in pictures()])
    with torch.inference_mode():
        images = model.forward_head(model.forward_features(batch), pre_logits=True)
    model.reset_classifier(0)
    count = sum(value.numel() for value in model.parameters())
    return Read(list(batch.numpy()), images.numpy(), parameters=count), spec


def read_ours(preset: Any, spec: str) -> Read:
    """Let trustvlm read the same."""
    import torch

    loader = load_vlm if preset.role == "vlm" else load_vision
    encoder: Any = loader(spec, device="cpu")
    pixels = np.stack([encoder.preprocessing.pixels(picture) for picture in pictures()])
    tensors = encoder.preprocessing.normalise(pixels)
    if encoder.preprocessing.patches:
        tensors = _unpacked(torch.from_numpy(tensors), encoder.preprocessing)[
            "pixel_values"
        ].numpy()
    images = encoder.encode_pixels(pixels)
    if preset.role == "vision":
        return Read(list(tensors), images)
    texts = encoder.encode_texts(TEXTS)
    probabilities = softmax(encoder.logit_scale * unit(images) @ unit(texts).T)
    return Read(list(tensors), images, texts, probabilities)


def compare(preset: Any) -> dict[str, Any]:
    """Return the largest differences of a preset."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if preset.spec.startswith("hf:"):
            library, spec = read_hub(preset, HUB[preset.name], folder)
        elif preset.spec.startswith("openclip:"):
            library, spec = read_open_clip(preset, folder)
        else:
            library, spec = read_timm(preset, folder)
        gc.collect()
        ours = read_ours(preset, spec)
    row: dict[str, Any] = {
        "name": preset.name,
        "parameters": round(library.parameters / 1e6),
        "layers": HUB[preset.name].layers if preset.name in HUB else None,
        "pixels": largest(ours.tensors, library.tensors),
        "images": largest(unit(ours.images), unit(library.images)),
        "apart": float(np.ptp(unit(library.images), axis=0).max()),
    }
    if library.texts is not None:
        row["texts"] = largest(unit(ours.texts), unit(library.texts))
        row["probabilities"] = largest(ours.probabilities, library.probabilities)
        row["spread"] = float(np.ptp(library.probabilities))
    row["seconds"] = round(time.monotonic() - start)
    return row


def largest(ours: Any, library: Any) -> float:
    """The largest absolute difference of arrays of the same shapes."""
    return max(float(np.abs(np.subtract(a, b)).max()) for a, b in zip(ours, library, strict=True))


COLUMNS = ("pixels", "images", "texts", "probabilities")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--layers", type=int, help="cut models of transformers to these layers")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    declare_schemas()
    if chosen.layers is not None:
        HUB.update({name: replace(entry, layers=chosen.layers) for name, entry in HUB.items()})
    rows, failed = [], []
    print("| preset | size | " + " | ".join(COLUMNS) + " |\n|---|--:|" + "--:|" * len(COLUMNS))
    for preset in presets():
        if preset.name in ("same", "offline") or (chosen.names and preset.name not in chosen.names):
            continue
        try:
            row = compare(preset)
        except Exception as error:
            failed.append(preset.name)
            print(f"{preset.name}: {error!r}", file=sys.stderr, flush=True)
            continue
        rows.append(row)
        size = f"{row['parameters']:,} M" + (f", {row['layers']} layers" if row["layers"] else "")
        cells = [f"{row[column]:.0e}" if column in row else "" for column in COLUMNS]
        print(f"| `{preset.name}` | {size} | " + " | ".join(cells) + " |", flush=True)
        print(row, file=sys.stderr, flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(rows, indent=2))
        gc.collect()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
