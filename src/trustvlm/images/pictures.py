"""Pictures that a program holds: PIL images, arrays, tensors, bytes, open files.

What a type and a shape say is wrong is an error of the program, `InputError`, with the position of
the picture. What only reading tells is an error of that picture, as with files.

A decoded picture has the hash of its pixels: an array, a tensor and a loaded PIL image of the same
colours are one content in the store. A PIL image that was opened and not decoded yet, bytes and
open files have that of the file. So files and decoded pictures are not seen to be the same content.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from trustvlm.cells import is_missing
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images.decoding import check_sides, exif_orientation, quiet_pillow, to_rgb
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, describe_exception, refusal
from trustvlm.images.locations import RemoteImage, image_at
from trustvlm.images.references import (
    ImageRef,
    ImageSource,
    InMemoryImage,
    LabelledImage,
    UnreadableImage,
    check_size,
    read_error,
    shown,
)


class ReadableFile(Protocol):
    """A file that was opened for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        ...


class Tensor(Protocol):
    """A tensor of torch, on any device: `(C, H, W)` or `(H, W)`, uint8, or float in [0, 1]."""

    def detach(self) -> Any:
        """Return it without gradients."""
        ...


Picture: TypeAlias = (
    Image.Image
    | NDArray[np.uint8]
    | Tensor
    | bytes
    | bytearray
    | memoryview
    | ReadableFile
    | ImageSource
)

Item: TypeAlias = str | ImageSource
"""What a source holds: a path or URL, which may be that of a folder, or one picture."""

_SOURCES = (ImageRef, InMemoryImage, LabelledImage, RemoteImage, UnreadableImage)
# How many bands a picture may have.
_BANDS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class HeldPicture:
    """One picture that a program holds; it is encoded, without loss, when it is read.

    Parameters
    ----------
    path
        The name to show.
    value
        A PIL image, an array or tensor that `picture_at` has checked, or an open file.
    lock
        Held while it is read: one picture may stand in a list twice.
    """

    path: str
    value: Any = field(repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the file's bytes, or the pixels as a file, or raise `ImageError`."""
        with self.lock:
            try:
                if isinstance(self.value, Image.Image):
                    return _encode_image(self.value, self.path, limits)
                if hasattr(self.value, "read"):
                    return _read_file(self.value, self.path, limits)
                return _encode_image(Image.fromarray(self._array()), self.path, limits)
            except (ImageError, MemoryError):
                raise
            except Exception as error:  # Pillow's plugins raise nearly everything
                what = f"it cannot be read ({describe_exception(error)})"
                remedy = "Keep the file open that it comes from, or load it before"
                raise refusal("damaged", self.path, what, remedy) from error

    def _array(self) -> NDArray[np.uint8]:
        """Return `(H, W)` or `(H, W, C)` uint8."""
        if isinstance(self.value, np.ndarray):
            array = self.value
        else:
            tensor = self.value.detach()
            if tensor.is_floating_point():
                tensor = _eight_bits(tensor, self.path)
            array = tensor.cpu().numpy()
            array = array if array.ndim == 2 else array.transpose(1, 2, 0)
        array = array[..., 0] if array.shape[2:] == (1,) else array
        if not array.size:
            raise refusal("empty", self.path, "it has no pixels", "Leave it out")
        return np.ascontiguousarray(array)


def picture_at(position: int, value: Any, name: str = "") -> ImageSource:
    """Return a picture that a program holds, or say what is wrong with it.

    Parameters
    ----------
    position
        Where it stands in its source; it is called after it if it has no name.
    value
        One of `Picture`; `{"bytes": ..., "path": ...}` as data sets of Hugging Face have it, of
        which one may be None; None, NaN or pandas' NA for a picture that is missing, which becomes
        an error row.
    name
        The name to show, if it has one.

    Raises
    ------
    InputError
        If it is something else, or an array or tensor of another type or shape.

    Examples
    --------
    >>> picture_at(3, b"GIF89a").path, picture_at(0, np.zeros((8, 8, 3), np.uint8), "a.png").path
    ('image 3', 'a.png')
    >>> picture_at(1, np.zeros((3, 8, 9), np.uint8))
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: Expected image 1 to be an array of height, width and colours, \
but got shape (3, 8, 9), colours first: pass array.transpose(1, 2, 0).
    """
    if isinstance(value, (*_SOURCES, HeldPicture)):
        return value
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        content, path = value.get("bytes"), value.get("path")
        name = name or (shown(str(path)) if path else "")
        value = path if content is None else content
    if not name and isinstance(value, str | os.PathLike):
        name = shown(value)
    path = name or _name_of(value) or f"image {position}"
    if is_missing(value) or (isinstance(value, str) and not value):
        missing = refusal("missing", path, "there is no image here", "Leave it out")
        return UnreadableImage.of(path, missing)
    if isinstance(value, str | os.PathLike):
        return replace(image_at(os.fspath(value)), path=path)
    if isinstance(value, bytes | bytearray | memoryview):
        return InMemoryImage(path, bytes(value))
    if isinstance(value, np.ndarray):
        _check_array(value, position)
    elif _is_tensor(value):
        _check_tensor(value, position)
    elif not (isinstance(value, Image.Image) or hasattr(value, "read")):
        raise InputError(
            f"Expected image {position} to be named by a path or URL, or to be a PIL image, an "
            f"array, a tensor, bytes or an open file, but got a {type(value).__name__}."
        )
    return HeldPicture(path, value)


def is_numbered(path: str) -> bool:
    """Whether a picture has no name but that of its position.

    Examples
    --------
    >>> is_numbered("image 3"), is_numbered("image.png")
    (True, False)
    """
    return re.fullmatch(r"image \d+", path) is not None


def kept(item: Item, limits: Limits = DEFAULT_LIMITS) -> Item:
    """Return a picture as it is now: its owner may close, or write over, what it comes from.

    Examples
    --------
    >>> frame = np.zeros((8, 8, 3), np.uint8)
    >>> image = kept(picture_at(0, frame))
    >>> frame[:] = 255
    >>> set(image.read()[-192:])
    {0}
    """
    if not isinstance(item, HeldPicture):
        return item
    try:
        return InMemoryImage(item.path, item.read(limits))
    except ImageError as error:
        return UnreadableImage.of(item.path, error)


def share_locks(items: Iterable[Item]) -> list[Item]:
    """Let a picture that stands in a list several times be read by one thread at a time."""
    locks: dict[int, threading.Lock] = {}
    return [
        replace(item, lock=locks.setdefault(id(item.value), item.lock))
        if isinstance(item, HeldPicture)
        else item
        for item in items
    ]


def is_picture(value: Any) -> bool:
    """Whether a source is one picture alone, which is neither a path nor several pictures.

    Examples
    --------
    >>> is_picture(b""), is_picture(np.zeros((2, 8, 8, 3))), is_picture(["a.jpg"])
    (True, False, False)
    """
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3) and value.dtype.kind not in "OUS"
    if isinstance(value, Mapping):
        return value.keys() == {"bytes", "path"}
    held = (*_SOURCES, HeldPicture, Image.Image, bytes, bytearray, memoryview)
    if _is_tensor(value):
        return int(value.ndim) in (2, 3)
    return isinstance(value, held) or hasattr(value, "read")


