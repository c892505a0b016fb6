"""Whether a run is like the calibration images, and what becomes of its decisions."""

import json

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.monitoring.ood import Resemblance
from trustvlm.pipeline.runs import Run, RunSums
from trustvlm.pipeline.verdict import METADATA

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}


@pytest.fixture
def labelled(tmp_path):
    return write_class_folders(tmp_path / "labelled", per_class=20, seed=5)


@pytest.fixture
def fitted(tmp_path):
    shots = write_class_folders(tmp_path / "shots", per_class=6)
    return TrustVLM(**ENCODERS, score="auto_star", store=EmbeddingStore.memory()).fit(shots)


@pytest.fixture
def calibrated(fitted, labelled):
    return fitted.calibrate(labelled, risk=0.2, confidence_level=0.9)


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


@pytest.mark.parametrize("gate", ["label", "nearest"])
def test_the_risk_in_the_mix_of_a_run_is_that_of_accepted_calibration_images(
    labelled, tmp_path, gate
):
    """By hand: of red 1 of 10 accepted labels is wrong, of green 5 of 10, of blue none is there."""
    from dataclasses import replace

    # Fewer than 19 shots flag no image as out-of-distribution.
    shots = write_class_folders(tmp_path / "shots", per_class=7)
    model = TrustVLM(**ENCODERS, score="auto_star", store=EmbeddingStore.memory()).fit(shots)
    calibration = model.calibrate(labelled, risk=0.2, confidence_level=0.9).calibration_
    prediction = np.r_[np.repeat([0, 1], 20), np.full(20, 2)]
    low, out = np.full(10, -1e6), np.full(10, 1e6)
    confidence = np.r_[out, low, out, low, np.full(20, -1e6)]
    wrong = np.isin(np.arange(60), [0, 20, 21, 22, 23, 24])
    # Below the threshold or out-of-distribution, all are wrong: neither is ever accepted.
    wrong |= confidence < 0
    typicality = np.full(60, 0.999)
    extra = [np.full(30, value) for value in (0, 1e6, -1.0)]
    calibration = replace(
        calibration,
        result=replace(
            calibration.result,
            prediction=np.r_[prediction, extra[0]].astype(np.int64),
            confidence=np.r_[confidence, extra[1]],
        ),
        labels=np.r_[(prediction + wrong) % 3, extra[0] + 1].astype(np.int64),
        gate=gate,
        typicality=np.r_[typicality, extra[2]] if gate == "nearest" else np.ones(90),
        eligible=None if gate == "nearest" else np.arange(90) < 60,
    )
    run = Run(replace(model.state, calibration=calibration))

    def text(*accepted):
        return run._reweighted(RunSums(100, 0, np.array(accepted)), calibration)

    assert "weighted to this mix, 20 % of the accepted" in text(30, 10, 0)
    assert "weighted to this mix, 50 % of the accepted" in text(0, 7, 0)
    mixed = text(0, 30, 10)
    assert "weighted to this mix, 50 % of the accepted" in mixed
    assert "(25 % of the accepted ones are of classes without)" in mixed
    assert "no calibration image of the accepted classes" in text(0, 0, 5)
    assert text(0, 0, 0) == ""


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
    assert "at least as many would be in" in good.guarantee_statement()
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
    assert "in less than 0.1 % of all cases" in bad.guarantee_statement()


def test_an_unknown_wish_is_refused_before_work_begins(calibrated):
    with pytest.raises(InputError, match="review or keep"):
        calibrated.predict("nowhere", when_invalid="ignore")


def test_an_expected_share_decides_by_the_whole_batch(fitted, labelled, photos):
    fitted.calibrate(labelled, risk=0.1, guarantee="expectation")
    rule = fitted.calibration_.certificate
    verdicts = fitted.predict(photos)
    confidence = np.array(verdicts.column("confidence"))
    accepted = np.array(verdicts.column("decision")) == "accept"
    np.testing.assert_array_equal(accepted, rule.accept(confidence))
    assert accepted.any()
    assert verdicts.run.threshold is not None
    assert "pending" not in verdicts.column("decision")
    in_words = (
        "everything in this batch can be accepted"
        if verdicts.run.threshold == -np.inf
        else f"above {verdicts.run.threshold}, the threshold of this batch"
    )
    assert all(in_words in verdict.reason for verdict in verdicts)
    # One by one there is no batch: only a threshold that is proved for single images counts.
    single = [v.decision for v in fitted.iter_predict(photos)]
    assert single == ["accept" if c >= rule.threshold else "review" for c in confidence]


def test_a_batch_never_counts_out_of_distribution_images_as_trusted(fitted, labelled):
    fitted.calibrate(labelled, risk=0.1, guarantee="expectation")
    calibration = fitted.calibration_
    n = len(calibration.labels)
    is_ood = np.arange(n) % 3 == 0
    run = Run(fitted.state)
    judged = Resemblance(np.zeros(n), ~is_ood, is_ood, np.full(n, -1), np.zeros(n))
    run.add(calibration.result, calibration.typicality, judged, ~is_ood)
    expected = calibration.certificate.counts(calibration.result.confidence, ~is_ood)
    assert run.sums.selection.tolist() == expected.tolist()
    assert run.sums.selection[-1] == is_ood.sum()


