"""The folder for FiftyOne, read as its importer documents it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trustvlm.adapters import write_fiftyone
from trustvlm.exceptions import InputError
from trustvlm.pipeline.verdict import Verdict, Verdicts, error_verdict

NAN = math.nan
ROWS = Verdicts(
    [
        Verdict("a.b/1.jpg", "dog", 1.25, NAN, "accept", 0.9, 0.35, "cat", "alike", ""),
        error_verdict("broken.jpg", OSError("broken.jpg is empty")),
        Verdict("a.b/1.png", "cat", 0.5, 0.75, "review", 0.4, NAN, "", "", ""),
    ]
)


def test_it_is_what_the_importer_reads(tmp_path):
    folder = write_fiftyone(ROWS, tmp_path / "out", images=tmp_path)
    data = json.loads((folder / "data.json").read_text("utf-8"))
    written = json.loads((folder / "labels.json").read_text("utf-8"))
    assert sorted(path.name for path in folder.iterdir()) == ["data.json", "labels.json"]
    assert set(data) == set(written["labels"])
    # The importer drops extensions from names and looks class numbers up.
    assert all(Path(name).stem == name for name in data)
    read = {
        data[name]: (written["classes"][label["label"]], label["confidence"], label["attributes"])
        for name, label in written["labels"].items()
    }
    assert read == {
        str(tmp_path / "a.b/1.jpg"): (
            "dog",
            1.25,
            {
                "decision": "accept",
                "text_score": 0.9,
                "image_score": 0.35,
                "runner_up": "cat",
                "reason": "alike",
                "predicted": "dog",
            },
        ),
        str(tmp_path / "a.b/1.png"): (
            "cat",
            0.5,
            {
                "p_correct": 0.75,
                "decision": "review",
                "text_score": 0.4,
                "predicted": "cat",
            },
        ),
    }


def test_nothing_to_write_is_said(tmp_path):
    with pytest.raises(InputError, match="at least one image"):
        write_fiftyone(ROWS[1:2], tmp_path)
    assert not list(tmp_path.iterdir())
