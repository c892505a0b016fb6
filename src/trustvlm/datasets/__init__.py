"""The 17 sets of the paper, in the directory layout of CoOp and TPT, read without torchvision."""

from trustvlm.datasets.catalogue import (
    PROMPT_PRESETS,
    DatasetSpec,
    Split,
    get,
    imagenet_class_list,
    imagenet_classes,
    is_known,
    names,
    preset,
    prompt_templates,
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
    "PROMPT_PRESETS",
    "Dataset",
    "DatasetSpec",
    "DatasetStatus",
    "ShotsSource",
    "Split",
    "get",
    "imagenet_class_list",
    "imagenet_classes",
    "is_known",
    "load",
    "load_shots",
    "names",
    "preset",
    "prompt_templates",
    "shots_source",
    "status",
]
