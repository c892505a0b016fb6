"""Sets whose splits are in a `split_zhou_*.json`, and FGVC-Aircraft's text files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from dataset_trees import ROWS, ZHOU, plant, plant_aircraft, plant_zhou
from trustvlm import datasets
from trustvlm.exceptions import ImageError, InputError, TrustVLMWarning
from trustvlm.images import decode
from trustvlm.scores.few_shot import draw_shots

COUNTS = {split: len(rows) for split, rows in ROWS.items()}


def small(name, **facts):
    """The facts of a set, with the counts of the miniature."""
    return replace(datasets.get(name), **{"counts": COUNTS, "n_classes": 3, **facts})


@pytest.mark.parametrize("name", ZHOU)
@pytest.mark.parametrize("layout", ["usual", "CoOp"])
def test_each_set_in_its_layout(tmp_path, name, layout):
    spec = small(name)
    folder = spec.folders[0 if layout == "usual" else 1]
    plant_zhou(tmp_path, name, folder=folder)
    dataset = datasets.load(spec, tmp_path, strict=True)
    base = "/".join(part for part in (folder, ZHOU[name][1]) if part)
    assert [ref.path for ref in dataset.refs] == [f"{base}/{row[0]}" for row in ROWS["test"]]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [2, 0, 2]
    assert dataset.class_names == dataset.class_ids == ("puffy cloud", "sea_lion", "apple")
    assert [ref.label for ref in dataset.refs] == ["apple", "puffy cloud", "apple"]
    assert dataset.counts.tolist() == [1, 0, 2]
    assert (len(dataset), dataset.n_classes, dataset.missing) == (3, 3, ())
    assert dataset.folder == tmp_path / folder
    assert all(decode(ref.read(), name=ref.path).size == (8, 8) for ref in dataset.refs)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_split_has_all_classes_and_the_order_of_the_file(tmp_path, split):
    plant_zhou(tmp_path, "dtd")
    dataset = datasets.load(small("dtd"), tmp_path, split, strict=True)
    assert [ref.path for ref in dataset.refs] == [f"DTD/images/{row[0]}" for row in ROWS[split]]
    assert dataset.labels.tolist() == [row[1] for row in ROWS[split]]
    assert dataset.n_classes == 3


def test_images_in_the_folder_of_the_set_as_tpt_has_them(tmp_path):
    plant_zhou(tmp_path, "pets", images="")
    dataset = datasets.load(small("pets"), tmp_path, strict=True)
    assert dataset.refs[0].path == "OxfordPets/apple/2.jpg"
    assert dataset.refs[0].read().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "folder", "images"),
    [
        # As torchvision lays them down.
        ("flowers102", "flowers-102", "jpg"),
        ("dtd", "dtd", "dtd/images"),
        ("pets", "oxford-iiit-pet", "images"),
        ("cars", "stanford_cars", ""),
        ("caltech101", "caltech101", "101_ObjectCategories"),
        ("food101", "food-101", "images"),
        ("sun397", "SUN397", ""),
        ("eurosat", "eurosat", "2750"),
        # As the archives unpack in a folder of the set.
        ("dtd", "DTD", "dtd/images"),
        ("caltech101", "Caltech101", "caltech-101/101_ObjectCategories"),
        ("food101", "Food101", "food-101/images"),
        ("eurosat", "EuroSAT_RGB", ""),
        ("eurosat", "EuroSAT", "EuroSAT_RGB"),
        ("ucf101", "UCF101", "UCF-101-midframes"),
    ],
)
def test_layouts_of_torchvision_and_of_the_archives(tmp_path, name, folder, images):
    splits = tmp_path / "splits"
    plant_zhou(tmp_path / "data", name, folder=folder, images=images, splits_dir=splits)
    dataset = datasets.load(small(name), tmp_path / "data", splits_dir=splits, strict=True)
    base = "/".join(part for part in (folder, images) if part)
    assert [ref.path for ref in dataset.refs] == [f"{base}/{row[0]}" for row in ROWS["test"]]
    assert dataset.refs[0].read()


@pytest.mark.parametrize(
    "folder",
    [
        "fgvc_aircraft",
        "fgvc-aircraft-2013b/data",
        "fgvc_aircraft/data",
        "fgvc_aircraft/fgvc-aircraft-2013b/data",
    ],
)
def test_aircraft_as_its_archive_unpacks(tmp_path, folder):
    lists = {"train": ["1 A"], "val": ["2 B"], "test": ["3 B"]}
    home = plant_aircraft(tmp_path / "made", lists, "A\nB\n")
    (tmp_path / "data" / folder).parent.mkdir(parents=True)
    shutil.move(home, tmp_path / "data" / folder)
    counts = dict.fromkeys(lists, 1)
    spec = replace(datasets.get("aircraft"), counts=counts, n_classes=2)
    dataset = datasets.load(spec, tmp_path / "data", strict=True)
    assert dataset.labels.tolist() == [1]
    assert dataset.refs[0].read()


def test_spaces_and_other_alphabets_in_the_root(tmp_path):
    root = tmp_path / "мои данные, part 1" / "картинки é"
    plant_zhou(root, "sun397")
    dataset = datasets.load(small("sun397"), root, "val", strict=True)
    assert dataset.refs[0].path == "SUN397/SUN397/sea lion/é 1.jpg"
    assert dataset.refs[0].read()


@pytest.mark.parametrize("inside", ["", "Food101", "food-101"])
def test_a_split_file_elsewhere(tmp_path, inside):
    splits = tmp_path / "all splits"
    plant_zhou(tmp_path / "data", "food101", splits_dir=splits / inside)
    dataset = datasets.load(small("food101"), tmp_path / "data", splits_dir=splits, strict=True)
    assert len(dataset) == 3
    with pytest.raises(InputError, match=r"'split_zhou_Food101.json', but .* holds images/\."):
        datasets.load("food101", tmp_path / "data")


def test_the_named_folder_is_looked_at_first(tmp_path):
    home = plant_zhou(tmp_path, "dtd")
    shorter = {**ROWS, "test": ROWS["test"][:1]}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ZHOU["dtd"][2]).write_text(json.dumps(shorter))
    with pytest.warns(TrustVLMWarning, match="expected 3 images, but found 1"):
        assert len(datasets.load(small("dtd"), tmp_path, splits_dir=tmp_path / "other")) == 1
    assert home.is_dir()
    with pytest.raises(InputError, match="`splits_dir` to be a folder"):
        datasets.load("dtd", tmp_path, splits_dir=tmp_path / "nowhere")


def test_counts_that_differ_are_a_warning_or_refused(tmp_path):
    plant_zhou(tmp_path, "eurosat")
    message = (
        r"EuroSAT, test, in '.*eurosat': expected 8100 images, but found 3; expected 10 classes, "
        r"but found 3\. Numbers will not be comparable"
    )
    with pytest.warns(TrustVLMWarning, match=message) as caught:
        assert len(datasets.load("eurosat", tmp_path)) == 3
    assert caught[0].filename == __file__
    with pytest.raises(InputError, match=message):
        datasets.load("eurosat", tmp_path, strict=True)


def test_missing_images_are_reported_and_stay(tmp_path):
    home = plant_zhou(tmp_path, "dtd")
    (home / "images" / "apple" / "1.jpg").unlink()
    with pytest.warns(TrustVLMWarning, match=r"1 of 3 images missing .*, such as 'apple/1.jpg'"):
        dataset = datasets.load(small("dtd"), tmp_path)
    assert len(dataset.refs) == len(dataset.labels) == 3
    assert dataset.missing == ("apple/1.jpg",)
    with pytest.raises(ImageError, match=r"DTD/images/apple/1\.jpg: there is no such file"):
        dataset.refs[2].read()
    shutil.rmtree(home / "images")
    with pytest.raises(InputError, match=r"such as 'apple/2.jpg', under '.*DTD/images', but not"):
        datasets.load(small("dtd"), tmp_path)


def test_a_folder_in_the_place_of_an_image_is_read_as_an_error(tmp_path):
    home = plant_zhou(tmp_path, "dtd")
    (home / "images" / "apple" / "1.jpg").unlink()
    (home / "images" / "apple" / "1.jpg").mkdir()
    dataset = datasets.load(small("dtd"), tmp_path)
    with pytest.raises(ImageError, match="this is a folder"):
        dataset.refs[2].read()


def test_wrong_case_of_the_folder(tmp_path):
    plant_zhou(tmp_path, "flowers102", folder="flower102")
    if (tmp_path / "Flower102").is_dir():
        pytest.skip("this file system ignores case")
    with pytest.raises(
        InputError, match=r"'Flower102' \(or 'oxford_flowers', 'flowers-102'\) under .* holds flow"
    ):
        datasets.load("flowers102", tmp_path)
    with pytest.raises(InputError, match="Rename 'flower102' to 'Flower102'"):
        datasets.load("flowers102", tmp_path)


def test_the_folder_of_the_set_in_the_place_of_the_root(tmp_path):
    home = plant_zhou(tmp_path, "dtd")
    with pytest.raises(InputError, match="Name the folder above it, "):
        datasets.load("dtd", home)


def test_an_absent_set_lists_what_there_is(tmp_path):
    plant(tmp_path, [f"other{i:02d}/1.jpg" for i in range(20)])
    with pytest.raises(InputError, match=r"'UCF101' .*other00/, .*other11/, \.\.\. \(20 in all\)"):
        datasets.load("ucf101", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "to be JSON, but: "),
        ("[]", "lists train, val and test, but got a list"),
        ('{"train": [], "test": []}', r"but got \['test', 'train'\]"),
        ('{"train": {}, "val": [], "test": []}', "'train' in .* to be a list, but got a dict"),
    ],
)
def test_split_files_of_another_form(tmp_path, content, message):
    home = plant_zhou(tmp_path, "dtd")
    (home / ZHOU["dtd"][2]).write_text(content)
    with pytest.raises(InputError, match=message):
        datasets.load("dtd", tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        ["a.jpg", 0],
        "a.jpg",
        ["a.jpg", "0", "a"],
        ["a.jpg", True, "a"],
        ["a.jpg", -1, "a"],
        ["a.jpg", 0, " "],
        [7, 0, "a"],
        ["", 0, "a"],
        ["/etc/passwd", 0, "a"],
        ["../../secret.jpg", 0, "a"],
        ["a/../../b.jpg", 0, "a"],
        ["a\0.jpg", 0, "a"],
    ],
)
def test_rows_of_another_form(tmp_path, row):
    home = plant_zhou(tmp_path, "dtd")
    (home / ZHOU["dtd"][2]).write_text(json.dumps({**ROWS, "val": [*ROWS["val"], row]}))
    with pytest.raises(InputError, match="Expected row 1 of 'val' in "):
        datasets.load("dtd", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["x.jpg", 1, "seal"], "label 1 in .* 'sea_lion' and, for 'x.jpg', 'seal'"),
        (["x.jpg", 4, "seal"], "without a gap, but there is no image of 3"),
    ],
)
def test_labels_that_make_no_list_of_classes(tmp_path, row, message):
    home = plant_zhou(tmp_path, "dtd")
    (home / ZHOU["dtd"][2]).write_text(json.dumps({**ROWS, "test": [*ROWS["test"], row]}))
    with pytest.raises(InputError, match=message):
        datasets.load("dtd", tmp_path)


def test_an_empty_split_file(tmp_path):
    home = plant_zhou(tmp_path, "dtd")
    (home / ZHOU["dtd"][2]).write_text('{"train": [], "val": [], "test": []}')
    with pytest.raises(InputError, match="there is no image of 0"):
        datasets.load("dtd", tmp_path)


def test_shots_are_drawn_from_the_file_order(tmp_path):
    names = [f"{c}/{i:02d}.jpg" for c in "ab" for i in range(60)]
    rows = {"train": [[n, "ab".index(n[0]), n[0]] for n in names], "val": [], "test": []}
    plant_zhou(tmp_path, "caltech101", rows=rows)
    spec = small("caltech101", counts={"train": 120, "val": 0, "test": 0}, n_classes=2)
    pool = datasets.load_shots(spec, tmp_path, strict=True)
    shots = pool.select(draw_shots(pool.labels, pool.n_classes, 16).indices)
    # The released script's draw of 16 from 60, as published.
    order = [54, 24, 48, 56, 26, 2, 16, 32, 31, 25, 19, 30, 22, 37, 13, 52]
    base = "Caltech101/101_ObjectCategories"
    assert [r.path for r in shots.refs] == [f"{base}/{c}/{i:02d}.jpg" for c in "ab" for i in order]
    assert shots.labels.tolist() == [0] * 16 + [1] * 16
    assert [r.path for r in shots.refs[1:3]] == [f"{base}/a/24.jpg", f"{base}/a/48.jpg"]


def test_aircraft(tmp_path):
    lists = {
        "train": ["0056978 MD-80", "1025794 707-320"],
        "val": ["0900914 Boeing 717", ""],
        "test": ["1514522 F-16A/B", "0747566 707-320"],
    }
    lists = {split: [line for line in part if line] for split, part in lists.items()}
    home = plant_aircraft(tmp_path, lists, "707-320\nBoeing 717\nF-16A/B\nMD-80\n\n")
    facts = {"counts": {"train": 2, "val": 1, "test": 2}, "n_classes": 4}
    spec = replace(datasets.get("aircraft"), **facts)
    dataset = datasets.load(spec, tmp_path, strict=True)
    assert dataset.class_names == ("707-320", "Boeing 717", "F-16A/B", "MD-80")
    assert dataset.labels.tolist() == [2, 0]
    assert [ref.path for ref in dataset.refs] == [
        "fgvc_aircraft/images/1514522.jpg",
        "fgvc_aircraft/images/0747566.jpg",
    ]
    assert dataset.refs[1].read()
    assert datasets.load(spec, tmp_path, "train").labels.tolist() == [3, 0]
    assert datasets.load(spec, tmp_path, "val").labels.tolist() == [1]

    (home / "images" / "1514522.jpg").unlink()
    with pytest.warns(TrustVLMWarning, match="1 of 2 images missing"):
        datasets.load(spec, tmp_path)
    (home / "images" / "0747566.jpg").unlink()
    with pytest.raises(InputError, match=r"not one of the 2 in 'images_.*' is there"):
        datasets.load(spec, tmp_path)
    (home / "images_variant_test.txt").write_text("1514522 F-16A/B\n7 Concorde\n")
    with pytest.raises(InputError, match=r"line 2 of .* one of the 4 variants .* '7 Concorde'"):
        datasets.load(spec, tmp_path)
    (home / "variants.txt").unlink()
    with pytest.raises(InputError, match=r"Expected 'variants.txt' of FGVC-Aircraft in .* images/"):
        datasets.load(spec, tmp_path)


def test_aircraft_as_the_archive_has_it(tmp_path):
    lists = {"test": ["1 A"]}
    home = plant_aircraft(tmp_path / "unpacked", lists, "A\n")
    (tmp_path / "fgvc-aircraft-2013b").mkdir()
    home.rename(tmp_path / "fgvc-aircraft-2013b" / "data")
    spec = replace(datasets.get("aircraft"), counts={"test": 1}, n_classes=1)
    assert datasets.load(spec, tmp_path, strict=True).refs[0].read()


def test_the_place_that_holds_something_is_taken(tmp_path):
    (tmp_path / "UCF101").mkdir()
    if (tmp_path / "ucf101").is_dir():
        pytest.skip("this file system ignores case")
    plant_zhou(tmp_path, "ucf101", folder="ucf101")
    assert datasets.load(small("ucf101"), tmp_path, strict=True).folder == tmp_path / "ucf101"
