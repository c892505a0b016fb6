"""`trustvlm datasets`, `scores` and `metrics`: what there is to choose from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trustvlm.cli.console import print_table, say
from trustvlm.cli.options import Plugins, load_plugins

if TYPE_CHECKING:
    from trustvlm.datasets import DatasetSpec, DatasetStatus, Split


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

EPILOGS = {
    "datasets": "Example:  trustvlm datasets --root /data\n\n"
    "Class names of ImageNet:  trustvlm datasets --classes imagenet > imagenet.txt",
    "scores": "Example:  trustvlm scores --json",
    "metrics": "Example:  trustvlm metrics --plugin my_metric.py",
}


def print_json(rows: list[dict[str, Any]], default: Callable[[Any], str] | None = None) -> None:
    """Print rows as JSON; `default` turns what JSON does not have into text."""
    say(json.dumps(rows, indent=2, ensure_ascii=False, default=default))


# `trustvlm datasets`: the sets of the paper, and which of them are on this disk.

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def datasets(
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder above the sets; reports how complete each is."),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option("--splits", help="Folder of split_zhou_*.json, if not in the sets' folders."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="SET",
            help="Print folder and name of every class of ImageNet, or of one of its variants, as "
            "`trustvlm fit --classes FILE` reads them.",
        ),
    ] = None,
    as_json: AsJson = False,
    plugins: Plugins = None,
) -> None:
    """List the 17 sets of the paper, or with --root, which of them are there and complete.

    The directory layout is that of CoOp and TPT. Images are counted, not opened. Sets of your own
    come with --plugin, a TOML file of their facts or a Python file with a reader.
    """
    load_plugins(plugins)
    if classes is not None:
        _print_classes(classes)
        return
    if root is None and splits is not None:
        raise typer.BadParameter("Pass --root too: these are the split files of its sets.")
    if root is None:
        _print_catalogue(as_json)
    else:
        _print_status(root, splits, as_json)


def _print_classes(name: str) -> None:
    from trustvlm.datasets import imagenet_class_list

    classes = imagenet_class_list(name)
    for pair in zip(classes.folders, classes.names, strict=True):
        say("\t".join(pair))


def _print_catalogue(as_json: bool) -> None:
    from trustvlm.datasets import get, names

    specs = [get(name) for name in names()]
    if as_json:
        print_json([{**asdict(spec), "reader": _reader(spec)} for spec in specs])
        return
    rows = [
        [
            s.name,
            str(s.n_classes),
            *(str(s.counts.get(split, "")) for split in _SPLITS),
            _folder(s),
            _origin(s),
        ]
        for s in specs
    ]
    print_table(
        ["set", "classes", *_SPLITS, "folder", "splits"], rows, numbers=range(1, 5), pipe_width=200
    )
    say("\nWith --root DIR: which of them are there. With --json: what to cite, and terms.")


def _reader(spec: DatasetSpec) -> str | None:
    from trustvlm.plugins import origin

    return None if spec.reader is None else origin(spec.reader).get("name", "")


def _folder(spec: DatasetSpec) -> str:
    inside = spec.images or ", ".join(spec.split_folders.values())
    return f"{spec.folder}/{inside}" if inside else spec.folder


def _origin(spec: DatasetSpec) -> str:
    if spec.split_file is not None:
        return spec.split_file
    if spec.layout == "variant lists":
        return "variants.txt, images_variant_*.txt"
    if spec.reader is not None:
        return f"reader: {_reader(spec)}"
    return "" if spec.shots_from == spec.name else f"shots: {spec.shots_from}, train"


def _print_status(root: Path, splits: Path | None, as_json: bool) -> None:
    from trustvlm.datasets import status
    from trustvlm.images.references import shown

    statuses = status(root, splits_dir=splits)
    if as_json:
        print_json([asdict(entry) for entry in statuses], default=shown)
        return
    rows = [
        [
            entry.name,
            entry.state,
            *(_count(entry, split) for split in _SPLITS),
            "" if entry.folder is None else entry.folder.relative_to(root.expanduser()).as_posix(),
        ]
        for entry in statuses
    ]
    print_table(["set", "state", *_SPLITS, "folder"], rows, numbers=range(2, 5), pipe_width=200)
    for entry in statuses:
        if entry.state in ("partial", "counts differ"):
            say(f"\n{entry.name}: {entry.state}")
            for detail in entry.details:
                say(f"    {detail}")
    n_complete = sum(entry.state == "complete" for entry in statuses)
    say(f"\n{n_complete} of {len(statuses)} sets are complete.")


def _count(entry: DatasetStatus, split: Split) -> str:
    if entry.state == "absent" or split not in entry.counts:
        return ""
    count = entry.counts[split]
    return "?" if count is None else str(count)


# `trustvlm scores`: every confidence score there is.

_SCORE_FACTS = (
    "name",
    "needs",
    "optional",
    "sees",
    "corrects",
    "parameters",
    "formula",
    "source",
    "summary",
)


def scores(
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table of what each sees, for a document.")
    ] = False,
    plugins: Plugins = None,
) -> None:
    """List the confidence scores: what each sees and needs, its formula, and where it is from."""
    from trustvlm.plugins import from_where
    from trustvlm.scores import get, names

    load_plugins(plugins)
    entries = [get(name) for name in names()]
    if as_json:
        print_json([{fact: getattr(s, fact) for fact in _SCORE_FACTS} for s in entries])
        return
    if markdown:
        from trustvlm.tables.markup import render_markdown
        from trustvlm.tables.scores import sight_table

        say(render_markdown(sight_table()))
        return
    for s in entries:
        settings = ", ".join(f"{k}={v!r}" for k, v in s.parameters.items())
        say(f"{s.name}" + (f" ({settings})" if settings else ""))
        say(f"    {s.summary}")
        say(f"    {s.formula}")
        say(f"    {s.sight}")
        where = from_where(s.function).replace(" of ", "; registered by ", 1)
        say(f"    needs {', '.join(s.needs)}; {s.complexity}; {s.source}{where}\n")


# `trustvlm metrics`: what tables and studies measure.


def metrics(as_json: AsJson = False, plugins: Plugins = None) -> None:
    """List the metrics of tables and studies: unit, which end is good, and what each means."""
    from trustvlm.metrics import get, names
    from trustvlm.plugins import from_where

    load_plugins(plugins)
    entries = [get(name) for name in names()]
    if as_json:
        facts = ("name", "title", "unit", "higher_is_better", "needs", "meaning")
        print_json([{fact: getattr(entry, fact) for fact in facts} for entry in entries])
        return
    for entry in entries:
        unit = f", in {entry.unit}" if entry.unit else ""
        end = "higher" if entry.higher_is_better else "lower"
        where = "" if entry.function is None else from_where(entry.function)
        say(f"{entry.name} ({entry.title}{unit}; {end} is better)")
        say(f"    {entry.meaning}")
        say(f"    needs {_READS[entry.needs]}{where.replace(' of ', '; registered by ', 1)}\n")


_READS = {
    "order": "the order of the confidences alone",
    "values": "the values of the confidences",
    "probability": "confidences that are probabilities of being right",
}
