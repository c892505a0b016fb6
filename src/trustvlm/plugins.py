"""Scores, metrics, encoders and data sets from outside: registries, files, installed packages."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from trustvlm.exceptions import InputError, PluginError, TrustVLMError, TrustVLMWarning

T = TypeVar("T")

# A package offers what it registers by an entry point in one of these groups, which names a module.
GROUPS = ("trustvlm.scores", "trustvlm.metrics", "trustvlm.backends", "trustvlm.datasets")
_registries: list[Registry[Any]] = []
# What each file has added, by kind and name.
_loaded: dict[Path, dict[tuple[str, str], Any]] = {}
# What the last look at installed packages could not load.
_failures: list[str] = []


class Registry(dict[str, T]):
    """Things by the name under which they were registered, in the order of registration.

    Parameters
    ----------
    kind
        What they are, as error messages call them.
    maker
        Names the function that an entry was made of, which says where it is from; by default the
        entry itself.

    Examples
    --------
    >>> functions = Registry("function")
    >>> functions.add("max", max)
    >>> functions.add("max", min)
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: A function named `max` is already registered: choose another.
    """

    def __init__(self, kind: str, maker: Callable[[T], Callable[..., Any] | None] | None = None):
        super().__init__()
        self.kind = kind
        self._maker = maker
        _registries.append(self)

    def add(self, name: str, entry: T) -> None:
        """Register something; `InputError` if the name is taken."""
        if name in self:
            article = "An" if self.kind[0] in "aeiou" else "A"
            raise InputError(
                f"{article} {self.kind} named `{name}` is already registered: choose another."
            )
        self[name] = entry

    def from_outside(self) -> dict[str, T]:
        """Return what was registered from outside this package."""
        return {name: entry for name, entry in self.items() if self._is_outside(entry)}

    def _is_outside(self, entry: Any) -> bool:
        function = entry if self._maker is None else self._maker(entry)
        return function is not None and not is_own(function)


def load_plugin(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Run a Python file that registers scores, metrics, encoders or data sets; return their names.

    The file is executed: load only files that you trust. A file that is loaded already is not run
    again. Of a file that fails nothing stays registered.

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
    # Two files may have one name; what a class is from is looked up by its module.
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    module_name = f"trustvlm_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"Expected a plugin to be a Python file, but got {str(path)!r}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module_name, None)
        _remove_all_but(before)
        raise InputError(f"The plugin {path} fails: {_describe(error)}") from error
    added = {key: entry for key, entry in _entries().items() if key not in before}
    if not added:
        raise InputError(
            f"The plugin {path} registers no score, metric, encoder backend or data set: decorate "
            "a function with @trustvlm.scores.register(...), @trustvlm.metrics.register(...), "
            "@trustvlm.models.register_backend(...) or @trustvlm.datasets.register(...)."
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
    """Load what installed packages register, by their entry points in `GROUPS`.

    One that fails takes nothing else down: nothing of it stays registered, and whoever asks for a
    name that is not registered learns of it, by `describe_failures`.

    Returns
    -------
    tuple of str
        The names that were added.

    Warns
    -----
    TrustVLMWarning
        For each that fails, once, which names its entry point and package.
    """
    before, earlier = _entries(), set(_failures)
    _failures.clear()
    for group in GROUPS:
        for entry in entry_points(group=group):
            already = _entries()
            try:
                entry.load()
            except (Exception, SystemExit) as error:
                _remove_all_but(already)
                message = (
                    f"The entry point `{entry.name} = {entry.value}` of {_package(entry)}, group "
                    f"{group}, fails: {_describe(error)}"
                )
                _failures.append(message)
                if message not in earlier:
                    warnings.warn(f"{message}. It is left out.", TrustVLMWarning, stacklevel=2)
    return tuple(key[1] for key in _entries() if key not in before)


def describe_failures() -> str:
    """Say which installed plugins could not be loaded, for errors about a missing name; or ""."""
    return "".join(f" {message}." for message in _failures)


@cache
def origin(function: Callable[..., Any]) -> dict[str, str]:
    """Say which file or module from outside the package a function comes from; {} for its own.

    Returns
    -------
    dict
        `name`, of a file or of a package's module, and its `sha256`, "" where there is no file to
        read, as for what a running program registered itself. Where an installed package offers
        the module by an entry point, also `package`: its name and version. Not to be changed.

    Examples
    --------
    >>> origin(load_plugin)
    {}
    """
    if is_own(function):
        return {}
    module = function.__module__
    top = module.partition(".")[0]
    try:
        file = Path(inspect.getsourcefile(function) or "")
        content = file.read_bytes()
    except (OSError, TypeError):
        return {"name": module, "sha256": ""}
    if module.startswith("trustvlm_plugin_"):
        return {"name": file.name, "sha256": hashlib.sha256(content).hexdigest()}
    described = {"name": module, "sha256": hashlib.sha256(content).hexdigest()}
    for group in GROUPS:
        for entry in entry_points(group=group):
            if entry.module.partition(".")[0] == top:
                return {**described, "package": _package(entry)}
    return described


def from_where(function: Callable[..., Any]) -> str:
    """Write ` of FILE` for errors about what a function or class from outside returns, or "".

    Examples
    --------
    >>> from_where(load_plugin)
    ''
    """
    of = origin(function)
    return f" of {of.get('package', of['name'])}" if of else ""


@contextmanager
def plugin_errors(failure: str) -> Iterator[None]:
    """Say what has failed, from outside the package, in the error that its code raises.

    Raises
    ------
    PluginError
        For whatever the code raises but errors of this package, which are passed on.

    Examples
    --------
    >>> with plugin_errors("The score `mine` fails"):
    ...     1 / 0
    Traceback (most recent call last):
    trustvlm.exceptions.PluginError: The score `mine` fails: ZeroDivisionError: division by zero
    """
    try:
        yield
    except TrustVLMError:
        raise
    except Exception as error:  # whatever somebody else's code raises
        raise PluginError(f"{failure}: {type(error).__name__}: {error}") from error


def differs(recorded: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether two origins are known to be different files or versions.

    Examples
    --------
    >>> differs({"name": "a.py", "sha256": "0"}, {"name": "a.py", "sha256": "1"})
    True
    """
    # Models that were saved before packages were recorded say nothing of them.
    return any(recorded[key] != here.get(key, "") for key in recorded)


