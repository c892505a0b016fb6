"""The file of an evaluation holds all that another program needs to measure again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluations import empty_evaluation, make_evaluation
from trustvlm import metrics
from trustvlm.pipeline.evaluate import evaluation_json, images_of

HASHES = tuple(f"{i:064x}" for i in range(60))


def test_every_metric_can_be_computed_from_it_again():
    evaluation = make_evaluation(hashes=HASHES)
    stored = json.loads(evaluation_json(evaluation))
    images = stored["images"]
    assert images["sha256"] == list(HASHES)
    assert images["path"] == evaluation.verdicts.column("path")
    assert {row["score"] for row in stored["rows"]} == set(images["scores"])
    for row in stored["rows"]:
        said = images["scores"][row["score"]]
        correct = np.array(said["prediction"]) == np.array(images["label"])
        assert metrics.aurc(said["confidence"], correct) == row["aurc"]
        assert correct.mean() == pytest.approx(row["accuracy"])


def test_it_adds_to_what_was_there_and_stays_readable():
    evaluation = make_evaluation(hashes=HASHES)
    stored = json.loads(evaluation_json(evaluation))
    assert stored.pop("images") == images_of(evaluation)
    assert stored == json.loads(json.dumps(evaluation.to_dict()))
    assert stored["data"] == {"name": "photos", "n": 60, "fingerprint": evaluation.fingerprint}
    assert len(evaluation_json(evaluation).splitlines()) < 250


def test_contents_that_are_not_known_are_null():
    stored = json.loads(evaluation_json(make_evaluation()))
    assert set(stored["images"]["sha256"]) == {None}
    assert stored["data"]["fingerprint"] is None


def test_no_image_is_no_obstacle():
    stored = json.loads(evaluation_json(empty_evaluation()))
    assert stored["images"]["path"] == []
    assert stored["data"]["n"] == 0
