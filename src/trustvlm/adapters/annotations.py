"""What labelling tools have in common: images to look at, and the annotations that come back."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from trustvlm.cells import to_cell
from trustvlm.exceptions import ImageError, InputError
from trustvlm.files import write_text
from trustvlm.images.decoding import exif_orientation
from trustvlm.images.errors import Limits
from trustvlm.images.formats import recognise
from trustvlm.images.locations import Location
from trustvlm.images.references import content_hash, read_bytes, shown
from trustvlm.pipeline.verdict import Verdict
from trustvlm.serialization import first_invalid
from trustvlm.text import printable

MAX_BYTES = 2**29
"""What a file of annotations may hold, unpacked."""


# Images to look at: which, in which order, under which address, of which size.


def to_review(verdicts: Iterable[Verdict], only: str | None = None) -> list[Verdict]:
    """Return the verdicts on images that can be looked at, each once, the most doubtful first.

    Of several verdicts on one image, as on the labels of several labellers, it is the most doubtful
    one. As on the review page: labels for review before accepted ones, then by P(correct), or by
    confidence without it; what has neither comes first.

    Parameters
    ----------
    verdicts
        Of any number; those on images that could not be read are left out.
    only
        A decision: leave the other images out.

    Raises
    ------
    InputError
        If no image is left, or there is no such decision.
    """
    if only not in (None, "accept", "review"):
        raise InputError(f"Expected only accept or review images, but got {only!r}.")
    images = _by_path(verdicts).values()
    rows = [row for row in images if row.decision == (only or row.decision) != "error"]
    if not rows:
        what = f"for {only}" if only else "that could be read"
        raise InputError(f"Expected at least one image {what}, but there is none.")
    return rows


def _by_path(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """Return the most doubtful verdict on each image, the most doubtful image first."""

    def doubt(row: Verdict) -> tuple[int, float]:
        of = row.confidence if math.isnan(row.p_correct) else row.p_correct
        return _TURN.get(row.decision, len(_TURN)), -math.inf if math.isnan(of) else of

    by_path: dict[str, Verdict] = {}
    for row in sorted(verdicts, key=doubt):
        by_path.setdefault(row.path, row)
    return by_path


_TURN = {"review": 0, "accept": 1}


def random_order(verdicts: Iterable[Verdict], seed: int) -> list[Verdict]:
    """Return the verdicts on readable images, each image once, in an order that is random.

    It follows from the paths and the seed alone, so that the first so many are a random sample
    which can be drawn again.
    """

    def key(row: Verdict) -> str:
        return content_hash(f"{seed}:{row.path}".encode("utf-8", "backslashreplace"))

    rows = [row for row in _by_path(verdicts).values() if row.decision != "error"]
    return sorted(rows, key=key)


def classes_in(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the classes that verdicts name, sorted: a model may have more.

    A label that could not be judged need not be one.
    """
    names: set[str] = set()
    for row in verdicts:
        names |= {row.runner_up, row.vlm_label, *(row.prediction_set or ())}
        if not math.isnan(row.confidence):
            names.add(row.label)
    return sorted(names - {""})


def image_url(path: str, prefix: str) -> str:
    """Return the address under which a tool finds an image; a URL stays as it is.

    Signs of a path are escaped as in a URL, but not in the keys of object stores.

    Examples
    --------
    >>> image_url("a b/1#2.jpg", "https://host/"), image_url("a b/1.jpg", "s3://bucket/")
    ('https://host/a%20b/1%232.jpg', 's3://bucket/a b/1.jpg')
    """
    if Location(path).is_url:
        return path
    return prefix + (quote(path) if _is_escaped(prefix) else path)


def path_of_url(url: str, prefix: str) -> str:
    """Return the path of which `image_url` made an address.

    A tool may put its own host before an address that has none.

    Examples
    --------
    >>> path_of_url("https://host/a%20b/1%232.jpg", "https://host/")
    'a b/1#2.jpg'
    >>> path_of_url("http://localhost:8080/files/a%20b.jpg", "/files/")
    'a b.jpg'
    """
    address = _HOST.sub("/", url) if prefix.startswith("/") else url
    if not prefix or not address.startswith(prefix):
        return url
    path = address.removeprefix(prefix)
    return unquote(path) if _is_escaped(prefix) else path


_HOST = re.compile(r"^https?://[^/]+/", re.IGNORECASE)


def _is_escaped(prefix: str) -> bool:
    return prefix.startswith("/") or prefix.lower().startswith(("http://", "https://"))


def image_size(path: str, root: Path) -> tuple[int, int] | None:
    """Return width and height of an image as it is shown; None where it cannot be read here."""
    if Location(path).is_url:
        return None
    try:
        content = read_bytes(root / path, Limits())
        image_format = recognise(content)
        if image_format is None or not image_format.available():
            return None
        with image_format.open(io.BytesIO(content)) as image:
            width, height = image.size
            turned = exif_orientation(image)
    except (ImageError, OSError, ValueError, SyntaxError):
        return None
    return (
        (height, width) if turned is not None and turned.name in _ON_ITS_SIDE else (width, height)
    )


