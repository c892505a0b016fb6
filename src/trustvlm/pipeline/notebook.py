"""Verdicts as a table with pictures, for notebooks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustvlm.images.archives import TAR_EXTENSIONS
from trustvlm.images.locations import Location, is_url
from trustvlm.images.tables import TABLE_EXTENSIONS
from trustvlm.images.thumbnails import thumbnail

if TYPE_CHECKING:
    from trustvlm.pipeline.verdicts import Verdict

__all__ = ["folder_of", "verdicts_html"]

_SHOWN, _SIDE, _WORDS = 20, 64, 300
_HEADS = ("", "image", "label", "confidence", "P(correct)", "decision", "reason")
_CELL = "text-align: left; vertical-align: top; padding: 0.3em 0.6em"


def verdicts_html(rows: Sequence[Verdict], folder: Path | None, title: str) -> str:
    """Return an HTML table of the first 20 verdicts, with small pictures where they can be read.

    Parameters
    ----------
    rows
        Of any number.
    folder
        What the paths of the rows are relative to; None leaves the pictures out.
    title
        What stands above the table.
    """
    heads = "".join(f'<th style="{_CELL}">{head}</th>' for head in _HEADS)
    body = "\n".join(_row(row, folder) for row in rows[:_SHOWN])
    more = f"<p>{len(rows) - _SHOWN:,} more are not shown.</p>" if len(rows) > _SHOWN else ""
    return (
        f"<div><p>{escape(title)}</p>\n<table><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>\n{more}</div>"
    )


def folder_of(source: Any) -> Path | None:
    """Return the folder that the paths of a source are relative to; None if there is none.

    Images within archives and Parquet files, and those of URLs, are no files: another file of the
    same name would be another picture.

    Examples
    --------
    >>> folder_of("no/such/photos.csv").as_posix(), folder_of(["a.jpg", "b.jpg"]).as_posix()
    ('no/such', '.')
    >>> folder_of("photos.tar") is None
    True
    """
    if not isinstance(source, (str, os.PathLike)):
        # An iterator is left for those who read the images.
        items = source if isinstance(source, list | tuple) else ()
        return None if any(_is_no_file(item) for item in items) else Path()
    if _is_no_file(source):
        return None
    path = Path(source)
    if path.is_dir():
        return path
    return path.parent if path.suffix.lower() in TABLE_EXTENSIONS | {".txt"} else Path()


def _is_no_file(item: Any) -> bool:
    if not isinstance(item, (str, os.PathLike)):
        return True
    location = Location(os.fspath(item))
    streamed = location.suffix in TAR_EXTENSIONS | {".parquet"} and not Path(item).is_dir()
    return is_url(location.text) or streamed


def _row(row: Verdict, folder: Path | None) -> str:
    picture = thumbnail(folder / row.path, _SIDE) if folder is not None else ""
    image = f'<img src="{picture}" alt="">' if picture else ""
    cells = (
        _text(row.path),
        _text(row.label),
        _number(row.confidence),
        _number(row.p_correct),
        _text(row.decision),
        _text(row.error or row.reason),
    )
    return (
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in (image, *cells)) + "</tr>"
    )


def _text(text: str) -> str:
    return escape(text if len(text) <= _WORDS else f"{text[:_WORDS]}…")


def _number(value: float) -> str:
    # NaN, which equals nothing, stands for what does not exist.
    return f"{value:.3f}" if value == value else ""
