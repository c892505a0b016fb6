import csv
import io
import json
import math
import re
from collections import Counter

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, decisions, metrics
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError, InputError, LeakError, TrustVLMWarning
from trustvlm.images import find_images, find_labelled
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.pipeline.predict import explain, verdicts_with_shots
from trustvlm.pipeline.records import encode_images
from trustvlm.scores import apply

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}


def new_model(**settings):
    return TrustVLM(**ENCODERS, **{"store": EmbeddingStore.memory(), **settings})


@pytest.fixture
def shots(tmp_path):
    return write_class_folders(tmp_path / "shots")


@pytest.fixture
def labelled(tmp_path):
    return write_class_folders(tmp_path / "labelled", per_class=15, seed=5)


@pytest.fixture
def photos(tmp_path):
    return write_class_folders(tmp_path / "photos", per_class=5, seed=7)


@pytest.fixture
def fitted(shots):
    # The text side of this encoder guesses; the starred score corrects it.
    return new_model(score="trustvlm_star").fit(shots)


def test_calibration_equals_the_decisions_on_the_verdicts(fitted, labelled, photos):
    before = fitted.predict(photos)
    verdicts = fitted.predict(labelled)
    truth = [v.path.split("/")[0] for v in verdicts]
    right = [v.label == t for v, t in zip(verdicts, truth, strict=True)]
    confidence = verdicts.column("confidence")
    learned = fitted.calibrate(labelled, risk=0.2, confidence_level=0.9).calibration_
    assert learned.certificate == decisions.certify(confidence, right, 0.2, 0.9)
    assert learned.certificate.certified
    # The prior is what the shots say, each judged without itself.
    held_out = fitted.cross_validate(["trustvlm_star"], folds=4)
    shots = held_out.results["trustvlm_star"]
    prior = decisions.LogisticPrior.of_held_out(
        shots.confidence, shots.prediction == held_out.labels
    )
    calibrator = decisions.Calibrator(prior=prior).fit(confidence, right)
    without_prior = decisions.Calibrator().fit(confidence, right)
    after = fitted.predict(photos)
    assert after.column("p_correct") != pytest.approx(
        without_prior.predict(before.column("confidence"))
    )
    assert after.column("confidence") == before.column("confidence")
    assert after.column("p_correct") == pytest.approx(
        calibrator.predict(before.column("confidence"))
    )
    for verdict in after:
        reached = verdict.confidence >= learned.certificate.threshold
        assert verdict.decision == ("accept" if reached else "review")
        stated = "reaches the threshold" if reached else "is below the threshold"
        assert stated in verdict.reason


def test_without_a_certified_threshold_everything_is_reviewed(fitted, labelled, photos):
    with_few = fitted.calibrate(labelled, risk=0.01)
    assert math.isnan(with_few.calibration_.certificate.threshold)
    verdicts = with_few.predict(photos)
    assert set(verdicts.column("decision")) == {"review"}
    assert all("no threshold is certified" in v.reason for v in verdicts)
    assert not any(math.isnan(v.p_correct) for v in verdicts)
    assert "you would need about" in with_few.calibration_.rule


def test_the_artefact_keeps_what_was_certified(fitted, labelled, photos, tmp_path):
    fitted.calibrate(labelled, risk=0.2, confidence_level=0.9)
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    stored = json.loads((tmp_path / "m.trust" / "manifest.json").read_text())
    stated = stored["calibration"]
    assert stated["certificate"]["risk"] == 0.2
    assert stated["certificate"]["confidence_level"] == 0.9
    assert stated["certificate"]["method"] == "fixed_sequence"
    assert stated["data"]["n"] == 45
    assert stated["data"]["counts"] == [15, 15, 15]
    assert len(stated["data"]["fingerprint"]) == 64
    assert stated["created_at"].startswith("20")
    assert stated["statement"] in stored["decision_rule"]
    assert "drawn independently" in stored["decision_rule"]
    loaded = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert loaded.predict(photos).to_csv() == fitted.predict(photos).to_csv()
    again, once = loaded.calibration_, fitted.calibration_
    assert again.certificate == once.certificate
    np.testing.assert_array_equal(again.result.confidence, once.result.confidence)
    np.testing.assert_array_equal(again.correct, once.correct)
    assert again.to_manifest(3) == once.to_manifest(3)