_ON_ITS_SIDE = ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")


# Annotations that come back: read within bounds, one label for an image, onto the right image.


@dataclass(frozen=True)
class Annotation:
    """What one annotator said of one image.

    Attributes
    ----------
    path
        The image, as the tool calls it.
    labels
        One as a rule; none if the annotator passed the image over.
    annotator
        Who it was; the later of two annotations of one annotator counts.
    time
        When it was made, in one form throughout; "" if the file does not say, then the later in
        the file counts.
    ground_truth
        Whether it is marked as right: it then goes before all others.
    predicted
        The label that the tool showed at first; "" if the file does not say.
    unchanged
        Whether this is that label, and nobody touched it as far as the file says.
    """

    path: str
    labels: tuple[str, ...]
    annotator: str = ""
    ground_truth: bool = False
    predicted: str = ""
    unchanged: bool = False
    time: str = ""


@dataclass(frozen=True)
class Correction:
    """The label that an image has by its annotators.

    Attributes
    ----------
    path, label
        The image and its class.
    predicted
        The label that was shown to them; "" if that is unknown.
    annotators
        How many gave a label.
    agreement
        Share of them who gave this one.
    """

    path: str
    label: str
    predicted: str
    annotators: int
    agreement: float

    @property
    def action(self) -> str:
        """`accept` or `correct`, as on the review page; "" if it is unknown which."""
        if not self.predicted:
            return ""
        return "accept" if self.label == self.predicted else "correct"


@dataclass(frozen=True)
class Corrections:
    """Corrections, and what became of the other images.

    Attributes
    ----------
    rows
        In the order of the file.
    skipped
        Images that all annotators passed over, or nobody has answered.
    unchanged
        Images that still bear the label they came with, of which nothing says that anybody looked.
    undecided
        Images whose annotators disagree, or gave several labels, with the reason.
    """

    rows: tuple[Correction, ...]
    skipped: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    undecided: Mapping[str, str] = field(default_factory=dict)


def decide_labels(
    annotations: Iterable[Annotation], *, confirm_unchanged: bool = False
) -> Corrections:
    """Return one label for each image: the one that most annotators gave.

    Parameters
    ----------
    annotations
        Of any number of images, in any order.
    confirm_unchanged
        Take labels that nobody touched as right, because somebody looked at every image.

    Examples
    --------
    >>> said = [("1.jpg", "cat", "ann"), ("1.jpg", "dog", "bob"), ("2.jpg", "cat", "ann")]
    >>> result = decide_labels(Annotation(path, (label,), who) for path, label, who in said)
    >>> result.rows[0].path, result.undecided
    ('2.jpg', {'1.jpg': 'its annotators disagree (cat, dog)'})
    """
    by_image: dict[str, dict[str, Annotation]] = {}
    for number, annotation in enumerate(annotations):
        of_image = by_image.setdefault(annotation.path, {})
        # Annotations without a name are of different people, as far as one can know.
        annotator = annotation.annotator or f"\0{number}"
        if annotator not in of_image or annotation.time >= of_image[annotator].time:
            of_image[annotator] = annotation
    rows: list[Correction] = []
    skipped: list[str] = []
    unchanged: list[str] = []
    undecided: dict[str, str] = {}
    for path, of_image in by_image.items():
        given = [one for one in of_image.values() if one.labels]
        touched = given if confirm_unchanged else [one for one in given if not one.unchanged]
        counting = [one for one in touched if one.ground_truth] or touched
        if not counting:
            (unchanged if given else skipped).append(path)
            continue
        votes = Counter(tuple(sorted(set(one.labels))) for one in counting)
        (labels, n), *others = votes.most_common()
        predicted = next((one.predicted for one in of_image.values() if one.predicted), "")
        if others and others[0][1] == n:
            names = sorted({label for labels in votes for label in labels})
            undecided[path] = f"its annotators disagree ({', '.join(names)})"
        elif len(labels) > 1:
            undecided[path] = f"it has several labels ({', '.join(labels)})"
        else:
            share = n / votes.total()
            rows.append(Correction(path, labels[0], predicted, votes.total(), share))
    return Corrections(tuple(rows), tuple(skipped), tuple(unchanged), undecided)


def random_sample(corrections: Corrections, verdicts: Iterable[Verdict], seed: int) -> Corrections:
    """Return the corrections that are a random sample of the images of verdicts.

    That is `random_order` up to the first image without a label. Doubtful images alone would be no
    sample, and whatever is calibrated on them would guarantee nothing.
    """
    by_path = {row.path: row for row in corrections.rows}
    answered = (by_path.get(row.path) for row in random_order(verdicts, seed))
    rows = tuple(row for row in takewhile(lambda row: row is not None, answered) if row)
    return replace(corrections, rows=rows)


