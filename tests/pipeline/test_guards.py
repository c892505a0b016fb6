"""The guards on the whole way: out-of-distribution images, near-duplicates, advice and drift."""

import json
import os
import stat

import numpy as np
import pytest
from PIL import Image

from pictures import COLOURS, picture, write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.pipeline import advise, monitor
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.pipeline.records import encode_images, list_labelled
from trustvlm.pipeline.shot_quality import Trial, examine


def new_model(**settings):
    options = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    return TrustVLM(**{**options, **settings}, store=EmbeddingStore.memory())


@pytest.fixture
def shots(tmp_path):
    return write_class_folders(tmp_path / "shots", per_class=40)


@pytest.fixture
def photos(tmp_path):
    return write_class_folders(tmp_path / "photos", per_class=10, seed=7)


@pytest.fixture
def model(shots):
    return new_model().fit(shots)


@pytest.fixture
def strange(tmp_path):
    """Pictures that look like none of the classes."""
    folder = tmp_path / "strange"
    folder.mkdir()
    for i in range(60):
        pixels = np.random.default_rng(i).integers(0, 60, size=(32, 32, 3))
        pixels[::2] = 255 - pixels[::2]
        Image.fromarray(pixels.astype(np.uint8)[:, :, [0, 0, 0]]).save(folder / f"{i:02d}.png")
    return folder


def test_an_image_of_no_class_goes_to_review_and_the_reason_says_so(model, photos, strange):
    odd = model.predict(strange)
    assert {verdict.decision for verdict in odd} == {"review"}
    assert all(
        v.reason.startswith("the image resembles none of the classes enough: it is less like '")
        for v in odd
    )
    assert "% of the example images are like their own class" in odd[0].reason
    ordinary = model.predict(photos)
    assert sum("none of the classes" in verdict.reason for verdict in ordinary) <= 3
    assert odd.run.out_of_distribution == len(odd)
    assert any(verdict.decision == "accept" for verdict in ordinary)


def test_with_few_examples_no_image_is_called_of_no_class(tmp_path, strange):
    few = new_model().fit(write_class_folders(tmp_path / "few", per_class=4))
    assert not any("none of the classes" in verdict.reason for verdict in few.predict(strange))


def test_near_copies_of_shots_are_listed_and_kept(tmp_path, photos):
    """A set whose classes are far apart, so that a high cosine means something."""
    rng = np.random.default_rng(0)

    def noise(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)).save(path)

    for name in ("a", "b"):
        for i in range(6):
            noise(tmp_path / "shots" / name / f"{i}.png")
        for i in range(3):
            noise(tmp_path / "labelled" / name / f"{i}.png")
    original = Image.open(tmp_path / "shots" / "a" / "3.png")
    edited = Image.eval(original, lambda value: min(255, value + 4))
    edited.save(tmp_path / "labelled" / "a" / "edited.png")
    result = new_model().fit(tmp_path / "shots").evaluate(tmp_path / "labelled")
    outcome = result.near_copies.pairs
    assert [(copy.path, copy.shot) for copy in outcome] == [("a/edited.png", "a/3.png")]
    assert outcome[0].cosine > 0.99
    assert len(result.labels) == 7, "it is only a warning"
    assert "1 image is nearly the same as an example image" in result.near_copies.warning()
    assert result.to_dict()["near_copies"][0]["shot"] == "a/3.png"


def test_health_names_shots_and_finds_their_files_while_they_last(shots, model):
    (shots / "red" / "extra.png").write_bytes((shots / "blue" / "05.png").read_bytes())
    model.fit(shots)
    outcome = examine(model.state)
    stored = json.loads(json.dumps(outcome.to_dict()))
    listed = stored["mislabelled"]
    assert [(item["path"], item["label"], item["looks_like"]) for item in listed] == [
        ("red/extra.png", "red", "blue")
    ]
    assert 0.5 < listed[0]["expected_wrong"] == listed[0]["probability"] <= stored["expected_wrong"]
    suspect = outcome.health.suspects[0].shot
    assert outcome.file(suspect) == shots / "red" / "extra.png"
    (shots / "red" / "extra.png").write_bytes(b"another")
    assert outcome.file(suspect) is None
    (shots / "red" / "extra.png").unlink()
    assert outcome.file(suspect) is None


