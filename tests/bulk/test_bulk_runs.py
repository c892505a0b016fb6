"""A bulk job says what holds for all its images together, and decides accordingly."""

import json

import numpy as np
import pytest
from PIL import Image

from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.bulk import predict_in_bulk
from trustvlm.bulk.journal import FOLDER
from trustvlm.embeddings import NullStore
from trustvlm.exceptions import InputError
from trustvlm.pipeline.verdict import METADATA

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shots = write_class_folders(folder / "shots", per_class=6)
    labelled = write_class_folders(folder / "labelled", per_class=20, seed=5)
    trust = TrustVLM(vlm="offline", vision="offline", score="auto_star", store=NullStore())
    trust.fit(shots).calibrate(labelled, risk=0.2, confidence_level=0.9)
    assert trust.calibration_.certificate.certified
    trust.save(folder / "m.trust")
    return folder / "m.trust"


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    rng = np.random.default_rng(0)
    for i in range(40):
        noise = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02d}.png")
    return folder


def rows(output):
    return [
        row
        for file in sorted(output.glob("*.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]


def alone(model, images, **settings):
    verdicts = TrustVLM.load(model, store=NullStore()).predict(images, **settings)
    return verdicts.to_arrow().to_pylist(), verdicts.run


def test_a_job_over_other_images_ends_with_the_decisions_of_predict(model, others, tmp_path):
    summary = predict_in_bulk(model, others, tmp_path / "out", part_size=16)
    expected, run = alone(model, others)
    assert run.invalid
    assert rows(tmp_path / "out") == expected
    assert summary.run.to_dict() == run.to_dict()
    assert summary.decisions["accept"] == 0
    stored = json.loads((tmp_path / "out" / FOLDER / "summary.json").read_text())
    assert stored["run"]["guarantee"] == "invalid"
    for file in (tmp_path / "out").glob("*.parquet"):
        metadata = parquet.read_schema(file).metadata
        assert json.loads(metadata[METADATA.encode()])["guarantee"] == "invalid"


def test_going_on_with_a_decided_job_computes_nothing_and_changes_nothing(model, others, tmp_path):
    predict_in_bulk(model, others, tmp_path / "out", part_size=16)
    before = {f.name: f.read_bytes() for f in (tmp_path / "out").glob("*.parquet")}
    again = predict_in_bulk(model, others, tmp_path / "out", part_size=16)
    assert again.n_now == 0
    assert again.decisions["accept"] == 0
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").glob("*.parquet")} == before


def test_decisions_are_kept_where_that_was_asked_for(model, others, tmp_path):
    predict_in_bulk(model, others, tmp_path / "out", part_size=16, when_invalid="keep")
    assert rows(tmp_path / "out") == alone(model, others, when_invalid="keep")[0]
    with pytest.raises(InputError, match="when_invalid: keep there"):
        predict_in_bulk(model, others, tmp_path / "out", part_size=16)
