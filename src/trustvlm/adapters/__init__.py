"""trustvlm in the habits of other libraries, each in a module that imports its library late.

`estimators` is for scikit-learn, `dataset_columns` for Hugging Face `datasets`, `accumulating` for
training loops that use torchmetrics, `fiftyone` writes what FiftyOne imports. pandas needs no
adapter: `Verdicts.to_pandas`.
"""

from __future__ import annotations

from trustvlm.adapters.accumulating import AUGRC, AURC, SelectiveMetric
from trustvlm.adapters.dataset_columns import on_dataset
from trustvlm.adapters.fiftyone import write_fiftyone

__all__ = ["AUGRC", "AURC", "SelectiveMetric", "on_dataset", "write_fiftyone"]
