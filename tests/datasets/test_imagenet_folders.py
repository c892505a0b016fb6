"""ImageNet and its relatives: folders by WordNet ID, by number, and the masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dataset_trees import plant, plant_files
from trustvlm import datasets
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import find_labelled

CLASSES = datasets.imagenet_classes()
WNIDS = [imagenet_class.wnid for imagenet_class in CLASSES]


def small(name, **counts):
    return replace(datasets.get(name), counts=counts)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All five sets with every class folder: file names only, one or two per class."""
    top = tmp_path_factory.mktemp("data")
    train = [f"{w}/{w}_{n}.JPEG" for w in WNIDS for n in (9, 10)]
    plant_files(top / "ImageNet" / "train", train)
    plant_files(top / "ImageNet" / "val", (f"{w}/ILSVRC2012_val_1.JPEG" for w in WNIDS))
    plant_files(top / "ImageNet-Sketch", (f"{w}/sketch_0.JPEG" for w in WNIDS))
    for name in "ar":
        own = [imagenet_class.wnid for imagenet_class in datasets.imagenet_classes(name)]
        plant_files(top / f"imagenet-{name}", [*(f"{w}/x.jpg" for w in own), "README.txt"])
    v2 = top / "imagenetv2-matched-frequency-format-val"
    plant_files(v2, (f"{i}/{i}.jpeg" for i in range(1000)))
    return top


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("imagenet", "ImageNet/train"),
        ("imagenet-a", "imagenet-a"),
        ("imagenet-r", "imagenet-r"),
        ("imagenet-sketch", "ImageNet-Sketch"),
        ("imagenet-v2", "imagenetv2-matched-frequency-format-val"),
    ],
)
# Two of the archives hold a README beside their classes.
@pytest.mark.filterwarnings("ignore:1 file passed over.*README.txt")
def test_class_lists_explain_the_folders_as_the_catalogue_does(root, name, folder):
    classes = datasets.imagenet_class_list(name)
    assert len(set(classes.labels)) == len(classes)
    labelled = find_labelled(root / folder)
    assert set(labelled.classes) == set(classes.folders)
    of_file = dict(
        zip(
            (ref.path for ref in labelled.refs),
            classes.indices(labelled.labels),
            strict=True,
        )
    )
    with pytest.warns(TrustVLMWarning):  # the counts are not those of the whole set
        listed = (datasets.load_shots if name == "imagenet" else datasets.load)(name, root)
    assert classes.names == listed.class_names
    for ref, label in zip(listed.refs, listed.labels, strict=True):
        assert of_file["/".join(ref.path.split("/")[-2:])] == label


def test_the_names_of_other_sets_are_in_their_files():
    with pytest.raises(InputError, match="`dtd` are in its own files"):
        datasets.imagenet_class_list("dtd")


def test_imagenet(root):
    spec = replace(datasets.get("imagenet"), counts={"train": 2000, "test": 1000})
    test = datasets.load(spec, root, strict=True)
    assert test.labels.tolist() == list(range(1000))
    assert test.class_ids == tuple(WNIDS)
    assert test.class_names[:2] == ("tench", "goldfish")
    assert test.refs[1].path == "ImageNet/val/n01443537/ILSVRC2012_val_1.JPEG"
    assert test.refs[1].label == "n01443537"
    train = datasets.load(spec, root, "train", strict=True)
    # In the order of the names, as ImageFolder has it, and in which the paper draws.
    assert [ref.path for ref in train.refs[:2]] == [
        "ImageNet/train/n01440764/n01440764_10.JPEG",
        "ImageNet/train/n01440764/n01440764_9.JPEG",
    ]
    assert train.counts.tolist() == [2] * 1000


def test_the_validation_folder_of_imagenet_is_the_test_split(root):
    with pytest.raises(InputError, match=r"one of train, test, but got 'val'\..*split='test'"):
        datasets.load("imagenet", root, "val")


