"""`trustvlm bench study`: one question, one figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli.bench_options import Plugins, distinct, load_plugins, whole_numbers
from trustvlm.cli.console import counting_bar, note
from trustvlm.cli.options import Quiet
from trustvlm.exceptions import InputError

if TYPE_CHECKING:
    from trustvlm.benchmark.studies import Study

__all__ = ["add_to", "study"]

_SHOTS, _DRAWS, _CONVENTION = "1,2,4,8,16", 5, "exact"
_NAMES = """NAME is one of

* **modalities**: text only, image only, both
* **shots**: how many it takes, with the spread over draws
* **sensitivity**: how much weight and temperature matter (on test images: not a way to choose)
* **encoders**: which encoder verifies which model
* **shift**: shots of one domain, test images of another
* **missing**: classes without any shot
* **gain**: accuracy gained by TrustVLM* at equal coverage
* **all** of these
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        help="Answer one of the questions that reviewers ask of a score: one figure, one table.\n\n"
        + _NAMES
        + "\nFrom image folders: a study's CONFIG.toml says which, and with which models. From "
        "arrays alone: --support TRAIN.npz and the sets to test on.",
        epilog="Example:  trustvlm bench study shift --support pacs__train.npz pacs__test*.npz",
    )(study)


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which study, or all.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="CONFIG.toml | TEST.npz", help="What to study.")
    ],
    support: Annotated[
        Path | None,
        typer.Option(metavar="TRAIN.npz", help="The arrays that shots are drawn from."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; a folder of results by default."),
    ] = None,
    shots: Annotated[
        str | None, typer.Option(help=f"With arrays: shots per class, {_SHOTS} by default.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help=f"With arrays: draws, {_DRAWS} by default.")
    ] = None,
    convention: Annotated[
        str | None, typer.Option(help=f"With arrays: of the metrics, {_CONVENTION} by default.")
    ] = None,
    metric: Annotated[str, typer.Option(help="The metric that the figures show.")] = "aurc",
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Run studies; the command's own help is made above."""
    load_plugins(plugins)
    from dataclasses import replace

    from trustvlm.benchmark.metric_columns import columns_of
    from trustvlm.benchmark.studies import Plan
    from trustvlm.benchmark.studies.answering import Answers
    from trustvlm.benchmark.studies.arrays import material_of
    from trustvlm.benchmark.studies.pages import write_answers

    studies = _chosen(name)
    columns_of([metric])
    title = studies[0].title if len(studies) == 1 else "Studies"
    notes: list[str] = []
    failed: list[str] = []
    if support is None:
        from trustvlm.benchmark.config import read_config
        from trustvlm.benchmark.grid import plan_of
        from trustvlm.benchmark.material import Unavailable, materials
        from trustvlm.embeddings import EmbeddingStore

        config = read_config(_only_config(files, shots, draws, convention))
        answers = Answers(studies, replace(plan_of(config), metric=metric), config.out)
        total = len(config.datasets) * len(config.models) * len(config.protocols)
        with counting_bar("data sets", quiet=quiet) as progress:
            for done, found in enumerate(materials(config, EmbeddingStore(), notes=notes), 1):
                if isinstance(found, Unavailable):
                    failed.append(f"failed: {found.dataset.name}: {found.error}")
                else:
                    answers.add(found)
                if progress is not None:
                    progress(done, total)
        folder = (config.out / "studies" if out is None else out) / name
        title = f"{title}: {config.name}"
    else:
        from trustvlm.benchmark import load_arrays

        numbers = whole_numbers(shots or _SHOTS)
        plan = Plan(tuple(numbers), draws or _DRAWS, convention or _CONVENTION, metric)
        sets = [load_arrays(file) for file in distinct(files)]
        answers = Answers(studies, plan)
        answers.add(material_of(load_arrays(support), sets, plan.shots, plan.draws))
        folder = (Path("studies") if out is None else out) / name
        title = f"{title}: {support.stem}"
    page = write_answers(answers, folder, title=title, notes=notes, cautions=failed)
    for remark in (*notes, *failed, *answers.remarks()):
        note(remark, quiet=quiet)
    note(f"page, tables, figures, rows: {page}", quiet=quiet)
    if failed:
        raise typer.Exit(3)


def _chosen(name: str) -> list[Study]:
    from trustvlm.benchmark.studies import STUDIES

    if name != "all" and name not in STUDIES:
        raise InputError(f"Expected a study among {', '.join(STUDIES)}, or all, but got {name!r}.")
    return list(STUDIES.values()) if name == "all" else [STUDIES[name]]


def _only_config(
    files: list[Path], shots: str | None, draws: int | None, convention: str | None
) -> Path:
    if len(files) != 1 or files[0].suffix != ".toml":
        raise InputError(
            "Expected one CONFIG.toml, or --support TRAIN.npz with the arrays to test on, but got "
            f"{', '.join(map(str, files))} and no --support."
        )
    if any(value is not None for value in (shots, draws, convention)):
        raise InputError(
            f"Expected --shots, --draws and --convention with arrays only: {files[0]} sets them."
        )
    return files[0]
