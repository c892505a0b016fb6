"""Load a model's tokenizer, and refuse one that would silently read texts in another way."""

from __future__ import annotations

import json
from typing import Any

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.extras import require
from trustvlm.models.hub import ModelFiles
from trustvlm.models.quiet import quiet

__all__ = ["load_tokenizer"]

# Without one of these, transformers makes up a tokenizer with an empty vocabulary.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")


def load_tokenizer(files: ModelFiles, vocabulary: int) -> Any:
    """Load the tokenizer from the model's directory.

    Parameters
    ----------
    files
        The model's files.
    vocabulary
        How many tokens the model knows.

    Raises
    ------
    MissingExtraError
        If it is a SentencePiece tokenizer and that package is not installed.
    ModelUnavailableError
        If it is missing or damaged, or has tokens that the model does not know.
    """
    if not any((files.directory / name).is_file() for name in _VOCABULARIES):
        raise ModelUnavailableError(
            f"The tokenizer of {files.source} is missing: expected one of "
            f"{', '.join(_VOCABULARIES)} in {files.directory}."
        )
    if _declared(files) == "SiglipTokenizer":
        for module in ("sentencepiece", "google.protobuf"):
            require(module, extra="torch", purpose=f"The tokenizer of {files.source}")
    transformers = require("transformers", extra="torch", purpose="The tokenizer")
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                files.directory, local_files_only=True, trust_remote_code=False
            )
    # Broken files make the tokenizer libraries raise errors of many kinds.
    except Exception as error:
        raise ModelUnavailableError(
            f"The tokenizer of {files.source} cannot be read from {files.directory}: {error}"
        ) from error
    if not 1 < len(tokenizer) <= vocabulary:
        raise ModelUnavailableError(
            f"The tokenizer in {files.directory} does not belong to the model: it has "
            f"{len(tokenizer)} tokens, and the model knows {vocabulary}."
        )
    return tokenizer


def _declared(files: ModelFiles) -> str:
    try:
        settings = json.loads((files.directory / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(settings.get("tokenizer_class", "")) if isinstance(settings, dict) else ""
