"""What a fitted model is: all that fitting and calibrating learn, frozen, with save and load."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.files import shown_target
from trustvlm.images import ClassList
from trustvlm.monitoring.ood import GATES, OODGate, OtherClasses
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.records import Embedder
from trustvlm.pipeline.select import SELECTABLE, Selection
from trustvlm.plugins import origin
from trustvlm.risk_control.goals import (
    UNCALIBRATED_RULE,
    check_rule,
)
from trustvlm.scores import (
    Evidence,
    PrototypeBank,
    check_parameters,
    get,
    prepare,
    zero_shot_logits,
)
from trustvlm.scores.compute import Packed, Storage, check_plugin, judging_given, keywords
from trustvlm.scores.evidence import ShotLogits
from trustvlm.text import join_names

if TYPE_CHECKING:
    from trustvlm.pipeline.artefact import Manifest

_LEARNED = "learned_of_score_"
_CACHED = "_evidence_of_shots"

# How labels from elsewhere are judged where the score would correct them.
_KEEPING_LABELS = {"auto_star": "auto"}


def keeping_labels(score: str, *, text: bool) -> str:
    """Return the score that judges labels from elsewhere where `score` is the model's.

    Parameters
    ----------
    score
        A name.
    text
        Whether there is a VLM.

    Raises
    ------
    InputError
        If the score chooses labels itself, or needs text that is not there.

    Examples
    --------
    >>> keeping_labels("auto_star", text=False), keeping_labels("knn", text=False)
    ('auto', 'knn')
    """
    name = _KEEPING_LABELS.get(score, score)
    if name not in judging_given(text):
        without = "" if text else " without a vision-language model"
        raise InputError(
            f"The score `{score}` cannot judge labels from elsewhere{without}: fit with --score "
            f"{join_names(judging_given(text), 'or')}."
        )
    return name


DEFAULT_SCORE = "auto_star"
"""The score of a model for which none is named; docs/results.md shows why."""


@dataclass(frozen=True)
class TargetImages:
    """t unlabelled images, all different, that a score adapted to: `fit --adapt-to`.

    Attributes
    ----------
    features, image_embeddings
        `(t, d)` and `(t, e)` float32 vectors.
    images
        `path` and `sha256` of each.
    """

    features: NDArray[np.float32]
    image_embeddings: NDArray[np.float32]
    images: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Learned:
    """What a score has learned from the shots, as it is stored.

    Attributes
    ----------
    storage, packed
        How it is stored, and what is.
    key
        By which `Evidence.learned` keeps it.
    of
        The arrays that it was learned from.
    """

    storage: Storage
    packed: Packed
    key: str
    of: tuple[Any, ...]


def _same(arrays: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return all(one is other for one, other in zip(arrays, others, strict=True))


@dataclass(frozen=True)
class ModelState:
    """A fitted model, without the encoders themselves: what a `.trust` directory holds.

    Attributes
    ----------
    classes
        C classes.
    prompts
        Templates that their texts were made with.
    encoders
        What describes the encoders `vlm` and `vision`, as `records.describe` gives it.
    protocol, precision, draft
        How the encoders were loaded; see `TrustVLM`.
    logit_scale
        s of the zero-shot logits.
    score, score_parameters
        Name of the score, and the parameters that were given for it.
    text_embeddings
        `(C, e)` float32 unit rows.
    bank
        Prototypes of the C classes.
    support_features, support_image_embeddings, support_labels
        `(m, d)` and `(m, e)` float32 vectors of the shots, and their `(m,)` int64 classes.
    shots
        `path`, `sha256` and `class` of each of these.
    shots_folder
        What their paths are relative to; "" if no record says it.
    unreadable_shots
        Path and error of each example image that could not be read.
    shots_per_class, draw
        How many were drawn at most, and which draw.
    created_by, created_at
        Version of this package, and UTC time.
    losses
        Mean loss of each epoch of fine-tuning; empty without it.
    selection, selection_images
        How parameters of the score were selected, and `path` and `sha256` of the images that this
        was done on besides the shots.
    calibration
        P(correct) and the rule for accepting; None if there is none.
    other_classes
        What images of none of the classes may show; None if nothing is named.
    target
        Unlabelled images that the score adapted to, once and for all; None if there were none.
    class_texts
        What the prompts say of each class; empty where that is its name.
    looked_at
        How many calibrations have looked at the label of each image, by its SHA-256. It stays when
        a calibration is dropped or is followed by one on other images, so that no label is ever
        looked at as if for the first time.
    logit_bias
        b of SigLIP's sigmoid(z + b); None if the VLM has none, or the model was saved before it
        was recorded.
    learned
        What the score had learned from the shots when the model was saved; None if it is not on
        record. It is used for these shots, texts and that score alone: for others, it is learned
        anew.
    """

    classes: ClassList
    prompts: tuple[str, ...]
    encoders: Mapping[str, Mapping[str, Any]]
    protocol: str
    precision: str
    draft: bool
    logit_scale: float
    score: str
    score_parameters: Mapping[str, Any]
    text_embeddings: NDArray[np.float32]
    bank: PrototypeBank
    support_features: NDArray[np.float32]
    support_image_embeddings: NDArray[np.float32]
    support_labels: NDArray[np.int64]
    shots: tuple[Mapping[str, Any], ...]
    shots_folder: str
    unreadable_shots: tuple[tuple[str, str], ...]
    shots_per_class: int | None
    draw: int
    created_by: str
    created_at: str
    losses: tuple[float, ...] = ()
    selection: Selection | None = None
    selection_images: tuple[Mapping[str, Any], ...] = ()
    calibration: Calibration | None = None
    other_classes: OtherClasses | None = None
    target: TargetImages | None = None
    class_texts: tuple[str, ...] = ()
    looked_at: Mapping[str, int] = field(default_factory=dict)
    logit_bias: float | None = None

    learned: Learned | None = field(default=None, compare=False, repr=False)
    # What was derived from the shots stays with a copy of the state that has the same shots.
    _of_shots: list[tuple[Any, Evidence]] = field(default_factory=list, compare=False, repr=False)

    @property
    def whole_batch(self) -> bool:
        """Whether a verdict depends on the other images of its batch."""
        return get(self.score).reads_whole_batch(self.evidence_of_shots())

    @property
    def texts(self) -> tuple[str, ...]:
        """What the prompts say of each class."""
        return self.class_texts or self.classes.names

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the score in use: those selected, unless they were given."""
        selection = self.selection
        fits = selection is not None and selection.score == SELECTABLE.get(self.score)
        return {**(selection.parameters if selection and fits else {}), **self.score_parameters}

    @property
    def fixed_parameters(self) -> dict[str, Any]:
        """Those that were given; a saved model states them and those selected as one."""
        selected = {} if self.selection is None else self.selection.parameters
        own = self.score_parameters.items()
        return {name: value for name, value in own if selected.get(name) != value}

    @property
    def gate(self) -> OODGate:
        """Which images may have their label accepted at all; the calibration says by what.

        A score that adapts to its batch is for images of another kind than the shots: there only
        what resembles no class is stopped.
        """
        return self.gate_of(self.usual_gate if self.calibration is None else self.calibration.gate)

    @property
    def usual_gate(self) -> str:
        """Which of `monitoring.ood.GATES` it has unless one is chosen.

        A score that adapts is for images of another kind than the shots: what resembles these
        little is then no sign of another class.
        """
        return "nearest" if get(self.score).whole_batch else GATES[0]

    def gate_of(self, kind: str) -> OODGate:
        """Return a gate of `monitoring.ood.GATES`, which stops other classes in any case."""
        gate = OODGate.of_shots(self.evidence_of_shots(), kind)
        return replace(gate, others=self.other_classes)

    def evidence(
        self,
        embeddings: NDArray[Any],
        features: NDArray[Any],
        *,
        shots: Evidence | None = None,
        given_labels: NDArray[np.int64] | None = None,
        label_confidence: NDArray[np.float64] | None = None,
    ) -> Evidence:
        """Gather everything there is on n images, from their `(n, e)` and `(n, d)` vectors.

        `shots` is `evidence_of_shots()`, for callers with many batches. `given_labels` and
        `label_confidence` are those of `Evidence`.
        """
        return (shots or self.evidence_of_shots()).with_images(
            logits=self._logits(embeddings) if self.has_vlm else None,
            features=features,
            image_embeddings=embeddings if self.has_vlm else None,
            given_labels=given_labels,
            label_confidence=label_confidence,
        )

    def evidence_of_shots(self) -> Evidence:
        """Return everything there is on the shots, about no image yet: the same each time."""
        return self._evidence_of_shots

    @cached_property
    def _evidence_of_shots(self) -> Evidence:
        arrays = self._arrays_of_shots
        for of, evidence in self._of_shots:
            if _same(of, arrays):
                return evidence
        of_vlm: dict[str, Any] = {"features": self.support_features[:0]}
        if self.has_vlm:
            of_vlm = {
                "logits": np.empty((0, len(self.classes))),
                "support_logits": ShotLogits(
                    self.support_image_embeddings, self.text_embeddings, self.logit_scale
                ),
                "text_embeddings": self.text_embeddings,
                "support_image_embeddings": self.support_image_embeddings,
            }
        evidence = Evidence.of(
            bank=self.bank,
            support_features=self.support_features,
            support_labels=self.support_labels,
            logit_bias=self.logit_bias,
            **of_vlm,
            **({} if self.target is None else self._target_arrays(self.target)),
        )
        if self.learned is not None and _same(self.learned.of, arrays):
            model = self.learned.storage.unpack(evidence, self.learned.packed)
            evidence.learned(self.learned.key, lambda: model)
        self._of_shots[:] = [(arrays, evidence)]
        return evidence

    @property
    def _arrays_of_shots(self) -> tuple[Any, ...]:
        """All that evidence on the shots is made of."""
        return (
            self.bank,
            self.support_features,
            self.support_image_embeddings,
            self.support_labels,
            self.text_embeddings,
            self.target,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave evidence out of copies and pickles: what they learn is stored in `learned`."""
        kept = {name: value for name, value in self.__dict__.items() if name != _CACHED}
        return {**kept, "_of_shots": []}

    def _key_of_learned(self) -> str:
        """By which name evidence keeps what the score in use learns, if that is stored."""
        score = get(self.score)
        settings = {**score.parameters, **self.parameters}
        given = {name: settings[name] for name in keywords(score.fit)}
        return "" if score.storage is None else score.storage.key(given)

    def _target_arrays(self, target: TargetImages) -> dict[str, NDArray[Any]]:
        return {
            "target_logits": self._logits(target.image_embeddings),
            "target_features": target.features,
            "target_image_embeddings": target.image_embeddings,
        }

    def _logits(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        return zero_shot_logits(embeddings, self.text_embeddings, logit_scale=self.logit_scale)

    def learned_from(self, *, calibrated_on: bool) -> dict[str, set[str]]:
        """SHA-256 of the images that the model has learned from, by the words for them."""
        calibration = self.calibration if calibrated_on else None
        used = {
            "the shots": self.shots,
            "the images selected on": self.selection_images,
            "the images adapted to": () if self.target is None else self.target.images,
            "the images calibrated on": () if calibration is None else calibration.images,
        }
        return {role: {image["sha256"] for image in images} for role, images in used.items()}

    def at_risk(self, risk: float) -> ModelState:
        """Return the model with the rule for one of the risks that it was calibrated for.

        Raises
        ------
        InputError
            If it was not calibrated for this risk.
        """
        if self.calibration is None:
            raise InputError("This model was not calibrated for any risk: calibrate it first.")
        return replace(self, calibration=self.calibration.at_risk(risk))

    @property
    def has_vlm(self) -> bool:
        """Whether there is a vision-language model, which gives labels of its own."""
        return bool(self.text_embeddings.shape[1])

    def for_given_labels(self) -> ModelState:
        """Return the model as it judges labels from elsewhere: by a score that keeps them.

        That of `auto_star` is `auto`. A calibration for the model's own labels is left out.

        Raises
        ------
        InputError
            If its score chooses labels itself.
        """
        name = keeping_labels(self.score, text=self.has_vlm)
        of = self.calibration
        calibration = of if of is not None and of.given else None
        return replace(self, score=name, calibration=calibration)

    @property
    def needs_labels(self) -> bool:
        """Whether it judges labels from elsewhere only: without a VLM, or calibrated for them."""
        return not self.has_vlm or (self.calibration is not None and self.calibration.given)

    def for_own_labels(self) -> ModelState:
        """Return the model; raises `InputError` if it is for labels from elsewhere only."""
        if not self.has_vlm:
            raise InputError(
                "This model was fitted without a vision-language model, so it gives no labels: "
                "`trustvlm verify` judges labels from elsewhere with it."
            )
        if self.calibration is not None and self.calibration.given:
            raise InputError(
                "This model was calibrated for labels from elsewhere, which `trustvlm verify` "
                "judges: for its own labels, calibrate it without --given-labels."
            )
        return self

    def check_calibration(self) -> None:
        """Raise `InputError` if the calibration is of another score than the one in use."""
        of = self.calibration
        used = self.for_given_labels() if of and of.given else self
        if of and (of.score, dict(of.parameters)) != (used.score, used.parameters):
            raise InputError(
                f"This TrustVLM was calibrated for the score `{of.score}` with parameters "
                f"{dict(of.parameters)}, but its score is now `{used.score}` with "
                f"{used.parameters}: calibrate again."
            )
        if of and (of.revision or get(of.score).revision) != get(of.score).revision:
            raise InputError(
                "This TrustVLM was calibrated by another version of trustvlm, in which "
                f"`{of.score}` had other values: calibrate again."
            )

    def to_manifest(self) -> dict[str, Any]:
        """Return everything but the arrays as plain JSON values; see `artefact.Manifest`."""
        return {
            "created_by": self.created_by,
            "created_at": self.created_at,
            "models": {role: dict(entry) for role, entry in self.encoders.items()},
            "protocol": self.protocol,
            "precision": self.precision,
            "draft": self.draft,
            "logit_scale": self.logit_scale,
            **({} if self.logit_bias is None else {"logit_bias": self.logit_bias}),
            "classes": list(self.classes.names),
            "other_classes": [] if self.other_classes is None else list(self.other_classes.names),
            "folders": list(self.classes.folders),
            "class_texts": list(self.class_texts),
            "prompts": list(self.prompts),
            "score": {
                "name": self.score,
                "parameters": self.parameters,
                "selection": None
                if self.selection is None
                else {**self.selection.to_dict(), "images": list(self.selection_images)},
            },
            "shots": {
                "per_class": self.shots_per_class,
                "draw": self.draw,
                "counts": [int(count) for count in self.bank.counts_],
                "folder": self.shots_folder,
                "images": list(self.shots),
                "unreadable": [path for path, _ in self.unreadable_shots],
            },
            "finetuning": {"losses": list(self.losses)} if self.losses else None,
            "adaptation": None if self.target is None else {"images": list(self.target.images)},
            "calibration": self.calibration.to_manifest(len(self.classes))
            if self.calibration
            else None,
            "looked_at": dict(self.looked_at),
            "decision_rule": self.calibration.rule if self.calibration else UNCALIBRATED_RULE,
        }

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a `.trust` directory, whole or not at all; see `artefact.write_artefact`.

        Raises
        ------
        ArtefactError
            If something else than a `.trust` directory stands at that path, or a model with
            another calibration and not `overwrite`, or nothing can be written.
        """
        from trustvlm.pipeline.artefact import write_artefact  # pydantic takes its time

        arrays: dict[str, NDArray[Any]] = {
            **({"learned_prototypes": self.bank.prototypes_} if self.losses else {}),
            "prototype_sums": self.bank.sums_,
            "prototype_counts": self.bank.counts_,
            "text_embeddings": self.text_embeddings,
            **(
                {"other_text_embeddings": self.other_classes.text_embeddings}
                if self.other_classes
                else {}
            ),
            "support_features": self.support_features,
            "support_image_embeddings": self.support_image_embeddings,
            "support_labels": self.support_labels,
            **(self.calibration.to_arrays() if self.calibration else {}),
        }
        if self.target is not None:
            arrays["target_features"] = self.target.features
            arrays["target_image_embeddings"] = self.target.image_embeddings
        manifest, storage = self.to_manifest(), get(self.score).storage
        if outside := origin(get(self.score).function):
            manifest["score"]["plugin"] = dict(outside)
        if storage is not None and len(self.support_labels):
            score = prepare(self.score, self.evidence_of_shots(), **self.parameters)
            packed = storage.pack(score.learned)
            arrays |= {f"{_LEARNED}{name}": array for name, array in packed.arrays.items()}
            manifest["learned"] = {
                "name": storage.name,
                "version": storage.version,
                "key": self._key_of_learned(),
                "values": dict(packed.values),
            }
        write_artefact(path, manifest, arrays, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModelState:
        """Read a `.trust` directory; no encoder is loaded.

        Raises
        ------
        ArtefactError
            If it is damaged or not complete, or of another format version.
        """
        from trustvlm.pipeline.artefact import read_model  # pydantic takes its time

        manifest, arrays = read_model(path)
        check_plugin(manifest.score.name, manifest.score.plugin)
        try:
            state = cls._restored(manifest, arrays)
            state._check()
            if state.learned is not None:
                state.evidence_of_shots()  # what does not fit is said now
            return state
        except InputError as error:
            raise ArtefactError(
                f"{shown_target(path)} does not fit together: {error} Fit again."
            ) from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{shown_target(path)} is not complete: its manifest lacks or misstates "
                f"{error}. Fit again."
            ) from error

    def _check(self) -> None:
        """Raise `InputError` unless parameters, and what is certified, fit the rest."""
        check_parameters(self.score, self.parameters)
        of = self.calibration
        rules = () if of is None or of.certificate is None else (of.certificate, *of.other_rules)
        for rule in rules:
            assert of is not None  # noqa: S101 -- it has rules
            every = np.ones(len(of.labels), dtype=bool)
            eligible = every if of.gate == "none" else of.eligible
            check_rule(rule, of.result, of.correct, len(self.classes), eligible)

    @classmethod
    def _restored(cls, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> ModelState:
        bank = PrototypeBank()
        bank.sums_, bank.counts_ = arrays["prototype_sums"], arrays["prototype_counts"]
        if manifest.finetuning is not None:
            bank = bank.with_prototypes(arrays["learned_prototypes"], unit=True)
        selection, calibration = manifest.score.selection, manifest.calibration
        shots = manifest.shots
        state = cls(
            classes=ClassList(manifest.classes, manifest.folders),
            prompts=manifest.prompts,
            encoders=manifest.models.model_dump(),
            protocol=manifest.protocol,
            precision=manifest.precision,
            draft=manifest.draft,
            logit_scale=manifest.logit_scale,
            logit_bias=manifest.logit_bias,
            class_texts=manifest.class_texts,
            score=manifest.score.name,
            score_parameters=manifest.score.parameters,
            text_embeddings=arrays["text_embeddings"],
            bank=bank,
            support_features=arrays["support_features"],
            support_image_embeddings=arrays["support_image_embeddings"],
            support_labels=arrays["support_labels"].astype(np.int64),
            shots=tuple(shot.model_dump(by_alias=True) for shot in shots.images),
            shots_folder=shots.folder,
            # The artefact names the example images that could not be read, but not what was wrong.
            unreadable_shots=tuple(
                (path, f"{path}: it could not be read when the model was made.")
                for path in shots.unreadable
            ),
            shots_per_class=shots.per_class,
            draw=shots.draw,
            created_by=manifest.created_by,
            created_at=manifest.created_at,
            losses=() if manifest.finetuning is None else manifest.finetuning.losses,
            selection=None if selection is None else Selection.from_dict(selection.model_dump()),
            selection_images=()
            if selection is None
            else tuple(image.model_dump() for image in selection.images),
            calibration=None
            if calibration is None
            else Calibration.from_manifest(calibration, arrays),
            other_classes=OtherClasses(
                manifest.other_classes, arrays["other_text_embeddings"], manifest.logit_scale
            )
            if manifest.other_classes
            else None,
            target=None
            if manifest.adaptation is None
            else TargetImages(
                arrays["target_features"],
                arrays["target_image_embeddings"],
                tuple(image.model_dump() for image in manifest.adaptation.images),
            ),
            looked_at=_restored_looks(manifest),
        )
        entry = manifest.learned
        storage = get(state.score).storage if entry else None
        # What another version has learned, or with other parameters, is learned anew.
        if (
            entry is None
            or storage is None
            or (
                (entry.name, entry.version, entry.key)
                != (storage.name, storage.version, state._key_of_learned())
            )
        ):
            return state
        stored = {n.removeprefix(_LEARNED): a for n, a in arrays.items() if n.startswith(_LEARNED)}
        packed = Packed(stored, entry.values)
        learned = Learned(storage, packed, entry.key, state._arrays_of_shots)
        return replace(state, learned=learned)


def _restored_looks(manifest: Manifest) -> dict[str, int]:
    """Return how often the label of each image was looked at.

    Files of older versions say it of all images of their last calibration together.
    """
    data = None if manifest.calibration is None else manifest.calibration.data
    images = () if data is None else (*data.earlier, *(image.sha256 for image in data.images))
    return {**dict.fromkeys(images, 1 if data is None else data.looks), **manifest.looked_at}


def now() -> str:
    """Return the UTC time as artefacts state it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class FittedModel(Protocol):
    """A state, and the encoders that go with it: what a fitted `TrustVLM` has."""

    @property
    def state(self) -> ModelState:
        """What was learned; raises `InputError` if nothing was."""
        ...

    @property
    def embedder(self) -> Embedder:
        """The encoders, and how images are read."""
        ...


def check_same_model(role: str, stored: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise `ArtefactError` unless the model on this machine is the one the artefact was made with.

    Parameters
    ----------
    role
        What the model is for, as the subject of the message.
    stored, here
        Descriptions with `fingerprint`, `weights`, `revision`, `settings`, `preprocessing`.

    Examples
    --------
    >>> same = {"fingerprint": "a", "weights": "w"}
    >>> check_same_model("VLM", same, same)
    """
    if stored["fingerprint"] == here["fingerprint"]:
        return
    parts = ("weights", "revision", "settings", "preprocessing")
    differing = [part for part in parts if stored.get(part) != here.get(part)]
    detail = "; ".join(
        f"{part}: {_short(stored.get(part))} in the artefact, {_short(here.get(part))} here"
        for part in differing
    )
    raise ArtefactError(
        f"The {role} on this machine ({here.get('spec')}) is not the one that the artefact was "
        f"made with ({stored.get('spec')}). {detail or 'The fingerprints differ'}. "
        f"{_remedy(stored, here)}"
    )


def _remedy(stored: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say what to do about another model than that of an artefact."""
    source, revision = stored.get("source"), stored.get("revision")
    if not revision or stored.get("weights") == here.get("weights"):
        return "Use the same model and versions, or fit again."
    if (source, revision) == (here.get("source"), here.get("revision")):
        return (
            "Both name the same files, so that those here were changed or damaged: remove them and "
            "have them downloaded, or copied, again."
        )
    return f"It was made with {source} at {revision}: use that, or fit again."


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{text[:12]}..." if isinstance(value, str) and len(text) > 16 else text or "none"