def test_of_several_risks_the_first_decides_or_the_one_named(fitted, labelled, photos, tmp_path):
    fitted.calibrate(labelled, risk=[0.02, 0.3], confidence_level=0.9)
    strict = fitted.calibration_
    assert [rule.risk for rule in (strict.certificate, *strict.other_rules)] == [0.02, 0.3]
    # Both hold at once: each is certified at half of the remaining probability.
    assert strict.certificate.confidence_level == pytest.approx(0.95)
    assert strict.statement.endswith("all 2 hold at once with 90 % confidence")
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    again.use_risk(0.3)
    assert again.calibration_.certificate == strict.other_rules[0]
    lenient = again.predict(photos).decisions()["accept"]
    assert lenient > fitted.predict(photos).decisions()["accept"]
    with pytest.raises(InputError, match=r"\(0\.3, 0\.02\).* --risk 0\.3,0\.02,0\.01"):
        again.use_risk(0.01)


def test_a_class_may_have_a_risk_of_its_own(fitted, labelled):
    settings = {"per_class": True, "confidence_level": 0.8}
    fitted.calibrate(labelled, risk=0.3, class_risk={"green": 0.02}, **settings)
    rules = fitted.calibration_.certificate.certificates
    by_class = dict(zip(fitted.classes_.labels, rules, strict=True))
    assert {name: rule.risk for name, rule in by_class.items()} == {
        "red": 0.3, "green": 0.02, "blue": 0.3
    }  # fmt: skip
    assert not by_class["green"].certified
    assert by_class["red"].certified
    with pytest.raises(InputError, match="gren"):
        fitted.calibrate(labelled, class_risk={"gren": 0.1}, per_class=True)
    with pytest.raises(InputError, match="per_class"):
        fitted.calibrate(labelled, class_risk={"green": 0.1})


def test_prediction_sets_hold_the_label_and_outlive_saving(calibrated, photos, tmp_path):
    verdicts = calibrated.predict(photos, prediction_sets=0.9)
    assert all(v.label in v.prediction_set for v in verdicts)
    truth = [v.path.split("/")[0] for v in verdicts]
    covered = [t in v.prediction_set for t, v in zip(truth, verdicts, strict=True)]
    assert np.mean(covered) >= 0.8
    calibrated.vlm = calibrated.vision = "offline"
    calibrated.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    assert again.predict(photos, prediction_sets=0.9).to_csv() == verdicts.to_csv()
    (row, *_) = verdicts.to_csv().splitlines()[1:]
    assert '"[""' in row
    assert "prediction_set" not in calibrated.predict(photos).to_csv()
    calibrated.calibrate_on_shots()
    with pytest.raises(InputError, match="calibrated on labelled images"):
        calibrated.predict(photos, prediction_sets=0.9)


@pytest.mark.parametrize("risk", [[], None, "x", [0.2, "x"], [[0.2]], [0.2, 0.3, 0.2]])
def test_risks_that_make_no_sense_are_refused(fitted, labelled, risk):
    with pytest.raises(InputError, match="risk"):
        fitted.calibrate(labelled, risk=risk)


@pytest.mark.filterwarnings("ignore:.* were calibrated on before")
def test_risks_of_any_number_type_are_taken(fitted, labelled):
    for risk in (np.float32(0.25), np.array(0.25), np.array([0.25, 0.5])):
        assert fitted.calibrate(labelled, risk=risk).calibration_.certificate.risk == 0.25


def test_settings_that_decide_nothing_are_checked_all_the_same(fitted, labelled):
    with pytest.raises(InputError, match="confidence_level"):
        fitted.calibrate(labelled, guarantee="expectation", confidence_level=2)
    with pytest.raises(InputError, match="risk"):
        fitted.calibrate(labelled, per_class=True, class_risk={"green": "x"})


@pytest.mark.filterwarnings("ignore:.* were calibrated on before")
def test_a_risk_is_the_same_in_other_digits_and_the_remedy_can_be_typed(fitted, labelled):
    fitted.calibrate(labelled, risk=[0.3, 0.1])
    for risk in (np.float32(0.1), 0.3 - 0.2):
        assert fitted.use_risk(risk).calibration_.certificate.risk == 0.1
    with pytest.raises(InputError, match=r"with --risk 0\.1,0\.3,0\.2\.$"):
        fitted.use_risk(0.2)
    for risk in ("x", None, [0.1], np.nan):
        with pytest.raises(InputError, match="risk"):
            fitted.use_risk(risk)
    # Only certificates may be several, so the remedy names one risk of another guarantee.
    fitted.calibrate(labelled, guarantee="expectation", risk=0.2)
    with pytest.raises(InputError, match=r"with --risk 0\.1\.$"):
        fitted.use_risk(0.1)


@pytest.mark.filterwarnings("ignore:.* were calibrated on before")
def test_the_statement_says_with_what_confidence_several_risks_hold_at_once(fitted, labelled):
    fitted.calibrate(labelled, risk=[0.2, 0.3], confidence_level=0.9)
    assert fitted.calibration_.statement.endswith("all 2 hold at once with 90 % confidence")
    fitted.calibrate(labelled, risk=[0.001, 0.002])
    assert "at once" not in fitted.calibration_.statement


def test_an_expected_share_is_said_to_be_a_mean(fitted, labelled):
    fitted.calibrate(labelled, guarantee="expectation", risk=0.2)
    rule = fitted.state.to_manifest()["decision_rule"]
    assert "The mean is over the draw" in rule
    assert "confidence is over" not in rule


def test_an_unreadable_image_has_an_empty_set_and_a_slice_knows_its_run(calibrated, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    verdicts = calibrated.predict(broken, prediction_sets=0.9)
    assert verdicts.column("prediction_set") == [()]
    assert verdicts[:1].run is verdicts.run
    assert calibrated.predict(broken)[0].prediction_set is None