def test_imagenet_in_coops_layout(tmp_path):
    plant_files(tmp_path / "imagenet" / "images" / "val", [f"{WNIDS[3]}/1.JPEG"])
    with pytest.warns(TrustVLMWarning, match="999 of 1000 class folders missing or empty"):
        dataset = datasets.load("imagenet", tmp_path)
    assert dataset.labels.tolist() == [3]
    assert dataset.refs[0].path == f"images/val/{WNIDS[3]}/1.JPEG"
    assert len(dataset.missing) == 999


@pytest.mark.parametrize("name", ["a", "r"])
def test_the_200_classes_of_a_and_r(root, name):
    spec = small(f"imagenet-{name}", test=200)
    dataset = datasets.load(spec, root, strict=True)
    kept = datasets.shots_source(spec).classes
    assert dataset.n_classes == 200
    assert dataset.labels.tolist() == list(range(200))
    assert dataset.class_ids == tuple(WNIDS[i] for i in kept)
    assert dataset.class_names == tuple(CLASSES[i].name for i in kept)
    for ref, label in zip(dataset.refs, dataset.labels, strict=True):
        assert ref.path.split("/")[1] == WNIDS[kept[label]]


@pytest.mark.parametrize("name", ["a", "r"])
def test_shots_of_a_and_r_are_imagenets_of_the_same_classes(root, name):
    shots = datasets.load_shots(f"imagenet-{name}", root, strict=True)
    test = datasets.load(small(f"imagenet-{name}", test=200), root)
    assert (shots.spec.name, shots.split, len(shots)) == ("imagenet", "train", 400)
    assert shots.class_ids == test.class_ids
    assert shots.class_names == test.class_names
    for ref, label in zip(shots.refs, shots.labels, strict=True):
        assert ref.path.startswith(f"ImageNet/train/{test.class_ids[label]}/")


@pytest.mark.parametrize("name", ["imagenet-v2", "imagenet-sketch"])
def test_shots_of_the_relatives_with_all_classes(root, name):
    with pytest.warns(TrustVLMWarning, match="expected 1281167 images, but found 2000"):
        shots = datasets.load_shots(name, root)
    assert shots.class_ids == tuple(WNIDS)
    assert shots.split == "train"


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r", "imagenet-v2", "imagenet-sketch"])
def test_the_relatives_are_for_testing_only(root, name):
    with pytest.raises(InputError, match=r"one of test, but got 'train'\. Use `load_shots`"):
        datasets.load(name, root, "train")


def test_sketch(root):
    dataset = datasets.load(small("imagenet-sketch", test=1000), root, strict=True)
    assert dataset.labels.tolist() == list(range(1000))
    assert dataset.refs[999].path == "ImageNet-Sketch/n15075141/sketch_0.JPEG"


@pytest.mark.parametrize(
    "folder",
    ["ImageNet-Sketch/sketch", "imagenet-sketch/sketch", "imagenet-sketch/images"],
)
def test_sketch_as_the_archive_and_as_coop_have_it(tmp_path, folder):
    plant_files(tmp_path / folder, (f"{w}/1.JPEG" for w in WNIDS))
    dataset = datasets.load(small("imagenet-sketch", test=1000), tmp_path, strict=True)
    assert len(dataset) == 1000


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("imagenet-a", "imagenet-a/imagenet-a"),
        ("imagenet-a", "imagenet-adversarial/imagenet-a"),
        ("imagenet-r", "imagenet-r/imagenet-r"),
        ("imagenet", "ILSVRC/Data/CLS-LOC"),
        ("imagenet", "imagenet/ILSVRC/Data/CLS-LOC"),
        ("imagenet-v2", "imagenetv2/imagenetv2-matched-frequency-format-val"),
    ],
)
def test_other_folders_of_the_relatives(tmp_path, name, folder):
    spec = datasets.get(name)
    inside = "val/" if name == "imagenet" else ""
    classes = datasets.imagenet_class_list(name).folders
    plant_files(tmp_path / folder, (f"{inside}{c}/1.JPEG" for c in classes))
    plant_files(tmp_path / folder.split("/")[0], ["README.txt"])
    dataset = datasets.load(small(name, test=spec.n_classes), tmp_path, strict=True)
    assert dataset.labels.tolist() == list(range(spec.n_classes))


