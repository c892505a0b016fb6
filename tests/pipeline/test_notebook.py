"""How verdicts show themselves in a notebook."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from trustvlm.pipeline.verdict import Verdict, Verdicts, error_verdict, folder_of

HOSTILE = "<script>alert('1')</script>\"'&"


class Cells(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.rows, self.tags, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def verdicts(n, folder=None, name="{}.png", **changes):
    values = {
        "label": "cat", "confidence": 1.5, "p_correct": math.nan, "decision": "accept",
        "text_score": 0.9, "image_score": 0.6, "runner_up": "dog", "reason": "alike", "error": "",
        **changes,
    }  # fmt: skip
    return Verdicts([Verdict(name.format(i), **values) for i in range(n)], folder=folder)


def test_a_row_says_what_the_verdict_says(tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "0.png")
    shown = Cells(verdicts(2, tmp_path)._repr_html_())
    assert shown.rows[1] == ["", "0.png", "cat", "1.500", "", "accept", "alike"]
    # One picture is there, the other is not.
    (picture,) = [attrs for tag, attrs in shown.tags if tag == "img"]
    assert picture["src"].startswith("data:image/jpeg;base64,")
    # As large as can be told, whatever stands beside it.
    assert Image.open(BytesIO(b64decode(picture["src"].partition(",")[2]))).width == 128
    assert picture["style"] == "max-width: none"


def test_a_corrected_label_is_shown_with_what_the_vlm_said():
    rows = Cells(verdicts(1, vlm_label=HOSTILE, corrected=True)._repr_html_()).rows
    assert rows[1][2] == f"cat (the VLM said {HOSTILE})"


def test_the_size_is_bounded(tmp_path):
    for i in range(30):
        noise = Image.effect_noise((256, 256), 90).convert("RGB")
        noise.save(tmp_path / f"{i}.png")
    html = verdicts(5000, tmp_path, reason="long " * 1000)._repr_html_()
    assert len(Cells(html).rows) == 21
    assert "4,980 more are not shown" in html
    assert len(html) < 400_000


def test_text_from_data_stays_text():
    html = verdicts(1, name=HOSTILE, label=HOSTILE, reason=HOSTILE)._repr_html_()
    shown = Cells(html)
    assert {tag for tag, _ in shown.tags} == {
        "div", "p", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert shown.rows[1][1:3] == [HOSTILE, HOSTILE]


def test_errors_and_nothing_are_shown_too():
    shown = Cells(Verdicts([error_verdict("a.png", OSError("a.png is empty"))])._repr_html_())
    assert shown.rows[1] == ["", "a.png", "", "", "", "error", "a.png is empty"]
    assert "0 images" in Verdicts([])._repr_html_()
    assert not re.search("nan", Verdicts([])._repr_html_())


def test_a_part_keeps_its_pictures(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "3.png")
    assert "<img" in verdicts(9, tmp_path)[3:5]._repr_html_()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("s3://bucket/a.jpg", None),
        ("photos.tar.gz", None),
        ("photos.parquet", None),
        (["a", "b.tar"], None),
        (["a", "b"], "."),
        ("lists/a.csv", "lists"),
        ("lists/a.txt", "lists"),
        ("one.jpg", "."),
    ],
)
def test_what_paths_are_relative_to(source, expected):
    folder = folder_of(source)
    assert (folder and folder.as_posix()) == expected


def test_predict_knows_where_its_pictures_are(tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    from pictures import write_class_folders
    from trustvlm import TrustVLM

    write_class_folders(tmp_path / "shots")
    model = TrustVLM(vlm="offline", vision="offline").fit(tmp_path / "shots")
    html = model.predict(write_class_folders(tmp_path / "new", per_class=1))._repr_html_()
    assert html.count("<img") == len(list((tmp_path / "new").iterdir()))
