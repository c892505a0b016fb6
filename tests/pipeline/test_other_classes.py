"""Images of none of the classes on the whole way: the gate, other classes, what is said of them."""

import json
import warnings

import numpy as np
import pytest

from pictures import COLOURS, picture, write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.scores import names as score_names

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}


def new_model(**settings):
    return TrustVLM(**{**ENCODERS, **settings}, store=EmbeddingStore.memory())


@pytest.fixture
def shots(tmp_path):
    return write_class_folders(tmp_path / "shots", per_class=12)


@pytest.fixture
def labelled(tmp_path):
    return write_class_folders(tmp_path / "labelled", per_class=20, seed=3)


def saved(model, path):
    model.vlm = model.vision = "offline"
    model.save(path)
    return TrustVLM.load(path, **ENCODERS, store=EmbeddingStore.memory())


def preferred_name(images):
    """A name that the text, which is random here, prefers for some of these images, not for all."""
    for i in range(200):
        verdicts = new_model(classes=list(COLOURS), other_classes=[f"other {i}"]).label(images)
        n = verdicts.column("label").count(f"other {i}")
        if 5 <= n <= len(verdicts) - 5:
            return f"other {i}"
    raise AssertionError


@pytest.fixture
def other(labelled):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        return preferred_name(labelled)


@pytest.mark.parametrize("score", ["trustvlm", "auto_star"])
def test_an_image_of_another_class_bears_its_name_and_is_never_accepted(
    shots, labelled, other, score
):
    plain = new_model(score=score).fit(shots).predict(labelled)
    verdicts = new_model(score=score, other_classes=[other]).fit(shots).predict(labelled)
    named = [v for v in verdicts if v.label == other]
    assert named
    for verdict, before in zip(verdicts, plain, strict=True):
        if verdict.label == other:
            assert verdict.decision == "review"
            assert verdict.runner_up == before.label
            assert np.isnan(verdict.image_score)
            assert np.isnan(verdict.p_correct)
            assert 0 < verdict.text_score <= 1
            assert verdict.reason.startswith(f"the text says '{other}' (")
            assert f"'{before.label}' is the most likely" in verdict.reason
        else:  # no score sees the other class
            assert verdict.to_row() == before.to_row()
    # What the gate stops beside them may resemble some other class.
    assert verdicts.run.out_of_distribution >= len(named)


