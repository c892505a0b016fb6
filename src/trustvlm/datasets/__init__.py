"""The 17 sets of the paper, in the directory layout of CoOp and TPT, read without torchvision."""

from trustvlm.datasets.catalogue import (
    DatasetSpec,
    Split,
    get,
    imagenet_class_list,
    imagenet_classes,
    names,
    preset,
)
from trustvlm.datasets.loading import (
    Dataset,
    DatasetStatus,
    ShotsSource,
    load,
    load_shots,
    shots_source,
    status,
)

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
