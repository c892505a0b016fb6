"""What the command line prints, and where: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trustvlm.text import counted, printable, without_credentials

if TYPE_CHECKING:
    from trustvlm.images import ImageSource, Limits
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.calibration_state import Calibration
    from trustvlm.pipeline.verdict import RunOutcome, Verdicts


# Names of files and classes come from anywhere: a terminal shows them, and obeys none of them.


def say(text: str) -> None:
    """Print a line or several to stdout."""
    typer.echo(printable(text, keep="\n\t"))


def note(message: str, *, quiet: bool = False) -> None:
    """Print a remark to stderr, unless quiet."""
    if not quiet:
        message = printable(without_credentials(message), keep=chr(10))
        sys.stderr.write(f"{message}\n")


def remarks(notes: Iterable[str], *, quiet: bool = False) -> None:
    """Print messages about models and results to stderr, unless quiet."""
    for remark in notes:
        note(f"note: {remark}", quiet=quiet)


def size_of(model: TrustVLM) -> str:
    """Say how many classes and examples a fitted model has."""
    classes = counted(len(model.classes_), "class", "classes")
    return f"{classes}, {counted(len(model.shots_), 'example image')}"


def notes_of(model: TrustVLM) -> list[str]:
    """Say what a user should know of a model each time: whether a gate is there.

    Nothing is said of a gate that was left out on purpose. What the encoders have to say of
    themselves (`encoders.notes`) is said where they are chosen, and in reports, not at every
    command with a fitted model.
    """
    from trustvlm.monitoring.ood import FEWEST_SHOTS

    state, notes = model.state, []
    left_out = state.calibration is not None and state.calibration.gate == "none"
    if not (state.gate.active or left_out):
        notes.append(
            f"with fewer than {FEWEST_SHOTS} examples in classes of two or more there is no "
            "out-of-distribution gate: images of none of the classes are accepted, too, as far as "
            "they resemble one. Give more examples, or name what else there may be with "
            "--other-class"
        )
    return notes


def write_json(
    file: Path | None, content: Mapping[str, Any], of: str, *, quiet: bool = False, indent: int = 2
) -> None:
    """Write JSON to a file, whole or not at all, and say where it is; None writes nothing."""
    if file is None:
        return
    from trustvlm.files import shown_target, write_text

    write_text(file, json.dumps(content, indent=indent, allow_nan=False) + "\n")
    note(f"{of}: {shown_target(file)}", quiet=quiet)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: range = range(0),
    title: str | None = None,
    pipe_width: int | None = None,
) -> None:
    """Print a table to stdout; only columns after those of numbers may be folded.

    `pipe_width` is how wide it may be where stdout is no terminal, which has a width of its own.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, box=None, title_justify="left")
    for i, column in enumerate(columns):
        # Names, before the numbers, have to stay in one piece.
        folds = i >= numbers.stop
        table.add_column(
            column,
            overflow="fold" if folds else "ellipsis",
            justify="right" if i in numbers else "left",
            no_wrap=not folds,
        )
    for row in rows:
        table.add_row(*(escape(printable(cell, keep="\n")) for cell in row))
    console = Console()
    (console if console.is_terminal else Console(width=pipe_width)).print(table)


def show_warnings_plainly() -> None:
    """Show warnings as one line without file names; a user did not write that code."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        from trustvlm.exceptions import TrustVLMWarning

        if issubclass(category, TrustVLMWarning):
            note(f"warning: {message}")

    warnings.showwarning = show


@contextmanager
def progress_bar(
    description: str, *, quiet: bool = False, unit: str = " img/s"
) -> Iterator[Callable[[int, int, int], None] | None]:
    """Yield a progress callback that draws a bar on a terminal, or None where there is no one.

    The bar shows images done, how many came from the store, the rate and the time left.
    A total of 0 means that the total is unknown.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[stored]}"),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None, rate="", stored="")

        def update(done: int, total: int, cached: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=done,
                total=total or None,
                rate=f"{speed:.0f}{unit}" if speed else "",
                stored=f"({cached} from the store)" if cached else "",
            )

        yield update


