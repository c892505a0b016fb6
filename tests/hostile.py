"""Pictures and bodies that take far more time or memory than their size lets expect."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from broken_images import png, png_chunk, tiff


def many_scans(n: int, side: int = 2000) -> bytes:
    """A progressive JPEG in which one scan is repeated: 70 bytes each, every pixel gone over."""
    stream = io.BytesIO()
    Image.new("L", (side, side), 77).save(stream, "JPEG", progressive=True, quality=30)
    whole = stream.getvalue()
    starts = [i for i in range(len(whole)) if whole[i : i + 2] == b"\xff\xda"]
    # The second scan is of other coefficients than the first: it may come again.
    scan = whole[starts[1] : starts[2]]
    scan = scan[: scan.rfind(b"\xff\xc4")] if b"\xff\xc4" in scan else scan
    return whole[: starts[1]] + scan * n + b"\xff\xd9"


def run_length_bitmap(side: int = 6000, n_bytes: int = 21_000) -> bytes:
    """A bitmap in runs of one pixel of which a few bytes claim millions."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    data = (b"\xff\x01" * (n_bytes // 2 - 600))[: n_bytes - 1080] + b"\0\1"
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


def odd_maximum(side: int = 5000) -> bytes:
    """A PNM whose largest value is none that Pillow can widen without Python."""
    return b"P6 %d %d 77 " % (side, side) + bytes(3 * side * side)


def flat_png(side: int, *, colour: int = 6) -> bytes:
    """A PNG of one colour, a thousandth of its pixels in size."""
    row = bytes(1 + side * {0: 1, 2: 3, 6: 4}[colour])
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(side, side, png_chunk(b"IDAT", data), colour=colour)


def flat(file_format: str, side: int, **options: object) -> bytes:
    """A picture of one colour in any format."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(stream, file_format, **options)
    return stream.getvalue()


def many_frames(file_format: str, n: int, side: int = 64) -> bytes:
    """An animation, or a document of many pages."""
    frames = [Image.new("RGB", (side, side), (i % 256, i // 256, 0)) for i in range(n)]
    stream = io.BytesIO()
    frames[0].save(stream, file_format, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def huge_strip_tiff() -> bytes:
    """A TIFF of a few pixels whose one strip is said to have gigabytes."""
    return tiff(
        (256, 3, 64), (257, 3, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 200),
        (277, 3, 1), (278, 4, 2**31), (279, 4, 2**31),
        data=zlib.compress(bytes(50_000_000), 9),
    )  # fmt: skip


def empty_objects(n_bytes: int) -> bytes:
    """A JSON body of images that are empty objects."""
    return b'{"images":[' + b"{}," * (n_bytes // 3) + b"{}]}"


def hostile_images() -> dict[str, bytes]:
    """Pictures by what they are; each is answered within the limits, whatever the answer."""
    return {
        "jpeg of 10,000 scans": many_scans(10_000),
        "jpeg of 490 scans": many_scans(490, side=6000),
        "run-length bitmap": run_length_bitmap(),
        "pnm of odd maximum": odd_maximum(1500),
        "png of 36 megapixels": flat_png(6000),
        "png of 3.6 gigapixels": png(60_000, 60_000, png_chunk(b"IDAT", b"")),
        "tiff of one strip": huge_strip_tiff(),
        "tiff of 400 pages": many_frames("TIFF", 400),
        "gif of 400 frames": many_frames("GIF", 400),
        "webp of 400 frames": many_frames("WEBP", 400),
        "webp of 36 megapixels": flat("WEBP", 6000, lossless=True),
    }
