"""`trustvlm cache`: what is stored between runs, and how to make room."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from trustvlm.cli.console import say
from trustvlm.cli.options import PlainCommand, PlainGroup
from trustvlm.exceptions import UsageError

app = typer.Typer(
    cls=PlainGroup,
    help=(
        "Show, prune or clear the stored embeddings.\n\n"
        "Embeddings are kept under the hash of image, model and preprocessing, so that an image "
        "need not go through the same encoder again. TRUSTVLM_CACHE names another folder."
    ),
    no_args_is_help=True,
)


@app.command(cls=PlainCommand, epilog="Example:  trustvlm cache show")
def show() -> None:
    """Show where the store is, how large it is, and what each encoder holds."""
    from trustvlm.embeddings import EmbeddingStore

    with EmbeddingStore() as store:
        stats = store.stats()
    say(f"{stats.path}: {stats.entries} embeddings, {_bytes(stats.file_bytes)} on disk")
    for encoder in stats.encoders:
        day = datetime.fromtimestamp(encoder.last_used, UTC).date()
        say(
            f"  {encoder.fingerprint[:12]}  {encoder.spec}: {encoder.entries} embeddings, "
            f"{_bytes(encoder.bytes)}, last used {day}"
        )


@app.command(
    cls=PlainCommand, epilog="Example:  trustvlm cache prune --older-than 30d --max-size 5GB"
)
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Remove what was not used for so long: 30d, 12h."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Then remove the least recently used down to 5GB."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Only embeddings of this encoder: its name, or how its hash begins."),
    ] = None,
) -> None:
    """Remove stored embeddings that are old, too many, or of one encoder."""
    from trustvlm.embeddings import EmbeddingStore

    with EmbeddingStore() as store:
        removed = store.prune(
            older_than=None if older_than is None else parse_age(older_than),
            max_bytes=None if max_size is None else parse_size(max_size),
            encoder=encoder,
        )
    say(f"{removed} embeddings removed")


@app.command(cls=PlainCommand, epilog="Example:  trustvlm cache clear --yes")
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove every stored embedding; the next run computes them anew."""
    from trustvlm.embeddings import EmbeddingStore

    with EmbeddingStore() as store:
        if not yes:
            typer.confirm(f"Remove all {store.stats().entries} embeddings?", abort=True)
        say(f"{store.clear()} embeddings removed")


def parse_age(text: str) -> timedelta:
    """Read an age such as `30d`, `12h` or `15m`.

    Examples
    --------
    >>> parse_age("30d").days
    30
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([dhm])", text.strip().lower())
    if match is None:
        raise UsageError(f"Expected an age such as 30d, 12h or 15m, but got {text!r}.")
    unit = {"d": "days", "h": "hours", "m": "minutes"}[match[2]]
    return timedelta(**{unit: float(match[1])})


def parse_size(text: str) -> int:
    """Read a size in bytes such as `5GB` or `200MB`; units are powers of 1000.

    Examples
    --------
    >>> parse_size("1.5kB")
    1500
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise UsageError(f"Expected a size such as 5GB or 200MB, but got {text!r}.")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2] or " "))


def _bytes(size: int) -> str:
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
