"""Scores and encoder backends from outside the package: registries, files, installed packages."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from trustvlm.exceptions import InputError

T = TypeVar("T")

# A package offers what it registers by an entry point in one of these groups, which names a module.
GROUPS = ("trustvlm.scores", "trustvlm.backends")
_registries: list[Registry[Any]] = []
# What each file has added, by kind and name.
_loaded: dict[Path, dict[tuple[str, str], Any]] = {}


class Registry(dict[str, T]):
    """Things by the name under which they were registered, in the order of registration.

    Parameters
    ----------
    kind
        What they are, as error messages call them.

    Examples
    --------
    >>> functions = Registry("function")
    >>> functions.add("largest", max)
    >>> functions.add("largest", min)
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: A function named `largest` is already registered.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        _registries.append(self)

    def add(self, name: str, entry: T) -> None:
        """Register something; `InputError` if the name is taken."""
        if name in self:
            raise InputError(f"A {self.kind} named `{name}` is already registered.")
        self[name] = entry


def load_plugin(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Run a Python file that registers scores or encoder backends; return the names that it added.

    The file is executed: load only files that you trust. A file that is loaded already is not run
    again.

    Raises
    ------
    InputError
        If the file does not exist, fails, or registers nothing.
    """
    path = Path(path)
    file = path.resolve()
    if file in loaded_plugins():
        return tuple(name for _, name in _loaded[file])
    before = _entries()
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
    added = {key: entry for key, entry in _entries().items() if key not in before}
    if not added:
        raise InputError(
            f"The plugin {path} registers no score and no encoder backend: decorate a function "
            "with @trustvlm.scores.register(...) or @trustvlm.models.register_backend(...)."
        )
    _loaded[file] = added
    return tuple(name for _, name in added)


def loaded_plugins() -> tuple[Path, ...]:
    """Return the files that this process has loaded, for processes that it starts."""
    here = _entries()
    return tuple(
        file
        for file, added in _loaded.items()
        if all(here.get(key) is entry for key, entry in added.items())
    )


def load_installed() -> tuple[str, ...]:
    """Load the scores and backends of installed packages, by their entry points.

    The groups are `trustvlm.scores` and `trustvlm.backends`.

    Raises
    ------
    InputError
        If one of them fails; the message names the package's entry point.
    """
    before = _entries()
    for group in GROUPS:
        for entry in entry_points(group=group):
            try:
                entry.load()
            except Exception as error:
                raise InputError(
                    f"The entry point {entry.name} = {entry.value} of group {group} fails: {error}"
                ) from error
    return tuple(key[1] for key in _entries() if key not in before)


def origin(function: Callable[..., Any]) -> dict[str, str]:
    """Say which file or module from outside the package a function comes from; {} for its own.

    Returns
    -------
    dict
        `name`, of a file or of a package's module, and its `sha256`, "" where there is no file to
        read, as for what a running program registered itself.

    Examples
    --------
    >>> origin(load_plugin)
    {}
    """
    module = function.__module__
    if module.partition(".")[0] == __package__:
        return {}
    try:
        file = Path(inspect.getsourcefile(function) or "")
        content = file.read_bytes()
    except (OSError, TypeError):
        return {"name": module, "sha256": ""}
    alone = module.startswith("trustvlm_plugin_")
    return {
        "name": file.name if alone else module,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _entries() -> dict[tuple[str, str], Any]:
    return {
        (registry.kind, name): entry for registry in _registries for name, entry in registry.items()
    }
