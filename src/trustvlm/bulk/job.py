"""A bulk job: agree on what it is, have an engine compute what is left, count."""

from __future__ import annotations

import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from trustvlm.bulk.folder import FOLDER, JobFolder, LocalFolder, job_folder, writing
from trustvlm.bulk.journal import Journal, agree_on, check_folder, identify
from trustvlm.bulk.parts import SUMS, FinishedPart, Part, part_content
from trustvlm.bulk.worker import SILENCE, GuardedWorker, Loader, LoadModel
from trustvlm.embeddings import Profile
from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.images import DEFAULT_LIMITS, Limits, image_shards
from trustvlm.images.inputs import PathSource, warn_of_skipped
from trustvlm.images.references import Skipped
from trustvlm.pipeline.artefact import read_artefact
from trustvlm.pipeline.predict import sets_of
from trustvlm.pipeline.runs import Run, RunSums, check_when_invalid
from trustvlm.pipeline.state import ModelState
from trustvlm.pipeline.verdict import RunOutcome, Verdicts, verdicts_from
from trustvlm.scores import get
from trustvlm.text import without_credentials


@dataclass(frozen=True)
class Work:
    """One shard, and which of its parts are done.

    Parameters
    ----------
    first
        Its first part.
    done
        By the start of each part that is done, whether the shard ends with it.
    """

    first: Part
    done: Mapping[int, bool] = field(default_factory=dict)


class Engine(Protocol):
    """Computes what is still to do, in any order.

    Attributes
    ----------
    notes
        Warnings to show wherever the models are named; filled while it runs.
    """

    notes: list[str]

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield each part that was still to do, once."""
        ...


@dataclass(eq=False)
class LocalEngine:
    """One worker process, with all cores of this machine and its GPU.

    Parameters
    ----------
    loader
        Makes the model in the worker.
    retries, silence
        See `GuardedWorker`.
    """

    loader: Loader
    retries: int = 2
    silence: float = field(default=SILENCE, kw_only=True)
    notes: list[str] = field(default_factory=list, init=False)

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield each part that was still to do, in input order."""
        with closing(GuardedWorker(self.loader, self.retries, self.silence)) as worker:
            for shard in work:
                for part, finished in remaining(shard, worker.compute):
                    self.notes = worker.notes
                    yield part, finished


def remaining(
    work: Work, compute: Callable[[Part], FinishedPart]
) -> Iterator[tuple[Part, FinishedPart]]:
    """Compute the parts of a shard that are not done, one after the other."""
    part = work.first
    while True:
        last = work.done.get(part.start)
        if last is None:
            finished = compute(part)
            yield part, finished
            last = finished.last
        if last:
            return
        part = part.next()


@dataclass(frozen=True)
class BulkSummary:
    """Counts over all parts of a job, and the speed of the last run.

    Attributes
    ----------
    output
        The folder with the verdicts, or its URL.
    n_images, n_now
        Images in all, and those of this run; the others had been done before.
    decisions, errors
        Counts by decision, and of the errors by kind (a key of `images.KINDS`).
    seconds
        Duration of this run, with loading the model.
    notes
        What to know of the models, and what the decisions rest on.
    run
        What holds for the images together; None if not all parts say what it takes.

    Examples
    --------
    >>> summary = BulkSummary(Path("out"), 30, 20, {"accept": 29, "error": 1}, {"empty": 1}, 4.0)
    >>> print(summary)
    30 images in out: 29 accept, 0 review, 1 error (1 empty); 20 now, 5.0 images/s
    """

    output: Path | str
    n_images: int
    n_now: int
    decisions: Mapping[str, int]
    errors: Mapping[str, int]
    seconds: float
    notes: tuple[str, ...] = field(default=())
    run: RunOutcome | None = None

    @property
    def images_per_second(self) -> float:
        """Speed of this run; 0 if nothing was left to do."""
        return self.n_now / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.n_images,
            "images_now": self.n_now,
            "decisions": {
                name: self.decisions.get(name, 0) for name in ("accept", "review", "error")
            },
            "errors": dict(sorted(self.errors.items())),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 3),
            "run": None if self.run is None else self.run.to_dict(),
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.to_dict()["decisions"].items())
        if self.run is not None:
            counts += f", {self.run.out_of_distribution} out-of-distribution"
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(self.errors).most_common())
        now = f"{self.n_now} now, {self.images_per_second:.1f} images/s" if self.n_now else ""
        return (
            f"{self.n_images} images in {self.output}: {counts}{f' ({kinds})' if kinds else ''}; "
            f"{now or 'nothing was left to do'}"
        )


