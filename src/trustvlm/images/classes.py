"""The classes to choose from: names for prompts, and the folders or labels that mean them."""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from trustvlm.cells import from_cell
from trustvlm.environment import require
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.formats import looks_like_image
from trustvlm.images.locations import Location
from trustvlm.images.references import LabelledImages
from trustvlm.images.tables import read_text
from trustvlm.text import shortened

# What becomes of numbered classes in a table that misses one of the numbers.
_WHOLE_NUMBER = re.compile(r"\d+\.0+")
# Hyphens within words (not signs, as in "A-" or "-1"), underscores and blanks of any kind.
_SEPARATORS = re.compile(r"(?:(?<=\w)[-\u2010\u2011\u2013](?=\w)|[_\s])+")


def normal_form(name: str) -> str:
    """Return what the spellings of one class name have in common.

    Case, blanks, underscores and hyphens within words do not count, nor do the forms that Unicode
    has of one letter (NFKC) or signs that print nothing. Singular and plural stay two names, for
    *glass* and *glasses* are. The number of a class is the same with zeros behind its point.

    Examples
    --------
    >>> spellings = ["golden retriever", "Golden-Retriever ", "golden_retriever"]
    >>> {normal_form(name) for name in spellings}
    {'golden retriever'}
    >>> normal_form("A-"), normal_form("a"), normal_form("7.0")
    ('a-', 'a', '7')
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").replace("\u2019", "'")
    text = _SEPARATORS.sub(" ", text).strip() or name.strip()
    return text.partition(".")[0] if _WHOLE_NUMBER.fullmatch(text) else text


def canonical(name: str) -> str:
    r"""Return a name as names are compared: in one form of Unicode (NFC), without outer blanks.

    Examples
    --------
    >>> canonical("cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name).strip()


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
            blank = next((i for i, value in enumerate(values, 1) if not value.strip()), None)
            if blank is not None:
                raise InputError(f"Expected {what} not to be empty, but number {blank} is.")
        folders = "class names" if self.names == self.folders else "class folders"
        for what, values in ((folders, self.folders), ("class names", self.labels)):
            counts = Counter(map(canonical, values))
            twice = [value for value, count in counts.items() if count > 1]
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

    def label_of(self, label: str) -> str | None:
        r"""Return how this list spells a label of its own; None if it has no such label.

        Examples
        --------
        >>> ClassList(("caf\u00e9", "bar")).label_of(" cafe\u0301") == "caf\u00e9"
        True
        """
        return self._canonical_labels.get(canonical(label))

    @cached_property
    def _canonical_labels(self) -> dict[str, str]:
        return {canonical(label): label for label in self.labels}

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

        Labels are compared by their letters (`canonical`), with the folders if those explain every
        label, else with the names (of classes that share one, `labels`) if those do, else with
        both. What then is no class, but another spelling of one (`normal_form`), means that one.

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
        forms = {label: canonical(label) for label in dict.fromkeys(labels)}
        labels = [forms[label] for label in labels]
        by_folder = {canonical(folder): i for i, folder in enumerate(self.folders)}
        by_name = {canonical(label): i for i, label in enumerate(self.labels)}
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

    def unknown(self, labels: Iterable[str]) -> list[str]:
        """Return the distinct labels that are no class, in any spelling, in order of appearance.

        Examples
        --------
        >>> ClassList(("house cat", "dog")).unknown(["Dog", "cow", "house_cat", "cow"])
        ['cow']
        """
        by_folder = {folder: i for i, folder in enumerate(self.folders)}
        by_name = {label: i for i, label in enumerate(self.labels)}
        spelling = self._spellings(dict.fromkeys(labels), by_folder, by_name)
        return [label for label, c in spelling.items() if c not in by_folder and c not in by_name]

    def _spellings(
        self, labels: Iterable[str], by_folder: dict[str, int], by_name: dict[str, int]
    ) -> dict[str, str]:
        """Return the folder or name that each label means, or itself if there is none."""
        meant: dict[str, dict[int, str]] = {}
        names = set(map(canonical, self.names))
        for index in (by_folder, by_name):
            for spelled, i in index.items():
                meant.setdefault(normal_form(spelled), {}).setdefault(i, spelled)
        spelling = {}
        for label in labels:
            exact = label in by_folder or label in by_name or label in names
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
        shared = [label for label in unknown if label in set(map(canonical, self.names))]
        if shared:
            raise InputError(
                f"Expected every label to mean one class, but {_some(shared)} "
                f"{'is the name' if len(shared) == 1 else 'are the names'} of several: use the "
                "folders of the classes as labels."
            )
        if unknown:
            raise InputError(
                f"Expected every label to be one of the {len(self)} classes, but "
                f"{_some(unknown)} {'is' if len(unknown) == 1 else 'are'} not: correct the "
                f"labels, or leave these images out. The classes are {_some(self.folders)}."
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
          begin with `#` are passed over; a single line may be a comma list;
        * a `.csv` or `.tsv` with a column `name` (or `class`, `label`) and perhaps one `folder`,
          or without a header: names, or numbers and names;
        * a `.json` with a list of names, names by number (`{"0": "cat"}`), numbers by name, names
          by folder, or a list of objects with `id` and `name`; at the top, or under `names`,
          `classes`, `categories`, `id2label` or `label2id`;
        * a `.yaml` with any of these;
        * the URL of any of these;
        * a comma list such as `"cat,dog"`; a name with a comma stands in quotation marks, as in
          `'"salt, pepper",dog'`;
        * a sequence of names;
        * a mapping from folder to name.

    Raises
    ------
    InputError
        As `ClassList`; for several spellings of one name, where there are no folders; for a folder,
        a file that is not there, and one that is no list of names.

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
            return _from_file(file)
        text = os.fspath(spec)
        try:
            rows = csv.reader(text.splitlines(), skipinitialspace=True, strict=True)
            spec = [cell for row in rows for cell in row]
        except csv.Error as error:
            raise InputError(
                f"Expected names parted by commas, but got {text!r}: {error}. Check its quotation "
                "marks."
            ) from error
        if len(spec) == 1 and ";" in spec[0]:
            raise InputError(
                f"Expected names parted by commas, but got {spec[0]!r}. Write 'cat,dog', or name a "
                "file with one name a line."
            )
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
    spellings: dict[str, dict[str, None]] = {}
    for name in names:
        spellings.setdefault(normal_form(name), {})[name] = None
    twice = [" and ".join(_quoted(list(group))) for group in spellings.values() if len(group) > 1]
    if twice:
        raise InputError(
            f"Expected class names to be distinct, but these are spellings of one: "
            f"{_some(twice, quoted=True)}. Keep one of them, or give each class a name of its own: "
            "a file with `folder<TAB>name` lines, or a mapping from folder to name."
        )
    return ClassList(names)


def _as_file(spec: str | os.PathLike[str]) -> Location | None:
    """Return the file of classes that is named; None for a list of names."""
    if isinstance(spec, str) and ("\n" in spec or not spec.strip()):
        return None
    file = Location.of(spec)
    if not file.is_url:
        if file.is_folder():
            raise InputError(
                f"Expected a file of classes or a list of names, but {str(spec)!r} is a folder. "
                "Name a file with a name on each line, or put a name in quotation marks."
            )
        if file.exists():
            return file
    elif file.exists():
        return file
    named = isinstance(spec, os.PathLike) or file.is_url
    if named or file.suffix in _FILE_ENDINGS or str(spec).startswith(("/", "./", "../", "~/")):
        raise InputError(f"Expected a file of classes, but there is no file {str(spec)!r}.")
    return None


def _from_file(file: Location) -> ClassList:
    if file.suffix in _NO_LISTS or looks_like_image(file.text):
        raise _no_list(file, "a file of another kind")
    reader = _READERS.get(file.suffix, _from_lines)
    try:
        return reader(file)
    except RecursionError as error:
        raise _no_list(file, "one that is too deep") from error


def _no_list(file: Location, what: str) -> InputError:
    return InputError(
        f"Expected a list of classes as plain text, CSV, JSON or YAML, but {file.text!r} is "
        f"{what}. Write one name a line into a .txt file."
    )


def _from_csv(file: Location) -> ClassList:
    text = read_text(file)
    lines = [line for line in text.splitlines() if line.strip()]

    def cells_of(lines: list[str], delimiter: str) -> list[list[str]]:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        return [[from_cell(cell.strip()) for cell in row] for row in reader]

    delimiters = "\t" if file.suffix == ".tsv" else ",;\t|"
    delimiter = max(delimiters, key=lambda sign: len(cells_of(lines[:1], sign)[0]) if lines else 0)
    rows = [row for row in cells_of(lines, delimiter) if any(row)]
    header = [cell.casefold() for cell in rows[0]] if rows else []
    named = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if named is not None:
        folder = next((header.index(name) for name in _FOLDER_COLUMNS if name in header), None)
        rows, columns = rows[1:], [named] if folder is None else [folder, named]
    else:
        columns = list(range(min(len(header), 2)))
    if not rows:
        raise InputError(f"Expected {file.text!r} to list classes, but it lists none.")
    longest = max(rows, key=len)
    if len(longest) > len(header):
        raise InputError(
            f"Expected {len(header)} cells in every row of {file.text!r}, but got "
            f"{', '.join(map(repr, longest))}. Put names with a comma in quotation marks."
        )
    if max(columns) >= min(map(len, rows)) or (named is None and len(header) > 2):
        raise InputError(
            f"Expected {file.text!r} to have a column 'name', but its first row is "
            f"{', '.join(map(repr, rows[0]))}."
        )
    cells = [tuple(row[column] for column in columns) for row in rows]
    if len(columns) == 1:
        return _names_alone(tuple(name for (name,) in cells))
    return _from_mapping(dict(_pairs(cells, file)), file)


def _pairs(cells: Iterable[tuple[str, ...]], file: Location) -> list[tuple[str, str]]:
    pairs = [(first, second) for first, second in cells]
    keys = Counter(key for key, _ in pairs)
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        raise InputError(
            f"Expected every class of {file.text!r} once, but these repeat: {_some(twice)}."
        )
    return pairs


def _from_json(file: Location) -> ClassList:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        _pairs([(key, "") for key, _ in pairs], file)
        return dict(pairs)

    try:
        content = json.loads(read_text(file), object_pairs_hook=unique)
    except ValueError as error:
        raise InputError(
            f"Expected {file.text!r} to hold JSON, but got: {error}. Repair it, or write one name "
            "a line into a .txt file."
        ) from error
    return _from_content(content, file)


def _from_yaml(file: Location) -> ClassList:
    yaml = require("yaml", extra="yaml", purpose=f"Reading {file.text}")
    try:
        text = read_text(file)
        tags = [tag for event in yaml.parse(text) if (tag := getattr(event, "tag", None))]
        # Every word is a text: YAML takes `no` for a truth value and 1 for a number.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Expected {file.text!r} to hold YAML, but got: {reason}.") from error
    if tags:
        raise InputError(
            f"Expected {file.text!r} to hold texts alone, but it has tags ({tags[0]})."
        )
    return _from_content(content, file)


def _from_content(content: object, file: Location) -> ClassList:
    if isinstance(content, dict):
        listed = next((content[k] for k in _LISTS if isinstance(content.get(k), dict | list)), None)
        settings = "" if listed is not None else ", ".join(_DATA_SETTINGS & content.keys())
        if settings:
            raise InputError(
                f"Expected {file.text!r} to list classes under 'names', but it has only {settings}."
            )
        number = content.get("nc")
        if listed is not None and _is_number(number) and _number(number) != len(listed):
            raise InputError(
                f"Expected {file.text!r} to list as many classes as its 'nc' says, but it is "
                f"{number} and there are {len(listed)}."
            )
        content = content if listed is None else listed
    if isinstance(content, dict):
        return _from_mapping(content, file)
    if isinstance(content, list) and content and all(isinstance(item, dict) for item in content):
        # The categories of COCO.
        content = [item.get("name") for item in content]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"Expected {file.text!r} to hold a list of names, or names by number, at the top or "
            f"under 'names', but got {shortened(repr(content), 60)}."
        )
    if not content:
        raise InputError(f"Expected {file.text!r} to list classes, but it lists none.")
    return _names_alone(_texts(content))


def _from_mapping(content: Mapping[object, object], file: Location) -> ClassList:
    """Read names by number, numbers by name, or names by folder."""
    if not content:
        raise InputError(f"Expected {file.text!r} to list classes, but it lists none.")
    keys, values = list(content), list(content.values())
    if all(map(_is_number, keys)) and all(map(_is_pair, values)):
        # The class index of ImageNet: {"0": ["n01440764", "tench"]}.
        pairs = [content[key] for key in sorted(keys, key=_number)]
        folders, names = zip(*cast("list[list[str]]", pairs), strict=True)
        return ClassList(_texts(names), _texts(folders))
    if all(map(_is_number, keys)) and all(isinstance(value, str) for value in values):
        return _names_alone(_texts(str(content[key]) for key in sorted(keys, key=_number)))
    if all(map(_is_number, values)) and all(isinstance(key, str) for key in keys):
        numbered = sorted(content.items(), key=lambda item: _number(item[1]))
        return _names_alone(_texts(str(name) for name, _ in numbered))
    if all(isinstance(text, str) for text in (*keys, *values)):
        return ClassList(_texts(map(str, values)), _texts(map(str, keys)))
    raise InputError(
        f"Expected {file.text!r} to hold names by number, numbers by name or names by folder, but "
        f"got {shortened(repr(dict(content)), 60)}."
    )


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and list(map(type, value)) == [str, str]


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().isdecimal()
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> int:
    return int(str(value))


_NAME_COLUMNS = ("name", "class_name", "classname", "class", "label", "names")
_FOLDER_COLUMNS = ("folder", "wnid", "synset")
# Where files of data sets and models have the names, and what those of detection hold besides.
_LISTS = ("names", "categories", "id2label", "label2id", "classes", "class_names", "labels")
_DATA_SETTINGS = frozenset({"train", "val", "test", "path", "nc", "download"})
_READERS: Mapping[str, Callable[[Location], ClassList]] = {
    ".csv": _from_csv,
    ".tsv": _from_csv,
    ".json": _from_json,
    ".yaml": _from_yaml,
    ".yml": _from_yaml,
}
_OTHERS = (
    ".xlsx .xls .ods .pdf .doc .docx .odt .rtf .parquet .zip .tar .gz .npz .npy .pt .pth .pkl "
    ".sqlite .xml .html .htm .toml .py .ipynb .safetensors .onnx"
)
_NO_LISTS = frozenset(_OTHERS.split())
_FILE_ENDINGS = _NO_LISTS | {".txt", ".text", ".names", ".lst", ".list", ".tab", *_READERS}


def _from_lines(file: Location) -> ClassList:
    text = read_text(file)
    begins = text.lstrip()[:200].casefold()
    if begins.startswith(("<!doctype", "<html", "<?xml", "<svg", "{\\rtf", "%pdf")):
        raise _no_list(file, "a page or a document")
    # JSON and YAML under another name are read as what they are.
    if begins.startswith(("[", "{")) and text.rstrip()[-1] in "]}":
        return _from_json(file)
    if re.search(r"^names\s*:", text, re.MULTILINE):
        return _from_yaml(file)
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    lines = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if len(lines) == 1 and "\t" not in lines[0][1] and "," in lines[0][1]:
        return read_classes(next(csv.reader([lines[0][1]], skipinitialspace=True)))
    folders: list[str] = []
    names: list[str] = []
    for number, line in lines:
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) > 2 or not all(parts):
            raise InputError(
                f"Expected `name` or `folder<TAB>name` in line {number} of {file.text!r}, "
                f"but got {line!r}."
            )
        folders.append(parts[0])
        names.append(parts[-1])
    if not names:
        raise InputError(f"Expected {file.text!r} to list classes, but it lists none.")
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