@contextmanager
def counting_bar(
    description: str, *, quiet: bool = False
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback `(done, total)` that draws a bar on a terminal, or None."""
    with progress_bar(description, quiet=quiet, unit="/s") as update:
        yield None if update is None else lambda done, total: update(done, total, 0)


# Write verdicts where the user wants them, and say what they came to.

NOT_CALIBRATED = "decisions are uncalibrated: no error rate is guaranteed"


def basis_of(calibration: Calibration | None) -> str:
    """Say what the decisions rest on."""
    if calibration is None:
        return NOT_CALIBRATED
    rule = calibration.certificate
    if rule is not None and not rule.certified:
        return "nothing is certified, so everything is reviewed; see trustvlm calibrate"
    return calibration.statement


def write_verdicts(
    verdicts: Verdicts, output: str | Path | None, sort_into: Path | None = None
) -> None:
    """Write to a file by its ending, or CSV to standard output unless pictures are sorted."""
    if output is not None:
        verdicts.write(output)
    elif sort_into is None:
        sys.stdout.write(verdicts.to_csv())


def sort_pictures(
    verdicts: Verdicts,
    images: Callable[[], Iterable[ImageSource]],
    folder: Path | None,
    *,
    symlink: bool,
    limits: Limits,
    quiet: bool = False,
) -> int:
    """Sort the pictures into folders, and say how many; return how many failed.

    `images` lists them anew, in the order of the verdicts; without a folder nothing is done.
    """
    if folder is None:
        return 0
    from trustvlm.pipeline.sorting import INDEX, sort_images

    with counting_bar("sorting", quiet=quiet) as progress:
        result = sort_images(
            verdicts, images(), folder, symlink=symlink, limits=limits, progress=progress
        )
    failed = f", {counted(result.failed, 'picture')} could not be read again" * bool(result.failed)
    linked = f" ({result.linked} of them links)" * bool(result.linked)
    note(
        f"{result.accepted} in accepted/, {result.review} in review/ of {folder}{linked}{failed}; "
        f"see {folder / INDEX}",
        quiet=quiet,
    )
    return result.failed


def say_what_came(
    verdicts: Verdicts,
    notes: Iterable[str],
    *,
    basis: str,
    quiet: bool = False,
    n_failed: int = 0,
) -> None:
    """Count the decisions, and say what they rest on.

    The exit code is 4 if the guarantee does not cover the images, else 3 if some of them failed;
    `n_failed` is of those that could not be sorted.
    """
    remarks(notes, quiet=quiet)
    counts, run = verdicts.decisions(), verdicts.run
    strange = f", {run.out_of_distribution} out-of-distribution" if run else ""
    n_corrected = sum(bool(verdict.corrected) for verdict in verdicts)
    corrected = f", {counted(n_corrected, 'label')} corrected" if n_corrected else ""
    note(
        f"{counted(len(verdicts), 'image')}: {counts['accept']} accept, {counts['review']} review, "
        f"{counts['error']} error{strange}{corrected} ({basis})",
        quiet=quiet,
    )
    first = next((verdict.error for verdict in verdicts if verdict.error), "")
    if first and counts["error"] == len(verdicts):
        note(f"None could be judged: {first}", quiet=quiet)
    if run and run.invalid:
        say_invalid(run)
        raise typer.Exit(4)
    if counts["error"] or n_failed:
        raise typer.Exit(3)


def say_invalid(run: RunOutcome) -> None:
    """Say why the guarantee does not cover a run, however quiet."""
    for problem in run.problems:
        note(f"GUARANTEE INVALID: {problem}")
    note(
        "Accepted labels were kept, but no error rate is guaranteed."
        if run.when_invalid == "keep"
        else "Every label is sent to review; --when-invalid keep leaves the decisions."
    )
    note(
        "Calibrate on labelled images like these; calibrate --per-class holds for any mix of the "
        "predicted classes."
    )
