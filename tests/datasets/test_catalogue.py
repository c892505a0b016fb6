"""The facts of the 17 sets, and of the classes of ImageNet."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from trustvlm import datasets
from trustvlm.datasets.catalogue import Layout, mask, read_catalogue
from trustvlm.exceptions import InputError

# Folder, image folder, split file, classes, train, val, test.
TABLE = {
    "flowers102": ("Flower102", "jpg", "OxfordFlowers", 102, 4093, 1633, 2463),
    "dtd": ("DTD", "images", "DescribableTextures", 47, 2820, 1128, 1692),
    "pets": ("OxfordPets", "images", "OxfordPets", 37, 2944, 736, 3669),
    "cars": ("StanfordCars", "", "StanfordCars", 196, 6509, 1635, 8041),
    "ucf101": ("UCF101", "UCF-101-midframes", "UCF101", 101, 7639, 1898, 3783),
    "caltech101": ("Caltech101", "101_ObjectCategories", "Caltech101", 100, 4128, 1649, 2465),
    "food101": ("Food101", "images", "Food101", 101, 50500, 20200, 30300),
    "sun397": ("SUN397", "SUN397", "SUN397", 397, 15880, 3970, 19850),
    "eurosat": ("eurosat", "2750", "EuroSAT", 10, 13500, 5400, 8100),
    "aircraft": ("fgvc_aircraft", "images", None, 100, 3334, 3333, 3333),
    "imagenet": ("ImageNet", "", None, 1000, 1281167, None, 50000),
    "imagenet-a": ("imagenet-a", "", None, 200, None, None, 7500),
    "imagenet-r": ("imagenet-r", "", None, 200, None, None, 30000),
    "imagenet-v2": ("imagenetv2-matched-frequency-format-val", "", None, 1000, None, None, 10000),
    "imagenet-sketch": ("ImageNet-Sketch", "", None, 1000, None, None, 50889),
    "cifar10": ("cifar-10-batches-py", "", None, 10, 50000, None, 10000),
    "cifar100": ("cifar-100-python", "", None, 100, 50000, None, 10000),
}


def test_there_are_the_17_sets_of_the_paper():
    assert datasets.names() == tuple(TABLE)
    assert len(TABLE) == 17


@pytest.mark.parametrize("name", TABLE)
def test_facts(name):
    folder, images, split, n_classes, *counts = TABLE[name]
    spec = datasets.get(name)
    assert (spec.folder, spec.images, spec.n_classes) == (folder, images, n_classes)
    assert spec.split_file == (None if split is None else f"split_zhou_{split}.json")
    expected = dict(zip(("train", "val", "test"), counts, strict=True))
    assert spec.counts == {k: v for k, v in expected.items() if v is not None}
    assert spec.layout in get_args(Layout)
    assert spec.citation
    assert spec.terms.endswith(".")


def test_totals_are_those_of_the_published_sets():
    # Known from the papers of the sets, independently of how Zhou et al. split them.
    totals = {
        "flowers102": 8189, "dtd": 47 * 120, "pets": 7349, "cars": 16185, "ucf101": 13320,
        "food101": 101 * 1000, "eurosat": 27000, "aircraft": 100 * 100, "cifar10": 60000,
    }  # fmt: skip
    assert {name: sum(datasets.get(name).counts.values()) for name in totals} == totals


def test_released_hyper_parameters():
    low = {"flowers102", "aircraft", "dtd", "caltech101", "eurosat", "ucf101", "sun397"}
    high = {"pets", "cars", "food101"}
    for name in datasets.names():
        temperature = 0.01 if name in low else 0.1 if name in high else None
        weight = 0.1 if name == "pets" else 1.0
        assert datasets.preset(name) == {"weight": weight, "temperature": temperature}


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Flowers102", "flowers102"),
        ("Flower102", "flowers102"),
        ("oxford_flowers", "flowers102"),
        ("Oxford Pets", "pets"),
        ("StanfordCars", "cars"),
        ("FGVC-Aircraft", "aircraft"),
        ("ImageNetV2", "imagenet-v2"),
        ("imagenet_sketch", "imagenet-sketch"),
        ("CIFAR-100", "cifar100"),
        ("DTD", "dtd"),
        ("Describable Textures", "dtd"),
        ("Caltech-101", "caltech101"),
        ("Caltech", "caltech101"),
        ("SUN-397", "sun397"),
        ("Oxford-IIIT Pets", "pets"),
        ("Flowers-102", "flowers102"),
        ("Oxford Flowers", "flowers102"),
        ("FGVC Aircraft", "aircraft"),
        ("FGVCAircraft", "aircraft"),
        ("Food-101", "food101"),
        ("UCF-101", "ucf101"),
        ("Cars", "cars"),
        ("EuroSAT", "eurosat"),
        ("ImageNet-1K", "imagenet"),
        ("ILSVRC-2012", "imagenet"),
        ("ImageNet-Adversarial", "imagenet-a"),
        ("ImageNet-Rendition", "imagenet-r"),
        ("ImageNet V2", "imagenet-v2"),
    ],
)
def test_names_as_people_write_them(said, name):
    assert datasets.get(said).name == name


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"flowers102, dtd.*'eurosta'.*Did you mean eurosat"):
        datasets.get("eurosta")


def test_no_name_means_two_sets():
    for spec in read_catalogue():
        for said in (spec.name, spec.title, *spec.folders, *spec.aliases):
            assert datasets.get(said) is spec


# As CoOp has them, by its own names of the sets.
COOP = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "StanfordCars": "a photo of a {}.",
    "Food101": "a photo of {}, a type of food.",
    "SUN397": "a photo of a {}.",
    "Caltech101": "a photo of a {}.",
    "UCF101": "a photo of a person doing {}.",
    "ImageNet": "a photo of a {}.",
    "ImageNetSketch": "a photo of a {}.",
    "ImageNetV2": "a photo of a {}.",
    "ImageNetA": "a photo of a {}.",
    "ImageNetR": "a photo of a {}.",
}


def test_coops_templates():
    for name, template in COOP.items():
        assert datasets.prompt_templates("coop", name) == (template,)
    assert {datasets.get(name).name for name in COOP} == {*datasets.names()} - {
        "cifar10", "cifar100"
    }  # fmt: skip
    assert datasets.prompt_templates("coop", "cifar10") == ("a photo of a {}.",)
    ensemble = datasets.prompt_templates("coop-ensemble", "UCF101")
    assert ensemble[0] == "itap of a {}."
    assert ensemble[-1] == "a photo of a person doing {}."
    with pytest.raises(InputError, match="coop, coop-ensemble, tip-adapter, but got 'cop'"):
        datasets.prompt_templates("cop", "dtd")


def test_every_set_has_a_source_of_shots():
    for name in datasets.names():
        source = datasets.shots_source(name)
        target = datasets.get(name)
        assert "train" in datasets.get(source.dataset).counts
        assert len(source.classes) == target.n_classes
        assert max(source.classes) < datasets.get(source.dataset).n_classes
    relatives = {n for n in datasets.names() if datasets.shots_source(n).dataset != n}
    assert relatives == {"imagenet-a", "imagenet-r", "imagenet-v2", "imagenet-sketch"}


def test_classes_of_imagenet_are_in_the_order_of_their_wordnet_ids():
    classes = datasets.imagenet_classes()
    wnids = [c.wnid for c in classes]
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert [c.index for c in classes] == list(range(1000))
    assert all(len(w) == 9 and w[0] == "n" and w[1:].isdecimal() for w in wnids)


def test_names_are_those_published_with_clip():
    classes = datasets.imagenet_classes()
    # The two cranes and the two maillots, which the older list told apart by nothing.
    expected = {
        0: ("n01440764", "tench"),
        134: ("n02012849", "crane bird"),
        517: ("n03126707", "construction crane"),
        638: ("n03710637", "tights"),
        639: ("n03710721", "one-piece bathing suit"),
        999: ("n15075141", "toilet paper"),
    }
    assert {i: (classes[i].wnid, classes[i].name) for i in expected} == expected
    repeated = {n for n, count in Counter(c.name for c in classes).items() if count > 1}
    assert repeated == {"missile", "sunglasses"}
    assert all(c.name == c.name.strip() and c.name for c in classes)


@pytest.mark.parametrize(
    ("subset", "first", "last"),
    [
        ("a", (6, 11, 13, 15, 17, 22, 23, 27, 30, 37), (980, 981, 984, 986, 987, 988)),
        ("r", (1, 2, 4, 6, 8, 9, 11, 13, 22, 23), (963, 965, 967, 980, 981, 983, 988)),
    ],
)  # fmt: skip
def test_masks_of_imagenet_a_and_r(subset, first, last):
    indices = mask(subset)
    assert len(set(indices)) == 200
    assert list(indices) == sorted(indices)
    assert indices[: len(first)] == first
    assert indices[-len(last) :] == last
    everything = datasets.imagenet_classes()
    assert datasets.imagenet_classes(subset) == tuple(everything[i] for i in indices)


def test_other_subsets_do_not_exist():
    with pytest.raises(InputError, match="but got 'o'"):
        datasets.imagenet_classes("o")