# What the released script does, where this project does what the publishers of the sets say.


@pytest.mark.parametrize("name", ["a", "r"])
def test_a_and_r_over_all_names(root, name):
    """200 classes of images, 1000 names, and shots of all 1000 classes."""
    rules = datasets.ImageNetRules(names="imagenet")
    spec = small(f"imagenet-{name}", test=200)
    test = datasets.load(spec, root, strict=True, rules=rules)
    assert test.class_names == tuple(c.name for c in CLASSES)
    assert test.class_ids == tuple(WNIDS)
    for ref, label in zip(test.refs, test.labels, strict=True):
        assert ref.path.split("/")[1] == WNIDS[label] == ref.label
    assert len(set(test.labels.tolist())) == 200
    with pytest.warns(TrustVLMWarning, match="expected 1281167 images, but found 2000"):
        shots = datasets.load_shots(spec, root, rules=rules)
    assert shots.class_ids == test.class_ids
    assert shots.counts.tolist() == [2] * 1000


def test_numbers_as_text(root):
    """What ImageFolder makes of folders 0 to 999: they are sorted by name."""
    rules = datasets.ImageNetRules(folder_order="text")
    test = datasets.load(small("imagenet-v2", test=1000), root, strict=True, rules=rules)
    folder = {
        int(r.path.split("/")[1]): label for r, label in zip(test.refs, test.labels, strict=True)
    }
    by_name = sorted(map(str, range(1000)))
    assert [by_name[folder[i]] for i in range(1000)] == [str(i) for i in range(1000)]
    assert (folder[0], folder[1], folder[10], folder[100], folder[2]) == (0, 1, 2, 3, 112)
    assert test.class_names == tuple(c.name for c in CLASSES)


@pytest.mark.parametrize("name", ["imagenet", "imagenet-v2", "imagenet-a"])
def test_shots_of_the_test_images(root, name):
    spec = small(name, test=200 if name == "imagenet-a" else 1000)
    rules = datasets.ImageNetRules(shots_from="test")
    shots = datasets.load_shots(spec, root, strict=True, rules=rules)
    test = datasets.load(spec, root, strict=True)
    assert [ref.path for ref in shots.refs] == [ref.path for ref in test.refs]
    assert shots.labels.tolist() == test.labels.tolist()


def test_rules_leave_other_sets_alone():
    for name in datasets.names():
        spec = datasets.get(name)
        rules = datasets.RELEASED_RULES.of(spec)
        if not name.startswith("imagenet"):
            assert rules == datasets.AS_PUBLISHED
        assert (rules.names == "imagenet") == (name in ("imagenet-a", "imagenet-r"))
        assert (rules.folder_order == "text") == (name == "imagenet-v2")


def test_numbers_are_numbers(root):
    dataset = datasets.load(small("imagenet-v2", test=1000), root, strict=True)
    assert dataset.labels.tolist() == list(range(1000))
    for ref, label in zip(dataset.refs, dataset.labels, strict=True):
        assert ref.path.endswith(f"format-val/{label}/{label}.jpeg")
        assert ref.label == WNIDS[label]
    # Sorted as text, folder 10 would be class 2.
    assert [dataset.labels[i] for i, r in enumerate(dataset.refs) if "/10/" in r.path] == [10]


