"""The 17 sets of the paper, in the directory layout of CoOp and TPT, read without torchvision."""

from __future__ import annotations

from trustvlm.datasets.catalogue import get, names, preset
from trustvlm.datasets.checking import DatasetStatus, status
from trustvlm.datasets.imagenet import imagenet_class_list, imagenet_classes
from trustvlm.datasets.loading import Dataset, load
from trustvlm.datasets.shots import ShotsSource, load_shots, shots_source
from trustvlm.datasets.specs import DatasetSpec, Split

__all__ = [
    "Dataset",
    "DatasetSpec",
    "DatasetStatus",
    "ShotsSource",
    "Split",
    "get",
    "imagenet_class_list",
    "imagenet_classes",
    "load",
    "load_shots",
    "names",
    "preset",
    "shots_source",
    "status",
]
