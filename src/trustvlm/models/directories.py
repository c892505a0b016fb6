"""Model directories: the record that `trustvlm models fetch` writes, and where they are found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.serialization import first_invalid

# Hashes that tell files apart.


def files_hash(files: Sequence[Path]) -> str:
    """SHA-256 of one file in hex; of several, the SHA-256 over their names and hashes.

    The bytes are read, whatever the name says: the hub's cache names large files by their SHA-256,
    and what lies there may have been exchanged.
    """
    if len(files) == 1:
        return file_hash(files[0])
    lines = [f"{file.name} {file_hash(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file in hex; it is read again only after it was changed."""
    target = file.resolve()
    status = target.stat()
    changes = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return _hash_of(target, *changes)


@cache
def _hash_of(file: Path, *_status: int) -> str:
    # Gigabytes take seconds: a file that has not changed is read once in a process.
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


_POINTER = b"version https://git-lfs.github.com/spec/v1"


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raise `ModelUnavailableError` if a file is the pointer that Git LFS leaves instead."""
    for file in files:
        with file.open("rb") as content:
            is_pointer = content.read(len(_POINTER)) == _POINTER
        if is_pointer:
            raise ModelUnavailableError(
                f"{file} is a pointer of Git LFS, not the file itself: run `git lfs pull` in "
                f"{file.parent}, or have it written by `trustvlm models fetch`."
            )


# The record that lies in a directory beside the files that were fetched.

RECORD = "trustvlm-model.json"


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Where the files of a directory are from; all but `directory` stands in the record.

    Attributes
    ----------
    directory
        Where they lie.
    format, version
        What tells the record from other files, and from those of other versions.
    spec
        What was fetched, such as `hf:openai/clip-vit-base-patch16`.
    repository
        Its id on the hub.
    revision
        The commit.
    asked
        The commit, tag or branch that was asked for; "" for the repository's main branch.
    sha256
        Of each file in hex, by its name.
    """

    directory: Path
    format: Literal["trustvlm.model-files"] = "trustvlm.model-files"
    version: Literal[1] = 1
    spec: str
    repository: str
    revision: str
    asked: str
    sha256: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse files outside the directory."""
        if any(Path(name).name != name for name in self.sha256):
            raise ValueError("a file in another directory")

    def facts(self) -> dict[str, Any]:
        """Return what the file holds, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "directory"}

    def check(self) -> None:
        """Compare the files with their SHA-256, which sticks and disks may have damaged.

        Raises
        ------
        ModelUnavailableError
            If one is missing or differs.
        """
        for name, expected in self.sha256.items():
            file = self.directory / name
            if not file.is_file():
                raise ModelUnavailableError(
                    f"{file} is missing, which {RECORD} beside it names: copy the directory again."
                )
            if file_hash(file) != expected:
                raise ModelUnavailableError(
                    f"{file} is not the file that was fetched: its SHA-256 differs from that in "
                    f"{RECORD}. Copy the directory again; if you changed the file yourself, "
                    f"remove {RECORD}, and it is a model of your own."
                )


def read_record(directory: Path) -> ModelRecord | None:
    """Read the record of a directory; None if it has none.

    Raises
    ------
    ModelUnavailableError
        If it cannot be read, or names files outside the directory.
    """
    file = directory / RECORD
    if not file.is_file():
        return None
    from pydantic import TypeAdapter, ValidationError  # takes its time

    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(ModelRecord).validate_python({**facts, "directory": directory})
    except (OSError, TypeError, ValueError) as error:  # pydantic's is one of the last kind
        is_invalid = isinstance(error, ValidationError)
        problem = ": ".join(first_invalid(error)).strip(": ") if is_invalid else f"{error}"
        raise ModelUnavailableError(
            f"{file} cannot be understood ({problem}): fetch the model again with "
            "`trustvlm models fetch`, or remove the file."
        ) from error


# Folders of such directories, which the environment names.

VARIABLE = "TRUSTVLM_MODELS"


def find_directory(
    repository: str,
    revision: str | None = None,
    holds: Callable[[Collection[str]], bool] = bool,
) -> ModelRecord | None:
    """Find what was fetched of a hub repository in the folders that `TRUSTVLM_MODELS` names.

    Parameters
    ----------
    repository
        Its id.
    revision
        A commit, tag or branch; None for any, if all that lie there are of one commit.
    holds
        Whether files of these names are those that are wanted: of one repository open_clip and
        transformers read different ones.

    Returns
    -------
    ModelRecord or None
        None if there is none; its files are not compared yet.

    Raises
    ------
    InputError
        If the variable names no folder, or several commits lie there and none is asked for.
    ModelUnavailableError
        If a record cannot be read.
    """
    records = [
        record
        for directory in _directories()
        if (record := read_record(directory)) is not None
        and record.repository == repository
        and holds(record.sha256)
        and (revision is None or revision in (record.revision, record.asked))
    ]
    commits = list(dict.fromkeys(record.revision for record in records))
    if len(commits) > 1:
        raise InputError(
            f"{VARIABLE} holds {len(commits)} commits of {repository} ({', '.join(commits)}): name "
            f"one, as in hf:{repository}@{commits[0]}."
        )
    return records[0] if records else None


def _directories() -> Iterator[Path]:
    """Yield the folders named, the folders in them, and the folders in these, with a record."""
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        root = Path(name).expanduser()
        if not root.is_dir():
            raise InputError(
                f"The variable {VARIABLE} names {name!r}, which is no folder: name the folder of "
                "what `trustvlm models fetch` wrote, or unset it."
            )
        for pattern in (RECORD, f"*/{RECORD}", f"*/*/{RECORD}"):
            yield from (file.parent for file in sorted(root.glob(pattern)))
