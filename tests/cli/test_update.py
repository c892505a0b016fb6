"""`trustvlm update` and its words; what it does is tested with the pipeline and the service."""

import json

import pytest

from pictures import write_class_folders
from trustvlm import TrustVLM


@pytest.fixture
def corrected(tmp_path):
    return write_class_folders(tmp_path / "corrected", 4, seed=21)


def test_the_comparison_is_printed_and_written(trustvlm, fitted, corrected, tmp_path):
    output, figures = tmp_path / "new.trust", tmp_path / "new.json"
    done = trustvlm("update", fitted, corrected, "-o", output, "--json", figures)
    assert done.code == 0, done.err
    assert "12 corrections added to 12 examples." in done.out
    assert "on 12 corrections:" in done.out
    assert "says nothing of other images" in " ".join(done.err.split())
    assert len(TrustVLM.load(output).shots_) == 24
    written = json.loads(figures.read_text())
    assert written["comparisons"][0]["statement"] in done.out
    assert (written["calibration"], written["worse"]) == ("none", False)


def test_other_images_may_be_compared_on(trustvlm, fitted, corrected, photos, tmp_path):
    words = ("update", fitted, corrected, "-o", tmp_path / "new.trust", "--compare-on", photos)
    done = trustvlm(*words, "--quiet")
    assert done.code == 0, done.err
    assert "on 15 images of photos:" in done.out
    assert done.err == ""


def test_what_cannot_be_read_is_named_and_the_exit_code_is_3(trustvlm, fitted, corrected, tmp_path):
    (corrected / "red" / "zz.png").write_bytes(b"no image")
    done = trustvlm("update", fitted, corrected, "-o", tmp_path / "new.trust")
    assert done.code == 3
    assert "red/zz.png" in done.err
    assert len(TrustVLM.load(tmp_path / "new.trust").shots_) == 24


def test_a_file_that_is_no_database_stays_as_it_is(trustvlm, fitted, tmp_path):
    file = tmp_path / "answers.sqlite"
    file.write_bytes(b"x")
    done = trustvlm("update", fitted, file, "-o", tmp_path / "new.trust")
    assert done.code == 1
    assert "There is no feedback database" in done.err
    assert file.read_bytes() == b"x"
    named = trustvlm("update", fitted, "c.csv", "-o", tmp_path / "n.trust", "--answers-of", "x")
    assert "Expected --answers-of with" in named.err


def test_a_calibrated_model_is_replaced_on_purpose_only(
    trustvlm, fitted, corrected, photos, tmp_path
):
    path = tmp_path / "c.trust"
    TrustVLM.load(fitted).calibrate(photos, risk=0.3).save(path)
    refused = trustvlm("update", path, corrected, "-o", path)
    assert refused.code == 1
    assert "--overwrite" in refused.err
    done = trustvlm("update", path, corrected, "-o", path, "--overwrite")
    assert done.code == 0, done.err
    assert "Calibration renewed:" in done.out
    assert len(TrustVLM.load(path).shots_) == 24
