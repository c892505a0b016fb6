"""Miniatures of the 17 sets in their exact directory layouts."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pictures import picture

ZHOU = {
    "flowers102": ("Flower102", "jpg", "split_zhou_OxfordFlowers.json"),
    "dtd": ("DTD", "images", "split_zhou_DescribableTextures.json"),
    "pets": ("OxfordPets", "images", "split_zhou_OxfordPets.json"),
    "cars": ("StanfordCars", "", "split_zhou_StanfordCars.json"),
    "ucf101": ("UCF101", "UCF-101-midframes", "split_zhou_UCF101.json"),
    "caltech101": ("Caltech101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "food101": ("Food101", "images", "split_zhou_Food101.json"),
    "sun397": ("SUN397", "SUN397", "split_zhou_SUN397.json"),
    "eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json"),
}

# Three classes, in an order that is not that of the alphabet, and images that are not sorted.
ROWS = {
    "train": [["Wolke/b.jpg", 0, "puffy cloud"], ["Wolke/a.jpg", 0, "puffy cloud"]],
    "val": [["sea lion/é 1.jpg", 1, "sea_lion"]],
    "test": [
        ["apple/2.jpg", 2, "apple"],
        ["Wolke/c.jpg", 0, "puffy cloud"],
        ["apple/1.jpg", 2, "apple"],
    ],
}


def plant(folder: Path, names: Iterable[str], seed: int = 0) -> Path:
    """Write a small picture under each name."""
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, i])
        picture(tuple(rng.integers(0, 255, 3)), seed=i, size=8).save(file, format="PNG")
    return folder


def plant_zhou(
    root: Path,
    name: str,
    *,
    rows: Mapping[str, Any] = ROWS,
    folder: str | None = None,
    images: str | None = None,
    splits_dir: Path | None = None,
) -> Path:
    """Write one of the sets with a split file, and return its folder."""
    usual, inside, split_file = ZHOU[name]
    home = root / (usual if folder is None else folder)
    base = home / (inside if images is None else images)
    plant(base, (row[0] for part in rows.values() for row in part))
    place = home if splits_dir is None else splits_dir
    place.mkdir(parents=True, exist_ok=True)
    (place / split_file).write_text(json.dumps(rows), encoding="utf-8")
    return home


def plant_aircraft(root: Path, lists: Mapping[str, Sequence[str]], variants: str) -> Path:
    """Write FGVC-Aircraft: lines `<image> <variant>` for each split."""
    home = root / "fgvc_aircraft"
    plant(home / "images", (f"{line.split()[0]}.jpg" for part in lists.values() for line in part))
    (home / "variants.txt").write_text(variants)
    for split, lines in lists.items():
        text = "".join(f"{line}\n" for line in lines)
        (home / f"images_variant_{split}.txt").write_text(text)
    return home


def plant_files(folder: Path, names: Iterable[str]) -> Path:
    """Write empty files, where only their names matter."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Dtype:
    code: str


class Python2Pickler(pickle._Pickler):  # type: ignore[misc, name-defined]
    """Writes what Python 2 and its NumPy wrote: the opcodes of the published files."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=2)

    def _save_text(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)

    def _save_global(self, named: _Global) -> None:
        self.write(pickle.GLOBAL + f"{named.module}\n{named.name}\n".encode("ascii"))

    def _save_dtype(self, dtype: _Dtype) -> None:
        self.save(_Global("numpy", "dtype"))
        self.save((dtype.code, 0, 1))
        self.write(pickle.REDUCE)
        self.save((3, "|", None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)

    def _save_array(self, array: NDArray[Any]) -> None:
        self.save(_Global("numpy.core.multiarray", "_reconstruct"))
        self.save((_Global("numpy", "ndarray"), (0,), "b"))
        self.write(pickle.REDUCE)
        dtype = _Dtype(array.dtype.str[1:])
        self.save((1, array.shape, dtype, False, array.tobytes()))
        self.write(pickle.BUILD)

    dispatch[str] = dispatch[bytes] = _save_text
    dispatch[_Global] = _save_global
    dispatch[_Dtype] = _save_dtype
    dispatch[np.ndarray] = _save_array


def python2_pickle(value: object) -> bytes:
    """Return a value as Python 2 would have pickled it."""
    stream = io.BytesIO()
    Python2Pickler(stream).dump(value)
    return stream.getvalue()


CIFAR10_NAMES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


def cifar_pixels(n: int, seed: int) -> NDArray[np.uint8]:
    """Return n rows of 3072 random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def plant_cifar10(root: Path, per_batch: int = 2, dump: Any = python2_pickle) -> Path:
    """Write CIFAR-10 with a few images in each of its six files."""
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    meta = {"num_cases_per_batch": per_batch, "label_names": CIFAR10_NAMES, "num_vis": 3072}
    (home / "batches.meta").write_bytes(dump(meta))
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {
            "batch_label": name,
            "labels": [(seed + i) % 10 for i in range(per_batch)],
            "data": cifar_pixels(per_batch, seed),
            "filenames": [f"{name}_s_{i:06d}.png" for i in range(per_batch)],
        }
        (home / name).write_bytes(dump(batch))
    return home


def plant_cifar100(root: Path) -> Path:
    """Write CIFAR-100 with three training and two test images."""
    home = root / "cifar-100-python"
    home.mkdir(parents=True)
    names = [f"class_{i}" for i in range(100)]
    meta = {"fine_label_names": names, "coarse_label_names": [f"coarse_{i}" for i in range(20)]}
    (home / "meta").write_bytes(python2_pickle(meta))
    for name, labels in {"train": [99, 0, 42], "test": [7, 99]}.items():
        batch = {
            "filenames": [f"{name}_{i}.png" for i in range(len(labels))],
            "batch_label": f"{name} batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [19] * len(labels),
            "data": cifar_pixels(len(labels), len(labels)),
        }
        (home / name).write_bytes(python2_pickle(batch))
    return home
