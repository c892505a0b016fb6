"""From images to records: each image with its class, its content and its two embeddings."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm import embeddings, models
from trustvlm.embeddings import Chunk, EmbeddingStore, Profile, Progress
from trustvlm.exceptions import ImageError, InputError, LeakError
from trustvlm.images import (
    DEFAULT_LIMITS,
    ClassList,
    Columns,
    ImageSource,
    LabelledImage,
    LabelledSource,
    Limits,
    find_labelled,
    read_classes,
)
from trustvlm.images.classes import normal_form
from trustvlm.images.locations import Location
from trustvlm.images.references import shown
from trustvlm.models.base import ImageEncoder, VisionLanguageModel
from trustvlm.models.prompts import class_embeddings
from trustvlm.monitoring.ood import OtherClasses
from trustvlm.risk_control.groups import group_names, one_per_group
from trustvlm.text import printable

# The two encoders that look at every image, as the protocol wants them.

PROTOCOLS = ("clean", "paper")


@dataclass(frozen=True)
class Encoders:
    """The VLM that predicts and the vision encoder that verifies, and how they were loaded."""

    vlm: VisionLanguageModel
    vision: ImageEncoder
    protocol: str = "clean"
    device: str = "auto"
    precision: str = "float32"
    draft: bool = False

    @classmethod
    def load(
        cls,
        vlm: str | VisionLanguageModel,
        vision: str | ImageEncoder,
        *,
        protocol: str = "clean",
        device: str = "auto",
        precision: str = "float32",
        draft: bool = False,
    ) -> Encoders:
        """Load both encoders by name, or take them as they are.

        `protocol="clean"` gives each encoder its own preprocessing. `protocol="paper"` does what
        the released script did: the vision encoder receives the VLM's pixels, normalised with the
        VLM's mean and standard deviation, and SigLIP's logit scale is 100. Crops are placed as
        torchvision places them, which the script is taken to use. Images are not turned upright,
        nor composited over white. `draft=True` lets both decode large JPEGs at a reduced size.

        Raises
        ------
        InputError
            For an unknown protocol or model name.
        ModelUnavailableError, MissingExtraError
            If a model cannot be had here.
        """
        # Of both, before one of them is loaded, which may take minutes.
        check_encoders(vlm, vision, protocol)
        settings = {"device": device, "precision": precision}
        loaded = models.load_vlm(vlm, **settings) if isinstance(vlm, str) else vlm
        verifier = (
            models.load_vision(vision, vlm=loaded, **settings)
            if isinstance(vision, str)
            else vision
        )
        same = verifier is loaded
        if protocol == "paper" or draft:  # encoders that were passed stay as they are
            loaded, verifier = copy.copy(loaded), copy.copy(verifier)
        if protocol == "paper":
            if loaded.preprocessing.patches and not same:
                raise InputError(
                    "The protocol `paper` gives the vision encoder the VLM's pixels, but those of "
                    f"{loaded.identity.spec} are of no fixed size: use `clean`."
                )
            loaded.preprocessing = replace(loaded.preprocessing, rounding="even", plain_rgb=True)
            verifier.preprocessing = loaded.preprocessing
            if loaded.identity.settings.get("family") == "siglip":
                loaded.logit_scale = 100.0
        if draft:
            for encoder in (loaded, verifier):
                encoder.preprocessing = replace(encoder.preprocessing, draft=True)
        return cls(loaded, verifier, protocol, device, precision, draft)

    def notes(self) -> list[str]:
        """Warnings to show wherever the models are named."""
        return list(dict.fromkeys(e.note for e in (self.vlm, self.vision) if e.note))


def check_encoders(
    vlm: str | VisionLanguageModel, vision: str | ImageEncoder, protocol: str = "clean"
) -> None:
    """Say at once what is wrong with the names of encoders, and with the protocol.

    Raises
    ------
    InputError, ModelUnavailableError
        As `models.check_name`.

    Examples
    --------
    >>> check_encoders("offline", "same")
    >>> check_encoders("offline", "same", "strict")
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: Expected `protocol` to be clean or paper, but got 'strict'.
    """
    if protocol not in PROTOCOLS:
        raise InputError(
            f"Expected `protocol` to be {' or '.join(PROTOCOLS)}, but got {protocol!r}."
        )
    for named, role in ((vlm, "vlm"), (vision, "vision")):
        if isinstance(named, str):
            models.check_name(named, role)


def describe(encoder: ImageEncoder) -> dict[str, Any]:
    """Return what an artefact stores about an encoder, as plain JSON values."""
    return {
        **encoder.identity.to_dict(),
        "preprocessing": encoder.preprocessing.to_dict(),
        "fingerprint": encoder.identity.fingerprint(encoder.preprocessing),
        "note": encoder.note,
    }


@dataclass(frozen=True)
class Embedder:
    """Both encoders, the store of their embeddings, and how images are read; see `TrustVLM`."""

    encoders: Encoders
    store: EmbeddingStore
    batch_size: int = 32
    workers: int | None = None
    limits: Limits = DEFAULT_LIMITS

    def embed_classes(self, names: Sequence[str], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit row per class name, `(C, e)`, each text encoded once and stored."""
        vlm = self.encoders.vlm
        if not vlm.dim:
            raise InputError(
                "Expected a vision-language model, which the names of classes are for, but got "
                "none: without one labels from elsewhere can be judged, by `fit` and `verify`."
            )
        return class_embeddings(
            vlm,
            names,
            prompts,
            encode=lambda texts: embeddings.encode_texts(vlm, texts, self.store),
        )

    def embed_others(
        self, names: Sequence[str], prompts: Sequence[str], classes: ClassList
    ) -> OtherClasses | None:
        """Embed what images of none of the classes may show; None for no names.

        Raises
        ------
        InputError
            If a name is empty, repeats, or is one of the classes.
        """
        if isinstance(names, str):
            names = [names]
        if not names:
            return None
        others = read_classes([name.strip() for name in names]).names
        own = {normal_form(name) for name in (*classes.names, *classes.folders)}
        both = [name for name in others if normal_form(name) in own]
        if both:
            raise InputError(
                f"Expected other classes to be none of the classes, but {both[0]!r} is one."
            )
        vectors = self.embed_classes(others, prompts)
        return OtherClasses(others, vectors, float(self.encoders.vlm.logit_scale))


