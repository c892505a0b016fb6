"""`TrustVLM`, the one object most people use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trustvlm.embeddings import EmbeddingStore, Profile, Progress
from trustvlm.images import DEFAULT_LIMITS, Limits, open_images
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.pipeline.calibrate import Calibratable
from trustvlm.pipeline.cross_validate import CrossValidation, alike, cross_validate
from trustvlm.pipeline.evaluate import EvaluationResult, evaluate
from trustvlm.pipeline.fit import fit
from trustvlm.pipeline.label_images import label_images
from trustvlm.pipeline.predict import Predictor
from trustvlm.pipeline.state import load_model, save_model
from trustvlm.pipeline.verdict import Verdict, Verdicts, folder_of


class TrustVLM(Calibratable):
    """Label images with a vision-language model and say how far each label can be trusted.

    Parameters
    ----------
    vlm
        Preset, `hf:...`, `openclip:...`, `offline` or an encoder object: the model that predicts.
    vision
        Preset, `same`, `timm:...`, `onnx:...`, `offline` or an encoder object: the encoder that
        compares the image with the examples.
    classes
        Class names, a mapping from folder to name, a file, or None for the shots' folder names.
    prompt
        Template with `{}`, several templates, a file of them, or None for the model's own.
    score
        A name of `scores.names()`.
    score_parameters
        The score's own parameters, such as `{"weight": 0.5}`.
    finetune
        Let the prototypes go on learning from the shots: TrustVLM*(F).
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

    Attributes
    ----------
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
        classes: Sequence[str] | Mapping[str, str] | str | os.PathLike[str] | None = None,
        prompt: str | Sequence[str] | os.PathLike[str] | None = None,
        *,
        score: str = "trustvlm",
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
    ) -> None:
        self.vlm = vlm
        self.vision = vision
        self.classes = classes
        self.prompt = prompt
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

    def fit(
        self,
        shots: Any,
        *,
        shots_per_class: int | None = None,
        draw: int = 0,
        select: str | None = None,
        select_on: Any = None,
        progress: Progress | None = None,
    ) -> TrustVLM:
        """Learn one prototype per class from labelled example images; nothing is trained.

        Parameters
        ----------
        shots
            Folder of class folders, CSV with `path,label`, or `(paths, labels)`.
        shots_per_class
            Use at most this many per class, by the paper's draw; None uses all.
        draw
            Which draw; 0 is the paper's.
        select
            `loo` selects weight and temperature of the score on the shots, each of them held out.
            What `score_parameters` gives is not selected.
        select_on
            Or labelled images to select them on, in any form that `shots` may have; these must be
            neither shots nor images to evaluate on.
        progress
            Called with images done, images in all, and images that needed no forward pass.

        Raises
        ------
        LeakError
            If images of `select_on` are also among the shots, by content.
        InputError
            For a missing or empty input, unknown classes, or parameters that make no sense.
        ModelUnavailableError, MissingExtraError
            If a model cannot be had here.

        Warns
        -----
        TrustVLMWarning
            If shots cannot be read, or classes have fewer shots than asked for, or none.
        """
        self._check_score()
        fit(
            self,
            shots,
            shots_per_class=shots_per_class,
            draw=draw,
            select=select,
            images=select_on,
            progress=progress,
        )
        return self

    def iter_predict(
        self,
        images: Any,
        *,
        path_column: str = "path",
        image_column: str | None = None,
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> Iterator[Verdict]:
        """Yield one verdict per image in input order, in bounded memory.

        Parameters
        ----------
        images
            A file, a folder, a CSV with a `path` column, a text file of paths, a tar archive, a
            Parquet file with images, the URL of any of these, or a list of several.
        path_column, image_column
            Columns in tables and Parquet files; see `images.image_shards`.
        progress
            Called with images done, images in all (0 for a stream), and images that needed no
            forward pass.
        profile
            Learns where the time goes; `profile.lines()` tells it.
        """
        predictor = Predictor(self)
        found = open_images(images, path_column=path_column, image_column=image_column)
        for _, verdicts in predictor.chunks(found, progress, profile):
            yield from verdicts

    def predict(
        self,
        images: Any,
        *,
        path_column: str = "path",
        image_column: str | None = None,
        progress: Progress | None = None,
        profile: Profile | None = None,
    ) -> Verdicts:
        """Return one verdict per image, in input order.

        An image that cannot be read is a verdict with `decision` "error" and its `error`.

        Parameters
        ----------
        images, path_column, image_column, progress, profile
            As `iter_predict`.

        Raises
        ------
        InputError
            If the input does not exist or holds no images, or the model is not fitted.
        """
        rows = self.iter_predict(
            images,
            path_column=path_column,
            image_column=image_column,
            progress=progress,
            profile=profile,
        )
        return Verdicts(rows, folder=folder_of(images))

    def label(
        self, images: Any, *, correct: bool = False, progress: Progress | None = None
    ) -> Verdicts:
        """Label images from `classes` alone, without shots; nothing needs to be fitted.

        The images verify each other (`auto_unlabelled`), so a verdict depends on the others.

        Parameters
        ----------
        images, progress
            As `iter_predict`.
        correct
            Let the images correct the VLM's labels, too (`auto_unlabelled_star`).

        Raises
        ------
        InputError
            Without class names, or if the input does not exist or holds no images.

        Warns
        -----
        TrustVLMWarning
            If there are few images a class, or they contradict the VLM on most of them.
        """
        return label_images(self, images, correct=correct, progress=progress)

    def evaluate(
        self,
        labelled: Any,
        *,
        name: str | None = None,
        scores: Sequence[str] | None = None,
        convention: str = "exact",
        exclude_shots: bool = False,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        """Measure the model's score, and every other one, on labelled images.

        Parameters
        ----------
        labelled
            Folder of class folders, CSV with `path,label`, or `(paths, labels)`.
        name
            What tables call it; None takes the folder's or file's name.
        scores
            Names of scores to compare; None takes every one that the evidence allows.
        convention
            Of the metrics: `exact` or `trustvlm`.
        exclude_shots
            Leave out images that are also among the shots, instead of refusing.
        progress
            As in `iter_predict`.

        Raises
        ------
        LeakError
            If images are also among the shots, or were selected or calibrated on, by content, and
            `exclude_shots` is False.
        InputError
            If the input does not exist, holds no images, or has labels of unknown classes.
        """
        self.check_ready()
        return evaluate(
            self,
            labelled,
            name=name,
            scores=scores,
            convention=convention,
            exclude_shots=exclude_shots,
            progress=progress,
        )

    def cross_validate(
        self, scores: Sequence[str] | None = None, *, folds: int = 4, convention: str = "exact"
    ) -> CrossValidation:
        """Measure scores on the shots alone, as `pipeline.crossvalidation` describes it.

        Scores with the settings of the model's own score use its values. `trustvlm_star_f` is
        fine-tuned in each fold anew, and no other score is, whatever the model is.
        """
        self.check_ready()
        shots = self.evidence_of_shots()
        parameters = alike(self.score, self.parameters_)
        return cross_validate(
            shots, scores, folds=folds, parameters=parameters, convention=convention
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a `.trust` directory, whole or not at all.

        Raises
        ------
        InputError
            If the model is not fitted, or uses encoder objects that no name can load again.
        ArtefactError
            If something else than a `.trust` directory stands at that path.
        """
        self.check_ready()
        save_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **settings: Any) -> TrustVLM:
        """Read a `.trust` directory and check that this machine has the same models.

        Parameters
        ----------
        path
            The directory that `save` wrote.
        **settings
            `device`, `store`, `batch_size`, `workers`, `limits`, and `vlm`, `vision` to load the
            same weights from another place.

        Raises
        ------
        ArtefactError
            If the artefact is damaged, of another format version, or made with other models; the
            message says which side differs.
        """
        return load_model(cls, path, settings)
