"""Tables that a spreadsheet does not run, and that are read as they were."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures import COLOURS, picture
from trustvlm.cells import from_cell, is_missing, number_label, to_cell
from trustvlm.exceptions import InputError
from trustvlm.images import find_images, find_labelled, read_classes
from trustvlm.pipeline.verdict import Verdict, Verdicts
from trustvlm.risk_control.groups import group_names
from trustvlm.serve.feedback import answers_csv
from trustvlm.text import UNSAFE, printable

FORMULA = re.compile(r"[\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
NAMES = [
    "=cmd|' C calc'!A0.jpg", "+1.jpg", "-1.jpg", "@sum.jpg", "\uff1d1+1.jpg", "\uff20a.jpg",
    " =1.jpg", '"=1.jpg', "'=1.jpg", "''=1.jpg", "'tis.jpg", "'", "-", "\t=1.jpg", "\r=1.jpg",
    "two\nlines.jpg", "red\x1b[31m.jpg", "c1\x9b31m.jpg", "gpj.\u202etxt", "\u2028.jpg", "a;=1.jpg",
    " blanks ", "$'a'", "$'a\\n'", r"back\nslash", r"$'\x1b'", "caf\u00e9.jpg", "\x7f.jpg",
    "\U0001f468\u200d\U0001f469.jpg", "a,b;c|d.jpg", 'a"b.jpg',
]  # fmt: skip


def write_picture(file: Path) -> None:
    """Write a picture under any name."""
    stream = io.BytesIO()
    picture(COLOURS["red"], seed=1).save(stream, "PNG")
    file.write_bytes(stream.getvalue())


def verdict(path: str, label: str = "cat") -> Verdict:
    """Return an accepted label with a negative confidence."""
    nan = math.nan
    return Verdict(path, label, -1.5, nan, "accept", 0.5, nan, "", path, "", vlm_label=label)


@given(st.text(alphabet=st.one_of(st.sampled_from("='\"\\$;n@ \t\n\x1b-+x"), st.characters())))
def test_every_text_comes_back(text):
    cell = to_cell(text)
    assert from_cell(cell) == text
    assert not UNSAFE.search(cell)
    assert cell.startswith("'") or not FORMULA.match(cell)
    assert not any(FORMULA.match(part) for part in cell.split(";")[1:])


@pytest.mark.parametrize("text", ["cat.jpg", r"sub\new.jpg", "'tis", "a-b", "5 = 3", "$5", "1.5"])
def test_ordinary_texts_stay_as_they_are(text):
    assert to_cell(text) == text == from_cell(text)


def test_verdicts_are_harmless_in_csv_and_raw_elsewhere():
    pyarrow = pytest.importorskip("pyarrow")
    verdicts = Verdicts([verdict(name, name) for name in NAMES])
    text = verdicts.to_csv()
    assert len(text.splitlines()) == len(text.split("\n")) - 1 == 1 + len(NAMES)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for row, name in zip(rows, NAMES, strict=True):
        assert [from_cell(row[c]) for c in ("path", "label", "vlm_label", "reason")] == [name] * 4
        assert row["confidence"] == "-1.5"
        assert not any(FORMULA.match(row[column]) for column in ("path", "label", "reason"))
    lines = verdicts.to_jsonl().splitlines()
    assert [json.loads(line)["path"] for line in lines] == NAMES
    assert not any(UNSAFE.search(line) for line in lines)
    assert verdicts.to_arrow().column("path").to_pylist() == NAMES
    assert isinstance(verdicts.to_arrow(), pyarrow.Table)


def test_prediction_sets_stay_json():
    row = Verdict("a", "b", 1.0, 1.0, "accept", 1.0, 1.0, "", "", "", ("=1", "\x9b\u202e"))
    cell = list(csv.reader(io.StringIO(Verdicts([row]).to_csv())))[1][
        Verdicts([row]).columns.index("prediction_set")
    ]
    assert json.loads(cell) == ["=1", "\x9b\u202e"]
    assert not UNSAFE.search(cell)


def test_images_and_labels_of_our_own_tables_are_found_again(tmp_path):
    names = [*(name for name in NAMES if name.endswith(".jpg")), os.fsdecode(b"latin-\xe9.jpg")]
    for name in names:
        write_picture(tmp_path / name)
    listed = find_images(tmp_path)
    assert len(listed) == len(names)
    rows = [verdict(image.path, f"-{i}") for i, image in enumerate(listed)]
    Verdicts(rows).to_csv(tmp_path / "labels.csv")
    Verdicts(rows).to_jsonl(tmp_path / "labels.jsonl")
    for table in ("labels.csv", "labels.jsonl"):
        labelled = find_labelled(tmp_path / table)
        assert [image.path for image in labelled.refs] == [image.path for image in listed]
        assert labelled.labels == [f"-{i}" for i in range(len(listed))]
        assert all(image.read() for image in labelled.refs)


def test_a_list_that_people_wrote_is_read_as_it_stands(tmp_path):
    for name in ("-rf.jpg", "=1.jpg", "'tis.jpg", "$5.jpg"):
        write_picture(tmp_path / name)
    (tmp_path / "list.csv").write_text("path\n-rf.jpg\n=1.jpg\n'=1.jpg\n'tis.jpg\n$5.jpg\n")
    assert all(image.read() for image in find_images(tmp_path / "list.csv"))


def test_class_names_and_answers(tmp_path):
    file = tmp_path / "classes.csv"
    file.write_text("folder,name\n" + "".join(f'{i},"{to_cell(n)}"\n' for i, n in enumerate("-@")))
    assert read_classes(file).names == ("-", "@")
    answer = {"id": 1, "image": "ab", "model": "m", "action": "label", "label": "=1", "folder": "@"}
    answer |= {"predicted": "-", "confidence": -1.0, "created_at": "now"}
    (row,) = csv.DictReader(io.StringIO(answers_csv([answer])))
    assert (row["label"], row["folder"], row["predicted"]) == ("'=1", "'@", "'-")
    assert row["confidence"] == "-1.0"


def test_what_a_terminal_shows():
    for name in NAMES:
        assert not UNSAFE.search(printable(name))
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert Path(printable("caf\u00e9 \N{NO-BREAK SPACE}%")).name == "caf\u00e9 \N{NO-BREAK SPACE}%"


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        math.nan,
        np.float32("nan"),
        np.datetime64("NaT", "s"),
        Decimal("NaN"),
        np.array(np.nan),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_what_holds_nothing_is_missing(nothing):
    assert is_missing(nothing) is True
    with pytest.raises(InputError, match="image 1 has none"):
        group_names(["a", nothing], 2)


@pytest.mark.parametrize("cell", ["", "nan", "<NA>", 0, False, np.float32(0), [], np.zeros(2)])
def test_what_holds_something_is_not(cell):
    assert is_missing(cell) is False


def test_groups_of_arrays_that_mark_what_is_missing():
    masked = np.ma.array([7, 7, 8], mask=[False, True, False])
    with pytest.raises(InputError, match="image 1 has none"):
        group_names(masked, 3)
    assert group_names(masked[[0, 2]], 2) == ["7", "8"]
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    with pytest.raises(InputError, match="image 1 has none"):
        group_names(pyarrow.array(["a", None]), 2)
    assert group_names(pyarrow.array([7.0, 8.0]), 2) == ["7", "8"]


def test_decimal_numbers_are_labels_if_they_are_whole():
    numbers = [Decimal("3"), Decimal("3.00"), Decimal("3.5"), Decimal("NaN"), Decimal("Infinity")]
    assert [number_label(number) for number in numbers] == ["3", "3", "", "", ""]
