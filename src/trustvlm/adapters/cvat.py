"""Tags of images in CVAT's own XML, `CVAT for images 1.1`.

Format: https://docs.cvat.ai/docs/other/xml_format, and /docs/manual/advanced/formats/format-cvat.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

from trustvlm.adapters.annotations import (
    MAX_BYTES,
    Annotation,
    classes_to_choose,
    image_size,
    to_review,
    write_json,
    xml_text,
)
from trustvlm.exceptions import InputError
from trustvlm.files import write_text
from trustvlm.images.references import shown
from trustvlm.pipeline.verdict import Verdict

PREDICTED = "auto"
"""The source of a tag that a model set; CVAT calls those of people `manual`."""

# Of tags that came from a file and were not touched since.
_UNTOUCHED = frozenset({PREDICTED, "file"})

_DEPTH = 20


def write_cvat(
    verdicts: Iterable[Verdict],
    file: str | os.PathLike[str],
    *,
    only: str | None = None,
    classes: Sequence[str] | None = None,
    images: str | os.PathLike[str] = ".",
) -> tuple[Path, Path]:
    """Write annotations to upload to a task, and the labels to make the task with.

    One tag an image, its source `auto`. Images are ordered by name, as CVAT orders frames.

    Parameters
    ----------
    verdicts
        What `predict` or `verify` returned.
    file
        A name that ends in `.xml`; the labels go into `.labels.json` of the same name.
    only
        `review` or `accept`: leave other images out.
    classes
        To choose from; by default those that the verdicts name.
    images
        The folder that the verdicts' paths are relative to, for widths and heights; these are left
        out where an image cannot be read there.

    Returns
    -------
    tuple of Path
        Annotations and labels.

    Raises
    ------
    InputError
        If no image is left, or a name has control characters.
    """
    rows = list(verdicts)
    names = classes_to_choose(classes, rows)
    text = io.StringIO()
    xml = XMLGenerator(text, "utf-8", short_empty_elements=True)

    def element(tag: str, content: str | None = None, **attributes: object) -> None:
        texts = {key: xml_text(str(value)) for key, value in attributes.items()}
        xml.startElement(tag, AttributesImpl(texts))
        if content is not None:
            xml.characters(xml_text(content))
            xml.endElement(tag)

    offered = frozenset(names)
    chosen = sorted(to_review(rows, only), key=lambda row: row.path)
    xml.startDocument()
    element("annotations")
    element("version", "1.1")
    for name in ("meta", "task"):
        element(name)
    element("size", str(len(chosen)))
    element("mode", "annotation")
    element("labels")
    for name in names:
        element("label")
        element("name", name)
        element("type", "tag")
        element("attributes", "")
        xml.endElement("label")
    for name in ("labels", "task", "meta"):
        xml.endElement(name)
    for number, row in enumerate(chosen):
        xml.ignorableWhitespace("\n")
        size = image_size(row.path, Path(images))
        sides = {} if size is None else {"width": size[0], "height": size[1]}
        element("image", None, id=number, name=row.path, **sides)
        if row.label in offered:
            element("tag", "", label=row.label, source=PREDICTED)
        xml.endElement("image")
    xml.endElement("annotations")
    target = Path(file)
    labels = target.with_suffix(".labels.json")
    write_json(labels, [{"name": name, "type": "tag", "attributes": []} for name in names])
    write_text(target, text.getvalue() + "\n")
    return target, labels


def read_cvat(content: bytes, name: str) -> list[Annotation]:
    """Read the tags of images from annotations, as XML or as the zip file that CVAT exports.

    What else is drawn on an image is passed over. The XML is read by its events, without a document
    type, so that no entity can be declared, and within bounds.

    Raises
    ------
    InputError
        If it is no such file.
    """
    if content.startswith(b"PK"):
        content = _unzipped(content, name)
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError) as error:
        raise InputError(f"Expected {name!r} to be annotations of CVAT, but got: {error}.") from (
            error
        )
    return reader.annotations


class _Reader:
    """Collects the images and their tags while a parser goes through the XML."""

    def __init__(self) -> None:
        self.annotations: list[Annotation] = []
        self._above: list[str] = []
        self._image = ""
        self._tags: list[Mapping[str, str]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._above and name != "annotations":
            raise ValueError(f"the first element is {name!r}, not 'annotations'")
        self._above.append(name)
        if len(self._above) > _DEPTH:
            raise ValueError(f"elements lie more than {_DEPTH} deep in each other")
        if name == "track":
            raise ValueError("it is of a video; export `CVAT for images 1.1`")
        if self._above == ["annotations", "image"]:
            self._image, self._tags = attributes.get("name", ""), []
            if not self._image:
                raise ValueError("an image has no name")
        elif self._above == ["annotations", "image", "tag"]:
            if not attributes.get("label"):
                raise ValueError(f"a tag of {shown(self._image)!r} has no label")
            self._tags.append(attributes)

    def end(self, _: str) -> None:
        if self._above == ["annotations", "image"]:
            by_people = [tag for tag in self._tags if tag.get("source") not in _UNTOUCHED]
            others = [tag["label"] for tag in self._tags if tag.get("source") in _UNTOUCHED]
            predicted = others[0] if others else ""
            # A person who adds a tag and leaves the predicted one means the new one.
            tags = by_people or self._tags
            labels = tuple(dict.fromkeys(tag["label"] for tag in tags))
            self.annotations.append(
                Annotation(self._image, labels, predicted=predicted, unchanged=not by_people)
            )
        self._above.pop()

    def refuse(self, *_: Any) -> None:
        raise ValueError("it declares a document type, which CVAT does not")


def _unzipped(content: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [
                member
                for member in archive.infolist()
                if Path(member.filename).name == "annotations.xml"
            ]
            if len(members) != 1:
                raise ValueError(f"it holds {len(members)} files called annotations.xml, not one")
            with archive.open(members[0]) as stream:
                unpacked = stream.read(MAX_BYTES + 1)
    except (
        zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError,
        zlib.error,
    ) as error:  # fmt: skip
        raise InputError(f"Expected {name!r} to be an export of CVAT, but got: {error}.") from error
    if len(unpacked) > MAX_BYTES:
        raise InputError(f"Expected {name!r} to hold at most {MAX_BYTES:,} bytes, but it has more.")
    return unpacked