def test_a_damaged_calibration_is_an_error_that_says_so(fitted, labelled, tmp_path):
    fitted.calibrate(labelled, risk=0.2)
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    manifest, arrays = read_artefact(tmp_path / "m.trust")
    del arrays["calibrator_probability"]
    write_artefact(tmp_path / "m.trust", manifest, arrays)
    with pytest.raises(ArtefactError, match=r"calibrator `logistic` lacks probability"):
        TrustVLM.load(tmp_path / "m.trust", **ENCODERS)


def test_images_have_one_role(fitted, shots, labelled):
    with pytest.raises(LeakError, match=r"12 of 12 images .*among the shots.*Calibrate on other"):
        fitted.calibrate(shots)
    copied = labelled / "red" / "copied.png"
    copied.write_bytes((shots / "red" / "00.png").read_bytes())
    learned = fitted.calibrate(labelled, exclude_shots=True).calibration_
    assert len(learned.labels) == 45
    with pytest.raises(LeakError, match="among the shots and the images calibrated on"):
        fitted.evaluate(labelled)
    with pytest.raises(InputError, match="No labelled image is left"):
        fitted.evaluate(labelled, exclude_shots=True)
    # Calibrating again on the same images is no leak, but a second look at them.
    with pytest.warns(TrustVLMWarning, match="45 of the 45 images were calibrated on before"):
        again = fitted.calibrate(labelled, risk=0.2, exclude_shots=True).calibration_
    assert again.images == learned.images


def test_copies_and_broken_images_are_left_out_with_a_warning(fitted, labelled):
    (labelled / "red" / "twice.png").write_bytes((labelled / "red" / "00.png").read_bytes())
    (labelled / "blue" / "broken.png").write_bytes(b"")
    with pytest.warns(TrustVLMWarning) as caught:
        learned = fitted.calibrate(labelled).calibration_
    messages = [str(w.message) for w in caught]
    assert any("1 copies of other images" in m for m in messages)
    assert any("broken.png" in m for m in messages)
    assert len(learned.labels) == 45
    assert learned.unreadable == ("blue/broken.png",)


def test_another_score_needs_another_calibration(fitted, labelled, photos, shots):
    fitted.calibrate(labelled)
    fitted.score = "msp"
    for act in (fitted.predict, fitted.evaluate):
        with pytest.raises(InputError, match="calibrated for the score `trustvlm_star`"):
            act(photos)
    with pytest.warns(TrustVLMWarning, match="2 calibrations have used labels of these images"):
        assert fitted.calibrate(labelled).calibration_.score == "msp"
    fitted.predict(photos)
    assert fitted.fit(shots).calibration_ is None


def test_a_calibration_of_what_a_score_was_before_is_refused(shots, labelled, photos, tmp_path):
    model = new_model(score="trine").fit(shots).calibrate(labelled)
    model.vlm = model.vision = "offline"
    model.save(tmp_path / "m.trust")
    TrustVLM.load(tmp_path / "m.trust", **ENCODERS).predict(photos)
    manifest, arrays = read_artefact(tmp_path / "m.trust")
    stored = manifest["calibration"]["score"]
    assert stored.pop("revision") == 2  # as older versions wrote it
    write_artefact(tmp_path / "m.trust", manifest, arrays, overwrite=True)
    old = TrustVLM.load(tmp_path / "m.trust", **ENCODERS)
    for act in (old.predict, old.evaluate):
        with pytest.raises(InputError, match="in which `trine` had other values: calibrate again"):
            act(photos)
    with pytest.warns(TrustVLMWarning, match="45 of the 45 images were calibrated on before"):
        old.calibrate(labelled)
    old.predict(photos)


