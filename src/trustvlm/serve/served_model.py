"""A fitted model that judges uploads, again and again, in bounded memory."""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.embeddings import EmbeddingStore
from trustvlm.embeddings.encode import image_key
from trustvlm.embeddings.prefetch import without_normalisation
from trustvlm.exceptions import ArtefactError, ImageError, InputError, TrustVLMWarning
from trustvlm.files import shown_target
from trustvlm.images import (
    ImageSource,
    InMemoryImage,
    LabelledImage,
    Limits,
    content_hash,
    read_bytes,
)
from trustvlm.models.base import Preprocessing
from trustvlm.pipeline import TrustVLM
from trustvlm.pipeline.given_labels import GivenLabels
from trustvlm.pipeline.monitor import (
    DIGITS,
    MonitorState,
    read_state,
    start_from_model,
    watched_score,
    write_state,
)
from trustvlm.pipeline.predict import ClassProbabilities, Predictor, sets_of
from trustvlm.pipeline.records import EncodedImages, describe, encode_images
from trustvlm.pipeline.state import ModelState
from trustvlm.pipeline.verdict import RunOutcome, Verdict
from trustvlm.risk_control.prediction_sets import SET_METHODS, PredictionSets
from trustvlm.scores.arrays import unit_rows
from trustvlm.scores.evidence import Evidence, prototype_similarities


class RecentEmbeddings(EmbeddingStore):
    """A store that forgets the least recently used vectors and leaves nothing on disk.

    A service sees images of other people: it should neither keep them nor grow.

    Parameters
    ----------
    capacity
        Vectors to keep; 0 keeps none.

    Examples
    --------
    >>> store = RecentEmbeddings(1)
    >>> store.put_many("f", {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    >>> store.get_many("f", ["a", "b"])
    {'b': array([1., 1.], dtype=float32)}
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(":memory:")
        self._capacity = capacity
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self._turn = threading.Lock()

    def get_many(self, fingerprint: str, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Look up vectors; see `EmbeddingStore.get_many`."""
        vectors = {}
        with self._turn:
            for key in keys:
                vector = self._vectors.get((fingerprint, key))
                if vector is not None:
                    self._vectors.move_to_end((fingerprint, key))
                    vectors[key] = vector
        return vectors

    def put_many(
        self,
        fingerprint: str,
        vectors: Mapping[str, NDArray[np.float32]],
        *,
        spec: str = "",  # noqa: ARG002
    ) -> None:
        """Store vectors; see `EmbeddingStore.put_many`."""
        with self._turn:
            for key, vector in vectors.items():
                # A copy, because a row of a batch would keep the whole batch alive.
                self._vectors[fingerprint, key] = vector.copy()
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)


# Whether what comes in still resembles what the model was calibrated on.

_FALSE_ALARM = 1e-4
_IMAGES_PER_UPDATE = 25
_IMAGES_PER_ROUND = 5000
_IMAGES_PER_SAVE = 1000


