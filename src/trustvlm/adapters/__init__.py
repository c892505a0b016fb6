"""trustvlm in the habits of other libraries, whose imports wait until they are used.

`sklearn` has a classifier for scikit-learn, `huggingface_datasets` a function for `Dataset.map`,
`torchmetrics` metrics for training loops. `fiftyone`, `label_studio`, `cvat` and `coco` write what
labelling tools import, and read their answers, which `annotations` makes one label an image. All
public names can be imported from here. pandas needs no adapter: `Verdicts.to_pandas`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trustvlm.adapters.annotations import decide_labels
from trustvlm.adapters.coco import read_coco, write_coco
from trustvlm.adapters.cvat import read_cvat, write_cvat
from trustvlm.adapters.fiftyone import read_fiftyone, write_fiftyone
from trustvlm.adapters.huggingface_datasets import on_dataset
from trustvlm.adapters.label_studio import read_label_studio, write_label_studio
from trustvlm.adapters.torchmetrics import AUGRC, AURC, SelectiveMetric, torchmetric

if TYPE_CHECKING:
    from trustvlm.adapters.sklearn import TrustClassifier

__all__ = [
    "AUGRC",
    "AURC",
    "SelectiveMetric",
    "TrustClassifier",
    "decide_labels",
    "on_dataset",
    "read_coco",
    "read_cvat",
    "read_fiftyone",
    "read_label_studio",
    "torchmetric",
    "write_coco",
    "write_cvat",
    "write_fiftyone",
    "write_label_studio",
]


def __getattr__(name: str) -> Any:
    # Its base classes are scikit-learn's, an extra, so it is imported when it is asked for.
    if name == "TrustClassifier":
        from trustvlm.adapters.sklearn import TrustClassifier

        return TrustClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