def test_the_folder_of_the_shots_survives_saving(shots, model, tmp_path):
    model.vlm, model.vision = "offline", "offline"
    model.save(tmp_path / "m.trust")
    same = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    loaded = TrustVLM.load(tmp_path / "m.trust", **same, store=EmbeddingStore.memory())
    assert examine(loaded.state).file(0) == shots / "blue" / "00.png"
    manifest, arrays = read_artefact(tmp_path / "m.trust")
    del manifest["shots"]["folder"]
    write_artefact(tmp_path / "m.trust", manifest, arrays)
    older = TrustVLM.load(tmp_path / "m.trust", **same, store=EmbeddingStore.memory())
    assert examine(older.state).file(0) is None


def test_shots_named_by_path_are_found_again(shots):
    paths = [str(shots / name / f"{i:02d}.png") for name in COLOURS for i in range(4)]
    labels = [name for name in COLOURS for _ in range(4)]
    outcome = examine(new_model().fit((paths, labels)).state)
    assert outcome.file(0) == shots / "red" / "00.png"


def test_advice_leaves_shots_out_and_tells_everything_in_json(model, shots, photos):
    (photos / "red" / "a_shot.png").write_bytes((shots / "red" / "00.png").read_bytes())
    (photos / "red" / "broken.png").write_bytes(b"")
    outcome = advise(model, photos, risk=0.2, examples=3)
    assert outcome.excluded == ("red/a_shot.png",)
    assert [failure.path for failure in outcome.failures] == ["red/broken.png"]
    assert outcome.advice.n == 30
    stored = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
    assert stored["label_next"]["risk"] == 0.2
    assert {item["label"] for item in stored["label_next"]["classes"]} <= set(COLOURS)
    assert [item["label"] for item in stored["health"]["prototypes"]] == sorted(COLOURS)
    assert advise(model).advice is None


def test_advice_is_what_fitting_with_these_examples_gives(model, shots, photos, tmp_path):
    """The trial of joined images equals a model that was fitted with them."""
    images = encode_images(list_labelled(photos, model.classes_), model.embedder)
    refs, trial = images.refs, Trial(model.state, images)
    joined, judged = np.array([0, 1, 12]), np.array([5, 15, 25])
    for i in joined:
        name = refs[i].path.replace("/", "/joined_")
        (shots / name).write_bytes(refs[i].file.read_bytes())
    verdicts = new_model().fit(shots).predict([refs[i].file for i in judged])
    result = trial.judge(joined, judged)
    np.testing.assert_allclose(result.confidence, verdicts.column("confidence"), atol=1e-9)


