"""Random models of some 200 kB in the hub's format, with the files that the real repositories have.

Only the sizes differ from the real ones: what is tested on them holds for the real ones.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]

CORPUS = (
    "a photo of a cat. a photo of a dog. this is a photo of a horse, a golden retriever.",
    "the flower is photographed from near, the aeroplane from afar; texture of a zebra",
    "a satellite image of annual crop land, a river, a highway and 2 lakes",
)
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {key: VISION[key] for key in list(VISION)[:4]}


def save_tiny_clip(directory: Path, *, seed: int = 0) -> Path:
    """Save a CLIP like `openai/clip-vit-base-patch16`: 32 px, 24 dimensions, 77 tokens."""
    from transformers import CLIPConfig, CLIPModel

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = _save_clip_tokenizer(directory)
    config = CLIPConfig(
        # The published configurations keep 2 for the end of text, whatever its real number.
        text_config={**TEXT, "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 2},
        vision_config=dict(VISION),
        projection_dim=24,
        logit_scale_init_value=4.6052,
    )
    preprocessor = {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "size": 32,
    }
    return save_model(CLIPModel, config, directory, preprocessor, seed)


def save_tiny_siglip(directory: Path, *, seed: int = 0) -> Path:
    """Save a SigLIP like `google/siglip-base-patch16-224`; needs the package sentencepiece."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = _save_sentencepiece(directory)
    _save_siglip_model(directory, vocabulary, seed, resample=3)
    return directory


def save_tiny_siglip2(directory: Path, *, seed: int = 0) -> Path:
    """Save a model like `google/siglip2-base-patch16-224`: SigLIP's network, Gemma's tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = save_gemma_tokenizer(directory)
    _save_siglip_model(directory, vocabulary, seed, resample=2)
    return directory


def save_tiny_dinov2(directory: Path, *, seed: int = 0) -> Path:
    """Save a DINOv2 like `facebook/dinov2-base`: trained at 56 px, used at 28 px."""
    from transformers import Dinov2Config, Dinov2Model

    vision = {**VISION, "image_size": 56, "patch_size": 14}
    del vision["intermediate_size"]
    preprocessor = {
        "crop_size": {"height": 28, "width": 28},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": IMAGENET_MEAN,
        "image_processor_type": "BitImageProcessor",
        "image_std": IMAGENET_STD,
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 32},
    }
    return save_model(Dinov2Model, Dinov2Config(**vision), directory, preprocessor, seed)


def save_tiny_resnet(directory: Path, *, seed: int = 0) -> Path:
    """Save a convolutional network like `microsoft/resnet-50`: 32 dimensions."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="bottleneck"
    )
    preprocessor = {
        "crop_pct": 0.875,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": 3,
        "size": 64,
    }
    return save_model(ResNetModel, config, directory, preprocessor, seed)


def _save_siglip_model(directory: Path, vocabulary: int, seed: int, *, resample: int) -> None:
    from transformers import SiglipConfig, SiglipModel

    text = {**TEXT, "vocab_size": vocabulary, "max_position_embeddings": 64}
    # The defaults lie outside this vocabulary; nothing reads them.
    text |= {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config=dict(VISION))
    preprocessor = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": resample,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 32, "width": 32},
    }
    save_model(SiglipModel, config, directory, preprocessor, seed)


def save_model(
    kind: Any, config: Any, directory: Path, preprocessor: dict[str, Any], seed: int
) -> Path:
    """Save random weights, of a SigLIP with its temperature and bias, and the preprocessing."""
    import torch
    from transformers.utils import logging

    # Saving draws a progress bar.
    logging.disable_progress_bar()
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = kind(config)
    if hasattr(model, "logit_bias"):
        with torch.no_grad():
            model.logit_scale.fill_(4.7244)
            model.logit_bias.fill_(-16.7718)
    model.eval().save_pretrained(directory)
    _write(directory / "preprocessor_config.json", preprocessor)
    return directory


def _save_clip_tokenizer(directory: Path) -> int:
    """Byte pairs with ends of words; the two special tokens come last, as in the real one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in learnt["merges"]]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    pieces += [merge.replace(" ", "") for merge in merges]
    pieces = list(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    _write(directory / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *merges]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>"}
    special |= dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    _write(directory / "special_tokens_map.json", special)
    _write(
        directory / "tokenizer_config.json",
        {**special, "do_lower_case": True, "model_max_length": 77}
        | {"tokenizer_class": "CLIPTokenizer", "add_prefix_space": False, "errors": "replace"},
    )
    return len(vocabulary)


def _save_sentencepiece(directory: Path) -> int:
    """SigLIP's tokenizer: a unigram model in `spiece.model`, `</s>` for padding too."""
    import sentencepiece

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=trained,
        model_type="unigram",
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (directory / "spiece.model").write_bytes(trained.getvalue())
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    _write(directory / "special_tokens_map.json", special)
    _write(
        directory / "tokenizer_config.json",
        {**special, "do_lower_case": True, "model_input_names": ["input_ids"]}
        | {"model_max_length": 64, "sp_model_kwargs": {}, "tokenizer_class": "SiglipTokenizer"},
    )
    return int(sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue()).vocab_size())


def save_gemma_tokenizer(directory: Path) -> int:
    """SigLIP 2's tokenizer: Gemma's byte-fallback pairs, an end of text and no beginning."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]
    numbers = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *numbers]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in learnt["merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    named |= {"unk_token": "<unk>"}
    _write(directory / "special_tokens_map.json", named)
    _write(
        directory / "tokenizer_config.json",
        {**named, "add_bos_token": False, "add_eos_token": True, "do_lower_case": True}
        | {"model_input_names": ["input_ids"], "padding_side": "right"}
        | {"processor_class": "SiglipProcessor", "tokenizer_class": "GemmaTokenizer"},
    )
    return len(vocabulary)


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")
