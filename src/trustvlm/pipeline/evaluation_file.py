"""The file of an evaluation: its metrics, and what every score said of every image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trustvlm.pipeline.calibration import fingerprint_of

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["data_of", "evaluation_json", "fingerprint_of_data", "fingerprint_of_shots", "images_of"]


def evaluation_json(result: EvaluationResult) -> str:
    """Return `EvaluationResult.to_dict` and, under `images`, what each score said of each image.

    The long columns stand on one line each, so that the rest can be read.
    """
    told = json.dumps(result.to_dict(), indent=2, allow_nan=False).removesuffix("\n}")
    columns = [f"    {json.dumps(k)}: {_line(v)}" for k, v in images_of(result).items()]
    return f'{told},\n  "images": {{\n' + ",\n".join(columns) + "\n  }\n}\n"


def data_of(result: EvaluationResult) -> dict[str, Any]:
    """Say which images were evaluated: name, number, fingerprint of contents and labels."""
    return {
        "name": result.dataset,
        "n": len(result.labels),
        "fingerprint": fingerprint_of_data(result) or None,
    }


def fingerprint_of_data(result: EvaluationResult) -> str:
    """SHA-256 of the contents and true labels of the images; "" if the contents are not known.

    The order and the names of the files do not matter.
    """
    if len(result.hashes) != len(result.labels) or not result.hashes:
        return ""
    return fingerprint_of([{"sha256": digest} for digest in result.hashes], result.labels.tolist())


def fingerprint_of_shots(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the contents and classes of a model's examples; "" if its manifest lacks them.

    Examples
    --------
    >>> shots = {"images": [{"sha256": "aa", "class": 0}, {"sha256": "bb", "class": 1}]}
    >>> turned = {"images": shots["images"][::-1]}
    >>> fingerprint_of_shots({"shots": shots}) == fingerprint_of_shots({"shots": turned}) != ""
    True
    >>> fingerprint_of_shots({})
    ''
    """
    shots = manifest.get("shots")
    images = shots.get("images") if isinstance(shots, Mapping) else None
    try:
        return fingerprint_of(images, [image["class"] for image in images]) if images else ""
    except (KeyError, TypeError, ValueError):
        return ""


def images_of(result: EvaluationResult) -> dict[str, Any]:
    """Return the n evaluated images as columns of plain JSON values.

    Returns
    -------
    dict
        `class_names` (C,), and by image: `path`, `sha256` (null if not known), `label` (index of
        the true class), `scores`: by name, `prediction` (index) and `confidence`, higher is more
        trusted.
    """
    n = len(result.labels)
    known = len(result.hashes) == n
    return {
        "class_names": list(result.class_names),
        "path": [row.path for row in result.verdicts],
        "sha256": list(result.hashes) if known else [None] * n,
        "label": result.labels.tolist(),
        "scores": {
            name: {
                "prediction": found.prediction.tolist(),
                "confidence": found.confidence.tolist(),
            }
            for name, found in result.results.items()
        },
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"      {json.dumps(k)}: {_line(v)}" for k, v in value.items()]
        if all(isinstance(v, list) for v in value.values()):
            return f"{{{', '.join(part.strip() for part in parts)}}}"
        return "{\n" + ",\n".join(parts) + "\n    }"
    return json.dumps(value, allow_nan=False)
