"""`TrustVLM.verify`: labels from elsewhere, with a vision-language model or without one."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, scores
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import find_labelled
from trustvlm.pipeline.records import encode_images

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
    other = model.verify(tmp_path / "with.csv", confidence_column="none")
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
    kept = [{**row, "label": "cow"} if i == 1 else row for i, row in enumerate(rows[:-2])]
    given = ([row["path"] for row in kept], [row["label"] for row in kept])
    with pytest.warns(TrustVLMWarning) as warned:
        model.calibrate(photos, risk=0.5, given_labels=given)
    said = " ".join(str(w.message) for w in warned)
    assert "2 labelled images without a given label" in said
    assert "1 image whose given label is no class" in said
    assert len(model.calibration_.labels) == 57
    with pytest.raises(InputError, match="None of the 60 labelled images"):
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
    for ask in (model.predict, model.evaluate, model.calibrate):
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