def on_images_of(
    annotations: Iterable[Annotation], verdicts: Iterable[Verdict]
) -> list[Annotation]:
    """Return annotations under the names that verdicts have for the images.

    Tools put folders before a name, or leave some out. A name that is none of an image is taken
    for the one image whose folders, from the end, agree with it.

    Raises
    ------
    InputError
        If there is no such image, or several: labels never go to an image by chance.
    """
    of = _by_path(verdicts)
    whole: dict[tuple[str, ...], list[str]] = {}
    for path in of:
        whole.setdefault(_parts(path), []).append(path)
    # How often a name with so many of its folders is the end of an image's, and of one of them.
    ends: dict[tuple[str, ...], tuple[int, str]] = {}
    for parts, paths in whole.items():
        for start in range(1, len(parts)):
            ends[parts[start:]] = (ends.get(parts[start:], (0, ""))[0] + len(paths), paths[0])
    renamed = []
    for annotation in annotations:
        path, parts = annotation.path, _parts(annotation.path)
        if path not in of:
            longer, one = ends.get(parts, (0, ""))
            shorter = [path for i in range(len(parts)) for path in whole.get(parts[i:], ())]
            n = longer + len(shorter)
            if n != 1:
                raise InputError(
                    f"Expected {shown(path)!r} to be the name of an image in the verdicts, but it "
                    f"is that of {f'{n} images' if n else 'no image'}. Name the verdicts that were "
                    "exported."
                )
            path = shorter[0] if shorter else one
        predicted = annotation.predicted or of[path].label
        renamed.append(replace(annotation, path=path, predicted=predicted))
    return renamed


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(unquote(path) if Location(path).is_url else path.replace("\\", "/")).parts
    return tuple(part for part in parts if part not in (".", "/")) or (path,)


def corrections_csv(
    corrections: Corrections,
    *,
    root: Path | None = None,
    beside: Path | None = None,
    shots: Iterable[tuple[Path, str]] = (),
) -> str:
    """Return corrections as a table that `fit`, `calibrate` and the like read.

    Parameters
    ----------
    corrections
        The labels.
    root
        What their paths are relative to; None leaves them as they are.
    beside
        The folder of the table: paths below it are written relative to it.
    shots
        Further labelled files, which the table lists first.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "action", "predicted", "annotators", "agreement"])
    for file, label in shots:
        writer.writerow([to_cell(str(file.absolute())), to_cell(label), "", "", "", ""])
    for row in corrections.rows:
        path = row.path
        if root is not None and not Location(path).is_url:
            path = _written(root / path, beside)
        cells = (path, row.label, row.action, row.predicted)
        writer.writerow([*map(to_cell, cells), row.annotators, f"{row.agreement:.3g}"])
    return text.getvalue()


def _written(file: Path, beside: Path | None) -> str:
    file = file.absolute()
    if beside is not None and file.is_relative_to(beside.absolute()):
        return file.relative_to(beside.absolute()).as_posix()
    return str(file)


def read_bounded(location: Location) -> bytes:
    """Return the content of a file of annotations.

    Raises
    ------
    InputError
        If it cannot be read, or holds more than `MAX_BYTES`.
    """
    name = shown(location.text)
    try:
        with location.open() as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"Expected {name!r} to be a file that can be read, but got: "
            f"{error.strerror or type(error).__name__}."
        ) from error
    if len(content) > MAX_BYTES:
        raise InputError(
            f"Expected {name!r} to hold at most {MAX_BYTES:,} bytes, but it holds more. Export "
            "the annotations in parts."
        )
    return content


def parse_json(content: bytes, name: str) -> Any:
    """Return the values of a JSON text.

    Raises
    ------
    InputError
        If it is none, or nests too deep.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"Expected {name!r} to be JSON, but got: {error}.") from error


def checked(adapter: Any, value: Any, what: str, name: str) -> Any:
    """Return a value as pydantic's type adapter reads it; `what` says what it should be.

    Raises
    ------
    InputError
        If it is something else; the message says where.
    """
    from pydantic import ValidationError

    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        where, fault = first_invalid(error)
        raise InputError(f"Expected {name!r} to be {what}, but got at {where}: {fault}.") from error


def write_json(file: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def without_nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is empty: None, NaN and empty texts.

    Examples
    --------
    >>> without_nothing({"label": "cat", "p_correct": float("nan"), "reason": "", "n": 0})
    {'label': 'cat', 'n': 0}
    """
    return {
        name: value
        for name, value in values.items()
        if value not in ("", None) and not (isinstance(value, float) and math.isnan(value))
    }


# What XML 1.0 has no way to write.
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """Return a text that XML can hold.

    Raises
    ------
    InputError
        If it has control characters, which XML has no way to write.
    """
    if _NO_XML.search(text):
        raise InputError(
            f"Expected names that XML can hold, but {printable(text)!r} has control characters. "
            "Rename it, or take a format in JSON."
        )
    return text


def classes_to_choose(classes: Sequence[str] | None, verdicts: Collection[Verdict]) -> list[str]:
    """Return the classes to choose from: those given, or those that verdicts name.

    Raises
    ------
    InputError
        If there is none.
    """
    names = list(dict.fromkeys(classes if classes is not None else classes_in(verdicts)))
    if not names:
        raise InputError("Expected the classes to choose from, but the verdicts name none.")
    return names