class DriftWatch:
    """The monitor of `trustvlm monitor`, fed by the service, in bounded memory.

    It looks at images in groups and begins anew after some thousand, each time with the same bound
    on false alarms; an alarm stays. Of images that come again, one counts.

    Parameters
    ----------
    model
        A fitted model.
    file
        Where the state is kept, so that it outlives the service; None keeps it nowhere. That of
        another model, or of this one before it was calibrated again, is replaced.
    """

    def __init__(self, model: TrustVLM, file: Path | None = None) -> None:
        # Images come with the labels that are watched: the model's own, or given ones.
        self._given = model.state.needs_labels
        watched = model.state.for_given_labels() if self._given else model.state
        self.drifted, self._file, self._model = False, file, model.state
        stream = watched_score(watched)[0]
        try:
            monitor, self._calibrated_on = start_from_model(
                watched, _FALSE_ALARM, own_labels=not self._given, labelled=True
            )
        except InputError:
            # There is nothing to compare with.
            monitor, self._calibrated_on = None, ""
        if monitor is not None and stream != "confidence":
            # The text's own confidence is not at hand here.
            streams = {k: v for k, v in monitor.streams.items() if k != stream}
            monitor = replace(monitor, streams=streams) if streams else None
        self._start = self._monitor = monitor
        self._waiting: list[tuple[float, float]] = []
        self._seen: set[str] = set()
        self._unsaved = 0
        self._restore()

    def _restore(self) -> None:
        stored = self._stored()
        if stored is not None:
            self._monitor, self._seen = stored.monitor, set(stored.seen)
            self.drifted = stored.drifted

    def _stored(self) -> MonitorState | None:
        """Return the state of this model in the file; None if there is none that can be used."""
        if self._monitor is None or self._file is None:
            return None
        with suppress(InputError):
            stored = read_state(self._file, self._model, given=self._given)
            if stored is not None and stored.monitor.streams.keys() == self._monitor.streams.keys():
                return stored
        return None

    def save(self) -> None:
        """Write the state, whole or not at all; a disk that fails costs the state, not answers."""
        if self._monitor is None or self._file is None:
            return
        # Another service of this model may have written there: its alarm is one for both.
        stored = self._stored()
        self.drifted = self.drifted or (stored is not None and stored.drifted)
        state = MonitorState(
            self._monitor, self._calibrated_on, frozenset(self._seen), self.drifted
        )
        try:
            write_state(self._file, self._model, state, given=self._given)
        except OSError as error:
            warnings.warn(f"{self._file} was not written: {error}", TrustVLMWarning, stacklevel=2)
        self._unsaved = 0

    @property
    def evidence(self) -> dict[str, float]:
        """Base-10 logarithm of the capital won by betting on a change; 0 before the first bet."""
        if self._monitor is None:
            return {}
        streams = self._monitor.streams.items()
        return {name: stream.martingale.peak / math.log(10) for name, stream in streams}

    def see(self, digest: str, confidence: float, typicality: float) -> None:
        """Note one image: its confidence, and its cosine with the most similar prototype."""
        digest = digest[:DIGITS]
        if self._monitor is None or digest in self._seen or math.isnan(confidence + typicality):
            return
        self._seen.add(digest)
        self._waiting.append((confidence, typicality))
        if len(self._waiting) < _IMAGES_PER_UPDATE:
            return
        columns = map(list, zip(*self._waiting, strict=True))
        values = dict(zip(("confidence", "typicality"), columns, strict=True))
        self._waiting.clear()
        self._monitor = self._monitor.after({k: values[k] for k in self._monitor.streams})
        before, self.drifted = self.drifted, self.drifted or self._monitor.drifted
        if self._monitor.n >= _IMAGES_PER_ROUND:
            self._monitor = self._start
            self._seen.clear()
        self._unsaved += _IMAGES_PER_UPDATE
        if self._unsaved >= _IMAGES_PER_SAVE or self.drifted != before:
            self.save()


# The example images that an upload resembles most, to be shown beside it.


@dataclass(frozen=True)
class Example:
    """One example image.

    Attributes
    ----------
    shot
        Its position among the examples of the model.
    similarity
        Its cosine with the upload, in [-1, 1].
    """

    shot: int
    similarity: float


class Examples:
    """Finds the nearest example of every class, and the files of examples.

    Parameters
    ----------
    model
        A fitted model.
    folder
        Where the examples are; None for where they were when it was fitted.
    """

    def __init__(self, model: TrustVLM, folder: Path | None = None) -> None:
        self._shots = model.shots_
        self._folder = Path(model.state.shots_folder) if folder is None else folder
        self._units = unit_rows(model.support_features_)
        labels = model.classes_.labels
        self._members = {
            labels[c]: np.flatnonzero(model.support_labels_ == c)
            for c in np.unique(model.support_labels_)
        }

    def nearest(self, features: NDArray[np.float32]) -> list[dict[str, Example]]:
        """Return, for each of n uploads `(n, d)`, the nearest example of each class that has any.

        The keys are the labels of the classes.
        """
        cosines = unit_rows(features) @ self._units.T
        best = {label: rows[cosines[:, rows].argmax(1)] for label, rows in self._members.items()}
        return [
            {label: Example(int(at[i]), float(cosines[i, at[i]])) for label, at in best.items()}
            for i in range(len(features))
        ]

    def content(self, shot: int, limits: Limits) -> bytes | None:
        """Return the file of an example; None if it is not at hand or has changed."""
        if not 0 <= shot < len(self._shots):
            return None
        recorded = self._shots[shot]
        try:
            content = read_bytes(self._folder / recorded["path"], limits)
        except ImageError:
            return None
        # Only what the model was fitted on is ever shown, whatever stands at that path by now.
        if content_hash(content) != recorded["sha256"]:
            return None
        return content


