"""Images in: finding them, reading them, decoding them, and saying what is wrong with them."""

from trustvlm.images.classes import ClassList, classes_of, read_classes
from trustvlm.images.decoding import decode
from trustvlm.images.errors import DEFAULT_LIMITS, KINDS, Limits
from trustvlm.images.formats import IMAGE_EXTENSIONS
from trustvlm.images.inputs import (
    Columns,
    LabelledSource,
    Source,
    find_images,
    image_shards,
    open_images,
)
from trustvlm.images.label_tables import find_labellers, find_most_probable
from trustvlm.images.labelled import find_labelled
from trustvlm.images.references import (
    ImageList,
    ImageRef,
    ImageShard,
    ImageSource,
    InMemoryImage,
    LabelledImage,
    LabelledImages,
    content_hash,
    read_bytes,
)

__all__ = [
    "DEFAULT_LIMITS",
    "IMAGE_EXTENSIONS",
    "KINDS",
    "ClassList",
    "Columns",
    "ImageList",
    "ImageRef",
    "ImageShard",
    "ImageSource",
    "InMemoryImage",
    "LabelledImage",
    "LabelledImages",
    "LabelledSource",
    "Limits",
    "Source",
    "classes_of",
    "content_hash",
    "decode",
    "find_images",
    "find_labelled",
    "find_labellers",
    "find_most_probable",
    "image_shards",
    "open_images",
    "read_bytes",
    "read_classes",
]