def how_to_load(plugin: Mapping[str, str]) -> str:
    """Say how to get what a saved model needs of a plugin, by its `origin`.

    Examples
    --------
    >>> how_to_load({"name": "gap", "sha256": "", "package": "gap-package 1.0"})
    'install the package gap-package 1.0, which brings the module gap'
    """
    if "package" in plugin:
        return f"install the package {plugin['package']}, which brings the module {plugin['name']}"
    if plugin["name"] == "__main__":
        return (
            "a program registered it itself: move that into a file of its own, and load it with "
            "--plugin FILE.py, or trustvlm.plugins.load_plugin"
        )
    return (
        f"load {plugin['name']} with --plugin FILE.py, or trustvlm.plugins.load_plugin, or install "
        "the package that brings it"
    )


def _package(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


def is_own(function: Callable[..., Any]) -> bool:
    """Whether a function or class is of this package.

    Examples
    --------
    >>> is_own(is_own), is_own(max)
    (True, False)
    """
    return getattr(function, "__module__", "").partition(".")[0] == __package__


def _entries() -> dict[tuple[str, str], Any]:
    """Return all that was registered from outside this package, by kind and name."""
    # What is the package's own is registered by whoever first imports it, a plugin maybe.
    return {
        (registry.kind, name): entry
        for registry in _registries
        for name, entry in registry.from_outside().items()
    }


def _remove_all_but(kept: Mapping[tuple[str, str], Any]) -> None:
    for registry in _registries:
        for name in registry.from_outside():
            if (registry.kind, name) not in kept:
                del registry[name]
