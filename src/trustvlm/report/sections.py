"""What the page of an evaluation shows: classes, confusions, images, examples, calibration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.risk_control.goals import looks_statement
from trustvlm.text import counted, percent

if TYPE_CHECKING:
    from trustvlm.data_quality.checks import Health
    from trustvlm.pipeline.evaluate import EvaluationResult
    from trustvlm.pipeline.shot_quality import ShotHealth


@dataclass(frozen=True)
class ReportGroup:
    """Cases that show one thing.

    Attributes
    ----------
    title, meaning
        What they show, and what that means.
    cases
        `ImageCase` or `ShotCase`, the most telling first.
    left_out
        How many more there are.
    """

    title: str
    meaning: str
    cases: tuple[Any, ...]
    left_out: int = 0

    def first(self, most: int) -> ReportGroup:
        """Return the group with its first cases alone."""
        return replace(self, cases=self.cases[:most], left_out=max(0, len(self.cases) - most))


@dataclass(frozen=True)
class ImageCase:
    """One image to show.

    Attributes
    ----------
    file, path
        Where its pixels are, and its name as the user knows it.
    truth, label, confidence, reason
        True class, predicted class, and the verdict's confidence and reason.
    right
        Whether the predicted label is right.
    decision
        `accept` or `review`.
    standing
        How its trust compares with that of the other images, in words.
    vlm_label
        What the VLM itself says, where `label` is another one; else "".
    """

    file: Path | None
    path: str
    truth: str
    label: str
    confidence: float
    reason: str
    right: bool
    decision: str
    standing: str
    vlm_label: str = ""


def _image(evaluation: EvaluationResult, index: int, standing: str = "") -> ImageCase:
    verdict = evaluation.verdicts[int(index)]
    truth = int(evaluation.labels[index])
    result = evaluation.results[evaluation.score]
    label = int(result.prediction[index])
    return ImageCase(
        file=evaluation.files[int(index)],
        path=verdict.path,
        truth=evaluation.class_names[truth],
        label=evaluation.class_names[label],
        confidence=float(result.confidence[index]),
        reason=verdict.reason,
        right=label == truth,
        decision=verdict.decision,
        standing=standing,
        vlm_label=verdict.vlm_label if verdict.corrected else "",
    )


# The evaluation class by class.


@dataclass(frozen=True)
class ClassRow:
    """One class of the evaluation.

    Attributes
    ----------
    name
        The class.
    images, right, wrong
        Evaluated images whose true class it is, by whether the predicted label is right.
    shots
        Example images that the model was fitted with; None if the artefact does not say.
    accuracy, confidence
        Share right and mean confidence; NaN without images.
    confusion, confused
        The wrong label most often given instead and how often; "" and 0 if there is none.
    auroc
        Of right against wrong images of this class; NaN unless it has both.
    """

    name: str
    images: int
    shots: int | None
    right: int
    wrong: int
    accuracy: float
    confidence: float
    confusion: str
    confused: int
    auroc: float


def class_rows(evaluation: EvaluationResult) -> list[ClassRow]:
    """Return one row per class, in the order of the class names, for the model's own score."""
    names = evaluation.class_names
    result = evaluation.results[evaluation.score]
    correct = evaluation.correct()
    shots = shots_by_class(evaluation.model, len(names))
    order = np.argsort(evaluation.labels, kind="stable")
    bounds = np.searchsorted(evaluation.labels[order], np.arange(len(names) + 1))
    rows = []
    for label, name in enumerate(names):
        members = order[bounds[label] : bounds[label + 1]]
        right, confidence = correct[members], result.confidence[members]
        wrong = Counter(result.prediction[members[~right]].tolist())
        # The most frequent one; of equally frequent ones the first class.
        confusion = min(wrong, key=lambda c: (-wrong[c], c), default=None)
        both = bool(right.any() and not right.all())
        rows.append(
            ClassRow(
                name=name,
                images=len(members),
                shots=None if shots is None else shots[label],
                right=int(right.sum()),
                wrong=int((~right).sum()),
                accuracy=float(right.mean()) if len(members) else math.nan,
                confidence=float(confidence.mean()) if len(members) else math.nan,
                confusion="" if confusion is None else names[confusion],
                confused=0 if confusion is None else wrong[confusion],
                auroc=float(metrics.auroc(confidence, right)) if both else math.nan,
            )
        )
    return rows