# The model itself.

_DRIFTED = ("the images are no longer like those that the model was calibrated on",)


class Candidates:
    """The labels that a person chooses from: those of the prediction set, if the model has one.

    The label of the verdict comes first, then the runner-up, then the others by their probability.
    There are four at least, however small the set, and nine at most, one a number key.

    Parameters
    ----------
    state
        Of a fitted model.
    level
        Probability that the true label is in a prediction set.
    """

    def __init__(self, state: ModelState, level: float = 0.9) -> None:
        self._labels = state.classes.labels
        self._probabilities = ClassProbabilities(state)
        self._sets: PredictionSets | None = None
        with suppress(InputError):  # it was not calibrated on images
            self._sets = sets_of(state, level, SET_METHODS[0])

    def of(self, evidence: Evidence, verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
        """Return the candidates of n images with these verdicts."""
        probabilities = self._probabilities(evidence)
        sizes = np.zeros(len(verdicts), dtype=int)
        if self._sets is not None:
            sizes = self._sets.contains(probabilities).sum(axis=1)
        sizes = sizes.clip(_LEAST_CANDIDATES, _MOST_CANDIDATES)
        orders = np.argsort(-probabilities, axis=1, kind="stable")[:, :_MOST_CANDIDATES]
        candidates = []
        for verdict, order, size in zip(verdicts, orders, sizes, strict=True):
            # A label from elsewhere that is no class has no confidence, and is none to choose.
            label = "" if math.isnan(verdict.confidence) else verdict.label
            ranked = dict.fromkeys((label, verdict.runner_up, *(self._labels[c] for c in order)))
            # A label from elsewhere may be no class, and a single class has no runner-up.
            candidates.append(tuple(label for label in ranked if label in self._labels)[:size])
        return candidates


_LEAST_CANDIDATES, _MOST_CANDIDATES = 4, 9


@dataclass(frozen=True)
class UploadResult:
    """What the service says about one upload.

    Attributes
    ----------
    verdict
        As `TrustVLM.predict` gives it.
    digest
        SHA-256 of the bytes; "" if there were none to read.
    kind
        A key of `images.KINDS` if the image cannot be used, else "".
    nearest
        The most similar example of each class that has any, by label.
    candidates
        The labels that a person chooses from.
    """

    verdict: Verdict
    digest: str = ""
    kind: str = ""
    nearest: Mapping[str, Example] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()


class ServedModel:
    """Judges uploads as `trustvlm predict` would; what all of them share is prepared once.

    Parameters
    ----------
    name
        What clients call it.
    path
        The `.trust` directory.
    limits
        Bounds on each image.
    batch_images
        Images per forward pass.
    device
        Where the encoders compute.
    remember
        Images whose embeddings are kept in memory.
    shots
        Folder of the example images; None for where they were when the model was fitted.
    before
        What this one replaces: encoders that both need are not loaded a second time.
    drift_file
        Where the state of the drift monitor is kept; None keeps it nowhere.
    when_invalid
        What becomes of accepted labels once images are no longer like those that the model was
        calibrated on: `review` or `keep`.

    Raises
    ------
    ArtefactError
        If the artefact is damaged or does not fit the models on this machine.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        limits: Limits,
        batch_images: int,
        remember: int,
        device: str = "auto",
        shots: Path | None = None,
        before: ServedModel | None = None,
        drift_file: Path | None = None,
        when_invalid: str = "review",
    ) -> None:
        self.name = name
        self.path = path
        self.limits = limits
        self._device = device
        store = RecentEmbeddings(2 * remember)
        shared = {} if before is None else _same_encoders(path, before.model)
        self.model: TrustVLM = TrustVLM.load(
            path, store=store, batch_size=batch_images, limits=limits, device=device, **shared
        )
        self._store = store
        self._encoders = {
            image_key(encoder): encoder.preprocessing
            for encoder in (self.model.encoders.vlm, self.model.encoders.vision)
            if encoder.dim
        }
        state = self.model.state
        self._candidates = Candidates(state)
        self.needs_labels = state.needs_labels
        self._own = None if self.needs_labels else Predictor(self.model)
        self._of_given: Predictor | None = None
        self.judges_no_labels = ""
        try:
            self._of_given = Predictor(self.model, given=GivenLabels(state.classes, ()))
        except InputError as error:
            if self._own is None:
                raise
            self.judges_no_labels = str(error)
        self.examples = Examples(self.model, shots)
        self.drift = DriftWatch(self.model, drift_file)
        calibration = self.model.calibration_
        rule = None if calibration is None else calibration.certificate
        every_class = np.arange(len(self.model.classes_))
        # What is guaranteed of batches alone lets nothing be accepted here: images come one by one.
        self._guaranteed = rule is not None and not np.isnan(rule.thresholds(every_class)).all()
        self._when_invalid = when_invalid

    def wanted(self, digest: str) -> tuple[Preprocessing, ...]:
        """Return what has to be decoded of an image: nothing if its embeddings are remembered."""
        missing = (
            preprocessing
            for fingerprint, preprocessing in self._encoders.items()
            if not self._store.get_many(fingerprint, [digest])
        )
        return tuple(dict.fromkeys(map(without_normalisation, missing)))

    def try_out(self) -> None:
        """Judge a picture of noise, which neither drift nor anything else takes note of.

        Raises
        ------
        ArtefactError
            If there is no sound verdict on it.
        """
        noise: ImageSource = InMemoryImage("noise.png", probe(0))
        if self.probe_label:
            noise = LabelledImage(noise, self.probe_label)
        encoded = encode_images([noise], self.model.embedder)
        evidence = self._evidence(encoded)
        (verdict,) = self._verdicts(encoded, None if self.needs_labels else evidence)
        reason = verdict.error
        if not reason and not math.isfinite(verdict.confidence):
            reason = f"its confidence in a picture is {verdict.confidence}"
        if reason:
            raise ArtefactError(
                f"{shown_target(self.path)} gives no verdict: {reason}. Fit the model again."
            )

    def judge(self, requests: Sequence[Sequence[ImageSource]]) -> list[list[UploadResult]]:
        """Judge the images of several requests; they share forward passes and nothing else.

        A score that looks at the whole batch sees one request at a time, so that no client's
        answer depends on another's images.
        """
        if self.model.state.whole_batch:
            return [self._judge_batch(images) for images in requests]
        results = iter(self._judge_batch([image for images in requests for image in images]))
        return [[next(results) for _ in images] for images in requests]

    @property
    def outcome(self) -> RunOutcome:
        """What holds for the images so far: their guarantee is invalid once they have drifted."""
        invalid = self._guaranteed and self.drift.drifted
        return RunOutcome(0, 0, None, _DRIFTED if invalid else (), None, self._when_invalid)

    def read(self, store: EmbeddingStore, batch_size: int) -> TrustVLM:
        """Read the artefact again, apart from what serves, with the encoders that are loaded.

        Raises
        ------
        ArtefactError
            If it is damaged or does not fit the models on this machine.
        """
        shared = _same_encoders(self.path, self.model)
        model = TrustVLM.load(
            self.path,
            store=store,
            batch_size=batch_size,
            limits=self.limits,
            device=self._device,
            **shared,
        )
        # By their names, since it may be saved.
        model.vlm, model.vision = (model.state.encoders[r]["spec"] for r in ("vlm", "vision"))
        return model

    def describe(self) -> dict[str, Any]:
        """Return what clients may know of the model, as plain JSON values."""
        manifest = self.model.state.to_manifest()
        encoders = {"vlm": self.model.encoders.vlm, "vision": self.model.encoders.vision}
        return {
            "name": self.name,
            "classes": list(self.model.classes_.labels),
            "score": self.model.score,
            "models": {
                role: {key: encoder.get(key, "") for key in ("spec", "fingerprint", "note")}
                | {"device": getattr(encoders[role], "device", "cpu")}
                for role, encoder in manifest["models"].items()
            },
            "shots": manifest["shots"]["counts"],
            "guarantee": ("invalid" if self.outcome.invalid else "valid")
            if self._guaranteed
            else None,
            "calibrated": self._guaranteed,
            "needs_labels": self.needs_labels,
            **{key: manifest[key] for key in ("decision_rule", "created_by", "created_at")},
        }

    def _judge_batch(self, images: Sequence[ImageSource]) -> list[UploadResult]:
        encoded = encode_images(images, self.model.embedder)
        labelled = np.array([isinstance(image, LabelledImage) for image in images], dtype=bool)
        results: dict[int, UploadResult] = {}
        for rows, given in ((~labelled, False), (labelled, True)):
            chosen = encoded.select(rows)
            evidence = self._evidence(chosen)
            verdicts = self._verdicts(chosen, None if given else evidence)
            # Labels of others are watched only where the model is for them.
            watched = given == self.needs_labels
            if watched:
                verdicts = self.outcome.decide(verdicts)
            own = self._results(chosen, evidence, verdicts, watched=watched)
            results |= dict(zip(np.flatnonzero(rows).tolist(), own, strict=True))
        return [results[i] for i in range(len(images))]

    def _evidence(self, images: EncodedImages[Any]) -> Evidence:
        readable = images.readable()
        return self.model.evidence(readable.image_embeddings, readable.features)

    def _verdicts(self, images: EncodedImages[Any], evidence: Evidence | None) -> list[Verdict]:
        """Judge the model's own labels by evidence, or without it those that images came with."""
        if not len(images):
            return []
        if evidence is not None:
            assert self._own is not None  # noqa: S101 -- `check_labels` refuses the others
            return self._own.judge(images, evidence)
        assert self._of_given is not None  # noqa: S101 -- as above
        labels = GivenLabels.one_by_one(self.model.classes_, images.refs)
        return self._of_given.with_labels(labels).judge(images)

    def _results(
        self,
        images: EncodedImages[Any],
        evidence: Evidence,
        verdicts: Sequence[Verdict],
        *,
        watched: bool,
    ) -> list[UploadResult]:
        readable = zip(
            self.examples.nearest(images.readable().features),
            # NaN where no class has a prototype.
            np.fmax.reduce(prototype_similarities(evidence), axis=1),
            self._candidates.of(
                evidence,
                [v for v, e in zip(verdicts, images.errors, strict=True) if e is None],
            ),
            strict=True,
        )
        results = []
        for verdict, digest, error in zip(verdicts, images.hashes, images.errors, strict=True):
            if error is not None:
                results.append(UploadResult(verdict, kind=error.kind))
                continue
            nearest, typicality, candidates = next(readable)
            results.append(UploadResult(verdict, digest, nearest=nearest, candidates=candidates))
            if watched:
                self.drift.see(digest, verdict.confidence, float(typicality))
        return results

    @property
    def probe_label(self) -> str:
        """What to call a picture of noise: a class where each image needs a label, else nothing."""
        return self.model.classes_.labels[0] if self.needs_labels else ""

    def check_labels(self, labelled: Sequence[bool]) -> str:
        """Say why a request cannot be judged, of whose images some have a label; "" if it can.

        Parameters
        ----------
        labelled
            Of each image, whether it came with a label.
        """
        if self.needs_labels and not all(labelled):
            return (
                f"The model {self.name} gives no labels of its own, it judges those of others, but "
                f"{labelled.count(False)} of {len(labelled)} images came without one. Send a label "
                "with each: in a form the field `label`, once for each of `images` and in their "
                "order; in JSON `label` beside `data`."
            )
        if any(labelled) and self._of_given is None:
            return f"Images came with labels. {self.judges_no_labels}"
        return ""


def _same_encoders(path: Path, model: TrustVLM) -> dict[str, Any]:
    """Return those encoders of a model that an artefact asks for, by their fingerprints."""
    stored = ModelState.load(path).encoders
    return {
        role: encoder
        for role, encoder in (("vlm", model.encoders.vlm), ("vision", model.encoders.vision))
        if stored[role]["fingerprint"] == describe(encoder)["fingerprint"]
    }


def probe(seed: int) -> bytes:
    r"""Return a PNG that was never seen before, so that no model answers from memory.

    Examples
    --------
    >>> probe(0)[:4], probe(0) == probe(1)
    (b'\x89PNG', False)
    """
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    content = io.BytesIO()
    coarse.resize((64, 64)).save(content, "PNG")
    return content.getvalue()
