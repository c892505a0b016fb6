"""Read a legacy PyTorch checkpoint into NumPy arrays, running nothing that the file names.

Before version 1.6, `torch.save` wrote a row of pickles (magic number, protocol, system
information, the object, the storage keys) and then each storage as its length and raw values.
A pickle may name any callable; this reader knows three harmless ones and refuses the rest.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import ArtefactError

__all__ = ["read_checkpoint"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


# Named tuples and an object without attributes: an opcode of the file can alter none of them.
class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def resolve(self, values: NDArray[Any]) -> NDArray[Any]:
        """Copy the tensor out of the values of its storage."""
        size = math.prod(self.shape)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        # Strides of 0 would let a few bytes claim terabytes, hence the test of the size as well.
        if min((self.offset, *self.shape, *self.strides)) < 0 or size > len(values):
            raise ValueError(f"a tensor of shape {self.shape} does not fit its storage")
        if size and last >= len(values):
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its storage")
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :],
            self.shape,
            [step * values.itemsize for step in self.strides],
            writeable=False,
        )
        return np.array(view, order="C")


class _RebuildTensor:
    __slots__ = ()

    def __call__(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *_flags: Any
    ) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("a tensor has no storage")
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Unpickler(pickle.Unpickler):
    """Admits ordered dictionaries, tensors and storages; nothing else can be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names `{module}.{name}`, which is not admitted")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, length, view = pid
        if kind != "storage" or dtype not in _STORAGES.values() or view is not None:
            raise pickle.UnpicklingError("it refers to an unknown kind of storage")
        return _Storage(str(key), dtype, int(length))


def read_checkpoint(content: bytes, *, name: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of a state dictionary saved by PyTorch before version 1.6.

    Parameters
    ----------
    content
        The bytes of the file.
    name
        What to call the file in an error message.

    Returns
    -------
    dict
        Parameter name to array, in the order of the file, C-contiguous.

    Raises
    ------
    ArtefactError
        If the file is damaged, of another format, or names anything that could be run.

    Examples
    --------
    >>> read_checkpoint(b"PK", name="model.pth")
    Traceback (most recent call last):
    trustvlm.exceptions.ArtefactError: Cannot read the checkpoint model.pth: ...
    """
    try:
        return _read(io.BytesIO(content))
    # A damaged pickle fails with almost any exception, none of which says more than its text.
    except Exception as error:
        raise ArtefactError(f"Cannot read the checkpoint {name}: {error}.") from error


def _read(file: io.BytesIO) -> dict[str, NDArray[Any]]:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("it is not a checkpoint in PyTorch's legacy format")
    if (protocol := _Unpickler(file).load()) != _PROTOCOL:
        raise ValueError(f"expected protocol {_PROTOCOL}, but got {protocol}")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    tensors = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise ValueError("it holds something else than a dictionary of tensors")

    storages: dict[str, _Storage] = {}
    for tensor in tensors.values():
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ValueError("two tensors disagree about their storage")
    values = {key: _read_storage(file, storages[key]) for key in keys}
    if file.read(1):
        raise ValueError("there are bytes after the last tensor")
    return {name: t.resolve(values[t.storage.key]) for name, t in tensors.items()}


def _read_storage(file: io.BytesIO, storage: _Storage) -> NDArray[Any]:
    length = int.from_bytes(file.read(8), "little", signed=True)
    if length != storage.length:
        raise ValueError(f"expected {storage.length} values in a storage, but got {length}")
    dtype = np.dtype(storage.dtype)
    raw = file.read(length * dtype.itemsize)
    if len(raw) != length * dtype.itemsize:
        raise ValueError("the file ends in the middle of a tensor")
    return np.frombuffer(raw, dtype)
