"""`trustvlm monitor`: do incoming images still resemble those the model was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options

if TYPE_CHECKING:
    from trustvlm.pipeline.monitor import DriftReport


_DRIFTED = 4


EPILOG = "Example:  trustvlm monitor pets.trust photos/ --state pets.drift.json"


def monitor(
    model: options.ModelPath,
    inputs: options.Inputs,
    *,
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
            help="Ordinary images, unlabelled, to compare with, on the first run. Repeatable. "
            "[default: the calibration images; without any, the model's examples, each held out]",
        ),
    ] = None,
    false_alarm: Annotated[
        float, typer.Option(help="Bound on the chance of a false alarm, over all runs.")
    ] = 1e-4,
    json_file: Annotated[Path | None, options.json_option("Write the findings as JSON.")] = None,
    path_column: options.PathColumn = "path",
    image_column: options.ImageColumn = None,
    given: options.GivenLabelOptions,
    device: options.Device = "auto",
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Watch whether incoming images still resemble the ordinary ones; run it every night.

    Exit code 4 means that they do not. An alarm stays until a new state file is started. With
    --given-labels the confidence in those labels is watched, too, if the model is calibrated for
    their labeller, or a --reference that has them is named.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline import monitor as watch

    options.load_plugins(plugins)
    given.check()
    trust = TrustVLM.load(model, device=device, limits=bounds.limits())
    labeller = given.labeller(trust, path_column, image_column)
    with console.progress_bar("images", quiet=quiet) as progress:
        drift = watch(
            trust,
            inputs,
            state=state,
            reference=reference or None,
            false_alarm=false_alarm,
            labeller=labeller,
            progress=progress,
            **options.columns(path_column, image_column),
        )
    _show(drift, quiet=quiet)
    console.write_json(json_file, drift.to_dict(), "findings", quiet=quiet)
    if drift.monitor.drifted:
        raise typer.Exit(_DRIFTED)
    if drift.failures:
        raise typer.Exit(3)


def _show(drift: DriftReport, *, quiet: bool) -> None:
    from trustvlm.report.terminal import drift_caution, drift_sentence

    console.say(drift_sentence(drift))
    caution = drift_caution(drift)
    if caution:
        console.note(f"note: {caution}", quiet=quiet)
    for failure in drift.failures:
        console.note(f"left out: {failure.error}", quiet=quiet)
