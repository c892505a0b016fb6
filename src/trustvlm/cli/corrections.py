"""`trustvlm corrections`: what people answered, as labelled images for a better model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import InputError
from trustvlm.files import check_file, local_path, write_text
from trustvlm.text import counted, printable

if TYPE_CHECKING:
    from trustvlm.adapters.annotations import Annotation, Corrections


class Use(StrEnum):
    """What the images are for."""

    SHOTS = "shots"
    CALIBRATION = "calibration"


EPILOG = (
    "Example:  trustvlm corrections pets.feedback.sqlite -o corrected/ --shots shots/  "
    "and then  trustvlm fit corrected/labels.csv -o new.trust --settings-from pets.trust"
    "\n\nFrom a labelling tool:  trustvlm corrections answers.json -o corrections.csv "
    "--verdicts out.csv --image-root photos/"
)


def corrections(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWERS",
            help="The database of `trustvlm serve` (NAME.feedback.sqlite), or what a tool "
            "exported: Label Studio (JSON, JSON-MIN, CSV), CVAT for images 1.1 (XML, zip), COCO's "
            "JSON, FiftyOne (its folder). The kind is recognised.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER|OUT.csv",
            help="Where to write: the table, or a folder for labels.csv and, of a database, "
            "images. A table that you name is replaced, one in a folder is not.",
        ),
    ],
    *,
    use: Annotated[
        Use,
        typer.Option(
            "--as",
            help="shots: all answered images. calibration: only those that are a random sample.",
        ),
    ] = Use.SHOTS,
    model: Annotated[
        str | None,
        typer.Option(help="Whose answers, of a database. [default: the only one there is]"),
    ] = None,
    verdicts: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICTS",
            help="The verdicts that were exported to the tool: every answer must be on one of "
            "their images, whatever folders the tool puts before its name.",
        ),
    ] = None,
    image_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the images are: paths of the table then lead there. [default: paths as the "
            "tool has them]",
        ),
    ] = None,
    url_prefix: Annotated[
        str | None, typer.Option(metavar="URL", help="As it was given to `trustvlm export`.")
    ] = None,
    from_name: Annotated[
        str | None,
        typer.Option(help="What the choices are called in Label Studio. [default: the only ones]"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed that `trustvlm export --sample` had, for --as calibration.")
    ] = 0,
    confirm_unchanged: Annotated[
        bool,
        typer.Option(
            "--confirm-unchanged",
            help="Somebody looked at every image: take predicted labels that were left as they "
            "were (CVAT, COCO, FiftyOne) as right, instead of leaving them out.",
        ),
    ] = False,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="SHOTS", help="List these examples as well, so that `fit` sees old and new."
        ),
    ] = None,
    columns: options.ColumnOptions,
    quiet: options.Quiet = False,
) -> None:
    """Turn answers into labelled images, which `fit` and `calibrate` read.

    Images that were reviewed because they were doubtful make good examples, and no calibration
    data: what is calibrated on them guarantees nothing. `--as calibration` therefore takes, of a
    database, the kept images in random order, up to the first one without an answer; and what a
    tool exported, the images that `trustvlm export --sample` draws, up to the first one without.

    Of several annotators the label counts that most of them gave; images on which they disagree are
    named and left out, and the exit code is 3.
    """
    from trustvlm.images import find_labelled

    local_path(output)
    if not answers.exists():
        raise InputError(f"There is no {answers}; see `trustvlm serve` and `trustvlm export`.")
    examples = []
    for image in find_labelled(shots, **columns.named).refs if shots is not None else ():
        if image.file is None:
            raise InputError(f"Expected --shots to be files on this machine, but got {image.path}.")
        examples.append((image.file, image.label))
    beside = f" and {len(examples)} examples" if examples else ""
    if is_database(answers):
        written = _from_database(answers, output, use, model, examples)
        console.note(f"{written} answered images{beside}: {output / 'labels.csv'}", quiet=quiet)
        return
    from trustvlm.adapters.annotations import (
        corrections_csv,
        decide_labels,
        on_images_of,
        random_sample,
    )
    from trustvlm.pipeline.verdict import Verdicts

    table = output if output.suffix.lower() == ".csv" else output / "labels.csv"
    check_file(table)
    if table != output and table.exists():
        raise InputError(
            f"{table} exists already: name another folder, or the table itself, which replaces it."
        )
    annotations = read_annotations(
        answers, from_name=from_name, path_column=columns.path_column, url_prefix=url_prefix
    )
    exported = None if verdicts is None else Verdicts.read(verdicts)
    if exported is not None:
        annotations = on_images_of(annotations, exported)
    result = decide_labels(annotations, confirm_unchanged=confirm_unchanged)
    if use is Use.CALIBRATION:
        if exported is None:
            raise InputError("Expected --verdicts with --as calibration: which images there were.")
        result = random_sample(result, exported, seed)
    if not result.rows:
        raise InputError(
            f"Expected at least one answer to write, but {answers} has "
            f"{_rest(result) or 'no images with answers'}."
        )
    write_text(table, corrections_csv(result, root=image_root, beside=table.parent, shots=examples))
    n_changed = sum(row.action == "correct" for row in result.rows)
    corrected = f", {n_changed} of them corrected" if any(r.action for r in result.rows) else ""
    rest = _rest(result)
    console.note(
        f"{counted(len(result.rows), 'answered image')}{corrected}{beside}: {table}"
        f"{' (' if rest else ''}{rest}{')' if rest else ''}",
        quiet=quiet,
    )
    if result.undecided:
        for path, why in list(result.undecided.items())[:_NAMED]:
            console.note(f"left out: {printable(path)}: {why}")
        if len(result.undecided) > _NAMED:
            console.note(f"and {len(result.undecided) - _NAMED} more")
        raise typer.Exit(3)


_NAMED = 20


def _rest(result: Corrections) -> str:
    parts = (
        (len(result.skipped), "without an answer"),
        (len(result.unchanged), "with a label that nobody touched; --confirm-unchanged takes them"),
        (len(result.undecided), "without one label"),
    )
    return ", ".join(f"{n} {what}" for n, what in parts if n)


def is_database(answers: Path) -> bool:
    """Whether a file is a database, as `trustvlm serve` keeps answers in."""
    if not answers.is_file():
        return False
    with answers.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def _from_database(
    database: Path,
    output: Path,
    use: Use,
    model: str | None,
    examples: Sequence[tuple[Path, str]],
) -> int:
    """Write the answers of the review page and their images; return how many."""
    from trustvlm.serve.feedback import (
        FeedbackStore,
        model_of_answers,
        random_sample,
        write_labelled,
    )

    store = FeedbackStore(database)
    try:
        name = model_of_answers(store, model, None, "--model")
        rows = store.answers(name) if use is Use.SHOTS else random_sample(store, name)
        return write_labelled(store, rows, output, shots=examples)
    finally:
        store.close()


def read_annotations(
    answers: Path,
    *,
    from_name: str | None = None,
    path_column: str = "path",
    url_prefix: str | None = None,
) -> list[Annotation]:
    """Read what a labelling tool exported; which one it was, the content says.

    Raises
    ------
    InputError
        If it is of another kind, or damaged.
    """
    from trustvlm.adapters.annotations import parse_json, read_bounded
    from trustvlm.adapters.coco import read_coco
    from trustvlm.adapters.cvat import read_cvat
    from trustvlm.adapters.fiftyone import read_fiftyone
    from trustvlm.adapters.label_studio import LOCAL_FILES, read_label_studio
    from trustvlm.images.locations import Location

    if answers.is_dir():
        return read_fiftyone(answers)
    content, name = read_bounded(Location(str(answers))), str(answers)
    start = content[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"<", b"PK")):
        return read_cvat(content, name)
    if start.startswith(b"{"):
        keys = parse_json(content, name).keys()
        if "categories" in keys:
            return read_coco(content, name)
        if "labels" in keys:
            return read_fiftyone(answers)
        raise InputError(
            f"Expected {name!r} to be COCO's JSON (with categories) or labels of FiftyOne, but its "
            f"keys are {', '.join(map(repr, list(keys)[:10])) or 'none'}."
        )
    return read_label_studio(
        content,
        name,
        from_name=from_name,
        path_column=path_column,
        url_prefix=LOCAL_FILES if url_prefix is None else url_prefix,
    )


_HEAD = 100
