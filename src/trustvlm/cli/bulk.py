"""`trustvlm predict ... -o FOLDER/`: any number of images, into a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from trustvlm.cli.console import note, progress_bar
from trustvlm.exceptions import InputError

__all__ = ["actor_range", "is_folder", "predict_into_folder"]


def is_folder(output: str | None) -> bool:
    """Whether an output is a folder: its name ends in a slash, or it is there already.

    Examples
    --------
    >>> is_folder("verdicts/"), is_folder("verdicts.csv")
    (True, False)
    """
    return output is not None and (output.endswith(("/", "\\")) or Path(output).is_dir())


def actor_range(text: str) -> tuple[int, int]:
    """Read `N` or `FEWEST:MOST`.

    Examples
    --------
    >>> actor_range("4"), actor_range("1:8")
    ((4, 4), (1, 8))
    """
    least, _, most = text.partition(":")
    try:
        return int(least), int(most or least)
    except ValueError:
        raise InputError(
            f"Expected --actors to be a number or FEWEST:MOST, but got {text!r}."
        ) from None


def predict_into_folder(
    model: Path,
    inputs: list[str],
    output: str,
    *,
    engine: str,
    ray: Mapping[str, Any],
    profiled: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run a bulk job and say what it came to; exit code 3 if some images failed.

    `ray` holds the settings of `RayEngine`, for the engine of that name.
    """
    from trustvlm.bulk import predict_in_bulk
    from trustvlm.embeddings import Profile

    if engine == "ray":
        if profiled:
            raise InputError("--profile is for one worker: Ray's dashboard shows what many do.")
        from trustvlm.bulk.ray_engine import RayEngine

        settings["engine"] = partial(RayEngine, **ray)
    elif engine != "local":
        raise InputError(f"Expected --engine to be local or ray, but got {engine!r}.")
    profile = Profile()
    with progress_bar("images", quiet=quiet) as update:
        summary = predict_in_bulk(
            model,
            inputs,
            output,
            progress=None if update is None else lambda done: update(done, 0, 0),
            profile=profile,
            **settings,
        )
    if profiled:
        note("\n".join(profile.lines()))
    for remark in summary.notes:
        note(f"note: {remark}", quiet=quiet)
    note(str(summary), quiet=quiet)
    if summary.decisions.get("error"):
        raise typer.Exit(3)
