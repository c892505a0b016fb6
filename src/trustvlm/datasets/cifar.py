"""Read CIFAR-10 and CIFAR-100 from the pickles in which they are published."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm.datasets.catalogue import DatasetSpec, Split
from trustvlm.datasets.layout import Images, Listing, check_files
from trustvlm.exceptions import InputError
from trustvlm.images.references import InMemoryImage, LabelledImage, shown
from trustvlm.unpickling import RestrictedUnpickler

# A pickle of dictionaries, lists and NumPy arrays: inert stand-ins for what makes up an array.

_DTYPES = {"u1", "i1", "i2", "i4", "i8"}


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


# What the published files name (`numpy.core`), and what NumPy 2 and Python 3 name where someone
# saved them anew.
class _Unpickler(RestrictedUnpickler):
    admitted: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): "numpy.ndarray",
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Encode(),
        ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
        ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
        ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
        ("numpy._core.numeric", "_frombuffer"): _FromBuffer(),
    }


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
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise ValueError(f"it holds a {type(loaded).__name__} and no dictionary")
        return {
            key.decode("utf-8") if isinstance(key, bytes) else str(key): (
                value.resolve() if isinstance(value, (_Array, _Dtype)) else value
            )
            for key, value in loaded.items()
        }
    # A damaged pickle fails with almost any exception, none of which says more than its text.
    except Exception as error:
        raise InputError(f"Cannot read the pickle {name}: {error}.") from error


# From the files of a split to its images.

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


class _Published(NamedTuple):
    meta: str
    names: str
    labels: str
    train: tuple[str, ...]
    test: tuple[str, ...]


_FILES = {
    "cifar10": _Published(
        meta="batches.meta",
        names="label_names",
        labels="labels",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
    ),
    "cifar100": _Published(
        meta="meta",
        names="fine_label_names",
        labels="fine_labels",
        train=("train",),
        test=("test",),
    ),
}


class _Batch(NamedTuple):
    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    filenames: list[str]


def read_cifar(spec: DatasetSpec, folder: Path, split: Split) -> Listing:
    """List one split in the order of the files; class names are those in the meta file.

    Each image becomes the bytes of a PPM file when it is read: no pixel is changed, and the bytes
    are the same on every machine, so that embeddings are looked up in the store.

    Raises
    ------
    InputError
        If a file is not there, damaged, or names anything that could be run.
    """
    published = _FILES[spec.name]
    batch_files = published.train if split == "train" else published.test
    remedy = "The files are those of the version for Python."
    check_files(spec, folder, (published.meta, *batch_files), remedy)
    names = _class_names(_load(folder / published.meta), published, folder)
    batches = [_batch(folder / name, published.labels, len(names)) for name in batch_files]
    labels = np.concatenate([batch.labels for batch in batches])
    return Listing(_images(folder.name, batches, names), labels, names, names)


def _images(folder: str, batches: list[_Batch], names: tuple[str, ...]) -> Images:
    starts = np.cumsum([0] + [len(batch.labels) for batch in batches])

    def make(i: int) -> LabelledImage:
        b = int(np.searchsorted(starts, i, side="right")) - 1
        batch, row = batches[b], i - int(starts[b])
        path = f"{folder}/{batch.name}/{batch.filenames[row]}"
        image = InMemoryImage(path, _ppm(batch.pixels[row]))
        return LabelledImage(image, names[batch.labels[row]])

    return Images(make, np.arange(starts[-1]))


def _ppm(row: NDArray[np.uint8]) -> bytes:
    """Return a row of 1024 red, 1024 green and 1024 blue values as a PPM file."""
    planes = row.reshape(3, _SIDE, _SIDE)
    return b"P6\n32 32\n255\n" + planes.transpose(1, 2, 0).tobytes()


def _load(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"Expected {shown(file)!r} to be a file that can be read, but got: {error.strerror}."
        ) from error
    return read_pickle(content, name=shown(file))


def _class_names(meta: dict[str, Any], published: _Published, folder: Path) -> tuple[str, ...]:
    names = meta.get(published.names)
    if not isinstance(names, list) or not all(isinstance(n, (str, bytes)) for n in names):
        raise InputError(
            f"Expected {shown(folder / published.meta)!r} to list {published.names!r}, but it "
            f"holds {sorted(meta)}."
        )
    return tuple(_decoded(name) for name in names)


def _batch(file: Path, key: str, n_classes: int) -> _Batch:
    content = _load(file)
    pixels = content.get("data")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(pixels), _PIXELS)
    ):
        raise InputError(f"Expected 'data' in {shown(file)!r} to be (n, {_PIXELS}) of uint8.")
    labels = _whole_numbers(content.get(key))
    if (
        labels is None
        or labels.shape != (len(pixels),)
        or not np.all((labels >= 0) & (labels < n_classes))
    ):
        raise InputError(
            f"Expected {key!r} in {shown(file)!r} to be {len(pixels)} whole numbers in "
            f"[0, {n_classes})."
        )
    given = content.get("filenames")
    filenames = (
        [_decoded(name) for name in given]
        if isinstance(given, list) and len(given) == len(pixels)
        else [f"{i:05d}" for i in range(len(pixels))]
    )
    return _Batch(file.name, pixels, labels.astype(np.int64), filenames)


def _whole_numbers(given: Any) -> NDArray[np.integer] | None:
    if isinstance(given, list) and all(type(value) is int for value in given):
        given = np.array(given, dtype=object)
        return given.astype(np.int64) if all(abs(v) < 2**31 for v in given) else None
    is_whole = isinstance(given, np.ndarray) and np.issubdtype(given.dtype, np.integer)
    return given if is_whole else None


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
