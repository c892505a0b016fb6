"""Spellings of one class: joined with a warning, or refused, never several classes."""

import warnings

import numpy as np
import pytest

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import ClassList, classes_of, find_labelled, read_classes
from trustvlm.images.classes import normal_form

DOGS = [
    "dog",
    "Dog",
    " dog",
    "dog\t",
    "dog\u00a0",
    "\u3000DOG",
    "d\u200bog",
    "dog_",
    "\uff44og",  # full width
]
RETRIEVERS = [
    "golden retriever",
    "golden_retriever",
    "Golden-Retriever",
    "golden  retriever",
    "golden\u00a0retriever",
    "golden\u2010retriever",
    "golden\u2013retriever",
    "golden _ retriever",
]


@pytest.mark.parametrize("spellings", [DOGS, RETRIEVERS, ["caf\u00e9", "cafe\u0301"]])
def test_spellings_of_one_name_have_one_normal_form(spellings):
    assert len({normal_form(name) for name in spellings}) == 1


@pytest.mark.parametrize(
    "pair",
    [
        ("A", "A-"),
        ("-1", "1"),
        ("1-2", "12"),
        ("glass", "glasses"),
        ("c++", "c"),
        ("resume", "resum\u00e9"),
        ("-", "_"),
        ("blackbird", "black bird"),
    ],
)
def test_other_names_stay_apart(pair):
    assert normal_form(pair[0]) != normal_form(pair[1])


@pytest.mark.parametrize("spellings", [DOGS, RETRIEVERS])
def test_labels_that_are_spelled_in_several_ways_are_one_class_and_said_once(spellings):
    labels = [*spellings, "cat", spellings[0]]
    labelled = find_labelled(([f"{i}.png" for i in range(len(labels))], labels))
    classes = classes_of(labelled)
    assert classes.names == ("cat", spellings[0])
    with pytest.warns(TrustVLMWarning, match=r"only in spelling") as caught:
        indices = classes.indices(labelled.labels)
    assert len(caught) == 1
    assert indices.tolist() == [1] * len(spellings) + [0, 1]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_spellings_in_a_table_are_one_class(tmp_path, suffix):
    comma = "," if suffix == "csv" else "\t"
    rows = [f"{i}.png{comma}{label}" for i, label in enumerate(["dog", "Dog", "dog ", "cat"])]
    table = tmp_path / f"t.{suffix}"
    table.write_text("\n".join([f"path{comma}label", *rows]), encoding="utf-8")
    assert len(classes_of(find_labelled(table))) == 2


def test_spellings_of_class_folders_are_one_class(tmp_path):
    for name, n in (("dog", 1), ("Dog", 2), ("cat", 1), ("CAT", 0)):
        (tmp_path / name).mkdir()
        for i in range(n):
            (tmp_path / name / f"{i}.png").write_bytes(b"x")
    labelled = find_labelled(tmp_path)
    classes = classes_of(labelled)
    assert classes.names == ("Dog", "cat")
    with pytest.warns(TrustVLMWarning, match="'dog' as 'Dog'"):
        assert np.bincount(classes.indices(labelled.labels)).tolist() == [3, 1]


def test_the_spelling_of_most_images_names_the_class():
    assert ClassList.of_labels(["Dog", "dog", "Dog"]).names == ("Dog",)
    assert ClassList.of_labels(["Dog", "dog"], ["cat"]).names == ("Dog", "cat")


def test_a_label_that_is_spelled_as_a_class_is_that_class_without_a_word():
    """Classes that a person told apart by case, such as letters, stay apart."""
    letters = ClassList(("capital a", "small a"), ("A", "a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert letters.indices(["a", "A", "a"]).tolist() == [1, 0, 1]


def test_a_spelling_that_may_be_two_classes_is_refused():
    letters = ClassList(("capital a", "small a"), ("A", "a"))
    with pytest.raises(InputError, match=r"'A_' may be 'A' or 'a'"):
        letters.indices(["A_", "a"])


def test_spellings_of_names_count_beside_folders():
    classes = ClassList(("tabby cat", "dog"), ("n1", "n2"))
    with pytest.warns(TrustVLMWarning, match="'Tabby_Cat' as 'tabby cat'"):
        assert classes.indices(["Tabby_Cat", "n2"]).tolist() == [0, 1]
    with pytest.raises(InputError, match="'tiger'"):
        classes.indices(["tiger"])


@pytest.mark.parametrize("spec", ["cat, dog, Dog", ["cat", "dog", "dog_"], "file"])
def test_names_that_are_spellings_of_one_are_refused(tmp_path, spec):
    if spec == "file":
        spec = tmp_path / "classes.txt"
        spec.write_text("cat\ndog\nDOG\n")
    with pytest.raises(InputError, match=r"spellings of one: 'dog' and '"):
        read_classes(spec)


def test_folders_may_tell_apart_what_the_names_do_not(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("A\tletter\na\tLetter\n")
    assert read_classes(file).folders == ("A", "a")
    assert read_classes({"A": "letter", "a": "Letter"}).names == ("letter", "Letter")


def test_a_table_of_other_spellings_is_evaluated_against_the_classes_of_the_model():
    classes = ClassList(("golden retriever", "tabby cat"))
    with pytest.warns(TrustVLMWarning, match="in spelling"):
        assert classes.indices(["Golden_Retriever", "tabby cat"]).tolist() == [0, 1]


def test_spellings_that_look_alike_are_told_apart_in_messages():
    with pytest.raises(InputError, match=r"spellings of one: 'caf\\xe9' and 'cafe\\u0301'\."):
        read_classes(["caf\u00e9", "cafe\u0301"])
    with pytest.warns(
        TrustVLMWarning, match=r"'cafe\\u0301' as 'caf\\xe9', 'Caf\u00c9' as 'caf\u00e9'"
    ):
        ClassList(("caf\u00e9",)).indices(["cafe\u0301", "Caf\u00c9", "caf\u00e9"])
