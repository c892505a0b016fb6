"""The command line, one file per command."""

from __future__ import annotations

from trustvlm.cli.app import main

__all__ = ["main"]
