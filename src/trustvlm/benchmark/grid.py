"""Run a grid of image folders and models: encode, then measure what is not finished on disk.

Every finished cell is on disk, so an interrupted grid goes on where it stopped.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trustvlm import datasets
from trustvlm._version import __version__
from trustvlm.benchmark.config import BenchConfig, CatalogueSet, FolderSet, ModelPair
from trustvlm.benchmark.dataset import (
    ArraySet,
    EncodedDataset,
    SharedImage,
    Tuning,
    describe_small_classes,
)
from trustvlm.benchmark.results import (
    Classes,
    Row,
    Setting,
    read_cell,
    readable,
    sample_keys,
    write_cell,
)
from trustvlm.benchmark.run import Workers, measure_draw, one_thread, usable_scores
from trustvlm.benchmark.studies import STUDIES, Study, StudySettings
from trustvlm.benchmark.studies.study import StudyRunner
from trustvlm.cells import to_cell
from trustvlm.data_quality.duplicates import near_duplicate_threshold, near_duplicates
from trustvlm.embeddings import EmbeddingStore, Progress
from trustvlm.exceptions import (
    InputError,
    LeakError,
    OutputError,
    PluginError,
    TrustVLMError,
    TrustVLMWarning,
)
from trustvlm.files import atomic_path, write_text
from trustvlm.images import Limits, classes_of, find_labelled
from trustvlm.models import read_prompts
from trustvlm.pipeline import records
from trustvlm.scores import zero_shot_logits
from trustvlm.scores.few_shot import draw_shots
from trustvlm.text import did_you_mean, printable

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
        options: dict[str, Any] = {"splits_dir": dataset.splits_dir, "rules": dataset.rules}
        shots = datasets.load_shots(dataset.name, dataset.root, **options)
        test = datasets.load(dataset.name, dataset.root, "test", **options)
        val = datasets.load(dataset.name, dataset.root, "val", **options) if validation else None
        return ListedSet(
            tuple(test.class_names),
            records.ListedImages(shots.refs, shots.labels),
            {dataset.rules.split: records.ListedImages(test.refs, test.labels)},
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
    """A data set that could not be read or encoded, perhaps since no model could be loaded."""

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

    At the end `shared-images.csv` lists the test images that are also shots, or resemble one.

    Parameters
    ----------
    config, store
        The study, already checked, and where embeddings are kept.
    notes
        Gets the warnings of the models and of shared images, to show wherever numbers are.
    on_image
        Progress, as in `encode_images`.

    Raises
    ------
    TrustVLMError
        If a model has an unknown name, or none can be loaded.
    """
    # All of them, before the first is loaded and has encoded images for hours.
    for models, protocol in product(config.models, config.protocols):
        records.check_encoders(models.vlm, models.vision, protocol)
    loaded, failed, shared = None, dict[Any, TrustVLMError](), dict[SharedImage, None]()
    for models, protocol in product(config.models, config.protocols):
        wanted = (models.vlm, models.vision, protocol)
        if wanted != loaded and wanted not in failed:
            try:
                encoders = records.Encoders.load(
                    models.vlm,
                    models.vision,
                    protocol=protocol,
                    device=config.device,
                    precision=config.precision,
                )
                loaded = wanted
            except PluginError:
                raise
            except TrustVLMError as error:
                failed[wanted] = error
        if wanted in failed:
            setting = Setting(*wanted, models.prompt_label)
            for dataset in config.datasets:
                yield UnreadableDataset(dataset, setting, failed[wanted])
            continue
        notes += [note for note in encoders.notes() if note not in notes]
        for dataset in config.datasets:
            setting = Setting(*wanted, models.prompt_label)
            try:
                encoded = encode_dataset(
                    config, dataset, models, setting, encoders, store, on_image
                )
            except TrustVLMError as error:
                yield UnreadableDataset(dataset, setting, error)
                continue
            notes += [note for note in encoded.notes if note not in notes]
            shared.update(dict.fromkeys(encoded.shared))
            yield encoded
    if failed and loaded is None:
        raise next(iter(failed.values()))
    write_shared_images(list(shared), config.out)


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
        If all test images are also among the drawn training images or the validation images, by
        content, or some are and are kept although settings are selected.
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
        # The paper's protocol has its own scale, to which the bias does not belong.
        bias = None if setting.protocol == "paper" else getattr(encoders.vlm, "logit_bias", None)
        return ArraySet(
            name=f"{dataset.name}/{split}",
            logits=zero_shot_logits(images.image_embeddings, texts, logit_scale=scale),
            features=images.features,
            labels=images.labels,
            class_names=listed.class_names,
            image_embeddings=images.image_embeddings,
            text_embeddings=texts,
            logit_bias=bias,
        )

    draws = {
        (shots, draw): draw_shots(labels, n_classes, shots, draw=draw)
        for shots, draw in product(config.shots, range(config.draws))
    }
    drawn = {point: draw.indices for point, draw in draws.items()}
    small = [describe_small_classes(dataset.name, draws[n, 0].counts, n) for n in config.shots]
    used = np.unique(np.concatenate(list(drawn.values())))
    shown = encode("train", listed.train.select(used))
    row_of = np.full(len(labels), -1)
    row_of[used[shown.is_readable]] = np.arange(int(shown.is_readable.sum()))
    shown = shown.readable()
    support = as_arrays("train", shown)
    content = hashlib.sha256(json.dumps([listed.class_names, prompts, shown.hashes]).encode())
    content.update(shown.labels.tobytes())
    learned_from = {"training": shown}
    validation, tests = None, []
    others = [] if listed.validation is None else [("val", listed.validation)]
    is_same = setting.vision.partition("#")[0] == "same"
    encoder = f"the image tower of {setting.vlm}" if is_same else setting.vision
    overlap = _Overlap(config, dataset, encoder)
    for split, images in [*others, *listed.tests.items()]:
        name = f"{dataset.name}/{split}"
        encoded = overlap.resolve(name, encode(split, images).readable(), learned_from)
        arrays = as_arrays(split, encoded)
        if images is listed.validation:
            validation = arrays
            learned_from["validation"] = encoded
        else:
            tests.append(arrays)
            overlap.compare(arrays, encoded, support, shown)
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
        notes=(*filter(None, small), *overlap.notes),
        shared=tuple(overlap.shared),
    )


