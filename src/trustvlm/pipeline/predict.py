"""From the evidence on images to verdicts: what text and examples say, the decision, the reason.

Whether a label is accepted is decided here, by `verdicts_with_shots` and `verdicts_without_shots`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Profile, Progress
from trustvlm.exceptions import InputError
from trustvlm.images import ImageSource
from trustvlm.monitoring.ood import OODGate, OtherClasses, Resemblance
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.given_labels import GivenLabels, NotJudgedError
from trustvlm.pipeline.records import EncodedImages, encode_images, encode_in_chunks
from trustvlm.pipeline.runs import Run
from trustvlm.pipeline.state import FittedModel, ModelState
from trustvlm.pipeline.verdict import RunOutcome, Verdict, in_order
from trustvlm.risk_control.goals import accept_on_agreement
from trustvlm.risk_control.prediction_sets import (
    SET_METHODS,
    PredictionSets,
    check_set_method,
)
from trustvlm.scores import Evidence, ScoreResult, prepare
from trustvlm.scores.arrays import pick, softmax
from trustvlm.scores.auto import auto_logits, fit_auto
from trustvlm.scores.evidence import prototype_similarities
from trustvlm.text import exact_number, number_beside

# A fitted model, made ready once to judge any number of images.


class ClassProbabilities:
    """Probabilities of all classes for an image, by text and shots together as `auto` weighs them.

    Without shots they are those of the text.

    Parameters
    ----------
    state
        Of the model, whatever its score.
    """

    def __init__(self, state: ModelState) -> None:
        shots = state.evidence_of_shots()
        self._auto = fit_auto(shots) if state.bank.present_.any() else None

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """`(n, C)` float64, rows that sum to 1."""
        return softmax(evidence.logits if self._auto is None else auto_logits(evidence, self._auto))


class Predictor:
    """What does not depend on the images: the shots' evidence, and what the score learns of it.

    Parameters
    ----------
    model
        Fitted; changes to it later have no effect.
    prediction_sets, set_method
        As in `TrustVLM.predict`.
    given
        Labels from elsewhere, which are judged instead of the model's own. The images then have
        to be the labelled ones that it was made of.

    Raises
    ------
    InputError
        If the model is not fitted, or was calibrated for another score, or for labels from
        elsewhere where its own are judged; or prediction sets are wanted, but it was not calibrated
        on images.
    """

    def __init__(
        self,
        model: FittedModel,
        prediction_sets: float | None = None,
        set_method: str = SET_METHODS[0],
        given: GivenLabels | None = None,
    ) -> None:
        state, self._embedder, self._given = model.state, model.embedder, given
        state.check_calibration()
        self._state = state.for_own_labels() if given is None else state.for_given_labels()
        self._shots = self._state.evidence_of_shots()
        self._score = prepare(self._state.score, self._shots, **self._state.parameters)
        self._gate = self._state.gate
        self._sets = None
        if prediction_sets is not None:
            self._sets = sets_of(self._state, prediction_sets, set_method)
        if prediction_sets is not None or given is not None:
            self._probabilities = ClassProbabilities(self._state)
        if given is not None:
            self._examples = frozenset(shot["sha256"] for shot in self._state.shots)

    def with_labels(self, given: GivenLabels) -> Predictor:
        """Return one that judges other labels from elsewhere, if it judges any at all."""
        other = copy.copy(self)
        other._given = given
        return other

    @property
    def whole_batch(self) -> bool:
        """Whether a verdict depends on the other images that are judged with it."""
        return self._score.whole_batch

    def encode(self, images: Iterable[ImageSource]) -> EncodedImages[Any]:
        """Encode images at once, as `judge` takes them."""
        return encode_images(images, self._embedder)

    def evidence(self, images: EncodedImages[Any]) -> Evidence:
        """Return the evidence of the readable images."""
        readable = images.readable()
        given: dict[str, Any] = {}
        if self._given is not None:
            given = self._given.pieces(readable.refs, self._score.score)
        return self._state.evidence(
            readable.image_embeddings,
            readable.features,
            shots=self._shots,
            **given,
        )

    def run(self) -> Run:
        """Begin a run, whose images `judge` and `chunks` then put in."""
        return Run(self._state)

    def judge(
        self,
        images: EncodedImages[Any],
        evidence: Evidence | None = None,
        run: Run | None = None,
    ) -> list[Verdict]:
        """Return one verdict per image, in input order, failures included.

        Callers that need `evidence` themselves pass it, so that nothing is computed twice. Images
        of a `run` are put into it, and where it alone says what is accepted, their decision is
        `pending` until `RunOutcome.decide`.
        """
        if self._given is not None:
            images = self._given.checked(images, self._examples)
        evidence, state = evidence or self.evidence(images), self._state
        result = self._score(evidence)
        instead = None
        if self._given is not None:
            instead = best_other(self._probabilities(evidence), result.prediction)
        shown = explain(evidence, result.prediction, self._gate, runner_up=instead)
        verdicts = verdicts_with_shots(
            result, shown, images.readable().paths, state.classes.labels, state.calibration, run
        )
        if self._sets is not None:
            probabilities, labels = self._probabilities(evidence), state.classes.labels
            inside = self._sets.contains(probabilities)
            orders = np.argsort(-probabilities, axis=1, kind="stable")
            verdicts = [
                replace(verdict, prediction_set=tuple(labels[c] for c in order if members[c]))
                for verdict, order, members in zip(verdicts, orders, inside, strict=True)
            ]
        merged = in_order(images, verdicts)
        if self._given is not None:
            merged = self._with_not_judged(images, merged)
        if self._sets is None:
            return merged
        # A set all the same, so that every part of a run has the same columns.
        return [replace(v, prediction_set=()) if v.decision == "error" else v for v in merged]

    def _with_not_judged(
        self, images: EncodedImages[Any], verdicts: list[Verdict]
    ) -> list[Verdict]:
        """Put in the verdicts on images whose given label cannot be judged."""
        problems = {i: e for i, e in enumerate(images.errors) if isinstance(e, NotJudgedError)}
        if self._given is None or not problems:
            return verdicts
        chosen = images.select(np.array(list(problems)))
        evidence = self._state.evidence(chosen.image_embeddings, chosen.features, shots=self._shots)
        best = self._probabilities(evidence).argmax(axis=1)
        for (i, problem), ref, c in zip(problems.items(), chosen.refs, best, strict=True):
            verdicts[i] = self._given.not_judged(ref, problem, self._state.classes.labels[c])
        return verdicts

    def judge_run(
        self,
        images: Iterable[ImageSource],
        when_invalid: str,
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> tuple[RunOutcome, list[Verdict]]:
        """Judge all images of a run, and decide once it is complete."""
        run = self.run()
        rows: list[Verdict] = []
        for _, verdicts in self.chunks(images, progress, profile, run):
            rows += verdicts
        outcome = run.outcome(when_invalid=when_invalid)
        return outcome, outcome.decide(rows)

    def chunks(
        self,
        images: Iterable[ImageSource],
        progress: Progress | None = None,
        profile: Profile | None = None,
        run: Run | None = None,
    ) -> Iterator[tuple[EncodedImages[Any], list[Verdict]]]:
        """Yield images chunk by chunk with their verdicts, in input order and bounded memory.

        A score of the whole batch judges all images together, in one chunk. `run` as in `judge`.
        """
        profile = profile or Profile()
        if self._score.whole_batch:
            chunks = iter([encode_images(images, self._embedder, progress, profile)])
        else:
            chunks = encode_in_chunks(images, self._embedder, progress, profile)
        for encoded in chunks:
            with profile.stage("scores"):
                verdicts = self.judge(encoded, run=run)
            yield encoded, verdicts


def best_other(
    probabilities: NDArray[np.float64], prediction: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`(n,)` most probable class besides the label; -1 if there is a single class."""
    others = probabilities.copy()
    np.put_along_axis(others, prediction[:, None], -1.0, axis=1)
    n, n_classes = others.shape
    return others.argmax(axis=1) if n_classes > 1 else np.full(n, -1)


