"""Evaluate a model on labelled images: the input of every table and report."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.data_quality.duplicates import near_duplicate_threshold, near_duplicates
from trustvlm.embeddings import Progress
from trustvlm.exceptions import FewSamplesWarning, InputError, UndefinedMetricWarning
from trustvlm.images import Columns, LabelledSource
from trustvlm.metrics import Evaluation, paired_bootstrap
from trustvlm.metrics.paired import holm
from trustvlm.monitoring.ood import gate_statement
from trustvlm.pipeline.calibration_state import fingerprint_of
from trustvlm.pipeline.cross_validate import measure
from trustvlm.pipeline.labellers import Labeller, encode_labelled
from trustvlm.pipeline.predict import (
    ClassProbabilities,
    best_other,
    explain,
    verdicts_with_shots,
)
from trustvlm.pipeline.records import (
    OR_EXCLUDE,
    EncodedImages,
    exclude_leaked,
    name_of,
)
from trustvlm.pipeline.runs import Run
from trustvlm.pipeline.shot_quality import ShotHealth
from trustvlm.pipeline.state import FittedModel, ModelState
from trustvlm.pipeline.verdict import RunOutcome, Verdicts, failures_of
from trustvlm.risk_control.goals import guarantee_p_value
from trustvlm.scores import Evidence, ScoreResult, apply, get, names
from trustvlm.scores.compute import judging_given
from trustvlm.serialization import nan_to_null
from trustvlm.text import counted, exact_number, number_beside, printable, short_percent


@dataclass(frozen=True)
class NearCopy:
    """An image that is nearly the same as a shot.

    Attributes
    ----------
    path, shot
        Names of the two.
    cosine
        Of their features.
    """

    path: str
    shot: str
    cosine: float


@dataclass(frozen=True)
class NearCopies:
    """All images that are nearly the same as a shot, most alike first, and from which cosine."""

    pairs: tuple[NearCopy, ...] = ()
    threshold: float = 1.0

    def warning(self, most: int = 3) -> str:
        """Say it in a sentence that names the first pairs; "" if there is none."""
        if not self.pairs:
            return ""
        n = len(self.pairs)
        first = "; ".join(
            f"{printable(c.path)} and {printable(c.shot)} "
            f"({number_beside(c.cosine, self.threshold, '.3f')})"
            for c in self.pairs[:most]
        )
        more = "; ..." if n > most else ""
        return (
            f"{n} {'image is' if n == 1 else 'images are'} nearly the same as an example image "
            f"(cosine {exact_number(self.threshold)} or more), which flatters every figure if they "
            f"are copies: {first}{more}"
        )


# What a model may be fitted with instead, so that its state and single images suffice.
_ALTERNATIVES = ("msp", "trustvlm", "trustvlm_star", "auto", "auto_star")
# The standard deviation over this many resamples is off by 3 %, usually.
_RESAMPLES, _LEVEL = 500, 0.95


@dataclass(frozen=True)
class BetterScore:
    """A score with a significantly lower AURC than the model's own, on the evaluated images.

    Attributes
    ----------
    score, own
        Its name, and that of the model's score.
    aurc, own_aurc
        Of the two, as fractions, in the `exact` convention.
    difference, low, high
        `aurc - own_aurc` with its 95 % interval by the paired bootstrap.
    p_value
        Two-sided, after Holm's correction for `compared` scores.
    compared
        How many scores were compared with the model's own.
    accuracy, own_accuracy
        Share right of the labels of each: they differ where one of them may correct labels.
    """

    score: str
    own: str
    aurc: float
    own_aurc: float
    difference: float
    low: float
    high: float
    p_value: float
    compared: int
    accuracy: float
    own_accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        corrected = f", corrected for {self.compared} comparisons" if self.compared > 1 else ""
        labels = ""
        if self.accuracy != self.own_accuracy:
            labels = (
                f", and {100 * self.accuracy:.1f} % of the labels right instead of "
                f"{100 * self.own_accuracy:.1f} %"
            )
        return (
            f"the score {self.score} would serve better here than {self.own}: AURC x1000 "
            f"{1000 * self.aurc:.1f} instead of {1000 * self.own_aurc:.1f} (difference "
            f"{1000 * self.difference:+.1f}, 95 % interval {1000 * self.low:+.1f} to "
            f"{1000 * self.high:+.1f}; {p}{corrected}){labels}. Fit again with it if you like, "
            "but do not report these figures: a score that was chosen on these images looks too "
            "good on them. Choose on one labelled set and report on another"
        )


CONTRADICTED_AT = 0.01
"""Level of the test of the guarantee on labelled images."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics and verdicts on n readable labelled images.

    Attributes
    ----------
    dataset
        Name of the labelled input.
    score
        Name of the model's own score, the one its verdicts use.
    class_names
        C names, in the order of the indices in `labels` and predictions.
    shots, draw
        Shots per class that the model was fitted with, and which draw chose them.
    convention
        Of the metrics: `exact` or `trustvlm`.
    labels
        `(n,)` int64 true classes of the readable images.
    files
        n image files, for thumbnails; None for an image that is no file on this machine.
    results
        Prediction and confidence of every score, `(n,)` each.
    metrics
        Metrics of every score.
    verdicts
        The model's n verdicts on the readable images, in the order of `labels`.
    nearest
        `(n,)` int64, class of the most similar prototype; -1 without prototypes.
    failures
        Verdicts of the images that could not be read.
    excluded
        Paths of images that were left out because the model has learned from them.
    model
        The artefact's manifest: models, classes, prompt, score and so on.
    near_copies
        Images that are nearly the same as a shot; they are in every figure.
    health
        Of the shots, for reports; None if nobody looked.
    hashes
        SHA-256 of the bytes of the n images; empty without them.
    run
        Whether the guarantee covers the images, and how many are out-of-distribution; None if
        nobody looked. The verdicts are as the rule says even where it does not cover them.
    guarantee_p_value
        Of `risk_control.goals.guarantee_p_value`; NaN without a guarantee that can be contradicted.
    eligible
        `(n,)` bool, which images pass the out-of-distribution gate; None if there is none.
    better
        The score that would serve better than the model's own, where one is significantly better.
    given_labels
        Whether labels from elsewhere were judged, which are then the predictions of every score.
    """

    dataset: str
    score: str
    class_names: tuple[str, ...]
    shots: int
    draw: int
    convention: str
    labels: NDArray[np.int64]
    files: Sequence[Path | None]
    results: Mapping[str, ScoreResult]
    metrics: Mapping[str, Evaluation]
    verdicts: Verdicts
    nearest: NDArray[np.int64]
    failures: Verdicts
    excluded: tuple[str, ...]
    model: Mapping[str, Any]
    near_copies: NearCopies = field(default_factory=NearCopies)
    health: ShotHealth | None = None
    hashes: tuple[str, ...] = ()
    run: RunOutcome | None = None
    guarantee_p_value: float = math.nan
    eligible: NDArray[np.bool_] | None = None
    better: BetterScore | None = None
    given_labels: bool = False

    def correct(self, score: str | None = None) -> NDArray[np.bool_]:
        """`(n,)` bool: where the prediction of a score (by default the model's) is right."""
        right: NDArray[np.bool_] = self.results[score or self.score].prediction == self.labels
        return right

    def probabilities(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """`(k,)` P(correct), and whether the label is right, of those that have it.

        An image that bears the name of another class has no probability.
        """
        p = np.array(self.verdicts.column("p_correct"), dtype=np.float64)
        has = ~np.isnan(p)
        return p[has], self.correct()[has]

    @property
    def fingerprint(self) -> str:
        """Of the images' contents and true labels; "" without their hashes."""
        return fingerprint_of_data(self)

    @property
    def contradicted(self) -> bool:
        """Whether so many accepted labels are wrong that the guarantee cannot hold here."""
        return self.guarantee_p_value <= CONTRADICTED_AT

    def guarantee_statement(self) -> str | None:
        """Say whether these images contradict the guarantee; None where there is none to test."""
        if math.isnan(self.guarantee_p_value):
            return None
        accepted = np.array(self.verdicts.column("decision")) == "accept"
        wrong = int((accepted & ~self.correct()).sum())
        p = self.guarantee_p_value
        share = "less than 0.1 %" if p < 0.001 else short_percent(p)
        begin = (
            f"{wrong} of {counted(int(accepted.sum()), 'accepted label')} are wrong; if the "
            f"guarantee held, at least as many would be in {share} of all cases "
            "(exact binomial test)"
        )
        if self.contradicted:
            return f"{begin}: these images contradict the guarantee; calibrate on images like them"
        return f"{begin}: they do not contradict it"

    def gate_statement(self) -> str:
        """Say what the out-of-distribution gate stops of these images; "" without one."""
        return "" if self.eligible is None else gate_statement(self.eligible, self.correct())

    def rows(self) -> list[dict[str, Any]]:
        """One row per score, as `trustvlm bench arrays` writes them; values are fractions."""
        keys = (*metrics.names(), "n")
        return [
            {
                "dataset": self.dataset,
                "score": name,
                "shots": self.shots,
                "draw": self.draw,
                **{key: getattr(evaluation, key) for key in keys},
            }
            for name, evaluation in self.metrics.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return rows and settings as plain JSON values; NaN becomes None."""
        return {
            "rows": nan_to_null(self.rows()),
            "convention": self.convention,
            "score": self.score,
            "p_correct": self._probability_quality(),
            "failures": [{"path": v.path, "error": v.error} for v in self.failures],
            "excluded": list(self.excluded),
            "near_copies": [vars(copy) for copy in self.near_copies.pairs],
            "run": None if self.run is None else self.run.to_dict(),
            "guarantee": {
                "p_value": nan_to_null(self.guarantee_p_value),
                "contradicted": self.contradicted,
            },
            "gate": None
            if self.eligible is None
            else {
                "right_to_review": int((~self.eligible & self.correct()).sum()),
                "wrong_to_review": int((~self.eligible & ~self.correct()).sum()),
            },
            "better_score": None if self.better is None else self.better.to_dict(),
            "data": data_of(self),
            "given_labels": self.given_labels,
            "model": dict(self.model),
        }

    def _probability_quality(self) -> dict[str, float | None] | None:
        """Measure P(correct) as `metrics.probability_quality`; None without a calibration."""
        if not self.model.get("calibration"):
            return None
        quality: dict[str, float | None] = nan_to_null(
            metrics.probability_quality(*self.probabilities())
        )
        return quality


def evaluate(
    model: FittedModel,
    labelled: LabelledSource,
    *,
    name: str | None = None,
    scores: Sequence[str] | None = None,
    convention: str = "exact",
    exclude_shots: bool = False,
    labeller: Labeller | None = None,
    groups: Sequence[str] | None = None,
    progress: Progress | None = None,
    **columns: Unpack[Columns],
) -> EvaluationResult:
    """Measure a fitted model's score, and others, on labelled images, as `TrustVLM` says.

    With a `labeller`, its labels of the same images are judged instead of the model's own.

    Raises
    ------
    LeakError
        If images are also among the shots, or were selected or calibrated on, and `exclude_shots`
        is False.
    InputError
        If no labelled image is left, or a label is not among the model's classes.
    """
    model.state.check_calibration()
    state = model.state.for_own_labels() if labeller is None else model.state.for_given_labels()
    class_names = state.classes.labels
    encoded = encode_labelled(
        labelled, state.classes, model.embedder, labeller, progress, groups=groups, **columns
    )
    images, leaked = exclude_leaked(
        encoded.readable(),
        state.learned_from(calibrated_on=True),
        exclude=exclude_shots,
        purpose="metrics on them would be too good. Evaluate on other images, " + OR_EXCLUDE,
    )
    if not len(images):
        raise InputError("No labelled image is left to evaluate on: all are unreadable or shots.")
    given = {} if labeller is None else labeller.pieces(images.refs)
    evidence = state.evidence(images.image_embeddings, images.features, **given)
    results = _all_scores(state, evidence, scores)
    own = results[state.score]
    instead = None
    if labeller is not None:
        instead = best_other(ClassProbabilities(state)(evidence), own.prediction)
    shown = explain(evidence, own.prediction, state.gate, runner_up=instead)
    run = Run(state)
    rows = verdicts_with_shots(own, shown, images.paths, class_names, state.calibration, run)
    outcome = run.outcome(when_invalid="keep")
    verdicts = Verdicts(outcome.decide(rows), run=outcome)
    p_value = math.nan
    if state.calibration is not None and state.calibration.certificate is not None:
        accepted = np.array(verdicts.column("decision")) == "accept"
        p_value = guarantee_p_value(
            state.calibration.certificate, own.prediction, accepted, own.prediction == images.labels
        )
    return EvaluationResult(
        dataset=name_of(labelled) if name is None else name,
        score=state.score,
        class_names=class_names,
        shots=state.shots_per_class or int(state.bank.counts_.max(initial=0)),
        draw=state.draw,
        convention=convention,
        labels=images.labels,
        files=[ref.file for ref in images.refs],
        results=results,
        metrics={
            name: measure(result, images.labels, convention) for name, result in results.items()
        },
        verdicts=verdicts,
        nearest=shown.nearest,
        failures=Verdicts(failures_of(encoded)),
        excluded=leaked,
        model=state.to_manifest(),
        near_copies=near_copies(state, images),
        hashes=tuple(images.hashes),
        run=outcome,
        guarantee_p_value=p_value,
        eligible=shown.resemblance.eligible if shown.gate.active else None,
        better=better_score(state.score, results, images.labels),
        given_labels=labeller is not None,
    )


def better_score(
    own: str, results: Mapping[str, ScoreResult], labels: NDArray[np.int64]
) -> BetterScore | None:
    """Return the score with the lowest AURC among those that are significantly better; else None.

    Compared are `msp`, the paper's scores and the auto scores, as far as they are among the
    `results`: a model may be fitted with any of them instead. Labels that a score corrects count
    for it, since they lower its AURC.

    Parameters
    ----------
    own
        Name of the model's score.
    results
        Prediction and confidence of each score on n images, its own among them.
    labels
        `(n,)` true classes.

    Examples
    --------
    >>> labels, prediction = np.zeros(200, dtype=int), np.repeat([0, 1], 100)
    >>> chance = np.random.default_rng(0).random(200)
    >>> better = better_score("msp", {
    ...     "msp": ScoreResult(prediction, chance),
    ...     "auto": ScoreResult(prediction, np.repeat([1.0, 0.0], 100)),
    ... }, labels)
    >>> better.score, better.high < 0
    ('auto', True)
    """
    others = [name for name in _ALTERNATIVES if name in results and name != own]
    mine, differences = results[own], []
    right = mine.prediction == labels
    for name in others:
        other = results[name]
        with warnings.catch_warnings():
            # Few errors make the interval wide, so that nothing is named.
            warnings.simplefilter("ignore", FewSamplesWarning)
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            differences.append(
                paired_bootstrap(
                    other.confidence,
                    mine.confidence,
                    other.prediction == labels,
                    right,
                    "aurc",
                    n_resamples=_RESAMPLES,
                    level=_LEVEL,
                )
            )
    p_values = holm([paired.p_value for paired in differences])
    better = [
        (paired.difference, name, float(p), paired)
        for name, p, paired in zip(others, p_values, differences, strict=True)
        if paired.difference < 0 and p <= 1 - _LEVEL
    ]
    if not better:
        return None
    _, name, p, paired = min(better, key=lambda one: one[:2])
    return BetterScore(
        score=name,
        own=own,
        aurc=paired.a,
        own_aurc=paired.b,
        difference=paired.difference,
        low=paired.low,
        high=paired.high,
        p_value=p,
        compared=len(others),
        accuracy=float((results[name].prediction == labels).mean()),
        own_accuracy=float(right.mean()),
    )


def near_copies(state: ModelState, images: EncodedImages[Any]) -> NearCopies:
    """List the images whose features are nearly those of a shot."""
    if not len(state.support_labels):
        return NearCopies()
    threshold = near_duplicate_threshold(
        state.support_features, state.support_labels, n_classes=len(state.classes)
    )
    pairs = near_duplicates(images.features, state.support_features, threshold=threshold)
    paths = images.paths
    copies = (
        NearCopy(paths[pair.image], str(state.shots[pair.other]["path"]), pair.cosine)
        for pair in pairs
    )
    return NearCopies(tuple(copies), threshold)


def _all_scores(
    state: ModelState, evidence: Evidence, wanted: Sequence[str] | None
) -> dict[str, ScoreResult]:
    without = replace(evidence, label_confidence=None)
    if wanted is None:
        able = names() if evidence.given_labels is None else judging_given(evidence.has_text)
        wanted = [n for n in able if all(map(evidence.has, get(n).needs_of(without)))]
    chosen = list(dict.fromkeys([state.score, *wanted]))
    own = {state.score: state.parameters}
    return {
        (score := get(n)).name: apply(
            n, evidence if "label_confidence" in score.optional else without, **own.get(n, {})
        )
        for n in chosen
    }


# The file of an evaluation: its metrics, and what every score said of every image.


def evaluation_json(result: EvaluationResult) -> str:
    """Return `EvaluationResult.to_dict` and, under `images`, what each score said of each image.

    The long columns stand on one line each, so that the rest can be read.
    """
    settings = json.dumps(result.to_dict(), indent=2, allow_nan=False).removesuffix("\n}")
    columns = [f"    {json.dumps(k)}: {_line(v)}" for k, v in images_of(result).items()]
    return f'{settings},\n  "images": {{\n' + ",\n".join(columns) + "\n  }\n}\n"


def data_of(result: EvaluationResult) -> dict[str, Any]:
    """Say which images were evaluated: name, number, fingerprint of contents and labels."""
    return {
        "name": result.dataset,
        "n": len(result.labels),
        "fingerprint": fingerprint_of_data(result) or None,
    }


def fingerprint_of_data(result: EvaluationResult) -> str:
    """SHA-256 of the contents and true labels of the images; "" without their hashes.

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
        `class_names` (C,), and by image: `path`, `sha256` (null without them), `label` (index of
        the true class), `scores`: by name, `prediction` (index) and `confidence`, higher is more
        trusted.
    """
    n = len(result.labels)
    return {
        "class_names": list(result.class_names),
        "path": [row.path for row in result.verdicts],
        "sha256": list(result.hashes) if len(result.hashes) == n else [None] * n,
        "label": result.labels.tolist(),
        "scores": {
            name: {
                "prediction": judged.prediction.tolist(),
                "confidence": judged.confidence.tolist(),
            }
            for name, judged in result.results.items()
        },
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"      {json.dumps(k)}: {_line(v)}" for k, v in value.items()]
        if all(isinstance(v, list) for v in value.values()):
            return f"{{{', '.join(part.strip() for part in parts)}}}"
        return "{\n" + ",\n".join(parts) + "\n    }"
    return json.dumps(value, allow_nan=False)
