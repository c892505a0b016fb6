"""Test images that are also shots: named and left out, or kept; and those that resemble one."""

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from command import Command
from pictures import coarse_picture
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import encode_datasets, run_grid
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError

STUDY = """
out = "results"
shots = [2]
scores = ["msp", "trustvlm"]
studies = []
{extra}
[[models]]
vlm = "offline"
vision = "same"
[[datasets]]
name = "colours"
train = "colours/train"
test = ["colours/test"]
"""
COLOURS = {"red": (200, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 200)}


@pytest.fixture
def study(tmp_path):
    """Two training and three test images a class; the first test image of each is a shot."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    for c, (name, colour) in enumerate(COLOURS.items()):
        for split, count, seed in (("train", 2, 0), ("test", 3, 50)):
            folder = tmp_path / "colours" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                coarse_picture(colour, seed + 100 * c + i).save(folder / f"{i}.png")
        shutil.copy(tmp_path / f"colours/train/{name}/0.png", folder / "0.png")
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(extra=""))
    return path


def shared(study):
    text = (study.parent / "results" / "shared-images.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def test_a_test_image_that_is_a_shot_is_named_and_left_out(study):
    store = EmbeddingStore.memory()
    grid = run_grid(read_config(study), store=store)
    (note,) = [note for note in grid.notes if "by content" in note]
    assert note == (
        "3 of 9 images of colours/test are also training images, by content (blue/0.png, "
        "green/0.png, red/0.png), and left out."
    )
    assert [(row["image"], row["other"], row["kept"]) for row in shared(study)] == [
        (f"{name}/0.png", f"{name}/0.png", "False") for name in sorted(COLOURS)
    ]
    # The numbers are those of a test set that never had these images.
    for name in COLOURS:
        (study.parent / "colours" / "test" / name / "0.png").unlink()
    clean = run_grid(read_config(study), store=store)
    assert clean.computed == 0
    assert [row["n"] for row in clean.rows] == [6, 6]
    assert clean.rows == grid.rows
    assert not [note for note in clean.notes if "by content" in note]
    assert not (study.parent / "results" / "shared-images.csv").exists()


def test_or_kept_by_an_option_that_says_so(study):
    study.write_text(STUDY.format(extra='shared_images = "keep"'))
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert [row["n"] for row in grid.rows] == [9, 9]
    (note,) = [note for note in grid.notes if "by content" in note]
    assert note.endswith("and kept: scores that learn from them look better than they are.")
    assert {row["kept"] for row in shared(study)} == {"True"}


def test_the_command_for_one_study_says_it_too(study, capsys, monkeypatch):
    study.write_text(study.read_text().replace('["msp", "trustvlm"]', '"all"'))
    done = Command(capsys, monkeypatch)("bench", "study", "missing", study)
    assert done.code == 0, done.err
    assert "3 of 9 images of colours/test are also training images" in done.err
    assert len(shared(study)) == 3


def test_settings_are_not_selected_on_images_that_are_kept(study):
    study.write_text(STUDY.format(extra='shared_images = "keep"\npreset = "loo"'))
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert all("cannot be kept where settings are selected" in row["error"] for row in grid.rows)
    study.write_text(STUDY.format(extra='preset = "loo"'))
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert [row["n"] for row in grid.rows] == [6, 6]


def test_validation_images_that_are_shots_are_left_out_too(study):
    study.write_text(STUDY.format(extra='preset = "validation"') + 'val = "colours/val"\n')
    shutil.copytree(study.parent / "colours" / "train", study.parent / "colours" / "val")
    for c, (name, colour) in enumerate(COLOURS.items()):
        coarse_picture(colour, 900 + c).save(study.parent / "colours" / "val" / name / "new.png")
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert [row["selection"]["n"] for row in grid.rows if "selection" in row] == [3]
    assert any("6 of 9 images of colours/val are also training" in note for note in grid.notes)


def test_nothing_left_is_an_error_of_that_set(study):
    shutil.rmtree(study.parent / "colours" / "test")
    shutil.copytree(study.parent / "colours" / "train", study.parent / "colours" / "test")
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert all("6 of 6 images of colours/test are also training" in r["error"] for r in grid.rows)


def test_images_that_resemble_a_shot_are_listed(study):
    """One test image is a shot with one pixel changed; against cosines by hand."""
    source = study.parent / "colours" / "train" / "red" / "1.png"
    pixels = np.asarray(Image.open(source)).copy()
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(study.parent / "colours" / "test" / "red" / "copy.png")
    study.write_text(STUDY.format(extra="near_duplicates = true"))
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    # The encoder is named, whose image tower `same` stands for.
    assert any(
        re.search(r"closely resemble a shot .* by the image tower of offline\)", n)
        for n in grid.notes
    )
    assert {row["vision"] for row in shared(study)} == {"the image tower of offline"}
    assert {row["n"] for row in grid.rows} == {7}
    near = [row for row in shared(study) if row["same_content"] == "False"]
    (encoded,) = encode_datasets(read_config(study), EmbeddingStore.memory(), notes=[])
    unit = [
        arrays.features / np.linalg.norm(arrays.features, axis=1, keepdims=True)
        for arrays in (encoded.tests[0], encoded.support)
    ]
    cosines = (unit[0].astype(float) @ unit[1].T).max(axis=1)
    assert ("red/copy.png", "red/1.png") in {(row["image"], row["other"]) for row in near}
    assert float(near[0]["cosine"]) == pytest.approx(cosines.max(), abs=1e-6)
    assert len(near) == (cosines > 0.95).sum()
    assert {row["kept"] for row in near} == {"True"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('shared_images = "hide"', "`shared_images` among drop, keep, but got 'hide'"),
        ("near_duplicates = 1", "Expected `near_duplicates` to be true or false"),
    ],
)
def test_wrong_options(study, extra, message):
    study.write_text(STUDY.format(extra=extra))
    with pytest.raises(InputError, match=message):
        read_config(study)
