"""Labels of the images in an archive: beside them, as WebDataset has them, or by class folders."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.images.collections import cell_label
from trustvlm.images.references import (
    ImageSource,
    LabelledImage,
    Skipped,
    is_split,
    read_probability,
)
from trustvlm.images.streams import BrokenShard, StreamShard, TextMember
from trustvlm.text import join_names


@dataclass
class ArchiveLabels:
    """The images of an archive, by whether they have a label.

    Attributes
    ----------
    images
        Those that have one, in the order of the archive.
    loose
        Names of those that have none.
    folders
        The folders right below each class folder, if there are such.
    """

    images: list[LabelledImage] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    folders: dict[str, set[str]] = field(default_factory=dict)


def labels_of(
    shard: StreamShard, label_column: str, confidence_column: str | None, skipped: Skipped
) -> ArchiveLabels:
    """Read the images of an archive, which are held in memory, and their labels.

    Parameters
    ----------
    shard
        An archive that was opened with `text_endings(label_column)`.
    label_column
        A key of the objects in `.json` members, or the ending of members that hold the label alone;
        `.cls` members hold it where the other has none.
    confidence_column
        A key of the objects in `.json` members.
    skipped
        Counts labels without an image.

    Raises
    ------
    InputError
        If no image has a label, the archive cannot be read, or a probability is none.
    """
    samples = list(_samples(shard.images(), label_column, confidence_column))
    _join_parts(samples)
    result = ArchiveLabels()
    if not any(
        of.label for sample in samples for of in (sample, *map(sample.of_image, sample.images))
    ):
        return _from_folders(shard, samples, label_column)
    for sample in samples:
        for image in sample.images:
            labels = sample.of_image(image)
            if labels.label and not sample.is_ambiguous:
                result.images.append(LabelledImage(image, labels.label, labels.confidence))
            else:
                result.loose.append(image.path)
        if not sample.images:
            for text in sample.texts:
                skipped.add(text)
    return result


def text_endings(label_column: str) -> frozenset[str]:
    """Return the endings of members that may hold a label.

    Examples
    --------
    >>> sorted(text_endings("breed"))
    ['breed', 'cls', 'json']
    """
    return frozenset({"cls", "json", label_column.lower()})


# Members of one name, whatever their endings, are a sample, as WebDataset has it: the name goes up
# to the first point. They follow one another; the same name further on is another sample. Names of
# files may have points of their own: `1.5.cls` is the label of `1.5.jpg` alone.


@dataclass
class _Sample:
    key: str
    images: list[ImageSource] = field(default_factory=list)
    label: str = ""
    confidence: float = math.nan
    texts: list[str] = field(default_factory=list)
    endings: set[str] = field(default_factory=set)
    keys: tuple[str, ...] = ()
    # Labels of the images whose names go on so behind the first point.
    named: dict[str, _Sample] = field(default_factory=dict)
    # Another sample of the same name begins before this one has a label: which has it?
    is_ambiguous: bool = False

    def of_image(self, image: ImageSource) -> _Sample:
        """Return what holds the label of an image."""
        return self.named.get(_name_and_ending(image)[0], self)


def _samples(
    members: Iterable[ImageSource], label_column: str, confidence_column: str | None
) -> Iterator[_Sample]:
    sample: _Sample | None = None
    for member in members:
        if isinstance(member, BrokenShard):
            raise InputError(member.message)
        folder, _, base = member.path.replace("\\", "/").rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}"
        if sample is None or key != sample.key or ending in sample.endings:
            is_ambiguous = sample is not None and key == sample.key and not sample.texts
            if sample is not None:
                sample.is_ambiguous |= is_ambiguous
                yield sample
            sample = _Sample(key, is_ambiguous=is_ambiguous)
        sample.endings.add(ending)
        if isinstance(member, TextMember):
            sample.texts.append(member.path)
            rest, kind = _name_and_ending(member)
            of = sample.named.setdefault(rest, _Sample(f"{key}.{rest}")) if rest else sample
            _read_label(of, member, kind, label_column, confidence_column)
            if not of.label:
                sample.named.pop(rest, None)
        else:
            sample.images.append(member)
    if sample is not None:
        yield sample


def _name_and_ending(member: ImageSource) -> tuple[str, str]:
    """Return what stands between the first and the last point of a name, and its ending."""
    name = member.path.replace("\\", "/").rpartition("/")[2].lower()
    rest, _, ending = name.partition(".")[2].rpartition(".")
    return rest, ending


def _read_label(
    sample: _Sample,
    member: TextMember,
    ending: str,
    label_column: str,
    confidence_column: str | None,
) -> None:
    """Take what a member says of the label of its sample; what cannot be read says nothing."""
    try:
        text = member.content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return
    if ending != "json":
        is_own = ending == label_column.lower()
        label = text if len(text.splitlines()) == 1 else ""
        sample.label = label if is_own else sample.label or label
        return
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(record, dict):
        return
    sample.keys = tuple(record)
    sample.label = cell_label(record.get(label_column)) or sample.label
    if confidence_column is not None:
        sample.confidence = read_probability(record.get(confidence_column), member.path)


def _join_parts(samples: list[_Sample]) -> None:
    """Give images their label where all images are packed before all labels, or behind."""
    parts: dict[str, list[_Sample]] = {}
    for sample in samples:
        parts.setdefault(sample.key, []).append(sample)
    for of_key in parts.values():
        images = [sample for sample in of_key if sample.images]
        labels = [sample for sample in of_key if not sample.images]
        # Of several there is no saying which belongs to which.
        if len(images) == len(labels) == 1 and not (images[0].label or images[0].named):
            (image,), (label,) = images, labels
            image.label, image.confidence = label.label, label.confidence
            image.named = label.named
            label.texts.clear()


# Class folders, perhaps in one folder around them, and in that a split alone.


def _from_folders(shard: StreamShard, samples: list[_Sample], label_column: str) -> ArchiveLabels:
    images = [image for sample in samples for image in sample.images]
    start = f"{shard.prefix}/" if shard.prefix else ""
    folders = [_folders_of(image.path.removeprefix(start)) for image in images]
    around = ""
    while images and all(len(p) > 1 for p in folders) and len({p[0] for p in folders}) == 1:
        if around and not is_split(folders[0][0]):
            break
        around, folders = folders[0][0], [parts[1:] for parts in folders]
    result = ArchiveLabels()
    for image, parts in zip(images, folders, strict=True):
        if not parts:
            result.loose.append(image.path)
            continue
        result.images.append(LabelledImage(image, parts[0]))
        result.folders.setdefault(parts[0], set()).update(parts[1:2])
    if images and not result.images:
        keys = Counter(key for sample in samples for key in sample.keys)
        under = (
            f"; the keys there are {join_names([repr(key) for key, _ in keys.most_common(10)])}: "
            "say which to use (--label-column)"
            if keys
            else ""
        )
        raise InputError(
            f"Expected the images of {shard.name!r} to have labels: in class folders, in .cls "
            f"members beside them, or under {label_column!r} in .json members{under}."
        )
    return result


def _folders_of(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/"))
    return tuple(part for part in path.parts[:-1] if part not in (".", "/"))