# Images that are tested and also something else: the same by content, or nearly the same.

SHARED_IMAGES = "shared-images.csv"


class _Overlap:
    """What the images of one data set share with those that scores learn from."""

    def __init__(self, config: BenchConfig, dataset: FolderSet | CatalogueSet, vision: str) -> None:
        of_test = isinstance(dataset, CatalogueSet) and dataset.rules.shots_from == "test"
        self.keep = config.shared_images == "keep" or of_test
        self.selects = config.preset in ("loo", "validation")
        self.near_duplicates = config.near_duplicates
        self.vision = vision
        self.notes: list[str] = []
        self.shared: list[SharedImage] = []

    def resolve(
        self,
        name: str,
        images: records.EncodedImages[Any],
        learned_from: Mapping[str, records.EncodedImages[Any]],
    ) -> records.EncodedImages[Any]:
        """Leave out images that are shots or validation images, by content, unless they are kept.

        Raises
        ------
        LeakError
            If none is left, or if settings would be selected on images that are kept to be tested.
        """
        hashes = {role: encoded.hashes for role, encoded in learned_from.items()}
        new, leaked = records.exclude_leaked(images, hashes, purpose="", exclude=True)
        if not leaked:
            return images
        # By which image comes first; no content has two roles.
        other = {
            digest: (role, ref.path)
            for role, encoded in learned_from.items()
            for digest, ref in zip(encoded.hashes, encoded.refs, strict=True)
        }
        pairs = [
            (path, *other[digest])
            for path, digest in zip(images.paths, images.hashes, strict=True)
            if digest in other
        ]
        roles = dict.fromkeys(role for _, role, _ in pairs)
        first = ", ".join(map(printable, leaked[:3])) + (", ..." if len(leaked) > 3 else "")
        what = (
            f"{len(leaked)} of {len(images)} images of {name} are also {' or '.join(roles)} "
            f"images, by content ({first})"
        )
        if not len(new) or (self.keep and self.selects):
            remedy = (
                "they cannot be kept where settings are selected on them."
                if len(new)
                else 'remove them from one of the two, or keep them with shared_images = "keep".'
            )
            raise LeakError(f"{what}: metrics on them would be too good; {remedy}")
        self.notes.append(
            f"{what}, and kept: scores that learn from them look better than they are."
            if self.keep
            else f"{what}, and left out."
        )
        self.shared += [
            SharedImage(name, path, other_path, role, self.vision, 1.0, True, self.keep)
            for path, role, other_path in pairs
        ]
        return images if self.keep else new

    def compare(
        self,
        test: ArraySet,
        images: records.EncodedImages[Any],
        support: ArraySet,
        shots: records.EncodedImages[Any],
    ) -> None:
        """List the images of a test set that closely resemble a shot, where this is wanted."""
        if not self.near_duplicates:
            return
        labels, n_classes = support.labels, support.n_classes
        bar = near_duplicate_threshold(support.features, labels, n_classes=n_classes)
        same = set(shots.hashes)
        pairs = [
            pair
            for pair in near_duplicates(test.features, support.features, threshold=bar)
            if images.hashes[pair.image] not in same
        ]
        self.shared += [
            SharedImage(
                test.name, images.paths[pair.image], shots.paths[pair.other], "training",
                self.vision, pair.cosine, False, True,
            )
            for pair in pairs
        ]  # fmt: skip
        if pairs:
            self.notes.append(
                f"{len(pairs)} of {len(test)} images of {test.name} closely resemble a shot "
                f"(cosine of at least {bar:.3f} by {self.vision}): {SHARED_IMAGES} lists them."
            )


