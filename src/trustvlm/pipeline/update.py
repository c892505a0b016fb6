"""Update a fitted model: corrections become shots, and what that changes is measured first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.data_quality.duplicates import (
    near_duplicate_groups,
    near_duplicate_threshold,
    near_duplicates,
    nearer_than_usual,
    usually_nearest,
)
from trustvlm.exceptions import (
    FewSamplesWarning,
    InputError,
    TrustVLMWarning,
    WorseModelError,
)
from trustvlm.images import Columns, LabelledImage, LabelledSource
from trustvlm.metrics import PairedDifference
from trustvlm.pipeline.calibrate import (
    calibrate,
    calibrate_again,
    calibrate_command,
    renewed_statement,
    repeatable,
)
from trustvlm.pipeline.fit import Shots, fit_again
from trustvlm.pipeline.records import (
    EncodedImages,
    ListedImages,
    encode_images,
    exclude_leaked,
    list_labelled,
    name_of,
)
from trustvlm.pipeline.state import FittedModel, ModelState
from trustvlm.risk_control.goals import goal_of
from trustvlm.scores import ScoreResult, apply
from trustvlm.serialization import nan_to_null
from trustvlm.text import counted, join_names, percent

# Called with steps done, and steps in all.
Steps: TypeAlias = Callable[[int, int], None]

HOLD_OUT = 0.3
"""Share of the corrections that is held back each time, to be judged by a model without it."""

ANSWERS, CALIBRATION_IMAGES = "corrections", "calibration images"


@dataclass(frozen=True)
class Comparison:
    """The model before and after, on the same labelled images, which neither has learned from.

    Attributes
    ----------
    of
        What the images are.
    n
        How many.
    accuracy, aurc
        Share of right labels and AURC, after minus before, with 95 % intervals by a paired
        bootstrap.
    """

    of: str
    n: int
    accuracy: PairedDifference
    aurc: PairedDifference

    @classmethod
    def of_results(
        cls, of: str, before: ScoreResult, after: ScoreResult, labels: NDArray[np.int64]
    ) -> Comparison:
        """Compare two results on n images with these classes."""
        with warnings.catch_warnings():
            # The interval says how little few images say.
            warnings.simplefilter("ignore", FewSamplesWarning)
            paired = metrics.paired_bootstraps(
                after.confidence,
                before.confidence,
                after.prediction == labels,
                before.prediction == labels,
                ["accuracy", "aurc"],
            )
        return cls(of, len(labels), paired["accuracy"], paired["aurc"])

    @property
    def worse(self) -> bool:
        """Whether fewer labels are right, or AURC is higher, and the interval leaves out zero."""
        return self.accuracy.high < 0 or self.aurc.low > 0

    @property
    def better(self) -> bool:
        """Whether more labels are right, or AURC is lower, and nothing is worse."""
        return not self.worse and (self.accuracy.low > 0 or self.aurc.high < 0)

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no significant difference`."""
        return "worse" if self.worse else "better" if self.better else "no significant difference"

    @property
    def statement(self) -> str:
        """The comparison in words."""
        right, area = self.accuracy, self.aurc
        points = f"{100 * right.difference:+.1f} points"
        if not math.isnan(right.low + right.high):
            points += f", 95 % interval {100 * right.low:+.1f} to {100 * right.high:+.1f}"
        return (
            f"on {self.n} {self.of}: {percent(right.b)} of the labels right before, "
            f"{percent(right.a)} after ({points}); AURC x1000 {1000 * area.b:.1f} before, "
            f"{1000 * area.a:.1f} after: {self.verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        right, area = self.accuracy, self.aurc
        values: dict[str, Any] = nan_to_null(
            {
                "of": self.of,
                "n": self.n,
                "accuracy_before": right.b,
                "accuracy_after": right.a,
                "difference": right.difference,
                "low": right.low,
                "high": right.high,
                "aurc_before": area.b,
                "aurc_after": area.a,
                "verdict": self.verdict,
                "statement": self.statement,
            }
        )
        return values


@dataclass(frozen=True)
class Update:
    """What an update did, and how the model compares before and after.

    Attributes
    ----------
    added
        Corrections that became shots.
    relabelled
        Shots that have another class now, since a correction of the same content says so.
    shots_before, shots_after
        How many shots the model had and has.
    comparisons
        On corrections that were held back or on labelled images, and on the calibration images if
        the calibration was renewed.
    calibration
        `none`, `renewed`, or `dropped`.
    calibration_statement
        What is guaranteed now, or why nothing is and what to do; "" where there was nothing before.
    notes
        What a reader should know besides.
    failures
        What is wrong with corrections that cannot be read.
    """

    added: int
    relabelled: int
    shots_before: int
    shots_after: int
    comparisons: tuple[Comparison, ...]
    calibration: str
    calibration_statement: str
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Whether any comparison is significantly worse."""
        return any(comparison.worse for comparison in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **{name: getattr(self, name) for name in ("added", "relabelled")},
            "shots_before": self.shots_before,
            "shots_after": self.shots_after,
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "calibration": self.calibration,
            "calibration_statement": self.calibration_statement,
            "worse": self.worse,
            "notes": [*self.notes, *self.failures],
        }


def worse_model(report: Update) -> WorseModelError:
    """Say that a new model is worse, and what to do."""
    worse = ". ".join(comparison.statement for comparison in report.comparisons if comparison.worse)
    return WorseModelError(
        f"The new model is significantly worse: {worse}. Check the labels of the corrections "
        "(`trustvlm advise` lists doubtful ones), or take the new model all the same with "
        "--even-if-worse (even_if_worse=True)."
    )


def update(
    model: FittedModel,
    corrections: Sequence[LabelledImage],
    *,
    hold_out: float = HOLD_OUT,
    compare_on: LabelledSource | None = None,
    calibrate_on: LabelledSource | None = None,
    steps: Steps | None = None,
    **columns: Unpack[Columns],
) -> tuple[ModelState, Update]:
    """Make corrections shots of a model, and compare it before and after, as `TrustVLM` says.

    Parameters
    ----------
    model
        Fitted; it stays as it is.
    corrections
        Labelled images.
    hold_out, compare_on, calibrate_on, **columns
        As there.
    steps
        Called with steps done and in all; what it raises ends the update.

    Raises
    ------
    InputError, LeakError
        As there.
    """
    state = model.state
    if not 0 <= hold_out <= 0.5:
        raise InputError(f"Expected `hold_out` to be from 0 to 0.5, but got {hold_out!r}.")
    if calibrate_on is not None and not (state.calibration and state.calibration.rules):
        raise InputError(
            "Expected `calibrate_on` where there is a calibration on images to renew, but the "
            "model has none: calibrate the new model for a risk of your choice."
        )
    if columns.get("group_column") is not None and compare_on is None and calibrate_on is None:
        raise InputError("Expected `group_column` with `compare_on` or `calibrate_on`, to be read.")
    of_calibration = columns
    if calibrate_on is not None and state.calibration is not None:
        of_calibration = _in_groups(state.calibration.groups, columns)
    listed = ListedImages(corrections, _classes_of(state, corrections))
    parts = math.ceil(1 / hold_out) if hold_out and compare_on is None and state.has_vlm else 0
    progress = _Steps(steps, len(corrections) + parts + 2)
    encoded = encode_images(listed, model.embedder, lambda done, _, __: progress.to(done))
    progress.to(len(corrections))
    device = model.embedder.encoders.device
    aside = None
    if calibrate_on is not None:
        aside = encode_images(_listed(calibrate_on, model, **of_calibration), model.embedder)
    usable, notes = _usable(state, encoded, aside)
    own, fresh, relabelled = _merged(state, usable)
    if not len(fresh) and not relabelled:
        why = [str(error) for error in encoded.errors if error is not None][:1] + notes
        if len(usable):
            which = "the others" if why else "all of them"
            why.append(f"{which} are examples already, with these labels")
        reasons = "; ".join(reason.rstrip(".") for reason in why)
        raise InputError(f"None of the corrections changes the model: {reasons}.")
    updated = fit_again(state, own.and_also(fresh), device)
    lost = np.flatnonzero((state.bank.counts_ > 0) & (updated.bank.counts_ == 0))
    if len(lost):
        names = join_names([repr(state.classes.labels[i]) for i in lost])
        notes.append(
            f"{names} {'has' if len(lost) == 1 else 'have'} no example any more, as all were given "
            "another label: nothing but the text, if there is one, speaks for "
            f"{'it' if len(lost) == 1 else 'them'}"
        )
    progress.advance()
    comparisons = []
    if compare_on is not None:
        comparison, n_close = _compare_on(compare_on, model, updated, fresh, **columns)
        comparisons.append(comparison)
        if n_close:
            notes.append(
                f"{counted(n_close, 'image')} left out of the comparison, being nearly the same as "
                "corrections: on these the new model would look better than on other images"
            )
    elif parts and len(fresh) > 1:
        comparisons.append(_compare_held_out(state, own, fresh, parts, device, progress))
        notes.append(
            f"each correction was judged by a model that had learned from {parts - 1} of {parts} "
            "parts of them, without the one it is in; the new model has learned from all. "
            "Corrections from a review queue are images of low confidence: this says nothing of "
            "other images. Labelled ones drawn at random do (--compare-on)"
        )
    elif not state.has_vlm:
        notes.append("without a vision-language model there are no labels to compare")
    else:
        notes.append("nothing was held back, so that nothing is compared on the corrections")
    updated, renewed, statement = _calibrated(model, updated, calibrate_on, **of_calibration)
    if renewed == "renewed" and updated.calibration and updated.calibration.vectors is not None:
        comparisons.append(_compare_calibration(state, updated))
    progress.finish()
    return updated, Update(
        added=len(fresh),
        relabelled=relabelled,
        shots_before=len(state.shots),
        shots_after=len(updated.shots),
        comparisons=tuple(comparisons),
        calibration=renewed,
        calibration_statement=statement,
        notes=tuple(notes),
        failures=tuple(str(error) for error in encoded.errors if error is not None),
    )


def _in_groups(groups: str, columns: Columns) -> Columns:
    """Return the columns with which a calibration that counted groups is renewed.

    It counted a group once; to count each image then would guarantee less than is said.
    """
    if not groups or columns.get("group_column") is not None:
        return columns
    if groups == "given":
        raise InputError(
            "The calibration counted groups of images that are not independent, which were given: "
            "name the column of `calibrate_on` that says them (group_column=, --group-column)."
        )
    return {**columns, "group_column": groups}


class _Steps:
    """Counts steps, and reports them to a callback."""

    def __init__(self, steps: Steps | None, total: int) -> None:
        self._steps, self._done, self._total = steps, 0, total

    def to(self, done: int) -> None:
        self._done = min(done, self._total)
        if self._steps is not None:
            self._steps(self._done, self._total)

    def advance(self) -> None:
        self.to(self._done + 1)

    def finish(self) -> None:
        self.to(self._total)


def _classes_of(state: ModelState, corrections: Sequence[LabelledImage]) -> NDArray[np.int64]:
    try:
        return state.classes.indices([image.label for image in corrections])
    except InputError as error:
        raise InputError(
            f"{error} `trustvlm classes add` gives a model further classes."
        ) from error


def _listed(
    labelled: LabelledSource, model: FittedModel, **columns: Unpack[Columns]
) -> ListedImages[LabelledImage]:
    limits = model.embedder.limits
    return list_labelled(labelled, model.state.classes, limits=limits, **columns)


def _usable(
    state: ModelState,
    encoded: EncodedImages[LabelledImage],
    aside: EncodedImages[LabelledImage] | None,
) -> tuple[EncodedImages[LabelledImage], list[str]]:
    """Return the readable corrections that may become shots, each content once; and what may not.

    Images that the model was, or will be, calibrated on never become shots: the guarantee would be
    about images that it knows. Nor do those that settings were selected on, or that it adapted to.
    """
    readable, notes = encoded.readable(), []
    labels: dict[str, int] = {}
    for image, digest, label in zip(
        readable.refs, readable.hashes, readable.labels.tolist(), strict=True
    ):
        if labels.setdefault(digest, label) != label:
            raise InputError(
                f"Expected one class of each image, but {image.path} is both "
                f"{state.classes.labels[labels[digest]]!r} and {state.classes.labels[label]!r}."
            )
    used = state.learned_from(calibrated_on=True)
    used.pop("the shots")
    if aside is not None:
        used["the images to calibrate on"] = set(aside.hashes) - {""}
    new, leaked = exclude_leaked(readable, used, purpose="", exclude=True)
    if leaked:
        roles = [role for role, hashes in used.items() if hashes & set(readable.hashes)]
        notes.append(
            f"{counted(len(leaked), 'correction')} left out, being among "
            f"{' and '.join(roles)}, which must not become examples"
        )
    apart = _is_apart(state, new, aside)
    if not apart.all():
        notes.append(
            f"{counted(int((~apart).sum()), 'correction')} left out, being nearly the same as "
            "images to calibrate on: with such examples these would look easier than other images"
        )
        new = new.select(apart)
    return new.select(new.is_first), notes


def _is_apart(
    state: ModelState,
    corrections: EncodedImages[LabelledImage],
    aside: EncodedImages[LabelledImage] | None,
) -> NDArray[np.bool_]:
    """`(n,)` whether each correction is no near-duplicate of an image that is calibrated on.

    Other photographs of one scene have other bytes. A model that learns from one of them is right
    about the other, but not about the images to come: see benchmarks/renewed_guarantees.py.
    """
    of, n_classes = state.calibration, len(state.classes)
    if aside is not None:
        images = aside.readable()
        others, labels = images.features, images.labels
    elif of is not None and of.vectors is not None:
        others, labels = of.vectors[0], of.labels
    else:
        return np.ones(len(corrections), dtype=bool)
    limit = near_duplicate_threshold(others, labels, n_classes=n_classes)
    return ~nearer_than_usual(corrections.features, others, threshold=limit)


def _merged(
    state: ModelState, corrections: EncodedImages[LabelledImage]
) -> tuple[Shots, Shots, int]:
    """Return the model's shots, with the classes that corrections give them; and the new ones.

    The number of shots whose class has changed comes last.
    """
    own = Shots.of_model(state)
    said = dict(zip(corrections.hashes, corrections.labels.tolist(), strict=True))
    labels = np.array(
        [
            said.get(shot["sha256"], label)
            for shot, label in zip(own.images, own.labels.tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    changed = int((labels != own.labels).sum())
    own_hashes = {shot["sha256"] for shot in own.images}
    rows = np.array([digest not in own_hashes for digest in corrections.hashes], dtype=bool)
    fresh = corrections.select(rows)
    # The paths of the other shots are relative to a folder of their own.
    paths = [
        image.path if image.file is None else str(image.file.absolute()) for image in fresh.refs
    ]
    contents = tuple(
        {"path": path, "sha256": digest} for path, digest in zip(paths, fresh.hashes, strict=True)
    )
    return (
        replace(own, labels=labels),
        replace(Shots.of(fresh), images=contents),
        changed,
    )


def _apply(state: ModelState, shots: Shots) -> ScoreResult:
    """Judge images, given as shots are, by the score of a model."""
    evidence = state.evidence(shots.image_embeddings, shots.features)
    return apply(state.score, evidence, **state.parameters)


def _compare_held_out(
    state: ModelState, own: Shots, fresh: Shots, parts: int, device: str, progress: _Steps
) -> Comparison:
    """Judge each correction by the model before, and by one with those of the other parts.

    Which part an image is in depends on the contents alone, so that the result depends on neither
    the order nor the names of the images. Near-duplicates share a part: else a correction would be
    judged by a copy of itself, and the model after would seem better than it is.
    """
    limit = max(_copies_from(state, own, fresh), usually_nearest(_drawn_at_random(state)))
    groups = near_duplicate_groups(fresh.features, threshold=limit + 1e-9)
    order = np.argsort([shot["sha256"] for shot in fresh.images])
    # Groups in the order of their first content.
    _, first, group = np.unique(groups[order], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    part = np.empty(len(fresh), dtype=np.int64)
    part[order] = rank[group] % parts
    results = [
        ScoreResult(np.empty(len(fresh), dtype=np.int64), np.empty(len(fresh))) for _ in range(2)
    ]
    for held_out in range(parts):
        rows = part == held_out
        if rows.any():
            trained = fit_again(state, own.and_also(fresh.select(~rows)), device)
            for result, judge in zip(results, (state, trained), strict=True):
                judged = _apply(judge, fresh.select(rows))
                result.prediction[rows] = judged.prediction
                result.confidence[rows] = judged.confidence
        progress.advance()
    before, after = results
    return Comparison.of_results(ANSWERS, before, after, fresh.labels)


def _copies_from(state: ModelState, *shots: Shots) -> float:
    """Return the cosine from which images are nearly the same, by labelled ones."""
    features = np.concatenate([of.features for of in shots])
    labels = np.concatenate([of.labels for of in shots])
    return near_duplicate_threshold(features, labels, n_classes=len(state.classes))


def _drawn_at_random(state: ModelState) -> NDArray[np.float32]:
    """Features of images of which each is of a scene of its own: those calibrated on, or shots."""
    of = state.calibration
    return state.support_features if of is None or of.vectors is None else of.vectors[0]


def _compare_on(
    labelled: LabelledSource,
    model: FittedModel,
    updated: ModelState,
    fresh: Shots,
    **columns: Unpack[Columns],
) -> tuple[Comparison, int]:
    """Compare on labelled images, which neither model has learned from.

    Near-duplicates of corrections are left out, and counted: the new model was given their labels.
    """
    state = model.state.for_own_labels()
    encoded = encode_images(_listed(labelled, model, **columns), model.embedder)
    used = state.learned_from(calibrated_on=False)
    used["the corrections"] = {shot["sha256"] for shot in fresh.images}
    images, _ = exclude_leaked(
        encoded.readable(),
        used,
        purpose="a comparison on them would favour one of the models. Compare on other images",
    )
    if not len(images):
        raise InputError("No labelled image to compare on can be read.")
    for error in filter(None, encoded.errors):
        warnings.warn(f"left out of the comparison: {error}", TrustVLMWarning, stacklevel=4)
    images = images.select(images.is_first)
    close = np.zeros(len(images), dtype=bool)
    limit, usual = _copies_from(state, Shots.of(images)), usually_nearest(images.features)
    for pair in near_duplicates(images.features, fresh.features, threshold=limit):
        close[pair.image] = pair.cosine > usual + 1e-9
    if close.all():
        raise InputError(
            f"Each of the {len(images)} images to compare on is nearly the same as a correction: "
            "compare on other images."
        )
    shots = Shots.of(images.select(~close))
    results = _apply(state, shots), _apply(updated, shots)
    name = f"images of {name_of(labelled)}"
    return Comparison.of_results(name, *results, shots.labels), int(close.sum())


def _compare_calibration(state: ModelState, updated: ModelState) -> Comparison:
    of = updated.calibration
    assert of is not None and of.vectors is not None  # noqa: S101, PT018 -- the caller checked
    before = _apply(state, Shots(*of.vectors, of.labels, of.images))
    return Comparison.of_results(CALIBRATION_IMAGES, before, of.result, of.labels)


class _Model:
    """A state with the encoders of another model."""

    def __init__(self, state: ModelState, model: FittedModel) -> None:
        self.state, self.embedder = state, model.embedder


def _calibrated(
    model: FittedModel,
    updated: ModelState,
    calibrate_on: LabelledSource | None,
    **columns: Unpack[Columns],
) -> tuple[ModelState, str, str]:
    """Renew the calibration of a model with other shots, if that is sound; say what became of it.

    Its confidences are others now, so the old threshold guarantees nothing.
    """
    earlier = model.state.calibration
    if earlier is None:
        return updated, "none", ""
    if calibrate_on is not None:
        before = _Model(replace(updated, calibration=earlier), model)
        renewed = calibrate(
            before,
            calibrate_on,
            goal_of(earlier.rules),
            earlier.calibrator.name,
            gate=earlier.gate != "none",
            **columns,
        )
        return renewed, "renewed", renewed_statement(renewed.calibration)
    if not earlier.rules and not (updated.bank.counts_ > 1).any():
        why = "the confidences are others now, and no class has two examples to learn them from"
        return updated, "dropped", why
    if not repeatable(earlier):
        why = (
            "it was one for labels from elsewhere"
            if earlier.given
            else "the model does not hold what its calibration images look like to it, as models "
            "that an older version calibrated, or that were calibrated on very many images"
        )
        why = f"the confidences are others now, and {why}"
        return updated, "dropped", f"{why}. To renew it: {calibrate_command(earlier)}"
    renewed = calibrate_again(updated, earlier)
    return renewed, "renewed", renewed_statement(renewed.calibration)
