"""Requests that cost more than they weigh: bounded in time and memory, at nobody's expense."""

import asyncio
import json
import queue

import pytest

from hanging import Sleep
from hostile import empty_objects, odd_maximum, run_length_bitmap
from pictures import COLOURS
from service import client_of
from trustvlm.images import decode
from trustvlm.serve.middleware import MetricsMiddleware
from uploads import png

LONG = 300
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        empty_objects(3_000_000),
        b'{"images":[' + b"1," * 1_000_000 + b"1]}",
        b'{"images":[{"data":""}],"more":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
        b'{"images":[],' + b'"a":1,' * 500_000 + b'"b":1}',
    ],
    ids=["objects", "numbers", "arrays", "names"],
)
def test_values_of_a_json_body_are_counted_before_they_are_made(client, body, monkeypatch):
    monkeypatch.setattr("trustvlm.serve.schemas.PredictRequest.model_validate_json", None)
    answer = client.post("/v1/predict", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "bad_json")
    assert "more values than 64 images need" in answer.json()["error"]["message"]


def test_far_too_many_images_are_called_that(client):
    body = b'{"images":[' + b'{"data":"eA=="},' * 100_000 + b'{"data":"eA=="}]}'
    answer = client.post("/v1/predict", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (413, "too_many_images")


def test_what_clients_add_to_their_images_is_no_reason_to_refuse(client):
    body = {
        "images": [
            {"name": "a, b: {c}.png", "data": "eA==", "exif": {"iso": 100, "size": [3, 4]}}
            for _ in range(64)
        ],
        "sent": {"by": ["a", "b"]},
    }
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200
    assert [v["path"] for v in answer.json()["verdicts"]] == ["a, b: {c}.png"] * 64


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/reload", "/nothing"])
def test_a_body_without_images_is_small(client, path):
    answer = client.post(path, content=empty_objects(100_000), headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"]["kind"] == "body_too_large"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (odd_maximum(16), "PPM"),
        (run_length_bitmap(64, 9000), "run-length encoded BMP"),
        (b"\xff\x4f\xff\x51" + bytes(100), "JPEG2000"),
    ],
)
def test_formats_that_are_decoded_slowly_are_for_the_command_line_alone(client, content, name):
    (verdict,) = client.post("/v1/predict", files={"images": content}).json()["verdicts"]
    assert verdict["kind"] == "unsupported"
    assert f"it is a {name} image, which is not opened here. Convert it" in verdict["error"]
    if name == "PPM":
        assert decode(content).size == (16, 16)


def test_what_hangs_delays_nobody_and_ends_with_the_service(colours):
    with client_of(colours) as client:
        decoders = client.context.models.decoders
        hanging = [decoders.submit(Sleep(), "10.0.0.1") for _ in range(8)]
        for seed in range(2):
            answer = client.post("/v1/predict", files={"images": png("red", 900 + seed)})
            assert answer.json()["verdicts"][0]["label"] in COLOURS
        # Each hangs for minutes, and its own limit is a minute.
        assert not all(future.done() for future in hanging)
    assert all(future.done() for future in hanging)


def test_where_no_more_can_wait_to_be_decoded_the_answer_says_when_to_come_back(
    client, monkeypatch
):
    def full(*_):
        raise queue.Full

    monkeypatch.setattr(client.context.models.decoders, "submit", full)
    answer = client.post("/v1/predict", files={"images": png("red", 950)})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1


def test_who_is_cut_off_when_the_service_stops_is_told_so(client):
    sent = []

    async def app(*_):
        await asyncio.sleep(LONG)

    async def send(message):
        sent.append(message)

    async def work():
        middleware = MetricsMiddleware(app, client.context)
        scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
        task = asyncio.create_task(middleware(scope, None, send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(work())
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["kind"] == "stopping"