def shots_by_class(manifest: Mapping[str, Any], n_classes: int) -> Sequence[int] | None:
    """Return the shots of each of the C classes; None if the manifest does not tell.

    Examples
    --------
    >>> shots_by_class({"shots": {"counts": [0, 16]}}, 2)
    [0, 16]
    >>> shots_by_class({}, 2) is None
    True
    """
    shots = manifest.get("shots")
    counts = shots.get("counts") if isinstance(shots, Mapping) else None
    if not isinstance(counts, list) or len(counts) != n_classes:
        return None
    return counts


# The pairs of classes that are mistaken for each other most, with pictures.


@dataclass(frozen=True)
class Confusion:
    """One class taken for another.

    Attributes
    ----------
    truth, label
        What the images show, and what they are labelled.
    count, of
        How many images of the true class carry this label, and how many images it has.
    back
        How many images are mistaken the other way round.
    images
        Some of them, most trusted first: the ones that a threshold would let through.
    """

    truth: str
    label: str
    count: int
    of: int
    back: int
    images: tuple[ImageCase, ...]

    @property
    def sentence(self) -> str:
        """How often, in words."""
        text = f"{counted(self.count, 'image')} of {self.of:,} ({percent(self.count / self.of, 0)})"
        return f"{text}; the other way round {self.back:,}" if self.back else text


def confusions(
    evaluation: EvaluationResult, pairs: int = 6, pictures: int = 3
) -> tuple[Confusion, ...]:
    """Return the most frequent confusions of the model's own labels, the first classes on ties.

    Parameters
    ----------
    evaluation
        As of `write_html`.
    pairs, pictures
        At most so many confusions, with at most so many pictures each.
    """
    own = evaluation.results[evaluation.score]
    n_classes = len(evaluation.class_names)
    wrong = np.flatnonzero(~evaluation.correct())
    code = evaluation.labels[wrong] * n_classes + own.prediction[wrong]
    codes, counts = np.unique(code, return_counts=True)
    totals = np.bincount(evaluation.labels, minlength=n_classes)
    often = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    pairs_shown = []
    for rank in np.argsort(-counts, kind="stable")[:pairs]:
        truth, label = divmod(int(codes[rank]), n_classes)
        members = wrong[code == codes[rank]]
        pairs_shown.append(
            Confusion(
                truth=evaluation.class_names[truth],
                label=evaluation.class_names[label],
                count=int(counts[rank]),
                of=int(totals[truth]),
                back=often.get(label * n_classes + truth, 0),
                images=tuple(
                    _image(evaluation, i) for i in _first(members, -own.confidence, pictures)
                ),
            )
        )
    return tuple(pairs_shown)


# Which images a reader should see: the telling errors and the telling successes.


