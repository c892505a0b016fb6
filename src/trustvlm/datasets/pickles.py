"""Read a pickle of dictionaries, lists and NumPy arrays, running nothing that the file names.

CIFAR is published as pickles, and a pickle may name any callable. This reader knows the few that
make up an array, puts inert stand-ins in their place, and refuses the rest.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError

__all__ = ["read_pickle"]

_DTYPES = {"u1", "i1", "i2", "i4", "i8"}
# What the published files name, and what NumPy 2 and Python 3 name where someone saved them anew.
_CORES = ("numpy.core", "numpy._core")


class _Dtype:
    """Stands for `numpy.dtype`: a code and a byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_flags: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order

    def resolve(self) -> np.dtype[Any]:
        """Return the real thing, if it is one of whole numbers in the usual byte order."""
        if self.code not in _DTYPES or self.order not in ("|", "<"):
            raise ValueError(f"an array has the type {self.order}{self.code}, which is not read")
        return np.dtype(f"<{self.code}")


class _Array:
    """Stands for `numpy.ndarray`: a shape, a type and bytes."""

    __slots__ = ("dtype", "fortran", "raw", "shape")

    def __setstate__(self, state: Any) -> None:
        *_version, self.shape, self.dtype, self.fortran, self.raw = state

    def resolve(self) -> NDArray[Any]:
        """Make the real thing, a view of the bytes in the file."""
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.raw, (bytes, bytearray)):
            raise ValueError("an array is not made of a type and bytes")
        dtype = self.dtype.resolve()
        shape = tuple(map(int, self.shape))
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(self.raw):
            raise ValueError(f"an array of shape {shape} has {len(self.raw)} bytes")
        values = np.frombuffer(self.raw, dtype)
        values.flags.writeable = False
        return values.reshape(shape, order="F" if self.fortran else "C")


# Objects without attributes: an opcode of the file can call them, and alter none of them.
class _Reconstruct:
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _FromBuffer:
    __slots__ = ()

    def __call__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", raw))
        return array


class _Encode:
    # How Python 3 writes bytes in the protocol of Python 2.
    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes a text in an unexpected way")
        return text.encode("latin1")


_ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode(),
    **{(f"{core}.multiarray", "_reconstruct"): _Reconstruct() for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _FromBuffer() for core in _CORES},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names `{module}.{name}`, which is not admitted"
            ) from None


def read_pickle(content: bytes, *, name: str) -> dict[str, Any]:
    """Return the dictionary in a pickle of plain values and arrays of whole numbers.

    Parameters
    ----------
    content
        The bytes of the file.
    name
        What to call the file in an error message.

    Returns
    -------
    dict
        Texts of Python 2 are bytes; the keys are text. Arrays are read-only.

    Raises
    ------
    InputError
        If the file is damaged, holds something else than a dictionary, or names anything that
        could be run.

    Examples
    --------
    >>> read_pickle(pickle.dumps({"labels": [3, 8]}), name="test_batch")
    {'labels': [3, 8]}
    >>> read_pickle(pickle.dumps({"labels": print}), name="test_batch")
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: Cannot read the pickle test_batch: it names `builtins.print`...
    """
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__} and no dictionary")
        return {_text(key): _resolved(value) for key, value in found.items()}
    # A damaged pickle fails with almost any exception, none of which says more than its text.
    except Exception as error:
        raise InputError(f"Cannot read the pickle {name}: {error}.") from error


def _text(key: Any) -> str:
    return key.decode("utf-8") if isinstance(key, bytes) else str(key)


def _resolved(value: Any) -> Any:
    return value.resolve() if isinstance(value, (_Array, _Dtype)) else value
