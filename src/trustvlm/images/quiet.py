"""Keep Pillow's remarks about odd metadata away from the user, in any number of threads."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

__all__ = ["quiet_pillow"]

# Without a handler of its own, Pillow's logger would print errors of single files on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_lock = threading.Lock()
_users = 0
_entry: Any = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's modules raise, for as long as any thread is inside.

    `warnings.catch_warnings` swaps the whole list of filters of the process, which goes wrong
    when threads overlap. This adds one entry when the first thread enters and takes the same
    entry out when the last one leaves.

    Examples
    --------
    >>> with quiet_pillow():
    ...     warnings.warn_explicit("odd tag", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _add()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _remove()


def _add() -> None:
    global _entry
    warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")
    _entry = warnings.filters[0]


def _remove() -> None:
    # The list may meanwhile be another one: someone entered or left `catch_warnings`.
    filters = cast("list[Any]", warnings.filters)
    if _entry in filters:
        filters.remove(_entry)
