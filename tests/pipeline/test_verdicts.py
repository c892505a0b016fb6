import csv
import io
import json
import math
from dataclasses import replace

import pytest

from trustvlm.cells import from_cell
from trustvlm.exceptions import InputError
from trustvlm.pipeline.verdict import (
    COLUMNS,
    Verdict,
    Verdicts,
    check_output,
    error_verdict,
    verdicts_from,
)

AWKWARD = Verdict(
    path='a, "quoted"\nname.png',
    label="naïve café",
    confidence=1 / 3,
    p_correct=math.nan,
    decision="review",
    text_score=0.1,
    image_score=math.nan,
    runner_up="",
    reason="because, well",
    error="",
)
ROWS = Verdicts([AWKWARD, error_verdict("broken.jpg", OSError("broken.jpg is empty"))])


def test_columns_are_the_contract():
    # New columns come last, so that whoever reads by position goes on reading the same.
    assert ",".join(COLUMNS) == (
        "path,label,confidence,p_correct,decision,text_score,image_score,runner_up,reason,error,"
        "vlm_label,corrected"
    )
    with_sets = Verdicts([replace(AWKWARD, prediction_set=("a",))]).columns
    assert with_sets == (*COLUMNS[:10], "prediction_set", *COLUMNS[10:])


def test_csv_round_trip_keeps_every_awkward_character():
    rows = list(csv.DictReader(io.StringIO(ROWS.to_csv())))
    assert from_cell(rows[0]["path"]) == AWKWARD.path
    assert rows[0]["label"] == "naïve café"
    assert rows[0]["p_correct"] == ""
    assert float(rows[0]["confidence"]) == pytest.approx(1 / 3, abs=1e-9)
    assert rows[1]["decision"] == "error"
    assert rows[1]["error"] == "broken.jpg is empty"


def test_jsonl_has_null_for_what_does_not_exist():
    first, second = map(json.loads, ROWS.to_jsonl().splitlines())
    assert first["p_correct"] is None
    assert first["confidence"] == 1 / 3
    assert second["confidence"] is None
    assert tuple(first) == COLUMNS


def test_pandas_and_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    pytest.importorskip("pandas", reason="needs the extra pandas")
    ROWS.write(tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert table.column("confidence").to_pylist() == [1 / 3, None]
    frame = ROWS.to_pandas()
    assert list(frame.columns) == list(COLUMNS)
    assert frame["label"].tolist() == ["naïve café", ""]


CORRECTED = replace(AWKWARD, vlm_label='a, "b"', corrected=True)


def test_every_format_says_what_the_vlm_said_and_whether_it_was_corrected(tmp_path):
    rows = Verdicts([CORRECTED, replace(AWKWARD, vlm_label="x", corrected=False), *ROWS[1:]])
    cells = list(csv.DictReader(io.StringIO(rows.to_csv())))
    assert [row["vlm_label"] for row in cells] == ['a, "b"', "x", ""]
    assert [row["corrected"] for row in cells] == ["true", "false", "false"]
    lines = list(map(json.loads, rows.to_jsonl().splitlines()))
    assert [line["corrected"] for line in lines] == [True, False, False]
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    table = rows.to_arrow()
    assert str(table.schema.field("corrected").type) == "bool"
    assert verdicts_from(table)[0].corrected is True
    assert verdicts_from(table)[0].vlm_label == 'a, "b"'


def test_rows_of_versions_that_did_not_say_so_do_not_claim_that_nothing_was_corrected():
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    older = ROWS.to_arrow().drop_columns(["vlm_label", "corrected"])
    read = verdicts_from(older)[0]
    assert (read.label, read.vlm_label, read.corrected) == (AWKWARD.label, "", None)
    again = Verdicts([read])
    assert again.to_csv().endswith(",,,\n")
    assert json.loads(again.to_jsonl())["corrected"] is None
    assert again.to_arrow().column("corrected").to_pylist() == [None]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "OUT.CSV"])
def test_files_hold_the_text(tmp_path, name):
    ROWS.write(tmp_path / name)
    text = ROWS.to_jsonl() if name.endswith("jsonl") else ROWS.to_csv()
    assert (tmp_path / name).read_bytes().decode() == text


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "out.csv"
    target.write_text("old")

    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        ROWS.write(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_sequence_behaviour():
    assert len(ROWS) == 2
    assert ROWS[0] is AWKWARD
    assert isinstance(ROWS[:1], Verdicts)
    assert ROWS.decisions() == {"accept": 0, "review": 1, "error": 1}
    assert repr(ROWS) == "<Verdicts: 2 images (1 review, 1 error)>"
    with pytest.raises(InputError, match="no column `lable`"):
        ROWS.column("lable")


def test_other_endings_are_refused_before_any_work():
    with pytest.raises(InputError, match=r"end in \.csv, \.jsonl or \.parquet"):
        check_output("out.xlsx")
