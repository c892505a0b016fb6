"""Files that look like images by name and cannot be used, one for each way to fail."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, WebPImagePlugin

# What is wrong with a HEIC image of nothing but a header, with the extra `heic` and without it.
HEIC_KIND = "damaged" if importlib.util.find_spec("pillow_heif") else "unsupported"


def write_broken_images(folder: Path) -> dict[str, str]:
    """Write them into a folder (all with image extensions) and return {name: expected kind}."""
    expected = {}
    for name, kind, content in _broken():
        (folder / name).write_bytes(content)
        expected[name] = kind
    (folder / "dangling_link.jpg").symlink_to(folder / "nowhere" / "gone.jpg")
    expected["dangling_link.jpg"] = "missing"
    return expected


def encoded(
    file_format: str, mode: str = "RGB", size: tuple[int, int] = (50, 40), **options
) -> bytes:
    """Return the bytes of a noisy image, so that no format can compress it away."""
    shape = (size[1], size[0], 3)
    noise = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, file_format, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file with its correct checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG file with the given header and chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(chunks)
        + png_chunk(b"IEND", b"")
    )


def tiff(*entries: tuple[int, int, int], data: bytes = b"") -> bytes:
    """Return a little-endian TIFF with one directory of (tag, type, value) and its data at 200."""
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        packed = struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
        directory += struct.pack("<HHI", tag, kind, 1) + packed
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + data


def grey_tiff(
    side: int,
    bits: int,
    data: bytes,
    *,
    sample: int = 1,
    photometric: int = 1,
    compression: int = 1,
) -> bytes:
    """Return a grey TIFF of one strip; sample 1 unsigned, 2 signed, 3 float."""
    return tiff(
        (256, 3, side), (257, 3, side), (258, 3, bits), (259, 3, compression),
        (262, 3, photometric), (273, 4, 200), (277, 3, 1), (278, 3, side),
        (279, 4, len(data)), (339, 3, sample), data=data,
    )  # fmt: skip


def multiband_tiff(
    values: np.ndarray,
    *,
    planar: bool = False,
    predictor: int = 1,
    compress: bool = False,
    tile: tuple[int, int] | None = None,
    big: bool = False,
    photometric: int = 2,
    alpha: bool = False,
) -> bytes:
    """Return a TIFF of `(height, width, bands)`, in the byte order of the values.

    `tile` is the height and width of tiles; without it there are strips of 7 rows.
    """
    height, width, n_bands = values.shape
    rows, columns = tile or (7, width)
    order = ">" if values.dtype.byteorder == ">" else "<"
    blocks = []
    for part in np.moveaxis(values, 2, 0)[..., None] if planar else [values]:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                block = part[top : top + rows, left : left + columns]
                if tile:
                    spare = rows - block.shape[0], columns - block.shape[1]
                    block = np.pad(block, ((0, spare[0]), (0, spare[1]), (0, 0)))
                content = _predicted(block, predictor, order)
                blocks.append(zlib.compress(content) if compress else content)
    n_extra = n_bands - (3 if photometric == 2 else 1)
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]), 257: ("I", [height]),
        258: ("H", [8 * values.dtype.itemsize] * n_bands), 259: ("H", [8 if compress else 1]),
        262: ("H", [photometric]), 277: ("H", [n_bands]), 284: ("H", [2 if planar else 1]),
        317: ("H", [predictor]), 338: ("H", [2 if alpha else 0] * n_extra),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * n_bands),
        324 if tile else 273: ("I", []), 325 if tile else 279: ("I", [len(b) for b in blocks]),
    }  # fmt: skip
    entries |= (
        {322: ("I", [columns]), 323: ("I", [rows])} if tile else {278: ("I", [min(rows, height)])}
    )
    entries = {tag: entry for tag, entry in sorted(entries.items()) if tag != 338 or n_extra > 0}
    start, width_of_number, room = (16, "Q", 8) if big else (8, "I", 4)
    at = start + (8 if big else 2) + len(entries) * (20 if big else 12) + room
    data = b"".join(blocks)
    offsets = [at + sum(len(block) for block in blocks[:i]) for i in range(len(blocks))]
    entries[324 if tile else 273] = ("I", offsets)
    directory, long = b"", b""
    for tag, (kind, numbers) in entries.items():
        packed = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        count = struct.pack(
            f"{order}HH{width_of_number}", tag, 3 if kind == "H" else 4, len(numbers)
        )
        if len(packed) > room:
            packed, long = (
                struct.pack(order + width_of_number, at + len(data) + len(long)),
                long + packed,
            )
        directory += count + packed.ljust(room, b"\0")
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(
        f"{order}HHHQ" if big else f"{order}HI", *((43, 8, 0, 16) if big else (42, 8))
    )
    head += struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    return head + directory + bytes(room) + data + long


def _predicted(block: np.ndarray, predictor: int, order: str) -> bytes:
    size, n_bands = block.dtype.itemsize, block.shape[2]
    if predictor == 2:
        whole = np.ascontiguousarray(block).view(f"{order}u{size}").astype(f"u{size}")
        return np.diff(whole, axis=1, prepend=whole[:, :1] * 0).astype(f"{order}u{size}").tobytes()
    if predictor == 3:
        big = np.ascontiguousarray(block.astype(block.dtype.newbyteorder(">"))).view(np.uint8)
        planes = (
            big.reshape(len(block), -1, size).transpose(0, 2, 1).reshape(len(block), -1, n_bands)
        )
        return np.diff(planes, axis=1, prepend=planes[:, :1] * 0).tobytes()
    return block.tobytes()


def _broken() -> Iterator[tuple[str, str, bytes]]:
    yield from _foreign()
    yield from _cut_short()
    yield from _damaged()
    yield from _wrong_size()


def _foreign() -> Iterator[tuple[str, str, bytes]]:
    yield "empty.jpg", "empty", b""
    yield "one_byte.jpg", "not_image", b"\xff"
    yield "text.jpg", "not_image", b"this is not a picture\n"
    yield "text_bmw.bmp", "not_image", b"BMW is a maker of cars, and this is a text about it."
    yield "text_utf16.jpg", "not_image", "not a picture".encode("utf-16")
    yield "web_page.png", "not_image", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    yield "answer.jpg", "not_image", b'{"error": "rate limit exceeded"}'
    yield (
        "lfs_pointer.jpg",
        "not_image",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    )
    yield "zeros.jpg", "not_image", bytes(5000)
    yield "noise.jpg", "not_image", np.random.default_rng(1).bytes(5000)
    yield "archive.jpg", "not_image", b"PK\x03\x04" + bytes(100)
    yield "compressed.png", "not_image", b"\x1f\x8b\x08" + bytes(100)
    yield "film.jpg", "not_image", b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(100)
    yield "sound.webp", "not_image", b"RIFF\x24\0\0\0WAVEfmt " + bytes(100)
    yield "document.jpg", "unsupported", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
    yield (
        "drawing.svg",
        "unsupported",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    )
    yield "drawing.png", "unsupported", b"<svg/>"
    yield "phone.jpg", HEIC_KIND, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    yield "phone.heic", HEIC_KIND, b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100)
    yield "layers.psd", "unsupported", b"8BPS\0\x01" + bytes(100)
    yield "favicon.ico", "unsupported", b"\0\0\x01\0\x01\0" + bytes(100)
    yield "new.jxl", "unsupported", b"\xff\x0a" + bytes(100)
    yield "print.jpg", "unsupported", b"%!PS-Adobe-3.0\n"
    yield "raw.cr3", "unsupported", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100)


def _cut_short() -> Iterator[tuple[str, str, bytes]]:
    jpeg = encoded("JPEG")
    yield "jpeg_half.jpg", "truncated", jpeg[: len(jpeg) // 2]
    yield "jpeg_last_two_bytes.jpg", "truncated", jpeg[:-2]
    yield "jpeg_header.jpg", "truncated", jpeg[:100]
    progressive = encoded("JPEG", progressive=True)
    yield "jpeg_progressive_half.jpg", "truncated", progressive[: len(progressive) // 2]
    whole_png = encoded("PNG")
    yield "png_half.png", "truncated", whole_png[: len(whole_png) // 2]
    yield "png_signature.png", "truncated", whole_png[:8]
    for file_format in ("GIF", "BMP", "PPM", "WEBP"):
        whole = encoded(file_format)
        yield f"{file_format.lower()}_half.jpg", "truncated", whole[: len(whole) // 2]
    whole = encoded("TIFF", compression="tiff_lzw")
    yield "tiff_half.tif", "truncated", whole[: len(whole) // 2]
    if Image.registered_extensions().get(".jp2") == "JPEG2000":
        whole = encoded("JPEG2000")
        yield "jpeg2000_half.jp2", "damaged", whole[: len(whole) // 2]


def _damaged() -> Iterator[tuple[str, str, bytes]]:
    jpeg = bytearray(encoded("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 7] = b"\0\0"
    yield "jpeg_height_zero.jpg", "damaged", bytes(jpeg)
    jpeg = bytearray(encoded("JPEG"))
    jpeg[jpeg.index(b"\xff\xc4") + 5 : jpeg.index(b"\xff\xc4") + 21] = b"\xff" * 16
    yield "jpeg_huffman.jpg", "damaged", bytes(jpeg)
    whole = bytearray(encoded("PNG"))
    whole[len(whole) // 2] ^= 0xFF
    yield "png_flipped_bits.png", "damaged", bytes(whole)
    header = bytearray(encoded("PNG"))
    header[29] ^= 0xFF
    yield "png_header_checksum.png", "damaged", bytes(header)
    yield "png_no_pixels.png", "damaged", png(50, 40)
    yield "png_width_zero.png", "damaged", png(0, 40, png_chunk(b"IDAT", zlib.compress(b"\0")))
    yield "png_not_deflated.png", "damaged", png(50, 40, png_chunk(b"IDAT", bytes(500)))
    bomb = zlib.compress(bytes(80_000_000), 9)
    yield "png_text_bomb.png", "damaged", png(50, 40, png_chunk(b"zTXt", b"Comment\0\0" + bomb))
    yield "gif_no_frame.gif", "damaged", b"GIF89a\x32\0\x28\0\0\0\0;"
    yield "tiff_no_directory.tif", "truncated", b"II*\0" + struct.pack("<I", 5000) + bytes(100)
    yield "tiff_compression.tif", "unsupported", grey_tiff(50, 8, bytes(2500), compression=999)
    yield "tiff_24_bits.tif", "unsupported", grey_tiff(50, 24, bytes(7500), sample=3)
    for name, bad in (("nan", np.nan), ("infinite", np.inf)):
        values = np.linspace(0, 1, 2500, dtype="<f4")
        values[77] = bad
        yield f"tiff_{name}.tif", "non_finite", grey_tiff(50, 32, values.tobytes(), sample=3)


def _wrong_size() -> Iterator[tuple[str, str, bytes]]:
    yield "pixel.png", "too_small", encoded("PNG", size=(1, 1))
    yield "pixel.gif", "too_small", encoded("GIF", size=(1, 1))
    yield "strip.jpg", "too_small", encoded("JPEG", size=(500, 7))
    data = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    yield "bomb.png", "too_large", png(50_000, 50_000, data)
    yield "bomb_bits.png", "too_large", png(2**31 - 1, 2**31 - 1, data, depth=1, colour=0)
    bitmap = bytearray(encoded("BMP"))
    bitmap[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield "bomb.bmp", "too_large", bytes(bitmap)
    yield "bomb.gif", "too_large", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;"
    yield "bomb.tif", "too_large", grey_tiff(60_000, 8, bytes(100))
    yield "bomb.ppm", "too_large", b"P6 60000 60000 255 " + bytes(100)
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0" * 2
    riff = b"WEBP" + canvas + encoded("WEBP")[12:]
    # Older versions of Pillow look at the picture first, and it does not fit its header.
    kind = "too_large" if hasattr(WebPImagePlugin, "_get_size") else "damaged"
    yield "bomb.webp", kind, b"RIFF" + struct.pack("<I", len(riff)) + riff
