"""Read pickles that others made, running nothing that they name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar


class RestrictedUnpickler(pickle.Unpickler):
    """Loads plain values, and inert stand-ins for the few names that a format needs.

    A pickle may name any callable, and call it. A subclass lists in `admitted`, by module and
    name, what the files of one format mention, and what to put in its place; every other name is
    refused with `pickle.UnpicklingError`. What a file may call or alter should be a plain value or
    have no attributes (`__slots__ = ()`), so that no opcode can change what it does.

    Examples
    --------
    >>> import io
    >>> RestrictedUnpickler(io.BytesIO(pickle.dumps({"labels": [3, 8]}))).load()
    {'labels': [3, 8]}
    >>> RestrictedUnpickler(io.BytesIO(pickle.dumps(print))).load()
    Traceback (most recent call last):
    _pickle.UnpicklingError: it names `builtins.print`, which is not admitted
    """

    admitted: ClassVar[Mapping[tuple[str, str], Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name in the file."""
        try:
            return self.admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names `{module}.{name}`, which is not admitted"
            ) from None
