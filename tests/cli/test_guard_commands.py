"""`trustvlm advise` and `trustvlm monitor`."""

import json

import pytest

from pictures import write_class_folders


def test_advise_prints_health_and_names_what_to_label(trustvlm, fitted, photos, tmp_path):
    done = trustvlm("advise", fitted)
    assert done.code == 0, done.err
    assert done.out.startswith("12 example images of 3 classes: ")
    assert "Label next, by the examples alone" in done.out
    done = trustvlm("advise", fitted, photos, "--json", tmp_path / "a.json", "--quiet")
    assert done.code == 0, done.err
    assert done.err == ""
    assert "tried out on 15 labelled images" in done.out
    stored = json.loads((tmp_path / "a.json").read_text())
    assert stored["label_next"]["n"] == 15
    assert stored["health"]["shots"] == 12


def test_advise_shows_what_is_wrong(trustvlm, tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    shots = write_class_folders(tmp_path / "shots", per_class=8)
    (shots / "red" / "wrong.png").write_bytes((shots / "blue" / "03.png").read_bytes())
    done = trustvlm("fit", shots, "-o", tmp_path / "m.trust", "--vlm", "offline")
    assert done.code == 0, done.err
    done = trustvlm("advise", tmp_path / "m.trust")
    assert "Labels that look wrong" in done.out
    assert "red/wrong.png: labelled 'red', looks like 'blue'" in done.out
    assert "Expected to be wrong: 1.0 of all 1; " in done.out
    assert "filed under two classes, 'blue' and 'red'" in done.out


def test_advise_reports_unreadable_and_wrong_input(trustvlm, fitted, photos, tmp_path):
    done = trustvlm("advise", fitted, tmp_path / "none")
    assert done.code == 1
    assert "none" in done.err
    done = trustvlm("advise", fitted, photos, "--risk", "2")
    assert done.code == 1
    assert "risk" in done.err
    (photos / "red" / "zz_broken.png").write_bytes(b"")
    done = trustvlm("advise", fitted, photos)
    (photos / "red" / "zz_broken.png").unlink()
    assert done.code == 3
    assert "zz_broken.png" in done.err


def test_monitor_goes_on_from_its_state(trustvlm, fitted, photos, tmp_path):
    state = tmp_path / "drift.json"
    done = trustvlm("monitor", fitted, photos, "--state", state, "--json", tmp_path / "d.json")
    assert done.code == 0, done.err
    assert done.out.startswith("No drift: 15 new images, 15 images in all; they look like the 12 ")
    assert "12 images to compare with" in done.err
    assert json.loads((tmp_path / "d.json").read_text())["drifted"] is False
    again = trustvlm("monitor", fitted, photos, "--state", state, "--quiet")
    assert "0 new images, 15 images in all (15 images seen before left out)" in again.out
    assert again.err == ""


def test_monitor_says_what_drifted_and_exits_with_4(trustvlm, fitted, tmp_path):
    ordinary = write_class_folders(tmp_path / "ordinary", per_class=8, seed=3)
    other = write_class_folders(tmp_path / "other", per_class=40, colours={"red": (250, 250, 250)})
    state = tmp_path / "drift.json"
    start = ["monitor", fitted, "--state", state]
    done = trustvlm(*start, ordinary, "--reference", ordinary)
    assert done.code == 0, done.err
    assert "the 24 reference images" in done.out
    done = trustvlm(*start, other, "--json", tmp_path / "d.json")
    assert done.code == 4, done.out
    assert done.out.startswith("Drift: incoming images no longer look like the 24 reference images")
    assert "the similarity to the examples" in done.out
    assert "at most 1 in 10,000" in done.out
    stored = json.loads((tmp_path / "d.json").read_text())
    assert stored["drifted"]
    assert stored["images"] == 64
    assert trustvlm(*start, ordinary).code == 4, "the alarm stays"


def test_monitor_reports_unreadable_and_wrong_input(trustvlm, fitted, photos, tmp_path):
    assert trustvlm("monitor", fitted, tmp_path / "none").code == 1
    (photos / "red" / "zz_broken.png").write_bytes(b"")
    done = trustvlm("monitor", fitted, photos)
    (photos / "red" / "zz_broken.png").unlink()
    assert done.code == 3
    assert "zz_broken.png" in done.err
    done = trustvlm("monitor", fitted, photos, "--false-alarm", "2")
    assert done.code == 1
    assert "false_alarm" in done.err


def test_evaluate_warns_of_near_copies_and_shows_the_examples(trustvlm, fitted, shots, tmp_path):
    """Coloured noise: pictures of one colour are nearly the same to the encoder."""
    labelled = write_class_folders(tmp_path / "labelled", per_class=4, seed=11)
    done = trustvlm("evaluate", fitted, labelled, "--report", tmp_path / "report")
    assert done.code == 0, done.err
    page = (tmp_path / "report" / "index.html").read_text()
    assert 'id="examples"' in page
    assert "12 example images of 3 classes" in page
    assert "7 images are nearly the same as an example image" in done.err
    assert "7 images are nearly the same as an example image" in page


def test_commands_are_in_the_help(trustvlm):
    overview = trustvlm("--help").out
    for command in ("advise", "monitor"):
        assert command in overview
        assert f"trustvlm {command}" in trustvlm(command, "--help").out.split("Example:")[1]
    assert "(predict, verify, monitor)" in " ".join(overview.split())