def batch_of(value: Any) -> list[Any] | None:
    """Return the pictures of an array or a tensor of several; None if the value is neither.

    Raises
    ------
    InputError
        If the shape of an array or tensor is that of neither pictures nor names.
    """
    is_tensor = _is_tensor(value)
    if not is_tensor and not isinstance(value, np.ndarray):
        return None
    if not is_tensor and value.dtype.kind in "OUS" and value.ndim == 1:
        return None
    if value.ndim != 4:
        shape = "(N, C, H, W)" if is_tensor else "(N, H, W, C)"
        raise InputError(
            f"Expected images as {'a tensor' if is_tensor else 'an array'} {shape}, but got shape "
            f"{tuple(value.shape)}."
        )
    return list(value)


def _name_of(value: Any) -> str:
    """Return the name of the file that a picture comes from; "" if there is none."""
    name = getattr(value, "filename", "") if isinstance(value, Image.Image) else ""
    if hasattr(value, "read") and not isinstance(value, Image.Image):
        # Temporary files without a name have a number.
        name = getattr(value, "name", "")
    return shown(name) if name and isinstance(name, str | os.PathLike) else ""


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


# Arrays and tensors: which shapes and types are pictures. A shape is read in one way only, and what
# would be read wrongly is refused: a side of 1, 3 or 4 is no side of a picture.


def _check_array(array: NDArray[Any], position: int) -> None:
    where, shape = f"Expected image {position} to be", tuple(array.shape)
    if array.ndim == 3 and shape[2] not in _BANDS and shape[0] in _BANDS:
        raise InputError(
            f"{where} an array of height, width and colours, but got shape {shape}, colours first: "
            "pass array.transpose(1, 2, 0)."
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in _BANDS):
        raise InputError(
            f"{where} an array (height, width) or (height, width, 1, 3 or 4), but got shape "
            f"{shape}. An array with more pictures than one is a source of its own."
        )
    if array.dtype != np.uint8:
        is_float = array.dtype.kind == "f"
        remedy = (
            "(array * 255).round().astype(numpy.uint8) if they are from 0 to 1, "
            "array.astype(numpy.uint8) if from 0 to 255; undo a normalisation before"
            if is_float
            else "numbers from 0 to 255 as array.astype(numpy.uint8); scale others to that before"
        )
        raise InputError(f"{where} an array of uint8, but got {array.dtype}: pass {remedy}.")


