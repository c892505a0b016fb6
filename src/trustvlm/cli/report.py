"""`trustvlm report`: pages about evaluations that were made before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustvlm.cli import console, options

app = typer.Typer(
    cls=options.PlainGroup,
    help="Compare evaluations that `trustvlm evaluate --json` wrote.",
    no_args_is_help=True,
)


@app.callback()
def _report() -> None:
    pass


@app.command(
    cls=options.OutputCommand,
    epilog="Example:  trustvlm report compare before.json after.json -o comparison.html",
)
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A.json", help="An evaluation, such as that of today's model.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another on the same images.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PAGE.html", help="Write a self-contained page."),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figure of the page as SVG.")
    ] = None,
    json_file: Annotated[Path | None, options.json_option("Write the numbers as JSON.")] = None,
    score: Annotated[
        str | None, typer.Option(help="Score of both. [default: each model's own]")
    ] = None,
    score_a: Annotated[str | None, typer.Option(help="Score of A.json alone.")] = None,
    score_b: Annotated[str | None, typer.Option(help="Score of B.json alone.")] = None,
    resamples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Samples of the paired bootstrap.")
    ] = 2000,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of these samples.")] = 0,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Say whether B is better than A by more than chance, on the images that both have.

    Images are paired by content. Every metric is tested by a paired bootstrap, the labels by
    McNemar's exact test. The same file twice, with --score-a and --score-b, compares two scores.
    """
    options.load_plugins(plugins)
    from rich.console import Console

    from trustvlm.files import write_text
    from trustvlm.report import comparison_page as pages

    comparison = pages.compare_runs(
        pages.read_run(a, score_a or score),
        pages.read_run(b, score_b or score),
        n_resamples=resamples,
        seed=seed,
    )
    Console().print(pages.comparison_table(comparison))
    for sentence in pages.comparison_findings(comparison):
        console.say(sentence)
    for caution in pages.comparison_cautions(comparison):
        console.note(f"note: {caution}", quiet=quiet)
    console.write_json(json_file, comparison.to_dict(), "numbers", quiet=quiet)
    figure = pages.comparison_figure(comparison) if svg is not None else ""
    if svg is not None and figure:
        write_text(svg, f"{figure}\n")
        console.note(f"figure:  {svg}", quiet=quiet)
    if output is not None:
        pages.write_comparison(comparison, output)
        console.note(f"page:    {output}", quiet=quiet)
