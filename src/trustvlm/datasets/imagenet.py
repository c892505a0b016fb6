"""The classes of ImageNet, and which of them ImageNet-A and ImageNet-R have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from trustvlm.datasets.catalogue import get
from trustvlm.exceptions import InputError
from trustvlm.images import ClassList

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
