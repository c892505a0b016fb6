"""`trustvlm predict ... -o FOLDER/`: any number of images, into a folder of Parquet files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from trustvlm.cli.console import note, progress_bar
from trustvlm.exceptions import InputError

__all__ = ["is_folder", "predict_into_folder"]


def is_folder(output: str | None) -> bool:
    """Whether an output is a folder: its name ends in a slash, or it is there already.

    Examples
    --------
    >>> is_folder("verdicts/"), is_folder("verdicts.csv")
    (True, False)
    """
    return output is not None and (output.endswith(("/", "\\")) or Path(output).is_dir())


def predict_into_folder(
    model: Path,
    inputs: list[str],
    output: str,
    *,
    engine: str,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run a bulk job and say what it came to; exit code 3 if some images failed."""
    from trustvlm.bulk import predict_in_bulk

    if engine != "local":
        raise InputError(f"Expected --engine to be local, but got {engine!r}.")
    with progress_bar("images", quiet=quiet) as update:
        summary = predict_in_bulk(
            model,
            inputs,
            output,
            progress=None if update is None else lambda done: update(done, 0, 0),
            **settings,
        )
    for remark in summary.notes:
        note(f"note: {remark}", quiet=quiet)
    sys.stdout.flush()
    note(str(summary), quiet=quiet)
    if summary.decisions.get("error"):
        raise typer.Exit(3)
