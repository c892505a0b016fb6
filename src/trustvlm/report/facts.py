"""What was evaluated with what, down to the fingerprints: what makes a report repeatable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trustvlm
from trustvlm.report.wording import counted, shortened

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["BIBTEX", "CITATION", "PAPER_URL", "FactGroup", "cited", "facts"]

PAPER_URL = "https://arxiv.org/abs/2505.23745"
CITATION = (
    "Hao Dong, Moru Liu, Jian Liang, Eleni Chatzi, Olga Fink: To Trust Or Not To Trust Your "
    "Vision-Language Model's Prediction. arXiv 2505.23745, 2025."
)
BIBTEX = """\
@misc{dong2025trustvlm,
  title         = {To Trust Or Not To Trust Your Vision-Language Model's Prediction},
  author        = {Dong, Hao and Liu, Moru and Liang, Jian and Chatzi, Eleni and Fink, Olga},
  year          = {2025},
  eprint        = {2505.23745},
  archivePrefix = {arXiv}
}"""

_ROLES = {"vlm": "Vision-language model", "vision": "Vision encoder of the image term"}
# Long, told elsewhere on the page, or (the time) different in every run.
_ELSEWHERE = frozenset(
    {"models", "classes", "folders", "shots", "note", "score", "decision_rule", "created_at"}
    | {"calibration"}
)


@dataclass(frozen=True)
class FactGroup:
    """A titled list of terms and values, all plain text."""

    title: str
    facts: tuple[tuple[str, str], ...]


def facts(evaluation: EvaluationResult) -> list[FactGroup]:
    """Return everything known about data, score, models and software, as titled lists.

    Whatever the artefact's manifest holds is shown, known to this page or not; only its long lists
    are left to the artefact.
    """
    from trustvlm.pipeline.evaluation_file import fingerprint_of_shots

    manifest = evaluation.model
    data = [
        ("data set", evaluation.dataset),
        ("images evaluated", f"{len(evaluation.labels):,}"),
        ("images not readable", f"{len(evaluation.failures):,}"),
        ("images left out as shots", f"{len(evaluation.excluded):,}"),
        ("classes", f"{len(evaluation.class_names):,}"),
        ("shots per class", f"{evaluation.shots} (draw {evaluation.draw})"),
        ("convention of the metrics", evaluation.convention),
        ("fingerprint", evaluation.fingerprint),
        ("fingerprint of the shots", fingerprint_of_shots(manifest)),
    ]
    groups = [
        FactGroup("Data", tuple((term, text) for term, text in data if text)),
        FactGroup("Score", _score(evaluation)),
    ]
    models = manifest.get("models")
    if isinstance(models, Mapping):
        groups += [
            FactGroup(_ROLES.get(role, str(role)), _listed(model))
            for role, model in models.items()
            if isinstance(model, Mapping)
        ]
    rest = _listed(manifest)
    if rest:
        groups.append(FactGroup("Settings of the model", rest))
    return groups


def cited(evaluation: EvaluationResult) -> str:
    """Say in one sentence what these figures are of, for those who quote them."""
    models = evaluation.model.get("models")
    named = models.values() if isinstance(models, Mapping) else ()
    specs = dict.fromkeys(
        str(model.get("spec") or "") for model in named if isinstance(model, Mapping)
    )
    parts = [
        f"trustvlm {trustvlm.__version__}",
        f"score {evaluation.score}",
        f"models {' and '.join(shortened(spec) for spec in specs if spec)}" if any(specs) else "",
        f"{counted(evaluation.shots, 'shot')} per class",
        f"{counted(len(evaluation.labels), 'image')} of {shortened(evaluation.dataset)}",
        f"convention {evaluation.convention}",
    ]
    if evaluation.fingerprint:
        parts.append(f"data fingerprint {evaluation.fingerprint[:12]}")
    return f"{', '.join(part for part in parts if part)}."


def _score(evaluation: EvaluationResult) -> tuple[tuple[str, str], ...]:
    from trustvlm import scores

    lines = [("name", evaluation.score)]
    if evaluation.score in scores.names():
        score = scores.get(evaluation.score)
        lines += [
            ("what it is", score.summary.replace("`", "")),
            ("formula", score.formula),
            ("source", score.source),
        ]
    told = evaluation.model.get("score")
    chosen = told.get("parameters") if isinstance(told, Mapping) else None
    if isinstance(chosen, Mapping) and chosen:
        lines.append(("parameters", _value(chosen)))
    selection = told.get("selection") if isinstance(told, Mapping) else None
    if isinstance(selection, Mapping):
        told_elsewhere = ("images", "parameters")
        how = {
            k: v for k, v in selection.items() if k not in told_elsewhere and v not in ("", None)
        }
        lines.append(("selected", _value(how)))
    return tuple((term, text) for term, text in lines if text)


def _listed(mapping: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (str(key).replace("_", " "), _value(value))
        for key, value in mapping.items()
        if key not in _ELSEWHERE and value not in ("", None, {}, [])
    )


def _value(value: Any) -> str:
    if isinstance(value, str):
        return shortened(value, 400)
    if isinstance(value, list | tuple) and len(value) > 20:
        return counted(len(value), "entry", "entries")
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return shortened("; ".join(value), 400)
    if isinstance(value, Mapping):
        parts = (f"{key} {_value(item)}" for key, item in value.items())
        return shortened(", ".join(parts), 400)
    return shortened(json.dumps(value, ensure_ascii=False, default=str), 400)
