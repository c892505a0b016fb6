"""An evaluation in words: what the score buys, what to keep in mind, what was evaluated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm._version import __version__
from trustvlm.tables.metrics import by_aurc, number
from trustvlm.text import counted, percent, shortened

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluate import EvaluationResult


@dataclass(frozen=True)
class Acceptance:
    """Right and wrong among the k most trusted of n images, for every k.

    Where images are tied, any order among them is as good as another: counts are expected values
    over the orders.

    Examples
    --------
    >>> acceptance = Acceptance.of([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    >>> acceptance.wrong([1, 2, 3, 4])
    array([0. , 0.5, 1. , 2. ])
    >>> acceptance.accuracy_at(0.5)
    0.75
    """

    n: int
    accepted: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, confidence: ArrayLike, correct: ArrayLike) -> Acceptance:
        """Order `(n,)` images by confidence, highest first; n >= 1."""
        curve = metrics.risk_coverage(confidence, correct)
        n = len(np.asarray(correct))
        accepted = np.asarray(curve.coverage) * n
        return cls(n, accepted, np.asarray(curve.risk) * accepted)

    def wrong(self, k: ArrayLike) -> NDArray[np.float64]:
        """Count the wrong labels to expect among the k most trusted images."""
        # Within a group of ties the expected count grows evenly, so interpolation is exact.
        accepted = np.concatenate([[0.0], self.accepted])
        errors = np.concatenate([[0.0], self.errors])
        wrong: NDArray[np.float64] = np.interp(np.asarray(k, dtype=np.float64), accepted, errors)
        return wrong

    def count_at(self, coverage: float) -> int:
        """Whole number of images nearest to a share of them, at least one."""
        return max(1, round(coverage * self.n))

    def accuracy_at(self, coverage: float) -> float:
        """Share right among the most trusted share of the images."""
        k = self.count_at(coverage)
        return float(1 - self.wrong(k) / k)

    def curve(self, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coverage and risk at up to `points` coverages, evenly spread, both ends included."""
        k = np.unique(np.linspace(1, self.n, points).round())
        return k / self.n, self.wrong(k) / k


_FEW = 100
_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class WorkingPoint:
    """Share right when the most trusted share of the images is accepted, for each score."""

    coverage: float
    accepted: int
    accuracy: Mapping[str, float]


def working_points(acceptances: Mapping[str, Acceptance]) -> list[WorkingPoint]:
    """Return the share right at a few shares accepted, once per distinct number of images."""
    first = next(iter(acceptances.values()))
    points: dict[int, WorkingPoint] = {}
    for coverage in _COVERAGES:
        k = first.count_at(coverage)
        accuracy = {name: score.accuracy_at(coverage) for name, score in acceptances.items()}
        points.setdefault(k, WorkingPoint(k / first.n, k, accuracy))
    return list(points.values())


def findings(evaluation: EvaluationResult, acceptances: Mapping[str, Acceptance]) -> list[str]:
    """Return the headline as sentences; `acceptances` holds the model's own score and maybe msp."""
    n, score = len(evaluation.labels), evaluation.score
    if n == 0:
        return ["No image could be evaluated, so there are no figures."]
    values, own = evaluation.metrics[score], acceptances[score]
    right = round(float(own.n - own.wrong(own.n)))
    sentences = [
        f"{counted(n, 'image')} of {counted(len(evaluation.class_names), 'class', 'classes')}: "
        f"{percent(right / n)} of the {'given' if evaluation.given_labels else 'predicted'} labels "
        "are right."
    ]
    sentences += _corrections(evaluation)
    better = []
    if evaluation.better is not None:
        sentence = str(evaluation.better)
        better = [f"{sentence[0].upper()}{sentence[1:]}."]
    if right in (0, n):
        every = "right" if right else "wrong"
        sentences.append(
            f"Every label is {every}, so there is nothing that a score could tell apart here."
        )
        return sentences + better
    if n >= 10:
        sentences.append(_bought(score, acceptances))
    if not math.isnan(values.auroc):
        sentences.append(
            f"Shown a right and a wrong label, the score {score} trusts the right one more in "
            f"{percent(values.auroc)} of cases (AUROC; 50\N{NO-BREAK SPACE}% would be a coin toss)."
        )
    leader = by_aurc(evaluation.metrics)[0]
    leading = evaluation.metrics[leader].aurc
    if len(evaluation.metrics) > 1 and not math.isnan(leading):
        sentences.append(
            f"Of {counted(len(evaluation.metrics), 'score')} compared, "
            "none has a lower AURC on these images."
            if values.aurc <= leading
            else f"On these images the score {leader} has a lower AURC "
            f"({number(1000 * leading, 1)} against {number(1000 * values.aurc, 1)})."
        )
    return sentences + better


def _corrections(evaluation: EvaluationResult) -> list[str]:
    """Say in a sentence how many labels of the VLM were corrected, and how many of them rightly."""
    corrected = np.array([bool(row.corrected) for row in evaluation.verdicts])
    if not corrected.any():
        return []
    names = np.array(evaluation.class_names, dtype=object)[evaluation.labels]
    by_vlm = np.array(evaluation.verdicts.column("vlm_label"), dtype=object) == names
    right = evaluation.correct()
    return [
        f"The VLM's label of {counted(int(corrected.sum()), 'image')} was corrected: "
        f"{int((corrected & right).sum()):,} of these are right now, "
        f"{int((corrected & by_vlm).sum()):,} were right before."
    ]


def _bought(score: str, acceptances: Mapping[str, Acceptance]) -> str:
    own = acceptances[score]
    sentence = (
        f"The 80\N{NO-BREAK SPACE}% that the score {score} trusts most are "
        f"{percent(own.accuracy_at(0.8))} right, the 50\N{NO-BREAK SPACE}% it trusts most "
        f"{percent(own.accuracy_at(0.5))}"
    )
    baseline = acceptances.get("msp")
    if baseline is None or score == "msp":
        return f"{sentence}."
    return (
        f"{sentence}; with the text's own probability (MSP) it would be "
        f"{percent(baseline.accuracy_at(0.8))} and {percent(baseline.accuracy_at(0.5))}."
    )


def cautions(evaluation: EvaluationResult) -> list[str]:
    """Return what a reader must know before relying on the figures."""
    models = described_models(evaluation.model).values()
    # The warnings that the models carry, each once.
    notes = list(dict.fromkeys(str(model["note"]) for model in models if model.get("note")))
    n = len(evaluation.labels)
    if n:
        notes.append(
            "Confidence is a score, not a probability; the figures hold for images like these "
            "and guarantee nothing about others."
        )
    if 0 < n < _FEW:
        notes.append(
            f"With {counted(n, 'image')} only, every figure is coarse: one image more or less "
            f"right moves the accuracy by {percent(1 / n)}."
        )
    if evaluation.near_copies.pairs:
        notes.append(f"{evaluation.near_copies.warning()}.")
    unread = len(evaluation.failures)
    if unread:
        verb = "is" if unread == 1 else "are"
        notes.append(f"{counted(unread, 'image')} could not be read and {verb} in no figure here.")
    return notes


def described_models(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what a manifest says of each model, by its role."""
    models = manifest.get("models")
    described = models.items() if isinstance(models, Mapping) else ()
    return {str(role): model for role, model in described if isinstance(model, Mapping)}


# What was evaluated with what, down to the fingerprints: what makes a report repeatable.

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
# Long, shown elsewhere on the page, or (the time) different in every run.
_ELSEWHERE = frozenset(
    {"models", "classes", "folders", "shots", "note", "score", "decision_rule", "created_at"}
    | {"calibration"}
)


def facts(evaluation: EvaluationResult) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return data, score, models and software, as titled lists of terms and values.

    Whatever the artefact's manifest holds is shown, foreseen by this page or not; only its long
    lists are left to the artefact.
    """
    from trustvlm.pipeline.evaluate import fingerprint_of_shots

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
    groups = [("Data", [term for term in data if term[1]]), ("Score", _score(evaluation))]
    groups += [
        (_ROLES.get(role, role), _terms(model))
        for role, model in described_models(manifest).items()
    ]
    if settings := _terms(manifest):
        groups.append(("Settings of the model", settings))
    return groups


def cited(evaluation: EvaluationResult) -> str:
    """Say in one sentence what these figures are of, for those who quote them."""
    models = described_models(evaluation.model).values()
    specs = dict.fromkeys(str(model["spec"]) for model in models if model.get("spec"))
    parts = [
        f"trustvlm {__version__}",
        f"score {evaluation.score}",
        f"models {' and '.join(map(shortened, specs))}" if specs else "",
        f"{counted(evaluation.shots, 'shot')} per class",
        f"{counted(len(evaluation.labels), 'image')} of {shortened(evaluation.dataset)}",
        f"convention {evaluation.convention}",
        f"data fingerprint {evaluation.fingerprint[:12]}" if evaluation.fingerprint else "",
    ]
    return f"{', '.join(filter(None, parts))}."


def _score(evaluation: EvaluationResult) -> list[tuple[str, str]]:
    from trustvlm import scores

    terms = [("name", evaluation.score)]
    if evaluation.score in scores.names():
        score = scores.get(evaluation.score)
        terms += [
            ("what it is", score.summary.replace("`", "")),
            ("formula", score.formula),
            ("source", score.source),
        ]
    stored = evaluation.model.get("score")
    settings = stored if isinstance(stored, Mapping) else {}
    if isinstance(settings.get("parameters"), Mapping) and settings["parameters"]:
        terms.append(("parameters", _value(settings["parameters"])))
    selection = settings.get("selection")
    if isinstance(selection, Mapping):
        omitted = ("images", "parameters")
        how = {k: v for k, v in selection.items() if k not in omitted and v not in ("", None)}
        terms.append(("selected", _value(how)))
    return [term for term in terms if term[1]]


def _terms(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(key).replace("_", " "), _value(value))
        for key, value in mapping.items()
        if key not in _ELSEWHERE and value not in ("", None, {}, [])
    ]


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
