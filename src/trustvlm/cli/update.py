"""`trustvlm update`: corrections become examples, and the model is compared before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trustvlm.cli import console, options
from trustvlm.cli.corrections import is_database
from trustvlm.exceptions import InputError, UsageError
from trustvlm.text import counted

if TYPE_CHECKING:
    from trustvlm.images import ClassList
    from trustvlm.pipeline.update import Update

EPILOG = "Example:  trustvlm update pets.trust pets.feedback.sqlite -o pets-updated.trust"


def update(
    model: options.ModelPath,
    corrections: Annotated[
        str,
        typer.Argument(
            metavar="CORRECTIONS",
            help="Folder of class folders, or a CSV, JSON Lines or Parquet file with the columns "
            "path and label, as `trustvlm corrections` writes; or NAME.feedback.sqlite, the "
            "answers themselves.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="NEW.trust", help="Where to write.")
    ],
    *,
    hold_out: Annotated[
        float,
        typer.Option(
            metavar="N",
            min=0,
            max=0.5,
            help="Share of the corrections that is held back at a time, to compare the model "
            "before and after; the new one learns from all of them. 0 compares nothing.",
        ),
    ] = 0.3,
    compare_on: Annotated[
        str | None,
        typer.Option(
            metavar="LABELLED",
            help="Compare on other labelled images instead, best a random sample of those to come.",
        ),
    ] = None,
    calibrate_on: Annotated[
        str | None,
        typer.Option(
            metavar="LABELLED",
            help="Renew the calibration on these, a random sample of images to come. [default: the "
            "images it was calibrated on, as the model holds them]",
        ),
    ] = None,
    even_if_worse: Annotated[
        bool,
        typer.Option(
            "--even-if-worse", help="Write the new model even if it is significantly worse."
        ),
    ] = False,
    answers_of: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Whose answers, where CORRECTIONS holds those of several models. "
            "[default: by the name of MODEL.trust]",
        ),
    ] = None,
    json_file: Annotated[Path | None, options.json_option("Write the comparison as JSON.")] = None,
    columns: options.ColumnOptions,
    group_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column, of the tables to compare or calibrate on, of what images have in common "
            "that are not independent of each other; every group counts once. [default: for "
            "--calibrate-on, that of the calibration before]",
        ),
    ] = None,
    device: options.Device = "auto",
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    overwrite: options.OverwriteSource = False,
    quiet: options.Quiet = False,
) -> None:
    """Make corrections further examples of a model; says what that changes, before it is written.

    The model keeps its examples and all settings. Its calibration is renewed, on images that never
    become examples, or dropped, and that is said. If the new model is significantly worse on
    images that were held back, nothing is written.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.update import worse_model

    options.load_plugins(plugins)
    if group_column is not None and compare_on is None and calibrate_on is None:
        raise UsageError("--group-column is of the tables of --compare-on and --calibrate-on.")
    lost = options.check_successor(model, output, overwrite=overwrite)
    trust = TrustVLM.load(model, device=device, limits=bounds.limits())
    with (
        _opened(corrections, model, answers_of, trust.classes_) as images,
        console.counting_bar("update", quiet=quiet) as steps,
    ):
        updated, report = trust.update(
            images,
            hold_out=hold_out,
            compare_on=compare_on,
            calibrate_on=calibrate_on,
            even_if_worse=True,
            steps=steps,
            **options.in_groups(columns.named, group_column),
        )
    show(report, output, quiet=quiet)
    console.write_json(json_file, report.to_dict(), "comparison", quiet=quiet)
    if report.worse and not even_if_worse:
        raise worse_model(report)
    updated.save(output, overwrite=overwrite)
    console.remarks(filter(None, [lost]), quiet=quiet)
    console.note(f"{output}: {console.size_of(updated)}, score {updated.state.score}", quiet=quiet)
    if report.failures:
        raise typer.Exit(3)


@contextmanager
def _opened(corrections: str, model: Path, name: str | None, classes: ClassList) -> Iterator[Any]:
    """Yield corrections as `TrustVLM.update` takes them; a database of answers stays open."""
    if not (corrections.endswith(".sqlite") or is_database(Path(corrections))):
        if name is not None:
            raise UsageError(
                "Expected --answers-of with NAME.feedback.sqlite as CORRECTIONS, but got "
                f"{corrections!r}."
            )
        yield corrections
        return
    from trustvlm.serve.feedback import FeedbackStore, labelled_answers, model_of_answers

    if not is_database(Path(corrections)):
        raise InputError(f"There is no feedback database {corrections}; see `trustvlm serve`.")
    store = FeedbackStore(Path(corrections))
    try:
        chosen = model_of_answers(store, name, model, "--answers-of")
        images, left_out = labelled_answers(store, chosen, classes)
        if left_out:
            console.note(f"warning: {left_out}")
        yield images
    finally:
        store.close()


def show(report: Update, output: Path, *, quiet: bool) -> None:
    """Print what an update did, and the comparison."""
    changed = f", {report.relabelled} of the others relabelled" if report.relabelled else ""
    console.say(
        f"{counted(report.added, 'correction')} added to "
        f"{counted(report.shots_before, 'example')}{changed}."
    )
    for failure in report.failures:
        console.note(f"warning: left out: {failure}")
    for comparison in report.comparisons:
        console.say(f"{comparison.statement}.")
    if report.calibration != "none":
        statement = report.calibration_statement.replace("NEW.trust", str(output))
        console.say(f"Calibration {report.calibration}: {statement}")
    console.remarks(report.notes, quiet=quiet)
