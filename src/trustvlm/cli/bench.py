"""`trustvlm bench`: scores compared on the same images and shots, and studies of one question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import UsageError
from trustvlm.text import counted, join_names

if TYPE_CHECKING:
    from trustvlm.benchmark.studies import Study


def print_means(every: Sequence[Mapping[str, Any]], of: str = "") -> None:
    """Print each score's means over the test sets and draws, at the most shots, best AURC first.

    Scores that may change the label or see the whole batch are marked, in ASCII for any terminal.

    Parameters
    ----------
    every
        Rows of the study, as fractions; undefined metrics are None and count for nothing.
    of
        What the rows are of, such as the models' names.
    """
    from trustvlm.tables.metrics import narrow_columns, number
    from trustvlm.tables.scores import CORRECTS, WHOLE_BATCH, signs_of

    if not every:
        return
    largest = max(row["shots"] for row in every)
    rows = [row for row in every if row["shots"] == largest]
    sets, draws = (len({row[key] for row in rows}) for key in ("dataset", "draw"))
    means = {
        score: {
            column.name: column.scale * _mean([r[column.name] for r in rows if r["score"] == score])
            for column in narrow_columns()
        }
        for score in dict.fromkeys(row["score"] for row in rows)
    }
    titles = [f"{c.short_title}{' %' if c.scale == 100 else ''}" for c in narrow_columns()]
    ascii_signs = str.maketrans({CORRECTS: "L", WHOLE_BATCH: "B"})
    marks = {score: signs_of(score).translate(ascii_signs) for score in means}
    console.print_table(
        ["Score", "", *titles],
        [
            [score, marks[score], *(number(value, undefined="-") for value in values.values())]
            for score, values in sorted(means.items(), key=lambda item: _last_if_nan(item[1]))
        ],
        numbers=range(2, 2 + len(titles)),
        title=f"{of + ': ' if of else ''}mean of {counted(sets, 'test set')}, "
        f"{counted(largest, 'shot')}, {counted(draws, 'draw')}",
    )
    if any(marks.values()):
        console.say("L: may change the label; B: sees all images of a test set at once.")


def spoilt_labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the scores whose labels are right less often than the VLM's own, by number of shots.

    Parameters
    ----------
    rows
        Of a study, as fractions; the VLM's own labels are those of `msp`.

    Examples
    --------
    >>> own = {"dataset": "pets", "shots": 1, "draw": 0}
    >>> spoilt_labels([{**own, "score": "msp", "accuracy": 0.7},
    ...                {**own, "score": "trustvlm_star", "accuracy": 0.5}])
    ['trustvlm_star is right less often than the VLM itself: 20.0 points at 1 shot a class']
    """
    sentences = []
    for score in dict.fromkeys(row["score"] for row in rows):
        lost = []
        for shots in sorted({row["shots"] for row in rows}):
            own, vlm = (
                _mean([r["accuracy"] for r in rows if (r["score"], r["shots"]) == (name, shots)])
                for name in (score, "msp")
            )
            if own < vlm:
                lost.append(f"{100 * (vlm - own):.1f} points at {counted(shots, 'shot')} a class")
        if lost:
            sentences.append(f"{score} is right less often than the VLM itself: {', '.join(lost)}")
    return sentences


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else math.nan


def _last_if_nan(means: Mapping[str, float]) -> float:
    return math.inf if math.isnan(means["aurc"]) else means["aurc"]


