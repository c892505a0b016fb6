"""Data sets as arrays: what two encoders said of the images, their classes, and drawn shots.

An `ArraySet` is one set of images, as an .npz file holds it. An `EncodedDataset` is what a study is
measured on: a set that shots are drawn from, the sets to test on, the draws, and how the scores'
settings are chosen (`Tuning`).
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.benchmark.results import Setting, cell_file
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.pipeline import select
from trustvlm.plugins import origin
from trustvlm.scores import Evidence, get, names
from trustvlm.scores.few_shot import draw_shots

PRESETS = ("untuned", "paper", "loo", "validation")

_NEEDED = ("logits", "features", "labels", "class_names")
_OPTIONAL = ("image_embeddings", "text_embeddings", "logit_bias")


@dataclass(frozen=True)
class ArraySet:
    """n labelled images of C classes.

    Attributes
    ----------
    name
        For tables; the file's stem.
    logits, features
        `(n, C)` zero-shot logits, scaled, and `(n, d)` features of the vision encoder.
    labels, class_names
        `(n,)` class indices, and C names.
    image_embeddings, text_embeddings
        `(n, e)` and `(C, e)` of the VLM's own space; None where the file has none.
    logit_bias
        Of a SigLIP model, for the parameter `link="sigmoid"` of scores; None for others.
    """

    name: str
    logits: NDArray[Any]
    features: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    image_embeddings: NDArray[Any] | None = None
    text_embeddings: NDArray[Any] | None = None
    logit_bias: float | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: NDArray[np.int64]) -> ArraySet:
        """Return some of the images, with the same classes."""
        embeddings = self.image_embeddings
        return replace(
            self,
            logits=self.logits[chosen],
            features=self.features[chosen],
            labels=self.labels[chosen],
            image_embeddings=None if embeddings is None else embeddings[chosen],
        )

    def contents(self) -> list[bytes]:
        """Return what tells images apart: a hash of logits and features, to the last bit."""
        digests = []
        for logits, features in zip(self.logits, self.features, strict=True):
            row = np.concatenate([logits, features], dtype=np.float64)
            digests.append(hashlib.blake2b(row.tobytes(), digest_size=16).digest())
        return digests

    def shots(self, chosen: NDArray[np.int64]) -> Evidence:
        """Return the evidence of these images as shots, about no image yet."""
        embeddings = self.image_embeddings
        return Evidence.of(
            logits=np.empty((0, self.n_classes)),
            support_features=self.features[chosen],
            support_labels=self.labels[chosen],
            support_logits=self.logits[chosen],
            support_image_embeddings=None if embeddings is None else embeddings[chosen],
            text_embeddings=self.text_embeddings,
            logit_bias=self.logit_bias,
        )

    def about(self, shots: Evidence) -> Evidence:
        """Return the evidence about these images with such shots."""
        return shots.with_images(
            logits=self.logits, features=self.features, image_embeddings=self.image_embeddings
        )


def load_arrays(path: str | os.PathLike[str]) -> ArraySet:
    """Read an .npz file with `logits, features, labels, class_names` and check it.

    Optional are `image_embeddings`, `text_embeddings` and, of a SigLIP model, the number
    `logit_bias`. Nothing is unpickled.

    Raises
    ------
    InputError
        If the file is missing, is no .npz, lacks an array, or its arrays do not fit together.
    """
    path = Path(path)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is no .npz file: expected an archive of arrays, as `numpy.savez` writes it."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (*_NEEDED, *_OPTIONAL) if name in stored}
            stored_names = ", ".join(stored.files)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.") from error
    except (OSError, EOFError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as an .npz file of plain arrays: {error}"
        ) from error
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise InputError(
            f"Expected {path} to hold {', '.join(_NEEDED)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; it holds {stored_names}."
        )
    names = tuple(str(name) for name in arrays.pop("class_names").ravel())
    checked = _checked(path, arrays, len(names))
    return ArraySet(name=path.stem, class_names=names, **checked)


def _checked(path: Path, arrays: dict[str, NDArray[Any]], n_classes: int) -> dict[str, Any]:
    n = len(np.atleast_1d(arrays["labels"]))
    if not n:
        raise InputError(f"{path} holds no images.")
    if arrays["logits"].ndim != 2 or arrays["logits"].shape[1] != n_classes:
        raise InputError(
            f"Expected `logits` in {path} to have {n_classes} columns like `class_names`, "
            f"but got shape {arrays['logits'].shape}."
        )
    bias = arrays.get("logit_bias")
    if bias is not None and (bias.size != 1 or bias.dtype.kind not in "fiu"):
        raise InputError(f"Expected `logit_bias` in {path} to be one number, but got {bias!r}.")
    try:
        # Evidence checks shapes, finiteness and directions, and names what is wrong.
        evidence = Evidence.of(
            logits=arrays["logits"],
            features=arrays["features"],
            support_features=arrays["features"],
            support_labels=arrays["labels"],
            image_embeddings=arrays.get("image_embeddings"),
            text_embeddings=arrays.get("text_embeddings"),
            logit_bias=None if bias is None else float(bias.item()),
        )
    except InputError as error:
        raise InputError(f"{path}: {str(error).replace('support_', '')}") from error
    return {
        "logits": evidence.logits,
        "features": evidence.features,
        "labels": evidence.support_labels,
        "image_embeddings": evidence.image_embeddings,
        "text_embeddings": evidence.text_embeddings,
        "logit_bias": evidence.logit_bias,
    }


def same_classes(support: ArraySet, test: ArraySet) -> None:
    """Raise `InputError` unless both sets have the same classes in the same order, and encoders."""
    if support.class_names != test.class_names:
        pairs = zip(support.class_names, test.class_names, strict=False)
        differing = [f"{a!r} and {b!r}" for a, b in pairs if a != b]
        raise InputError(
            f"Expected `{test.name}` to have the classes of the support set `{support.name}`, in "
            f"the same order, but they have {support.n_classes} and {test.n_classes} classes"
            + (f", and differ in {differing[0]}." if differing else ".")
        )
    if None not in (biases := (support.logit_bias, test.logit_bias)) and len({*biases}) > 1:
        raise InputError(
            f"Expected `{test.name}` and `{support.name}` to come from one VLM, but their "
            f"`logit_bias` are {test.logit_bias} and {support.logit_bias}."
        )
    if support.features.shape[1] != test.features.shape[1]:
        raise InputError(
            f"Expected `{test.name}` and `{support.name}` to come from one vision encoder, but "
            f"their features have {test.features.shape[1]} and {support.features.shape[1]} columns."
        )


def refuse_shared_images(
    shots: ArraySet, tests: Sequence[ArraySet], validation: ArraySet | None = None
) -> None:
    """Raise `LeakError` if what settings are selected on is also tested, or validation also shots.

    Images are the same if their logits and features are, to the last bit.
    """
    pairs = [(shots, test) for test in tests]
    if validation is not None:
        pairs = [(validation, test) for test in [*tests, shots]]
    for chosen_on, other in pairs:
        if shared := _shared_images(chosen_on, other):
            raise LeakError(
                f"{shared} of the images of {chosen_on.name} that settings are selected on are "
                f"also in {other.name}, number for number: results would be too good. Remove them "
                "from one of the two."
            )


def warn_of_shared_images(shots: ArraySet, tests: Sequence[ArraySet]) -> None:
    """Warn, for each test set, of images that are also shots: scores with shots have seen them."""
    for test in tests:
        if shared := _shared_images(shots, test):
            warnings.warn(
                f"{shared} of the images of {test.name} are also among the shots, number for "
                "number: scores with shots look better than they are. Remove them from either.",
                TrustVLMWarning,
                stacklevel=3,
            )


def _shared_images(first: ArraySet, second: ArraySet) -> int:
    return len(set(first.contents()) & set(second.contents()))


def draw_rows(support: ArraySet, shots: int, draw: int) -> NDArray[np.int64]:
    """Draw shots from arrays; warn, for draw 0, of classes that have too few."""
    drawn = draw_shots(support.labels, support.n_classes, shots, draw=draw)
    if draw == 0 and (sentence := describe_small_classes(support.name, drawn.counts, shots)):
        warnings.warn(sentence, TrustVLMWarning, stacklevel=5)
    return drawn.indices


def describe_small_classes(name: str, counts: NDArray[np.int64], shots: int) -> str:
    """Say how many classes have fewer images than shots are drawn; "" if none has.

    Examples
    --------
    >>> describe_small_classes("pets", np.array([4, 2]), 4)
    'pets: 1 of 2 classes have fewer than 4 images: all of theirs are used'
    """
    few = int((counts < shots).sum())
    return (
        f"{name}: {few} of {len(counts)} classes have fewer than {shots} images: all of theirs "
        "are used"
        if few
        else ""
    )


# Settings of the scores: untuned, or selected on the shots or on validation images.


@dataclass(frozen=True)
class ScoreSettings:
    """The settings of one score with one draw of the shots.

    Attributes
    ----------
    parameters
        What is passed to it; its defaults fill up the rest.
    selection
        How some of them were selected; None if none was.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    selection: select.Selection | None = None


