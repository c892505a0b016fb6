"""`trustvlm corrections`: what people answered, as labelled images for a better model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import InputError


class Use(StrEnum):
    """What the images are for."""

    SHOTS = "shots"
    CALIBRATION = "calibration"


EPILOG = (
    "Example:  trustvlm corrections pets.feedback.sqlite -o corrected/ --shots shots/  "
    "and then  trustvlm fit corrected/labels.csv -o pets.trust --overwrite"
)


def corrections(
    database: Annotated[
        Path,
        typer.Argument(metavar="NAME.feedback.sqlite", help="The database of `trustvlm serve`."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where to write images and labels.csv."
        ),
    ],
    use: Annotated[
        Use,
        typer.Option(
            "--as",
            help="shots: all answered images. calibration: only those that are a random sample.",
        ),
    ] = Use.SHOTS,
    model: Annotated[
        str | None, typer.Option(help="Of which model. [default: the only one there is]")
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="SHOTS", help="List these examples as well, so that `fit` sees old and new."
        ),
    ] = None,
    path_column: options.PathColumn = "path",
    label_column: options.LabelColumn = "label",
    image_column: options.ImageColumn = None,
    quiet: options.Quiet = False,
) -> None:
    """Turn answers into labelled images, which `fit` and `calibrate` read.

    Images that were reviewed because they were doubtful make good examples, and no calibration
    data: what is calibrated on them guarantees nothing. `--as calibration` therefore takes the kept
    images in random order, up to the first one without an answer.
    """
    from trustvlm.files import local_path
    from trustvlm.images import find_labelled
    from trustvlm.serve.feedback import FeedbackStore, random_sample, write_labelled

    local_path(output)
    if not database.is_file():
        raise InputError(f"There is no feedback database {database}; see `trustvlm serve`.")
    examples = []
    columns = options.columns(path_column, image_column, label_column)
    for image in find_labelled(shots, **columns).refs if shots is not None else ():
        if image.file is None:
            raise InputError(f"Expected --shots to be files on this machine, but got {image.path}.")
        examples.append((image.file, image.label))
    store = FeedbackStore(database)
    try:
        names = sorted({row["model"] for row in store.answers()})
        if model is None and len(names) != 1:
            raise InputError(
                f"Expected answers of one model in {database}, but there are those of "
                f"{', '.join(names) or 'none'}. Name one with --model."
            )
        name = names[0] if model is None else model
        rows = store.answers(name) if use is Use.SHOTS else random_sample(store, name)
        written = write_labelled(store, rows, output, shots=examples)
    finally:
        store.close()
    beside = f" and {len(examples)} examples" if examples else ""
    console.note(f"{written} answered images{beside}: {output / 'labels.csv'}", quiet=quiet)
