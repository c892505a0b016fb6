"""The command line, one file per command."""

from trustvlm.cli.app import main

__all__ = ["main"]
