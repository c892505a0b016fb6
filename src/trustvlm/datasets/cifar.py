"""Read CIFAR-10 and CIFAR-100 from the pickles in which they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm.datasets.listing import Images, Listing
from trustvlm.datasets.locating import contents
from trustvlm.datasets.pickles import read_pickle
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.exceptions import InputError
from trustvlm.images import InMemoryImage
from trustvlm.images.references import shown

__all__ = ["read_cifar"]

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
    are the same on every machine, so that embeddings are found again in the store.

    Raises
    ------
    InputError
        If a file is not there, damaged, or names anything that could be run.
    """
    published = _FILES[spec.name]
    wanted = published.train if split == "train" else published.test
    absent = [name for name in (published.meta, *wanted) if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"Expected {', '.join(map(repr, absent))} of {spec.title} in {shown(folder)!r}, but "
            f"that holds {contents(folder)}. The files are those of the version for Python."
        )
    names = _class_names(_load(folder / published.meta), published, folder)
    batches = [_batch(folder / name, published.labels, len(names)) for name in wanted]
    labels = np.concatenate([batch.labels for batch in batches])
    return Listing(_images(folder.name, batches, names), labels, names, names)


def _images(folder: str, batches: list[_Batch], names: tuple[str, ...]) -> Images:
    starts = np.cumsum([0] + [len(batch.labels) for batch in batches])

    def make(i: int) -> InMemoryImage:
        b = int(np.searchsorted(starts, i, side="right")) - 1
        batch, row = batches[b], i - int(starts[b])
        path = f"{folder}/{batch.name}/{batch.filenames[row]}"
        return InMemoryImage(path, _ppm(batch.pixels[row]), names[batch.labels[row]])

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
    return tuple(_text(name) for name in names)


def _batch(file: Path, key: str, n_classes: int) -> _Batch:
    found = _load(file)
    pixels = found.get("data")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(pixels), _PIXELS)
    ):
        raise InputError(f"Expected 'data' in {shown(file)!r} to be (n, {_PIXELS}) of uint8.")
    labels = _whole_numbers(found.get(key))
    if (
        labels is None
        or labels.shape != (len(pixels),)
        or not np.all((labels >= 0) & (labels < n_classes))
    ):
        raise InputError(
            f"Expected {key!r} in {shown(file)!r} to be {len(pixels)} whole numbers in "
            f"[0, {n_classes})."
        )
    given = found.get("filenames")
    filenames = (
        [_text(name) for name in given]
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


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
