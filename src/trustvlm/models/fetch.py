"""Write the files of a hub model to a plain directory, for a machine without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from trustvlm.exceptions import OutputError
from trustvlm.files import atomic_folder, output_error
from trustvlm.models.directories import RECORD, ModelRecord, file_hash, read_record
from trustvlm.models.registry import fetch_files


def fetch_model(
    spec: str, directory: str | os.PathLike[str], *, revision: str | None = None
) -> ModelRecord:
    """Write exactly the files that a model consists of, and where they are from.

    They are taken from the hub's cache, or downloaded to it first; files that an interrupted
    download has completed are not downloaded again. The directory is there whole or not at all.
    One that has the model already is left as it is, after its files were compared.

    Parameters
    ----------
    spec
        A preset, or a model of a hub repository: `hf:<repo>`, `openclip:<arch>/<tag>`,
        `openclip:hf-hub:<repo>`, `timm:<name>`, `timm:hf-hub:<repo>`; `@<revision>` may follow.
    directory
        New, empty, or of the same model.
    revision
        The same commit, tag or branch, by itself.

    Returns
    -------
    ModelRecord
        As it lies in the directory, in `trustvlm-model.json`.

    Raises
    ------
    InputError
        If no model has that name, or it has no files to fetch.
    ModelUnavailableError, MissingExtraError
        If it cannot be had here.
    OutputError
        If the directory holds something else, or cannot be written.
    """
    target = Path(directory).expanduser()
    earlier = _check_target(target)
    files, needed = fetch_files(spec, revision=revision)
    record = ModelRecord(
        directory=target,
        spec=spec,
        repository=files.source,
        revision=files.revision,
        asked=revision or spec.partition("@")[2].partition("#")[0],
        sha256={file.name: file_hash(file) for file in needed},
    )
    if earlier is not None:
        if (earlier.repository, earlier.revision) != (record.repository, record.revision):
            raise OutputError(
                f"{target} holds {earlier.repository} at {earlier.revision}, not "
                f"{record.repository} at {record.revision}: name another directory."
            )
        earlier.check()
        if set(record.sha256) <= set(earlier.sha256):
            return earlier
        raise OutputError(
            f"{target} holds other files of {record.repository}: name another directory."
        )
    _write(record, needed)
    return record


def _check_target(target: Path) -> ModelRecord | None:
    """Return the record of what was fetched there before; refuse a directory of something else."""
    if not target.exists():
        return None
    record = read_record(target) if target.is_dir() else None
    if record is None and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(
            f"{target} exists, and is no directory that `trustvlm models fetch` wrote: name a new "
            "one."
        )
    return record


def _write(record: ModelRecord, files: Iterable[Path]) -> None:
    names = {*record.sha256, RECORD}
    try:
        with atomic_folder(
            record.directory.absolute(), is_own=names.__contains__, abandoned_seconds=0.0
        ) as fresh:
            for file in files:
                # What links lead to, which those of the hub's cache do.
                shutil.copyfile(file, fresh / file.name)
            facts = json.dumps(record.facts(), indent=2)
            (fresh / RECORD).write_text(f"{facts}\n", encoding="utf-8")
    except OSError as error:
        raise output_error(record.directory, error) from error
