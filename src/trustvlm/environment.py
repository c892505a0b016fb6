"""What there is to use: optional packages, the cache folder, cores."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from trustvlm.exceptions import MissingExtraError

# Import optional dependencies late, with an error that names the `pip install` line.


def pip_install(extra: str) -> str:
    """Return the command that installs an extra.

    Examples
    --------
    >>> pip_install("serve")
    "pip install -c constraints.txt 'trustvlm[serve]'"
    """
    return f"pip install -c constraints.txt 'trustvlm[{extra}]'"


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    module
        Dotted name of the module to import.
    extra
        The extra of trustvlm that installs it.
    purpose
        What needs it, as the subject of a sentence.

    Raises
    ------
    MissingExtraError
        If the module, or something it needs, is not installed.

    Examples
    --------
    >>> require("json", extra="none", purpose="This example").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(error.name or module, extra, purpose) from error


def check_installed(module: str, *, extra: str, purpose: str) -> None:
    """Raise MissingExtraError, as `require` does, if a top-level module is not there to import.

    Examples
    --------
    >>> check_installed("json", extra="none", purpose="This example")
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra, purpose)


def _missing(module: str, extra: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(
        f"{purpose} needs `{module}`, which is not installed. Install it with: {pip_install(extra)}"
    )


# Where trustvlm keeps what it can compute again.


def cache_dir() -> Path:
    """Return the cache folder; it need not exist yet.

    The environment variable `TRUSTVLM_CACHE` names it; without one it is the platform's folder
    for caches of the user.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, TRUSTVLM_CACHE="elsewhere"):
    ...     cache_dir().name
    'elsewhere'
    """
    if named := os.environ.get("TRUSTVLM_CACHE"):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("trustvlm", appauthor=False))


# How many cores there are to use.


def usable_cores() -> int:
    """Return how many cores this process may use, which a container or a user can limit.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    # Not every system can tell.
    return os.cpu_count() or 1


# Memory that was freed, which the C library keeps for later.


def give_back_memory() -> None:
    """Have the C library return freed memory to the system, where it is one that can (glibc).

    Examples
    --------
    >>> give_back_memory()
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
