"""`trustvlm datasets`: the sets of the paper, and which of them are on this disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from trustvlm.datasets import DatasetStatus, Split

__all__ = ["add_to", "datasets"]

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def datasets(
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder above the sets; says how much of each is there."),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option("--splits", help="Folder of split_zhou_*.json, if not in the sets' folders."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the 17 sets of the paper, or with --root, which of them are there and complete.

    The directory layout is that of CoOp and TPT. Images are counted, not opened.
    """
    if root is None:
        _print_known(as_json)
    else:
        _print_found(root, splits, as_json)


def _print_known(as_json: bool) -> None:
    from trustvlm.datasets import get, names

    specs = [get(name) for name in names()]
    if as_json:
        typer.echo(json.dumps([asdict(spec) for spec in specs], indent=2, ensure_ascii=False))
        return
    rows = []
    for s in specs:
        what = "/".join(part for part in (s.folder, s.images) if part)
        counts = [str(s.counts[split]) if split in s.counts else "" for split in _SPLITS]
        shots = s.shots_from if s.shots_from != s.name else ""
        rows.append([s.name, str(s.n_classes), *counts, what, s.split_file or shots])
    _print_table(
        ["set", "classes", *_SPLITS, "folder", "splits in, or shots from"],
        rows,
        numbers=range(1, 5),
    )
    typer.echo("\nWith --root DIR: which of them are there. With --json: what to cite, and terms.")


def _print_found(root: Path, splits: Path | None, as_json: bool) -> None:
    from trustvlm.datasets import status

    found = status(root, splits_dir=splits)
    if as_json:
        typer.echo(json.dumps([_plain(entry) for entry in found], indent=2, ensure_ascii=False))
        return
    rows = [
        [
            entry.name,
            entry.state,
            *(_count(entry, split) for split in _SPLITS),
            "" if entry.folder is None else entry.folder.relative_to(root.expanduser()).as_posix(),
        ]
        for entry in found
    ]
    _print_table(["set", "state", *_SPLITS, "folder"], rows, numbers=range(2, 5))
    for entry in found:
        if entry.state in ("partial", "counts differ"):
            typer.echo(f"\n{entry.name}: {entry.state}")
            for detail in entry.details:
                typer.echo(f"    {detail}")
    n_complete = sum(entry.state == "complete" for entry in found)
    typer.echo(f"\n{n_complete} of {len(found)} sets are complete.")


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


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example:  trustvlm datasets --root /data")(datasets)
