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
    with pytest.warns(TrustVLMWarning, match="class: 'Caf\u00c9' as 'caf\u00e9'$"):
        ClassList(("caf\u00e9",)).indices(["cafe\u0301", "Caf\u00c9", "caf\u00e9"])


CAFE, ECAF = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "classes",
    [ClassList((CAFE, "bar")), ClassList((ECAF, "bar")), ClassList(("x", "y"), (ECAF, "bar"))],
)
def test_both_forms_of_a_letter_and_outer_blanks_are_one_name_without_a_word(classes):
    names, folders = classes.names, classes.folders
    assert classes.indices([CAFE, f" {ECAF}\u00a0", "bar"]).tolist() == [0, 0, 1]
    assert (classes.names, classes.folders) == (names, folders), "the list keeps its spelling"
    label = classes.labels[0]
    assert classes.label_of(label.replace(CAFE, ECAF) + " ") == label
    assert classes.label_of("tiger") is None
    with pytest.raises(InputError, match="class folders to be distinct"):
        ClassList(("one", "two"), (CAFE, ECAF))
    with pytest.raises(InputError, match="number 2 is"):
        ClassList(("one", " "))


def test_class_folders_in_both_forms(tmp_path):
    for folder in (CAFE, ECAF, "bar"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(b"x")
    labelled = find_labelled(tmp_path)
    classes = classes_of(labelled)
    assert len(classes) == 2
    assert np.bincount(classes.indices(labelled.labels)).tolist() == [1, 2]


NAMES = ("salt, pepper", "dog")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", "salt, pepper\ndog\n"),
        ("x.names", "# mine\n\nsalt, pepper \r\ndog"),
        ("x", '"salt, pepper", dog'),
        ("x.csv", '"salt, pepper"\ndog\n'),
        ("x.csv", 'id;name\n0;"salt, pepper"\n1;dog\n'),
        ("x.csv", 'number,class_name\n0,"salt, pepper"\n1,dog\n'),
        ("x.tsv", "salt, pepper\ndog\n"),
        ("x.json", '["salt, pepper", "dog"]'),
        ("x.json", '{"1": "dog", "0": "salt, pepper"}'),
        ("x.json", '{"dog": 1, "salt, pepper": 0}'),
        ("config.json", '{"model_type": "vit", "id2label": {"0": "salt, pepper", "1": "dog"}}'),
        ("x.json", '{"categories": [{"id": 7, "name": "salt, pepper"}, {"id": 9, "name": "dog"}]}'),
        ("x.txt", '["salt, pepper", "dog"]'),
        ("x.yaml", "train: a\nnames: ['salt, pepper', dog]"),
        ("x.yml", "names:\n  0: salt, pepper\n  1: dog\n"),
        ("x.txt", "names:\n- salt, pepper\n- dog\n"),
    ],
)
def test_lists_of_classes(name, content, tmp_path):
    if "names:" in content:
        pytest.importorskip("yaml")
    file = tmp_path / name
    file.write_text(content)
    for spec in (file, str(file), f"file://{file}"):
        assert read_classes(spec).names == NAMES
    assert read_classes(name for name in NAMES).names == NAMES
    assert read_classes('"salt, pepper",dog').names == NAMES


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", b"\x89PNG\r\n\x1a\n\0\0"),
        ("x.txt", b"\xff\xd8\xff"),
        ("x.txt", b"<!DOCTYPE html><html>404</html>"),
        ("x.txt", b""),
        ("x.txt", b"# nothing\n"),
        ("x.csv", b"name\n"),
        ("x.csv", b""),
        ("x.csv", b"a,b,c\nd,e,f\n"),
        ("x.csv", b"dog\nsalt, pepper\n"),
        ("x.json", b"{}"),
        ("x.json", b"[1, 2]"),
        ("x.json", b'{"0": "cat", "0": "dog"}'),
        ("x.txt", b"['cat', 'dog']"),
        ("x.html", b"cat"),
        ("x.png", b"cat"),
        ("x.txt", "caf\u00e9\ncafe\u0301\n".encode()),
        ("x.txt", b"cat\ncat\n"),
    ],
)
def test_what_is_no_list_of_classes_is_refused_by_name(name, content, tmp_path, monkeypatch):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"(?s)x\.|spellings|repeat"):
        read_classes(file)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="'photos' is a folder"):
        read_classes("photos")
    assert read_classes('"photos"').names == ("photos",)
    with pytest.raises(InputError, match=r"no file 'y\.names'"):
        read_classes("y.names")
