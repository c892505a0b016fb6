"""Data sets of one's own in the catalogue: from a TOML file, and with a reader in Python."""

import csv
import json
from pathlib import Path

import pytest

from command import Command
from pictures import write_class_folders
from trustvlm import datasets, plugins
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import list_set
from trustvlm.exceptions import InputError, PluginError, TrustVLMWarning

TOML = """
[[dataset]]
name = "colours"
layout = "labelled"
split_folders = { train = "train", test = "test.csv" }
n_classes = 3
counts = { train = 6, test = 9 }
terms = "Ours."
"""
READER = """
from trustvlm import datasets


@datasets.register("hues", classes=["blue", "green", "red"], counts={"train": 6, "test": 9})
def read_hues(folder, split):
    return [(path, path.parent.name) for path in sorted((folder / split).glob("*/*.png"))]
"""


@pytest.fixture(autouse=True)
def catalogue():
    """Leave the catalogue as it was."""
    before = datasets.names()
    yield
    for name in set(datasets.names()) - set(before):
        datasets.unregister(name)


@pytest.fixture
def root(tmp_path):
    """A data root with one set, whose test images are listed in a table too."""
    for split, count, seed in (("train", 2, 0), ("test", 3, 7)):
        write_class_folders(tmp_path / "colours" / split, per_class=count, seed=seed)
    with (tmp_path / "colours" / "test.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for path in sorted((tmp_path / "colours" / "test").rglob("*.png")):
            table.writerow([path.relative_to(tmp_path / "colours"), path.parent.name])
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_facts_in_a_file_make_a_set_of_the_catalogue(root, capsys, monkeypatch):
    file = write(root / "sets.toml", TOML)
    run = Command(capsys, monkeypatch)
    listed = run("datasets", "--plugin", file, "--root", root, "--json")
    assert listed.code == 0, listed.err
    state = json.loads(listed.out)[-1]
    assert (state["name"], state["state"], state["counts"]) == (
        "colours", "complete", {"train": 6, "test": 9},
    )  # fmt: skip
    loaded = datasets.load("colours", root, "test")
    assert loaded.class_names == ("blue", "green", "red")
    assert [Path(ref.path).parent.name for ref in loaded.refs] == [
        loaded.class_names[label] for label in loaded.labels
    ]
    assert [ref.label for ref in loaded.refs] == [Path(ref.path).parent.name for ref in loaded.refs]
    study = write(
        root / "study.toml",
        '[[models]]\nvlm = "offline"\nvision = "offline"\n'
        '[[datasets]]\nname = "colours"\nroot = "."\n',
    )
    (dataset,) = read_config(study).datasets
    listing = list_set(dataset)
    assert len(listing.train.refs) == 6
    assert len(listing.tests["test"].labels) == 9


def test_a_reader_in_python_does_the_same(root, monkeypatch):
    (root / "colours").rename(root / "hues")
    assert plugins.load_plugin(write(root / "hues.py", READER)) == ("hues",)
    train, test = datasets.load_shots("hues", root), datasets.load("hues", root, "test")
    assert (len(train), len(test), test.n_classes) == (6, 9, 3)
    assert all(ref.path.startswith("hues/") for ref in test.refs)
    # What it lists begins with the folder, relative to where the program runs or absolute.
    monkeypatch.chdir(root)
    relative = datasets.load("hues", ".", "test").refs
    assert [ref.path for ref in relative] == [ref.path for ref in test.refs]
    monkeypatch.chdir(root.parent)
    relative = datasets.load("hues", root.name, "test").refs
    assert [ref.path for ref in relative] == [ref.path for ref in test.refs]
    assert [ref.label for ref in test.refs] == [Path(ref.path).parent.name for ref in test.refs]
    (root / "hues" / "test" / "red" / "00.png").unlink()
    with pytest.warns(TrustVLMWarning, match="expected 9 images, but found 8"):
        datasets.load("hues", root, "test")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", r"^The reader of 'hues' of hues\.py fails: ZeroDivisionError"),
        ("['a.png']", r"hues\.py to list pairs of a path and one of the 3 classes, but entry 0"),
        (
            "[('a.png', 'pink')]",
            r"one of the 3 classes, but entry 0 of test is \('a.png', 'pink'\)",
        ),
        ("[('../a.png', 'red')]", "paths in the folder of the set"),
        ("[]", "to list the images of test, but it lists none"),
    ],
)
def test_what_a_reader_returns_is_checked_and_it_is_named(root, body, said):
    (root / "colours").rename(root / "hues")
    head = READER[: READER.index("    return")]
    plugins.load_plugin(write(root / "hues.py", f"{head}    return {body}\n"))
    with pytest.raises((InputError, PluginError), match=said):
        datasets.load("hues", root, "test")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"colours"', '"pets"', r"named `pets` \(Oxford Pets\) is there already"),
        ('"colours"', '"Oxford Pets"', "the name of a data set to be letters"),
        ("n_classes = 3\n", "", "data set 1 needs `n_classes`"),
        ("n_classes = 3", "n_clases = 3", "no key `n_clases`; did you mean n_classes"),
        ("n_classes = 3", 'n_classes = "x"', "`n_classes` is not valid"),
        ('"labelled"', '"folders"', "`layout` to be labelled or split file, but got 'folders'"),
        (
            "n_classes = 3",
            'n_classes = 3\ntemplate = "a colour"',
            "a prompt template to hold {} once",
        ),
        (", test = 9", "", "`split_folders` to name a folder or table for each of train"),
        ("[[dataset]]", "[dataset]", r"to hold tables \[\[dataset\]\] and nothing else"),
        ("[[dataset]]", "[[dataset]", "cannot be read as TOML"),
    ],
)
def test_what_a_file_lacks_is_said(tmp_path, before, after, said):
    assert before in TOML
    with pytest.raises(InputError, match=said):
        datasets.add_catalogue(write(tmp_path / "sets.toml", TOML.replace(before, after, 1)))
    assert "colours" not in datasets.names()


def test_names_of_the_package_are_taken_and_near_ones_are_named():
    register = datasets.register("dtd", classes=["a", "b"], counts={"train": 1})
    with pytest.raises(InputError, match=r"named `dtd` .* is there already"):
        register(lambda folder, split: [])
    datasets.register("hues", classes=["a", "b"], counts={"test": 1})(lambda folder, split: [])
    with pytest.raises(InputError, match="Did you mean hues"):
        datasets.get("huse")
    with pytest.raises(InputError, match="at least two classes, all different"):
        datasets.register("x", classes=["a", "a"], counts={"test": 1})


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": "ab"}, "`classes` of 'x' to be a list of names"),
        ({"classes": ["a", 1]}, "`classes` of 'x' to be a list of names"),
        ({"classes": ["a", "b", " "]}, "`classes` of 'x' to be a list of names"),
        ({"classes": ["a", "a "]}, "two classes, all different"),
        ({"folders": "x"}, "`folders` of 'x' to be a list of names"),
        ({"counts": {"test": 0}}, "number of images of test in 'x', but got 0"),
        ({"counts": {"test": "9"}}, "number of images of test in 'x', but got '9'"),
        ({"title": "Describable Textures"}, "named `dtd` .* is there already"),
    ],
)
def test_facts_that_cannot_be_are_refused_as_they_are_registered(facts, message):
    facts = {"classes": ["a", "b"], "counts": {"test": 9}} | facts
    with pytest.raises(InputError, match=message):
        datasets.register("x", **facts)(lambda folder, split: [])
    assert "x" not in datasets.names()