def galleries(evaluation: EvaluationResult, limit: int = 6) -> list[ReportGroup]:
    """Choose the images to show, at most `limit` errors and half as many others of a kind.

    Ties keep the input order.

    Most confident errors, least trusted correct ones and, if there is a baseline to compare with,
    rescued errors: labels that the text alone gets wrong and yet trusts (its MSP is in the upper
    half), and that the model's own score corrects or moves to the lower half.
    """
    confidence = evaluation.results[evaluation.score].confidence
    correct = evaluation.correct()
    errors = _first(np.flatnonzero(~correct), -confidence, limit)
    doubted = _first(np.flatnonzero(correct), confidence, limit // 2)
    own = trusted_less(confidence)
    groups = [
        ReportGroup(
            "Most confident errors",
            "Wrong labels with the highest trust: what would slip through first. "
            f"{_slipped(evaluation)}"
            if len(errors)
            else "Every predicted label is right: there is no error to show.",
            tuple(_image(evaluation, i, _standing(own[i])) for i in errors),
        ),
        ReportGroup(
            "Least trusted correct ones",
            "Right labels with the lowest trust: what a threshold would send to review in vain."
            if len(doubted)
            else "No predicted label is right: there is none to show.",
            tuple(_image(evaluation, i, _standing(own[i])) for i in doubted),
        ),
    ]
    if "msp" in evaluation.results and evaluation.score != "msp":
        groups.append(_rescued(evaluation, own, limit // 2))
    return groups


def _slipped(evaluation: EvaluationResult) -> str:
    wrong = np.array(evaluation.verdicts.column("decision"))[~evaluation.correct()]
    accepted = int((wrong == "accept").sum())
    return (
        f"Of {counted(len(wrong), 'wrong label')} the model's rule accepts {accepted:,} and sends "
        f"{len(wrong) - accepted:,} to review."
    )


def trusted_less(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n,)` for each image, the share of all images that are trusted strictly less.

    Examples
    --------
    >>> trusted_less(np.array([0.3, 0.1, 0.3, 0.9]))
    array([0.25, 0.  , 0.25, 0.75])
    """
    ordered = np.sort(confidence)
    return np.searchsorted(ordered, confidence, side="left") / max(1, len(confidence))


def _rescued(evaluation: EvaluationResult, own: NDArray[np.float64], limit: int) -> ReportGroup:
    baseline = evaluation.results["msp"]
    text = trusted_less(baseline.confidence)
    text_right = baseline.prediction == evaluation.labels
    right = evaluation.correct()
    trusted = text >= 0.5
    caught = trusted & ~text_right & (right | (own < 0.5))
    spoilt = trusted & text_right & (~right | (own < 0.5))
    # Corrected labels first, then those that lose most trust.
    chosen = _first(np.flatnonzero(caught), np.where(right, -1.0, own - text), limit)
    cases = []
    for i in chosen:
        if right[i]:
            before = evaluation.class_names[baseline.prediction[i]]
            standing = f"corrected: by text alone the label is {before}"
        else:
            standing = (
                f"by text alone trusted more than {percent(text[i], 0)} of the images, "
                f"here more than {percent(own[i], 0)}"
            )
        # The standing says already what the VLM said.
        case = _image(evaluation, i, standing)
        cases.append(replace(case, vlm_label="") if right[i] else case)
    meaning = (
        "Wrong labels that the text alone (MSP) trusts, being in the upper half of its order, and "
        "that this score corrects or moves to the lower half. "
        f"It does so for {counted(int(caught.sum()), 'wrong label')}; "
        f"{counted(int(spoilt.sum()), 'right label')} fared just as badly."
    )
    return ReportGroup("Rescued errors", meaning, tuple(cases))


def _first(candidates: NDArray[np.intp], keys: NDArray[np.float64], limit: int) -> NDArray[np.intp]:
    """Return the candidates with the smallest keys."""
    chosen: NDArray[np.intp] = candidates[np.argsort(keys[candidates], kind="stable")[:limit]]
    return chosen


def _standing(share: float) -> str:
    if share == 0:
        return "no image is trusted less"
    return f"trusted more than {percent(share, 0)} of the images"


# What the page says first: what can be accepted, by which guarantee, or why by none.


@dataclass(frozen=True)
class AcceptanceSection:
    """Everything that the section says: sentences, and terms with values."""

    sentences: tuple[str, ...]
    measured: tuple[tuple[str, str], ...]


def acceptance_section(evaluation: EvaluationResult) -> AcceptanceSection | None:
    """Say what is guaranteed of the labels that are accepted, and how these images fared.

    None where no image was read.
    """
    if not len(evaluation.labels):
        return None
    sentences = (*_guarantee(evaluation), *_on_these_images(evaluation))
    return AcceptanceSection(sentences, tuple(_decisions(evaluation)))


def _guarantee(evaluation: EvaluationResult) -> tuple[str, ...]:
    calibration = evaluation.model.get("calibration")
    if not calibration:
        from trustvlm.risk_control.goals import UNCALIBRATED_RULE

        rule = str(evaluation.model.get("decision_rule") or UNCALIBRATED_RULE).rstrip(".")
        rule = rule.removesuffix("; no error rate is guaranteed")
        return (
            f"No error rate is guaranteed. Decisions are {rule}.",
            "For a guarantee, calibrate on labelled images like those to come: trustvlm calibrate "
            "MODEL.trust LABELLED --risk 0.05.",
        )
    data, statement = calibration["data"], calibration["statement"]
    said = f"{statement[0].upper()}{statement[1:]}."
    if calibration["certificate"] is None:
        return (said, f"{counted(data['n'], 'shot')} were judged.")
    images = (
        f"at {calibration['created_at']} on {counted(data['n'], 'labelled image')} of "
        f"{data['name']} (fingerprint {data['fingerprint'][:12]}), none of which is evaluated here."
    )
    if not calibration["certificate"]["certified"]:
        why = statement.removeprefix("none: ")
        return (f"Nothing can be accepted: {why}.", f"A threshold was sought {images}")
    sentences = (said, f"Calibrated {images}", calibration["assumption"])
    # Evaluations of older versions do not say how often the images were looked at.
    looks = data.get("looks", 1)
    return (*sentences, looks_statement(looks)) if looks > 1 else sentences


def threshold_of(evaluation: EvaluationResult) -> float | None:
    """Return the certified threshold that is one for all classes; None if there is none."""
    certificate = (evaluation.model.get("calibration") or {}).get("certificate") or {}
    threshold = certificate.get("threshold")
    if not certificate.get("certified") or not isinstance(threshold, int | float):
        return None
    return float(threshold) if math.isfinite(threshold) else None


def _on_these_images(evaluation: EvaluationResult) -> Iterator[str]:
    for problem in evaluation.run.problems if evaluation.run else ():
        yield f"The guarantee does not cover these images: {problem}."
    statement = evaluation.guarantee_statement()
    if statement is not None:
        yield f"{statement[0].upper()}{statement[1:]}."


def probability_terms(evaluation: EvaluationResult) -> tuple[tuple[str, str], ...]:
    """Say how well P(correct) fares on these images; () if there is none, or no image was read."""
    if not evaluation.model.get("calibration") or not len(evaluation.labels):
        return ()
    return tuple(_qualities(metrics.probability_quality(*evaluation.probabilities())))


def _decisions(evaluation: EvaluationResult) -> list[tuple[str, str]]:
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    n, k = len(accepted), int(accepted.sum())
    wrong = int((accepted & ~evaluation.correct()).sum())
    share = f"{percent(wrong / k)} of these ({wrong:,})" if k else "none is accepted"
    errors = int((~evaluation.correct()).sum())
    caught = (
        f"{errors - wrong:,} of {counted(errors, 'wrong label')}" if errors else "none is wrong"
    )
    return [
        ("Accepted here", f"{percent(k / n)} ({k:,} of {counted(n, 'image')})"),
        ("Wrong among the accepted", share),
        ("Sent to review", f"{percent(1 - k / n)} ({n - k:,}), among them {caught}"),
    ]


def _qualities(quality: dict[str, float]) -> list[tuple[str, str]]:
    brier, constant = quality["brier"], quality["brier_constant"]
    rms = quality["rms_calibration_error"]
    return [
        (
            "Brier score",
            f"{brier:.3f}, lower is better; the same probability for all costs {constant:.3f}",
        ),
        (
            "Calibration error (ECE)",
            f"{quality['ece']:.3f}, mean distance from the diagonal; biased upwards: perfect "
            f"probabilities would show {quality['ece_if_calibrated']:.3f} on so few images",
        ),
        (
            "Debiased (root mean square)",
            "undefined with so few images" if math.isnan(rms) else f"{rms:.3f}; 0 is perfect",
        ),
    ]


# What is remarkable about the examples of a model, in words, for terminal and page.


@dataclass(frozen=True)
class ShotCase:
    """One thing to look at.

    Attributes
    ----------
    shots
        Indices of the examples that show it; none where it is about whole classes.
    text
        What it is.
    """

    shots: tuple[int, ...]
    text: str


def shot_summary(examples: ShotHealth) -> str:
    """Say in a sentence how the examples are."""
    health = examples.health
    of = (
        f"{counted(health.n_shots, 'example image')} of "
        f"{counted(health.n_classes, 'class', 'classes')}"
    )
    if health.sound:
        return f"{of}: nothing remarkable was found."
    parts = [
        (len(health.suspects), "label looks wrong", "labels look wrong"),
        (len(health.odd), "example is an outlier", "examples are outliers"),
        (len(health.copies), "pair is a near-duplicate", "pairs are near-duplicates"),
        (len(health.relatives), "pair of classes is hard to tell apart", ""),
        (len(health.thin), "class has too few examples", "classes have too few examples"),
    ]
    plural = "pairs of classes are hard to tell apart"
    findings = [counted(n, one, many or plural) for n, one, many in parts if n]
    return f"{of}: {', '.join(findings)}."


def shot_groups(examples: ShotHealth) -> list[ReportGroup]:
    """Return everything to look at, group by group; groups without cases are left out."""
    health, names = examples.health, examples.class_names
    groups = [
        ReportGroup(
            "Labels that look wrong",
            _about_suspects(health),
            tuple(
                ShotCase(
                    (suspect.shot,),
                    f"labelled '{names[suspect.label]}', looks like '{names[suspect.looks_like]}'; "
                    f"probably wrong ({percent(suspect.probability, 0)})",
                )
                for suspect in health.suspects
            ),
        ),
        ReportGroup(
            "Outliers",
            "They resemble the rest of their class far less than is usual, and no other class "
            "explains them. Look at them: a wrong crop, a broken file, another view?",
            tuple(
                ShotCase(
                    (odd.shot,),
                    f"in '{names[odd.label]}': cosine {odd.similarity:.2f} to the rest, usually "
                    f"{odd.usual:.2f}",
                )
                for odd in health.odd
            ),
        ),
        ReportGroup(
            "Near-duplicates",
            f"Pairs with a cosine of {health.alike_from:.3f} or more. A copy adds nothing to its "
            "class; one filed under two classes is wrong in one of them.",
            tuple(
                ShotCase(
                    (pair.image, pair.other),
                    f"cosine {pair.cosine:.3f}, {_classes(examples, (pair.image, pair.other))}",
                )
                for pair in health.copies
            ),
        ),
        ReportGroup(
            "Classes that are hard to tell apart",
            "Judged by the examples of both, each without itself; 50\N{NO-BREAK SPACE}% is a coin "
            "toss. Two names for one thing should be merged; close relatives want more examples.",
            tuple(
                ShotCase(
                    (),
                    f"'{names[pair.one]}' and '{names[pair.other]}': told apart in "
                    f"{percent(pair.separability, 0)} of cases"
                    + ("; nothing shows that these are two classes" if pair.duplicate else ""),
                )
                for pair in health.relatives
            ),
        ),
        ReportGroup(
            "Classes with too few examples",
            "Reliability is the expected cosine of the class's prototype with that of endlessly "
            "many examples. Below 0.80 a few more examples pay most.",
            tuple(
                ShotCase(
                    (),
                    f"'{names[thin.label]}': "
                    f"{counted(thin.shots, 'example') if thin.shots else 'no example'}, "
                    f"reliability {thin.reliability:.2f}; about {thin.enough} would reach 0.90",
                )
                for thin in health.thin
            ),
        ),
    ]
    return [group for group in groups if group.cases]


def _about_suspects(health: Health) -> str:
    if not health.suspects:
        return ""
    expected = [suspect.expected_wrong for suspect in health.suspects]
    n = len(expected)
    counts = [f"{expected[k - 1]:.1f} of the first {k}" for k in (10, 20, 50, 100, 200) if k < n]
    return (
        "Judged by all other examples, they show another class. Expected to be wrong: "
        f"{', '.join([*counts, f'{expected[-1]:.1f} of all {n}'])}; "
        f"{max(health.expected_wrong - expected[-1], 0.0):.1f} more among the examples that are "
        "not listed. Correct or remove what you find wrong, and fit again."
    )


def _classes(examples: ShotHealth, shots: Iterable[int]) -> str:
    names = list(dict.fromkeys(examples.class_names[examples.labels[shot]] for shot in shots))
    if len(names) == 1:
        return f"both in '{names[0]}'"
    return f"filed under two classes, '{names[0]}' and '{names[1]}'"
