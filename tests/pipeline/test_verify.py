"""`TrustVLM.verify`: labels from elsewhere, with a vision-language model or without one."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, scores
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import (
    ClassList,
    Limits,
    find_labelled,
    find_labellers,
    find_most_probable,
)
from trustvlm.pipeline import advise, monitor
from trustvlm.pipeline.given_labels import GivenLabels
from trustvlm.pipeline.labellers import LabellerComparison
from trustvlm.pipeline.records import encode_images
from trustvlm.pipeline.verdict import Verdicts

VLM, VISION = PixelEncoder(seed=1), PixelEncoder(seed=2, dim=9)


def new_model(vlm="none", **settings):
    return TrustVLM(vlm, VISION, **{"store": EmbeddingStore.memory(), **settings})


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("verify") / "shots", per_class=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("verify") / "photos", per_class=20, seed=7)


@pytest.fixture
def model(shots):
    return new_model().fit(shots)


def write_labels(file: Path, photos: Path, *, every: int = 5, **more) -> list[dict[str, str]]:
    """Label every image, each `every`-th one wrongly; return the rows."""
    listed = find_labelled(photos)
    classes = listed.classes
    rows = []
    for i, image in enumerate(listed.refs):
        right = classes.index(image.label)
        label = classes[(right + 1) % len(classes)] if i % every == 0 else image.label
        rows.append({"path": str(image.file), "label": label, **{k: v[i] for k, v in more.items()}})
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.mark.parametrize("vlm", ["none", VLM])
def test_verdicts_are_those_of_the_score_on_the_arrays(vlm, shots, photos, tmp_path) -> None:
    fitted = new_model(vlm).fit(shots)
    rows = write_labels(tmp_path / "labels.csv", photos)
    verdicts = fitted.verify(tmp_path / "labels.csv")
    assert verdicts.column("label") == [row["label"] for row in rows]
    state = fitted.state
    images = encode_images(find_labelled(tmp_path / "labels.csv").refs, fitted.embedder)
    arrays = {
        "features": images.features,
        "support_features": state.support_features,
        "support_labels": state.support_labels,
        "given_labels": state.classes.indices([row["label"] for row in rows]),
    }
    if vlm != "none":
        logits = {
            name: scores.zero_shot_logits(vectors, state.text_embeddings, logit_scale=100.0)
            for name, vectors in (
                ("logits", images.image_embeddings),
                ("support_logits", state.support_image_embeddings),
            )
        }
        arrays |= logits | {
            "image_embeddings": images.image_embeddings,
            "support_image_embeddings": state.support_image_embeddings,
        }
    expected = scores.compute("auto", **arrays).confidence
    assert verdicts.column("confidence") == pytest.approx(expected.tolist())
    assert (verdicts.column("vlm_label") == [""] * len(rows)) == (vlm == "none")
    assert not any(verdicts.column("corrected"))


def test_wrong_labels_are_found_and_the_right_one_is_named(model, photos, tmp_path) -> None:
    rows = write_labels(tmp_path / "labels.csv", photos)
    verdicts = model.verify(tmp_path / "labels.csv")
    truth = [Path(row["path"]).parent.name for row in rows]
    wrong = [row["label"] != name for row, name in zip(rows, truth, strict=True)]
    confidence = np.array(verdicts.column("confidence"))
    assert confidence[wrong].max() < np.median(confidence[~np.array(wrong)])
    instead = [v.runner_up == t for v, t, w in zip(verdicts, truth, wrong, strict=True) if w]
    assert np.mean(instead) > 0.9
    assert not math.isnan(verdicts[0].image_score)
    assert math.isnan(verdicts[0].text_score)
    assert "the given label" in verdicts[0].reason
    assert "VLM" not in "".join(verdicts.column("reason"))


def test_labels_stay_with_their_image_whatever_the_order(model, photos) -> None:
    listed = find_labelled(photos)
    paths, labels = [image.file for image in listed.refs], list(listed.labels)
    labels[::7] = [listed.classes[0]] * len(labels[::7])
    once = {v.path: v for v in model.verify(paths, labels)}
    shuffled = np.random.default_rng(0).permutation(len(paths))
    again = model.verify([paths[i] for i in shuffled], [labels[i] for i in shuffled])
    assert [once[v.path].label for v in again] == again.column("label")
    assert [once[v.path].confidence for v in again] == pytest.approx(again.column("confidence"))


def test_unreadable_images_and_unknown_labels_are_rows(model, photos, tmp_path) -> None:
    good = sorted(photos.rglob("*.png"))[:3]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths = [good[0], tmp_path / "broken.png", tmp_path / "missing.png", good[1], good[2]]
    name = good[0].parent.name
    labels = [name, name, "cow", "cow", name.upper()]
    with pytest.warns(TrustVLMWarning, match="spelling"):
        rows = model.verify(paths, labels)
    assert rows.column("decision")[1:4] == ["error", "error", "review"]
    assert rows[3].label == "cow"
    assert math.isnan(rows[3].confidence)
    assert rows[3].reason.startswith("the label 'cow' is no class of the model")
    assert rows[3].runner_up in model.classes_.labels
    assert rows[4].label == name
    with pytest.warns(TrustVLMWarning, match="spelling"):
        errors = model.verify(paths, labels, unknown_labels="error")
    assert errors.column("decision")[3] == "error"
    assert "no class of the model" in errors[3].error
    with pytest.warns(TrustVLMWarning, match="spelling"):
        meant = model.verify(paths, labels, synonyms={"cow": name})
    assert meant[3].label == name
    with pytest.raises(InputError, match="'sheep' is none"):
        model.verify(paths, labels, synonyms={"cow": "sheep"})
    with pytest.raises(InputError, match="review or error"):
        model.verify(paths, labels, unknown_labels="drop")


def test_an_example_is_not_judged_by_itself(model, shots, photos) -> None:
    shot = next(shots.rglob("*.png"))
    other = next(photos.rglob("*.png"))
    rows = model.verify([shot, other], ["red", "red"])
    assert rows.column("decision")[0] == "review"
    assert "among the examples" in rows[0].reason
    assert math.isnan(rows[0].confidence)
    assert not math.isnan(rows[1].confidence)


def test_probabilities_that_came_with_labels_count(model, photos, tmp_path) -> None:
    p = np.random.default_rng(0).uniform(0.1, 0.9, 60).round(3)
    write_labels(tmp_path / "with.csv", photos, label_confidence=p)
    plain = write_labels(tmp_path / "plain.csv", photos)
    without = np.array(model.verify(tmp_path / "plain.csv").column("confidence"))
    with_p = np.array(model.verify(tmp_path / "with.csv").column("confidence"))
    assert with_p - without == pytest.approx(0.5 * np.log(p / (1 - p)))
    given = model.verify(
        [row["path"] for row in plain], [row["label"] for row in plain], label_confidence=p
    )
    assert given.column("confidence") == pytest.approx(with_p.tolist())
    other = model.verify(tmp_path / "with.csv", confidence_column="")
    assert other.column("confidence") == pytest.approx(without.tolist())
    lines = [json.dumps(row | {"label_confidence": None}) for row in plain]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    jsonl = model.verify(tmp_path / "labels.jsonl")
    assert jsonl.column("confidence") == pytest.approx(without.tolist())
    write_labels(tmp_path / "percent.csv", photos, label_confidence=100 * p)
    with pytest.raises(InputError, match=r"0[0-9]+\.png.*from 0 to 1"):
        model.verify(tmp_path / "percent.csv")
    with pytest.raises(InputError, match="each of 60 labels, but got 2"):
        model.verify(tmp_path / "plain.csv", label_confidence=[0.5, 0.5])


@pytest.mark.parametrize("vlm", ["none", VLM])
def test_a_calibration_is_for_one_labeller(vlm, shots, photos, tmp_path) -> None:
    fitted = new_model(vlm).fit(shots)
    rows = write_labels(tmp_path / "labels.csv", photos)
    fitted.calibrate(
        photos, risk=0.2, confidence_level=0.9, given_labels=tmp_path / "labels.csv", gate=False
    )
    learned = fitted.calibration_
    truth = [Path(row["path"]).parent.name for row in rows]
    wrong = sum(row["label"] != name for row, name in zip(rows, truth, strict=True))
    assert (len(learned.labels), int((~learned.correct).sum())) == (60, wrong)
    assert learned.certified
    verdicts = fitted.verify(tmp_path / "labels.csv")
    right = {v.path: v.label == t for v, t in zip(verdicts, truth, strict=True)}
    accepted = [v for v in verdicts if v.decision == "accept"]
    assert accepted
    assert {v.decision for v in verdicts} == {"accept", "review"}
    assert sum(not right[v.path] for v in accepted) <= 0.2 * len(accepted)
    assert not any(math.isnan(v.p_correct) for v in verdicts)
    with pytest.raises(InputError, match="verify"):
        fitted.predict(photos)
    with pytest.raises(InputError, match="verify"):
        fitted.evaluate(photos)


def test_a_calibration_for_own_labels_decides_on_no_others(shots, photos, tmp_path) -> None:
    fitted = new_model(VLM).fit(shots).calibrate(photos, risk=0.9, confidence_level=0.5, gate=False)
    write_labels(tmp_path / "labels.csv", photos)
    assert fitted.calibration_.certified
    verdicts = fitted.verify(tmp_path / "labels.csv")
    assert all(math.isnan(v.p_correct) for v in verdicts)
    assert not any("threshold" in v.reason for v in verdicts)


def test_calibration_leaves_out_what_has_no_given_label(model, photos, tmp_path) -> None:
    rows = write_labels(tmp_path / "labels.csv", photos)
    # The first, and one in the middle, so that labels and images could slip.
    kept = [row for i, row in enumerate(rows) if i not in (0, 30)]
    kept[1] = {**kept[1], "label": "cow"}
    given = ([row["path"] for row in kept], [row["label"] for row in kept])
    with pytest.warns(TrustVLMWarning) as warned:
        model.calibrate(photos, risk=0.5, given_labels=given)
    said = " ".join(str(w.message) for w in warned)
    assert "2 images without a given label" in said
    assert "1 image whose given label is no class" in said
    of, names = model.calibration_, model.classes_
    assert len(of.labels) == 57
    truth = [Path(image["path"]).parent.name for image in of.images]
    assert of.labels.tolist() == names.indices(truth).tolist()
    judged = [row["label"] for row in kept if row["label"] != "cow"]
    assert of.result.prediction.tolist() == names.indices(judged).tolist()
    with pytest.raises(InputError, match="None of the 60 images"):
        model.calibrate(photos, given_labels=([tmp_path / "else.png"], ["red"]))
    twice = (given[0][:1] * 2, ["red", "blue"])
    with pytest.raises(InputError, match="one labeller at a time"):
        model.calibrate(photos, given_labels=twice)


def test_a_saved_model_without_a_vlm_verifies_the_same(model, photos, tmp_path) -> None:
    rows = write_labels(tmp_path / "labels.csv", photos)
    model.calibrate(photos, risk=0.2, given_labels=tmp_path / "labels.csv")
    model.vision = "offline"
    model.save(tmp_path / "m.trust")
    loaded = TrustVLM.load(tmp_path / "m.trust", vision=VISION, store=EmbeddingStore.memory())
    model.vision = VISION
    assert (
        loaded.verify(tmp_path / "labels.csv").to_csv()
        == model.verify(tmp_path / "labels.csv").to_csv()
    )
    assert loaded.vlm == "none"
    assert loaded.calibration_.given
    assert len(rows) == 60


def test_without_a_vlm_there_are_no_own_labels(model, shots, photos, tmp_path) -> None:
    assert model.state.score == "auto"
    for ask in (model.predict, model.evaluate, model.calibrate, partial(advise, model)):
        with pytest.raises(InputError, match="without a vision-language model"):
            ask(photos)
    with pytest.raises(InputError, match="without a vision-language model"):
        model.calibrate_on_shots()
    with pytest.raises(InputError, match=r"msp.* cannot judge .* without"):
        new_model(score="msp").fit(shots)
    listed = find_labelled(shots)
    pairs = [(i.file, i.label) for i in listed.refs if i.label != "green"]
    lacking = new_model(classes=list(listed.classes))
    with pytest.raises(InputError, match=r"every class .* none of 'green'"):
        lacking.fit(tuple(zip(*pairs, strict=True)))
    with pytest.raises(InputError, match="VLM's own image tower"):
        TrustVLM("none", "same").fit(shots)


def test_scores_that_choose_labels_refuse(shots, photos) -> None:
    starred = new_model(VLM, score="trustvlm_star").fit(shots)
    with pytest.raises(InputError, match=r"`trustvlm_star` cannot judge .*auto"):
        starred.verify(photos)
    knn = new_model(VLM, score="knn").fit(shots)
    assert len(knn.verify(photos)) == 60


def test_evaluation_is_that_of_the_labeller(shots, photos, tmp_path) -> None:
    fitted = new_model(VLM).fit(shots)
    p = np.random.default_rng(0).uniform(0.1, 0.9, 60).round(3)
    rows = write_labels(tmp_path / "labels.csv", photos, label_confidence=p)
    truth = np.array([Path(row["path"]).parent.name for row in rows])
    right = np.array([row["label"] for row in rows]) == truth
    result = fitted.evaluate(photos, given_labels=tmp_path / "labels.csv")
    verdicts = {v.path: v for v in fitted.verify(tmp_path / "labels.csv")}
    by_name = [verdicts[str(photos / v.path)] for v in result.verdicts]
    assert result.given_labels
    assert result.score == "auto"
    assert result.correct().sum() == right.sum()
    # The same confidence as of `verify`, with the probabilities that came with the labels.
    assert result.results["auto"].confidence == pytest.approx([v.confidence for v in by_name])
    assert result.verdicts.column("runner_up") == [v.runner_up for v in by_name]
    assert result.verdicts.column("label") == [v.label for v in by_name]
    confidence = np.array([verdicts[row["path"]].confidence for row in rows])
    assert result.metrics["auto"].auroc == pytest.approx(roc_auc_score(right, confidence))
    # Of every score the prediction is the given label, also of those that read no probabilities.
    assert {"msp", "knn", "image_similarity"} < result.results.keys()
    assert "auto_star" not in result.results
    assert all(
        (r.prediction == result.results["auto"].prediction).all() for r in result.results.values()
    )
    assert result.to_dict()["given_labels"] is True
    assert not any(result.verdicts.column("corrected"))
    own = fitted.evaluate(photos)
    assert not own.given_labels
    assert own.score == "auto_star"


def test_evaluation_tests_the_guarantee_on_the_labeller(model, photos, tmp_path) -> None:
    rows = write_labels(tmp_path / "labels.csv", photos)
    half = [row for i, row in enumerate(rows) if i % 2]
    rest = [row for i, row in enumerate(rows) if not i % 2]

    def pairs(chosen):
        return [row["path"] for row in chosen], [Path(row["path"]).parent.name for row in chosen]

    model.calibrate(
        pairs(half),
        risk=0.3,
        confidence_level=0.9,
        given_labels=tmp_path / "labels.csv",
        gate=False,
    )
    good = model.evaluate(pairs(rest), given_labels=tmp_path / "labels.csv")
    accepted = np.array(good.verdicts.column("decision")) == "accept"
    assert accepted.any()
    assert not math.isnan(good.guarantee_p_value)
    assert not good.contradicted
    paths, labels = pairs(rest)
    lies = [{"red": "green", "green": "blue", "blue": "red"}[label] for label in labels]
    bad = model.evaluate((paths, lies), given_labels=(paths, labels))
    assert bad.contradicted


def test_unknown_given_labels_are_left_out_or_failures(model, photos, tmp_path) -> None:
    rows = write_labels(tmp_path / "labels.csv", photos)
    rows[1]["label"], rows[2]["label"] = "cow", "puppy"
    given = ([row["path"] for row in rows], [row["label"] for row in rows])
    with pytest.warns(TrustVLMWarning, match="2 images whose given label is no class .* 'cow'"):
        assert len(model.evaluate(photos, given_labels=given).labels) == 58
    meant = {"puppy": "red", "cow": "red"}
    assert len(model.evaluate(photos, given_labels=given, synonyms=meant).labels) == 60
    result = model.evaluate(photos, given_labels=given, unknown_labels="error")
    assert len(result.failures) == 2
    assert "'cow' is no class of the model" in result.failures[0].error
    with pytest.raises(InputError, match="No given label is a class"):
        model.evaluate(photos, given_labels=(given[0][:1], ["cow"]))


def test_advice_is_on_the_trust_in_the_labeller(photos, tmp_path) -> None:
    few = write_class_folders(tmp_path / "few", per_class=1, seed=50)
    model = new_model().fit(few)
    write_labels(tmp_path / "labels.csv", photos, label_confidence=np.full(60, 0.7))
    labeller = model.labeller(tmp_path / "labels.csv")
    calls = []
    told = advise(model, photos, labeller=labeller, on_trial=lambda done, most: calls.append(done))
    assert told.advice is not None
    assert told.advice.n == 60
    assert calls
    assert told.shots.health.n_shots == 3


def test_the_monitor_watches_the_trust_in_given_labels(shots, photos, tmp_path) -> None:
    model = new_model().fit(shots)
    write_labels(tmp_path / "labels.csv", photos)
    labeller = model.labeller(tmp_path / "labels.csv")
    # Without labels, or without knowing what is usual of them, only the images are watched.
    assert list(monitor(model, photos).monitor.streams) == ["typicality"]
    plain = monitor(model, photos, labeller=labeller)
    assert list(plain.monitor.streams) == ["typicality"]
    assert "typicality alone" in plain.calibrated_on
    model.calibrate(photos, risk=0.3, given_labels=tmp_path / "labels.csv")
    more = write_class_folders(tmp_path / "more", per_class=30, seed=70)
    rows = write_labels(tmp_path / "good.csv", more)
    good = monitor(model, more, labeller=model.labeller(tmp_path / "good.csv"))
    assert good.new == 90
    assert set(good.monitor.streams) == {"confidence", "typicality"}
    assert not good.monitor.drifted
    # The same images with labels that got worse: the images alone would not show it.
    shifted = {"red": "green", "green": "blue", "blue": "red"}
    worse = (
        [row["path"] for row in rows],
        [shifted[Path(row["path"]).parent.name] for row in rows],
    )
    alarm = monitor(model, more, labeller=model.labeller(worse), state=tmp_path / "s.json")
    assert alarm.monitor.streams["confidence"].drifted_after is not None
    assert alarm.monitor.streams["typicality"].drifted_after is None
    with pytest.raises(InputError, match="watches given labels"):
        monitor(model, more, state=tmp_path / "s.json")
    with pytest.warns(TrustVLMWarning, match="60 images without a given label"):
        none = monitor(
            model,
            [*photos.rglob("*.png"), *more.rglob("*.png")],
            labeller=model.labeller(tmp_path / "good.csv"),
        )
    assert none.new == 90


def write_records(file: Path, records) -> None:
    """Write a table by the ending of its name."""
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, records)))
    elif file.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="install the extra parquet")
        table = pytest.importorskip("pyarrow").Table.from_pylist(records)
        parquet.write_table(table, file)
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_one_probability_per_class_gives_label_and_confidence(ending, model, photos, tmp_path):
    rows = write_labels(tmp_path / "labels.csv", photos)
    p = np.random.default_rng(3).dirichlet(np.ones(3), 60).round(6)
    names = ["red", "blue", "green"]  # not in the order of the classes
    records = [
        {"path": row["path"], **dict(zip(names, map(float, own), strict=True))}
        for row, own in zip(rows, p, strict=True)
    ]
    write_records(tmp_path / f"p.{ending}", records)
    listed = find_most_probable(tmp_path / f"p.{ending}", model.classes_)
    by_hand = model.verify(
        [row["path"] for row in rows],
        [names[c] for c in p.argmax(axis=1)],
        label_confidence=p.max(axis=1),
    )
    verdicts = model.verify(listed)
    assert verdicts.column("label") == by_hand.column("label")
    assert verdicts.column("confidence") == pytest.approx(by_hand.column("confidence"))
    result = model.evaluate(photos, given_labels=listed)
    assert len(result.labels) == 60


def test_columns_of_probabilities_that_do_not_fit_are_refused(model, tmp_path) -> None:
    table = tmp_path / "p.csv"
    for text, message in (
        ("path,red,blue\n1.png,0.5,0.5\n", "column 'green' with something"),
        ("path,red,blue,green\n1.png,0.5,0.5,\n", "column 'green' with something"),
        ("path,red,blue,green\n1.png,,,\n", "class at least for '1.png'"),
        ("path,red,blue,green\n0.png,1,0,0\n1.png,0,0,nan\n", "class at least for '1.png'"),
        ("path,red,blue,green\n1.png,50,20,30\n", "from 0 to 1"),
        ("file,red,blue,green\n1.png,1,0,0\n", "column 'path'"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            find_most_probable(table, model.classes_)
    with pytest.raises(InputError, match="is a folder"):
        find_most_probable(tmp_path, model.classes_)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_labellers_stand_side_by_side(ending, model, photos, tmp_path) -> None:
    ann = write_labels(tmp_path / "ann.csv", photos, every=20)
    bob = write_labels(tmp_path / "bob.csv", photos, every=3)
    p = np.random.default_rng(0).uniform(0.1, 0.9, 60).round(3)
    records = [
        {
            "path": a["path"],
            "ann": "" if i < 4 else a["label"],
            "bob": b["label"],
            "bob_confidence": float(q),
        }
        for i, (a, b, q) in enumerate(zip(ann, bob, p, strict=True))
    ]
    records[5]["bob"] = "cow"
    file = tmp_path / f"both.{ending}"
    write_records(file, records)
    compared = model.compare_labellers(find_labellers(file, ["ann", "bob"]))
    # The verdicts of each are those of `verify`, with the probabilities that are its own.
    kept = records[4:]
    alone = model.verify([r["path"] for r in kept], [r["ann"] for r in kept])
    assert compared.by_labeller["ann"].to_csv() == alone.to_csv()
    alone = model.verify([r["path"] for r in records], [r["bob"] for r in records], p)
    assert compared.by_labeller["bob"].to_csv() == alone.to_csv()
    facts = compared.facts
    assert (facts["ann"].labels, facts["bob"].labels, facts["bob"].judged) == (56, 60, 59)
    truth = {r["path"]: Path(r["path"]).parent.name for r in records}
    for name, own in (("ann", ann), ("bob", bob)):
        right = np.mean([row["label"] == truth[row["path"]] for row in own])
        assert facts[name].estimated_right == pytest.approx(right, abs=0.1)
    assert facts["ann"].estimated_right > facts["bob"].estimated_right + 0.1
    assert facts["ann"].accepted > facts["bob"].accepted
    (pair,) = compared.agreements
    same = np.mean([r["ann"] == r["bob"] for r in kept])
    assert (pair.one, pair.other, pair.images) == ("ann", "bob", 56)
    assert pair.same == pytest.approx(same)
    rows = list(csv.DictReader(compared.verdicts.to_csv().splitlines()))
    assert [row["labeller"] for row in rows] == ["ann"] * 56 + ["bob"] * 60
    assert "labeller" not in model.verify(photos).columns
    assert compared.to_dict()["labellers"]["ann"]["labels"] == 56
    eve = list(compared.by_labeller["bob"])
    eve[:7] = [replace(verdict, decision="error") for verdict in eve[:7]]
    three = LabellerComparison({**compared.by_labeller, "eve": Verdicts(eve)}, True, 3)
    assert three.facts["eve"].labels == 53
    assert [pair.images for pair in three.agreements] == [56, 53, 53]
    with pytest.raises(InputError, match="column 'eve' with something"):
        find_labellers(file, ["ann", "eve"])


def test_a_column_of_probabilities_that_is_named_is_there(model, photos, tmp_path) -> None:
    write_labels(tmp_path / "labels.csv", photos)
    for read in (model.verify, model.cross_val_verify):
        with pytest.raises(InputError, match="column 'scoer' with the probabilities"):
            read(tmp_path / "labels.csv", confidence_column="scoer")


def test_a_missing_probability_is_never_the_greatest(model, tmp_path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("path,red,blue,green\n1.png,nan,0.2,0.7\n2.png,0.9,0.9,NaN\n")
    with pytest.warns(TrustVLMWarning, match="of 1 image sum to more than one"):
        listed = find_most_probable(table, model.classes_)
    assert [(image.label, image.confidence) for image in listed.refs] == [
        ("green", 0.7),
        ("blue", 0.9),
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"path": ["1.png", "2.png"], "red": [math.nan, 0.8]}
    columns |= {"blue": [0.2, 0.1], "green": [0.7, 0.1]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    assert find_most_probable(tmp_path / "p.parquet", model.classes_).labels == ["green", "red"]
    columns["path"] = pyarrow.array([None, "2.png"], pyarrow.string())
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="'path' in row 0"):
        find_most_probable(tmp_path / "p.parquet", model.classes_)


def test_the_number_of_a_class_survives_a_column_with_gaps(tmp_path) -> None:
    # pandas writes 0.0 for 0 where another row of the column has nothing.
    (tmp_path / "two.csv").write_text("path,ann,bob\n1.png,0,0.0\n2.png,1,\n3.png,1,1.0\n")
    classes = ClassList(("0", "1"))
    listed = find_labellers(tmp_path / "two.csv", ["ann", "bob"])
    with pytest.warns(TrustVLMWarning, match="spelling"):
        assert GivenLabels(classes, listed["bob"].refs).indices(listed["bob"].refs).tolist() == [
            0,
            1,
        ]
    (tmp_path / "one.jsonl").write_text('{"path": "1.png", "label": 1.0}\n')
    assert find_labelled(tmp_path / "one.jsonl").labels == ["1"]
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"path": ["1.png", "2.png"], "label": [0.0, 1.0]})
    parquet.write_table(table, tmp_path / "one.parquet")
    assert find_labelled(tmp_path / "one.parquet").labels == ["0", "1"]
    assert find_labellers(tmp_path / "one.parquet", ["label"])["label"].labels == ["0", "1"]


def test_synonyms_are_spelled_as_labels_are() -> None:
    classes = ClassList(("cat", "dog"))
    labels = ["Puppy", "guide-dog", "cat"]
    images = find_labelled((["1.png", "2.png", "3.png"], labels)).refs
    given = GivenLabels(classes, images, synonyms={"puppy ": "dog", "Guide dog": "dog"})
    assert given.indices(images).tolist() == [1, 1, 0]
    both = {"puppy": "dog", "PUPPY": "cat"}
    with pytest.raises(InputError, match="'Puppy' may be 'cat' or 'dog'"):
        GivenLabels(classes, images, synonyms=both)
    images = find_labelled((["1.png"], ["puppy"])).refs
    assert GivenLabels(classes, images, synonyms=both).indices(images).tolist() == [1]


def test_images_with_two_labels_of_one_labeller_count_in_no_agreement(model, photos) -> None:
    first, second = sorted(photos.rglob("*.png"))[:2]
    compared = model.compare_labellers(
        {
            "ann": ([first, second, second], ["red", "red", "blue"]),
            "bob": ([first, second], ["red", "blue"]),
        }
    )
    (pair,) = compared.agreements
    assert (pair.images, pair.same) == (1, 1.0)


def test_a_folder_of_class_folders_holds_labels(model, photos) -> None:
    verdicts = model.verify(photos)
    assert verdicts.column("label") == [path.split("/")[0] for path in verdicts.column("path")]
    assert model.evaluate(photos, given_labels=photos).metrics["auto"].accuracy == 1.0


def test_given_labels_are_read_within_the_limits_of_the_model(shots, photos, tmp_path) -> None:
    archive = shutil.make_archive(str(tmp_path / "labels"), "zip", photos)
    bounded = new_model(limits=Limits(max_archive_members=4)).fit(shots)
    with pytest.raises(InputError, match="members"):
        bounded.labeller(archive)