@dataclass(frozen=True)
class Tuning:
    """How a study sets the parameters of its scores.

    Attributes
    ----------
    by
        One of `PRESETS`. `loo` selects weight and temperature on the drawn shots, each held out;
        `validation` on the validation images; the others select nothing.
    parameters
        A score's own parameters by its name: these are never selected.
    validation
        Labelled images that are neither shots nor tests.
    """

    by: str = "untuned"
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    validation: ArraySet | None = None

    def __post_init__(self) -> None:
        if self.by not in PRESETS:
            raise InputError(f"Expected `preset` among {', '.join(PRESETS)}, but got {self.by!r}.")
        if self.by == "validation" and self.validation is None:
            raise InputError(
                "Expected validation images to select on, but got none; `loo` selects on the shots."
            )

        for score, given in self.parameters.items() if self.selects else ():
            select.check_link(score, given)

    @property
    def selects(self) -> bool:
        """Whether anything is selected."""
        return self.by in ("loo", "validation")

    def identity(self) -> dict[str, Any]:
        """Return what of the selection can change a number, besides parameters and images."""
        candidates = {"weight": select.WEIGHTS, "temperature": select.TEMPERATURES}
        return {"selected": [self.by, candidates]} if self.selects else {}

    def settings(self, scores: Sequence[str], shots: Evidence) -> dict[str, ScoreSettings]:
        """Select anew for one draw of the shots; return the settings of each score."""
        selected: dict[str, select.Selection] = {}
        settings = {}
        for name in scores:
            given = dict(self.parameters.get(name, {}))
            chosen = None
            if self.selects and select.free_settings(name, given):
                # *(F) takes what suits *: no need to find that twice.
                key = repr((select.SELECTABLE[name], given.get("weight"), given.get("temperature")))
                if key not in selected:
                    selected[key] = self._select(select.SELECTABLE[name], shots, given)
                chosen = selected[key]
            settings[name] = ScoreSettings(
                {**(chosen.parameters if chosen else {}), **given}, chosen
            )
        return settings

    def _select(self, name: str, shots: Evidence, given: Mapping[str, Any]) -> select.Selection:
        if self.by == "loo":
            return select.select_by_holding_out(name, shots, fixed=given)
        assert self.validation is not None  # noqa: S101 -- checked when it was made
        evidence = shots.with_images(
            logits=self.validation.logits, features=self.validation.features
        )
        return select.select_on(name, evidence, self.validation.labels, fixed=given)


