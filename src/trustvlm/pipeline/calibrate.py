"""Learn from labelled images, or from the shots, how far a model's verdicts can be relied on."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.calibration.calibrators import DEFAULT_CALIBRATOR, Calibrator, LogisticPrior
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import Columns, LabelledSource
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.cross_validate import cross_validate
from trustvlm.pipeline.labellers import Labeller, encode_labelled
from trustvlm.pipeline.predict import ClassProbabilities, explain
from trustvlm.pipeline.records import (
    OR_EXCLUDE,
    EncodedImages,
    exclude_leaked,
    name_of,
)
from trustvlm.pipeline.state import FittedModel, ModelState, now
from trustvlm.pipeline.verdict import failures_of
from trustvlm.risk_control.goals import Goal, goal_of, looks_statement
from trustvlm.risk_control.prediction_sets import true_label_scores
from trustvlm.scores import ScoreResult, apply, get


def calibrate(
    model: FittedModel,
    labelled: LabelledSource,
    goal: Goal,
    calibrator: str,
    *,
    name: str | None = None,
    exclude_shots: bool = False,
    gate: bool = True,
    labeller: Labeller | None = None,
    groups: Sequence[str] | None = None,
    progress: Progress | None = None,
    **columns: Unpack[Columns],
) -> ModelState:
    """Learn P(correct) and a rule for accepting, as `TrustVLM.calibrate` says.

    With a `labeller`, of its labels of the same images instead of the model's own. Images without
    one, or whose label is no class, are left out.

    Raises
    ------
    LeakError, InputError
        As there.
    """
    fitted = model.state
    state = fitted.for_own_labels() if labeller is None else fitted.for_given_labels()
    goal.check()
    _check(state, calibrator)
    encoded = encode_labelled(
        labelled, state.classes, model.embedder, labeller, progress, groups=groups, **columns
    )
    images = _usable(state, encoded, exclude_shots)
    given = {} if labeller is None else labeller.pieces(images.refs, get(state.score))
    kind = state.usual_gate if gate else "none"
    calibration = _calibration(
        state,
        (images.features, images.image_embeddings),
        images.labels,
        goal,
        _learner(state, calibrator, given=labeller is not None),
        kind,
        given,
    )
    calibration = replace(
        calibration,
        images=images.contents(),
        dataset=name_of(labelled) if name is None else name,
        unreadable=tuple(failure.path for failure in failures_of(encoded)),
        given=labeller is not None,
        groups=columns.get("group_column") or ("given" if groups is not None else ""),
    )
    return _after(fitted, state.calibration, calibration)


# Vectors of more calibration images than this are not kept: 128 MiB, some 26,000 images.
_MOST_VECTORS = 2**25


def _calibration(
    state: ModelState,
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    labels: NDArray[np.int64],
    goal: Goal,
    learner: Calibrator,
    gate: str,
    given: dict[str, Any],
) -> Calibration:
    """Learn P(correct) and a rule from features and image embeddings; images are not named yet."""
    features, image_embeddings = vectors
    evidence = state.evidence(image_embeddings, features, **given)
    result = apply(state.score, evidence, **state.parameters)
    # What the gate stops is reviewed in any case: the guarantee is about the other images.
    stop = state.gate_of(gate)
    shown = explain(evidence, result.prediction, stop)
    eligible = shown.resemblance.eligible
    typicality = None if np.isnan(shown.nearest_score).any() else shown.nearest_score
    correct = result.prediction == labels
    rule, *other_rules = goal.rules(
        result.confidence, correct, result.prediction, len(state.classes), eligible
    )
    # Labels from elsewhere are not on record, so that they could not be judged again.
    small = features.size + image_embeddings.size <= _MOST_VECTORS
    return Calibration(
        certificate=rule,
        calibrator=learner.fit(result.confidence, correct),
        result=result,
        labels=labels,
        images=(),
        dataset="",
        score=state.score,
        parameters=state.parameters,
        created_at=now(),
        typicality=typicality,
        gate=gate,
        eligible=eligible if stop.active else None,
        other_rules=tuple(other_rules),
        set_scores=true_label_scores(ClassProbabilities(state)(evidence), labels),
        vectors=vectors if small and not given else None,
    )


def calibrate_again(
    state: ModelState, earlier: Calibration, labels: NDArray[np.int64] | None = None
) -> ModelState:
    """Calibrate a model that has other shots now, for the same goal and on the same images.

    On images, that takes their vectors in `earlier`; a calibration from the shots is learned from
    those that there are now. The result is that of calibrating on the images themselves.

    Parameters
    ----------
    state
        The model now; it has no calibration.
    earlier
        Of the model before.
    labels
        `(n,)` classes that the images have now, -1 for those to leave out; None for the same ones.

    Raises
    ------
    InputError
        If that calibration cannot be repeated: `repeatable` says so beforehand.
    """
    name = earlier.calibrator.name
    if earlier.certificate is None:
        return calibrate_on_shots(replace(state, calibration=earlier), name)
    if not repeatable(earlier):
        raise InputError("The model does not hold what its calibration could be repeated with.")
    assert earlier.vectors is not None  # noqa: S101 -- it is repeatable
    _check(state, name)
    learner = _learner(state, name)
    goal = goal_of(earlier.rules)
    now_of = earlier.labels if labels is None else labels
    rows = np.flatnonzero(now_of >= 0)
    if not len(rows):
        raise InputError("No calibration image is left to calibrate on.")
    features, embeddings = earlier.vectors
    calibration = _calibration(
        state, (features[rows], embeddings[rows]), now_of[rows], goal, learner, earlier.gate, {}
    )
    calibration = replace(
        calibration,
        images=tuple(earlier.images[i] for i in rows),
        dataset=earlier.dataset,
        unreadable=earlier.unreadable,
        groups=earlier.groups,
    )
    # Its cost is for the report to state: `renewed_statement`.
    return _after(state, earlier, calibration, warn=False)


def renewed_statement(calibration: Calibration | None) -> str:
    """Say what a calibration that was repeated guarantees, and what a further look costs."""
    if calibration is None:
        return ""
    looks = calibration.looks
    return calibration.statement + (f". {looks_statement(looks)}" if looks > 1 else "")


def repeatable(calibration: Calibration) -> bool:
    """Whether `calibrate_again` can repeat a calibration without the images themselves."""
    on_shots = calibration.certificate is None
    return on_shots or (calibration.vectors is not None and not calibration.given)


def calibrate_command(earlier: Calibration) -> str:
    """Return the command that makes a calibration again, on images that NEW.trust does not hold."""
    if not earlier.rules:
        return "trustvlm calibrate NEW.trust --from-shots"
    words = ["trustvlm calibrate NEW.trust LABELLED", calibrate_options(goal_of(earlier.rules))]
    if earlier.given:
        words.append("--given-labels LABELS")
    if earlier.groups not in ("", "given"):
        words.append(f"--group-column {shlex.quote(earlier.groups)}")
    return " ".join(words)


def calibrate_options(goal: Goal) -> str:
    """Return the options of `trustvlm calibrate` for a goal; those of single classes are left out.

    Examples
    --------
    >>> calibrate_options(Goal(0.02, 0.9, other_risks=(0.1,))), calibrate_options(Goal())
    ('--risk 0.02,0.1 --confidence 0.9', '--risk 0.05')
    """
    plain = Goal()
    words = []
    if goal.min_coverage is not None:
        words.append(f"--min-coverage {goal.min_coverage:g}")
    elif goal.cost_error is not None and goal.cost_review is not None:
        words.append(f"--cost-error {goal.cost_error:g} --cost-review {goal.cost_review:g}")
    else:
        words.append("--risk " + ",".join(f"{r:g}" for r in (goal.risk, *goal.other_risks)))
    if goal.confidence_level != plain.confidence_level:
        words.append(f"--confidence {goal.confidence_level:g}")
    if goal.per_class:
        words.append("--per-class")
    if goal.guarantee != plain.guarantee:
        words.append(f"--guarantee {goal.guarantee}")
    if goal.method not in (plain.method, "coverage"):
        words.append(f"--method {goal.method}")
    return " ".join(words)


def calibrate_on_shots(state: ModelState, calibrator: str) -> ModelState:
    """Learn P(correct) from the shots, each judged without itself, as `TrustVLM` says.

    Raises
    ------
    InputError
        If no class has two shots.
    """
    _check(state.for_own_labels(), calibrator)
    shots = _held_out_shots(state)
    learner = _learner(state, calibrator, shots)
    if learner.prior is None:
        learner.fit(shots.result.confidence, shots.correct)
    else:
        # What the shots say is in the prior.
        learner.fit([], [])
    calibration = Calibration(
        certificate=None,
        calibrator=learner,
        result=shots.result,
        labels=shots.labels,
        images=(),
        dataset="shots",
        score=state.score,
        parameters=state.parameters,
        created_at=now(),
    )
    return _after(state, state.calibration, calibration)


def _after(
    state: ModelState, earlier: Calibration | None, calibration: Calibration, *, warn: bool = True
) -> ModelState:
    """Return the model so calibrated, with a count of looks at the labels of the same images.

    What a certificate allows is a probability over the draw of images whose labels nobody has
    looked at. One that is tried with other settings until it pleases has had several chances. The
    count is one more than that of the image which was looked at most, and becomes that of all.
    """
    own = [image["sha256"] for image in calibration.images]
    again = sum(digest in state.looked_at for digest in own)
    looks = 1 + max((state.looked_at.get(digest, 0) for digest in own), default=0)
    if again:
        if earlier is not None and _asks_the_same(calibration, earlier):
            # The same question gets the same answer: nothing new was learned from the labels.
            looks, cost = earlier.looks, "asked for the same again, this changes nothing."
        else:
            cost = (
                f"{looks_statement(looks)} For a guarantee in full, fix score and risk beforehand, "
                "and calibrate once, on images whose labels nothing was chosen by."
            )
        if warn:
            warnings.warn(
                f"{again} of the {len(own)} images were calibrated on before: {cost}",
                TrustVLMWarning,
                stacklevel=4,
            )
    return replace(
        state,
        calibration=replace(calibration, looks=looks),
        looked_at={**state.looked_at, **dict.fromkeys(own, looks)},
    )


def _asks_the_same(calibration: Calibration, earlier: Calibration) -> bool:
    """Whether two calibrations ask the same of the same images."""

    def question(of: Calibration) -> tuple[Any, ...]:
        images = {image["sha256"] for image in of.images}
        return of.score, dict(of.parameters), of.gate, of.given, images

    asked, before = calibration.certificate, earlier.certificate
    return (
        question(calibration) == question(earlier)
        and asked is not None
        and before is not None
        and asked.to_dict() == before.to_dict()
        # With other shots it is another question, though nothing may be certified twice.
        and np.allclose(calibration.result.confidence, earlier.result.confidence, equal_nan=True)
    )


def _check(state: ModelState, calibrator: str) -> None:
    if state.whole_batch:
        raise InputError(
            f"With the score `{state.score}` a verdict depends on the other images of its batch: "
            "what holds on one batch cannot be guaranteed of another. Adapt once instead, with "
            "`trustvlm fit --adapt-to IMAGES`, or calibrate another score."
        )
    Calibrator(calibrator).check()


def _learner(
    state: ModelState,
    calibrator: str,
    shots: _HeldOutShots | None = None,
    *,
    given: bool = False,
) -> Calibrator:
    """Return a calibrator that begins with what is known without labelled images, if it can.

    That is the log-odds that the score itself estimates, or what the held-out shots say of the
    VLM's labels. Where no class has two shots, or the labels are given, nothing is known of another
    score.
    """
    if calibrator != DEFAULT_CALIBRATOR:
        return Calibrator(calibrator)
    if get(state.score).log_odds:
        return Calibrator(calibrator, LogisticPrior())
    if given or (shots is None and not (np.bincount(state.support_labels) > 1).any()):
        return Calibrator(calibrator)
    shots = shots or _held_out_shots(state)
    return Calibrator(calibrator, LogisticPrior.of_held_out(shots.result.confidence, shots.correct))


@dataclass(frozen=True)
class _HeldOutShots:
    """The shots of classes with two or more, each judged by the others, and their classes."""

    result: ScoreResult
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.result.prediction == self.labels
        return right


def _held_out_shots(state: ModelState) -> _HeldOutShots:
    """Judge each shot by the others; raises `InputError` if no class has two."""
    validated = cross_validate(
        state.evidence_of_shots(),
        [state.score],
        folds=max(2, int(np.bincount(state.support_labels).max(initial=0))),
        parameters={state.score: state.parameters},
    )
    return _HeldOutShots(validated.results[get(state.score).name], validated.labels)


def _usable(
    state: ModelState, encoded: EncodedImages[Any], exclude_shots: bool
) -> EncodedImages[Any]:
    """Return the readable images that the model has not learned from, each content once."""
    for failure in failures_of(encoded):
        warnings.warn(f"left out: {failure.error}", TrustVLMWarning, stacklevel=4)
    images, _ = exclude_leaked(
        encoded.readable(),
        state.learned_from(calibrated_on=False),
        exclude=exclude_shots,
        purpose="the model would seem better than it is. Calibrate on other images, " + OR_EXCLUDE,
    )
    copies = int((~images.is_first).sum())
    if copies:
        warnings.warn(
            f"{copies} copies of other images left out: images must be independent of each other",
            TrustVLMWarning,
            stacklevel=4,
        )
    if not len(images):
        raise InputError("No labelled image is left to calibrate on: all are unreadable or shots.")
    return images.select(images.is_first)
