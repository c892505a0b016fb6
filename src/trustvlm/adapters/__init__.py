"""trustvlm in the habits of other libraries, whose imports wait until they are used.

`sklearn` has a classifier for scikit-learn, `huggingface_datasets` a function for `Dataset.map`,
`torchmetrics` metrics for training loops, and `fiftyone` writes what FiftyOne imports. All public
names can be imported from here. pandas needs no adapter: `Verdicts.to_pandas`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trustvlm.adapters.fiftyone import write_fiftyone
from trustvlm.adapters.huggingface_datasets import on_dataset
from trustvlm.adapters.torchmetrics import AUGRC, AURC, SelectiveMetric, torchmetric

if TYPE_CHECKING:
    from trustvlm.adapters.sklearn import TrustClassifier

__all__ = [
    "AUGRC",
    "AURC",
    "SelectiveMetric",
    "TrustClassifier",
    "on_dataset",
    "torchmetric",
    "write_fiftyone",
]


def __getattr__(name: str) -> Any:
    # Its base classes are scikit-learn's, an extra, so it is imported when it is asked for.
    if name == "TrustClassifier":
        from trustvlm.adapters.sklearn import TrustClassifier

        return TrustClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
