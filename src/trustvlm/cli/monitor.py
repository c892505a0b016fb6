"""`trustvlm monitor`: do incoming images still resemble those the model was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli.console import note, progress_bar, say, write_json
from trustvlm.cli.options import (
    MAX_ARCHIVE_MEMBERS,
    MAX_PIXELS,
    ConfidenceColumn,
    Device,
    GivenColumn,
    GivenLabels,
    ImageColumn,
    MaxArchiveBytes,
    MaxArchiveMembers,
    MaxPixels,
    ModelPath,
    PathColumn,
    Plugins,
    Probabilities,
    Quiet,
    Synonyms,
    UnknownLabels,
    columns,
    limits,
    load_plugins,
    read_given,
    read_synonyms,
)

if TYPE_CHECKING:
    from trustvlm.pipeline.monitor import DriftReport


_DRIFTED = 4


EPILOG = "Example:  trustvlm monitor pets.trust photos/ --state pets.drift.json"


def monitor(
    model: ModelPath,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Incoming images: images, folders, CSVs with the column path, or text files.",
        ),
    ],
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Go on from this file, and keep the state there; images seen before are left out.",
        ),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Ordinary images, unlabelled, to compare with; repeatable, on the first run. "
            "[default: the calibration images; without any, the model's examples, each held out]",
        ),
    ] = None,
    false_alarm: Annotated[
        float, typer.Option(help="Bound on the chance of a false alarm, over all runs.")
    ] = 1e-4,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON.")
    ] = None,
    path_column: PathColumn = "path",
    image_column: ImageColumn = None,
    given_labels: GivenLabels = None,
    given_column: GivenColumn = "label",
    confidence_column: ConfidenceColumn = "label_confidence",
    probabilities: Probabilities = False,
    synonyms: Synonyms = None,
    unknown_labels: UnknownLabels = "review",
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    max_archive_bytes: MaxArchiveBytes = None,
    max_archive_members: MaxArchiveMembers = MAX_ARCHIVE_MEMBERS,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Watch whether incoming images still resemble the ordinary ones; run it every night.

    Exit code 4 means that they do not. An alarm stays until a new state file is started. With
    --given-labels the confidence in those labels is watched, too, if the model is calibrated for
    their labeller, or a --reference that has them is named.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline import monitor as watch

    load_plugins(plugins)
    meant = read_synonyms(synonyms)
    trust = TrustVLM.load(
        model,
        device=device,
        limits=limits(
            max_pixels, max_archive_bytes=max_archive_bytes, max_archive_members=max_archive_members
        ),
    )
    given = read_given(
        given_labels,
        trust,
        path_column,
        image_column,
        given_column,
        confidence_column,
        probabilities=probabilities,
    )
    with progress_bar("images", quiet=quiet) as progress:
        drift = watch(
            trust,
            inputs,
            state=state,
            reference=reference or None,
            false_alarm=false_alarm,
            labeller=trust.labeller(given, meant, unknown_labels),
            progress=progress,
            **columns(path_column, image_column),
        )
    _show(drift, quiet=quiet)
    write_json(json_file, drift.to_dict(), "findings", quiet=quiet)
    if drift.monitor.drifted:
        raise typer.Exit(_DRIFTED)
    if drift.failures:
        raise typer.Exit(3)


def _show(drift: DriftReport, *, quiet: bool) -> None:
    from trustvlm.report.terminal import drift_caution, drift_sentence

    say(drift_sentence(drift))
    caution = drift_caution(drift)
    if caution:
        note(f"note: {caution}", quiet=quiet)
    for failure in drift.failures:
        note(f"left out: {failure.error}", quiet=quiet)
