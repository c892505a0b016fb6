"""Verdicts as a folder that FiftyOne imports; FiftyOne itself is not needed to write it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.pipeline.verdict import Verdict, Verdicts

_ATTRIBUTES = (
    *("p_correct", "decision", "text_score", "image_score", "runner_up", "reason"),
    *("vlm_label", "corrected"),
)


def write_fiftyone(
    verdicts: Verdicts | Sequence[Verdict],
    folder: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] = ".",
) -> Path:
    """Write `data.json` and `labels.json` of a `FiftyOneImageClassificationDataset`.

    Images stay where they are: `data.json` holds their absolute paths. Trust is the confidence of
    each label; P(correct), the decision, the reason and so on are its attributes. Images with an
    error are left out.

    Parameters
    ----------
    verdicts
        What `predict` returned.
    folder
        Where to write.
    images
        The folder that the verdicts' paths are relative to, as `predict` was given it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If no verdict is left.

    Notes
    -----
    Import it with `fiftyone.Dataset.from_dir(folder, dataset_type=..., data_path="data.json")`, the
    type being `fiftyone.types.FiftyOneImageClassificationDataset`.

    The format is that of FiftyOne's documentation; versions that know no attributes pass over them.
    """
    rows = [row for row in verdicts if row.decision != "error"]
    if not rows:
        raise InputError("Expected at least one image that could be read, but there is none.")
    classes = sorted({row.label for row in rows})
    index = {name: i for i, name in enumerate(classes)}
    # Numbers as names: a path with dots would lose its end, where extensions are dropped.
    names = [f"{i:08d}" for i in range(len(rows))]
    base = Path(images).absolute()
    data = {name: str(base / row.path) for name, row in zip(names, rows, strict=True)}
    labels = {
        name: {
            "label": index[row.label],
            "confidence": row.confidence,
            "attributes": _attributes(row),
        }
        for name, row in zip(names, rows, strict=True)
    }
    target = Path(folder)
    write_text(target / "data.json", json.dumps(data, indent=1) + "\n")
    content = {"classes": classes, "labels": labels}
    write_text(target / "labels.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return target


def _attributes(row: Verdict) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _ATTRIBUTES}
    return {
        name: value
        for name, value in values.items()
        if value not in ("", None) and not (isinstance(value, float) and math.isnan(value))
    }
