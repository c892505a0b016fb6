"""CLIP, SigLIP, MetaCLIP, DINO and other models in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import pip_install, require
from trustvlm.exceptions import InputError, MissingExtraError, ModelUnavailableError
from trustvlm.models.base import ModelIdentity, Preprocessing, check_texts
from trustvlm.models.hub import (
    PREPROCESSING_FILES,
    ModelFiles,
    check_directory,
    first_line,
    load_tokenizer,
    locate,
    quiet,
    read_json,
    read_preprocessing,
    wanted_files,
)
from trustvlm.models.names import PROMPTS, VISION, VLM, presets
from trustvlm.models.registry import LoadOptions, register_backend
from trustvlm.models.torch_encoder import (
    TorchImageEncoder,
    inference,
    to_vectors,
)

# Families whose texts are padded to the full length, in lower case.
_FULL_LENGTH = ("siglip", "tipsv2")
# Families that the tests compare with transformers; others are checked as they are loaded.
_COMPARED = ("clip", "siglip", "metaclip_2", "chinese_clip", "altclip", "tipsv2")
_COMPARED_VISION = ("dinov2", "dinov2_with_registers", "dinov3_vit", "radio", "resnet", "vit")
# Tokens of the texts that a family was trained on, where its positions go further.
_TRAINED_LENGTH = {"chinese_clip": 52}
_PROMPTS = {"siglip": PROMPTS["siglip"], "chinese_clip": PROMPTS["chinese"]}


def fetch_files(name: str, revision: str | None) -> tuple[ModelFiles, list[Path]]:
    """Have a repository downloaded; return its directory, and the files that are read of it."""
    files = locate(name, revision=revision, check=partial(_check_settings, name))
    # What could not be read would be carried in vain.
    files.weight_files()
    read_preprocessing(files.directory)
    return files, wanted_files(files.directory)


@register_backend(
    "hf",
    roles=(VLM, VISION),
    form="<repo or directory>",
    extra="torch",
    revisions=True,
    class_token=True,
    check=check_directory,
    fetch=fetch_files,
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
    joint = _is_joint(model)
    if options.role == VLM:
        if not joint:
            pixels = model.main_input_name == "pixel_values"
            other = f" It is an image encoder: --vision hf:{name}" if pixels else ""
            raise ModelUnavailableError(
                f"hf:{name} is a {family} model, which embeds no texts beside images: it cannot "
                f"predict.{other}"
            )
        tokenizer = load_tokenizer(files, int(model.config.text_config.vocab_size))
        return HuggingFaceVLM(files, model, tokenizer, family, options)
    if not joint and model.main_input_name != "pixel_values":
        raise ModelUnavailableError(f"hf:{name} is a {family} model, which encodes no images.")
    if options.pooling == "cls" and (joint or not _has_class_token(model)):
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
        self._joint = _is_joint(model)
        self._pooling = "projection" if self._joint else options.pooling
        if hasattr(model, "summary_idxs") and options.pooling == "mean":
            self._pooling = "summary"
        # Set at once: a network of unknown dimensions is tried on a black image.
        self.preprocessing = preprocessing = read_preprocessing(files.directory)
        if preprocessing.patches and not self._joint:
            raise ModelUnavailableError(
                f"hf:{files.source} is the image tower of a NaFlex model alone, which is not "
                "supported: name the whole model."
            )
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
            preprocessing=preprocessing,
            dim=_dim(model.config, self._pooling, family),
            options=options,
        )
        if not self._joint and family not in _COMPARED_VISION:
            try:
                with inference(self._device):
                    first, second = (to_vectors(self._features(self._pattern())) for _ in range(2))
            # Models of videos, of points or of several inputs fail in ways of their own.
            except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
                raise ModelUnavailableError(
                    f"hf:{files.source} is a {family} model, which cannot be used as an encoder of "
                    f"images: {first_line(error)}"
                ) from error
            if not np.array_equal(first, second):
                raise ModelUnavailableError(
                    f"hf:{files.source} is a {family} model, which gives another vector each time "
                    "for the same image: it cannot be used as an encoder."
                )

    def _pattern(self) -> Any:
        """Return `(1, 3, height, width)` of some image, to try the network on."""
        import torch

        shape = (1, 3, *self.preprocessing.size)
        values = torch.linspace(-1, 1, 3 * shape[2] * shape[3], device=self._device)
        return values.reshape(shape)

    def _features(self, tensor: Any) -> Any:
        if self.preprocessing.patches:
            inputs = _unpacked(tensor, self.preprocessing)
            return self._model.get_image_features(**inputs).pooler_output
        if self._joint:
            return self._model.get_image_features(pixel_values=tensor).pooler_output
        output = self._model(pixel_values=tensor)
        if self._pooling == "summary":
            return output.summary
        hidden = output.last_hidden_state
        if self._pooling == "cls":
            return hidden[:, 0]
        # (n, tokens, d) of a transformer, (n, d, h, w) of a convolutional network
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))


class HuggingFaceVLM(HuggingFaceVision):
    """A model that transformers runs and that embeds images and texts: CLIP, SigLIP and others.

    Texts are batched by length and padded to the longest of the batch, where padding changes
    nothing: under CLIP's causal mask, or where it is masked. SigLIP's and TIPS's are padded to the
    model's full length and put in lower case, as they were trained; the tokenizer that SigLIP 2 is
    published with leaves the case alone. Models of other families than those that the tests compare
    are checked as they are loaded: whether their own logits are a scaled cosine of the embeddings,
    and whether padding changes nothing.

    Attributes
    ----------
    logit_scale, prompt
        As in `trustvlm.models.base.VisionLanguageModel`.
    logit_bias
        What SigLIP adds to its logits; None for other models. The softmax over classes does not
        see it, the sigmoid does.

    Raises
    ------
    ModelUnavailableError
        If the model compares images and texts in another way.
    """

    def __init__(
        self,
        files: ModelFiles,
        model: Any,
        tokenizer: Any,
        family: str,
        options: LoadOptions,
    ) -> None:
        self.logit_scale, self.logit_bias = _scale_and_bias(model, files.source)
        self.prompt = _PROMPTS.get(family, PROMPTS["clip"])
        self._tokenizer = tokenizer
        self._full = family in _FULL_LENGTH
        self._lower = self._full
        self._inputs = _text_inputs(model, tokenizer, family)
        self._length = _text_length(model, tokenizer)
        super().__init__(
            files,
            model,
            family,
            options,
            tokenizer=files.tokenizer(),
            lower_case=self._lower,
        )
        if family not in _COMPARED:
            self._check(files.source, family)

    def _check(self, source: str, family: str) -> None:
        """Compare with the model's own logits, and one text alone with one that is padded."""
        why = ""
        try:
            texts = ["cat", "a photo of a dog on a bed"]
            together = self.encode_texts(texts)
            alone = self.encode_texts(texts[:1])
            with inference(self._device), np.errstate(all="ignore"):
                tensor = self._pattern()
                image = to_vectors(self._features(tensor))
                tokens = self._tokens(texts)
                logits = to_vectors(self._model(pixel_values=tensor, **tokens).logits_per_image)
                lengths = np.linalg.norm(image, axis=1)[:, None] * np.linalg.norm(together, axis=1)
                cosines = (image @ together.T) / lengths
            if not np.allclose(alone, together[:1], atol=1e-4 * np.abs(alone).max()):
                why = "padding changes its texts' embeddings"
            own = self.logit_scale * cosines + (self.logit_bias or 0.0)
            if not np.allclose(own, logits, atol=1e-3):
                why = "its logits are not a scaled cosine of its embeddings"
        # Models of other kinds lack one of these parts, or give other shapes.
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            why = first_line(error).rstrip(".")
        if why:
            raise ModelUnavailableError(
                f"hf:{source} is a {family} model, which cannot be used for prediction: {why}."
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
                self._tokenizer(text.lower() if self._lower else text, verbose=False)["input_ids"]
            )
            > self._length
        ]

    def _tokens(self, texts: list[str]) -> dict[str, Any]:
        tokens = self._tokenizer(
            [text.lower() for text in texts] if self._lower else texts,
            padding="max_length" if self._full else "longest",
            padding_side="right",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        return {name: tokens[name].to(self._device) for name in self._inputs}


def _load(name: str, revision: str | None) -> tuple[ModelFiles, Any, str]:
    purpose = f"The model hf:{name}"
    with quiet():
        torch = require("torch", extra="torch", purpose=purpose)
        transformers = require("transformers", extra="torch", purpose=purpose)
    files = locate(name, revision=revision, check=partial(_check_settings, name))
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
        if "custom code" in str(error):
            raise ModelUnavailableError(f"hf:{name} is {_OF_CODE}") from error
        raise ModelUnavailableError(
            f"{name} cannot be loaded from {files.directory}: {first_line(error)}"
        ) from error
    # The network of NaFlex has another name in transformers.
    family = str(model.config.model_type).replace("siglip2", "siglip")
    # The pooler of an image encoder is not used, and often not published.
    missing = {
        key for key in report["missing_keys"] if _is_joint(model) or not key.startswith("pooler.")
    }
    if missing:
        raise ModelUnavailableError(
            f"The weights in {files.directory} do not belong to its config.json: {len(missing)} "
            f"tensors are missing, such as {min(missing)}."
        )
    return files, model, family


_OF_CODE = (
    "a network of code in its repository, which trustvlm does not run: this version of "
    "transformers has none of that kind."
)


def _check_settings(name: str, directory: Path) -> None:
    """Refuse what transformers does not know, or reads images in a way that is not followed."""
    with quiet():
        transformers = require("transformers", extra="torch", purpose=f"The model hf:{name}")
        families = transformers.CONFIG_MAPPING
    config = read_json(directory / "config.json")
    family = config.get("model_type")
    if family is not None and family not in families:
        unknown = (
            f"a {family} model, which this version of transformers ({transformers.__version__}) "
            "does not know; a newer one may."
        )
        preset = [p.name for p in presets() if p.spec.lower() == f"openclip:hf-hub:{name}".lower()]
        here = f" Its name here is {preset[0]}." if preset else ""
        raise ModelUnavailableError(
            f"hf:{name} is {_OF_CODE if 'auto_map' in config else unknown}{here}"
        )
    if any((directory / file).is_file() for file in PREPROCESSING_FILES):
        read_preprocessing(directory)


def _has_class_token(model: Any) -> bool:
    return any(
        name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()
    )


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_joint(model: Any) -> bool:
    """Whether it embeds images and texts, each by itself."""
    return all(hasattr(model, f"get_{kind}_features") for kind in ("image", "text"))


def _scale_and_bias(model: Any, source: str) -> tuple[float, float | None]:
    """Return s and b of z = s * cos(image, text) + b; b is None where there is none."""
    if hasattr(model, "logit_scale"):
        scale = float(model.logit_scale.detach().float().exp())
    elif hasattr(model, "temperature"):
        scale = 1 / float(model.temperature.detach().float())
    else:
        raise ModelUnavailableError(
            f"hf:{source} has neither a logit scale nor a temperature: it cannot predict."
        )
    bias = getattr(model, "logit_bias", None)
    return scale, None if bias is None else float(bias.detach().float())


def _text_inputs(model: Any, tokenizer: Any, family: str) -> tuple[str, ...]:
    if family == "siglip":  # It attends to its padding.
        return ("input_ids",)
    taken = signature(model.get_text_features).parameters
    return tuple(name for name in tokenizer.model_input_names if name in taken)


def _text_length(model: Any, tokenizer: Any) -> int:
    """Return how many tokens the text encoder reads."""
    length = int(model.config.text_config.max_position_embeddings)
    for name, module in model.named_modules():
        # RoBERTa's positions begin after that of the padding.
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            length -= module.padding_idx + 1
            break
    trained = _TRAINED_LENGTH.get(str(model.config.model_type), length)
    return min(length, trained, int(tokenizer.model_max_length))


def _unpacked(tensor: Any, preprocessing: Preprocessing) -> dict[str, Any]:
    """Turn normalised `(n, 3, patches + 1, patch * patch)` into what a NaFlex model reads."""
    import torch

    red, green = (
        (tensor[:, i, -1, :2] * preprocessing.std[i] + preprocessing.mean[i]) * 255 for i in (0, 1)
    )
    shapes = (red.round() * 256 + green.round()).long()  # rows and columns of each image
    positions = torch.arange(preprocessing.patches, device=tensor.device)
    mask = (positions < shapes.prod(dim=1, keepdim=True)).to(torch.int32)
    patches = tensor[:, :, :-1].permute(0, 2, 3, 1).flatten(2)
    return {
        "pixel_values": patches * mask[..., None],
        "pixel_attention_mask": mask,
        "spatial_shapes": shapes,
    }


def _dim(config: Any, pooling: str, family: str) -> int | None:
    """Return the length of a vector as far as the configuration tells it."""
    if pooling == "projection":
        if family not in _COMPARED:
            return None
        size = getattr(config, "projection_dim", None)
        return int(size if isinstance(size, int) else config.vision_config.hidden_size)
    if pooling == "summary":
        return len(config.summary_idxs) * int(config.hidden_size)
    size = getattr(config, "hidden_size", None)
    return int(size if isinstance(size, int) else config.hidden_sizes[-1])
