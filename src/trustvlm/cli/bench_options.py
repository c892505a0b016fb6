"""Options that the benchmark's commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.exceptions import InputError

if TYPE_CHECKING:
    from trustvlm.benchmark.workers import Workers

__all__ = ["Jobs", "Plugins", "distinct", "load_plugins", "whole_numbers", "workers"]

Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE.py", help="A Python file that registers scores; it is executed."
    ),
]

Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that share the work; results do not depend on it. [default: one a core]",
    ),
]


def distinct(tests: list[Path]) -> list[Path]:
    """Return files whose names tell them apart.

    Raises
    ------
    InputError
        If two have one stem, by which rows name their data set.
    """
    stems = [test.stem for test in tests]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise InputError(
            f"Expected test files with distinct names, but these repeat: {', '.join(twice)}."
        )
    return tests


def whole_numbers(text: str) -> list[int]:
    """Read a list such as `1,2,4`, ascending.

    Examples
    --------
    >>> whole_numbers("4,1,4")
    [1, 4]
    """
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"Expected --shots such as 1,2,4,8,16, but got {text!r}.") from error


def load_plugins(plugins: list[Path] | None) -> None:
    """Register the scores of installed packages, and of files."""
    from trustvlm.scores.plugins import load_installed, load_plugin

    load_installed()
    for plugin in plugins or []:
        load_plugin(plugin)


def workers(jobs: int | None, plugins: list[Path] | None) -> Workers:
    """Return who computes the cells; one process a core unless a number is given."""
    from trustvlm.benchmark.workers import Workers
    from trustvlm.cores import usable_cores

    return Workers(jobs or usable_cores(), tuple(plugins or ()))
