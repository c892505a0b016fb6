"""The facts of the 17 sets: layout, folders, counts, terms, and the classes of ImageNet."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from trustvlm.exceptions import InputError
from trustvlm.images import ClassList
from trustvlm.plugins import Registry, describe_failures, load_installed
from trustvlm.text import did_you_mean

Split: TypeAlias = Literal["train", "val", "test"]
"""The parts of a published data set."""
Layout: TypeAlias = Literal[
    "split file",
    "variant lists",
    "class folders",
    "numbered folders",
    "pickles",
    "labelled",
    "reader",
]
# Lists the images of one split in the folder of a set: their paths in it, and their labels.
Reader: TypeAlias = Callable[[Path, str], Iterable[tuple[str | Path, str]]]


@dataclass(frozen=True)
class DatasetSpec:
    """The facts of one set, in the directory layout of CoOp and TPT.

    Attributes
    ----------
    name, title
        Short name for commands, and the name in print.
    layout
        How images, labels and splits are laid down.
    folders
        Where the set may lie under the data root, the usual folder first: as the paper's users and
        CoOp's have it, as torchvision does, and as the archive unpacks.
    aliases
        Further names in print.
    images
        Folder of the images inside it; "" where they lie in the folder itself.
    other_images
        Where else inside it they may be: as their archive unpacks in the folder of the set.
    split_folders
        Folder of each split inside it, where they have folders of their own; with the layout
        `labelled`, whatever `images.find_labelled` reads: a folder of class folders, or a table.
    split_file
        Zhou's list of the splits; None where the set has its own.
    n_classes
        Number of classes C.
    counts
        Images in each split there is.
    subset
        Which of ImageNet's classes it has: "" for all or for a set with classes of its own.
    shots_from
        Name of the set whose training images serve as shots; mostly the set itself.
    weight, temperature
        Released hyper-parameters of TrustVLM; None where nothing was released.
    template
        CoOp's prompt template.
    citation, terms
        What to cite, and what is stated on the rights in the images. No legal advice.
    classes
        Of a set with the layout `labelled`, a file of class names in its folder, as `images.
        read_classes` reads it; "" takes the labels of its training images, sorted. With a `reader`,
        the names themselves.
    reader
        Lists the images of a set with the layout `reader`, which was registered.
    """

    name: str
    title: str
    layout: Layout
    folders: tuple[str, ...]
    n_classes: int
    counts: Mapping[Split, int] = field(hash=False)
    citation: str
    terms: str
    aliases: tuple[str, ...] = ()
    images: str = ""
    other_images: tuple[str, ...] = ()
    split_folders: Mapping[Split, str] = field(default_factory=dict, hash=False)
    split_file: str | None = None
    subset: str = ""
    shots_from: str = ""
    weight: float = 1.0
    temperature: float | None = None
    template: str = "a photo of a {}."

    classes: str | tuple[str, ...] = ""
    reader: Reader | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.shots_from:
            object.__setattr__(self, "shots_from", self.name)

    @property
    def folder(self) -> str:
        """Where the set usually lies under the data root."""
        return self.folders[0]

    @property
    def splits(self) -> tuple[Split, ...]:
        """Names of the splits."""
        return tuple(self.counts)


@cache
def read_catalogue() -> tuple[DatasetSpec, ...]:
    """Return the facts of the 17 sets, in the paper's order; `catalogue.toml` is read once."""
    text = files(__package__).joinpath("catalogue.toml").read_text("utf-8")
    lists = ("folders", "aliases", "other_images")
    return tuple(
        DatasetSpec(**facts | {key: tuple(facts[key]) for key in lists if key in facts})
        for facts in tomllib.loads(text)["dataset"]
    )


# Sets that users added; see datasets/added.py.
ADDED: Registry[DatasetSpec] = Registry("data set", lambda spec: spec.reader)


def every_set() -> tuple[DatasetSpec, ...]:
    """Return the facts of the 17 sets, and of those that were added."""
    return (*read_catalogue(), *ADDED.values())


def names() -> tuple[str, ...]:
    """Return the names of the 17 sets, in the paper's order, and of those that were added.

    Examples
    --------
    >>> names()[:3], len(names())
    (('flowers102', 'dtd', 'pets'), 17)
    """
    return tuple(spec.name for spec in every_set())


def get(name: str) -> DatasetSpec:
    """Return the facts of one set; for a name that is none, installed packages are loaded.

    Parameters
    ----------
    name
        Its name, title or folder, or another name in print; case and punctuation do not matter.

    Raises
    ------
    InputError
        If there is no such set.

    Examples
    --------
    >>> get("OxfordPets").name, get("ImageNet-V2").folder
    ('pets', 'imagenetv2-matched-frequency-format-val')
    """
    spec = _find(name)
    if spec is None:
        load_installed()
        spec = _find(name)
    if spec is not None:
        return spec
    guess = did_you_mean(name.lower(), names(), n=1).capitalize()
    raise InputError(
        f"Expected a data set to be one of {', '.join(names())}, but got {name!r}. {guess}".rstrip()
        + describe_failures()
    )