# `trustvlm bench study`: one question, one figure.

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
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="DIR",
            help="Where to write, into DIR/NAME. [default: studies; of CONFIG.toml, in its folder "
            "of results]",
        ),
    ] = None,
    shots: Annotated[
        str | None, typer.Option(help=f"With arrays: shots per class. [default: {_SHOTS}]")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help=f"With arrays: draws of the shots. [default: {_DRAWS}]"
        ),
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(
            help=f"With arrays: of the metrics, exact or trustvlm. [default: {_CONVENTION}]"
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="The metric that the figures show.")] = "aurc",
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Run studies; the command's own help is made below."""
    options.load_plugins(plugins)
    from dataclasses import replace

    from trustvlm.benchmark.page import write_study_page
    from trustvlm.benchmark.studies.study import StudyRunner, StudySettings
    from trustvlm.tables.metrics import columns_of

    studies = _chosen(name)
    columns_of([metric])
    title = studies[0].title if len(studies) == 1 else "Studies"
    notes: list[str] = []
    failed: list[str] = []
    if support is None:
        from trustvlm.benchmark.config import read_config
        from trustvlm.benchmark.grid import UnreadableDataset, encode_datasets, study_settings
        from trustvlm.embeddings import EmbeddingStore

        config = read_config(_only_config(files, shots, draws, convention))
        settings = replace(study_settings(config), metric=metric)
        runner = StudyRunner(studies, settings, config.out)
        total = len(config.datasets) * len(config.models) * len(config.protocols)
        with console.counting_bar("data sets", quiet=quiet) as progress:
            every = encode_datasets(config, EmbeddingStore(), notes=notes)
            for done, encoded in enumerate(every, 1):
                if isinstance(encoded, UnreadableDataset):
                    failed.append(f"failed: {encoded.dataset.name}: {encoded.error}")
                else:
                    runner.add(encoded)
                if progress is not None:
                    progress(done, total)
        folder = (config.out / "studies" if out is None else out) / name
        title = f"{title}: {config.name}"
    else:
        from trustvlm.benchmark.dataset import EncodedDataset, load_arrays

        numbers = tuple(options.whole_numbers(shots or _SHOTS))
        settings = StudySettings(numbers, draws or _DRAWS, convention or _CONVENTION, metric)
        sets = [load_arrays(file) for file in options.distinct(files)]
        runner = StudyRunner(studies, settings)
        runner.add(EncodedDataset.from_arrays(load_arrays(support), sets, numbers, settings.draws))
        folder = (Path("studies") if out is None else out) / name
        title = f"{title}: {support.stem}"
    page = write_study_page(runner, folder, title=title, notes=notes, cautions=failed)
    for remark in (*notes, *failed, *runner.remarks()):
        console.note(remark, quiet=quiet)
    console.note(f"page, tables, figures, rows: {page}", quiet=quiet)
    if failed:
        raise typer.Exit(3)


def _chosen(name: str) -> list[Study]:
    from trustvlm.benchmark.studies import STUDIES

    if name != "all" and name not in STUDIES:
        raise UsageError(f"Expected a study among {', '.join(STUDIES)}, or all, but got {name!r}.")
    return list(STUDIES.values()) if name == "all" else [STUDIES[name]]


def _only_config(
    files: list[Path], shots: str | None, draws: int | None, convention: str | None
) -> Path:
    if len(files) != 1 or files[0].suffix != ".toml":
        raise UsageError(
            "Expected one CONFIG.toml, or --support TRAIN.npz with the arrays to test on, but got "
            f"{', '.join(map(str, files))} and no --support."
        )
    if any(value is not None for value in (shots, draws, convention)):
        raise UsageError(
            f"Expected --shots, --draws and --convention with arrays only: {files[0]} sets them."
        )
    return files[0]


# `trustvlm bench`: compare scores fairly.


class _ConfigFirst(options.PlainGroup):
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


