"""`trustvlm advise`: look after the examples, and find out which class to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.text import printable

if TYPE_CHECKING:
    from trustvlm.pipeline.shot_quality import ShotAdvice


_SHOWN = 10


EPILOG = "Example:  trustvlm advise pets.trust labelled/ --risk 0.02"


def advise(
    model: options.ModelPath,
    labelled: Annotated[
        str | None, options.labelled_argument(more=": images beside the examples")
    ] = None,
    *,
    risk: Annotated[
        float, typer.Option(help="Share of errors to bear among accepted images.")
    ] = 0.05,
    examples: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many more examples of a class to try.")
    ] = 8,
    json_file: Annotated[Path | None, options.json_option("Write all findings as JSON.")] = None,
    columns: options.ColumnOptions,
    given: options.GivenLabelOptions,
    device: options.Device = "auto",
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Find wrong labels and other trouble among a model's examples, and what to label next.

    With labelled images, some of them are tried as further examples and the others judge: which
    classes gain most, and how much more could be accepted at the same risk.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline import advise as find

    options.load_plugins(plugins)
    given.check()
    trust = TrustVLM.load(model, device=device, limits=bounds.limits())
    labeller = given.labeller(trust, columns.path_column, columns.image_column)
    with console.progress_bar("images, then trials", quiet=quiet, unit="/s") as progress:
        on_trial = None if progress is None else lambda done, most: progress(done, most, 0)
        advised = find(
            trust,
            labelled,
            risk=risk,
            examples=examples,
            labeller=labeller,
            progress=progress,
            on_trial=on_trial,
            **columns.named,
        )
    console.say("\n".join(_lines(advised)))
    if advised.excluded:
        console.note(
            f"{len(advised.excluded)} labelled images left out: they are shots", quiet=quiet
        )
    for failure in advised.failures:
        console.note(f"left out: {failure.error}", quiet=quiet)
    console.write_json(json_file, advised.to_dict(), "findings", quiet=quiet)
    if advised.failures:
        raise typer.Exit(3)


def _lines(advised: ShotAdvice) -> list[str]:
    from trustvlm.report.sections import shot_groups, shot_summary
    from trustvlm.report.terminal import by_examples_alone, by_labelled_images

    shots = advised.shots
    lines = [shot_summary(shots)]
    for group in shot_groups(shots):
        lines += ["", group.title, f"  {group.meaning}"]
        for case in group.cases[:_SHOWN]:
            where = " and ".join(printable(shots.paths[shot]) for shot in case.shots)
            lines.append(f"  - {where}: {case.text}" if where else f"  - {case.text}")
        if len(group.cases) > _SHOWN:
            lines.append(f"  ... and {len(group.cases) - _SHOWN} more; --json lists all")
    advice = advised.advice
    names = shots.class_names
    return [
        *lines,
        "",
        *(
            by_examples_alone(shots.health, names)
            if advice is None
            else by_labelled_images(advice, names)
        ),
    ]
