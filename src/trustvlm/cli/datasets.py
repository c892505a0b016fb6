"""`trustvlm datasets`: the sets of the paper, and which of them are on this disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from trustvlm.datasets import DatasetSpec, DatasetStatus, Split


_SPLITS: tuple[Split, ...] = ("train", "val", "test")


EPILOG = (
    "Example:  trustvlm datasets --root /data\n\n"
    "Class names of ImageNet:  trustvlm datasets --classes imagenet > imagenet.txt"
)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the 17 sets of the paper, or with --root, which of them are there and complete.

    The directory layout is that of CoOp and TPT. Images are counted, not opened.
    """
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

    classes_ = imagenet_class_list(name)
    for folder, class_name in zip(classes_.folders, classes_.names, strict=True):
        typer.echo(f"{folder}\t{class_name}")


def _print_catalogue(as_json: bool) -> None:
    from trustvlm.datasets import get, names

    specs = [get(name) for name in names()]
    if as_json:
        typer.echo(json.dumps([asdict(spec) for spec in specs], indent=2, ensure_ascii=False))
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
    _print_table(["set", "classes", *_SPLITS, "folder", "splits"], rows, numbers=range(1, 5))
    typer.echo("\nWith --root DIR: which of them are there. With --json: what to cite, and terms.")


def _folder(spec: DatasetSpec) -> str:
    inside = spec.images or ", ".join(spec.split_folders.values())
    return f"{spec.folder}/{inside}" if inside else spec.folder


def _origin(spec: DatasetSpec) -> str:
    if spec.split_file is not None:
        return spec.split_file
    if spec.layout == "variant lists":
        return "variants.txt, images_variant_*.txt"
    return "" if spec.shots_from == spec.name else f"shots: {spec.shots_from}, train"


def _print_status(root: Path, splits: Path | None, as_json: bool) -> None:
    from trustvlm.datasets import status

    statuses = status(root, splits_dir=splits)
    if as_json:
        typer.echo(json.dumps([_plain(entry) for entry in statuses], indent=2, ensure_ascii=False))
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
    _print_table(["set", "state", *_SPLITS, "folder"], rows, numbers=range(2, 5))
    for entry in statuses:
        if entry.state in ("partial", "counts differ"):
            typer.echo(f"\n{entry.name}: {entry.state}")
            for detail in entry.details:
                typer.echo(f"    {detail}")
    n_complete = sum(entry.state == "complete" for entry in statuses)
    typer.echo(f"\n{n_complete} of {len(statuses)} sets are complete.")


def _count(entry: DatasetStatus, split: Split) -> str:
    if entry.state == "absent" or split not in entry.counts:
        return ""
    count = entry.counts[split]
    return "?" if count is None else str(count)


def _plain(entry: DatasetStatus) -> dict[str, object]:
    from trustvlm.images.references import shown

    folder = None if entry.folder is None else shown(entry.folder)
    return {**asdict(entry), "folder": folder}


def _print_table(columns: list[str], rows: list[list[str]], *, numbers: range) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for i, column in enumerate(columns):
        # Only what stands after the numbers may be folded: names have to stay in one piece.
        folds = i >= numbers.stop
        justify: Literal["right", "left"] = "right" if i in numbers else "left"
        table.add_column(column, overflow="fold", justify=justify, no_wrap=not folds)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    # A pipe has no width that a row would have to fit.
    (console if console.is_terminal else Console(width=200)).print(table)
