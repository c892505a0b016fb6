"""`trustvlm bench`: compare scores fairly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trustvlm.cli import study as study_command
from trustvlm.cli.bench_options import (
    Jobs,
    Plugins,
    distinct,
    load_plugins,
    whole_numbers,
    workers,
)
from trustvlm.cli.console import counting_bar, note
from trustvlm.cli.mean_table import print_means
from trustvlm.cli.options import Quiet, split_names
from trustvlm.exceptions import InputError

__all__ = ["app", "arrays", "run"]


class _ConfigFirst(TyperGroup):
    """`bench CONFIG.toml` is short for `bench run CONFIG.toml`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_ConfigFirst,
    help=(
        "Compare confidence scores fairly: the same images, the same shots.\n\n"
        "`trustvlm bench CONFIG.toml` runs a whole grid from image folders; `trustvlm bench "
        "arrays` does the same from arrays alone; `trustvlm bench study` answers one of the "
        "questions that reviewers ask."
    ),
    no_args_is_help=True,
)
study_command.add_to(app)


@app.command(
    epilog="Example:  trustvlm bench study.toml  (short for trustvlm bench run study.toml)"
)
def run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The study; see docs/compare-scores.md.")
    ],
    jobs: Jobs = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Run a grid of data sets, models, scores, shots and draws from image folders.

    Finished cells are kept in the study's folder, and embeddings in the store: run the same
    command again after an interrupt or a change, and only what is new is computed.
    """
    load_plugins(plugins)
    from trustvlm.benchmark.config import read_config
    from trustvlm.benchmark.grid import run_grid
    from trustvlm.benchmark.page import write_page
    from trustvlm.benchmark.results import Results
    from trustvlm.benchmark.rows import write_rows

    study, shared = read_config(config), workers(jobs, plugins)
    with counting_bar("cells", quiet=quiet) as progress:
        grid = run_grid(study, workers=shared, on_cell=progress)
    write_rows(grid.rows, study.out)
    failed = [row for row in grid.rows if row.get("error")]
    good = [row for row in grid.rows if not row.get("error")]
    for pair in dict.fromkeys((row["vlm"], row["vision"], row["protocol"]) for row in good):
        of_pair = [row for row in good if (row["vlm"], row["vision"], row["protocol"]) == pair]
        print_means(of_pair, "{} verified by {}, protocol {}".format(*pair))
    for remark in grid.notes:
        note(f"note: {remark}", quiet=quiet)
    for told in dict.fromkeys(f"failed: {row['dataset']}: {row['error']}" for row in failed):
        note(told, quiet=quiet)
    note(f"{grid.computed} cells computed; rows: {study.out / 'rows.jsonl'}", quiet=quiet)
    if good:
        results = Results(grid.rows, grid.samples, grid.classes, convention=study.convention)
        page = write_page(
            results,
            study.out,
            title=study.name,
            notes=grid.notes,
            studies={s: grid.answers.sections(s) for s in results.settings},
            workers=shared,
        )
        note(f"page, tables, figures: {page}", quiet=quiet)
    if failed:
        raise typer.Exit(3)


@app.command(
    epilog="Example:  trustvlm bench arrays --support pets__train.npz pets__test.npz "
    "--shots 1,4,16 --draws 5 --json pets.json"
)
def arrays(
    tests: Annotated[list[Path], typer.Argument(metavar="TEST.npz", help="The sets to test on.")],
    support: Annotated[
        Path, typer.Option(metavar="TRAIN.npz", help="The set that shots are drawn from.")
    ],
    scores: Annotated[
        str, typer.Option(help='"all", or names such as "msp,trustvlm"; see trustvlm scores.')
    ] = "all",
    shots: Annotated[str, typer.Option(help='Shots per class, such as "1,2,4,8,16".')] = "16",
    draws: Annotated[int, typer.Option(min=1, help="Draws of the shots; 0 is the paper's.")] = 1,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="untuned|loo",
            help="Weight and temperature of TrustVLM: untuned, 1 and 0.01; loo, selected anew for "
            "every draw on its shots, each held out. [default: untuned, or --val]",
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="VAL.npz", help="Select them on this set, neither shots nor tests."),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="Of the metrics: exact, or trustvlm (the released script's rules).")
    ] = "exact",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every row as JSON.")
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Write prediction and confidence of draw 0 and the most shots.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page, tables and figures, DIR/index.html."),
    ] = None,
    jobs: Jobs = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Compare scores from arrays alone; no images, no torch.

    Each .npz file holds logits (n,C), features (n,d), labels (n,), class_names (C,), and
    optionally image_embeddings (n,e) and text_embeddings (C,e).
    """
    load_plugins(plugins)
    from trustvlm.benchmark import load_arrays, run_study
    from trustvlm.files import atomic_path, write_text

    sets = [load_arrays(test) for test in distinct(tests)]
    with counting_bar("scores", quiet=quiet) as progress:
        study = run_study(
            load_arrays(support),
            sets,
            scores=None if scores == "all" else split_names(scores),
            shots=whole_numbers(shots),
            draws=draws,
            convention=convention,
            preset=_preset(preset, val),
            validation=None if val is None else load_arrays(val),
            workers=workers(jobs, plugins),
            progress=progress,
        )
    print_means(study.rows)
    if json_file is not None:
        content = {"rows": study.rows, "convention": convention}
        write_text(json_file, json.dumps(content, indent=1, allow_nan=False) + "\n")
        note(f"rows: {json_file}", quiet=quiet)
    if report is not None:
        from trustvlm.benchmark.page import write_page
        from trustvlm.benchmark.results import Classes, Results

        classes = {test.name: Classes(test.labels, test.class_names) for test in sets}
        results = Results(study.rows, study.samples(), classes, convention=convention)
        note(f"page, tables, figures: {write_page(results, report)}", quiet=quiet)
    if verdicts is not None:
        import numpy as np

        arrays_: dict[str, Any] = study.verdict_arrays()
        with atomic_path(verdicts) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays_)
        note(f"verdicts: {verdicts}", quiet=quiet)


def _preset(preset: str | None, val: Path | None) -> str:
    if val is None and preset in (None, "untuned", "loo"):
        return preset or "untuned"
    if val is not None and preset in (None, "validation"):
        return "validation"
    raise InputError(
        "Expected --preset untuned, --preset loo or --val VAL.npz, but got "
        f"--preset {preset}{'' if val is None else f' and --val {val}'}."
    )