ClassSource: TypeAlias = Sequence[str] | Mapping[str, str] | str | os.PathLike[str]
PromptSource: TypeAlias = str | Sequence[str] | os.PathLike[str]


def texts_of(classes: ClassList, texts: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return what prompts say of each class, if some have a text of their own; else nothing.

    Parameters
    ----------
    classes
        C classes.
    texts
        Texts of some of them, by folder or name.

    Raises
    ------
    InputError
        If there is no such class, or a text is empty.

    Examples
    --------
    >>> texts_of(ClassList(("cat", "dog")), {"dog": "guide dog"}), texts_of(ClassList(("cat",)), {})
    (('cat', 'guide dog'), ())
    """
    own = dict(texts or {})
    said = list(classes.names)
    for index, text in zip(classes.indices(own), own.values(), strict=True):
        if not text.strip():
            raise InputError(
                f"Expected a text of the class {classes.labels[index]!r}, but got none."
            )
        said[index] = text.strip()
    return tuple(said) if tuple(said) != classes.names else ()


# Labelled images, before any of them is opened.

S = TypeVar("S", bound=ImageSource)


@dataclass(frozen=True)
class ListedImages(Generic[S]):
    """n images, and the `(n,)` int64 indices of their classes; -1 where there is no label."""

    refs: Sequence[S]
    labels: NDArray[np.int64]

    def select(self, rows: NDArray[Any]) -> ListedImages[S]:
        """Return the images at some positions, or those where a `(n,)` mask is True."""
        chosen = np.arange(len(self.refs))[rows]
        return ListedImages([self.refs[i] for i in chosen], self.labels[chosen])


def list_labelled(
    source: LabelledSource,
    classes: ClassList,
    *,
    limits: Limits = DEFAULT_LIMITS,
    groups: Sequence[str] | None = None,
    **columns: Unpack[Columns],
) -> ListedImages[LabelledImage]:
    """List labelled images of given classes: a folder, a table, or `(paths, labels)`.

    Of images with groups, one of each is listed, drawn at random: see `one_per_group`.

    Parameters
    ----------
    source, limits, **columns
        As in `find_labelled`.
    classes
        What labels mean.
    groups
        Of each image, in the order of the source; only where no column says them.

    Raises
    ------
    InputError
        If the source does not exist or holds no images, or labels are not among the classes, or
        groups differ in number from images, or both groups and a column of them are given.
    """
    column = columns.get("group_column")
    listing = find_labelled(source, limits=limits, **columns)
    refs = in_groups(listing.refs, groups, column)
    listed = ListedImages(refs, classes.indices(listing.labels))
    if groups is None and column is None:
        return listed
    return listed.select(one_per_group([ref.group for ref in refs], [ref.path for ref in refs]))


def in_groups(
    images: Sequence[LabelledImage], groups: Sequence[Hashable] | None, column: str | None
) -> Sequence[LabelledImage]:
    """Return images in the groups that are given beside them, or as they are if none are.

    Raises
    ------
    InputError
        As `group_names`, or if there is also a column of groups.
    """
    if groups is None:
        return images
    if column is not None:
        raise InputError(f"Expected groups, or the column {column!r} that says them, but got both.")
    names = group_names(groups, len(images))
    return [replace(image, group=name) for image, name in zip(images, names, strict=True)]


def name_of(labelled: LabelledSource) -> str:
    """Name a labelled input by its folder or file; a bare split name says too little alone.

    Examples
    --------
    >>> name_of("pets/test"), name_of("photos.csv"), name_of(([], []))
    ('pets/test', 'photos', 'labelled')
    """
    if not isinstance(labelled, (str, os.PathLike)):
        return "labelled"
    path = Path(shown(Location.of(labelled).text).partition("?")[0]).resolve()
    name = path.name if path.is_dir() else path.stem
    return f"{path.parent.name}/{name}" if name in ("train", "val", "valid", "test") else name


# Encoded images: whatever is needed of some of them is selected, so that all stays aligned.


@dataclass(frozen=True)
class EncodedImages(Generic[S]):
    """Records of n images, in input order.

    Attributes
    ----------
    refs
        What was read.
    labels
        `(n,)` int64 indices of the true classes; -1 where there is no label.
    hashes
        SHA-256 of each image's bytes; "" where there were none to read.
    errors
        Why an image has no embeddings; None where it has.
    image_embeddings, features
        `(n, e)` of the VLM and `(n, d)` of the vision encoder, float32, not L2-normalised; NaN
        where there is an error.
    """

    refs: Sequence[S]
    labels: NDArray[np.int64]
    hashes: Sequence[str]
    errors: Sequence[ImageError | None]
    image_embeddings: NDArray[np.float32]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def paths(self) -> list[str]:
        """The name of each image."""
        return [ref.path for ref in self.refs]

    @property
    def is_readable(self) -> NDArray[np.bool_]:
        """`(n,)` bool, True where there is no error."""
        return np.array([error is None for error in self.errors], dtype=bool)

    def readable(self) -> EncodedImages[S]:
        """Return the images that have embeddings."""
        return self.select(self.is_readable)

    def select(self, rows: NDArray[Any]) -> EncodedImages[S]:
        """Return the images at some positions, or those where a `(n,)` mask is True."""
        chosen = np.arange(len(self))[rows]
        return EncodedImages(
            refs=[self.refs[i] for i in chosen],
            labels=self.labels[chosen],
            hashes=[self.hashes[i] for i in chosen],
            errors=[self.errors[i] for i in chosen],
            image_embeddings=self.image_embeddings[chosen],
            features=self.features[chosen],
        )

    def contents(self) -> tuple[dict[str, str], ...]:
        """Return `path` and `sha256` of each image, as an artefact lists them."""
        pairs = zip(self.refs, self.hashes, strict=True)
        return tuple({"path": ref.path, "sha256": digest} for ref, digest in pairs)

    @property
    def is_first(self) -> NDArray[np.bool_]:
        """`(n,)` bool, False where the same content stands before."""
        first = np.zeros(len(self), dtype=bool)
        first[np.unique(np.asarray(self.hashes), return_index=True)[1]] = True
        return first


def encode_images(
    images: ListedImages[S] | Iterable[S],
    embedder: Embedder,
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> EncodedImages[S]:
    """Encode images, labelled or not, all at once; memory grows with their number."""
    labels = None
    if isinstance(images, ListedImages):
        labels, images = images.labels, images.refs
    chunk = embeddings.encode_all(images, **_options(embedder), progress=progress, profile=profile)
    return _records(chunk, labels)


def encode_in_chunks(
    images: Iterable[S],
    embedder: Embedder,
    progress: Progress | None = None,
    profile: Profile | None = None,
) -> Iterator[EncodedImages[S]]:
    """Yield any number of images without labels in fixed chunks, in input order."""
    chunks = embeddings.encode_images(
        images, **_options(embedder), progress=progress, profile=profile
    )
    return map(_records, chunks)


def _options(embedder: Embedder) -> dict[str, Any]:
    encoders = {"vlm": embedder.encoders.vlm, "vision": embedder.encoders.vision}
    return {
        "encoders": {role: encoder for role, encoder in encoders.items() if encoder.dim},
        "store": embedder.store,
        "batch_size": embedder.batch_size,
        "workers": embedder.workers,
        "limits": embedder.limits,
    }


def _records(chunk: Chunk[S], labels: NDArray[np.int64] | None = None) -> EncodedImages[S]:
    return EncodedImages(
        refs=chunk.refs,
        labels=np.full(len(chunk), -1) if labels is None else labels,
        hashes=chunk.hashes,
        errors=chunk.errors,
        image_embeddings=chunk.embeddings.get("vlm", np.empty((len(chunk), 0), np.float32)),
        features=chunk.embeddings["vision"],
    )


def exclude_leaked(
    images: EncodedImages[S],
    used: Mapping[str, Collection[str]],
    *,
    purpose: str,
    exclude: bool = False,
) -> tuple[EncodedImages[S], tuple[str, ...]]:
    """Leave out images that something was learned from before, by content.

    Parameters
    ----------
    images
        k readable images.
    used
        SHA-256 of the images that were learned from, by the words for them.
    purpose
        What would be wrong with such images, and what to do: the end of the error's message.
    exclude
        Whether they are left out; else they are an error.

    Returns
    -------
    images
        Those that are new.
    leaked
        Paths of the others.

    Raises
    ------
    LeakError
        If there are others and `exclude` is False.
    """
    roles = [role for role, hashes in used.items() if not set(hashes).isdisjoint(images.hashes)]
    learned_from = set().union(*used.values())
    new = np.array([digest not in learned_from for digest in images.hashes], dtype=bool)
    leaked = tuple(images.select(~new).paths)
    if leaked and not exclude:
        first = ", ".join(map(printable, leaked[:3]))
        raise LeakError(
            f"{len(leaked)} of {len(images)} images are also among {' and '.join(roles)}, by "
            f"content ({first}{', ...' if len(leaked) > 3 else ''}): {purpose}."
        )
    return images.select(new), leaked


OR_EXCLUDE = "or leave these out with --exclude-shots (exclude_shots=True)"
"""How a purpose ends where `exclude` is for the user to choose."""
