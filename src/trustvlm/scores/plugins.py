"""Scores from outside the package: files that register some, and installed entry points."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from trustvlm.exceptions import InputError
from trustvlm.scores.registry import names

__all__ = ["load_installed", "load_plugin"]

_GROUP = "trustvlm.scores"


def load_plugin(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Run a Python file that registers scores; return the names that it added.

    The file is executed: load only files that you trust.

    Raises
    ------
    InputError
        If the file does not exist, fails, or registers nothing.
    """
    path = Path(path)
    before = set(names())
    module_name = f"trustvlm_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"Expected a plugin to be a Python file, but got {str(path)!r}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(f"The plugin {path} fails: {type(error).__name__}: {error}") from error
    added = tuple(name for name in names() if name not in before)
    if not added:
        raise InputError(
            f"The plugin {path} registers no score: decorate a function with "
            "@trustvlm.scores.register(...)."
        )
    return added


def load_installed() -> tuple[str, ...]:
    """Load the scores of installed packages, by their entry points `trustvlm.scores`.

    Raises
    ------
    InputError
        If one of them fails; the message names the package's entry point.
    """
    before = set(names())
    for entry in entry_points(group=_GROUP):
        try:
            entry.load()
        except Exception as error:
            raise InputError(
                f"The entry point {entry.name} = {entry.value} of group {_GROUP} fails: {error}"
            ) from error
    return tuple(name for name in names() if name not in before)
