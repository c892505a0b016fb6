"""`TrustVLM`, the one object most people use."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.calibration.calibrators import DEFAULT_CALIBRATOR
from trustvlm.embeddings import EmbeddingStore, Profile, Progress
from trustvlm.exceptions import ArtefactError, InputError, ModelUnavailableError
from trustvlm.images import (
    DEFAULT_LIMITS,
    ClassList,
    Columns,
    LabelledImage,
    LabelledImages,
    LabelledSource,
    Limits,
    Source,
    find_labelled,
    open_images,
)
from trustvlm.images.labelled import LABEL_CONFIDENCE
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.openclip_files import as_recorded
from trustvlm.models.prompts import read_prompts
from trustvlm.models.registry import at_commit, check_plugin, plugin_of
from trustvlm.pipeline.calibrate import calibrate, calibrate_on_shots
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.class_changes import (
    ClassChange,
    add_class,
    merge_classes,
    remove_classes,
    rename_class,
)
from trustvlm.pipeline.cross_validate import CrossValidation, cross_validate, with_same_settings
from trustvlm.pipeline.evaluate import EvaluationResult, evaluate
from trustvlm.pipeline.fit import fit
from trustvlm.pipeline.given_labels import (
    UNKNOWN_LABELS,
    GivenLabels,
    with_confidence,
)
from trustvlm.pipeline.label_errors import cross_val_verify
from trustvlm.pipeline.label_images import label_images
from trustvlm.pipeline.labellers import GivenSource, Labeller, LabellerComparison
from trustvlm.pipeline.predict import Predictor
from trustvlm.pipeline.records import (
    ClassSource,
    Embedder,
    Encoders,
    PromptSource,
    check_encoders,
    describe,
)
from trustvlm.pipeline.runs import check_when_invalid
from trustvlm.pipeline.select import Selection
from trustvlm.pipeline.settings import StoredTarget, constructor_arguments
from trustvlm.pipeline.state import DEFAULT_SCORE, ModelState, check_same_model, keeping_labels
from trustvlm.pipeline.update import HOLD_OUT, Steps, Update, update, worse_model
from trustvlm.pipeline.verdict import Verdict, Verdicts, error_verdict, folder_of
from trustvlm.risk_control.certify import DEFAULT_METHOD
from trustvlm.risk_control.goals import GUARANTEES, Goal, several_risks
from trustvlm.risk_control.prediction_sets import SET_METHODS
from trustvlm.scores import Evidence, PrototypeBank, check_parameters, get

# What `load` takes besides the path; the rest is part of the artefact.
_RELOADABLE = ("device", "store", "batch_size", "workers", "limits", "vlm", "vision")


def _are_labelled(source: Any) -> bool:
    """Whether a source is a list of labelled images already."""
    return isinstance(source, Sequence) and all(isinstance(s, LabelledImage) for s in source)


# What a process has of its own: loaded encoders, and an open store.
_OF_PROCESS = ("encoders", "embedding_store")


class NotFittedError(InputError, AttributeError):
    """Nothing was learned yet, so that what is learned is no attribute either."""


class TrustVLM:
    """Label images with a vision-language model and say how far each label can be trusted.

    Parameters
    ----------
    vlm
        Preset, `hf:...`, `openclip:...`, `offline` or an encoder object: the model that predicts;
        `none` where only labels from elsewhere are judged (`verify`).
    vision
        Preset, `same`, `timm:...`, `onnx:...`, `offline` or an encoder object: the encoder that
        compares the image with the examples.
    classes
        Class names, a mapping from folder to name, a file, or None for the shots' folder names.
    prompt
        Template with `{}`, several templates, a file of them, or None for the model's own.
    class_texts
        What prompts say of some classes, by folder or name, where that is not the name itself.
    score
        A name of `scores.names()`. `auto_star` weighs text and shots by what held-out shots say,
        and may correct the VLM's label; `auto` does the same and leaves every label as it is.
        `trustvlm` and `trustvlm_star` are the paper's.
    score_parameters
        The score's own parameters, such as `{"weight": 0.5}` of `trustvlm`; the default score has
        none.
    finetune
        Let the prototypes go on learning from the shots: TrustVLM*(F). Only scores that compare
        images with prototypes, such as `trustvlm` and `trustvlm_star`, change by it.
    protocol
        `clean` gives each encoder its own preprocessing; `paper` follows the released script.
    device, precision
        Where and how the encoders run, for those that have a choice.
    draft
        Decode large JPEGs at a half, a quarter or an eighth: faster, and nearly the same pixels.
    store
        Where embeddings are kept between runs; by default the user's cache folder.
    batch_size
        Images per forward pass.
    workers
        Threads that decode images; None chooses by the number of cores.
    limits
        Bounds on each image: size, and time for reading and decoding it.
    other_classes
        Names of what images of none of the classes may show, such as `something else`: an image
        that the text likes best as one of these bears its name, and goes to review.

    Attributes
    ----------
    state : ModelState
        All that was learned, frozen; what follows is some of it.
    classes_ : ClassList
        The class names and the folder names that stand for them.
    bank_ : PrototypeBank
        One prototype per class.
    text_embeddings_ : ndarray
        `(C, e)` unit rows, one per class.
    shots_ : tuple of dict
        Path, SHA-256 and class index of every shot that was used.
    losses_ : tuple of float
        Mean loss per epoch of fine-tuning; empty without it.
    selection_ : Selection or None
        How `fit` selected parameters of the score, if it was asked to.
    selection_images_ : tuple of dict
        Path and SHA-256 of the images that they were selected on, besides the shots.
    calibration_ : Calibration or None
        P(correct) and the rule for accepting, if `calibrate` was called.

    Notes
    -----
    Dong et al. 2025 (arXiv 2505.23745).

    A model, fitted or not, can be pickled and copied. Encoders do not travel: another process
    loads them by their names when it needs them, and refuses others than those the model was
    fitted with. Encoders that were passed as objects travel if they can be pickled. A store is
    opened again by its path; what a store in memory held stays behind.

    Examples
    --------
    >>> model = TrustVLM(vlm="offline", vision="offline")
    >>> model.fit("shots/").save("pets.trust")  # doctest: +SKIP
    >>> TrustVLM.load("pets.trust").predict("photos/").to_csv("out.csv")  # doctest: +SKIP
    """

    def __init__(
        self,
        vlm: str | VisionLanguageModel = "clip-vit-b16",
        vision: str | ImageEncoder = "dinov2-base",
        classes: ClassSource | None = None,
        prompt: PromptSource | None = None,
        *,
        class_texts: Mapping[str, str] | None = None,
        score: str = DEFAULT_SCORE,
        score_parameters: Mapping[str, Any] | None = None,
        finetune: bool = False,
        protocol: str = "clean",
        device: str = "auto",
        precision: str = "float32",
        draft: bool = False,
        store: EmbeddingStore | None = None,
        batch_size: int = 32,
        workers: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        other_classes: Sequence[str] = (),
    ) -> None:
        self.vlm = vlm
        self.vision = vision
        # An iterator could be read once only, and each fit reads them.
        self.classes = list(classes) if isinstance(classes, Iterator) else classes
        self.prompt = list(prompt) if isinstance(prompt, Iterator) else prompt
        self.class_texts = class_texts
        self.score = score
        self.score_parameters = score_parameters
        self.finetune = finetune
        self.protocol = protocol
        self.device = device
        self.precision = precision
        self.draft = draft
        self.store = store
        self.batch_size = batch_size
        self.workers = workers
        self.limits = limits
        is_iterator = isinstance(other_classes, Iterator)
        self.other_classes = list(other_classes) if is_iterator else other_classes
        self._learned: ModelState | None = None
        # Whether the encoders that it was fitted with are to be found here, and compared.
        self._is_from_elsewhere = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a process: the encoders, loaded by name, and an open store."""
        state = {k: v for k, v in self.__dict__.items() if k not in _OF_PROCESS}
        for role in ("vlm", "vision"):
            if isinstance(state[role], str):
                continue
            try:
                state[role] = pickle.dumps(state[role])
            except Exception as error:  # whatever the encoder is made of
                raise InputError(
                    f"The {role} was passed as an object that cannot be pickled ({error}): name it "
                    "by a preset, `hf:<directory>` or another spec for other processes."
                ) from error
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Load encoders again when they are needed, and compare them with those it was fitted with.

        A store in memory begins empty.
        """
        self.__dict__.update(state)
        for role in ("vlm", "vision"):
            if isinstance(state[role], bytes):
                self.__dict__[role] = pickle.loads(state[role])  # noqa: S301
        self._is_from_elsewhere = True

    def __copy__(self) -> TrustVLM:
        """Return a model that shares all of this one, until either learns or is set anew."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> TrustVLM:
        """Return a model of its own that shares loaded encoders and the store."""
        other = object.__new__(type(self))
        shared = {*_OF_PROCESS, "store", "vlm", "vision"}
        for name, value in self.__dict__.items():
            other.__dict__[name] = value if name in shared else copy.deepcopy(value, memo)
        return other

    @cached_property
    def encoders(self) -> Encoders:
        """Both encoders, loaded when they are first needed.

        Raises
        ------
        ArtefactError
            If this model was fitted elsewhere, and the encoders here are others.
        """
        state = self._learned if self._is_from_elsewhere else None
        named: dict[str, Any] = {"vlm": self.vlm, "vision": self.vision}
        recorded = dict(named)
        for role, entry in {} if state is None else state.encoders.items():
            # Only models that a backend from outside the package runs say so.
            if "plugin" in entry and entry["spec"] in named.values():
                check_plugin(entry["spec"], entry["plugin"])
            if entry["spec"] == named[role]:
                spec = as_recorded(entry["spec"], entry)
                source, revision = entry.get("source", ""), entry.get("revision", "")
                recorded[role] = at_commit(spec, source, revision)
        load = partial(
            Encoders.load,
            protocol=self.protocol,
            device=self.device,
            precision=self.precision,
            draft=self.draft,
        )
        unavailable = None
        try:
            encoders = load(**recorded)
        except ModelUnavailableError as error:
            if recorded == named:
                raise
            # What the name leads to now may be the same, at a commit that changed other files.
            try:
                encoders = load(**named)
            except ModelUnavailableError:
                raise error from None
            unavailable = error
        if state is None:
            return encoders
        for role, entry in state.encoders.items() if state.protocol == "paper" else ():
            encoder = getattr(encoders, role)
            # In older models the paper's protocol read images as the clean one does.
            if "plain_rgb" not in entry["preprocessing"]:
                encoder.preprocessing = replace(encoder.preprocessing, plain_rgb=False)
        try:
            check_same_model("VLM", state.encoders["vlm"], describe(encoders.vlm))
            check_same_model("vision encoder", state.encoders["vision"], describe(encoders.vision))
        except ArtefactError as error:
            if unavailable is None:
                raise
            raise ArtefactError(
                f"{unavailable} What its name leads to here differs: {error}"
            ) from (unavailable)
        return encoders

    @cached_property
    def embedding_store(self) -> EmbeddingStore:
        """The store in use, opened when it is first needed."""
        return EmbeddingStore() if self.store is None else self.store

    @property
    def embedder(self) -> Embedder:
        """Encoders and store, and how images are read."""
        return Embedder(
            self.encoders, self.embedding_store, self.batch_size, self.workers, self.limits
        )

    def _checked_names(self) -> Callable[[], Embedder]:
        """Return what loads the encoders, after all that can be said of their names at once.

        Listing images may take minutes, and loading encoders too: neither begins with wrong names.
        """
        # A model from elsewhere may have its encoders by other names.
        if "encoders" not in vars(self) and not self._is_from_elsewhere:
            check_encoders(self.vlm, self.vision, self.protocol)
        return lambda: self.embedder

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt templates in use."""
        return read_prompts(self.encoders.vlm.prompt if self.prompt is None else self.prompt)

    @property
    def state(self) -> ModelState:
        """What was learned, with the score as it is set now.

        Raises
        ------
        InputError
            If nothing was learned yet, or the score or its parameters make no sense.
        """
        learned, given = self._fitted, dict(self.score_parameters or {})
        score = self.score if learned.has_vlm else keeping_labels(self.score, text=False)
        check_parameters(score, given)
        if (learned.score, learned.score_parameters) == (score, given):
            return learned  # and with it what has been derived from its shots
        return replace(learned, score=score, score_parameters=given)

    def _named(self, state: ModelState) -> ModelState:
        """Name encoders as the user does: `same` is not the name of the tower that it became."""
        encoders = {role: dict(entry) for role, entry in state.encoders.items()}
        for role, named in (("vlm", self.vlm), ("vision", self.vision)):
            if isinstance(named, str):
                plugin = plugin_of(named)
                encoders[role] |= {"spec": named, **({"plugin": plugin} if plugin else {})}
        return replace(state, encoders=encoders)

    @property
    def _fitted(self) -> ModelState:
        if self._learned is None:
            raise NotFittedError("This TrustVLM has no examples yet: call fit(shots) first.")
        return self._learned

    @property
    def classes_(self) -> ClassList:  # noqa: D102 -- described above, as those that follow
        return self._fitted.classes

    @property
    def bank_(self) -> PrototypeBank:  # noqa: D102
        return self._fitted.bank

    @property
    def text_embeddings_(self) -> NDArray[np.float32]:  # noqa: D102
        return self._fitted.text_embeddings

    @property
    def support_features_(self) -> NDArray[np.float32]:  # noqa: D102
        return self._fitted.support_features

    @property
    def support_labels_(self) -> NDArray[np.int64]:  # noqa: D102
        return self._fitted.support_labels

    @property
    def shots_(self) -> tuple[Mapping[str, Any], ...]:  # noqa: D102
        return self._fitted.shots

    @property
    def shot_failures_(self) -> Verdicts:  # noqa: D102
        return Verdicts(error_verdict(*failure) for failure in self._fitted.unreadable_shots)

    @property
    def losses_(self) -> tuple[float, ...]:  # noqa: D102
        return self._fitted.losses

    @property
    def selection_(self) -> Selection | None:  # noqa: D102
        return self._fitted.selection

    @property
    def selection_images_(self) -> tuple[Mapping[str, Any], ...]:  # noqa: D102
        return self._fitted.selection_images

    @property
    def calibration_(self) -> Calibration | None:  # noqa: D102
        return self._fitted.calibration

    @property
    def provenance_(self) -> dict[str, str]:  # noqa: D102
        return {key: getattr(self._fitted, key) for key in ("created_by", "created_at")}

    @property
    def parameters_(self) -> dict[str, Any]:  # noqa: D102
        return self.state.parameters

    def evidence(
        self, embeddings: NDArray[Any], features: NDArray[Any], *, shots: Evidence | None = None
    ) -> Evidence:
        """Gather everything there is on n images; see `ModelState.evidence`."""
        return self.state.evidence(embeddings, features, shots=shots)

    def evidence_of_shots(self) -> Evidence:
        """Gather everything there is on the shots, about no image yet."""
        return self.state.evidence_of_shots()

    def fit(
        self,
        shots: LabelledSource,
        *,
        shots_per_class: int | None = None,
        draw: int = 0,
        select: str | None = None,
        select_on: LabelledSource | None = None,
        adapt_to: Source | StoredTarget | None = None,
        progress: Progress | None = None,
        **columns: Unpack[Columns],
    ) -> TrustVLM:
        """Learn one prototype per class from labelled example images; nothing is trained.

        Parameters
        ----------
        shots
            Folder of class folders, CSV with `path,label`, an archive, `(images, labels)`, a list
            of pairs, a data frame or data set; see `images.find_labelled`.
        shots_per_class
            Use at most this many per class, by the paper's draw; None uses all.
        draw
            Which draw; 0 is the paper's.
        select
            `loo` selects weight and temperature of `trustvlm` or `trustvlm_star` on the shots, each
            of them held out. What `score_parameters` gives is not selected. The default score has
            nothing to select: it always weighs text and shots that way.
        select_on
            Or labelled images to select them on, in any form that `shots` may have; these must be
            neither shots nor images to evaluate on.
        adapt_to
            Unlabelled images of the target, such as drawings where the shots are photographs, for
            a score that adapts (`auto_adapted`, `auto_adapted_star`). It learns from them once;
            each image is then judged by itself, so that the model can be calibrated, served and
            used in bulk. They must be neither shots nor images to calibrate or evaluate on. Without
            them such a score adapts to each batch that it predicts. `settings_of` another model
            gives those that it adapted to.
        progress
            Called with images done, images in all, and images that needed no forward pass.
        **columns
            Of tables and Parquet files, in any of these: `path_column`, `label_column`,
            `image_column`; see `images.Columns`.

        Raises
        ------
        LeakError
            If images of `select_on` or `adapt_to` are also among the shots, by content.
        InputError
            For a missing or empty input, unknown classes, or parameters that make no sense.
        ModelUnavailableError, MissingExtraError
            If a model cannot be had here.

        Warns
        -----
        TrustVLMWarning
            If shots cannot be read, or classes have fewer shots than asked for, or none; or the
            score gains nothing by fine-tuning, or tends to spoil labels with so few shots.
        """
        self._is_from_elsewhere = False
        state = fit(
            shots,
            self._checked_names(),
            classes=self.classes,
            prompt=self.prompt,
            class_texts=self.class_texts,
            score=self.score,
            score_parameters=self.score_parameters,
            finetune=self.finetune,
            shots_per_class=shots_per_class,
            draw=draw,
            select=select,
            images=select_on,
            other_classes=self.other_classes,
            adapt_to=adapt_to,
            limits=self.limits,
            progress=progress,
            **columns,
        )
        self._learned = self._named(state)
        return self

    def iter_predict(
        self,
        images: Source,
        *,
        path_column: str = "path",
        image_column: str | None = None,
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> Iterator[Verdict]:
        """Yield one verdict per image in input order, in bounded memory.

        Each is decided by itself: nothing says whether the guarantee covers these images, as
        `predict` does at the end, and a threshold that follows from a batch is replaced by that
        for single images, if there is one.

        Parameters
        ----------
        images
            A file, a folder, a CSV with a `path` column, a text file of paths, a tar archive, a
            Parquet file with images, the URL of any of these; pictures that the program holds, as
            PIL images, arrays, tensors, bytes, open files, data frames or data sets; or a list.
        path_column, image_column
            Columns in tables, Parquet files, data frames and data sets; see `images.image_shards`.
        progress
            Called with images done, images in all (0 for a stream), and images that needed no
            forward pass.
        profile
            Learns where the time goes; `profile.lines()` tells it.
        """
        predictor = Predictor(self)
        sources = open_images(
            images, path_column=path_column, image_column=image_column, limits=self.limits
        )
        for _, verdicts in predictor.chunks(sources, progress, profile):
            yield from verdicts

    def predict(
        self,
        images: Source,
        *,
        path_column: str = "path",
        image_column: str | None = None,
        when_invalid: str = "review",
        prediction_sets: float | None = None,
        set_method: str = SET_METHODS[0],
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> Verdicts:
        """Return one verdict per image, in input order.

        An image that cannot be read is a verdict with `decision` "error" and its `error`. Whether
        the images are like those that the model was calibrated on is said in `run` of the result.

        Parameters
        ----------
        images, path_column, image_column, progress, profile
            As `iter_predict`.
        when_invalid
            What becomes of accepted labels if the guarantee does not cover these images: `review`,
            or `keep`.
        prediction_sets
            Give every verdict the set of labels that the image may have, among which the true one
            is with this probability; needs labelled images that the model was calibrated on.
        set_method
            Of `decisions.SET_METHODS`.

        Raises
        ------
        InputError
            If the input does not exist or holds no images, or the model is not fitted.
        """
        check_when_invalid(when_invalid)
        predictor = Predictor(self, prediction_sets, set_method)
        sources = open_images(
            images, path_column=path_column, image_column=image_column, limits=self.limits
        )
        outcome, rows = predictor.judge_run(sources, when_invalid, progress, profile)
        return Verdicts(rows, folder=folder_of(images), run=outcome)

    def verify(
        self,
        images: GivenSource | Source,
        labels: Sequence[str] | None = None,
        label_confidence: Sequence[float] | None = None,
        *,
        synonyms: Mapping[str, str] | None = None,
        unknown_labels: str = UNKNOWN_LABELS[0],
        when_invalid: str = "review",
        progress: Progress | None = None,
        profile: Profile | None = None,
        confidence_column: str = LABEL_CONFIDENCE,
        **columns: Unpack[Columns],
    ) -> Verdicts:
        """Say of labels from elsewhere how far each can be trusted; return one verdict per image.

        The labels may be of a language model, a vendor, people. The examples judge them, and the
        VLM's text where the model has one; `auto_star` then judges as `auto`. Nothing is guaranteed
        until the model is calibrated for this labeller: `calibrate(..., given_labels=)`.

        Parameters
        ----------
        images
            Folder of class folders, or a CSV, JSON Lines or Parquet file with labels; or paths,
            beside `labels`; or what `images.find_labelled`, or `images.find_most_probable` for one
            column of probabilities per class, lists.
        labels
            A label of each path.
        label_confidence
            The probability that came with each label; NaN where there is none.
        synonyms
            Classes by other words for them, such as `{"puppy": "dog"}`.
        unknown_labels
            What becomes of an image whose label is no class: `review`, or `error`.
        when_invalid, progress, profile
            As in `predict`.
        confidence_column
            Where tables have these probabilities; its cells may be empty, and the column may be
            missing if it is called `label_confidence`. "" reads none.
        **columns
            As of `images.find_labelled`.

        Raises
        ------
        InputError
            If the input does not exist or holds no images, the lists differ in length, or the
            model's score chooses labels itself.
        """
        check_when_invalid(when_invalid)
        source: Any = images
        if labels is not None:
            source = ([images] if isinstance(images, str | os.PathLike) else images, labels)
        listed = source
        if not isinstance(listed, LabelledImages):
            listed = find_labelled(
                source, confidence_column=confidence_column, limits=self.limits, **columns
            )
        refs = with_confidence(listed.refs, label_confidence)
        state = self.state
        given = GivenLabels(state.classes, refs, synonyms=synonyms, unknown=unknown_labels)
        predictor = Predictor(self, given=given)
        outcome, rows = predictor.judge_run(refs, when_invalid, progress, profile)
        named = source[0] if isinstance(source, tuple) else source
        return Verdicts(rows, folder=folder_of(named), run=outcome)

    def compare_labellers(
        self, labellers: Mapping[str, GivenSource], **settings: Any
    ) -> LabellerComparison:
        """Verify the labels of several labellers of the same images, and put them side by side.

        Parameters
        ----------
        labellers
            The labels of each by its name, as `verify` takes them; those of several columns of one
            table by `images.find_labellers`.
        **settings
            Of `verify`, the same for all.

        Raises
        ------
        InputError
            As `verify`, or if there is no labeller.
        """
        if not labellers:
            raise InputError("Expected labels of one labeller at least, but got none.")
        by_labeller = {name: self.verify(own, **settings) for name, own in labellers.items()}
        score = get(self.state.for_given_labels().score)
        return LabellerComparison(by_labeller, score.log_odds, len(self.classes_))

    def cross_val_verify(
        self,
        labelled: LabelledSource,
        *,
        folds: int = 5,
        groups: Sequence[Hashable] | None = None,
        progress: Progress | None = None,
        confidence_column: str = LABEL_CONFIDENCE,
        **columns: Unpack[Columns],
    ) -> Verdicts:
        """Find the label errors of a whole data set: each label is judged by the other folds.

        Nothing needs to be fitted, and no shots or calibration of a fitted model are used: of it
        only the encoders, classes and score. The images of a fold are judged by those of the
        others, with their labels as they are, so that none is judged by its own. Images that are
        nearly the same share a fold, as far as that shows in their features: else a copy with the
        same wrong label would speak for it. Copies with different labels are reviewed.

        Parameters
        ----------
        labelled
            As `fit` takes it; two classes at least.
        folds
            From 2 on. More take longer and leave each image more to be judged by.
        groups
            What each image has in common with those that it is not independent of, such as a scene,
            in the order of the images; `group_column` names a column of it. A group shares a fold.
        progress, confidence_column, **columns
            As in `verify`.

        Returns
        -------
        Verdicts
            As of `verify`, in input order. A label that no other fold has is reviewed. Nothing is
            guaranteed: `accept` says that the images of the other folds agree.

        Raises
        ------
        InputError
            If the input does not exist or has no two classes, the score chooses labels itself, or
            groups differ in number from images.
        """
        return cross_val_verify(
            labelled,
            self._checked_names(),
            folds=folds,
            groups=groups,
            classes=self.classes,
            prompt=self.prompt,
            score=self.score,
            score_parameters=self.score_parameters,
            progress=progress,
            confidence_column=confidence_column,
            limits=self.limits,
            **columns,
        )

    def label(
        self,
        images: Source,
        *,
        correct: bool = False,
        progress: Progress | None = None,
        **columns: Unpack[Columns],
    ) -> Verdicts:
        """Label images from `classes` alone, without shots; nothing needs to be fitted.

        The images verify each other (`auto_unlabelled`), so a verdict depends on the others.

        Parameters
        ----------
        images, progress
            As `iter_predict`.
        correct
            Let the images correct the VLM's labels, too (`auto_unlabelled_star`).
        **columns
            As in `fit`.

        Raises
        ------
        InputError
            Without class names, or if the input does not exist or holds no images.

        Warns
        -----
        TrustVLMWarning
            If there are few images a class, or they contradict the VLM on most of them.
        """
        return label_images(
            images,
            self._checked_names(),
            classes=self.classes,
            prompt=self.prompt,
            class_texts=self.class_texts,
            correct=correct,
            other_classes=self.other_classes,
            limits=self.limits,
            progress=progress,
            **columns,
        )

    def evaluate(
        self,
        labelled: LabelledSource,
        *,
        name: str | None = None,
        scores: Sequence[str] | None = None,
        convention: str = "exact",
        exclude_shots: bool = False,
        given_labels: GivenSource | None = None,
        synonyms: Mapping[str, str] | None = None,
        unknown_labels: str = UNKNOWN_LABELS[0],
        groups: Sequence[str] | None = None,
        progress: Progress | None = None,
        **columns: Unpack[Columns],
    ) -> EvaluationResult:
        """Measure the model's score, and every other one, on labelled images.

        Parameters
        ----------
        labelled
            As the shots of `fit`.
        name
            What tables call it; None takes the folder's or file's name.
        scores
            Names of scores to compare; None takes every one that the evidence allows.
        convention
            Of the metrics: `exact` or `trustvlm`.
        exclude_shots
            Leave out images that the model was made with, such as its shots, instead of refusing.
        given_labels
            Labels from elsewhere of the same images, as `verify` takes them, or as
            `images.find_labelled` lists them: what is measured is the trust in that labeller. The
            true classes come from `labelled` as ever.
        synonyms
            As in `verify`.
        unknown_labels
            What becomes of images whose given label is no class, which nothing accepts: with
            `review` they are left out, with a warning; with `error` they are `failures`.
        groups
            Of each image, in the order of the source, what it has in common with others that it is
            not independent of, such as the scene of a frame; or `group_column`, the column of a
            table that says it. One image of each group is used, drawn at random: every group counts
            once.
        progress
            As in `iter_predict`.
        **columns
            As in `fit`.

        Raises
        ------
        LeakError
            If images are also among the shots, or were selected or calibrated on, by content, and
            `exclude_shots` is False.
        InputError
            If the input does not exist, holds no images, or has labels of unknown classes.
        """
        return evaluate(
            self,
            labelled,
            name=name,
            scores=scores,
            convention=convention,
            exclude_shots=exclude_shots,
            labeller=self.labeller(given_labels, synonyms, unknown_labels),
            groups=groups,
            progress=progress,
            **columns,
        )

    def labeller(
        self,
        given_labels: GivenSource | None,
        synonyms: Mapping[str, str] | None = None,
        unknown_labels: str = UNKNOWN_LABELS[0],
    ) -> Labeller | None:
        """Read labels from elsewhere as classes of this model; None for None.

        Parameters
        ----------
        given_labels, synonyms, unknown_labels
            As in `evaluate`.

        Raises
        ------
        InputError
            If they cannot be read, an image has two, or a synonym stands for what is no class.
        """
        if given_labels is None:
            return None
        return Labeller(
            given_labels,
            self.classes_,
            synonyms=synonyms,
            unknown=unknown_labels,
            limits=self.limits,
        )

    def calibrate(
        self,
        labelled: LabelledSource,
        *,
        risk: float | Sequence[float] = 0.05,
        confidence_level: float = 0.95,
        guarantee: str = GUARANTEES[0],
        per_class: bool = False,
        class_risk: Mapping[str, float] | None = None,
        min_coverage: float | None = None,
        cost_error: float | None = None,
        cost_review: float | None = None,
        method: str = DEFAULT_METHOD,
        calibrator: str = DEFAULT_CALIBRATOR,
        name: str | None = None,
        exclude_shots: bool = False,
        gate: bool = True,
        given_labels: GivenSource | None = None,
        synonyms: Mapping[str, str] | None = None,
        unknown_labels: str = UNKNOWN_LABELS[0],
        groups: Sequence[str] | None = None,
        progress: Progress | None = None,
        **columns: Unpack[Columns],
    ) -> TrustVLM:
        """Learn P(correct), and certify a threshold for accepting labels unseen.

        With probability `confidence_level` over the draw of the labelled images, at most the share
        `risk` of what is accepted is wrong, for new images like these. Where no threshold can be
        certified, everything is sent to review. `calibration_` says how far that goes.

        Parameters
        ----------
        labelled
            As the shots of `fit`: images that are like those to come, and not among the shots.
        risk, confidence_level
            In (0, 1). Of several risks, all of which hold at once, the first decides; `use_risk`
            chooses another one.
        guarantee
            `high-probability`: of all calibrations, at most 1 - `confidence_level` go wrong.
            `expectation`: on average over calibrations and batches, at most `risk` of the labels
            accepted in a batch are wrong; it takes far fewer images, and says less.
        per_class
            Let the risk hold for the accepted labels of every class, all at once.
        class_risk
            Risks of their own of some classes, by name, where `per_class`.
        min_coverage
            Instead of a risk: accept at least this share of new images, at the smallest risk that
            can be certified.
        cost_error, cost_review
            Instead of a risk: accept where that costs less than a review, at these prices.
        method
            Of `decisions.METHODS`.
        calibrator
            Of `decisions.CALIBRATORS`.
        name
            What the artefact calls the images; None takes the folder's or file's name.
        exclude_shots
            Leave out images that the model was made with, such as its shots, instead of refusing.
        gate
            Review what resembles its label less than 95 % of the shots do theirs, whatever its
            confidence (`decisions.OODGate`), as images of none of the classes do.
        given_labels, synonyms, unknown_labels
            Labels from elsewhere of the same images, as in `evaluate`: the guarantee is then one on
            that labeller, and the true classes come from `labelled` as ever.
        groups
            Of each image, in the order of the source, what it has in common with others that it is
            not independent of, such as the scene of a frame; or `group_column`, the column of a
            table that says it. One image of each group is used, drawn at random, and the guarantee
            is about images drawn so: every group counts once.
        progress
            As in `iter_predict`.
        **columns
            As in `fit`.

        Raises
        ------
        LeakError
            If images are also among the shots, or were selected on, and `exclude_shots` is False.
        InputError
            If the input does not exist, holds no images, or settings make no sense.

        Warns
        -----
        TrustVLMWarning
            If images cannot be read, or are copies of each other.
        """
        first, *others = several_risks(risk)
        own = dict(class_risk or {})
        goal = Goal(
            first,
            confidence_level,
            per_class,
            min_coverage,
            cost_error,
            cost_review,
            method,
            guarantee,
            tuple(others),
            tuple(zip(self.classes_.indices(own).tolist(), own.values(), strict=True)),
        )
        self._learned = calibrate(
            self,
            labelled,
            goal,
            calibrator,
            name=name,
            exclude_shots=exclude_shots,
            gate=gate,
            labeller=self.labeller(given_labels, synonyms, unknown_labels),
            groups=groups,
            progress=progress,
            **columns,
        )
        return self

    def update(
        self,
        corrections: LabelledSource | Sequence[LabelledImage],
        *,
        hold_out: float = HOLD_OUT,
        compare_on: LabelledSource | None = None,
        calibrate_on: LabelledSource | None = None,
        even_if_worse: bool = False,
        steps: Steps | None = None,
        **columns: Unpack[Columns],
    ) -> tuple[TrustVLM, Update]:
        """Return a model with corrections as further shots, and how it compares with this one.

        Its own shots are kept as it holds them, and all settings; it is the model that `fit` gives
        for all of them together. A shot whose content is among the corrections gets their label.
        Images that it was calibrated on, selected on or adapted to never become shots.

        The calibration is renewed for the same goal: on `calibrate_on`, or on the images that it
        was calibrated on before, by what the model holds of them. Otherwise it is dropped, and the
        comparison says so: after new shots confidences are others, and the old threshold guarantees
        nothing. It is never renewed on the corrections, which were not drawn at random.

        Parameters
        ----------
        corrections
            Folder of class folders, CSV with `path,label`, `(paths, labels)`, or labelled images.
        hold_out
            Share of the corrections that is held back at a time, from 0 to 0.5, until each was
            judged once by a model without it. The new model learns from all. 0 compares nothing.
        compare_on
            Or labelled images to compare on, which are none of the corrections.
        calibrate_on
            Labelled images to renew the calibration on, a random sample of those to come; they do
            not become shots if they are among the corrections.
        even_if_worse
            Return the new model even if it is significantly worse.
        steps
            Called with steps done, and steps in all.
        **columns
            As in `fit`; `group_column` is of `compare_on` and `calibrate_on`, as in `calibrate`. Of
            `calibrate_on` it is by default that of the calibration before.

        Raises
        ------
        WorseModelError
            If fewer labels are right, or AURC is higher, in any comparison, by more than its 95 %
            interval, unless `even_if_worse`.
        LeakError
            If images of `compare_on` are corrections or shots, or those of `calibrate_on` shots.
        InputError
            If there is nothing to learn from, or labels are no classes of the model.

        Examples
        --------
        >>> model = TrustVLM.load("pets.trust")  # doctest: +SKIP
        >>> better, report = model.update("corrected/labels.csv")  # doctest: +SKIP
        >>> better.save("pets-updated.trust")  # doctest: +SKIP
        """
        images: Any = corrections
        if not _are_labelled(images):
            of_corrections: Columns = {**columns, "group_column": None}
            images = find_labelled(images, limits=self.limits, **of_corrections).refs
        state, report = update(
            self,
            images,
            hold_out=hold_out,
            compare_on=compare_on,
            calibrate_on=calibrate_on,
            steps=steps,
            **columns,
        )
        if report.worse and not even_if_worse:
            raise worse_model(report)
        return self._with(state), report

    def add_class(
        self, name: str, shots: Source, *, text: str | None = None, **columns: Unpack[Columns]
    ) -> tuple[TrustVLM, ClassChange]:
        """Return a model with one more class; see `pipeline.class_changes`.

        Parameters
        ----------
        name
            Of the class.
        shots
            Its example images, in any form that `predict` takes.
        text
            What prompts say of it; None for the name.
        **columns
            As in `fit`.

        Raises
        ------
        InputError
            If there is such a class already, or no example can be read.
        """
        return self._changed(add_class(self, name, shots, text=text, **columns))

    def rename_class(
        self, old: str, new: str, *, keep_prompt: bool = False
    ) -> tuple[TrustVLM, ClassChange]:
        """Return a model that calls a class otherwise; see `pipeline.class_changes`.

        Parameters
        ----------
        old, new
            The names.
        keep_prompt
            Let the prompts go on saying what they said, so that no verdict changes but for the
            name, and the calibration holds.

        Raises
        ------
        InputError
            If there is no such class, or the new name is taken.
        """
        return self._changed(rename_class(self, old, new, keep_prompt=keep_prompt))

    def merge_classes(
        self, names: Sequence[str], into: str, *, text: str | None = None
    ) -> tuple[TrustVLM, ClassChange]:
        """Return a model in which some classes are one; see `pipeline.class_changes`.

        Parameters
        ----------
        names
            Two or more classes.
        into
            What the class is called; it may be one of them.
        text
            What prompts say of it; None for the name.

        Raises
        ------
        InputError
            If there is no such class, or the name is taken by another.
        """
        return self._changed(merge_classes(self, names, into, text=text))

    def remove_classes(self, names: Sequence[str]) -> tuple[TrustVLM, ClassChange]:
        """Return a model without some classes and their shots; see `pipeline.class_changes`.

        Raises
        ------
        InputError
            If there is no such class, or no other one.
        """
        return self._changed(remove_classes(self, names))

    def _changed(self, changed: tuple[ModelState, ClassChange]) -> tuple[TrustVLM, ClassChange]:
        state, change = changed
        return self._with(state), change

    def _with(self, state: ModelState) -> TrustVLM:
        """Return a model with the same encoders that has learned something else."""
        other = copy.copy(self)
        arguments = constructor_arguments(state)
        other.classes, other.class_texts = arguments["classes"], arguments["class_texts"]
        other.score_parameters = dict(state.score_parameters)
        other._learned = self._named(state)
        return other

    def use_risk(self, risk: float) -> TrustVLM:
        """Let another one of the risks that were calibrated for decide.

        Raises
        ------
        InputError
            If the model was not calibrated for this risk.
        """
        self._learned = self._fitted.at_risk(risk)
        return self

    def use_other_classes(self, names: Sequence[str]) -> TrustVLM:
        """Let images bear these names instead of a label, as `other_classes` of a new model does.

        Raises
        ------
        InputError
            If the model was calibrated on images, whose certificate does not know of them; or a
            name is one of the classes.
        """
        state = self._fitted
        if state.calibration is not None and state.calibration.certificate is not None:
            raise InputError(
                "This model was calibrated without these other classes, and its guarantee is for "
                "decisions without them: name them at `fit`, and calibrate then."
            )
        others = self.embedder.embed_others(names, state.prompts, state.classes)
        self._learned = replace(state, other_classes=others)
        return self

    def calibrate_on_shots(self, *, calibrator: str = DEFAULT_CALIBRATOR) -> TrustVLM:
        """Learn P(correct) from the shots alone, each judged without itself.

        Optimistic where new images differ from the shots. Nothing is guaranteed with it:
        decisions stay as they are without a calibration.

        Parameters
        ----------
        calibrator
            Of `decisions.CALIBRATORS`.

        Raises
        ------
        InputError
            If no class has two shots, or the score depends on the batch.
        """
        self._learned = calibrate_on_shots(self.state, calibrator)
        return self

    def cross_validate(
        self, scores: Sequence[str] | None = None, *, folds: int = 4, convention: str = "exact"
    ) -> CrossValidation:
        """Measure scores on the shots alone, as `pipeline.cross_validate` describes it.

        Scores with the settings of the model's own score use its values. `trustvlm_star_f` is
        fine-tuned in each fold anew, and no other score is, whatever the model is.
        """
        state = self.state
        state.check_calibration()
        return cross_validate(
            state.evidence_of_shots(),
            scores,
            folds=folds,
            parameters=with_same_settings(state.score, state.parameters),
            convention=convention,
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a `.trust` directory, whole or not at all.

        Parameters
        ----------
        path
            Where to write; a model that stands there is replaced in one step.
        overwrite
            Replace it even if it has a calibration that this model lacks, which is then lost.

        Raises
        ------
        InputError
            If the model is not fitted, or uses encoder objects that no name can load again.
        ArtefactError
            If something else than a `.trust` directory stands at that path, or a model with
            another calibration, and not `overwrite`.
        """
        state = self.state
        state.check_calibration()
        for role, named in (("vlm", self.vlm), ("vision", self.vision)):
            if not isinstance(named, str):
                raise InputError(
                    f"The {role} was passed as an object, which no other process could load again: "
                    "name it by a preset, `hf:<directory>` or another spec to save the model."
                )
        self._named(state).save(path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **settings: Any) -> TrustVLM:
        """Read a `.trust` directory and check that this machine has the same models.

        Parameters
        ----------
        path
            The directory that `save` wrote.
        **settings
            `device`, `store`, `batch_size`, `workers`, `limits`, and `vlm`, `vision` to load the
            same weights from elsewhere.

        Raises
        ------
        ArtefactError
            If the artefact is damaged, of another format version, or made with other models; the
            message says which side differs.
        """
        unknown = sorted(set(settings) - set(_RELOADABLE))
        if unknown:
            raise InputError(
                f"TrustVLM.load takes {', '.join(_RELOADABLE)} besides the path, but got "
                f"{', '.join(unknown)}: the rest is part of the artefact."
            )
        state = ModelState.load(path)
        options = constructor_arguments(state)
        model = cls(**{**options, **settings})
        model._learned, model._is_from_elsewhere = state, True
        _ = model.encoders  # now, not in the middle of a run
        model._learned = model._named(state)
        return model
