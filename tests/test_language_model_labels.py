"""The example that asks a language model for labels, against a local stand-in of an endpoint."""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "label_with_a_language_model.py"
CLASSES = ["blue", "green", "red"]


class StandIn(BaseHTTPRequestHandler):
    """Answers as an endpoint of the OpenAI kind would; it goes by the colour, and by no model."""

    def do_POST(self) -> None:
        """Answer with the letter of the strongest colour, at a probability of 0.8."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        assert self.headers["Authorization"] == "Bearer secret"
        text, image = body["messages"][0]["content"]
        assert "A: blue\nB: green\nC: red" in text["text"]
        kind, _, data = image["image_url"]["url"].partition(";base64,")
        assert kind == "data:image/png"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        letter = "CBA"[int(pixels.reshape(-1, 3).mean(axis=0).argmax())]
        tokens = [
            (letter, 0.4),
            (f" {letter}", 0.2),
            ("Z", 0.2),
            ("ABC"["BCA".index(letter)], 0.15),
        ]
        top = [{"token": token, "logprob": math.log(p)} for token, p in tokens]
        answer = {
            "choices": [
                {
                    "message": {"content": f" {letter}"},
                    "logprobs": {"content": [{"token": letter, "top_logprobs": top}]},
                }
            ]
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LLM_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
    monkeypatch.setenv("LLM_KEY", "secret")
    monkeypatch.setenv("LLM_MODEL", "stand-in")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("label_with_a_language_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_verify_reads(endpoint, example, tmp_path, monkeypatch) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=3, seed=7)
    shots = write_class_folders(tmp_path / "shots")
    output = tmp_path / "labels.csv"
    monkeypatch.setattr("sys.argv", ["x", str(photos), ",".join(CLASSES), "-o", str(output)])
    assert example.main() == 0
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["label"] for row in rows] == [Path(row["path"]).parent.name for row in rows]
    # Of the tokens that are a class, 0.4 + 0.2 of 0.75 are this one.
    assert {float(row["label_confidence"]) for row in rows} == {0.8}
    encoder = PixelEncoder(seed=2, dim=9)
    model = TrustVLM("none", encoder, store=EmbeddingStore.memory()).fit(shots)
    verdicts = model.verify(output)
    assert verdicts.column("label") == [row["label"] for row in rows]
    plain = model.verify([row["path"] for row in rows], [row["label"] for row in rows])
    added = np.subtract(verdicts.column("confidence"), plain.column("confidence"))
    assert added == pytest.approx(0.5 * math.log(4))


def test_images_without_an_answer_are_named_and_the_rest_goes_on(
    example, tmp_path, monkeypatch, capsys
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    monkeypatch.setenv("LLM_MODEL", "none")
    monkeypatch.setenv("LLM_URL", "http://127.0.0.1:9")
    output = tmp_path / "labels.csv"
    monkeypatch.setattr("sys.argv", ["x", str(photos), "a,b", "-o", str(output)])
    assert example.main() == 1
    assert capsys.readouterr().err.count(".png: ") == 3
    assert output.read_text().splitlines() == ["path,label,label_confidence"]


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("A", "bird"),
        (" c. ", "dog"),
        ("Cat", "cat"),
        ("Bird of prey", "Bird of prey"),
        ("D", "D"),
        ("A or B", "A or B"),
    ],
)
def test_a_word_is_not_taken_for_the_letter_it_begins_with(example, monkeypatch, content, label):
    monkeypatch.setenv("LLM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LLM_MODEL", "none")

    def answer(*_, **__):
        return io.BytesIO(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

    monkeypatch.setattr(example.urllib.request, "urlopen", answer)
    assert example.ask(b"", "image/png", ["bird", "cat", "dog"]) == (label, None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [{"message": {"content": None}}]}, "the answer is empty"),
        ({"choices": []}, "not of the form expected"),
        ({"choices": None}, "not of the form expected"),
        ({"error": "no quota"}, "not of the form expected"),
        (None, "Expecting value"),
    ],
)
def test_odd_answers_are_named_and_the_rest_goes_on(
    example, tmp_path, monkeypatch, capsys, answer, message
):
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    monkeypatch.setenv("LLM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LLM_MODEL", "none")
    content = b"" if answer is None else json.dumps(answer).encode()
    monkeypatch.setattr(example.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(content))
    arguments = ["x", str(photos), "a,b", "-o", str(tmp_path / "labels.csv")]
    monkeypatch.setattr("sys.argv", arguments)
    assert example.main() == 1
    assert capsys.readouterr().err.count(message) == 3


def test_mistakes_are_named_before_anything_is_asked(example, tmp_path, monkeypatch, capsys):
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    output = tmp_path / "labels.csv"
    monkeypatch.delenv("LLM_URL", raising=False)
    monkeypatch.setenv("LLM_MODEL", "none")

    def refused(photos, classes):
        monkeypatch.setattr("sys.argv", ["x", str(photos), classes, "-o", str(output)])
        with pytest.raises(SystemExit):
            example.main()
        return capsys.readouterr().err

    assert "LLM_URL in the environment" in refused(photos, "a,b")
    monkeypatch.setenv("LLM_URL", "http://127.0.0.1:9")
    assert "nowhere" in refused(tmp_path / "nowhere", "a,b")
    assert "distinct names" in refused(photos, "a,,b")
    assert "distinct names" in refused(photos, "a,A")
    assert not output.exists()
    output.write_text("path,label\n")
    assert "may have cost something" in refused(photos, "a,b")
    assert output.read_text() == "path,label\n"