def sets_of(state: ModelState, level: float, method: str) -> PredictionSets:
    """Return the prediction sets that the calibration of a model allows.

    Raises
    ------
    InputError
        If it was not calibrated on images by a version that keeps what it takes, or for a level
        outside (0, 1) or another method.
    """
    check_set_method(method)
    calibration = state.calibration
    if calibration is None or method not in calibration.set_scores:
        raise InputError(
            "Prediction sets need a model that was calibrated on labelled images: run "
            "`trustvlm calibrate` with this version first."
        )
    return PredictionSets.fit(
        calibration.set_scores[method],
        calibration.labels,
        len(state.classes),
        level=level,
        method=method,
    )


# What text and example images say of a prediction, side by side.


@dataclass(frozen=True)
class PredictionEvidence:
    """What text and examples say about the predictions for n images.

    Attributes
    ----------
    text_score
        `(n,)` softmax probability of the predicted class.
    image_score
        `(n,)` cosine with the prototype of the predicted class, NaN if it has none.
    text_choice
        `(n,)` class that the text side alone would choose; -1 without a VLM.
    nearest
        `(n,)` class of the most similar prototype, -1 if there is none at all.
    nearest_score
        `(n,)` its cosine, NaN if there is none.
    resemblance, gate
        Whether the image resembles the predicted class, or any, enough; and what decides that.
    runner_up
        `(n,)` class to consider instead: the nearest one if it is not the predicted one, else the
        most probable other one; -1 if there is a single class.
    runner_up_text, runner_up_image
        `(n,)` its probability and cosine, NaN where there is none.
    given
        Whether the predictions are labels from elsewhere.
    """

    text_score: NDArray[np.float64]
    image_score: NDArray[np.float64]
    text_choice: NDArray[np.int64]
    nearest: NDArray[np.int64]
    nearest_score: NDArray[np.float64]
    resemblance: Resemblance
    gate: OODGate
    runner_up: NDArray[np.int64]
    runner_up_text: NDArray[np.float64]
    runner_up_image: NDArray[np.float64]
    given: bool = False