def test_other_classes_are_stored_and_seen_by_calibrate_and_evaluate(
    shots, labelled, other, tmp_path
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        model = new_model(score="auto_star", other_classes=[other]).fit(shots)
        model.calibrate(labelled, risk=0.3, confidence_level=0.9)
        loaded = saved(model, tmp_path / "m.trust")
    assert json.loads((tmp_path / "m.trust" / "manifest.json").read_text())["other_classes"] == [
        other
    ]
    fresh = write_class_folders(tmp_path / "fresh", per_class=20, seed=9)
    verdicts = loaded.predict(fresh, when_invalid="keep")
    assert verdicts.column("label").count(other) > 0
    stopped = ~loaded.calibration_.eligible
    assert stopped.any()
    assert not loaded.calibration_.gate_statement.startswith(
        "the out-of-distribution gate sends 0 of"
    )
    result = loaded.evaluate(fresh, scores=["msp"])
    rows = result.verdicts.column("label")
    assert [v.label for v in verdicts] == rows
    assert not result.eligible[np.array(rows) == other].any()
    right = result.correct()
    assert result.to_dict()["gate"] == {
        "right_to_review": int((~result.eligible & right).sum()),
        "wrong_to_review": int((~result.eligible & ~right).sum()),
    }
    # The certificate counts only what may be accepted.
    accepted = loaded.calibration_.result.confidence >= loaded.calibration_.certificate.threshold
    share = (accepted & loaded.calibration_.eligible).mean()
    assert loaded.calibration_.certificate.coverage == pytest.approx(share)
    with pytest.raises(InputError, match="its guarantee is for decisions without them"):
        loaded.use_other_classes(["something else"])


def test_other_classes_can_be_named_for_a_model_without_a_guarantee(shots, labelled, other):
    model = new_model().fit(shots)
    before = model.predict(labelled)
    named = model.use_other_classes([other]).predict(labelled)
    assert other in named.column("label")
    assert model.use_other_classes([]).predict(labelled).column("label") == before.column("label")


@pytest.mark.parametrize(
    ("names", "message"),
    [(["Red "], "'Red' is one"), (["", "x"], "not to be empty"), (["a", "A"], "spellings of one")],
)
def test_names_of_other_classes_are_checked(shots, names, message):
    with pytest.raises(InputError, match=message):
        new_model(other_classes=names).fit(shots)


def test_labels_without_examples_may_be_other_classes(labelled, other):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        verdicts = new_model(classes=list(COLOURS), other_classes=[other]).label(labelled)
        plain = new_model(classes=list(COLOURS)).label(labelled)
        one = new_model(classes=["red"], other_classes=[other]).label(labelled)
        alone = new_model(classes=["red"]).label(labelled)
    for verdict, before in zip(verdicts, plain, strict=True):
        if verdict.label == other:
            assert (verdict.decision, verdict.runner_up) == ("review", before.label)
        else:
            assert verdict.to_row() == before.to_row()
    assert {v.decision for v in alone} == {"review"}
    # With something to choose from, one class can be accepted; alone it cannot.
    assert all(v.decision == "review" for v in one if v.label == other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        swapped = new_model(classes=[other], other_classes=["red"]).label(labelled)
    taken = [v for v in swapped if v.label == other]
    assert {v.decision for v in taken} == {"accept"}
    assert "rather than any other class" in taken[0].reason


def test_a_model_of_one_class_is_warned_of(tmp_path):
    red = {"red": COLOURS["red"]}
    few = write_class_folders(tmp_path / "few", per_class=4, colours=red)
    many = write_class_folders(tmp_path / "many", per_class=30, colours=red)
    with pytest.warns(TrustVLMWarning, match="'red' is the only class.*too few examples are there"):
        new_model().fit(few)
    with pytest.warns(TrustVLMWarning, match="'red' is the only class.*unless the out-of-dist"):
        new_model().fit(many)
    with pytest.warns(TrustVLMWarning, match="one class only: it fits every image"):
        new_model(classes=["red"]).label(many)


def test_the_gate_can_be_left_out_and_stays_out(shots, labelled, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        gated = new_model(score="auto_star").fit(shots)
        gated.calibrate(labelled, risk=0.3, confidence_level=0.9)
        assert gated.calibration_.gate == "label"
        assert "sends" in gated.calibration_.gate_statement
        first = gated.calibration_
        gated.calibrate(labelled, risk=0.3, confidence_level=0.9, gate=False)
    # Another gate is another question to the same labels.
    assert gated.calibration_.looks == 2
    loaded = saved(gated, tmp_path / "m.trust")
    assert loaded.calibration_.gate == "none"
    assert loaded.calibration_.gate_statement == ""
    assert not loaded.state.gate.active
    odd = tmp_path / "odd"
    odd.mkdir()
    for i in range(20):
        picture((128, 128, 128), seed=i).save(odd / f"{i}.png")
    verdicts = loaded.predict(odd, when_invalid="keep")
    assert verdicts.run.out_of_distribution == 0
    assert not any("enough" in v.reason for v in verdicts)
    assert first.eligible is not None


def test_a_score_of_the_whole_batch_keeps_the_former_gate(shots):
    assert "auto_adapted" in score_names()
    assert new_model(score="auto_adapted").fit(shots).state.gate.threshold.below == -np.inf
    assert new_model(score="auto").fit(shots).state.gate.threshold.below > -np.inf


class RedTexts(PixelEncoder):
    """All of whose texts lie near red pictures and far from others, each a little elsewhere."""

    def encode_texts(self, texts):
        pictures = [np.asarray(picture(colour, seed=0, size=8)) for colour in COLOURS.values()]
        red, *others = self.encode_pixels(np.stack(pictures))
        return red - 0.4 * sum(others) + 0.03 * super().encode_texts(texts)


@pytest.mark.parametrize(("family", "warned"), [("clip", True), ("siglip", False)])
def test_a_batch_of_which_some_images_fit_no_text_is_warned_of_with_clip(labelled, family, warned):
    vlm = RedTexts(seed=1)
    vlm.identity.settings["family"] = family

    def said(images):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            new_model(vlm=vlm, classes=["crimson", "scarlet"]).label(images)
        return any("5 % of others look so" in str(w.message) for w in caught)

    assert said(labelled) == warned
    red = write_class_folders(
        labelled.parent / "red", per_class=40, colours={"red": COLOURS["red"]}, seed=5
    )
    assert not said(red)


def test_spellings_are_joined_at_fit_and_read_at_calibrate_and_evaluate(shots, labelled, tmp_path):
    table = tmp_path / "shots.csv"
    spellings = {
        "red": ["red", "Red", "RED ", "red\t"],
        "green": ["green"],
        "blue": ["blue", "Blue"],
    }
    rows = ["path,label"]
    for name, ways in spellings.items():
        rows += [f"shots/{name}/{i:02d}.png,{ways[i % len(ways)]}" for i in range(12)]
    table.write_text("\n".join(rows), encoding="utf-8")
    with pytest.warns(TrustVLMWarning) as caught:
        model = new_model().fit(table)
    assert len(model.classes_) == 3
    said = [str(w.message) for w in caught if "only in spelling" in str(w.message)]
    assert len(said) == 1
    assert model.state.bank.counts_.tolist() == [12, 12, 12]
    (labelled / "red").rename(labelled / "R_E_D".replace("_", ""))
    with pytest.warns(TrustVLMWarning, match="'RED' as"):
        assert model.evaluate(labelled, scores=["msp"]).labels.tolist().count(2) == 20