@app.command(
    cls=options.PlainCommand,
    epilog="Example:  trustvlm bench study.toml  (short for trustvlm bench run study.toml)",
)
def run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The study; see docs/compare-scores.md.")
    ],
    page: Annotated[
        bool,
        typer.Option(
            "--page/--no-page",
            help="Draw the page, its tables and figures, which takes a while with many data sets; "
            "or write the rows alone, and draw it another time from finished cells.",
        ),
    ] = True,
    jobs: options.Jobs = None,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Run a grid of data sets, models, scores, shots and draws from image folders.

    Finished cells are kept in the study's folder, and embeddings in the store: run the same
    command again after an interrupt or a change, and only what is new is computed.
    """
    options.load_plugins(plugins)
    from trustvlm.benchmark.config import read_config
    from trustvlm.benchmark.grid import run_grid
    from trustvlm.benchmark.page import write_page
    from trustvlm.benchmark.results import Results, setting_of, write_rows
    from trustvlm.report import check_report

    study, shared = read_config(config), options.workers(jobs, plugins)
    check_report(study.out)
    with console.counting_bar("cells", quiet=quiet) as progress:
        grid = run_grid(study, workers=shared, on_cell=progress)
    write_rows(grid.rows, study.out)
    failed = [row for row in grid.rows if row.get("error")]
    good = [row for row in grid.rows if not row.get("error")]
    for setting in dict.fromkeys(map(setting_of, good)):
        of_pair = [row for row in good if setting_of(row) == setting]
        protocol, prompt = f"protocol {setting.protocol}", setting.describe_prompt()
        pair = f"{setting.vlm} verified by {setting.vision}"
        print_means(of_pair, ", ".join(filter(None, (pair, protocol, prompt))))
        for sentence in spoilt_labels(of_pair):
            console.note(f"note: {sentence}", quiet=quiet)
    console.remarks(grid.notes, quiet=quiet)
    for message in dict.fromkeys(f"failed: {row['dataset']}: {row['error']}" for row in failed):
        console.note(message, quiet=quiet)
    console.note(f"{grid.computed} cells computed; rows: {study.out / 'rows.jsonl'}", quiet=quiet)
    if good and page:
        results = Results(grid.rows, grid.samples, grid.classes, convention=study.convention)
        written = write_page(
            results,
            study.out,
            title=study.name,
            notes=grid.notes,
            studies={s: grid.studies.sections(s) for s in results.settings},
            workers=shared,
        )
        console.note(f"page, tables, figures: {written}", quiet=quiet)
    elif (earlier := study.out / "index.html").exists():
        console.note(f"note: {earlier} is of an earlier run", quiet=quiet)
    if failed:
        raise typer.Exit(3)


@app.command(
    cls=options.OutputCommand,
    epilog="Example:  trustvlm bench arrays --support pets__train.npz pets__test.npz "
    "--shots 1,4,16 --draws 5 --json pets.json",
)
def arrays(
    tests: Annotated[list[Path], typer.Argument(metavar="TEST.npz", help="The sets to test on.")],
    support: Annotated[
        Path, typer.Option(metavar="TRAIN.npz", help="The set that shots are drawn from.")
    ],
    scores: options.Scores = "all",
    shots: Annotated[str, typer.Option(help='Shots per class, such as "1,2,4,8,16".')] = "16",
    draws: Annotated[
        int, typer.Option(metavar="N", min=1, help="Draws of the shots; 0 is the paper's.")
    ] = 1,
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
    link: options.ProbabilityLink = None,
    convention: options.Convention = "exact",
    json_file: Annotated[Path | None, options.json_option("Write every row as JSON.")] = None,
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
    jobs: options.Jobs = None,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Compare scores from arrays alone; no images, no torch.

    Each .npz file holds logits (n,C), features (n,d), labels (n,), class_names (C,), and
    optionally image_embeddings (n,e), text_embeddings (C,e), and logit_bias of a SigLIP model.
    """
    options.load_plugins(plugins)
    from trustvlm.benchmark import load_arrays, run_study
    from trustvlm.files import atomic_path

    if report is not None:
        from trustvlm.report import check_report

        check_report(report)
    sets = [load_arrays(test) for test in options.distinct(tests)]
    named = options.score_names(scores)
    with console.counting_bar("scores", quiet=quiet) as progress:
        study = run_study(
            load_arrays(support),
            sets,
            scores=named,
            shots=options.whole_numbers(shots),
            draws=draws,
            convention=convention,
            parameters={} if link is None else _linked(named, link),
            preset=_preset(preset, val),
            validation=None if val is None else load_arrays(val),
            workers=options.workers(jobs, plugins),
            progress=progress,
        )
    print_means(study.rows)
    for sentence in spoilt_labels(study.rows):
        console.note(f"note: {sentence}", quiet=quiet)
    rows = {"rows": study.rows, "convention": convention}
    console.write_json(json_file, rows, "rows", quiet=quiet, indent=1)
    if report is not None:
        from trustvlm.benchmark.page import write_page
        from trustvlm.benchmark.results import Classes, Results

        classes = {test.name: Classes(test.labels, test.class_names) for test in sets}
        # All test sets share the shots of one support set: they are one data set.
        one_set = dict.fromkeys(classes, support.stem)
        results = Results(study.rows, study.samples(), classes, convention=convention, sets=one_set)
        console.note(f"page, tables, figures: {write_page(results, report)}", quiet=quiet)
    if verdicts is not None:
        import numpy as np

        arrays_: dict[str, Any] = study.verdict_arrays()
        with atomic_path(verdicts) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays_)
        console.note(f"verdicts: {verdicts}", quiet=quiet)


app.command(
    cls=options.PlainCommand,
    help="Answer one of the questions that reviewers ask of a score: one figure, one table.\n\n"
    + _NAMES
    + "\nFrom image folders: a study's CONFIG.toml says which, and with which models. From "
    "arrays alone: --support TRAIN.npz and the sets to test on.",
    epilog="Example:  trustvlm bench study shift --support pacs__train.npz pacs__test*.npz",
)(study)


def _linked(scores: list[str] | None, link: str) -> dict[str, dict[str, str]]:
    """Give the link to those of the scores, or of all, that take one."""
    from trustvlm.scores import canonical_name, check_parameters, get, names

    takes = [name for name in names() if "link" in get(name).parameters]
    chosen = takes if scores is None else [n for n in map(canonical_name, scores) if n in takes]
    if not chosen:
        raise UsageError(f"--link is for the scores {join_names(takes)}: name one in --scores.")
    for name in chosen:
        check_parameters(name, {"link": link})
    return {name: {"link": link} for name in chosen}


def _preset(preset: str | None, val: Path | None) -> str:
    if val is None and preset in (None, "untuned", "loo"):
        return preset or "untuned"
    if val is not None and preset in (None, "validation"):
        return "validation"
    raise UsageError(
        "Expected --preset untuned, --preset loo or --val VAL.npz, but got "
        f"--preset {preset}{'' if val is None else f' and --val {val}'}."
    )