def explain(
    evidence: Evidence,
    prediction: NDArray[np.int64],
    gate: OODGate | None = None,
    *,
    runner_up: NDArray[np.int64] | None = None,
) -> PredictionEvidence:
    """Compare predictions with what the text side and the image side say.

    Parameters
    ----------
    evidence
        Logits of n images; features and prototypes where there are any.
    prediction
        `(n,)` class indices, from any score.
    gate
        Which images resemble their label too little; by default none does.
    runner_up
        `(n,)` class to consider instead, where it is not to be that of `PredictionEvidence`.

    Examples
    --------
    >>> shown = explain(Evidence.of(logits=[[2.0, 0.0]]), np.array([0]))
    >>> shown.text_score.round(3), shown.runner_up, shown.nearest
    (array([0.881]), array([1]), array([-1]))
    """
    gate = gate or OODGate()
    n, n_classes = evidence.logits.shape
    p = softmax(evidence.logits)
    similarities = np.full((n, n_classes), np.nan)
    if evidence.bank is not None and evidence.features is not None:
        similarities = prototype_similarities(evidence)
    comparable = ~np.isnan(similarities).all(axis=1)
    filled = np.where(np.isnan(similarities), -np.inf, similarities)
    nearest = np.where(comparable, filled.argmax(axis=1), -1)
    if runner_up is None:
        by_text = best_other(p, prediction)
        runner_up = np.where(comparable & (nearest != prediction), nearest, by_text)
    nearest_score = _at(similarities, nearest)
    has_text = evidence.has_text
    return PredictionEvidence(
        text_score=_at(p, prediction) if has_text else np.full(n, np.nan),
        image_score=_at(similarities, prediction),
        text_choice=evidence.logits.argmax(axis=1) if has_text else np.full(n, -1),
        nearest=nearest,
        nearest_score=nearest_score,
        resemblance=gate.judge(
            similarities, evidence.logits, prediction, evidence.image_embeddings
        ),
        gate=gate,
        runner_up=runner_up,
        runner_up_text=_at(p, runner_up),
        runner_up_image=_at(similarities, runner_up),
        given=evidence.given_labels is not None,
    )


