"""`trustvlm crossvalidate`: what the examples alone say about scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options

if TYPE_CHECKING:
    from trustvlm.pipeline.cross_validate import CrossValidation


_PLAIN, _TUNED = "trustvlm_star", "trustvlm_star_f"


EPILOG = "Example:  trustvlm crossvalidate pets.trust --folds 4 --json cv.json"


def crossvalidate(
    model: options.ModelPath,
    scores: Annotated[
        str | None,
        typer.Option(
            help='"all", or names such as "msp,knn"; see `trustvlm scores`. '
            f"[default: the model's own, {_PLAIN}, {_TUNED}]"
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            metavar="N", min=2, help="Parts that the examples of each class are dealt to."
        ),
    ] = 4,
    convention: options.Convention = "exact",
    json_file: Annotated[Path | None, options.json_option("Write the metrics as JSON.")] = None,
    device: options.Device = "auto",
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure scores on the model's own examples, each fold judged with the others.

    Says, for instance, whether fine-tuning helps, before any other labelled image is at hand. The
    figures are somewhat too low, since every fold has fewer examples than the model.
    """
    from trustvlm.pipeline import TrustVLM

    options.load_plugins(plugins)
    trust = TrustVLM.load(model, device=device)
    trust.state.for_own_labels()
    chosen = options.score_names(scores) if scores else [trust.score, _PLAIN, _TUNED]
    validated = trust.cross_validate(chosen, folds=folds, convention=convention)
    _print(validated)
    if validated.left_out:
        console.note(
            f"{validated.left_out} examples are the only ones of their class and were not judged.",
            quiet=quiet,
        )
    if {_PLAIN, _TUNED} <= validated.results.keys():
        console.note(_verdict(validated), quiet=quiet)
    console.write_json(json_file, validated.to_dict(), "metrics", quiet=quiet)


def _print(validated: CrossValidation) -> None:
    from trustvlm.tables.metrics import by_aurc, narrow_cells, narrow_columns

    console.print_table(
        ["Score\n", *(f"{column.short_title}\n{column.unit}" for column in narrow_columns())],
        [[name, *narrow_cells(validated.metrics[name])] for name in by_aurc(validated.metrics)],
        numbers=range(1, 1 + len(narrow_columns())),
        title=f"{len(validated.labels)} examples, {validated.folds} folds",
    )


def _verdict(validated: CrossValidation) -> str:
    gain = validated.difference(_TUNED, _PLAIN)
    what = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no different"
    return (
        f"fine-tuning: {100 * gain.difference:+.1f} points of accuracy, 95 % interval "
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}: {what} beyond chance"
    )
