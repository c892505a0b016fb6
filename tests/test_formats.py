"""Files that version 0.1 wrote can be read for ever, and say the same as then."""

import json
import re
import shutil
from pathlib import Path

import pytest

from frozen_outputs import loaded_fixtures
from trustvlm.scores import get

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text("utf-8"))
N_STORED, _ = EXPECTED.pop("embeddings in the store")
# Ends of intervals and p-values are computed anew when files are compared, by better methods.
OF_METHODS = {"low", "high", "p_value", "p_adjusted"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    pytest.importorskip("pyarrow", reason="folders of verdicts need the extra parquet")
    copy = tmp_path_factory.mktemp("formats") / "v0_1"
    shutil.copytree(FIXTURES, copy)
    return loaded_fixtures(copy)


def assert_says(result, expected, where):
    """Everything that was said then is said now, numbers to 1e-6; more may be said."""
    if isinstance(expected, dict):
        assert expected.keys() <= result.keys(), where
        for key in expected.keys() - OF_METHODS:
            assert_says(result[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, list):
        assert len(result) == len(expected), where
        if expected and isinstance(expected[0], dict) and "score" in expected[0]:
            # In which order scores are listed is no promise.
            result, expected = (
                sorted(rows, key=lambda r: r["score"]) for rows in (result, expected)
            )
        for number, (now, then) in enumerate(zip(result, expected, strict=True)):
            assert_says(now, then, f"{where}, {number}")
    elif isinstance(expected, float):
        # Encoders differ in their last bits from one machine to another.
        assert result == pytest.approx(expected, abs=1e-6), where
    elif isinstance(expected, str):
        # Version 0.1 rounded thresholds, which are written with all their digits now.
        rounded = re.sub(
            r"(?<=the threshold )[0-9.e+-]+(?=:)", lambda t: f"{float(t[0]):.4g}", result
        )
        assert expected in (result, rounded), where
    else:
        assert result == expected, where


@pytest.mark.parametrize("name", EXPECTED)
def test_what_version_0_1_wrote_still_says_the_same(loaded, name):
    expected = EXPECTED[name]
    if name == "evaluate":
        # Scores whose values have changed on purpose since have a later revision.
        expected = {score: row for score, row in expected.items() if get(score).revision == 1}
    assert_says(loaded[name], expected, name)


def test_images_are_encoded_anew_beside_what_an_older_version_stored(loaded):
    """Its embeddings do not say which versions made the pixels: they stay, and are not used."""
    before, after = loaded["embeddings in the store"]
    n_pictures = len(list((FIXTURES / "pictures").rglob("*.png")))
    assert before == N_STORED > 0
    assert after == before + 2 * n_pictures


def test_an_interrupted_job_goes_on_behind_its_finished_parts(loaded):
    images, now = loaded["bulk images now"]
    assert 0 < now < images == len(loaded["bulk"])
