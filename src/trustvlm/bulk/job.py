"""The whole of a bulk job: agree on what it is, do what is left, count."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from trustvlm.bulk.engines import Engine, LocalEngine, Work
from trustvlm.bulk.journal import Journal, locked
from trustvlm.bulk.manifest import FOLDER, agree_on, identify
from trustvlm.bulk.parts import Part
from trustvlm.bulk.summary import BulkSummary
from trustvlm.bulk.worker import Loader, LoadModel
from trustvlm.embeddings import Profile
from trustvlm.exceptions import InputError
from trustvlm.extras import require
from trustvlm.files import write_text
from trustvlm.images import DEFAULT_LIMITS, Limits, image_shards
from trustvlm.images.sources import Source
from trustvlm.pipeline.artefact import read_artefact
from trustvlm.scores import get

__all__ = ["PART_SIZE", "predict_in_bulk", "run_job"]

PART_SIZE = 2048
MakeEngine: TypeAlias = Callable[[Loader, int], Engine]


def predict_in_bulk(
    model: str | os.PathLike[str],
    images: Source,
    output: str | os.PathLike[str],
    *,
    engine: MakeEngine = LocalEngine,
    part_size: int = PART_SIZE,
    retries: int = 2,
    batch_size: int = 32,
    device: str = "auto",
    path_column: str = "path",
    image_column: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep_embeddings: bool = False,
    progress: Callable[[int], None] | None = None,
    profile: Profile | None = None,
) -> BulkSummary:
    """Predict on any number of images, into a folder of Parquet files.

    Every image has exactly one row, whatever happens in between: run the same call again after an
    interrupt, and what is done is not done again. The memory does not grow with the number of
    images. The computing is done by a process of its own; an image that kills it `retries` times
    more becomes a row with an error.

    Parameters
    ----------
    model
        A `.trust` directory.
    images
        What `image_shards` takes.
    output
        A folder, new or of an interrupted run; read it with `pyarrow.parquet.read_table` or
        `pandas.read_parquet`. Rows are in input order if the files are taken in that of names.
    engine
        `LocalEngine`, or `RayEngine` with its settings.
    part_size
        Images in a file, at most: what an interrupt can cost.
    retries
        How often a part, or an image, is tried again after it killed a process.
    batch_size, device
        As in `TrustVLM`.
    path_column, image_column
        As in `image_shards`.
    limits
        Bounds on each image.
    keep_embeddings
        Look vectors up in the store and keep them there: about 5 kB an image and two encoders.
    progress
        Called with the number of images done, after each part.
    profile
        Learns where the time of this run goes, summed over all workers.

    Raises
    ------
    InputError
        If there are no images; if the model's score needs to see all images at once; or if the
        folder was begun with another model, other inputs or other settings.
    BulkError
        If the worker dies of images that none of them explains.
    MissingExtraError
        If the extra `parquet` is not installed.
    """
    manifest, _ = read_artefact(model)
    score = manifest["score"]["name"]
    if get(score).whole_batch:
        raise InputError(
            f"The score {score!r} judges each image by all the others of the run, and a bulk run "
            "never sees them at once. Fit with a score that judges images one by one (fit without "
            "--adapt), or predict batches of a size that you choose into a .csv, .jsonl or "
            ".parquet file each."
        )
    settings = {"device": device, "batch_size": batch_size, "limits": limits}
    loader = LoadModel(Path(model), settings, keep_embeddings)
    summary = run_job(
        engine(loader, retries),
        images,
        Path(output),
        identity=identify(manifest),
        settings={
            "part_size": part_size,
            "batch_size": batch_size,
            "path_column": path_column,
            "image_column": image_column,
        },
        progress=progress,
        profile=profile,
    )
    return replace(summary, notes=(*summary.notes, f"decisions: {manifest['decision_rule']}"))


def run_job(
    engine: Engine,
    images: Source,
    output: Path,
    *,
    identity: dict[str, str],
    settings: dict[str, Any],
    progress: Callable[[int], None] | None = None,
    profile: Profile | None = None,
) -> BulkSummary:
    """Do what is left of a job; see `predict_in_bulk`.

    Parameters
    ----------
    engine
        Who computes.
    images, output, progress, profile
        As in `predict_in_bulk`.
    identity
        What the model is, side by side; compared with that of the run before.
    settings
        `part_size`, `path_column`, `image_column`, and others that must not change.
    """
    require("pyarrow.parquet", extra="parquet", purpose="Bulk output")
    size = settings["part_size"]
    if not isinstance(size, int) or size < 1:
        raise InputError(f"Expected `part_size` to be a whole number >= 1, but got {size!r}.")
    profile = profile or Profile()
    began = time.monotonic()
    named = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    inputs = [os.fspath(item) for item in named]
    if output.exists() and not output.is_dir():
        raise InputError(f"Expected {str(output)!r} to be a folder, but it is a file.")
    # Before anything is written: is there something to predict on?
    next(_first_parts(inputs, settings))
    with locked(output):
        agree_on(output, inputs, identity, settings)
        journal = Journal(output)
        n_before = journal.n_images
        _check_done(journal, inputs, settings)
        work = (Work(part, journal.done(part.number)) for part in _first_parts(inputs, settings))
        for part, finished in engine.run(work):
            with profile.stage("writing"):
                journal.add(part, finished)
            for stage, seconds in finished.seconds.items():
                profile.add(stage, seconds)
            profile.n_images += finished.n_images
            if progress is not None:
                progress(journal.n_images)
        summary = BulkSummary(
            output=output,
            n_images=journal.n_images,
            n_now=journal.n_images - n_before,
            decisions=journal.decisions,
            errors=journal.errors,
            seconds=time.monotonic() - began,
            notes=tuple(engine.notes),
        )
        text = json.dumps(summary.to_dict(), indent=2) + "\n"
        write_text(output / FOLDER / "summary.json", text)
    return summary


def _first_parts(inputs: list[str], settings: dict[str, Any]) -> Iterator[Part]:
    size = settings["part_size"]
    shards = image_shards(
        inputs[0] if len(inputs) == 1 else inputs,
        size=size,
        path_column=settings["path_column"],
        image_column=settings["image_column"],
    )
    return (Part(number, shard, 0, size) for number, shard in enumerate(shards))


def _check_done(journal: Journal, inputs: list[str], settings: dict[str, Any]) -> None:
    """Refuse to go on with inputs that are not those of the parts that are done."""
    known = journal.n_shards
    if not known:
        return
    for part in _first_parts(inputs, settings):
        if part.number >= known:
            return
        journal.check(part.number, part.shard)
    if part.number + 1 < known:
        raise InputError(
            f"Verdicts on {known} pieces of the inputs are there, but now there are only "
            f"{part.number + 1}. Restore the others, or choose another folder."
        )
