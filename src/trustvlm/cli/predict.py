"""`trustvlm predict`: one row per image, or any number of images into a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import UsageError
from trustvlm.files import is_stream


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
        raise UsageError(
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
            raise UsageError("--profile is for one worker: Ray's dashboard shows what many do.")
        from trustvlm.bulk.ray_engine import RayEngine

        settings["engine"] = partial(RayEngine, **ray)
    elif engine != "local":
        raise UsageError(f"Expected --engine to be local or ray, but got {engine!r}.")
    profile = Profile()
    with console.progress_bar("images", quiet=quiet) as update:
        summary = predict_in_bulk(
            model,
            inputs,
            output,
            progress=None if update is None else lambda done: update(done, 0, 0),
            profile=profile,
            **settings,
        )
    if profiled:
        console.note("\n".join(profile.lines()))
    # The last one says what decides; what the encoders say was said where they were chosen.
    console.remarks(summary.notes[-1:], quiet=quiet)
    console.note(str(summary), quiet=quiet)
    if summary.run is not None and summary.run.invalid:
        console.say_invalid(summary.run)
        raise typer.Exit(4)
    if summary.decisions.get("error"):
        raise typer.Exit(3)


# The command itself.

EPILOG = "Example:  trustvlm predict pets.trust photos/ -o out.csv"


# Options that only some runs heed, by the names of their parameters.
_OF_FOLDERS = {
    "part_size": "--part-size",
    "retries": "--retries",
    "retry_errors": "--retry-errors",
    "keep_embeddings": "--keep-embeddings",
}
_OF_RAY = {
    "ray_address": "--ray-address",
    "actors": "--actors",
    "cpus_per_actor": "--cpus-per-actor",
    "gpus_per_actor": "--gpus-per-actor",
}


def predict(
    context: typer.Context,
    model: options.ModelPath,
    inputs: options.Inputs,
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.{csv,jsonl,parquet}|FOLDER/",
            help="Where to write; a folder takes any number of images, as Parquet files. "
            "[default: CSV to standard output]",
        ),
    ] = None,
    risk: options.Risk = None,
    prediction_sets: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL",
            help="Add the labels that an image may have, the true one among them with this "
            "probability, such as 0.95.",
        ),
    ] = None,
    set_method: Annotated[
        str, typer.Option(help="Of prediction sets: lac (the smallest), aps or raps.")
    ] = "lac",
    when_invalid: options.WhenInvalid = "review",
    other_classes: options.OtherClasses = None,
    sort_into: options.SortInto = None,
    symlink: options.Symlink = False,
    part_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Into a folder: images in each file, at most.")
    ] = 2048,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Into a folder: new tries of an image that kills a process."
        ),
    ] = 2,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Into a folder: compute files again that have errors."),
    ] = False,
    keep_embeddings: Annotated[
        bool,
        typer.Option("--keep-embeddings", help="Into a folder: use the store, 5 kB an image."),
    ] = False,
    engine: Annotated[
        str, typer.Option(help="Into a folder: local, or ray for several workers or a cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray: a cluster, as HOST:PORT or auto. [default: start one]"
        ),
    ] = None,
    actors: Annotated[
        str, typer.Option(metavar="FEWEST:MOST", help="With --engine ray: workers that Ray starts.")
    ] = "1:8",
    cpus_per_actor: Annotated[
        float, typer.Option(metavar="N", min=0, help="Cores of each of them; may be a fraction.")
    ] = 1.0,
    gpus_per_actor: Annotated[
        float, typer.Option(metavar="N", min=0, help="GPUs of each of them; may be a fraction.")
    ] = 0.0,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Say where the time went, on standard error.")
    ] = False,
    path_column: options.PathColumn = "path",
    image_column: options.ImageColumn = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 32,
    image_seconds: options.ImageSeconds = 60.0,
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Label images and say how far each label can be trusted, whether to accept it, and why.

    Columns: path, label, confidence, p_correct, decision, text_score, image_score, runner_up,
    reason, error, vlm_label (what the vision-language model itself says), corrected (whether the
    examples made the label another one). An image that cannot be read is a row with its error, and
    the exit code is 3. An interrupted run continues where it stopped.

    The images of a calibrated model are compared with those it was calibrated on. If they are of
    another kind, or their classes are mixed otherwise, the guarantee does not cover them: that is
    said, every label is sent to review, and the exit code is 4.

    `-o FOLDER/` is for more images than fit one file: memory does not grow with their number, and
    an image that kills the process becomes a row with an error.
    """
    from trustvlm.embeddings import Profile
    from trustvlm.images import open_images
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.verdict import check_output

    options.load_plugins(plugins)
    limits = bounds.limits(seconds=image_seconds)
    if prediction_sets is None:
        sets = {"set_method": "--set-method"}
        options.refuse_options(context, sets, "goes with --prediction-sets LEVEL.")
    if engine != "ray":
        options.refuse_options(context, _OF_RAY, "is for workers of Ray: say --engine ray, too.")
    if output is not None and is_folder(output):
        if other_classes:
            raise UsageError("For a folder name other classes at fit: trustvlm fit --other-class.")
        if sort_into is not None or symlink:
            raise UsageError(
                "--sort-into and --symlink need all rows at once, and a folder as output is for "
                "more of them than the memory holds: give -o OUT.csv, for a part of the images at "
                "a time if they are too many."
            )
        predict_into_folder(
            model,
            inputs,
            output,
            device=device,
            batch_size=batch_size,
            path_column=path_column,
            image_column=image_column,
            limits=limits,
            part_size=part_size,
            retries=retries,
            retry_errors=retry_errors,
            keep_embeddings=keep_embeddings,
            when_invalid=when_invalid,
            risk=risk,
            prediction_sets=prediction_sets,
            set_method=set_method,
            engine=engine,
            ray={
                "address": ray_address,
                "actors": actor_range(actors),
                "cpus": cpus_per_actor,
                "gpus": gpus_per_actor,
            },
            profiled=profiled,
            quiet=quiet,
        )
        return
    if engine != "local":
        raise UsageError(f"--engine {engine} writes into a folder: give -o FOLDER/.")
    options.refuse_options(context, _OF_FOLDERS, "is for a folder as output: give -o FOLDER/.")
    if output is not None:
        if not Path(output).suffix and not is_stream(output):
            raise UsageError(
                f"Expected the output to end in .csv, .jsonl or .parquet, or in a slash for a "
                f"folder, but got {output!r}."
            )
        check_output(output)
    options.checked_sorting(sort_into, symlink=symlink)
    trust = TrustVLM.load(model, device=device, batch_size=batch_size, limits=limits)
    if risk is not None:
        trust.use_risk(risk)
    if other_classes:
        trust.use_other_classes(other_classes)
    profile = Profile()
    with console.progress_bar("images", quiet=quiet) as progress:
        verdicts = trust.predict(
            inputs,
            path_column=path_column,
            image_column=image_column,
            when_invalid=when_invalid,
            prediction_sets=prediction_sets,
            set_method=set_method,
            progress=progress,
            profile=profile,
        )
    with profile.stage("writing"):
        console.write_verdicts(verdicts, output, sort_into)
        n_failed = console.sort_pictures(
            verdicts,
            lambda: open_images(
                inputs, path_column=path_column, image_column=image_column, limits=limits
            ),
            sort_into,
            symlink=symlink,
            limits=limits,
            quiet=quiet,
        )
    if profiled:
        console.note("\n".join(profile.lines()))
    basis = console.basis_of(trust.calibration_)
    console.say_what_came(
        verdicts, console.notes_of(trust), basis=basis, quiet=quiet, n_failed=n_failed
    )
