"""What servers may do while an image is fetched: say too little, too much, or nothing."""

from __future__ import annotations

import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from trustvlm.exceptions import ImageError
from trustvlm.images import Limits, locations, references
from trustvlm.images.locations import Location, RemoteImage, image_at

CONTENT = b"the bytes of an image" * 100


class Server(BaseHTTPRequestHandler):
    """Good and bad answers by path; the bad ones end when the client or the test does."""

    protocol_version = "HTTP/1.1"
    ended = threading.Event()
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.send_error(405)

    def do_GET(self):
        self.asked.append(self.path)
        self.close_connection = True
        match self.path:
            case "/good.png":
                self._answer(CONTENT, len(CONTENT))
            case "/less.png":
                self._answer(CONTENT, len(CONTENT) + 100)
            case "/large.png":
                self._answer(CONTENT * 100, 100 * len(CONTENT))
            case "/endless.png":
                self._answer(b"", None)
                self._send(bytes(2**16), 0.0)
            case "/drip.png":
                self._answer(b"", None)
                self._send(b"x", 0.02)
            case "/silent.png":
                self.ended.wait(20)
            case "/moved.png":
                self._move("/good.png")
            case "/to_file.png":
                self._move("file:///etc/passwd")
            case "/to_ftp.png":
                self._move("ftp://localhost/a.png")
            case _:
                self.send_error(404)

    def _answer(self, content, length):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def _send(self, piece, pause):
        for _ in range(10_000):
            if self.ended.wait(pause):
                return
            try:
                self.wfile.write(piece)
            except OSError:
                return

    def _move(self, target):
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("aiohttp")
    Server.ended.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        Server.ended.set()
        http.shutdown()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(references, "_FIRST_WAIT", 0.0)
    Server.asked.clear()


def test_what_is_there_takes_one_request(server):
    assert image_at(f"{server}/good.png").read() == CONTENT
    assert Server.asked == ["/good.png"]
    assert image_at(f"{server}/moved.png").read() == CONTENT


@pytest.mark.parametrize("name", ["large", "endless"])
def test_no_more_is_fetched_than_an_image_may_have(server, name):
    with pytest.raises(ImageError, match=r"sends more than 10,000 bytes") as caught:
        image_at(f"{server}/{name}.png").read(Limits(max_bytes=10_000))
    assert caught.value.kind == "too_large"
    assert len(Server.asked) == 1


@pytest.mark.parametrize("name", ["drip", "silent"])
def test_no_image_takes_longer_than_it_may(server, name):
    begun = time.monotonic()
    with pytest.raises(ImageError, match=r"longer than 0\.3 s.*--image-seconds") as caught:
        image_at(f"{server}/{name}.png").read(Limits(seconds=0.3))
    assert caught.value.kind == "too_slow"
    assert time.monotonic() - begun < 5
    assert len(Server.asked) == 1


@pytest.mark.parametrize("name", ["less", "to_file", "to_ftp"])
def test_an_answer_that_is_cut_or_leads_off_the_net_is_an_error(server, name):
    with pytest.raises(ImageError, match="cannot be read") as caught:
        image_at(f"{server}/{name}.png").read()
    assert caught.value.kind == "unreadable"
    assert len(str(caught.value)) < 400, "servers may say much"


def test_what_is_not_there_is_missing(server):
    with pytest.raises(ImageError) as caught:
        image_at(f"{server}/none.png").read()
    assert caught.value.kind == "missing"


def test_other_storage_is_asked_for_no_more_than_an_image_may_have(monkeypatch):
    class Endless:
        async_impl = False

        def cat_file(self, path, start=None, end=None):
            assert (path, start) == ("bucket/a.png", 0)
            return bytes(end)

    monkeypatch.setattr(locations, "file_system", lambda url: (Endless(), url.partition("//")[2]))
    with pytest.raises(ImageError, match="at most 1,000"):
        RemoteImage("a.png", "s3://bucket/a.png").read(Limits(max_bytes=1000))


@pytest.mark.skipif(os.name == "nt", reason="needs pipes")
@pytest.mark.parametrize("scheme", ["file", "local"])
def test_pipes_sockets_and_devices_are_not_read(tmp_path, scheme):
    pytest.importorskip("fsspec")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket.png"))
        for file in (tmp_path / "pipe.png", tmp_path / "socket.png", "/dev/zero"):
            with pytest.raises(ImageError, match="regular file"):
                image_at(f"{scheme}://{file}").read()
            with pytest.raises(OSError, match="regular file"):
                Location.of(f"{scheme}://{file}").open()
    with pytest.raises(ImageError):  # a regular file of no size
        image_at(f"{scheme}:///proc/self/environ").read()
