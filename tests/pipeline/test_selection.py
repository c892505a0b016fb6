import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, metrics, scores
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import EvidenceMissingError, FewSamplesWarning, InputError, LeakError
from trustvlm.pipeline.select import (
    SELECTABLE,
    TEMPERATURES,
    WEIGHTS,
    Selection,
    select_by_holding_out,
    select_on,
)
from trustvlm.scores import Evidence, PrototypeBank

UNTUNED = {"weight": 1.0, "temperature": 0.01}


def shots(seed=0, per_class=4, n_classes=3, d=6, text=1.0, image=1.0):
    """Shots whose logits and features tell the classes apart with the given strengths."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), per_class)
    centres = rng.normal(size=(n_classes, d))
    return Evidence.of(
        logits=np.empty((0, n_classes)),
        support_features=image * centres[labels] + rng.normal(size=(len(labels), d)),
        support_labels=labels,
        support_logits=text * np.eye(n_classes)[labels] + rng.normal(size=(len(labels), n_classes)),
    )


def held_out_by_hand(evidence, score, **parameters):
    """Confidence and correctness of each shot, with a bank made anew for every one of them."""
    x, y = evidence.support_features, evidence.support_labels
    confidence, correct = [], []
    for i in range(len(y)):
        turn = int((y[:i] == y[i]).sum())
        out = [np.flatnonzero(y == c)[turn] for c in range(evidence.n_classes)]
        bank = PrototypeBank().fit(np.delete(x, out, 0), np.delete(y, out), n_classes=3)
        selection = scores.compute(
            score, logits=evidence.support_logits[[i]], features=x[[i]], bank=bank, **parameters
        )
        confidence.append(selection.confidence[0])
        correct.append(selection.prediction[0] == y[i])
    return np.array(confidence), np.array(correct)


@given(
    st.integers(0, 500),
    st.sampled_from(["trustvlm", "trustvlm_star"]),
    st.sampled_from([(1.0, 1.0), (0.1, 1.0), (2.0, 0.2)]),
)
@settings(max_examples=8, deadline=None)
def test_the_nearest_to_the_default_that_is_not_worse_beyond_chance(seed, score, strengths):
    evidence = shots(seed, 8, text=strengths[0], image=strengths[1])
    names = ("weight",) if score == "trustvlm" else ("weight", "temperature")
    axes = (WEIGHTS, TEMPERATURES)[: len(names)]
    grid = [dict(zip(names, values, strict=True)) for values in np.ndindex(*map(len, axes))]
    grid = [{n: axes[k][g[n]] for k, n in enumerate(names)} for g in grid]
    results = [held_out_by_hand(evidence, score, **g) for g in grid]
    aurcs = [metrics.aurc(*result) for result in results]
    best = int(np.argmin(aurcs))

    def far(g):
        return sum(abs(math.log(max(v, 0.001) / UNTUNED[n])) for n, v in g.items())

    def good(i):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewSamplesWarning)
            paired = metrics.paired_bootstrap(
                results[i][0],
                results[best][0],
                results[i][1],
                results[best][1],
                n_resamples=500,
            )
        return paired.difference <= 0 or paired.low <= 0

    selection = select_by_holding_out(score, evidence)
    at = grid.index(dict(selection.parameters))
    assert selection.aurc == pytest.approx(aurcs[at], abs=1e-12)
    assert selection.untuned_aurc == pytest.approx(
        aurcs[grid.index({n: UNTUNED[n] for n in names})]
    )
    assert selection.n == 24
    assert good(at)
    assert not any(good(i) for i in range(len(grid)) if far(grid[i]) < far(grid[at]) - 1e-9)


def test_a_useless_image_term_gets_a_small_weight_and_a_useful_one_a_large_one():
    useless = select_by_holding_out("trustvlm", shots(1, per_class=400, text=2.0, image=0.0))
    useful = select_by_holding_out("trustvlm", shots(1, per_class=400, text=0.3, image=2.0))
    assert useless.parameters["weight"] < 1 < useful.parameters["weight"]
    for selection in (useless, useful):
        assert selection.aurc < selection.untuned_aurc


@pytest.mark.parametrize("score", SELECTABLE)
def test_where_all_settings_are_alike_the_default_stays(score):
    selection = select_by_holding_out(score, shots(2, per_class=5, text=50.0, image=50.0))
    assert selection.aurc == selection.untuned_aurc == 0
    assert dict(selection.parameters).items() <= UNTUNED.items()


@pytest.mark.parametrize("score", SELECTABLE)
def test_one_shot_a_class_says_nothing_and_that_is_said(score):
    selection = select_by_holding_out(score, shots(per_class=1))
    assert dict(selection.parameters).items() <= UNTUNED.items()
    assert selection.n == 0
    assert math.isnan(selection.aurc)
    assert "no class has a second shot" in str(selection)
    assert selection.to_dict()["aurc"] is None
    again = Selection.from_dict(json.loads(json.dumps(selection.to_dict())))
    assert again.to_dict() == selection.to_dict()


def test_classes_with_one_shot_are_counted():
    whole = shots()
    one = np.flatnonzero((whole.support_labels > 0) | (np.arange(12) == 0))
    some = Evidence.of(
        logits=np.empty((0, 3)),
        support_features=whole.support_features[one],
        support_labels=whole.support_labels[one],
        support_logits=whole.support_logits[one],
    )
    selection = select_by_holding_out("trustvlm_star", some)
    assert selection.n == 8
    assert "1 shots of classes without another one" in str(selection)


def test_what_is_given_is_not_selected():
    evidence = shots(1, per_class=60, text=0.3, image=3.0)
    selection = select_by_holding_out("trustvlm_star", evidence, fixed={"weight": 0.7})
    assert set(selection.parameters) == {"temperature"}
    none = select_by_holding_out("trustvlm", evidence, fixed={"weight": 0.7})
    assert not none.parameters
    by_hand = held_out_by_hand(evidence, "trustvlm", weight=0.7)
    assert none.aurc == none.untuned_aurc == pytest.approx(metrics.aurc(*by_hand), abs=1e-12)


def test_fine_tuned_prototypes_take_what_suits_the_means():
    evidence = shots(1, per_class=60, text=0.3, image=3.0)
    assert select_by_holding_out("trustvlm_star_f", evidence) == select_by_holding_out(
        "trustvlm_star", evidence
    )


def test_other_images_are_judged_with_the_whole_bank():
    shown = shots(1)
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, size=80)
    images = shown.with_images(
        logits=rng.normal(size=(80, 3)) + np.eye(3)[labels], features=rng.normal(size=(80, 6))
    )
    selection = select_on("trustvlm_star", images, labels)
    result = scores.apply("trustvlm_star", images, **selection.parameters)
    expected = metrics.aurc(result.confidence, result.prediction == labels)
    assert selection.aurc == pytest.approx(expected, abs=1e-12)
    assert (selection.by, selection.n) == ("validation", 80)
    none = select_on("trustvlm", images.rows(slice(0)), labels[:0])
    assert dict(none.parameters) == {"weight": 1.0}
    assert "no image to select on" in str(none)
    with pytest.raises(InputError, match="80 `labels`"):
        select_on("trustvlm", images, labels[:3])
    with pytest.raises(EvidenceMissingError, match="`features`"):
        select_on("trustvlm", shown.with_images(logits=images.logits), labels)


def test_other_scores_have_nothing_to_select():
    with pytest.raises(InputError, match="`knn` has no weight"):
        select_by_holding_out("knn", shots())


@pytest.fixture
def folders(tmp_path):
    names = {"shots": 0, "val": 3, "test": 4}
    return {n: write_class_folders(tmp_path / n, per_class=6, seed=s) for n, s in names.items()}


def model(**settings):
    return TrustVLM(
        vlm=PixelEncoder(seed=1),
        vision=PixelEncoder(seed=2, dim=9),
        store=EmbeddingStore.memory(),
        **{"score": "trustvlm_star", **settings},
    )


@pytest.mark.parametrize("how", [{"select": "loo"}, {"select_on": "val"}])
def test_a_model_keeps_what_was_selected_and_how(folders, tmp_path, how):
    on = {k: folders.get(v, v) for k, v in how.items()}
    fitted = model().fit(folders["shots"], **on)
    selection = fitted.selection_
    assert fitted.parameters_ == dict(selection.parameters)
    expected = model(score_parameters=dict(selection.parameters)).fit(folders["shots"])
    assert fitted.predict(folders["test"]).to_csv() == expected.predict(folders["test"]).to_csv()
    encoders = {"vlm": fitted.vlm, "vision": fitted.vision}
    fitted.vlm = fitted.vision = "offline"
    fitted.save(tmp_path / "m.trust")
    stored = json.loads((tmp_path / "m.trust" / "manifest.json").read_text())["score"]
    assert stored["parameters"] == dict(selection.parameters)
    assert stored["selection"]["by"] == ("loo" if "select" in how else "validation")
    assert len(stored["selection"]["images"]) == (0 if "select" in how else 18)
    again = TrustVLM.load(tmp_path / "m.trust", **encoders, store=EmbeddingStore.memory())
    assert again.selection_ == selection
    assert again.parameters_ == dict(selection.parameters)


def test_the_selection_is_made_before_fine_tuning_and_at_its_temperature(folders):
    fitted = model(finetune=True).fit(folders["shots"], select="loo")
    plain = model().fit(folders["shots"], select="loo")
    assert fitted.selection_ == plain.selection_
    tuned = model(finetune=True, score_parameters=plain.parameters_).fit(folders["shots"])
    assert fitted.losses_ == tuned.losses_


def test_images_selected_on_are_neither_shots_nor_evaluated(folders):
    with pytest.raises(LeakError, match=r"18 of 18 images are also among the shots.*--select loo"):
        model().fit(folders["shots"], select_on=folders["shots"])
    fitted = model().fit(folders["shots"], select_on=folders["val"])
    with pytest.raises(LeakError, match="among the images selected on"):
        fitted.evaluate(folders["val"])
    (folders["val"] / "red" / "00.png").replace(folders["test"] / "red" / "leak.png")
    with pytest.raises(LeakError, match="1 of 19"):
        fitted.evaluate(folders["test"])
    assert fitted.evaluate(folders["test"], exclude_shots=True).excluded == ("red/leak.png",)


def test_what_cannot_be_selected_is_refused_before_any_work(folders):
    fit = folders["shots"]
    with pytest.raises(InputError, match="`msp` has no weight"):
        model(score="msp").fit(fit, select="loo")
    with pytest.raises(InputError, match="Nothing is left to select"):
        model(score="trustvlm", score_parameters={"weight": 1}).fit(fit, select_on=folders["val"])
    with pytest.raises(InputError, match="'loo' or None"):
        model().fit(fit, select="best")
    with pytest.raises(InputError, match="not both"):
        model().fit(fit, select="loo", select_on=folders["val"])


def test_unreadable_images_are_left_out_of_the_selection(folders):
    (folders["val"] / "red" / "00.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out of the selection"):
        fitted = model().fit(folders["shots"], select_on=folders["val"])
    assert fitted.selection_.n == 17
    for file in folders["val"].rglob("*.png"):
        file.write_bytes(b"no picture")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(InputError, match="No image to select on"),
    ):
        model().fit(folders["shots"], select_on=folders["val"])
