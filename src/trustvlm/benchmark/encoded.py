"""What images a data set of a study has, before any of them is opened."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import datasets
from trustvlm._version import __version__
from trustvlm.benchmark.config import BenchConfig, ModelPair, SetConfig
from trustvlm.benchmark.dataset import ArraySet
from trustvlm.benchmark.results import Setting
from trustvlm.benchmark.tuning import Tuning
from trustvlm.embeddings import EmbeddingStore, Progress, encode_all, encode_texts
from trustvlm.exceptions import InputError, LeakError, TrustVLMError, TrustVLMWarning
from trustvlm.images import ClassList, ImageSource, find_labelled, read_classes
from trustvlm.models import class_embeddings, read_prompts
from trustvlm.pipeline.records import Encoders, describe
from trustvlm.scores import zero_shot_logits
from trustvlm.scores.few_shot import draw_shots


@dataclass(frozen=True)
class ListedSplit:
    """n images and their class indices."""

    refs: Sequence[ImageSource]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ListedSet:
    """The images that shots are drawn from, those to test on, and perhaps to select on."""

    class_names: tuple[str, ...]
    train: ListedSplit
    tests: Mapping[str, ListedSplit]
    validation: ListedSplit | None = None


def list_set(dataset: SetConfig, *, validation: bool = False) -> ListedSet:
    """List the images of folders, CSVs, or one of the catalogue's sets.

    Parameters
    ----------
    dataset
        What the study says of it.
    validation
        Whether the validation images are wanted.

    Raises
    ------
    InputError
        If something is missing, or labels and classes do not fit.
    """
    if dataset.root is not None:
        options: dict[str, Any] = {"splits_dir": dataset.splits_dir}
        shots = datasets.load_shots(dataset.name, dataset.root, **options)
        test = datasets.load(dataset.name, dataset.root, "test", **options)
        val = datasets.load(dataset.name, dataset.root, "val", **options) if validation else None
        return ListedSet(
            class_names=tuple(test.class_names),
            train=ListedSplit(shots.refs, shots.labels),
            tests={"test": ListedSplit(test.refs, test.labels)},
            validation=None if val is None else ListedSplit(val.refs, val.labels),
        )
    assert dataset.train is not None  # noqa: S101 -- the configuration has a root or folders
    found = find_labelled(dataset.train)
    classes = read_classes(found.classes if dataset.classes is None else dataset.classes)
    return ListedSet(
        class_names=tuple(classes.names),
        train=ListedSplit(found.refs, classes.indices(found.labels)),
        tests={split: _split(path, classes) for split, path in dataset.tests.items()},
        validation=_split(dataset.validation, classes)
        if validation and dataset.validation is not None
        else None,
    )


def _split(path: Path, classes: ClassList) -> ListedSplit:
    found = find_labelled(path)
    return ListedSplit(found.refs, classes.indices(found.labels))


# From images to arrays, through the embedding store: the tests, and the shots that are drawn.

Point = tuple[int, int]


@dataclass(frozen=True)
class EncodedSet:
    """A data set through one pair of encoders.

    Attributes
    ----------
    support, tests
        Arrays of the training images that some draw uses, and of each test split.
    draws
        Rows of `support` by (shots, draw).
    left_out
        Messages on images that could not be read.
    validation
        Arrays of the validation images, if they were asked for.
    digest
        SHA-256 over the content and labels of all these images, the classes and the prompts.
    """

    support: ArraySet
    tests: tuple[ArraySet, ...]
    draws: Mapping[Point, NDArray[np.int64]]
    left_out: tuple[str, ...]
    digest: str
    validation: ArraySet | None = None


@dataclass(frozen=True)
class _Encoder:
    """Both encoders, the class texts, and where vectors are kept."""

    encoders: Encoders
    class_names: tuple[str, ...]
    texts: NDArray[np.float32]
    store: EmbeddingStore
    progress: Progress | None

    def encode(
        self, name: str, split: ListedSplit
    ) -> tuple[ArraySet, NDArray[np.bool_], list[str], list[str]]:
        """Return the readable images as arrays, which are readable, their hashes, the errors."""
        both = {"vlm": self.encoders.vlm, "vision": self.encoders.vision}
        chunk = encode_all(split.refs, both, self.store, progress=self.progress)
        ok = chunk.readable
        if not ok.any():
            raise InputError(f"No image of {name} can be read.")
        embeddings = chunk.embeddings["vlm"][ok]
        scale = self.encoders.vlm.logit_scale
        arrays = ArraySet(
            name=name,
            logits=zero_shot_logits(embeddings, self.texts, logit_scale=scale),
            features=chunk.embeddings["vision"][ok],
            labels=split.labels[ok],
            class_names=self.class_names,
            image_embeddings=embeddings,
            text_embeddings=self.texts,
        )
        digests = [digest for digest, kept in zip(chunk.hashes, ok, strict=True) if kept]
        return arrays, ok, digests, [str(error) for error in chunk.errors if error is not None]


def encode_set(
    dataset: SetConfig,
    models: ModelPair,
    encoders: Encoders,
    store: EmbeddingStore,
    points: Iterable[Point],
    progress: Progress | None = None,
    *,
    validation: bool = False,
) -> EncodedSet:
    """Encode the test images, and the training images that a draw uses; only what is new.

    Parameters
    ----------
    dataset, models, encoders, store
        What, with which prompts, through which encoders, and where vectors are kept.
    points
        (shots, draw) of the draws to come. They are drawn from the listing, as the paper does,
        so that an unreadable image leaves a gap and changes no other draw.
    progress
        As in `encode_images`.
    validation
        Whether the validation images are wanted as well.

    Raises
    ------
    LeakError
        If a test image is also among the drawn training images or the validation images, by
        content, or a validation image among the drawn training images.
    InputError
        If labels and classes do not fit, or no image can be read.
    """
    listed = list_set(dataset, validation=validation)
    prompts = read_prompts(encoders.vlm.prompt if models.prompt is None else models.prompt)
    texts = class_embeddings(
        encoders.vlm,
        listed.class_names,
        prompts,
        encode=lambda new: encode_texts(encoders.vlm, new, store),
    )
    encoder = _Encoder(encoders, listed.class_names, texts, store, progress)
    n_classes = len(listed.class_names)
    drawn = {
        (shots, draw): draw_shots(listed.train.labels, n_classes, shots, draw=draw).indices
        for shots, draw in points
    }
    used = np.unique(np.concatenate(list(drawn.values())))
    shown = ListedSplit([listed.train.refs[int(i)] for i in used], listed.train.labels[used])
    support, ok, digests, left_out = encoder.encode(f"{dataset.name}/train", shown)
    row_of = np.full(len(listed.train.labels), -1)
    row_of[used[ok]] = np.arange(int(ok.sum()))
    content = hashlib.sha256(json.dumps([listed.class_names, prompts, digests]).encode())
    content.update(support.labels.tobytes())
    taken = dict.fromkeys(digests, "training")
    encoded = []
    listed_as = [] if listed.validation is None else [("val", listed.validation)]
    for split, images in [*listed_as, *listed.tests.items()]:
        arrays, _, found, errors = encoder.encode(f"{dataset.name}/{split}", images)
        _refuse_leaks(arrays.name, found, taken)
        if images is listed.validation:
            taken.update(dict.fromkeys(found, "validation"))
        content.update(json.dumps([arrays.name, found]).encode() + arrays.labels.tobytes())
        left_out += errors
        encoded.append(arrays)
    for message in left_out:
        warnings.warn(f"left out: {message}", TrustVLMWarning, stacklevel=2)
    return EncodedSet(
        support=support,
        tests=tuple(encoded[len(listed_as) :]),
        validation=encoded[0] if listed_as else None,
        draws={point: row_of[i][row_of[i] >= 0] for point, i in drawn.items()},
        left_out=tuple(left_out),
        digest=content.hexdigest(),
    )


def _refuse_leaks(name: str, digests: list[str], taken: Mapping[str, str]) -> None:
    leaked = [taken[digest] for digest in digests if digest in taken]
    if leaked:
        kinds = " or ".join(dict.fromkeys(leaked))
        raise LeakError(
            f"{len(leaked)} of {len(digests)} images of {name} are also {kinds} images, by "
            "content: metrics on them would be too good. Remove them from one of the two."
        )


# What experiments work on: every data set of a study through every pair of encoders, as arrays.


@dataclass(frozen=True)
class Material:
    """A data set through one pair of encoders.

    Attributes
    ----------
    name
        Of the data set.
    setting
        Names of the models and the protocol; empty if nothing is known.
    support, tests
        Arrays of the images that shots are drawn from, and of each test split.
    draws
        Rows of `support` by (shots, draw), class by class in the order drawn.
    tuning
        Sets the scores' parameters.
    identity
        All that tells this material from any other, for the names of cells.
    """

    name: str
    setting: Setting
    support: ArraySet
    tests: tuple[ArraySet, ...]
    draws: Mapping[tuple[int, int], NDArray[np.int64]]
    tuning: Tuning = field(default_factory=Tuning)
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """What every row on this material says of the models."""
        identity = self.identity.get("settings", {})
        about: dict[str, Any] = {
            key: value for key, value in self.setting._asdict().items() if value
        }
        if identity:
            about["convention"] = identity["convention"]
            about["versions"] = {"trustvlm": identity["trustvlm"], "numpy": np.__version__}
            about["fingerprints"] = [identity[role]["fingerprint"] for role in ("vlm", "vision")]
        return about


@dataclass(frozen=True)
class Unavailable:
    """A data set that could not be read or encoded."""

    dataset: SetConfig
    setting: Setting
    error: TrustVLMError


def materials(
    config: BenchConfig,
    store: EmbeddingStore,
    *,
    notes: list[str],
    on_image: Progress | None = None,
) -> Iterator[Material | Unavailable]:
    """Encode the data sets of a study, one pair of encoders after another; only what is new.

    Parameters
    ----------
    config, store
        The study, already checked, and where embeddings are kept.
    notes
        Gets the warnings of the models, to show wherever their numbers are.
    on_image
        Progress, as in `encode_images`.

    Raises
    ------
    TrustVLMError
        If a model cannot be loaded.
    """
    points = list(product(config.shots, range(config.draws)))
    for models, protocol in product(config.models, config.protocols):
        encoders = Encoders.load(
            models.vlm,
            models.vision,
            protocol=protocol,
            device=config.device,
            precision=config.precision,
        )
        notes += [note for note in encoders.notes() if note not in notes]
        for dataset in config.datasets:
            setting = Setting(models.vlm, models.vision, protocol)
            try:
                encoded = encode_set(
                    dataset,
                    models,
                    encoders,
                    store,
                    points,
                    on_image,
                    validation=config.preset == "validation",
                )
            except TrustVLMError as error:
                yield Unavailable(dataset, setting, error)
                continue
            tuning = Tuning(config.preset, config.parameters_of(dataset), encoded.validation)
            yield Material(
                name=dataset.name,
                setting=setting,
                support=encoded.support,
                tests=encoded.tests,
                draws=encoded.draws,
                tuning=tuning,
                identity={
                    "settings": _settings(config, encoders, protocol),
                    "images": encoded.digest,
                    "name": dataset.name,
                    "parameters": tuning.parameters,
                    **tuning.identity(),
                },
            )


def _settings(config: BenchConfig, encoders: Encoders, protocol: str) -> dict[str, Any]:
    return {
        "trustvlm": __version__,
        "vlm": dict(describe(encoders.vlm)),
        "vision": dict(describe(encoders.vision)),
        "logit_scale": float(encoders.vlm.logit_scale),
        "protocol": protocol,
        "precision": config.precision,
        "convention": config.convention,
    }
