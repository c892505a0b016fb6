"""`trustvlm calibrate`: P(correct), and a threshold with a guarantee."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli.console import note, progress_bar
from trustvlm.cli.options import Device, ModelPath, Quiet

if TYPE_CHECKING:
    from trustvlm.pipeline.calibration import Calibration

__all__ = ["add_to", "calibrate"]


def calibrate(
    model: ModelPath,
    labelled: Annotated[
        Path,
        typer.Argument(
            metavar="LABELLED",
            help="Folder of class folders, or CSV with the columns path and label: images like "
            "those to come, and not among the examples.",
        ),
    ],
    risk: Annotated[
        float, typer.Option(help="Most of what is accepted that may be wrong; 0.05 is 5 %.")
    ] = 0.05,
    confidence: Annotated[
        float, typer.Option(help="Probability with which that is guaranteed.")
    ] = 0.95,
    method: Annotated[
        str,
        typer.Option(
            help="fixed_sequence (exact binomial tests), hoeffding_bentkus, bonferroni or "
            "learn_then_test."
        ),
    ] = "fixed_sequence",
    calibrator: Annotated[
        str,
        typer.Option(
            help="For P(correct): smoothed_isotonic, isotonic, platt, beta or venn_abers."
        ),
    ] = "smoothed_isotonic",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="MODEL.trust", help="Where to write. [default: in place]"
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write what was certified as JSON."),
    ] = None,
    exclude_shots: Annotated[
        bool,
        typer.Option(
            "--exclude-shots",
            help="Leave out images that are also among the shots, instead of refusing.",
        ),
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Learn on labelled images which labels can be accepted unseen, and how likely each is right.

    Prints the threshold and what it guarantees, or that none can be certified and how many more
    labelled images that would take; then everything is sent to review. The model keeps it, and
    `predict` and `evaluate` use it.
    """
    from trustvlm.files import write_text
    from trustvlm.pipeline import TrustVLM

    trust = TrustVLM.load(model, device=device)
    with progress_bar("images", quiet=quiet) as progress:
        trust.calibrate(
            labelled,
            risk=risk,
            confidence_level=confidence,
            method=method,
            calibrator=calibrator,
            exclude_shots=exclude_shots,
            progress=progress,
        )
    found = trust.calibration_
    assert found is not None  # noqa: S101 -- it has just been made
    trust.save(output or model)
    _show(found, quiet=quiet)
    for remark in trust.encoders.notes():
        note(f"note: {remark}", quiet=quiet)
    if json_file is not None:
        content = found.to_manifest(len(trust.classes_))
        write_text(json_file, json.dumps(content, indent=2, allow_nan=False) + "\n")
        note(f"certificate: {json_file}", quiet=quiet)
    note(f"{output or model}: calibrated", quiet=quiet)
    if found.unreadable:
        raise typer.Exit(3)


def _show(found: Calibration, *, quiet: bool) -> None:
    from trustvlm.decisions.statements import ASSUMPTION

    right = int(found.correct.sum())
    typer.echo(f"{len(found.labels)} labelled images of {found.dataset}: {right} labels are right.")
    typer.echo(found.certificate.statement())
    if found.certificate.certified:
        note(ASSUMPTION, quiet=quiet)
    else:
        note("Until then predict sends every image to review.", quiet=quiet)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        epilog="Example:  trustvlm calibrate pets.trust labelled/ --risk 0.02 --confidence 0.95"
    )(calibrate)
