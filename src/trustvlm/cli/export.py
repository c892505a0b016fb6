"""`trustvlm export`: verdicts for the tools in which people label images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import InputError, UsageError
from trustvlm.text import counted

if TYPE_CHECKING:
    from trustvlm.pipeline.verdict import Verdict


class Format(StrEnum):
    """Tools, by the files that they read."""

    LABEL_STUDIO = "label-studio"
    CVAT = "cvat"
    COCO = "coco"
    FIFTYONE = "fiftyone"


class Decision(StrEnum):
    """Of which images."""

    REVIEW = "review"
    ACCEPT = "accept"


EPILOG = (
    "Example:  trustvlm export out.csv --format label-studio --only review -o tasks.json"
    "\n\nThe answers come back with  trustvlm corrections ANSWERS -o corrections.csv"
)
_ENDINGS = {Format.LABEL_STUDIO: ".json", Format.CVAT: ".xml", Format.COCO: ".json"}


# Options of one tool, by the names of their parameters.
_OF_LABEL_STUDIO = {
    "url_prefix": "--url-prefix",
    "model_version": "--model-version",
    "from_name": "--from-name",
    "to_name": "--to-name",
}

_OF_FIFTYONE = {"data.json", "labels.json"}


def export(
    context: typer.Context,
    verdicts: Annotated[
        str,
        typer.Argument(
            metavar="VERDICTS",
            help="What predict, verify or label wrote: CSV, JSON Lines, Parquet, or a folder of "
            "Parquet files.",
            show_default=False,
        ),
    ],
    to: Annotated[Format, typer.Option("--format", help="For which tool.", show_default=False)],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="tasks.json for Label Studio, annotations.xml for CVAT, a .json for COCO, a "
            "folder for FiftyOne.",
        ),
    ],
    *,
    only: Annotated[
        Decision | None, typer.Option(help="Leave other images out. [default: all]")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="So many images drawn at random, accepted or not: what is labelled of them can be "
            "used to calibrate.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random sample.")] = 0,
    image_root: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="What the paths of the verdicts are relative to: the folder or the folder of the "
            "table that predict was given. Not for Label Studio, see --url-prefix.",
        ),
    ] = Path(),
    url_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Put before each path for Label Studio, such as https://host/images/ or "
            "s3://bucket/. [default: files it serves from its own disk, /data/local-files/?d=]",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        options.classes_option(
            "A fitted MODEL.trust names its own. [default: those that the verdicts name]"
        ),
    ] = None,
    model_version: Annotated[
        str, typer.Option(help="Who predicted, in Label Studio.")
    ] = "trustvlm",
    from_name: Annotated[
        str, typer.Option(help="What the choices are called in Label Studio.")
    ] = "label",
    to_name: Annotated[
        str, typer.Option(help="What the image is called in Label Studio.")
    ] = "image",
    quiet: options.Quiet = False,
) -> None:
    """Write verdicts as tasks and annotations for Label Studio, CVAT, COCO's JSON or FiftyOne.

    Images stay where they are, the most doubtful come first, and those that could not be read are
    left out. Label Studio gets the labelling set-up beside the tasks, CVAT the list of labels.
    """
    from trustvlm.adapters.annotations import to_review
    from trustvlm.adapters.coco import write_coco
    from trustvlm.adapters.cvat import write_cvat
    from trustvlm.adapters.fiftyone import write_fiftyone
    from trustvlm.adapters.label_studio import LOCAL_FILES, write_label_studio
    from trustvlm.pipeline.verdict import Verdicts

    ending = _ENDINGS.get(to)
    if ending is not None and Path(output).suffix.lower() != ending:
        raise UsageError(f"Expected the output to end in {ending}, but got {output!r}.")
    if only is not None and sample is not None:
        raise UsageError("Give --only or --sample: a sample of one decision is no random one.")
    if sample is None:
        options.refuse_options(context, {"seed": "--seed"}, "goes with --sample.")
    if to is Format.LABEL_STUDIO:
        why = "does not go with Label Studio, which asks for images at URLs: name --url-prefix."
        options.refuse_options(context, {"image_root": "--image-root"}, why)
    else:
        options.refuse_options(context, _OF_LABEL_STUDIO, "is for --format label-studio only.")
    if not image_root.is_dir():
        raise InputError(
            f"Expected --image-root to be the folder of the images, but {str(image_root)!r} is "
            f"{'a file' if image_root.exists() else 'not there'}."
        )
    if to is Format.FIFTYONE and Path(output).is_dir():
        others = sorted({file.name for file in Path(output).iterdir()} - _OF_FIFTYONE)
        if others:
            raise InputError(
                f"Expected a new folder, or one that was exported to before, but {output!r} holds "
                f"{others[0]!r}."
            )
    rows: list[Verdict] = list(Verdicts.read(verdicts))
    n_errors = sum(row.decision == "error" for row in rows)
    names = _names(classes, rows)
    if sample is not None:
        rows = _sampled(rows, sample, seed)
    files: tuple[Path, ...]
    match to:
        case Format.LABEL_STUDIO:
            files = write_label_studio(
                rows,
                output,
                only=only,
                classes=names,
                url_prefix=LOCAL_FILES if url_prefix is None else url_prefix,
                model_version=model_version,
                from_name=from_name,
                to_name=to_name,
            )
        case Format.CVAT:
            files = write_cvat(rows, output, only=only, classes=names, images=image_root)
        case Format.COCO:
            file = write_coco(rows, output, only=only, classes=names, images=image_root)
            files = (file,)
        case Format.FIFTYONE:
            file = write_fiftyone(rows, output, only=only, classes=names, images=image_root)
            files = (file,)
    chosen = len(to_review(rows, only))
    left_out = f", {counted(n_errors, 'image')} that could not be read left out" * bool(n_errors)
    written = " and ".join(map(str, files))
    console.note(f"{counted(chosen, 'image')}: {written}{left_out}", quiet=quiet)


def _names(classes: str | None, rows: list[Verdict]) -> list[str]:
    """Return the classes to choose from."""
    if classes is None:
        from trustvlm.adapters.annotations import classes_in

        return classes_in(rows)
    if Path(classes).is_dir() or classes.rstrip("/").endswith(".trust"):
        from trustvlm.pipeline.state import ModelState

        return list(ModelState.load(classes).classes.labels)
    from trustvlm.images.classes import read_classes

    return list(read_classes(classes).labels)


def _sampled(rows: list[Verdict], n: int, seed: int) -> list[Verdict]:
    from trustvlm.adapters.annotations import random_order

    ordered = random_order(rows, seed)
    if n > len(ordered):
        raise UsageError(f"Expected a sample of at most {len(ordered)} images, but got {n}.")
    return ordered[:n]
