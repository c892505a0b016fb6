"""Run a grid of image folders and models: encode, then measure what is not finished on disk.

Every finished cell is on disk, so an interrupted grid goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm import datasets
from trustvlm._version import __version__
from trustvlm.benchmark.config import BenchConfig, CatalogueSet, FolderSet, ModelPair
from trustvlm.benchmark.dataset import ArraySet, EncodedDataset, Tuning
from trustvlm.benchmark.results import Classes, Setting, read_cell, write_cell
from trustvlm.benchmark.run import Workers, measure_draw, one_thread, usable_scores
from trustvlm.benchmark.studies import STUDIES, Study, StudySettings
from trustvlm.benchmark.studies.study import StudyRunner
from trustvlm.embeddings import EmbeddingStore, Progress
from trustvlm.exceptions import InputError, LeakError, TrustVLMError, TrustVLMWarning
from trustvlm.files import atomic_path
from trustvlm.images import Limits, classes_of, find_labelled
from trustvlm.models import read_prompts
from trustvlm.pipeline import records
from trustvlm.scores import zero_shot_logits
from trustvlm.scores.few_shot import draw_shots
from trustvlm.text import did_you_mean

SampleKey = tuple[str, str, Setting]
Point = tuple[int, int]

# What images a data set has, before any of them is opened.


class ListedSet(NamedTuple):
    """The images that shots are drawn from, those to test on, and perhaps to select on."""

    class_names: tuple[str, ...]
    train: records.ListedImages[Any]
    tests: Mapping[str, records.ListedImages[Any]]
    validation: records.ListedImages[Any] | None


def list_set(dataset: FolderSet | CatalogueSet, *, validation: bool = False) -> ListedSet:
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
    if isinstance(dataset, CatalogueSet):
        options: dict[str, Any] = {"splits_dir": dataset.splits_dir}
        shots = datasets.load_shots(dataset.name, dataset.root, **options)
        test = datasets.load(dataset.name, dataset.root, "test", **options)
        val = datasets.load(dataset.name, dataset.root, "val", **options) if validation else None
        return ListedSet(
            tuple(test.class_names),
            records.ListedImages(shots.refs, shots.labels),
            {"test": records.ListedImages(test.refs, test.labels)},
            None if val is None else records.ListedImages(val.refs, val.labels),
        )
    columns = dataset.columns
    train = find_labelled(dataset.train, **columns)
    classes = classes_of(train, dataset.classes)
    selected_on = dataset.validation if validation else None
    return ListedSet(
        tuple(classes.names),
        records.ListedImages(train.refs, classes.indices(train.labels)),
        {
            split: records.list_labelled(path, classes, **columns)
            for split, path in dataset.tests.items()
        },
        None if selected_on is None else records.list_labelled(selected_on, classes, **columns),
    )


# From images to arrays, through the embedding store: the tests, and the shots that are drawn.


@dataclass(frozen=True)
class UnreadableDataset:
    """A data set that could not be read or encoded."""

    dataset: FolderSet | CatalogueSet
    setting: Setting
    error: TrustVLMError


def encode_datasets(
    config: BenchConfig,
    store: EmbeddingStore,
    *,
    notes: list[str],
    on_image: Progress | None = None,
) -> Iterator[EncodedDataset | UnreadableDataset]:
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
    loaded = None
    for models, protocol in product(config.models, config.protocols):
        wanted = (models.vlm, models.vision, protocol)
        if wanted != loaded:
            encoders = records.Encoders.load(
                models.vlm,
                models.vision,
                protocol=protocol,
                device=config.device,
                precision=config.precision,
            )
            loaded = wanted
        notes += [note for note in encoders.notes() if note not in notes]
        for dataset in config.datasets:
            setting = Setting(*wanted, models.prompt_label)
            try:
                yield encode_dataset(config, dataset, models, setting, encoders, store, on_image)
            except TrustVLMError as error:
                yield UnreadableDataset(dataset, setting, error)


def encode_dataset(
    config: BenchConfig,
    dataset: FolderSet | CatalogueSet,
    models: ModelPair,
    setting: Setting,
    encoders: records.Encoders,
    store: EmbeddingStore,
    progress: Progress | None = None,
) -> EncodedDataset:
    """Encode the test images, and the training images that a draw uses; only what is new.

    Shots are drawn from the listing, as the paper does, so that an unreadable image leaves a gap
    and changes no other draw.

    Raises
    ------
    LeakError
        If a test image is also among the drawn training images or the validation images, by
        content, or a validation image among the drawn training images.
    InputError
        If labels and classes do not fit, or no image can be read.
    """
    listed = list_set(dataset, validation=config.preset == "validation")
    n_classes, labels = len(listed.class_names), listed.train.labels
    prompts = config.templates_of(models, dataset) or read_prompts(encoders.vlm.prompt)
    embedder = records.Embedder(encoders, store, limits=Limits(max_pixels=config.max_pixels))
    texts = embedder.embed_classes(listed.class_names, prompts)
    left_out: list[str] = []

    def encode(split: str, images: records.ListedImages[Any]) -> records.EncodedImages[Any]:
        encoded = records.encode_images(images, embedder, progress)
        left_out.extend(str(error) for error in encoded.errors if error is not None)
        if not encoded.is_readable.any():
            raise InputError(f"No image of {dataset.name}/{split} can be read.")
        return encoded

    def as_arrays(split: str, images: records.EncodedImages[Any]) -> ArraySet:
        scale = encoders.vlm.logit_scale
        return ArraySet(
            name=f"{dataset.name}/{split}",
            logits=zero_shot_logits(images.image_embeddings, texts, logit_scale=scale),
            features=images.features,
            labels=images.labels,
            class_names=listed.class_names,
            image_embeddings=images.image_embeddings,
            text_embeddings=texts,
        )

    drawn = {
        (shots, draw): draw_shots(labels, n_classes, shots, draw=draw).indices
        for shots, draw in product(config.shots, range(config.draws))
    }
    used = np.unique(np.concatenate(list(drawn.values())))
    shown = encode("train", listed.train.select(used))
    row_of = np.full(len(labels), -1)
    row_of[used[shown.is_readable]] = np.arange(int(shown.is_readable.sum()))
    shown = shown.readable()
    support = as_arrays("train", shown)
    content = hashlib.sha256(json.dumps([listed.class_names, prompts, shown.hashes]).encode())
    content.update(shown.labels.tobytes())
    learned_from = {"training": shown.hashes}
    validation, tests = None, []
    others = [] if listed.validation is None else [("val", listed.validation)]
    for split, images in [*others, *listed.tests.items()]:
        encoded = encode(split, images).readable()
        arrays = as_arrays(split, encoded)
        _refuse_leaks(arrays.name, encoded, learned_from)
        if images is listed.validation:
            validation = arrays
            learned_from["validation"] = encoded.hashes
        else:
            tests.append(arrays)
        content.update(json.dumps([arrays.name, encoded.hashes]).encode())
        content.update(encoded.labels.tobytes())
    for message in left_out:
        warnings.warn(f"left out: {message}", TrustVLMWarning, stacklevel=2)
    tuning = Tuning(config.preset, config.parameters_of(dataset), validation)
    return EncodedDataset(
        name=dataset.name,
        setting=setting,
        support=support,
        tests=tuple(tests),
        draws={point: row_of[i][row_of[i] >= 0] for point, i in drawn.items()},
        tuning=tuning,
        identity={
            "settings": {
                "trustvlm": __version__,
                "vlm": dict(records.describe(encoders.vlm)),
                "vision": dict(records.describe(encoders.vision)),
                "logit_scale": float(encoders.vlm.logit_scale),
                "protocol": setting.protocol,
                # What rows call it is in finished cells too.
                **({"prompt": setting.prompt} if setting.prompt else {}),
                "precision": config.precision,
                "convention": config.convention,
            },
            "images": content.hexdigest(),
            "name": dataset.name,
            "parameters": tuning.parameters,
            **tuning.identity(),
        },
        templates=prompts,
    )


def _refuse_leaks(
    name: str, images: records.EncodedImages[Any], learned_from: Mapping[str, Sequence[str]]
) -> None:
    _, leaked = records.exclude_leaked(images, learned_from, purpose="", exclude=True)
    if leaked:
        # By which image comes first; no content has two roles.
        role_of = {digest: role for role, hashes in learned_from.items() for digest in hashes}
        roles = dict.fromkeys(role_of[digest] for digest in images.hashes if digest in role_of)
        raise LeakError(
            f"{len(leaked)} of {len(images)} images of {name} are also {' or '.join(roles)} "
            "images, by content: metrics on them would be too good. Remove them from one of the "
            "two."
        )


# Every cell of the grid, and further studies on the same images.


@dataclass
class Grid:
    """Results of a grid.

    Attributes
    ----------
    studies
        Has measured the further studies on the same images.
    rows
        One dict per test split, score, model pair, protocol, prompt, number of shots and draw; a
        failed cell is a row with `error`.
    samples
        Confidence and correctness of draw 0 at the most shots, by dataset, score and setting.
    classes
        True classes and class names by dataset.
    notes
        Warnings of the models, to show wherever their numbers are.
    computed
        How many cells were not on disk yet.
    """

    studies: StudyRunner
    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[SampleKey, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    classes: dict[str, Classes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    computed: int = 0


def run_grid(
    config: BenchConfig,
    *,
    store: EmbeddingStore | None = None,
    workers: Workers | None = None,
    on_cell: Callable[[int, int], None] | None = None,
    on_image: Progress | None = None,
) -> Grid:
    """Run every cell of the grid that is not finished, and collect all rows.

    Parameters
    ----------
    config
        The study, already checked.
    store
        Where embeddings are kept; by default the user's cache folder.
    workers
        Processes that share the cells; by default this one alone.
    on_cell, on_image
        Progress callbacks: cells done and in all; as in `encode_images`.

    Raises
    ------
    InputError
        If the configuration names a study that does not exist.
    TrustVLMError
        If a model cannot be loaded. What fails inside a cell is a row with its error.
    """
    further = [study for study in chosen_studies(config) if not study.of_the_grid]
    grid, done = Grid(StudyRunner(further, study_settings(config), config.out)), 0
    store = EmbeddingStore() if store is None else store
    points = list(product(config.shots, range(config.draws)))
    total = config.n_cells
    for encoded in encode_datasets(config, store, notes=grid.notes, on_image=on_image):
        if isinstance(encoded, UnreadableDataset):
            grid.rows += [row for point in points for row in _failed(encoded, point)]
            done += len(points)
            continue
        for test in encoded.tests:
            grid.classes[test.name] = Classes(test.labels, test.class_names)
        files = {
            (shots, draw): encoded.cell_file(config.out, config.scores, shots=shots, draw=draw)
            for shots, draw in points
        }
        missing = [point for point, file in files.items() if not file.is_file()]
        done += len(points) - len(missing)
        tasks = [(config, encoded, point, files[point]) for point in missing]
        for _ in (workers or Workers()).map(_run_cell, tasks):
            grid.computed += 1
            done += 1
            if on_cell is not None:
                on_cell(done, total)
        if on_cell is not None:
            on_cell(done, total)
        for file in files.values():
            grid.rows += read_cell(file)
        grid.samples.update(_read_samples(files[max(config.shots), 0], encoded.setting))
        with one_thread():
            grid.studies.add(encoded)
    return grid


def study_settings(config: BenchConfig) -> StudySettings:
    """Return what the studies of a configuration may vary."""
    return StudySettings(config.shots, config.draws, config.convention, scores=config.scores)


def chosen_studies(config: BenchConfig) -> list[Study]:
    """Return the studies that a configuration names.

    Raises
    ------
    InputError
        If one of them does not exist.
    """
    wanted = tuple(STUDIES) if config.studies is None else config.studies
    for name in wanted:
        if name not in STUDIES:
            raise InputError(
                f"{config.name}: Expected `studies` among {', '.join(STUDIES)}, but got {name!r}; "
                f"{did_you_mean(name, STUDIES)}".rstrip("; ")
            )
    return [STUDIES[name] for name in wanted]


def _run_cell(config: BenchConfig, encoded: EncodedDataset, point: Point, file: Path) -> None:
    rows: list[dict[str, Any]] = []
    samples: dict[str, Any] = {}
    scores = usable_scores(encoded.support, config.scores or None)
    for cell in measure_draw(encoded, scores, *point, config.convention):
        rows.append({**cell.row_with_settings(), **encoded.about})
        samples[f"{cell.dataset}|{cell.score}|confidence"] = cell.result.confidence
        samples[f"{cell.dataset}|{cell.score}|correct"] = cell.correct
    if point[1] == 0:
        with atomic_path(file.with_suffix(".npz")) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, **samples)
    # Written last: a cell is finished when its rows are there.
    write_cell(file, rows)


def _failed(unreadable: UnreadableDataset, point: Point) -> list[dict[str, Any]]:
    shots, draw = point
    return [
        {
            "dataset": f"{unreadable.dataset.name}/{split}",
            "score": None,
            "shots": shots,
            "draw": draw,
            **unreadable.setting.named,
            "error": str(unreadable.error),
        }
        for split in unreadable.dataset.splits
    ]


def _read_samples(
    file: Path, setting: Setting
) -> Iterator[tuple[SampleKey, tuple[NDArray[Any], NDArray[Any]]]]:
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        for key in stored.files:
            dataset, score, part = key.split("|")
            if part == "confidence":
                yield (dataset, score, setting), (stored[key], stored[f"{dataset}|{score}|correct"])
