"""What no client would send: answered with a stated error, never with a fault of ours."""

import json
import re
import socket
import threading
import urllib.request

import pytest

from service import events, service_of
from uploads import png

DIGEST = "a" * 64
JSON = "application/json"
FORM = "multipart/form-data; boundary=xx"
FILE = 'Content-Disposition: form-data; name="images"; filename="a.png"'
IMAGE = png("red", 1).decode("latin-1")


@pytest.fixture(scope="module")
def service(colours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    log = folder / "log"
    with service_of(colours, "--feedback", folder / "f.sqlite", log=log) as (process, address):
        yield process, address, log


@pytest.fixture
def ask(service):
    host, port = service[1].removeprefix("http://").split(":")

    def statuses(request):
        """Send bytes as they are; return the statuses of all answers until the connection ends."""
        said = b""
        with socket.create_connection((host, int(port)), 300) as connection:
            connection.sendall(request)
            while piece := connection.recv(2**16):
                said += piece
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) [A-Z]", said)]

    return statuses


def request(method, path, *headers, body=""):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "", body]).encode("latin-1")


def post(path, body, kind=JSON):
    length = f"Content-Length: {len(body.encode('latin-1'))}"
    return request("POST", path, f"Content-Type: {kind}", length, body=body)


def form(*parts, boundary="xx"):
    body = "".join(f"--{boundary}\r\n{head}\r\n\r\n{content}\r\n" for head, content in parts)
    return f"{body}--{boundary}--\r\n"


def chunked(body):
    return request("POST", "/v1/feedback", "Transfer-Encoding: chunked", body=body)


def answered(image='""', more=""):
    return post("/v1/feedback", f'{{"image":{image},"action":"skip"{more}}}')


FORMS = {
    "thousands of parts": form(*((FILE.replace("images", f"f{i}"), "x") for i in range(5000))),
    "two files and a text of one name": form(
        (FILE, IMAGE), (FILE, IMAGE), (FILE.split("; file")[0], "text")
    ),
    "a part without a name": form(("Content-Disposition: form-data", IMAGE)),
    "a part without a head": form(("X: y", IMAGE)),
    "a part of thousands of headers": form((FILE + "\r\nX: a" * 10_000, IMAGE)),
    "a part of one huge header": form((f"{FILE}\r\nX: {'a' * 2_000_000}", IMAGE)),
    "what looks like boundaries": form((FILE, "\r\n--x" * 200_000)),
    "no end": form((FILE, IMAGE))[:-8],
    "a name that is a path": form((FILE.replace("a.png", "../../etc/\0passwd"), IMAGE)),
    "a name in an unknown alphabet": form((FILE.replace("name=", "name*=klingon''%ff"), IMAGE)),
}
REQUESTS = {
    **{
        name: (post("/v1/predict", body, FORM), {200, 400, 413, 422})
        for name, body in FORMS.items()
    },
    "a boundary that is none": (post("/v1/predict", form(), FORM[:-2]), {400, 422}),
    "a boundary beyond ASCII": (post("/v1/predict", form(), f"{FORM[:-2]}\xff"), {400, 422}),
    "an alphabet of JSON that is none": (post("/v1/predict", "{}", f"{JSON}; charset=x"), {422}),
    "a content type of pages": (post("/v1/predict", "{}", "a" * 50_000), {415}),
    "an answer nested deeply": (answered("[" * 30_000), {400, 422}),
    "an answer of many digits": (answered("9" * 60_000), {400, 422}),
    "NaN": (answered("NaN"), {422}),
    "a number beyond all": (answered("1e999"), {422}),
    "broken UTF-8": (answered('"\xff\xfe"'), {400, 422}),
    "half a character": (answered(f'"{DIGEST}"', r',"model":"\ud800"'), {422}),
    "a zero in a name": (answered(f'"{DIGEST}"', r',"model":"\u0000"'), {404}),
    "a line behind a digest": (answered(rf'"{DIGEST}\n"'), {422}),
    "SQL for an image": (request("GET", "/v1/images/'%20OR%201=1%20--"), {422}),
    "SQL for a model": (request("GET", "/v1/queue?model=';DROP%20TABLE%20images;--"), {404}),
    "a path for an image": (request("GET", "/v1/images/..%2f..%2fetc%2fpasswd"), {404, 422}),
    "a path for a file of the page": (request("GET", "/static/%2e%2e/%2e%2e/settings.py"), {404}),
    "an absolute path": (request("GET", "/static//etc/passwd"), {404}),
    "a zero in a path": (request("GET", "/static/%00"), {404}),
    "an example of many digits": (request("GET", "/v1/examples/" + "9" * 400), {422}),
    "an answer of many digits to undo": (request("DELETE", f"/v1/feedback/{2**63}"), {422}),
    "a size that is no number": (request("GET", "/v1/examples/0?side=nan"), {422}),
    "a reviewer in broken UTF-8": (request("GET", "/v1/queue?reviewer=%ed%a0%80"), {200}),
    "thousands of parameters": (request("GET", "/v1/model?" + "a=1&" * 8000), {200}),
    "thousands of headers": (request("GET", "/healthz", *["X: a"] * 6000), {200, 400}),
    "two lengths": (request("POST", "/", "Content-Length: 5", "Content-Length: 6"), {400}),
    "a negative length": (request("POST", "/v1/feedback", "Content-Length: -5"), {400}),
    "a chunk of no size": (chunked("zz\r\n"), {400}),
    "thousands of trailers": (
        chunked("0\r\n" + "a: b\r\n" * 3000 + "\r\n"),
        {400, 422},
    ),
    "chunks of one byte, beyond the bound": (
        chunked("1\r\na\r\n" * 70_000 + "0\r\n\r\n"),
        {413},
    ),
    "two hosts": (request("GET", "/v1/model", "Host: example.org"), {400}),
    "another host": (request("GET", "/v1/model").replace(b"localhost", b"example.org"), {421}),
    "the start of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 421}),
    "a tunnel": (request("CONNECT", "example.org:443"), {404}),
    "an echo": (request("TRACE", "/v1/model"), {405}),
    "a method of pages": (request("X" * 3000, "/v1/model"), {405}),
    "an address elsewhere": (request("GET", "http://example.org/healthz"), {404}),
}


