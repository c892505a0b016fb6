"""The classes to choose from: names for prompts, and the folders or labels that mean them."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.references import LabelledImages
from trustvlm.images.tables import read_text

# Hyphens within words (not signs, as in "A-" or "-1"), underscores and blanks of any kind.
_SEPARATORS = re.compile(r"(?:(?<=\w)[-\u2010\u2011\u2013](?=\w)|[_\s])+")


def normal_form(name: str) -> str:
    """Return what the spellings of one class name have in common.

    Case, blanks, underscores and hyphens within words do not count, nor do the forms that Unicode
    has of one letter (NFKC) or signs that print nothing. Singular and plural stay two names, for
    *glass* and *glasses* are.

    Examples
    --------
    >>> spellings = ["golden retriever", "Golden-Retriever ", "golden_retriever"]
    >>> {normal_form(name) for name in spellings}
    {'golden retriever'}
    >>> normal_form("A-"), normal_form("a")
    ('a-', 'a')
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").replace("\u2019", "'")
    return _SEPARATORS.sub(" ", text).strip() or name.strip()


@dataclass(frozen=True)
class ClassList:
    """C classes, in the order of their indices.

    Parameters
    ----------
    names
        What prompts say, such as `annual crop land`. Classes with folders of their own may share a
        name, as two pairs of ImageNet's do: the text cannot tell these apart, the examples can.
    folders
        What folders and tables say, such as `annual_crop_land`; equal to `names` by default.

    Raises
    ------
    InputError
        If there is no class, if a name or folder is empty, or if two classes are alike.

    Examples
    --------
    >>> classes = ClassList(("house cat", "dog"), ("cat", "dog"))
    >>> classes.indices(["dog", "cat"])
    array([1, 0])
    >>> ClassList(("missile", "missile", "tench"), ("n03773504", "n04008634", "n01440764")).labels
    ('missile (n03773504)', 'missile (n04008634)', 'tench')
    """

    names: tuple[str, ...]
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.folders:
            object.__setattr__(self, "folders", self.names)
        if not self.names:
            raise InputError("Expected at least one class, but got none.")
        if len(self.names) != len(self.folders):
            raise InputError(
                f"Expected as many folders as names, but got {len(self.folders)} and "
                f"{len(self.names)}."
            )
        for what, values in (("class names", self.names), ("class folders", self.folders)):
            if "" in values:
                raise InputError(
                    f"Expected {what} not to be empty, but number {values.index('') + 1} is."
                )
        folders = "class names" if self.names == self.folders else "class folders"
        for what, values in ((folders, self.folders), ("class names", self.labels)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise InputError(
                    f"Expected {what} to be distinct, but these repeat: {_some(twice)}."
                )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What verdicts say: the name, and the folder beside it where classes share a name."""
        counts = Counter(self.names)
        return tuple(
            name if counts[name] == 1 else f"{name} ({folder})"
            for name, folder in zip(self.names, self.folders, strict=True)
        )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_labels(cls, labels: Iterable[str], classes: Iterable[str] = ()) -> ClassList:
        r"""Make a sorted list of the classes that labels of images name.

        Several spellings of a name (`normal_form`) are one class, by the spelling of most images.

        Parameters
        ----------
        labels
            Of the images.
        classes
            Others that have no image.

        Examples
        --------
        >>> ClassList.of_labels(["dog", "Dog", "cat", "dog", "dog\u00a0"]).names
        ('cat', 'dog')
        """
        counts = Counter(label.strip() for label in labels)
        counts.update({name.strip(): 0 for name in classes})
        chosen: dict[str, str] = {}
        for name in sorted(counts, key=lambda name: (-counts[name], name)):
            chosen.setdefault(normal_form(name), name)
        return cls(tuple(sorted(chosen.values())))

    def indices(self, labels: Iterable[str]) -> NDArray[np.int64]:
        """Return the class index of each label.

        Labels are compared exactly, with the folders if those explain every label, else with the
        names (of classes that share one, `labels`) if those do, else with both. What then is no
        class, but another spelling of one (`normal_form`), means that one.

        Raises
        ------
        InputError
            If labels are unknown (the message lists them), or mean two classes at once.

        Warns
        -----
        TrustVLMWarning
            If labels are other spellings of a class.
        """
        labels = list(labels)
        by_folder = {folder: i for i, folder in enumerate(self.folders)}
        by_name = {label: i for i, label in enumerate(self.labels)}
        spelling = self._spellings(dict.fromkeys(labels), by_folder, by_name)
        distinct = dict.fromkeys(spelling.values())
        if distinct.keys() <= by_folder.keys():
            lookup = by_folder
        elif distinct.keys() <= by_name.keys():
            lookup = by_name
        else:
            lookup = by_name | by_folder
            self._check_labels(distinct, by_folder, by_name)
        other = [" as ".join(_quoted([label, c])) for label, c in spelling.items() if label != c]
        if other:
            warnings.warn(
                "labels that differ from a class only in spelling are read as that class: "
                f"{_some(other, quoted=True)}",
                TrustVLMWarning,
                stacklevel=2,
            )
        return np.array([lookup[spelling[label]] for label in labels], dtype=np.int64)

    def _spellings(
        self, labels: Iterable[str], by_folder: dict[str, int], by_name: dict[str, int]
    ) -> dict[str, str]:
        """Return the folder or name that each label means, or itself if there is none."""
        meant: dict[str, dict[int, str]] = {}
        for known in (by_folder, by_name):
            for spelled, i in known.items():
                meant.setdefault(normal_form(spelled), {}).setdefault(i, spelled)
        spelling = {}
        for label in labels:
            exact = label in by_folder or label in by_name or label in self.names
            classes = {} if exact else meant.get(normal_form(label), {})
            if len(classes) > 1:
                raise InputError(
                    f"Expected every label to mean one class, but {label!r} may be "
                    f"{' or '.join(map(repr, classes.values()))}: spell it as the class is."
                )
            spelling[label] = next(iter(classes.values()), label)
        return spelling

    def _check_labels(
        self, distinct: Iterable[str], by_folder: dict[str, int], by_name: dict[str, int]
    ) -> None:
        unknown = [label for label in distinct if label not in by_folder and label not in by_name]
        shared = [label for label in unknown if label in self.names]
        if shared:
            raise InputError(
                f"Expected every label to mean one class, but {_some(shared)} "
                f"{'is the name' if len(shared) == 1 else 'are the names'} of several: use the "
                "folders of the classes as labels."
            )
        if unknown:
            raise InputError(
                f"Expected every label to be one of the {len(self)} classes, but {len(unknown)} "
                f"are not: {_some(unknown)}. The classes are {_some(self.folders)}."
            )
        for label in distinct:
            if by_folder.get(label, by_name.get(label)) != by_name.get(label, by_folder.get(label)):
                raise InputError(
                    f"Expected the label {label!r} to mean one class, but it is the folder of one "
                    "and the name of another. Use folders for all labels, or names for all."
                )


def read_classes(
    spec: str | os.PathLike[str] | Sequence[str] | Mapping[str, str] | ClassList,
) -> ClassList:
    r"""Read a list of classes from whatever the user has.

    Parameters
    ----------
    spec
        * a text file with one `name` or `folder<TAB>name` a line; blank lines and lines that
          begin with `#` are passed over;
        * a comma list such as `"cat,dog"`; a name with a comma stands in quotation marks;
        * a sequence of names;
        * a mapping from folder to name.

    Raises
    ------
    InputError
        As `ClassList`; and for several spellings of one name, where there are no folders.

    Examples
    --------
    >>> read_classes("cat, dog").names
    ('cat', 'dog')
    >>> read_classes({"n02123045": "tabby cat"}).folders
    ('n02123045',)
    """
    if isinstance(spec, ClassList):
        return spec
    if isinstance(spec, (str, os.PathLike)):
        file = _as_file(spec)
        if file is not None:
            return _from_lines(file)
        rows = csv.reader(os.fspath(spec).splitlines(), skipinitialspace=True)
        spec = [cell for row in rows for cell in row]
    if isinstance(spec, Mapping):
        return ClassList(_texts(spec.values()), _texts(spec.keys()))
    return _names_alone(_texts(spec))


def classes_of(
    labelled: LabelledImages,
    spec: str | os.PathLike[str] | Sequence[str] | Mapping[str, str] | ClassList | None = None,
) -> ClassList:
    """Return the classes of labelled images: those given, as in `read_classes`, else their own."""
    if spec is None:
        return ClassList.of_labels(labelled.labels, labelled.classes)
    return read_classes(spec)


def _names_alone(names: tuple[str, ...]) -> ClassList:
    """Refuse several spellings of one name, where nothing but the name tells classes apart."""
    classes = ClassList(names)
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(normal_form(name), []).append(name)
    twice = [" and ".join(_quoted(group)) for group in spellings.values() if len(group) > 1]
    if twice:
        raise InputError(
            f"Expected class names to be distinct, but these are spellings of one: "
            f"{_some(twice, quoted=True)}. Keep one of them, or give each class a name of its own: "
            "a file with `folder<TAB>name` lines, or a mapping from folder to name."
        )
    return classes


def _as_file(spec: str | os.PathLike[str]) -> Path | None:
    try:
        file = Path(spec)
        if file.is_file():
            return file
    except (OSError, ValueError):  # a list of names may be too long for a path
        return None
    if isinstance(spec, os.PathLike) or file.suffix.lower() == ".txt":
        raise InputError(f"Expected a text file of classes, but there is no file {str(spec)!r}.")
    return None


def _from_lines(file: Path) -> ClassList:
    folders: list[str] = []
    names: list[str] = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) > 2 or not all(parts):
            raise InputError(
                f"Expected `name` or `folder<TAB>name` in line {number} of {str(file)!r}, "
                f"but got {line!r}."
            )
        folders.append(parts[0])
        names.append(parts[-1])
    if not names:
        raise InputError(f"Expected {str(file)!r} to list classes, but it lists none.")
    if names == folders:
        return _names_alone(tuple(names))
    return ClassList(tuple(names), tuple(folders))


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    values = list(values)
    for value in values:
        if not isinstance(value, str):
            raise InputError(
                f"Expected every class to be named by a text, but got {value!r} "
                f"({type(value).__name__})."
            )
    return tuple(str(value).strip() for value in values)


def _quoted(spellings: Sequence[str]) -> list[str]:
    """Quote spellings of one name; those that look alike have their signs written out."""
    seen = Counter(unicodedata.normalize("NFC", spelling) for spelling in spellings)
    return [
        ascii(spelling) if seen[unicodedata.normalize("NFC", spelling)] > 1 else repr(spelling)
        for spelling in spellings
    ]


def _some(values: Sequence[str], most: int = 10, *, quoted: bool = False) -> str:
    listed = ", ".join(values[:most] if quoted else map(repr, values[:most]))
    return f"{listed}, ... ({len(values)} in all)" if len(values) > most else listed
