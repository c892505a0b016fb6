"""CLIP, SigLIP, SigLIP 2, DINOv2 and other models in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.extras import require
from trustvlm.models.base import ModelIdentity
from trustvlm.models.hub import ModelFiles, locate
from trustvlm.models.hub_preprocessing import read_preprocessing
from trustvlm.models.torch_device import place, to_tensor, to_vectors

__all__ = ["HuggingFaceVLM", "HuggingFaceVision", "load_hf_vision", "load_hf_vlm"]

_PROMPTS = {"clip": "a photo of a {}.", "siglip": "This is a photo of {}."}
_TEXTS_AT_ONCE = 256


def load_hf_vlm(
    name: str, *, revision: str | None = None, device: str = "auto", precision: str = "float32"
) -> HuggingFaceVLM:
    """Load a CLIP or SigLIP model from a directory or a hub repository.

    Raises
    ------
    ModelUnavailableError
        If it cannot be had, or is no such model.
    """
    files, model, family = _load(name, revision)
    if family not in _PROMPTS:
        raise ModelUnavailableError(
            f"{name} is a {family} model, not a vision-language model of the kinds "
            f"{' and '.join(_PROMPTS)}. As the verifying encoder it works: --vision hf:{name}"
        )
    transformers = require("transformers", extra="torch", purpose="The tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            files.directory, local_files_only=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelUnavailableError(
            f"The tokenizer of {name} cannot be read from {files.directory}: {error}"
        ) from error
    return HuggingFaceVLM(files, model, tokenizer, family, device=device, precision=precision)


def load_hf_vision(
    name: str, *, revision: str | None = None, device: str = "auto", precision: str = "float32"
) -> HuggingFaceVision:
    """Load an image encoder from a directory or a hub repository.

    Raises
    ------
    ModelUnavailableError
        If it cannot be had.
    """
    files, model, family = _load(name, revision)
    return HuggingFaceVision(files, model, family, device=device, precision=precision)


class HuggingFaceVision:
    """An image encoder run by transformers.

    DINOv2 and other transformers give the mean over all tokens of the last hidden state, the class
    token included (TrustVLM-D, arXiv 2505.23745); convolutional networks the mean over all
    positions; CLIP and SigLIP their projected image embedding.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.
    """

    note = ""

    def __init__(
        self, files: ModelFiles, model: Any, family: str, *, device: str, precision: str
    ) -> None:
        self._model, self._device, self._dtype = place(model, device, precision)
        self._joint = hasattr(model, "get_image_features")
        self.preprocessing = read_preprocessing(files.directory)
        self.identity = ModelIdentity(
            spec=f"hf:{files.source}",
            source=files.source,
            revision=files.revision,
            weights=files.weights(),
            settings={
                "family": family,
                "pooling": "projection" if self._joint else "mean of all tokens",
                "precision": precision,
            },
        )
        self.dim = _dim(model.config)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` uint8 RGB to `(n, dim)` float32, not L2-normalised."""
        import torch

        with torch.inference_mode():
            tensor = to_tensor(pixels, self.preprocessing, self._device, self._dtype)
            if self._joint:
                vectors = self._model.get_image_features(pixel_values=tensor).pooler_output
            else:
                hidden = self._model(pixel_values=tensor).last_hidden_state
                # (n, tokens, d) of a transformer, (n, d, h, w) of a convolutional network
                vectors = hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
            return to_vectors(vectors)


class HuggingFaceVLM(HuggingFaceVision):
    """A CLIP or SigLIP model run by transformers.

    CLIP's texts are padded to the longest of the batch, which changes nothing under its causal
    mask; SigLIP's to the model's full length, which is how it was trained.

    Attributes
    ----------
    logit_scale, prompt
        As in `trustvlm.models.base.VisionLanguageModel`. SigLIP's bias is left out: the softmax
        over classes does not see it.
    """

    def __init__(
        self,
        files: ModelFiles,
        model: Any,
        tokenizer: Any,
        family: str,
        *,
        device: str,
        precision: str,
    ) -> None:
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        super().__init__(files, model, family, device=device, precision=precision)
        self._tokenizer = tokenizer
        self._padding = "max_length" if family == "siglip" else "longest"
        self._length = int(model.config.text_config.max_position_embeddings)
        self.prompt = _PROMPTS[family]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, dim)` float32, not L2-normalised; longer ones are cut."""
        import torch

        if isinstance(texts, str):
            raise InputError(f"Expected `texts` to be a sequence of strings, but got {texts!r}.")
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        parts = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self._tokenizer(
                list(texts[start : start + _TEXTS_AT_ONCE]),
                padding=self._padding,
                truncation=True,
                max_length=self._length,
                return_tensors="pt",
            )
            inputs = {"input_ids": tokens["input_ids"].to(self._device)}
            # SigLIP attends to its padding; CLIP must not.
            if self._padding == "longest":
                inputs["attention_mask"] = tokens["attention_mask"].to(self._device)
            with torch.inference_mode():
                parts.append(to_vectors(self._model.get_text_features(**inputs).pooler_output))
        return np.concatenate(parts)


def _load(name: str, revision: str | None) -> tuple[ModelFiles, Any, str]:
    purpose = f"The model hf:{name}"
    require("torch", extra="torch", purpose=purpose)
    transformers = require("transformers", extra="torch", purpose=purpose)
    files = locate(name, revision=revision)
    files.weights()
    try:
        model = transformers.AutoModel.from_pretrained(
            files.directory, local_files_only=True, dtype="float32"
        )
    except Exception as error:
        raise ModelUnavailableError(
            f"{name} cannot be loaded from {files.directory}: {error}"
        ) from error
    return files, model, str(model.config.model_type)


def _dim(config: Any) -> int:
    for name in ("projection_dim", "hidden_size"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    if hasattr(config, "vision_config"):
        return int(config.vision_config.hidden_size)
    return int(config.hidden_sizes[-1])