def _at(table: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.take_along_axis(table, np.maximum(columns, 0)[:, None], axis=1)[:, 0]
    return np.where(columns >= 0, values, np.nan)


# Why a verdict is what it is, in plain words.


def reasons(
    prediction: NDArray[np.int64], shown: PredictionEvidence, class_names: Sequence[str]
) -> list[str]:
    """Put the evidence for n predictions into one sentence each.

    Examples
    --------
    >>> evidence = Evidence.of(logits=[[2.0, 0.0]], features=[[0.0, 1.0]],
    ...                        support_features=[[1.0, 0.0], [0.0, 1.0]], support_labels=[0, 1])
    >>> prediction = np.array([0])
    >>> reasons(prediction, explain(evidence, prediction), ["a", "b"])[0][:48]
    "the image resembles the examples of 'b' (1.00) m"
    """
    sentences = []
    for i, c in enumerate(prediction):
        sentence = _comparison(i, int(c), shown, class_names)
        if not shown.resemblance.eligible[i]:
            # What it resembles most says little then, but still says why the label is what it is.
            why = _too_unlike(i, int(c), shown, class_names)
            sentence = why if shown.resemblance.other[i] >= 0 else f"{why}; {sentence}"
        sentences.append(sentence)
    return sentences


def _too_unlike(i: int, c: int, shown: PredictionEvidence, names: Sequence[str]) -> str:
    if shown.gate.others is not None and shown.resemblance.other[i] >= 0:
        return other_reason(i, c, shown.gate.others, shown.resemblance, names)
    # Not the resemblances themselves: only what they are compared with tells a reader anything.
    if np.isnan(shown.resemblance.of_label[i]):  # a label without examples of its own
        threshold, like = shown.gate.nearest, f"'{names[int(shown.nearest[i])]}', the nearest,"
        if not threshold.is_ood(shown.nearest_score[i]):
            return "the image resembles none of the classes that have examples"
        what, theirs = "none of the classes enough", "the class nearest to them"
    else:
        threshold, like = shown.gate.threshold, f"'{names[c]}'"
        what = (
            "none of the classes enough" if shown.resemblance.is_ood[i] else "its label too little"
        )
        theirs = "their own class"
    return (
        f"the image resembles {what}: it is less like {like} than at least "
        f"{math.floor(100 * (1 - threshold.false_flags))} % of the example images are like {theirs}"
    )


def other_reason(
    i: int, c: int, others: OtherClasses, resemblance: Resemblance, names: Sequence[str]
) -> str:
    """Say that the text prefers another class for image i to all labels, of which c is best."""
    return (
        f"the text says '{others.names[resemblance.other[i]]}' "
        f"({resemblance.other_score[i]:.2f}), which is none of the classes; of these "
        f"'{names[c]}' is the most likely"
    )


def name_others(
    verdicts: Sequence[Verdict], others: OtherClasses | None, resemblance: Resemblance
) -> list[Verdict]:
    """Give images of other classes their names; the label that they would have is runner-up.

    Parameters
    ----------
    verdicts
        On n images, none of another class accepted.
    others, resemblance
        What the gate says of them.
    """
    if others is None:
        return list(verdicts)
    return [
        verdict
        if c < 0
        else replace(
            verdict,
            label=others.names[c],
            p_correct=math.nan,
            text_score=float(score),
            image_score=math.nan,
            runner_up=verdict.label,
        )
        for verdict, c, score in zip(
            verdicts, resemblance.other, resemblance.other_score, strict=True
        )
    ]


def with_threshold(
    reasons: Sequence[str],
    confidence: NDArray[np.float64],
    threshold: NDArray[np.float64],
    *,
    stopped: NDArray[np.bool_] | None = None,
) -> list[str]:
    """Put before each reason whether the confidence reaches its threshold, NaN for none.

    Images that the gate stopped are reviewed whatever their confidence: their reason says so.

    Examples
    --------
    >>> for why in with_threshold(["why"] * 3, np.array([1.5, 1, 1]), np.array([1.2, 1.2, np.nan])):
    ...     print(why)
    confidence 1.5 reaches the threshold 1.2: why
    confidence 1 is below the threshold 1.2: why
    no threshold is certified: why
    """
    whole = []
    for i, why in enumerate(reasons):
        if stopped is not None and stopped[i]:
            whole.append(why)
            continue
        c, t = float(confidence[i]), float(threshold[i])
        if np.isnan(t):
            begin = "no threshold is certified"
        else:
            reaches = "reaches" if c >= t else "is below"
            begin = f"confidence {number_beside(c, t)} {reaches} the threshold {exact_number(t)}"
        whole.append(f"{begin}: {why}")
    return whole


def _comparison(i: int, c: int, shown: PredictionEvidence, names: Sequence[str]) -> str:
    label, runner_up = names[c], int(shown.runner_up[i])
    text, image = shown.text_score[i], shown.image_score[i]
    nearest, text_choice = int(shown.nearest[i]), int(shown.text_choice[i])
    if shown.given:
        return _on_given_label(i, c, shown, names)
    instead = f"; the VLM said '{names[text_choice]}'" if text_choice != c else ""
    if np.isnan(image):
        why = f"there are no example images of '{label}', so only the text supports it ({text:.2f})"
        if nearest >= 0:
            why += (
                f"; among the classes with examples the image resembles '{names[nearest]}' most "
                f"({shown.nearest_score[i]:.2f})"
            )
        return f"{why}{instead}"
    if nearest != c:
        return (
            f"the image resembles the examples of '{names[nearest]}' "
            f"({shown.nearest_score[i]:.2f}) more than those of '{label}' ({image:.2f}), "
            f"the predicted class{instead}"
        )
    if text_choice != c:
        return (
            f"the image resembles the examples of '{label}' most ({image:.2f}), which outweighs "
            f"the text's choice of '{names[text_choice]}'"
        )
    if runner_up < 0:
        return f"the image resembles the examples of '{label}' ({image:.2f}), the only class"
    other, rival = names[runner_up], shown.runner_up_image[i]
    compared = "" if np.isnan(rival) else f", '{other}' {rival:.2f}"
    agreement = f"text and examples agree on '{label}' (examples {image:.2f}{compared})"
    if text < 0.5:
        agreement += (
            f"; the text alone is unsure ({text:.2f}, '{other}' {shown.runner_up_text[i]:.2f})"
        )
    return agreement


def _on_given_label(i: int, c: int, shown: PredictionEvidence, names: Sequence[str]) -> str:
    """Say of a label from elsewhere what the examples, and the VLM if there is one, say of it."""
    label, nearest, image = names[c], int(shown.nearest[i]), shown.image_score[i]
    vlm = int(shown.text_choice[i])
    says = "" if vlm < 0 else f"; the VLM says '{names[vlm]}'" + (" too" if vlm == c else "")
    if np.isnan(image):
        most = "" if nearest < 0 else f"; the image resembles those of '{names[nearest]}' most"
        return f"there are no example images of '{label}'{most}{says}"
    if nearest != c:
        return (
            f"the image resembles the examples of '{names[nearest]}' "
            f"({shown.nearest_score[i]:.2f}) more than those of '{label}' ({image:.2f}), the given "
            f"label{says}"
        )
    return (
        f"the image resembles the examples of '{label}', the given label, most ({image:.2f}){says}"
    )


# The same where there are no shots, and images are compared with each other.


def reason_without_shots(
    label: int,
    text_choice: int,
    choice: int,
    text: NDArray[np.float64],
    names: Sequence[str],
    *,
    sure: bool,
    with_others: bool = False,
    compared: bool = True,
) -> str:
    """Say in one sentence what the text, and the images that one resembles, say of it.

    Parameters
    ----------
    label, text_choice, choice
        Index of the predicted class, and of those that the text alone and the images together
        would choose.
    text
        `(C,)` softmax probabilities of the text.
    names
        Of the C classes.
    sure
        Whether the label is more likely right than wrong.
    with_others
        Whether the text could have chosen another class instead.
    compared
        Whether there are other images at all, copies aside.
    """
    if len(names) == 1 and with_others:
        return f"the text says '{names[0]}' rather than any other class"
    if len(names) == 1:
        return f"'{names[0]}' is the only class to choose from: there is nothing to compare it with"
    if not compared:
        alone = (
            f"the text says '{names[label]}' ({text[label]:.2f}), and there is no other image to "
            "compare this one with"
        )
        return alone if sure else f"{alone}; it is less likely right than wrong"
    if choice != label:
        return (
            f"the text says '{names[label]}' ({text[label]:.2f}), but the images that this one "
            f"resembles are '{names[choice]}'"
        )
    if text_choice != label:
        return (
            f"the images that this one resembles are '{names[label]}', which outweighs the text's "
            f"choice of '{names[text_choice]}' ({text[text_choice]:.2f})"
        )
    agreement = f"the text and the images that this one resembles agree on '{names[label]}'"
    if text[label] < 0.5:
        agreement += f"; the text alone is unsure ({text[label]:.2f})"
    return agreement if sure else f"{agreement}; even so it is less likely right than wrong"


# The decision: `accept` or `review`, and the sentence that says why.


def verdicts_with_shots(
    result: ScoreResult,
    shown: PredictionEvidence,
    paths: Sequence[str],
    class_names: Sequence[str],
    calibration: Calibration | None = None,
    run: Run | None = None,
) -> list[Verdict]:
    """Combine a score's result with what text and example images say into n verdicts.

    A label is accepted if its confidence reaches the threshold of the calibration and the image
    resembles it enough; without a certified rule as `risk_control.goals.accept_on_agreement` says.
    Where the threshold follows from the whole `run`, the decision is `pending`.
    """
    sentences = reasons(result.prediction, shown, class_names)
    thresholds = None if calibration is None else calibration.thresholds(result)
    pending = np.zeros(len(paths), dtype=bool)
    # What is no finite number says nothing, and is accepted by no rule.
    finite = np.isfinite(result.confidence)
    if not finite.all():
        result = replace(result, confidence=np.where(finite, result.confidence, math.nan))
    eligible = shown.resemblance.eligible & finite
    if thresholds is None:
        accepted = accept_on_agreement(result.prediction, shown.nearest, ~eligible)
    else:
        accepted = (result.confidence >= thresholds) & eligible
        if run is not None and run.decides:
            pending = eligible
        else:
            sentences = with_threshold(sentences, result.confidence, thresholds, stopped=~eligible)
    if run is not None:
        run.add(result, shown.nearest_score, shown.resemblance, accepted)
    p_correct = np.full(len(paths), math.nan)
    if calibration is not None:
        p_correct = calibration.p_correct(result)
    rows = _rows(
        paths,
        class_names,
        result,
        decision=np.where(pending, "pending", np.where(accepted, "accept", "review")),
        p_correct=p_correct,
        text_score=shown.text_score,
        image_score=shown.image_score,
        runner_up=shown.runner_up,
        sentences=sentences,
        text_choice=shown.text_choice,
        corrects=not shown.given,
    )
    return name_others(rows, shown.gate.others, shown.resemblance)


def verdicts_without_shots(
    result: ScoreResult,
    logits: NDArray[np.float64],
    together: NDArray[np.float64],
    paths: Sequence[str],
    class_names: Sequence[str],
    other_classes: OtherClasses | None = None,
    image_embeddings: NDArray[Any] | None = None,
    *,
    compared: bool = True,
) -> list[Verdict]:
    """Combine a score's result on n images that verify each other into n verdicts.

    A label is accepted if the text and the images together choose it, and it is more likely right
    than wrong; where there is a single class, nothing verifies it.

    Parameters
    ----------
    result
        Of a score without shots, with confidences above 0 where a label is more likely right.
    logits, together
        `(n, C)` what the text says, and what it says once the images have been compared.
    paths, class_names
        Of the n images and the C classes.
    other_classes, image_embeddings
        What images of none of the classes may show, and the `(n, e)` vectors to compare with it.
    compared
        Whether there are several different images among them.
    """
    text, several = softmax(logits), len(class_names) > 1
    resemblance = OODGate(others=other_classes).judge(
        np.full(logits.shape, np.nan), logits, result.prediction, image_embeddings
    )
    text_choice, choice = logits.argmax(axis=1), together.argmax(axis=1)
    others = together.copy()
    np.put_along_axis(others, result.prediction[:, None], -np.inf, axis=1)
    sure = (result.confidence > 0) & np.isfinite(result.confidence)
    # Other classes are something to choose from, too.
    agree = (result.prediction == choice) & (choice == text_choice)
    agree &= resemblance.eligible & (several or other_classes is not None)
    rows = _rows(
        paths,
        class_names,
        result,
        decision=np.where(agree & sure, "accept", "review"),
        p_correct=np.full(len(paths), math.nan),
        text_score=pick(text, result.prediction),
        image_score=np.full(len(paths), math.nan),
        runner_up=others.argmax(axis=1) if several else np.full(len(paths), -1),
        sentences=[
            other_reason(i, int(label), other_classes, resemblance, class_names)
            if other_classes is not None and resemblance.other[i] >= 0
            else reason_without_shots(
                int(label),
                int(text_choice[i]),
                int(choice[i]),
                text[i],
                class_names,
                sure=bool(sure[i]),
                with_others=other_classes is not None,
                compared=compared,
            )
            for i, label in enumerate(result.prediction)
        ],
        text_choice=text_choice,
    )
    return name_others(rows, other_classes, resemblance)


def _rows(
    paths: Sequence[str],
    class_names: Sequence[str],
    result: ScoreResult,
    *,
    decision: NDArray[np.str_],
    p_correct: NDArray[np.float64],
    text_score: NDArray[np.float64],
    image_score: NDArray[np.float64],
    runner_up: NDArray[np.int64],
    sentences: Sequence[str],
    text_choice: NDArray[np.int64],
    corrects: bool = True,
) -> list[Verdict]:
    return [
        Verdict(
            path=path,
            label=class_names[result.prediction[i]],
            confidence=float(result.confidence[i]),
            p_correct=float(p_correct[i]),
            decision=str(decision[i]),
            text_score=float(text_score[i]),
            image_score=float(image_score[i]),
            runner_up=class_names[runner_up[i]] if runner_up[i] >= 0 else "",
            reason=sentences[i],
            error="",
            vlm_label=class_names[text_choice[i]] if text_choice[i] >= 0 else "",
            corrected=corrects and bool(result.prediction[i] != text_choice[i]),
        )
        for i, path in enumerate(paths)
    ]
