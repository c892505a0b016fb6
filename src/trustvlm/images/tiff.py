"""TIFFs that Pillow does not open: of any number of bands, such as those of satellites."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

# Tags of the directory.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP = 266, 273, 274, 277, 278
_STRIP_SIZES, _PLANAR, _PREDICTOR = 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339

# Compressions that know nothing of pixels, so that bytes may be unpacked as if they were grey:
# none, LZW, deflate (two numbers), PackBits, LZMA, Zstandard.
_OF_BYTES = {1, 5, 8, 32946, 32773, 34925, 50000}
_PREDICTED = _OF_BYTES - {1, 32773}
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_TYPES = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}
_BIG = (b"II\x2b\0", b"MM\0\x2b")


@dataclass(frozen=True)
class BandLayout:
    """How the bands of the first page lie in a file.

    Attributes
    ----------
    width, height, n_bands
        Of the picture.
    dtype
        Of one value, in the byte order of the file.
    planar
        Whether each band lies by itself, rather than all values of a pixel together.
    white_is_zero
        Whether 0 is white.
    orientation
        As in EXIF.
    tags
        Of the directory.
    """

    width: int
    height: int
    n_bands: int
    dtype: np.dtype[Any]
    planar: bool
    white_is_zero: bool
    orientation: int
    tags: Any

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of a tile, or of a strip."""
        if _TILES in self.tags:
            return int(self.tags[_TILE_WIDTH]), int(self.tags[_TILE_HEIGHT])
        rows = self.tags.get(_ROWS_PER_STRIP, self.height)
        return self.width, max(1, min(rows, self.height))

    @property
    def is_misread(self) -> bool:
        """Whether Pillow, if it opens the file, takes it for something else.

        It takes 16 bits for 8 and bands for none where each band lies by itself, unsigned values
        for signed ones, and the byte order of compressed numbers for the other.
        """
        if self.dtype.kind != "u" or self.dtype.itemsize > 2:
            return True
        has_alpha = any(self.tags.get(_EXTRA_SAMPLES, ()))
        return self.planar and self.n_bands > 1 and not (has_alpha and self.dtype.itemsize == 1)

    @property
    def n_pixels(self) -> float:
        """What is decoded, where four values are a pixel, as in Pillow; one tile at least."""
        n_bands = min(self.n_bands, 3) if self.planar else self.n_bands
        width, height = self.block
        area = max(self.width * self.height, width * max(height, self.height))
        return area * max(1.0, n_bands / 4)

    def read(self, content: bytes) -> NDArray[Any]:
        """Return `(height, width, 3)` values of the first three bands; of one, with fewer.

        Raises
        ------
        Exception
            Whatever Pillow raises, for data that are damaged or cut.
        """
        if not self.planar:
            return self._read(content, 0, self.n_bands)
        n_used = 3 if self.n_bands >= 3 else 1
        return np.concatenate([self._read(content, i, 1) for i in range(n_used)], axis=2)

    def _read(self, content: bytes, band: int, n_bands: int) -> NDArray[Any]:
        """Unpack the bytes of bands that lie together as a grey picture that is as much wider."""
        tags, tiled = self.tags, _TILES in self.tags
        block, rows = self.block
        across = -(-self.width // block)
        bytes_a_pixel = n_bands * self.dtype.itemsize
        where, sizes = (_TILES, _TILE_SIZES) if tiled else (_STRIPS, _STRIP_SIZES)
        n_blocks = across * -(-self.height // rows)
        part = slice(band * n_blocks, (band + 1) * n_blocks)
        directory = {
            _WIDTH: across * block * bytes_a_pixel, _HEIGHT: self.height, _BITS: 8,
            _COMPRESSION: tags.get(_COMPRESSION, 1), _PHOTOMETRIC: 1,
            _FILL_ORDER: tags.get(_FILL_ORDER, 1), _SAMPLES: 1, _PLANAR: 1,
            where: tags[where][part],
        }  # fmt: skip
        if tiled:
            directory |= {_TILE_WIDTH: block * bytes_a_pixel, _TILE_HEIGHT: rows}
        else:
            directory[_ROWS_PER_STRIP] = rows
        if sizes in tags:
            directory[sizes] = tags[sizes][part]
        with TiffImagePlugin.TiffImageFile(BytesIO(_rewritten(content, directory, where))) as wide:
            packed = np.asarray(wide)
        predictor = tags.get(_PREDICTOR, 1) if directory[_COMPRESSION] in _PREDICTED else 1
        blocks = packed.reshape(self.height, across, block, bytes_a_pixel)
        values = _unpredicted(blocks, predictor, n_bands, self.dtype)
        return values.reshape(self.height, across * block, -1)[:, : self.width]


def read_layout(content: bytes) -> BandLayout | None:
    """Return how the bands of a TIFF lie; None for a kind that is not read here.

    Grey, colours and bands without a meaning are, of 8, 16, 32 or 64 bits, whole or float, by tiles
    or strips, in any compression that knows nothing of pixels.
    """
    try:
        return _layout(content)
    except Exception:  # Pillow's reader of directories raises nearly everything on damaged ones
        return None


def _layout(content: bytes) -> BandLayout | None:
    is_big = content.startswith(_BIG)
    # Pillow takes a large TIFF for one only if its first bytes are in this order.
    head = _BIG[0] + content[4:16] if is_big else content[:8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(head, prefix=content[:2])
    stream = BytesIO(content)
    stream.seek(tags.next)
    tags.load(stream)
    n_bands = tags.get(_SAMPLES, 1)
    bits, kinds = set(tags.get(_BITS, (1,))), set(tags.get(_SAMPLE_FORMAT, (1,)))
    if len(bits) != 1 or len(kinds) != 1:
        return None
    code = f"{_KINDS.get(kinds.pop(), '?')}{bits.pop() / 8:g}"
    if (
        code not in _TYPES
        or tags.get(_COMPRESSION, 1) not in _OF_BYTES
        or tags.get(_PHOTOMETRIC, 1) not in (0, 1, 2)
        or tags.get(_PREDICTOR, 1) not in (1, 2, 3)
        or not (_STRIPS in tags or _TILES in tags)
    ):
        return None
    layout = BandLayout(
        width=int(tags[_WIDTH]),
        height=int(tags[_HEIGHT]),
        n_bands=int(n_bands),
        dtype=np.dtype(code).newbyteorder("<" if content[:2] == b"II" else ">"),
        planar=tags.get(_PLANAR, 1) == 2,
        white_is_zero=tags.get(_PHOTOMETRIC, 1) == 0,
        orientation=int(tags.get(_ORIENTATION, 1)),
        tags=tags,
    )
    return layout if min(layout.width, layout.height, n_bands, *layout.block) > 0 else None


def _rewritten(content: bytes, directory: dict[int, Any], where: int) -> bytes:
    """Return a TIFF with another directory, before the content, whose end stays the end."""
    values = {tag: np.atleast_1d(np.asarray(directory[tag], "<u4")) for tag in sorted(directory)}
    at = 8 + 2 + 12 * len(values) + 4
    begin = at + sum(4 * len(v) for v in values.values() if len(v) > 1)
    values[where] = values[where] + np.uint32(begin)
    entries, long = b"", b""
    for tag, numbers in values.items():
        inline = numbers.tobytes() if len(numbers) == 1 else struct.pack("<I", at + len(long))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + inline
        long += numbers.tobytes() if len(numbers) > 1 else b""
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + bytes(4) + long
    return head + content


def _unpredicted(
    blocks: NDArray[np.uint8], predictor: int, n_bands: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Undo the differences along each row of each block, `(height, across, width, bytes)`.

    Returns the values of the first three bands, or of the first alone, `(..., width, bands)`.
    """
    n_used = 3 if n_bands >= 3 else 1
    if predictor == 3:
        # Differences of bytes, n_bands apart, of rows that hold all first bytes, then all second
        # ones and so on; the first are the most significant, whatever the file's byte order.
        height, across, width, _ = blocks.shape
        steps = blocks.reshape(height, across, -1, n_bands)
        planes = np.cumsum(steps, axis=2, dtype=np.uint8)
        planes = planes.reshape(height, across, dtype.itemsize, width, n_bands)[..., :n_used]
        big = np.ascontiguousarray(np.moveaxis(planes, 2, -1))
        return big.view(dtype.newbyteorder(">"))[..., 0]
    values = np.ascontiguousarray(blocks).view(dtype)[..., :n_used]
    if predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        bits = values.view(whole.newbyteorder(dtype.byteorder))
        return np.cumsum(bits, axis=2, dtype=whole).view(dtype.newbyteorder("="))
    return values
