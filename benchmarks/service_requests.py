"""Requests as bytes, good and malformed, and a client that costs next to nothing."""
# ruff: noqa: ARG005

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["MALFORMED", "Answer", "ask", "good", "post"]

_LINE = "----trustvlm-benchmark"


@dataclass(frozen=True)
class Answer:
    """Status and body of an answer; status 0 if the connection was closed instead."""

    status: int
    body: bytes

    def json(self) -> dict:
        """The body as JSON."""
        return json.loads(self.body)


def post(path: str, body: bytes, kind: str, *headers: str) -> bytes:
    """One POST request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def good(images: Sequence[bytes]) -> bytes:
    """A request with some images."""
    body = b"".join(
        f'--{_LINE}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"'
        "\r\nContent-Type: image/jpeg\r\n\r\n".encode()
        + image
        + b"\r\n"
        for image in images
    )
    body += f"--{_LINE}--\r\n".encode()
    return post("/v1/predict", body, f"multipart/form-data; boundary={_LINE}")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Answer:
    """Send a request and read the answer."""
    writer.write(request)
    await writer.drain()
    return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(lines[0].split(" ")[1]), body)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data)


def _as_json(**fields: object) -> bytes:
    return post("/v1/predict", json.dumps(fields).encode(), "application/json")


# By name: a request made of a good image, and the statuses that are right for it. A verdict with an
# error, of a broken image, has status 200.
Maker = Callable[[bytes, random.Random], bytes]
MALFORMED: dict[str, tuple[Maker, frozenset[int]]] = {
    "truncated image": (lambda image, rng: good([image[: rng.randrange(2, len(image))]]), {200}),
    "bomb": (lambda image, rng: good([_png_bomb()]), {200}),
    "garbage": (lambda image, rng: good([rng.randbytes(3000)]), {200}),
    "flipped bytes": (
        lambda image, rng: good([bytes(b ^ (rng.random() < 0.01) * 0xFF for b in image)]),
        {200},
    ),
    "empty file": (lambda image, rng: good([b""]), {200}),
    "wrong type": (lambda image, rng: post("/v1/predict", image, "image/jpeg"), {415}),
    "no boundary": (lambda image, rng: post("/v1/predict", image, "multipart/form-data"), {400}),
    "broken form": (
        lambda image, rng: post(
            "/v1/predict", rng.randbytes(500), f"multipart/form-data; boundary={_LINE}"
        ),
        {400, 422},  # some random bytes are a preamble without a part
    ),
    "no JSON": (lambda image, rng: post("/v1/predict", b"{", "application/json"), {422}),
    "deep JSON": (
        lambda image, rng: post("/v1/predict", b"[" * 200_000, "application/json"),
        {422},
    ),
    "huge JSON": (
        lambda image, rng: _as_json(images=[{"data": "A" * 5_000_000}]),
        {413},
    ),
    "JSON of other things": (
        lambda image, rng: _as_json(images=[{"data": 3}, None], more=[1e308]),
        {422},
    ),
    "not base64": (lambda image, rng: _as_json(images=[{"data": "%"}]), {200}),
    "too many images": (lambda image, rng: good([b"x"] * 70), {413}),
    "wrong model": (
        lambda image, rng: good([image]).replace(b"/predict ", b"/predict?model=x ", 1),
        {404},
    ),
    "path tricks": (
        lambda image, rng: good([image]).replace(
            b"/v1/predict", rng.choice([b"/static/../app.py", b"/%2e%2e/etc/passwd", b"//x"]), 1
        ),
        {404, 405},
    ),
    "announced too large": (
        lambda image, rng: post("/v1/predict", b"", "application/json").replace(
            b"Content-Length: 0", b"Content-Length: 99999999999", 1
        ),
        {413},
    ),
    "no HTTP": (lambda image, rng: b"\x16\x03\x01 not http at all\r\n\r\n", {400}),
    "base64 that works": (
        lambda image, rng: _as_json(images=[{"data": base64.b64encode(image).decode()}]),
        {200},
    ),
}