def test_evaluations_tell_of_the_calibration(fitted, labelled, photos):
    result = fitted.calibrate(labelled, risk=0.2).evaluate(photos)
    assert result.model["calibration"]["data"]["n"] == 45
    stated = json.loads(json.dumps(result.to_dict(), allow_nan=False))["p_correct"]
    p = result.verdicts.column("p_correct")
    assert stated["brier"] == pytest.approx(metrics.brier(p, result.correct()))
    np.testing.assert_allclose(
        result.verdicts.column("p_correct"),
        fitted.calibration_.calibrator.predict(result.results["trustvlm_star"].confidence),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"risk": 2}, "write 5 percent as 0.05"),
        ({"confidence_level": 0}, "`confidence_level`"),
        ({"method": "best"}, "`method` to be one of"),
        ({"calibrator": "plat"}, "did you mean platt"),
    ],
)
def test_wrong_settings_are_explained_before_images_are_read(fitted, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        fitted.calibrate(tmp_path / "nowhere", **settings)


def test_a_score_that_depends_on_the_batch_is_refused(shots, labelled):
    model = new_model(score="auto_adapted").fit(shots)
    with pytest.raises(InputError, match="depends on the other images of its batch"):
        model.calibrate(labelled)


@pytest.mark.parametrize(
    "goal",
    [
        {"per_class": True, "risk": 0.45, "confidence_level": 0.8},
        {"min_coverage": 0.5},
        {"cost_error": 5, "cost_review": 1},
    ],
)
def test_other_goals_decide_and_are_kept(fitted, labelled, photos, tmp_path, goal):
    verdicts = fitted.calibrate(labelled, **goal).predict(photos)
    rule = fitted.calibration_.certificate
    assert rule.certified
    index = {name: i for i, name in enumerate(fitted.classes_.names)}
    limits = rule.thresholds(np.array([index[v.label] for v in verdicts]))
    for verdict, limit in zip(verdicts, limits, strict=True):
        assert (verdict.decision == "accept") == (verdict.confidence >= limit)
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    loaded = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert loaded.calibration_.certificate.to_dict() == rule.to_dict()
    assert loaded.predict(photos).to_csv() == verdicts.to_csv()


def test_the_shots_alone_give_a_probability_and_promise_nothing(fitted, shots, photos, tmp_path):
    before = fitted.predict(photos)
    after = fitted.calibrate_on_shots().predict(photos)
    assert after.column("decision") == before.column("decision")
    assert after.column("reason") == before.column("reason")
    assert not any(math.isnan(p) for p in after.column("p_correct"))
    learned = fitted.calibration_
    held_out = fitted.cross_validate(["trustvlm_star"], folds=4).results["trustvlm_star"]
    np.testing.assert_array_equal(learned.result.confidence, held_out.confidence)
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    stored = json.loads((tmp_path / "m.trust" / "manifest.json").read_text())
    assert stored["calibration"]["data"]["source"] == "shots"
    assert "optimistic" in stored["calibration"]["statement"]
    assert "no error rate is guaranteed" in stored["decision_rule"]
    loaded = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert loaded.predict(photos).to_csv() == after.to_csv()


def test_the_quality_is_measured_on_images_left_out(fitted, labelled):
    learned = fitted.calibrate(labelled).calibration_
    p = decisions.cross_fitted(learned.result.confidence, learned.correct, learned.calibrator)
    assert learned.quality()["brier"] == metrics.brier(p, learned.correct)
    accuracy = learned.correct.mean()
    assert learned.quality()["brier_constant"] == pytest.approx(accuracy * (1 - accuracy))


def test_an_unfitted_model_cannot_be_calibrated(labelled):
    with pytest.raises(InputError, match="call fit"):
        new_model().calibrate(labelled)


def test_images_of_no_class_are_reviewed_whatever_their_confidence(fitted, labelled, photos):
    fitted.calibrate(labelled, risk=0.2, confidence_level=0.9)
    # All but a picture of the shots' own colours would be called unlike any class.
    scope = decisions.OODGate(nearest=decisions.OODThreshold(below=2.0, false_flags=0.01))
    images = encode_images(find_images(photos), fitted.embedder)
    shown = fitted.evidence(images.image_embeddings, images.features)
    result = apply(fitted.score, shown)
    for verdict in verdicts_with_shots(
        result,
        explain(shown, result.prediction, scope),
        images.paths,
        ["b", "g", "r"],
        fitted.calibration_,
    ):
        assert verdict.decision == "review"
        assert verdict.reason.startswith("the image resembles none of the classes")


def test_looks_at_the_same_images_are_counted(fitted, labelled, tmp_path):
    others = write_class_folders(tmp_path / "others", per_class=8, seed=11)
    first = fitted.calibrate(labelled, risk=0.2, confidence_level=0.9).calibration_
    assert first.looks == 1
    assert "calibrations have used" not in first.rule
    with pytest.warns(TrustVLMWarning, match=r"45 of the 45 .*this changes nothing"):
        same = fitted.calibrate(labelled, risk=0.2, confidence_level=0.9).calibration_
    assert same.looks == 1
    with pytest.warns(TrustVLMWarning, match=r"up to 2 times as large, and larger where"):
        second = fitted.calibrate(labelled, risk=0.3, confidence_level=0.9).calibration_
    assert second.looks == 2
    assert second.certified
    assert "2 calibrations have used labels of these images" in second.rule
    # Other images start anew, but the first ones are remembered, in the artefact too.
    fresh = fitted.calibrate(others, risk=0.3, confidence_level=0.9).calibration_
    assert fresh.looks == 1
    assert sorted(Counter(fitted.state.looked_at.values()).items()) == [(1, 24), (2, 45)]
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    loaded = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert loaded.state.looked_at == fitted.state.looked_at
    # In between others were looked at, and the model changed: that makes no label unseen.
    with pytest.warns(TrustVLMWarning, match="45 of the 45 images were calibrated on before: 3"):
        third = loaded.calibrate(labelled, risk=0.2, confidence_level=0.9).calibration_
    assert third.looks == 3
    # One image that was looked at before makes the whole calibration a further look.
    mixed = (*find_labelled(others).refs, *find_labelled(labelled).refs[:1])
    with pytest.warns(TrustVLMWarning, match=r"25 of the 25 images were calibrated on before: 4"):
        loaded.calibrate([(i.file, i.label) for i in mixed], risk=0.2, confidence_level=0.9)
    assert loaded.calibration_.looks == 4


def test_files_of_earlier_versions_say_what_was_looked_at_in_their_calibration(
    fitted, labelled, tmp_path
):
    fitted.calibrate(labelled, risk=0.2, confidence_level=0.9)
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    manifest, arrays = read_artefact(tmp_path / "m.trust")
    seen = manifest.pop("looked_at")
    manifest["calibration"]["data"] |= {"looks": 3, "earlier": ["0" * 64]}
    write_artefact(tmp_path / "old.trust", manifest, arrays)
    old = TrustVLM.load(tmp_path / "old.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert old.state.looked_at == dict.fromkeys([*seen, "0" * 64], 3)


def test_nothing_certified_is_not_called_calibrated(fitted, labelled):
    nothing = fitted.calibrate(labelled, risk=0.01).calibration_
    assert not nothing.certified
    assert nothing.rule.startswith("not calibrated: review everything; none: 45 labelled images")


def test_a_score_in_log_odds_starts_from_its_own_sigmoid(shots, photos):
    model = new_model(score="auto").fit(shots)
    before = np.array(model.predict(photos).column("confidence"))
    after = model.calibrate_on_shots().predict(photos)
    np.testing.assert_allclose(after.column("p_correct"), 1 / (1 + np.exp(-before)), atol=1e-12)
    learned = model.calibration_
    assert len(learned.labels) == 12
    p = 1 / (1 + np.exp(-learned.result.confidence))
    assert learned.quality()["brier"] == pytest.approx(metrics.brier(p, learned.correct))


def test_without_two_shots_of_a_class_the_weak_prior_serves(labelled, tmp_path):
    single = write_class_folders(tmp_path / "single", per_class=1, seed=3)
    with pytest.warns(TrustVLMWarning, match="1 example image per class"):
        model = new_model(score="trustvlm_star").fit(single)
    learned = model.calibrate(labelled).calibration_
    weak = decisions.Calibrator().fit(learned.result.confidence, learned.correct)
    x = learned.result.confidence
    np.testing.assert_array_equal(learned.calibrator.predict(x), weak.predict(x))
    with pytest.raises(InputError, match="two shots"):
        model.calibrate_on_shots()


def test_what_is_written_compares_with_the_threshold_that_is_printed(fitted, labelled, photos):
    verdicts = fitted.calibrate(labelled, risk=0.2, confidence_level=0.9).predict(labelled)
    statement = fitted.calibration_.statement
    threshold = float(re.search(r"confidence >= (\S+);", statement)[1])
    assert threshold == fitted.calibration_.certificate.threshold
    rows = csv.DictReader(io.StringIO(verdicts.to_csv()))
    lines = map(json.loads, verdicts.to_jsonl().splitlines())
    for row, line, verdict in zip(rows, lines, verdicts, strict=True):
        reaches = verdict.confidence >= threshold
        assert float(row["confidence"]) == line["confidence"] == verdict.confidence
        written = re.match(r"confidence (\S+) .* the threshold (\S+):", verdict.reason)
        assert float(written[2]) == threshold
        assert (float(written[1]) >= threshold) == reaches
        assert (row["decision"] == "accept") == reaches