@pytest.mark.parametrize("name", list(REQUESTS))
def test_the_answer_is_a_stated_one(ask, name):
    content, expected = REQUESTS[name]
    (status,) = ask(content)
    assert status in expected


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE"])
def test_no_path_fails_on_a_method(ask, service, method):
    paths = ["/", "/nothing", "/static/x", *_paths(service[1])]
    for path in paths:
        (status,) = ask(request(method, path))
        assert status < 500, path


def _paths(address):
    with urllib.request.urlopen(f"{address}/openapi.json") as answer:
        return [re.sub(r"\{\w+\}", DIGEST, path) for path in json.load(answer)["paths"]]


def test_requests_one_after_the_other_on_a_connection_are_answered_in_order(ask):
    health = request("GET", "/healthz").replace(b"Connection: close\r\n", b"")
    wrong = request("GET", "/nothing").replace(b"Connection: close\r\n", b"")
    assert ask((health + wrong) * 50 + request("TRACE", "/healthz")) == [200, 404] * 50 + [405]


def test_whoever_asks_for_another_protocol_is_answered_in_this_one(ask):
    headers = ("Upgrade: websocket", "Sec-WebSocket-Key: AAAA", "Sec-WebSocket-Version: 13")
    upgrade = request("GET", "/healthz", *headers).replace(b"close", b"Upgrade, close")
    assert ask(upgrade) == [200]


def test_everything_at_once_is_answered(ask):
    image = post("/v1/predict?keep=true", form((FILE, IMAGE)), FORM)
    todo = [
        image, request("POST", "/v1/reload"), answered(f'"{DIGEST}"'), request("GET", "/v1/queue"),
        request("GET", "/v1/feedback.csv"), request("GET", "/metrics"),
        request("DELETE", "/v1/feedback/1"), request("GET", "/v1/curve"),
    ]  # fmt: skip
    statuses = []
    threads = [
        threading.Thread(target=lambda c=content: statuses.extend(ask(c))) for content in todo * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(statuses) == len(threads)
    assert set(statuses) <= {200, 404}


def test_nothing_of_it_was_unforeseen(service):
    process, _, log = service
    assert process.poll() is None
    logged = events(log.read_text())
    assert not [event for event in logged if event["event"] == "unforeseen"]
    assert not [event for event in logged if event.get("traceback")]
    assert not [event for event in logged if event.get("status", 0) >= 500]
