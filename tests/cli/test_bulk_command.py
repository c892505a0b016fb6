"""`trustvlm predict -o FOLDER/`."""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile

import pytest

from pictures import picture
from trustvlm import TrustVLM
from trustvlm.bulk import predict_in_bulk
from trustvlm.embeddings import EmbeddingStore

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def archive(photos, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as made:
        for file in sorted(photos.rglob("*.png")):
            made.add(file, file.relative_to(photos).as_posix())
    return tmp_path / "photos.tar"


def test_a_folder_of_parquet_files_that_continues(trustvlm, fitted, photos, archive, tmp_path):
    out = f"{tmp_path}/out/"
    done = trustvlm("predict", fitted, archive, photos / "red", "-o", out, "--part-size", 4)
    assert done.code == 0, done.err
    assert "20 images in" in done.err
    assert "images/s" in done.err
    assert "note: decisions: uncalibrated" in done.err
    assert not done.out
    table = parquet.read_table(out)
    assert table.num_rows == 20
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 6
    again = trustvlm("predict", fitted, archive, photos / "red", "-o", out, "--part-size", 4)
    assert "nothing was left to do" in again.err
    other = trustvlm("predict", fitted, archive, "-o", tmp_path / "out", "--part-size", 4)
    assert other.code == 1
    assert "on other inputs" in other.err
    summary = json.loads((tmp_path / "out/_trustvlm/summary.json").read_text())
    assert summary["decisions"] == {**summary["decisions"], "error": 0}


def test_the_same_rows_as_in_one_file(trustvlm, fitted, archive, tmp_path):
    one = trustvlm("predict", fitted, archive, "--quiet")
    trustvlm("predict", fitted, archive, "-o", f"{tmp_path}/out/", "--quiet")
    expected = list(csv.DictReader(io.StringIO(one.out)))
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    for row, cells in zip(rows, expected, strict=True):
        assert row["confidence"] == pytest.approx(float(cells["confidence"]), rel=1e-6)


def test_images_in_parquet_by_their_column(trustvlm, fitted, tmp_path):
    import pyarrow

    content = io.BytesIO()
    picture((200, 40, 40), 3).save(content, "PNG")
    columns = {"id": ["a", "b"], "raw": [content.getvalue(), b"x"], "thumb": [b"1", b"2"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    done = trustvlm("predict", fitted, tmp_path / "p.parquet", "-q")
    assert done.code == 1
    assert "--image-column" in done.err
    options = ["--image-column", "raw", "--path-column", "id", "-q"]
    done = trustvlm("predict", fitted, tmp_path / "p.parquet", *options)
    assert done.code == 3
    a, b = csv.DictReader(io.StringIO(done.out))
    assert (a["path"], a["decision"] != "error", b["path"], b["decision"]) == (
        "a",
        True,
        "b",
        "error",
    )
    done = trustvlm("predict", fitted, tmp_path / "p.parquet", *options, "-o", f"{tmp_path}/out/")
    assert done.code == 3


def test_a_score_of_the_whole_batch_is_refused_with_a_way_out(shots, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    model = TrustVLM(vlm="offline", vision="offline", score="auto_adapted").fit(shots)
    model.save(tmp_path / "m.trust")
    with pytest.raises(
        ValueError, match=r"judges each image by all the others.*with --adapt-to IMAGES"
    ):
        predict_in_bulk(tmp_path / "m.trust", photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_calibration_is_another_model(trustvlm, fitted, shots, photos, tmp_path):
    model = TrustVLM.load(fitted)
    model.score = "trustvlm"
    model.save(tmp_path / "m.trust")
    predict_in_bulk(tmp_path / "m.trust", photos, tmp_path / "out")
    model.save(tmp_path / "m.trust")
    assert predict_in_bulk(tmp_path / "m.trust", photos, tmp_path / "out").n_now == 0
    model.score_parameters = {"weight": 0.5}
    model.save(tmp_path / "m.trust")
    with pytest.raises(ValueError, match=r"another model \(score: .* there, .* now\)"):
        predict_in_bulk(tmp_path / "m.trust", photos, tmp_path / "out")


@pytest.mark.slow
def test_embeddings_are_kept_only_if_asked_for(fitted, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path / "cache"))
    predict_in_bulk(fitted, photos, tmp_path / "one")
    file = tmp_path / "cache" / "embeddings.sqlite"
    assert not file.exists()
    predict_in_bulk(fitted, photos, tmp_path / "two", keep_embeddings=True)
    with EmbeddingStore(file) as store:
        assert store.stats().entries == 2 * 15
    assert parquet.read_table(tmp_path / "one") == parquet.read_table(tmp_path / "two")


def test_a_folder_that_is_not_there_needs_its_slash(trustvlm, fitted, photos, tmp_path):
    done = trustvlm("predict", fitted, photos, "-o", tmp_path / "o")
    assert done.code == 2
    assert "or in a slash for a folder" in done.err


def test_engines_are_named_and_need_a_folder(trustvlm, fitted, photos, tmp_path):
    done = trustvlm("predict", fitted, photos, "--engine", "ray", "-o", tmp_path / "o.csv")
    assert done.code == 2
    assert "-o FOLDER/" in done.err
    done = trustvlm("predict", fitted, photos, "--engine", "spark", "-o", f"{tmp_path}/o/")
    assert "to be local or ray, but got 'spark'" in done.err
    done = trustvlm("predict", fitted, photos, "-o", f"{tmp_path}/o/", "--actors", "2")
    assert "say --engine ray, too" in done.err
    many = ["--engine", "ray", "--actors", "many"]
    done = trustvlm("predict", fitted, photos, "-o", f"{tmp_path}/o/", *many)
    assert "FEWEST:MOST" in done.err


def test_without_ray_the_extra_is_named(trustvlm, fitted, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = trustvlm("predict", fitted, photos, "-o", f"{tmp_path}/o/", "--engine", "ray")
    assert done.code == 1
    assert "trustvlm[ray]" in done.err
    assert not (tmp_path / "o").exists()
