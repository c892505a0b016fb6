"""CLIP, SigLIP, SigLIP 2, DINOv2 and other models in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import pip_install, require
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import ModelIdentity, check_texts
from trustvlm.models.hub import (
    ModelFiles,
    first_line,
    load_tokenizer,
    locate,
    quiet,
    read_preprocessing,
)
from trustvlm.models.registry import PROMPTS, VISION, VLM, LoadOptions, register_backend
from trustvlm.models.torch_encoder import (
    TorchImageEncoder,
    inference,
    to_vectors,
)


@register_backend(
    "hf",
    roles=(VLM, VISION),
    form="<repo or directory>",
    extra="torch",
    revisions=True,
    class_token=True,
)
def load(name: str, options: LoadOptions) -> HuggingFaceVision:
    """Load a model in the Hugging Face format with transformers.

    Raises
    ------
    InputError
        For an unknown device or precision, or a class token that the model does not have.
    MissingExtraError
        If transformers, or what its tokenizer needs, is not installed, or cannot be imported.
    ModelUnavailableError
        If the model cannot be had, is damaged, or is of another kind.
    """
    files, model, family = _load(name, options.revision)
    if options.role == VLM:
        if family not in PROMPTS:
            raise ModelUnavailableError(
                f"{name} is a {family} model, not a vision-language model of the kinds "
                f"{' and '.join(PROMPTS)}. An image encoder goes to --vision hf:{name}"
            )
        tokenizer = load_tokenizer(files, int(model.config.text_config.vocab_size))
        return HuggingFaceVLM(files, model, tokenizer, family, options)
    if family not in PROMPTS and model.main_input_name != "pixel_values":
        raise ModelUnavailableError(f"{name} is a {family} model, which encodes no images.")
    if options.pooling == "cls" and (family in PROMPTS or not _has_class_token(model)):
        raise InputError(f"hf:{name} is a {family} model, which offers no class token to take.")
    return HuggingFaceVision(files, model, family, options)


class HuggingFaceVision(TorchImageEncoder):
    """An image encoder run by transformers.

    DINOv2 and other transformers give the mean over all tokens of the last hidden state, the class
    token included (TrustVLM-D, arXiv 2505.23745), or the class token alone; convolutional networks
    the mean over all positions; CLIP and SigLIP their projected image embedding.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.
    """

    def __init__(
        self,
        files: ModelFiles,
        model: Any,
        family: str,
        options: LoadOptions,
        **settings: Any,
    ) -> None:
        self._joint = family in PROMPTS
        self._pooling = "projection" if self._joint else options.pooling
        super().__init__(
            model,
            identity=ModelIdentity(
                spec=f"hf:{files.source}",
                source=files.source,
                revision=files.revision,
                weights=files.weights(),
                settings={
                    "family": family,
                    "configuration": files.configuration(),
                    "pooling": self._pooling,
                    **settings,
                },
            ),
            preprocessing=read_preprocessing(files.directory),
            dim=_joint_dim(model.config) if self._joint else _dim(model.config),
            options=options,
        )

    def _features(self, tensor: Any) -> Any:
        if self._joint:
            return self._model.get_image_features(pixel_values=tensor).pooler_output
        hidden = self._model(pixel_values=tensor).last_hidden_state
        if self._pooling == "cls":
            return hidden[:, 0]
        # (n, tokens, d) of a transformer, (n, d, h, w) of a convolutional network
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))


class HuggingFaceVLM(HuggingFaceVision):
    """A CLIP or SigLIP model run by transformers.

    CLIP's texts are batched by length and padded to the longest of the batch, which changes
    nothing under its causal mask. SigLIP's are padded to the model's full length and put in lower
    case, as it was trained; the tokenizer that SigLIP 2 is published with leaves the case alone.

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
        options: LoadOptions,
    ) -> None:
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self.prompt = PROMPTS[family]
        self._tokenizer = tokenizer
        self._full = family == "siglip"
        self._length = int(model.config.text_config.max_position_embeddings)
        super().__init__(
            files,
            model,
            family,
            options,
            tokenizer=files.tokenizer(),
            lower_case=self._full,
        )

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Encode m texts to `(m, dim)` float32, not L2-normalised; longer ones are cut.

        Larger batches are hardly faster on a CPU, and pad more.

        Raises
        ------
        InputError
            If `texts` is one string rather than several, or holds something else than strings.
        """
        texts = check_texts(texts)
        order = list(range(len(texts)))
        if not self._full and len(texts) > batch_size:
            # Texts of about the same number of tokens side by side need less padding.
            lengths = [len(ids) for ids in self._tokenizer(texts)["input_ids"]]
            order.sort(key=lengths.__getitem__)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), batch_size):
            batch = order[start : start + batch_size]
            inputs = self._tokens([texts[i] for i in batch])
            with inference(self._device):
                vectors[batch] = to_vectors(self._model.get_text_features(**inputs).pooler_output)
        return vectors

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return those texts that have more tokens than the model reads."""
        return [
            text
            for text in check_texts(texts)
            if len(
                self._tokenizer(text.lower() if self._full else text, verbose=False)["input_ids"]
            )
            > self._length
        ]

    def _tokens(self, texts: list[str]) -> dict[str, Any]:
        tokens = self._tokenizer(
            [text.lower() for text in texts] if self._full else texts,
            padding="max_length" if self._full else "longest",
            padding_side="right",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        # SigLIP attends to its padding; CLIP must not.
        names = ("input_ids",) if self._full else ("input_ids", "attention_mask")
        return {name: tokens[name].to(self._device) for name in names}


def _load(name: str, revision: str | None) -> tuple[ModelFiles, Any, str]:
    purpose = f"The model hf:{name}"
    with quiet():
        torch = require("torch", extra="torch", purpose=purpose)
        transformers = require("transformers", extra="torch", purpose=purpose)
    files = locate(name, revision=revision)
    files.weight_files()
    try:
        with quiet():
            model, report = transformers.AutoModel.from_pretrained(
                files.directory,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs a part of transformers that cannot be imported: "
            f"{first_line(_root(error))} If this is about torchvision, it was built for another "
            "torch: uninstall it, or install both with one command: "
            f"{pip_install('torch')} torchvision"
        ) from error
    # transformers raises whatever its parts raise.
    except Exception as error:
        raise ModelUnavailableError(
            f"{name} cannot be loaded from {files.directory}: {first_line(error)}"
        ) from error
    family = str(model.config.model_type)
    # The pooler of an image encoder is not used, and often not published.
    missing = {
        key for key in report["missing_keys"] if family in PROMPTS or not key.startswith("pooler.")
    }
    if missing:
        raise ModelUnavailableError(
            f"The weights in {files.directory} do not belong to its config.json: {len(missing)} "
            f"tensors are missing, such as {min(missing)}."
        )
    return files, model, family


def _has_class_token(model: Any) -> bool:
    return any(
        name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()
    )


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _joint_dim(config: Any) -> int:
    size = getattr(config, "projection_dim", None)
    return int(size if isinstance(size, int) else config.vision_config.hidden_size)


def _dim(config: Any) -> int:
    size = getattr(config, "hidden_size", None)
    return int(size if isinstance(size, int) else config.hidden_sizes[-1])
