"""Run the command line in this process, as `trustvlm ARGUMENTS` would."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

import pytest

from trustvlm.cli import main


@dataclass(frozen=True)
class Finished:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


class Command:
    """Callable that runs a command; see `Finished`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, patch

    def __call__(self, *arguments: object) -> Finished:
        self._patch.setattr(sys, "argv", ["trustvlm", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
        captured = self._capsys.readouterr()
        return Finished(code, captured.out, captured.err)