# What studies are measured on.


@dataclass(frozen=True)
class SharedImage:
    """A test or validation image that scores learn from as well, or from one much like it.

    Attributes
    ----------
    dataset, image
        Its data set and split, and its path.
    other, role
        Path of the other image, and whether that is a `training` or a `validation` image.
    vision, cosine
        The encoder that compared the two, and the cosine of their features.
    same_content
        Whether both are the same file, byte for byte.
    kept
        Whether it is tested nevertheless.
    """

    dataset: str
    image: str
    other: str
    role: str
    vision: str
    cosine: float
    same_content: bool
    kept: bool


@dataclass(frozen=True)
class EncodedDataset:
    """A data set through one pair of encoders.

    Attributes
    ----------
    name
        Of the data set.
    setting
        Names of the models, the protocol and the prompt; empty where arrays do not name them.
    support, tests
        Arrays of the images that shots are drawn from, and of each test split.
    draws
        Rows of `support` by (shots, draw), class by class in the order drawn.
    tuning
        Sets the scores' parameters.
    identity
        All that tells this data set from any other, for the names of cells.
    templates
        Of the prompts that its logits are from; empty where arrays do not say.
    notes, shared
        What must be said of its images, and those that are shared with shots.
    """

    name: str
    setting: Setting
    support: ArraySet
    tests: tuple[ArraySet, ...]
    draws: Mapping[tuple[int, int], NDArray[np.int64]]
    tuning: Tuning = field(default_factory=Tuning)
    identity: Mapping[str, Any] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shared: tuple[SharedImage, ...] = ()

    @classmethod
    def from_arrays(
        cls, support: ArraySet, tests: Sequence[ArraySet], shots: Sequence[int], draws: int
    ) -> EncodedDataset:
        """Draw shots from one set, to test on others; no images, no models.

        Raises
        ------
        InputError
            If the sets do not fit together.
        """
        for test in tests:
            same_classes(support, test)
        drawn = {point: draw_rows(support, *point) for point in product(shots, range(draws))}
        return cls(support.name, Setting(), support, tuple(tests), drawn)

    def cell_file(self, folder: Path, scores: Sequence[str], **what: Any) -> Path:
        """Name the file of what is measured on this data set, with some scores, by default all."""
        used = {name: get(name) for name in scores or names()}
        registered = {name: metrics.get(name).function for name in metrics.names()}
        makers = {**{name: score.function for name, score in used.items()}, **registered}
        # A changed plugin gives other numbers under the same formula.
        outside = {name: of for name, f in makers.items() if f is not None and (of := origin(f))}
        identity = {**self.identity, **({"plugins": outside} if outside else {})}
        formulas = {name: score.formula for name, score in used.items()}
        return cell_file(folder, {**identity, "scores": formulas, **what})

    @property
    def about(self) -> dict[str, Any]:
        """What every row on this data set says of the models and the prompts."""
        about: dict[str, Any] = dict(self.setting.named)
        if self.templates:
            about["templates"] = list(self.templates)
        if identity := self.identity.get("settings"):
            about["convention"] = identity["convention"]
            about["versions"] = {"trustvlm": identity["trustvlm"], "numpy": np.__version__}
            about["fingerprints"] = [identity[role]["fingerprint"] for role in ("vlm", "vision")]
        return about
