"""trustvlm in the habits of other libraries, each in a module that imports its library late.

`estimators` is for scikit-learn, `dataset_columns` for Hugging Face `datasets`, `accumulating` for
training loops that use torchmetrics, `fiftyone` writes what FiftyOne imports. pandas needs no
adapter: `Verdicts.to_pandas`.
"""

from __future__ import annotations

from trustvlm.adapters.fiftyone import write_fiftyone
from trustvlm.adapters.huggingface_datasets import on_dataset
from trustvlm.adapters.torchmetrics import AUGRC, AURC, SelectiveMetric

__all__ = ["AUGRC", "AURC", "SelectiveMetric", "on_dataset", "write_fiftyone"]
