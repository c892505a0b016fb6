"""What is there, as a list and as `trustvlm datasets`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from command import Command
from dataset_trees import ROWS, ZHOU, plant_cifar10, plant_files, plant_zhou
from trustvlm import datasets
from trustvlm.exceptions import InputError
from trustvlm.images import read_classes

COUNTS = {split: len(rows) for split, rows in ROWS.items()}


@pytest.fixture
def run(capsys, monkeypatch):
    return Command(capsys, monkeypatch)


def small(name):
    return replace(datasets.get(name), counts=COUNTS, n_classes=3)


def test_the_four_states(tmp_path):
    for name in ("dtd", "pets", "eurosat"):
        plant_zhou(tmp_path, name)
    (tmp_path / "OxfordPets" / "images" / "apple" / "1.jpg").unlink()
    specs = [small("dtd"), small("pets"), datasets.get("eurosat"), small("cars")]
    complete, partial, differs, absent = datasets.status(tmp_path, specs=specs)

    assert (complete.state, complete.details) == ("complete", ())
    assert (complete.name, complete.folder) == ("dtd", tmp_path / "DTD")
    assert complete.counts == COUNTS

    assert partial.state == "partial"
    assert partial.counts == COUNTS
    assert partial.details == ("test: 1 of 3 images missing or empty, such as 'apple/1.jpg'.",)

    assert differs.state == "counts differ"
    assert len(differs.details) == 3
    assert differs.details[2] == (
        "test: expected 8100 images, but found 3; expected 10 classes, but found 3."
    )

    assert (absent.state, absent.folder) == ("absent", None)
    assert absent.counts == {"train": None, "val": None, "test": None}
    assert "'StanfordCars'" in absent.details[0]


def test_a_missing_split_file_is_said_once(tmp_path):
    home = plant_zhou(tmp_path, "ucf101")
    (home / ZHOU["ucf101"][2]).unlink()
    (result,) = datasets.status(tmp_path, specs=[small("ucf101")])
    assert result.state == "partial"
    assert result.counts == {"train": None, "val": None, "test": None}
    assert len(result.details) == 1
    assert "'split_zhou_UCF101.json'" in result.details[0]


def test_split_files_in_a_folder_of_their_own(tmp_path):
    plant_zhou(tmp_path / "data", "ucf101", splits_dir=tmp_path / "splits")
    (result,) = datasets.status(
        tmp_path / "data", splits_dir=tmp_path / "splits", specs=[small("ucf101")]
    )
    assert result.state == "complete"


def test_half_of_imagenet(tmp_path):
    wnids = [entry.wnid for entry in datasets.imagenet_classes()]
    plant_files(tmp_path / "ImageNet" / "val", (f"{w}/1.JPEG" for w in wnids))
    spec = replace(datasets.get("imagenet"), counts={"train": 1000, "test": 1000})
    (result,) = datasets.status(tmp_path, specs=[spec])
    assert (result.state, result.counts) == ("partial", {"train": None, "test": 1000})
    assert "train" in result.details[0]


def test_no_root(tmp_path):
    with pytest.raises(InputError, match="`root` to be a folder"):
        datasets.status(tmp_path / "nowhere")


def test_the_command_prints_class_names_as_fit_reads_them(run, tmp_path):
    done = run("datasets", "--classes", "imagenet-r")
    assert done.code == 0, done.err
    (tmp_path / "classes.txt").write_text(done.out)
    assert read_classes(tmp_path / "classes.txt") == datasets.imagenet_class_list("imagenet-r")
    assert "in its own files" in run("datasets", "--classes", "dtd").err


def test_command_without_a_root_prints_what_is_known(run):
    done = run("datasets")
    assert (done.code, done.err) == (0, "")
    lines = {line.split()[0]: line.split() for line in done.out.splitlines() if line.split()}
    assert lines["flowers102"] == [
        "flowers102", "102", "4093", "1633", "2463", "Flower102/jpg",
        "split_zhou_OxfordFlowers.json",
    ]  # fmt: skip
    assert lines["imagenet-v2"][1:4] == [
        "1000", "10000", "imagenetv2-matched-frequency-format-val",
    ]  # fmt: skip
    assert set(datasets.names()) <= lines.keys()
    as_json = json.loads(run("datasets", "--json").out)
    assert [entry["name"] for entry in as_json] == list(datasets.names())
    assert as_json[2]["counts"] == {"train": 2944, "val": 736, "test": 3669}
    assert all(entry["citation"] for entry in as_json)


def test_command_with_a_root_says_what_is_there(run, tmp_path):
    root = tmp_path / "my [red]data[/red] é"
    plant_zhou(root, "dtd")
    plant_zhou(root, "caltech101", folder="caltech-101")
    (root / "caltech-101" / "101_ObjectCategories" / "apple" / "1.jpg").unlink()
    plant_cifar10(root)
    done = run("datasets", "--root", root)
    assert (done.code, done.err) == (0, "")
    table = done.out.split("\n\n")[0]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["dtd"] == ["counts", "differ", "2", "1", "3", "DTD"]
    assert rows["caltech101"] == ["partial", "2", "1", "3", "caltech-101"]
    assert rows["cifar10"] == ["counts", "differ", "10", "2", "cifar-10-batches-py"]
    assert rows["imagenet"] == ["absent"]
    assert "such as 'apple/1.jpg'" in done.out
    assert "0 of 17 sets are complete." in done.out

    entries = json.loads(run("datasets", "--root", root, "--json").out)
    result = {entry["name"]: entry for entry in entries}
    assert result["caltech101"]["folder"] == str(root / "caltech-101")
    assert result["cifar10"]["counts"] == {"train": 10, "test": 2}
    assert result["pets"]["state"] == "absent"
    assert result["pets"]["folder"] is None


def test_command_with_splits_elsewhere(run, tmp_path):
    plant_zhou(tmp_path / "data", "dtd", splits_dir=tmp_path / "splits")
    lacking = run("datasets", "--root", tmp_path / "data")
    assert (lacking.code, "split_zhou_DescribableTextures.json" in lacking.out) == (0, True)
    done = run("datasets", "--root", tmp_path / "data", "--splits", tmp_path / "splits")
    assert "expected 1692 images, but found 3" in done.out


def test_command_with_a_root_that_does_not_exist(run, tmp_path):
    done = run("datasets", "--root", tmp_path / "nowhere")
    assert (done.code, done.out) == (1, "")
    assert "there is no folder" in done.err


def test_command_with_splits_but_no_root(run, tmp_path):
    done = run("datasets", "--splits", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "--root" in done.err