class TestMonitor:
    def test_ordinary_images_raise_no_alarm_and_strange_ones_do(self, model, photos, strange):
        assert not monitor(model, photos).monitor.drifted
        outcome = monitor(model, strange)
        assert outcome.monitor.drifted
        assert outcome.calibrated_on == "120 example images, each held out"
        assert outcome.latest["typicality"] < outcome.monitor.streams["typicality"].usual

    def test_the_state_goes_on_and_counts_every_image_once(self, model, photos, strange, tmp_path):
        state = tmp_path / "drift.json"
        first = monitor(model, photos, state=state)
        assert os.name == "nt" or stat.S_IMODE(state.stat().st_mode) == 0o600
        assert (first.new, first.repeated, first.monitor.n) == (30, 0, 30)
        again = monitor(model, photos, state=state)
        assert (again.new, again.repeated, again.monitor.n) == (0, 30, 30)
        assert again.monitor.streams == first.monitor.streams
        last = monitor(model, strange, state=state)
        assert last.monitor.drifted
        assert last.monitor.n == 90
        assert min(s.drifted_after for s in last.monitor.streams.values() if s.drifted_after) > 30
        assert monitor(model, photos, state=state).monitor.drifted, "the alarm stays"

    def test_a_reference_replaces_the_shots(self, model, photos, strange, tmp_path):
        state = tmp_path / "drift.json"
        outcome = monitor(model, strange, reference=strange, state=state)
        assert outcome.calibrated_on == "60 reference images"
        assert not outcome.monitor.drifted
        with pytest.raises(InputError, match="has a reference already"):
            monitor(model, photos, reference=photos, state=state)
        assert monitor(model, photos, state=state).monitor.drifted

    def test_a_calibrated_model_is_compared_with_its_calibration(
        self, model, photos, strange, tmp_path
    ):
        state, other = tmp_path / "drift.json", write_class_folders(tmp_path / "c", 20, seed=3)
        monitor(model, photos, state=state)
        model.calibrate(other)
        with pytest.raises(InputError, match="calibrated again"):
            monitor(model, photos, state=state)
        outcome = monitor(model, photos)
        assert outcome.calibrated_on == "60 calibration images (confidence and typicality)"
        calibration = outcome.monitor.streams["confidence"].calibration
        assert list(calibration) == sorted(model.predict(other).column("confidence"))
        assert not outcome.monitor.drifted
        assert monitor(model, strange).monitor.drifted

    def test_a_score_that_adapts_to_the_batch_does_not_hide_that_it_changed(
        self, shots, photos, strange
    ):
        adapting = new_model(score="auto_adapted").fit(shots)
        assert not monitor(adapting, photos).monitor.drifted
        outcome = monitor(adapting, strange)
        assert outcome.monitor.drifted
        assert set(outcome.latest) == {"text_confidence", "typicality"}

    def test_unreadable_images_are_told_and_left_out(self, model, photos):
        (photos / "red" / "broken.png").write_bytes(b"no image")
        outcome = monitor(model, photos)
        assert [failure.path for failure in outcome.failures] == ["red/broken.png"]
        assert outcome.new == 30
        json.dumps(outcome.to_dict(), allow_nan=False)

    def test_a_state_is_bound_to_its_model_and_bound(self, model, shots, photos, tmp_path):
        state = tmp_path / "drift.json"
        monitor(model, photos, state=state)
        with pytest.raises(InputError, match="false-alarm bound"):
            monitor(model, photos, state=state, false_alarm=0.01)
        (shots / "red" / "00.png").unlink()
        other = new_model().fit(shots)
        with pytest.raises(InputError, match="belongs to another model"):
            monitor(other, photos, state=state)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "cannot be read"),
            ("[]", "not the state"),
            ('{"format": "trustvlm.monitor", "format_version": 9}', "format version 9"),
        ],
    )
    def test_a_damaged_state_is_refused(self, model, photos, tmp_path, content, message):
        (tmp_path / "drift.json").write_text(content)
        with pytest.raises(InputError, match=message):
            monitor(model, photos, state=tmp_path / "drift.json")
        assert (tmp_path / "drift.json").read_text() == content

    def test_an_incomplete_state_is_refused(self, model, photos, tmp_path):
        state = tmp_path / "drift.json"
        monitor(model, photos, state=state)
        for key in ("seen", "monitor"):
            stored = json.loads(state.read_text())
            del stored[key]
            (tmp_path / "part.json").write_text(json.dumps(stored))
            with pytest.raises(InputError, match="not complete"):
                monitor(model, photos, state=tmp_path / "part.json")

    def test_with_a_single_example_a_class_a_reference_is_needed(self, tmp_path, photos):
        single = new_model().fit(write_class_folders(tmp_path / "single", per_class=1))
        with pytest.raises(InputError, match="--reference"):
            monitor(single, photos)
        assert not monitor(single, photos, reference=photos).monitor.drifted


def test_a_picture_like_the_others_is_ordinary(model, tmp_path):
    picture(COLOURS["red"], seed=999).save(tmp_path / "one.png")
    verdict = model.predict(tmp_path / "one.png")[0]
    assert "none of the classes" not in verdict.reason