def is_known(name: str) -> bool:
    """Say whether there is a set of this name, as `get` takes it.

    Examples
    --------
    >>> is_known("DTD"), is_known("colours")
    (True, False)
    """
    return _find(name) is not None


def _find(name: str) -> DatasetSpec | None:
    for spec in every_set():
        if bare(name) in map(bare, (spec.name, spec.title, *spec.folders, *spec.aliases)):
            return spec
    return None


def preset(name: str) -> dict[str, float | None]:
    """Return the hyper-parameters of TrustVLM's released commands for one set.

    `weight` is r in p + r * cos, and `temperature` is T of the prototype softmax in the variants
    that correct the prediction; None where no command was released. How they were chosen is not
    documented, and no validation split was used: compare with r=1, T=0.01 everywhere.

    Raises
    ------
    InputError
        If there is no such set.

    Examples
    --------
    >>> preset("pets")
    {'weight': 0.1, 'temperature': 0.1}
    """
    spec = get(name)
    return {"weight": spec.weight, "temperature": spec.temperature}


# How ImageNet and its relatives are read: as they were published, or as the released script does.


@dataclass(frozen=True)
class ImageNetRules:
    """How ImageNet and its relatives are read.

    Attributes
    ----------
    names
        What the VLM chooses from on ImageNet-A and -R: the 200 names of their `own` classes, as
        they were published, or all of `imagenet`.
    folder_order
        Of ImageNet-V2, whose folders are called 0 to 999: as `number`, which is the class, or as
        `text`, so that folder 10 is class 2 and most labels are wrong.
    shots_from
        ImageNet's `train` images, or the `test` images of the set itself.

    Examples
    --------
    >>> ImageNetRules(names="imagenet").of(get("imagenet-a")).split
    'test-1000-names'
    >>> RELEASED_RULES.of(get("imagenet-v2")).split, RELEASED_RULES.of(get("dtd")).split
    ('test-text-order-shots-of-test', 'test')
    """

    names: Literal["own", "imagenet"] = "own"
    folder_order: Literal["number", "text"] = "number"
    shots_from: Literal["train", "test"] = "train"

    def of(self, spec: DatasetSpec) -> ImageNetRules:
        """Return those that mean something for one set, and the published ones otherwise."""
        keys = applicable_rules(spec)
        return ImageNetRules(**{key: getattr(self, key) for key in keys})

    @property
    def split(self) -> str:
        """Name the test split, so that no two readings have the same name."""
        parts = (
            ("1000-names", self.names == "imagenet"),
            ("text-order", self.folder_order == "text"),
            ("shots-of-test", self.shots_from == "test"),
        )
        return "-".join(("test", *(name for name, changed in parts if changed)))


AS_PUBLISHED = ImageNetRules()
"""Each set of ImageNet as its own publication has it; the default."""
RELEASED_RULES = ImageNetRules("imagenet", "text", "test")
"""The sets of ImageNet as the released script reads them."""
IMAGENET_RULES = {"as-published": AS_PUBLISHED, "released": RELEASED_RULES}
"""Both, by their names in studies and on the command line."""


def applicable_rules(spec: DatasetSpec) -> tuple[str, ...]:
    """Name the fields of `ImageNetRules` that mean something for a set.

    Examples
    --------
    >>> applicable_rules(get("imagenet-a")), applicable_rules(get("cifar10"))
    (('names', 'shots_from'), ())
    """
    if spec.layout not in ("class folders", "numbered folders"):
        return ()
    means = {
        "names": bool(spec.subset),
        "folder_order": spec.layout == "numbered folders",
        "shots_from": True,
    }
    return tuple(key for key, meant in means.items() if meant)


# Prompt templates that differ from one set to the next.

_ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
PROMPT_PRESETS = {
    "coop": "CoOp's template of the set",
    "coop-ensemble": "the seven templates that CLIP's authors selected for ImageNet, and, for "
    "other sets, CoOp's template of the set",
    "tip-adapter": "for ImageNet and its relatives those seven, else CoOp's template of the set",
}
"""Published choices of prompts, by name, and what each one is."""