PART_SIZE = 2048
MakeEngine: TypeAlias = Callable[[Loader, int], Engine]


def predict_in_bulk(
    model: str | os.PathLike[str],
    images: PathSource,
    output: str | os.PathLike[str],
    *,
    engine: MakeEngine = LocalEngine,
    part_size: int = PART_SIZE,
    retries: int = 2,
    retry_errors: bool = False,
    batch_size: int = 32,
    device: str = "auto",
    path_column: str = "path",
    image_column: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep_embeddings: bool = False,
    when_invalid: str = "review",
    risk: float | None = None,
    prediction_sets: float | None = None,
    set_method: str = "lac",
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
        Paths and URLs, as `image_shards` takes them.
    output
        A folder, new or of an interrupted run, or the URL of one in object storage; read it with
        `pyarrow.parquet.read_table` or `pandas.read_parquet`. Rows are in input order if the
        files are taken in that of names.
    engine
        `LocalEngine`, or `RayEngine` with its settings.
    part_size
        Images in a file, at most: what an interrupt can cost.
    retries
        How often a part, or an image, is tried again after it killed a process.
    retry_errors
        Of an earlier run, compute the parts again that have errors, as of a network.
    batch_size, device
        As in `TrustVLM`.
    path_column, image_column
        As in `image_shards`.
    limits
        Bounds on each image, and on archives.
    keep_embeddings
        Look vectors up in the store and keep them there: about 5 kB an image and two encoders.
    when_invalid
        As in `TrustVLM.predict`; at the end of the run, files are written again where it applies.
    risk
        As in `TrustVLM.use_risk`; None for the first that the model was calibrated for.
    prediction_sets, set_method
        As in `TrustVLM.predict`.
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
        If the worker dies of images that none of them explains; or if the folder cannot be written
        to, as where the disk is full. The same call goes on from there.
    MissingExtraError
        If the extra `parquet` is not installed.
    """
    manifest, _ = read_artefact(model)
    score = manifest["score"]["name"]
    if get(score).whole_batch and not manifest.get("adaptation"):
        raise InputError(
            f"The score {score!r} judges each image by all the others of the run, and a bulk run "
            "never sees them at once. Fit with a score that judges images one by one (fit with "
            "--adapt-to IMAGES instead of --adapt), or predict batches of a size that you choose "
            "into a .csv, .jsonl or .parquet file each."
        )
    settings = {"device": device, "batch_size": batch_size, "limits": limits}
    state = ModelState.load(model)
    if risk is not None:
        state = state.at_risk(risk)
    if prediction_sets is not None:
        sets_of(state, prediction_sets, set_method)
    identity = identify(manifest)
    loader = LoadModel(
        Path(model),
        settings,
        keep_embeddings,
        risk,
        prediction_sets,
        set_method,
        identity=identity,
    )
    # Defaults are not among the settings, as they were none once.
    chosen = {
        "when_invalid": None if check_when_invalid(when_invalid) == "review" else when_invalid,
        "risk": risk,
        "prediction_sets": prediction_sets,
        "set_method": None if prediction_sets is None else set_method,
    }
    summary = run_job(
        engine(loader, retries),
        images,
        output,
        identity=identity,
        settings={
            "part_size": part_size,
            "batch_size": batch_size,
            "path_column": path_column,
            "image_column": image_column,
            **{name: value for name, value in chosen.items() if value is not None},
        },
        run=Run(state),
        limits=limits,
        retry_errors=retry_errors,
        progress=progress,
        profile=profile,
    )
    rule = state.to_manifest()["decision_rule"]
    return replace(summary, notes=(*summary.notes, f"decisions: {rule}"))


def run_job(
    engine: Engine,
    images: PathSource,
    output: str | os.PathLike[str],
    *,
    identity: dict[str, str],
    settings: dict[str, Any],
    run: Run | None = None,
    limits: Limits = DEFAULT_LIMITS,
    retry_errors: bool = False,
    progress: Callable[[int], None] | None = None,
    profile: Profile | None = None,
) -> BulkSummary:
    """Do what is left of a job; see `predict_in_bulk`.

    Parameters
    ----------
    engine
        Who computes.
    images, output, retry_errors, progress, profile
        As in `predict_in_bulk`.
    identity
        What the model is, side by side; compared with that of the run before.
    settings
        `part_size`, `path_column`, `image_column`, and others that must not change.
    run
        Says what holds for all images together; None says nothing.
    limits
        Bounds on archives.
    """
    require("pyarrow.parquet", extra="parquet", purpose="Bulk output")
    size = settings["part_size"]
    if not isinstance(size, int) or size < 1:
        raise InputError(f"Expected `part_size` to be a whole number >= 1, but got {size!r}.")
    profile = profile or Profile()
    began = time.monotonic()
    folder = job_folder(output)
    listed = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    for item in listed:
        if not isinstance(item, str | os.PathLike):
            raise InputError(
                "Expected every input to be named by a path or URL, because other processes read "
                f"it, but got a {type(item).__name__}."
            )
    inputs = [os.fspath(item) for item in listed]
    with writing(folder):
        check_folder(folder)
    # Before anything is written: is there something to predict on?
    next(_first_parts(inputs, settings, limits))
    with folder.locked():
        with writing(folder):
            agree_on(folder, [without_credentials(item) for item in inputs], identity, settings)
            journal = Journal(folder, retry_errors=retry_errors)
        n_before = journal.n_images
        _check_done(journal, inputs, settings, limits)
        skipped = Skipped()
        parts = _first_parts(inputs, settings, limits, skipped)
        work = (Work(part, journal.done(part.number)) for part in parts)
        for part, finished in engine.run(work):
            skipped.merge(finished.skipped)
            with profile.stage("writing"), writing(folder):
                journal.add(part, finished)
            for stage, seconds in finished.seconds.items():
                profile.add(stage, seconds)
            profile.n_images += finished.n_images
            if progress is not None:
                progress(journal.n_images)
        with profile.stage("writing"), writing(folder):
            outcome = _decide(journal, folder, run, settings.get("when_invalid", "review"))
        summary = BulkSummary(
            output=folder.path if isinstance(folder, LocalFolder) else str(folder),
            n_images=journal.n_images,
            n_now=journal.n_images - n_before,
            decisions=journal.decisions,
            errors=journal.errors,
            seconds=time.monotonic() - began,
            notes=tuple(engine.notes),
            run=outcome,
        )
        text = json.dumps(summary.to_dict(), indent=2) + "\n"
        with writing(folder):
            folder.write(f"{FOLDER}/summary.json", text.encode())
    warn_of_skipped(skipped)
    return summary


def _decide(
    journal: Journal, folder: JobFolder, run: Run | None, when_invalid: str
) -> RunOutcome | None:
    """Say what holds for the run as a whole, and write its decisions where they change by it."""
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Bulk output")
    if run is None:
        return None
    sums = run.sums
    for entry in journal.files:
        with folder.open(entry.file) as file:
            metadata = parquet.read_schema(file).metadata or {}
        if SUMS.encode() not in metadata:
            return None
        sums += RunSums.from_dict(json.loads(metadata[SUMS.encode()]), run.n_classes)
    outcome = run.outcome(sums, when_invalid)
    if not (outcome.invalid or outcome.changes_decisions):
        return outcome
    for entry in journal.files:
        with folder.open(entry.file) as file:
            before = file.read()
        table = parquet.read_table(io.BytesIO(before))
        of_part = RunSums.from_dict(json.loads(table.schema.metadata[SUMS.encode()]), run.n_classes)
        decided = Verdicts(outcome.decide(verdicts_from(table)), run=outcome)
        content = part_content(decided, of_part)
        decisions = Counter(decided.column("decision"))
        written = before == content
        # A run that ended between a file and its line has the one without the other.
        if not written or entry.decisions != decisions:
            journal.replace(entry, content, decisions)
    return outcome


def _first_parts(
    inputs: list[str], settings: dict[str, Any], limits: Limits, skipped: Skipped | None = None
) -> Iterator[Part]:
    size = settings["part_size"]
    shards = image_shards(
        inputs[0] if len(inputs) == 1 else inputs,
        size=size,
        path_column=settings["path_column"],
        image_column=settings["image_column"],
        limits=limits,
        skipped=skipped,
    )
    return (Part(number, shard, 0, size) for number, shard in enumerate(shards))


def _check_done(
    journal: Journal, inputs: list[str], settings: dict[str, Any], limits: Limits
) -> None:
    """Refuse to go on with inputs that are not those of the parts that are done."""
    n_done = journal.n_shards
    if not n_done:
        return
    for part in _first_parts(inputs, settings, limits):
        if part.number >= n_done:
            return
        journal.check(part.number, part.shard)
    if part.number + 1 < n_done:
        raise InputError(
            f"Verdicts on {n_done} pieces of the inputs are there, but now there are only "
            f"{part.number + 1}. Restore the others, or choose another folder."
        )
