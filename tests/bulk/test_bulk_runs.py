"""A bulk job says what holds for all its images together, and decides accordingly."""

import json

import numpy as np
import pytest
from PIL import Image

from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.bulk import predict_in_bulk
from trustvlm.bulk.folder import FOLDER, LocalFolder
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


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = write_class_folders(tmp_path_factory.mktemp("photos"), per_class=12, seed=7)
    (folder / "00_broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expecting(model, tmp_path_factory):
    """The model with a guarantee on average, whose threshold follows from the whole run."""
    folder = tmp_path_factory.mktemp("expecting")
    labelled = write_class_folders(folder / "labelled", per_class=20, seed=6)
    trust = TrustVLM.load(model, store=NullStore())
    trust.calibrate(labelled, guarantee="expectation", risk=0.2).save(folder / "m.trust")
    return folder / "m.trust"


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_job_of_an_expected_share_ends_decided_though_interrupted(
    expecting, photos, tmp_path, stop_at
):
    output, settings = tmp_path / "out", {"part_size": 10, "prediction_sets": 0.9}

    def interrupt(done):
        if done >= 10 * stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_in_bulk(expecting, photos, output, progress=interrupt, **settings)
    assert "pending" in {row["decision"] for row in rows(output)}
    summary = predict_in_bulk(expecting, photos, output, **settings)
    expected, run = alone(expecting, photos, prediction_sets=0.9)
    for row, whole in zip(rows(output), expected, strict=True):
        # The last digit may depend on where in an array a number stands.
        assert row == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in whole.items()}
    assert summary.run.to_dict() == run.to_dict()
    assert summary.decisions.get("pending", 0) == 0
    assert sum(summary.decisions.values()) == len(expected)
    before = {f.name: f.read_bytes() for f in output.glob("*.parquet")}
    again = predict_in_bulk(expecting, photos, output, **settings)
    assert {k: n for k, n in again.decisions.items() if n} == {
        k: n for k, n in summary.decisions.items() if n
    }
    assert {f.name: f.read_bytes() for f in output.glob("*.parquet")} == before


def test_parts_of_unreadable_images_alone_have_the_column_of_sets(model, photos, tmp_path):
    predict_in_bulk(model, photos, tmp_path / "out", part_size=1, prediction_sets=0.9)
    schemas = {parquet.read_schema(f).remove_metadata() for f in (tmp_path / "out").glob("*.par*")}
    assert len(schemas) == 1
    assert "prediction_set" in schemas.pop().names


def test_the_note_on_decisions_is_about_the_risk_in_use(model, photos, tmp_path):
    trust = TrustVLM.load(model, store=NullStore())
    labelled = write_class_folders(tmp_path / "labelled", per_class=20, seed=6)
    trust.calibrate(labelled, risk=[0.2, 0.4], confidence_level=0.9).save(tmp_path / "m.trust")
    summary = predict_in_bulk(tmp_path / "m.trust", photos, tmp_path / "out", risk=0.4)
    note = next(note for note in summary.notes if note.startswith("decisions"))
    assert note.index("40 %") < note.index("20 %")


def test_of_two_lines_of_a_part_the_last_one_counts(model, photos, tmp_path):
    from trustvlm.bulk.journal import Journal

    predict_in_bulk(model, photos, tmp_path / "out", part_size=50)
    journal = Journal(LocalFolder(tmp_path / "out"))
    (entry,) = journal.files
    content = (tmp_path / "out" / entry.file).read_bytes()
    journal.replace(entry, content, {"review": entry.n_images})
    assert dict(Journal(LocalFolder(tmp_path / "out")).decisions) == {"review": entry.n_images}
