"""Frames of scenes, scans of patients: one image a group is calibrated and evaluated on."""

import csv
import json

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, decisions
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.images import find_labelled
from trustvlm.pipeline.label_errors import fold_of_images

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A table of 45 frames of 15 scenes, and the scene of each."""
    folder = write_class_folders(tmp_path_factory.mktemp("g") / "frames", per_class=15, seed=5)
    table = folder.parent / "frames.csv"
    images = find_labelled(folder).refs
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "scene"])
        writer.writerows([i.file, i.label, f"scene {n // 3}"] for n, i in enumerate(images))
    return table


def new_model(folder):
    model = TrustVLM(**ENCODERS, score="trustvlm_star", store=EmbeddingStore.memory())
    return model.fit(write_class_folders(folder / "shots"))


def test_one_frame_of_each_scene_is_calibrated_on_and_that_is_said(frames, tmp_path):
    model = new_model(tmp_path)
    asked = {"risk": 0.3, "confidence_level": 0.8}
    of = model.calibrate(frames, group_column="scene", **asked).calibration_
    assert (len(of.images), of.groups) == (15, "scene")
    assert of.certified
    assert "One image of each group (scene) was used, drawn at random" in of.statement
    listed = find_labelled(frames, group_column="scene")
    drawn = decisions.one_per_group(
        [image.group for image in listed.refs], [image.path for image in listed.refs]
    )
    assert [image["path"] for image in of.images] == [listed.refs[i].path for i in drawn]
    # The same from lists, and what is stored says so.
    paths = [image.file for image in listed.refs]
    scenes = [image.group for image in listed.refs]
    other = new_model(tmp_path / "b")
    other.calibrate((paths, listed.labels), groups=scenes, **asked)
    again = other.calibration_
    assert (len(again.images), again.groups) == (15, "given")
    other.vlm = other.vision = "offline"
    other.save(tmp_path / "m.trust")
    stored = json.loads((tmp_path / "m.trust" / "manifest.json").read_text())
    assert stored["calibration"]["data"]["groups"] == "given"
    loaded = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert loaded.calibration_.statement == again.statement
    with pytest.raises(InputError, match="45 images and 44 groups"):
        other.calibrate((paths, listed.labels), groups=scenes[1:])
    measured = new_model(tmp_path / "c").evaluate(frames, group_column="scene")
    assert len(measured.labels) == 15


def test_a_scene_shares_a_fold():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 90), np.repeat(rng.permutation(30), 3)
    fold = fold_of_images(labels, [], 5, groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(30))
    assert np.bincount(fold, minlength=5).min() > 8
    assert any(len(set(fold_of_images(labels, [], 5)[groups == g])) > 1 for g in range(30))


def test_a_data_set_is_checked_with_scenes_whole(frames, monkeypatch):
    from trustvlm.pipeline import label_errors

    folds = []

    def spy(*arguments):
        folds.append(fold_of_images(*arguments))
        return folds[-1]

    monkeypatch.setattr(label_errors, "fold_of_images", spy)
    # Pictures of one colour are all alike, and are taken for different ones here.
    monkeypatch.setattr(label_errors, "_copies", lambda *_: [])
    model = TrustVLM(**ENCODERS, score="auto", store=EmbeddingStore.memory())
    verdicts = model.cross_val_verify(frames, group_column="scene")
    assert len(verdicts) == 45
    assert all(len(set(folds[0][i : i + 3])) == 1 for i in range(0, 45, 3))


@pytest.mark.filterwarnings("ignore:.*were calibrated on before")
def test_an_update_counts_groups_as_the_calibration_before(frames, tmp_path):
    model = new_model(tmp_path).calibrate(frames, group_column="scene", risk=0.3)
    corrections = write_class_folders(tmp_path / "corrected", seed=9)
    renewed, _ = model.update(corrections, even_if_worse=True)
    assert renewed.calibration_.groups == "scene"
    _, change = model.add_class("odd", corrections / "red")
    assert change.calibration_statement.endswith("--risk 0.3 --group-column scene")
    # From the images themselves: the column is that of before, and folders have none.
    again, _ = model.update(corrections, calibrate_on=frames, even_if_worse=True)
    of = again.calibration_
    assert (len(of.images), of.groups) == (15, "scene")
    assert of.certificate == renewed.calibration_.certificate
    with pytest.raises(InputError, match="'scene' of groups"):
        model.update(corrections, calibrate_on=corrections)
    with pytest.raises(InputError, match="with `compare_on` or `calibrate_on`"):
        model.update(corrections, group_column="scene")
    # Given groups have no column that could be taken.
    listed = find_labelled(frames, group_column="scene")
    files, scenes = [i.file for i in listed.refs], [i.group for i in listed.refs]
    given = new_model(tmp_path / "b").calibrate((files, listed.labels), groups=scenes, risk=0.3)
    with pytest.raises(InputError, match="calibration counted groups"):
        given.update(corrections, calibrate_on=frames)
    named, _ = given.update(
        corrections, calibrate_on=frames, group_column="scene", even_if_worse=True
    )
    assert named.calibration_.groups == "scene"


def test_groups_are_said_once(frames, tmp_path):
    with pytest.raises(InputError, match="column 'scene' that says them, but got both"):
        new_model(tmp_path).evaluate(frames, group_column="scene", groups=["a"] * 45)
