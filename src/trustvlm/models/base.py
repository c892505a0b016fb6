"""What every encoder offers to the rest of the house, whatever library runs it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.exceptions import InputError

# How an image becomes the tensor that an encoder reads; it travels with the encoder.

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Beyond these only the crop is resized, since a strip of 10 x 100000 pixels would grow to half a
# gigapixel.
_MOST_PIXELS = 16_000_000
_DRAFT_STEP = 256

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ROUNDINGS = ("down", "even")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation of an image encoder.

    Parameters
    ----------
    size
        `(height, width)` in pixels of what the encoder reads.
    resize
        Length in pixels of the shorter side before the centre crop; None squashes the whole
        image to `size`, ignoring its aspect ratio (as SigLIP does).
    interpolation
        `nearest`, `bilinear`, `bicubic` or `lanczos`, as Pillow computes them.
    mean, std
        Per channel, for pixel values scaled to [0, 1].
    rounding
        Where the centre crop begins if the margins cannot be equal: `down` makes the first one
        the smaller, as transformers does; `even` rounds half to even, as torchvision does.
    draft
        Whether decoding may leave out detail that the resize would average away; see `enough`.
    plain_rgb
        Whether images are neither turned upright nor composited over white, as `images.decode` has
        it.
    rounded
        Whether pixel values are whole numbers after the resize, as Pillow and torchvision leave
        them. transformers' DINOv3 resizes fractions: then `pixels` are float32, from 0 to 255.
        Only for images that are squashed.
    patch, patches
        Side of a patch in pixels and the most patches of an image, for NaFlex models, which read
        every image in about its own aspect ratio; 0 for others. `pixels` then has a row for each
        patch, and one more for their grid: `size` is `(patches + 1, patch * patch)`.

    Raises
    ------
    InputError
        If a setting is not of this kind.

    Examples
    --------
    >>> clip = Preprocessing(size=(224, 224), resize=224)
    >>> clip.pixels(Image.new("RGB", (640, 480))).shape
    (224, 224, 3)
    """

    size: tuple[int, int] = (224, 224)
    resize: int | None = 224
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    rounding: str = "down"
    draft: bool = False
    plain_rgb: bool = False
    rounded: bool = True
    patch: int = 0
    patches: int = 0

    def __post_init__(self) -> None:
        for name, names in (("interpolation", _FILTERS), ("rounding", _ROUNDINGS)):
            if getattr(self, name) not in names:
                raise InputError(
                    f"Expected `{name}` to be one of {', '.join(names)}, "
                    f"but got {getattr(self, name)!r}."
                )
        lengths = (*self.size, *(() if self.resize is None else (self.resize,)))
        if len(self.size) != 2 or min(lengths) < 1:
            raise InputError(
                "Expected `size` to be a height and a width and `resize` None or a length, of at "
                f"least one pixel each, but got {self.size} and {self.resize}."
            )
        if self.patches and (self.size, self.resize) != (
            (self.patches + 1, self.patch * self.patch),
            None,
        ):
            raise InputError(
                f"Expected `size` to be {(self.patches + 1, self.patch * self.patch)} and `resize` "
                f"None for {self.patches} patches, but got {self.size} and {self.resize}."
            )
        if not self.rounded and self.resize is not None:
            raise InputError("Expected `rounded` to be true with a centre crop, but got false.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(
                "Expected `mean` and `std` to have a value per colour, those of `std` above zero, "
                f"but got {self.mean} and {self.std}."
            )

    @property
    def enough(self) -> int | None:
        """Pixels of the shorter side that decoding must leave; None for all of them.

        Twice what the resize keeps, in steps of 256, so that encoders of about the same size can
        share one decoded image.

        Examples
        --------
        >>> Preprocessing(resize=256, draft=True).enough
        512
        """
        if not self.draft:
            return None
        return -(-2 * (self.resize or max(self.size)) // _DRAFT_STEP) * _DRAFT_STEP

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of `pixels`: uint8, or float32 where they are not rounded.

        Examples
        --------
        >>> Preprocessing(resize=None, rounded=False).dtype
        dtype('float32')
        """
        return np.dtype(np.uint8 if self.rounded else np.float32)

    def pixels(self, image: Image.Image) -> NDArray[Any]:
        """Resize and crop an RGB image to `(height, width, 3)` of `dtype`, not yet normalised."""
        filter_ = _FILTERS[self.interpolation]
        height, width = self.size
        if self.patches:
            return self._packed(image)
        if not self.rounded:
            channels = (channel.convert("F") for channel in image.split())
            fractions = [channel.resize((width, height), filter_) for channel in channels]
            return np.stack([np.asarray(channel) for channel in fractions], axis=-1)
        if self.resize is None:
            return np.asarray(image.resize((width, height), filter_), dtype=np.uint8)
        short = min(image.size)
        full = (
            int(self.resize * image.size[0] / short),
            int(self.resize * image.size[1] / short),
        )
        left, top = self._margin(full[0] - width), self._margin(full[1] - height)
        if full[0] * full[1] > _MOST_PIXELS:
            window = (
                *(max(left, 0), max(top, 0)),
                *(min(left + width, full[0]), min(top + height, full[1])),
            )
            resized = _resize_window(image, full, window, filter_)
            left, top = left - window[0], top - window[1]
        else:
            resized = image.resize(full, filter_)
        # Pillow's crop pads with black where the crop is larger than the resized image.
        cropped = resized.crop((left, top, left + width, top + height))
        return np.asarray(cropped, dtype=np.uint8)

    def _packed(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the patches of the resized image row by row, and their grid in the last row."""
        rows, columns = _grid(image.height, image.width, self.patch, self.patches)
        shape = (rows, self.patch, columns, self.patch, 3)
        resized = image.resize(
            (columns * self.patch, rows * self.patch), _FILTERS[self.interpolation]
        )
        patches = np.asarray(resized, dtype=np.uint8).reshape(shape).swapaxes(1, 2)
        packed = np.zeros((*self.size, 3), dtype=np.uint8)
        packed[: rows * columns] = patches.reshape(rows * columns, -1, 3)
        packed[-1, :2, :2] = [divmod(rows, 256), divmod(columns, 256)]
        return packed

    def _margin(self, spare: int) -> int:
        if self.rounding == "down":
            return spare // 2
        return round(spare / 2) if spare > 0 else -(-spare // 2)  # So torchvision pads.

    def normalise(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Turn `(n, height, width, 3)` pixels into `(n, 3, height, width)` normalised float32."""
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        # Whole channels, in place: eight times faster than colour by colour.
        values = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
        values /= np.float32(255.0)
        values -= mean
        values /= std
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        settings = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        # Left out where it changes nothing, so that fingerprints from before it stay valid.
        for name in ("draft", "plain_rgb"):
            if not settings[name]:
                del settings[name]
        if settings["rounded"]:
            del settings["rounded"]
        if not settings["patches"]:
            del settings["patch"], settings["patches"]
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """Rebuild from `to_dict`."""
        return cls(
            size=(int(settings["size"][0]), int(settings["size"][1])),
            resize=settings["resize"],
            interpolation=settings["interpolation"],
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            rounding=settings["rounding"],
            draft=settings.get("draft", False),
            plain_rgb=settings.get("plain_rgb", False),
            rounded=settings.get("rounded", True),
            patch=settings.get("patch", 0),
            patches=settings.get("patches", 0),
        )


def _grid(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Rows and columns of patches that an image becomes, `most` at most, its aspect kept.

    By bisection over the scale, as SigLIP 2's authors do it, to the same last digit.
    """

    def grid(scale: float) -> tuple[int, int]:
        sides = (math.ceil(side * scale / patch) for side in (height, width))
        rows, columns = (max(side, 1) for side in sides)
        return rows, columns

    tolerance = 1e-5
    low, high = tolerance / 10, 100.0
    while high - low >= tolerance:
        middle = (low + high) / 2
        if math.prod(grid(middle)) <= most:
            low = middle
        else:
            high = middle
    return grid(low)


def _resize_window(
    image: Image.Image,
    full: tuple[int, int],
    window: tuple[int, int, int, int],
    filter_: Image.Resampling,
) -> Image.Image:
    """Return `image.resize(full, filter_).crop(window)`, of which only the window is made."""
    scale = image.width / full[0], image.height / full[1]
    shown = [edge * scale[i % 2] for i, edge in enumerate(window)]
    reach = math.ceil(3 * max(*scale, 1)) + 1  # No filter needs more beyond the window.
    left, top = (max(math.floor(edge) - reach, 0) for edge in shown[:2])
    right = min(math.ceil(shown[2]) + reach, image.width)
    bottom = min(math.ceil(shown[3]) + reach, image.height)
    part = image.crop((left, top, right, bottom))
    x, end_x = shown[0] - left, min(shown[2] - left, part.width)
    y, end_y = shown[1] - top, min(shown[3] - top, part.height)
    width, height = window[2] - window[0], window[3] - window[1]
    # Pillow resizes along one side, rounds, then along the other; a tall image that shrinks, from
    # version 13 on, along its height first.
    if image.width < image.height > full[1]:
        part = part.resize((part.width, height), filter_, (0, y, part.width, end_y))
        return part.resize((width, height), filter_, (x, 0, end_x, height))
    part = part.resize((width, part.height), filter_, (x, 0, end_x, part.height))
    return part.resize((width, height), filter_, (0, y, width, end_y))


# Which weights an encoder has, and what it offers.


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights compute an embedding, exactly: all that can change a number.

    Parameters
    ----------
    spec
        What the user named: a preset (`clip-vit-b16`) or `hf:...`, `onnx:...` and so on.
    source
        Repository id, directory or file that the weights came from.
    revision
        Commit of the hub repository, version of the package, or "" where there is none.
    weights
        SHA-256 of the weights, in hex.
    settings
        Whatever else changes the numbers: pooling, precision, a fixed logit scale, ...
    code
        What tells versions of an encoder from outside the package apart, a SHA-256 of its file;
        filled in when it is loaded, "" for the encoders of this package.
    """

    spec: str
    source: str
    revision: str
    weights: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    def fingerprint(self, preprocessing: Preprocessing) -> str:
        """Return a SHA-256 in hex over weights, settings and preprocessing.

        What only names them is left out, `spec`, `source` and `revision`: the same weights in
        another folder, or in a repository whose description was edited, give the same embeddings.
        """
        content = {
            "weights": self.weights,
            "settings": dict(self.settings),
            "preprocessing": preprocessing.to_dict(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def storage_key(self, preprocessing: Preprocessing) -> str:
        """Return the fingerprint under which embeddings are stored.

        It holds the `code` too: an encoder from outside the package may compute other numbers of
        the same weights after its file was changed, while a model that was fitted with the former
        version can still be loaded, with a warning.
        """
        fingerprint = self.fingerprint(preprocessing)
        if not self.code:
            return fingerprint
        return hashlib.sha256(f"{fingerprint} {self.code}".encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the identity as plain JSON values, without the code, which artefacts name."""
        values = {**asdict(self), "settings": dict(self.settings)}
        del values["code"]
        return values


@runtime_checkable
class ImageEncoder(Protocol):
    """Images in, feature vectors out.

    Attributes
    ----------
    identity
        Which weights these are.
    preprocessing
        How an image becomes pixels. The paper's protocol replaces the vision encoder's by the
        VLM's, hence it is a plain attribute that may be assigned.
    dim
        Length of a feature vector.
    note
        One sentence of warning to show wherever the model is named; "" for none.
    """

    identity: ModelIdentity
    preprocessing: Preprocessing
    dim: int
    note: str

    def encode_pixels(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` RGB of `preprocessing`'s size and dtype to `(n, dim)`.

        Normalisation (mean, std) happens inside. The vectors are not L2-normalised.
        """
        ...


@runtime_checkable
class VisionLanguageModel(ImageEncoder, Protocol):
    """An image encoder with a text encoder in the same space.

    Attributes
    ----------
    logit_scale
        Factor s of z = s * cos(image, text).
    prompt
        The default template, with `{}` for the class name.
    """

    logit_scale: float
    prompt: str

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, dim)`, not L2-normalised."""
        ...


NO_VLM = "none"
"""The name of no model, where labels from elsewhere are judged by examples alone."""


@dataclass
class NoVLM:
    """Stands for a vision-language model where there is none: its vectors have no dimensions.

    Examples
    --------
    >>> NoVLM().encode_texts(["a cat", "a dog"]).shape
    (2, 0)
    """

    identity: ModelIdentity = field(
        default_factory=lambda: ModelIdentity(NO_VLM, NO_VLM, revision="", weights="")
    )
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    dim: int = 0
    note: str = ""
    logit_scale: float = 1.0
    prompt: str = "{}"

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(n, 0)`."""
        return np.empty((len(pixels), 0), dtype=np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return `(m, 0)`."""
        return np.empty((len(texts), 0), dtype=np.float32)


# Check what callers hand to an encoder.


def check_pixels(pixels: NDArray[Any], dtype: Any = np.uint8) -> None:
    """Refuse what is not `(n, height, width, 3)` of a dtype, that of the preprocessing.

    Raises
    ------
    InputError
        For another type or shape.

    Examples
    --------
    >>> check_pixels(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    """
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != dtype
        or pixels.ndim != 4
        or pixels.shape[3] != 3
    ):
        shape = getattr(pixels, "shape", None)
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise InputError(
            f"Expected `pixels` to be {np.dtype(dtype)} of shape (n, height, width, 3), "
            f"but got {kind} of shape {shape}."
        )


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list; refuse one string instead of several.

    Raises
    ------
    InputError
        If `texts` is one string, or holds something else than strings.

    Examples
    --------
    >>> check_texts(("a cat", "a dog"))
    ['a cat', 'a dog']
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"Expected `texts` to be a sequence of strings, but got {texts!r}.")
    return list(texts)