def write_shared_images(shared: Sequence[SharedImage], folder: Path) -> Path:
    """Write `shared-images.csv`: images of which scores learn something, or something similar.

    Where there are none, a file of an earlier run is removed.
    """
    file = folder / SHARED_IMAGES
    if not shared:
        file.unlink(missing_ok=True)
        return file
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in fields(SharedImage))
    for image in shared:
        values = (getattr(image, field.name) for field in fields(image))
        writer.writerow(to_cell(readable(v)) if isinstance(v, str) else v for v in values)
    write_text(file, stream.getvalue())
    return file


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
        Warnings of the models and of shared images, to show wherever numbers are.
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
    OutputError
        If a cell cannot be written; those that were stay.
    TrustVLMError
        If a model has an unknown name, or none can be loaded. What fails else, such as one of
        several models, a data set or a cell, is a row with its error.
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
        finished = {
            (shots, draw): read_cell(file, with_samples=draw == 0)
            for (shots, draw), file in files.items()
        }
        missing = [point for point, rows in finished.items() if rows is None]
        done += len(points) - len(missing)
        tasks = [(config, encoded, point, files[point]) for point in missing]
        errors: dict[Point, str] = {}
        for point, error in zip(missing, (workers or Workers()).map(_run_cell, tasks), strict=True):
            if error is None:
                grid.computed += 1
            else:
                errors[point] = error
            done += 1
            if on_cell is not None:
                on_cell(done, total)
        if on_cell is not None:
            on_cell(done, total)
        for point in missing:
            if point not in errors and (rows := read_cell(files[point])) is not None:
                finished[point] = rows
        for point, rows in finished.items():
            if rows is None:
                error = errors.setdefault(point, f"{files[point]} cannot be read: run it again.")
                grid.rows += _failed_cell(encoded, point, error)
            else:
                grid.rows += rows
        if errors:
            continue
        shown = max(config.shots), 0
        grid.samples.update(_read_samples(files[shown], finished[shown] or [], encoded.setting))
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


def _run_cell(config: BenchConfig, encoded: EncodedDataset, point: Point, file: Path) -> str | None:
    """Measure and keep one cell; return what is wrong with it, such as a bias that a model lacks.

    A plugin that fails ends the study: it has to be mended first. So does a folder that takes no
    file: what is measured from then on would be lost.
    """
    try:
        _measure_cell(config, encoded, point, file)
    except (OutputError, PluginError):
        raise
    except TrustVLMError as error:
        return str(error)
    return None


def _measure_cell(config: BenchConfig, encoded: EncodedDataset, point: Point, file: Path) -> None:
    rows: list[dict[str, Any]] = []
    samples: dict[str, Any] = {}
    scores = usable_scores(encoded.support, config.scores or None)
    for cell in measure_draw(encoded, scores, *point, config.convention):
        rows.append({**cell.row_with_settings(), **encoded.about})
        confidence, correct = sample_keys(rows[-1])
        samples |= {confidence: cell.result.confidence, correct: cell.correct}
    if point[1] == 0:
        with atomic_path(file.with_suffix(".npz")) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, **samples)
    # Written last: a cell is finished when its rows are there.
    write_cell(file, rows)


def _failed_cell(encoded: EncodedDataset, point: Point, error: str) -> list[dict[str, Any]]:
    shots, draw = point
    return [
        {
            "dataset": test.name,
            "score": None,
            "shots": shots,
            "draw": draw,
            **encoded.setting.named,
            "error": f"with {encoded.setting.label}: {error}",
        }
        for test in encoded.tests
    ]


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
    file: Path, rows: Sequence[Row], setting: Setting
) -> Iterator[tuple[SampleKey, tuple[NDArray[Any], NDArray[Any]]]]:
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        for row in rows:
            confidence, correct = sample_keys(row)
            yield (row["dataset"], row["score"], setting), (stored[confidence], stored[correct])
