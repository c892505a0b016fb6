"""Whether a run is like the calibration images, and what becomes of its decisions."""

import json

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.pipeline.runs import Run, RunSums
from trustvlm.pipeline.verdict import METADATA

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}


@pytest.fixture
def calibrated(tmp_path):
    shots = write_class_folders(tmp_path / "shots", per_class=6)
    labelled = write_class_folders(tmp_path / "labelled", per_class=20, seed=5)
    model = TrustVLM(**ENCODERS, score="auto_star", store=EmbeddingStore.memory()).fit(shots)
    return model.calibrate(labelled, risk=0.2, confidence_level=0.9)


@pytest.fixture
def photos(tmp_path):
    return write_class_folders(tmp_path / "photos", per_class=12, seed=7)


@pytest.fixture
def others(tmp_path):
    """Pictures of another kind: noise of all colours."""
    from PIL import Image

    folder = tmp_path / "others"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
            folder / f"{i:02d}.png"
        )
    return folder


def test_images_of_the_same_kind_keep_their_decisions(calibrated, photos):
    verdicts = calibrated.predict(photos)
    assert not verdicts.run.invalid
    assert verdicts.run.n == len(verdicts)
    assert list(verdicts) == list(calibrated.iter_predict(photos))
    assert verdicts.decisions()["accept"] > 0


def test_images_of_another_kind_are_all_reviewed_and_it_says_why(calibrated, others):
    kept = calibrated.predict(others, when_invalid="keep")
    reviewed = calibrated.predict(others)
    assert kept.run.invalid
    assert "another kind" in kept.run.problems[0]
    assert list(kept) == list(calibrated.iter_predict(others))
    assert reviewed.decisions()["accept"] == 0
    for before, after in zip(kept, reviewed, strict=True):
        if before.decision == "accept":
            assert after.reason.startswith("the guarantee does not cover this run")
        else:
            assert after == before


def test_another_mix_is_told_apart_from_another_kind(calibrated, photos):
    (one, *_) = sorted(p for p in photos.iterdir() if p.is_dir())
    files = [str(p) for p in sorted(one.iterdir())]
    run = calibrated.predict(files).run
    assert run.test.other_mix
    assert not run.test.other_kind
    assert "mixed in other shares" in run.problems[0]
    assert one.name in run.problems[0]


def test_the_order_and_the_parts_of_a_run_change_nothing(calibrated, photos):
    from trustvlm.images import open_images
    from trustvlm.pipeline.predict import Predictor

    images = list(open_images(photos))
    predictor = Predictor(calibrated)

    def sums(chosen):
        run = predictor.run()
        for _ in predictor.chunks(chosen, run=run):
            pass
        return run.sums

    whole = sums(images)
    parts = sums(images[20:]) + sums(images[:20])
    assert parts.to_dict() == whole.to_dict() == sums(images[::-1]).to_dict()
    restored = RunSums.from_dict(json.loads(json.dumps(whole.to_dict())), len(calibrated.classes_))
    run = Run(calibrated.state)
    assert run.outcome(restored).to_dict() == run.outcome(whole).to_dict()


def test_the_comparison_outlives_saving(calibrated, others, photos, tmp_path):
    calibrated.vlm = calibrated.vision = "offline"
    calibrated.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    for images in (photos, others):
        assert again.predict(images).run.to_dict() == calibrated.predict(images).run.to_dict()


def test_a_calibration_without_typicality_compares_with_the_shots(calibrated, others, photos):
    from dataclasses import replace

    state = calibrated.state
    older = replace(state, calibration=replace(state.calibration, typicality=None))
    calibrated._learned = older
    assert calibrated.predict(others).run.test.other_kind
    assert not calibrated.predict(photos).run.invalid


def test_without_a_guarantee_nothing_can_be_invalid(calibrated, others):
    calibrated.calibrate_on_shots()
    run = calibrated.predict(others).run
    assert (run.invalid, run.test) == (False, None)
    assert run.to_dict()["guarantee"] is None


def test_parquet_says_so_in_its_metadata(calibrated, others, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    calibrated.predict(others).write(tmp_path / "out.parquet")
    said = json.loads(parquet.read_schema(tmp_path / "out.parquet").metadata[METADATA.encode()])
    assert said["guarantee"] == "invalid"


def test_evaluate_tests_the_guarantee_on_the_labels(calibrated, photos, others, tmp_path):
    good = calibrated.evaluate(photos)
    assert not good.contradicted
    assert "do not contradict" in good.guarantee_statement()
    # The same pictures, all called by the next class's name.
    folders = sorted(p for p in photos.iterdir() if p.is_dir())
    rows = [
        f"{file},{folders[(i + 1) % len(folders)].name}"
        for i, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
    ]
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("\n".join(["path,label", *rows]) + "\n")
    bad = calibrated.evaluate(wrong)
    assert bad.contradicted
    assert bad.to_dict()["guarantee"]["contradicted"]
    assert "contradict the guarantee" in bad.guarantee_statement()


def test_an_unknown_wish_is_refused_before_work_begins(calibrated):
    with pytest.raises(InputError, match="review or keep"):
        calibrated.predict("nowhere", when_invalid="ignore")
