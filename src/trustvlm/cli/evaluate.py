"""`trustvlm evaluate`: how good is the trust, on labelled images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options

if TYPE_CHECKING:
    from trustvlm.pipeline import EvaluationResult


EPILOG = "Example:  trustvlm evaluate pets.trust labelled/ --report report/ --json pets.json"


def evaluate(
    model: options.ModelPath,
    labelled: Annotated[str, options.labelled_argument()],
    *,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write a self-contained page, DIR/index.html, and figures."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, options.json_option("Write metrics and confidences as JSON.")
    ] = None,
    scores: options.Scores = "all",
    convention: options.Convention = "exact",
    exclude_shots: options.ExcludeShots = False,
    columns: options.ColumnOptions,
    group_column: options.GroupColumn = None,
    given: options.GivenLabelOptions,
    device: options.Device = "auto",
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure every score on labelled images that are neither shots nor calibrated on.

    Prints accuracy, AURC, E-AURC, AUGRC, AUROC and FPR95 of each score, lowest AURC first, and
    names a score that would serve better than the model's own, where one is significantly better.
    With --given-labels that is said of the trust in those labels; LABELLED has the true ones.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.shot_quality import examine
    from trustvlm.report import check_report

    options.load_plugins(plugins)
    if report is not None:
        check_report(report)
    given.check()
    trust = TrustVLM.load(model, device=device, limits=bounds.limits())
    labels = given.read(trust, columns.path_column, columns.image_column)
    with console.progress_bar("images", quiet=quiet) as progress:
        result = trust.evaluate(
            labelled,
            scores=options.score_names(scores),
            convention=convention,
            exclude_shots=exclude_shots,
            progress=progress,
            **labels,
            **options.in_groups(columns.named, group_column),
        )
    if report is not None:
        result = replace(result, health=examine(trust.state))
    show(result, report=report, json_file=json_file, quiet=quiet)
    if result.failures:
        raise typer.Exit(3)


def show(
    result: EvaluationResult, *, report: Path | None, json_file: Path | None, quiet: bool
) -> None:
    """Print the table of an evaluation and write the files that were asked for."""
    from rich.console import Console

    from trustvlm.files import shown_target, write_text
    from trustvlm.pipeline.evaluate import evaluation_json
    from trustvlm.report import table, write_figures, write_html

    Console().print(table(result))
    run, statement = result.run, result.guarantee_statement()
    if run is not None:
        for problem in run.problems:
            console.note(f"the guarantee does not cover these images: {problem}", quiet=quiet)
        if run.out_of_distribution:
            console.note(f"{run.out_of_distribution} of {run.n} out-of-distribution", quiet=quiet)
    if result.gate_statement():
        console.note(result.gate_statement(), quiet=quiet)
    if statement is not None:
        console.note(f"guarantee: {statement}", quiet=quiet)
    if result.better is not None:
        console.note(f"note: {result.better}.", quiet=quiet)
    if result.near_copies.pairs:
        console.note(f"warning: {result.near_copies.warning()}", quiet=quiet)
    for failure in result.failures:
        console.note(f"left out: {failure.error}", quiet=quiet)
    if json_file is not None:
        write_text(json_file, evaluation_json(result))
        console.note(f"metrics: {shown_target(json_file)}", quiet=quiet)
    if report is not None:
        page = report / "index.html"
        write_html(result, page)
        write_figures(result, report / "figures")
        console.note(f"report:  {shown_target(page)}", quiet=quiet)