def _check_tensor(tensor: Any, position: int) -> None:
    where, shape = f"Expected image {position} to be", tuple(tensor.shape)
    if tensor.ndim == 3 and shape[0] not in _BANDS and shape[2] in _BANDS:
        raise InputError(
            f"{where} a tensor of colours, height and width, but got shape {shape}, colours last: "
            "pass tensor.permute(2, 0, 1)."
        )
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and shape[0] not in _BANDS):
        raise InputError(
            f"{where} a tensor (height, width) or (1, 3 or 4, height, width), but got shape "
            f"{shape}. A tensor with more pictures than one is a source of its own."
        )
    if not tensor.is_floating_point() and str(tensor.dtype) != "torch.uint8":
        raise InputError(
            f"{where} a tensor of uint8, or of floats from 0 to 1, but got {tensor.dtype}: pass "
            "tensor.to(torch.uint8)."
        )


def _eight_bits(tensor: Any, name: str) -> Any:
    """Return floats from 0 to 1 as uint8, as `torchvision.transforms.functional.to_pil_image` does.

    It cuts off what is behind the point; what `ToTensor` made comes out as it was.
    """
    if tensor.numel() and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        what = "its tensor has values below 0 or above 1, or NaN"
        remedy = "Pass the picture without the transform that normalises it"
        raise refusal("unsupported", name, what, remedy)
    return tensor.mul(255).byte()


# Pixels as a file. PPM is written, and read, at once and alike by every version of Pillow. PNG
# keeps what the paper's protocol leaves aside: alpha, and which way up the picture is.


def _encode_image(image: Image.Image, name: str, limits: Limits) -> bytes:
    with quiet_pillow():
        if (content := _undecoded(image, limits)) is not None:
            check_size(len(content), limits, name)
            return content
        check_sides(image.size, image.width * image.height, limits, name)
        image.load()
        info: dict[str | tuple[int, int], Any] = {}
        if image.has_transparency_data and not image.mode.startswith("I"):
            mode = _PNG_MODES.get(image.mode, image.mode)
            pixels = image.copy() if mode == image.mode else image.convert(mode)
            info = {key: image.info[key] for key in ("transparency",) if key in image.info}
        else:
            pixels = to_rgb(image, name)
            header = b"P6 %d %d 255\n" % pixels.size
            is_small = len(header) + 3 * pixels.width * pixels.height <= limits.max_bytes
            if is_small and exif_orientation(image) is None:
                return header + pixels.tobytes()
        pixels.info = info
        exif = Image.Exif()
        if exif_orientation(image) is not None:
            exif[ExifTags.Base.Orientation] = image.getexif()[ExifTags.Base.Orientation]
        stream = io.BytesIO()
        pixels.save(stream, format="PNG", compress_level=1, exif=exif)
        return stream.getvalue()


# Modes with transparency that PNG lacks, and what they become.
_PNG_MODES = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}


def _undecoded(image: Image.Image, limits: Limits) -> bytes | None:
    """Return the file that an image was opened from, if nothing was decoded or changed since."""
    # What is still to be decoded is listed; a later frame of an animation was chosen by somebody.
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None:
        return None
    return _whole(image.fp, limits) if image.tell() == 0 else None


def _read_file(file: Any, name: str, limits: Limits) -> bytes:
    if getattr(file, "closed", False):
        raise refusal("unreadable", name, "the file is closed", "Keep it open while it is read")
    content = None
    if not isinstance(file, io.TextIOBase):
        try:
            content = _whole(file, limits)
        except OSError as error:
            raise read_error(error, name) from error
    if not isinstance(content, bytes | bytearray):
        what = "the file is open for reading text, not bytes"
        raise refusal("unreadable", name, what, 'Open it with mode "rb"')
    check_size(len(content), limits, name)
    return bytes(content)


def _whole(file: Any, limits: Limits) -> Any:
    """Read a file from its beginning, and leave it where it stood; a pipe from where it is."""
    if not (hasattr(file, "seekable") and file.seekable()):
        return file.read(limits.max_bytes + 1)
    position = file.tell()
    file.seek(0)
    try:
        return file.read(limits.max_bytes + 1)
    finally:
        file.seek(position)