def prompt_templates(preset: str, name: str) -> tuple[str, ...]:
    """Return the prompt templates that a preset has for one data set.

    `coop` and `coop-ensemble` are those of CoOp (Zhou et al., IJCV 2022; in its repository
    KaiyangZhou/CoOp, trainers/zsclip.py and trainers/imagenet_templates.py), `tip-adapter` those of
    Tip-Adapter (Zhang et al., ECCV 2022). The seven templates are from CLIP's notebook on prompts
    for ImageNet. None of the two has templates for CIFAR, nor for sets of one's own: these have
    "a photo of a {}.".

    Parameters
    ----------
    preset
        One of `PROMPT_PRESETS`.
    name
        Of the set, as in `get`, or of a set that is not in the catalogue.

    Raises
    ------
    InputError
        If there is no such preset.

    Examples
    --------
    >>> prompt_templates("coop", "dtd"), prompt_templates("coop", "my own set")
    (('{} texture.',), ('a photo of a {}.',))
    >>> len(prompt_templates("coop-ensemble", "dtd")), len(prompt_templates("tip-adapter", "dtd"))
    (8, 1)
    """
    if preset not in PROMPT_PRESETS:
        raise InputError(
            f"Expected `preset` to be one of {', '.join(PROMPT_PRESETS)}, but got {preset!r}."
        )
    spec = _find(name)
    template = DatasetSpec.template if spec is None else spec.template
    of_imagenet = spec is not None and spec.layout in ("class folders", "numbered folders")
    if preset == "coop-ensemble":
        return _ENSEMBLE if spec is not None and spec.name == "imagenet" else (*_ENSEMBLE, template)
    return _ENSEMBLE if preset == "tip-adapter" and of_imagenet else (template,)


def bare(text: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


# The classes of ImageNet, and which of them ImageNet-A and ImageNet-R have.

_SETS = {"": "", "a": "A", "r": "R"}


@dataclass(frozen=True)
class ImageNetClass:
    """One of the 1000 classes.

    Attributes
    ----------
    index
        Its position among the 1000, which is the order of the WordNet IDs.
    wnid
        Its WordNet ID, which names its folder.
    name
        What CLIP's prompts call it.
    """

    index: int
    wnid: str
    name: str


def imagenet_classes(subset: str = "") -> tuple[ImageNetClass, ...]:
    """Return the classes of ImageNet, ImageNet-A or ImageNet-R, in the order of their indices.

    The names are those published with CLIP (Radford et al. 2021). Two of them stand for two
    classes each: `missile` and `sunglasses`. Results of CLIP are published with these names, so
    they stay; whatever names a class to a user adds its WordNet ID to them.

    Parameters
    ----------
    subset
        "" for all 1000 classes, "a" or "r" for the 200 of ImageNet-A or ImageNet-R.

    Raises
    ------
    InputError
        If there is no such subset.

    Examples
    --------
    >>> imagenet_classes("a")[0]
    ImageNetClass(index=6, wnid='n01498041', name='stingray')
    """
    if subset not in _SETS:
        raise InputError(f"Expected `subset` to be one of {list(_SETS)}, but got {subset!r}.")
    return tuple(entry for entry, sets in _table() if _SETS[subset] in sets)


def imagenet_class_list(name: str) -> ClassList:
    """Return folders and names of the classes of ImageNet or one of its relatives.

    It is what `TrustVLM(classes=...)` needs to be fitted on folders of ImageNet's images: prompts
    say the names, and the folders are named by WordNet ID, or of ImageNet-V2 by index.

    Raises
    ------
    InputError
        If the set is another one: its names are in its own files.

    Examples
    --------
    >>> imagenet_class_list("imagenet-a").folders[:2]
    ('n01498041', 'n01531178')
    >>> imagenet_class_list("imagenet").labels[836]
    'sunglasses (n04355933)'
    """
    spec = get(name)
    if spec.layout not in ("class folders", "numbered folders"):
        raise InputError(
            f"The class names of `{spec.name}` are in its own files: load it with "
            "trustvlm.datasets.load. Those of ImageNet and its relatives need no files."
        )
    classes = imagenet_classes(spec.subset)
    numbered = spec.layout == "numbered folders"
    folders = (str(c.index) if numbered else c.wnid for c in classes)
    return ClassList(tuple(c.name for c in classes), tuple(folders))


def mask(subset: str) -> tuple[int, ...]:
    """Return the indices that a subset has among the 1000, in ascending order.

    Examples
    --------
    >>> mask("r")[:5], len(mask("r"))
    ((1, 2, 4, 6, 8), 200)
    """
    return tuple(c.index for c in imagenet_classes(subset))


@cache
def _table() -> tuple[tuple[ImageNetClass, str], ...]:
    text = files(__package__).joinpath("imagenet_classes.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return tuple((ImageNetClass(i, wnid, name), sets) for i, (wnid, name, sets) in enumerate(rows))
