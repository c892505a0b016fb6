"""Import optional dependencies late, with an error that names the `pip install` line."""

from __future__ import annotations

import importlib
from types import ModuleType

from trustvlm.exceptions import MissingExtraError

__all__ = ["require"]


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
        raise MissingExtraError(
            f"{purpose} needs `{error.name or module}`, which is not installed. "
            f"Install it with: pip install -c constraints.txt 'trustvlm[{extra}]'"
        ) from error