def test_some_numbered_folders(tmp_path):
    folder = tmp_path / "imagenetv2-matched-frequency-format-val"
    plant(folder, ["2/a.jpeg", "10/a.jpeg", "1/b.jpeg", "1/a.jpeg", "0/a.jpeg", "007/a.jpeg"])
    plant_files(folder, ["1000/a.jpeg", "n01440764/a.jpeg", ".trash/a.jpeg", "5/notes.txt"])
    with pytest.warns(TrustVLMWarning) as caught:
        dataset = datasets.load("imagenet-v2", tmp_path)
    assert dataset.labels.tolist() == [0, 1, 1, 2, 7, 10]
    assert [ref.path.split("/", 1)[1] for ref in dataset.refs] == [
        "0/a.jpeg", "1/a.jpeg", "1/b.jpeg", "2/a.jpeg", "007/a.jpeg", "10/a.jpeg",
    ]  # fmt: skip
    message = str(caught[0].message)
    assert "995 of 1000 class folders missing or empty" in message
    assert "2 folders of other classes left out, such as '1000'" in message
    assert dataset.refs[0].read()
    plant(folder, ["07/a.jpeg"])
    with pytest.raises(InputError, match="'007' and '07' both mean class 7"):
        datasets.load("imagenet-v2", tmp_path)


def test_folders_of_other_classes_are_named(tmp_path):
    other = next(w for w in WNIDS if w not in {k.wnid for k in datasets.imagenet_classes("a")})
    own = [imagenet_class.wnid for imagenet_class in datasets.imagenet_classes("a")]
    plant_files(tmp_path / "imagenet-a", (f"{w}/1.jpg" for w in [*own, other]))
    spec = small("imagenet-a", test=200)
    with pytest.warns(TrustVLMWarning, match=f"1 folder of other classes left out, .*'{other}'"):
        assert len(datasets.load(spec, tmp_path)) == 200


def test_an_empty_class_folder_counts_as_missing(root, tmp_path):
    plant_files(tmp_path / "imagenet-r", ["n01443537/1.jpg", "n01484850/notes.txt"])
    with pytest.warns(TrustVLMWarning, match="199 of 200 class folders missing"):
        dataset = datasets.load("imagenet-r", tmp_path)
    assert "n01484850/" in dataset.missing
    assert dataset.labels.tolist() == [0]


def test_validation_images_that_lie_loose(tmp_path):
    plant_files(tmp_path / "ImageNet" / "val", [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(20)])
    with pytest.raises(InputError, match=r"1000 class folders in .*Images lie loose in it: move"):
        datasets.load("imagenet", tmp_path)


def test_no_folder_of_the_split(tmp_path):
    plant_files(tmp_path / "ImageNet" / "val", [f"{WNIDS[0]}/1.JPEG"])
    with pytest.raises(InputError, match=r"have the folder '.*train', but got: .* holds val/\."):
        datasets.load("imagenet", tmp_path, "train")


def test_class_folders_by_name(tmp_path):
    plant_files(tmp_path / "imagenet-r", ["goldfish/1.jpg"])
    with pytest.raises(InputError, match=r"WordNet IDs, such as 'n01443537', but .* goldfish/"):
        datasets.load("imagenet-r", tmp_path)
    plant_files(tmp_path / datasets.get("imagenet-v2").folder, ["goldfish/1.jpg"])
    with pytest.raises(InputError, match="numbers, '0' to '999', but"):
        datasets.load("imagenet-v2", tmp_path)


def test_images_are_made_when_looked_at(root):
    dataset = datasets.load(small("imagenet-v2", test=1000), root)
    assert dataset.refs[-1].path == dataset.refs[999].path
    assert [r.path for r in dataset.refs[5:8]] == [dataset.refs[i].path for i in (5, 6, 7)]
    assert len(dataset.refs[990:2000]) == 10
    chosen = dataset.select([3, 1]).select(np.array([1]))
    assert chosen.labels.tolist() == [1]
    assert chosen.refs[0].path == dataset.refs[1].path
    assert sum(1 for _ in dataset.refs) == 1000
    with pytest.raises(IndexError):
        dataset.refs[1000]
