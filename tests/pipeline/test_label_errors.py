"""`TrustVLM.cross_val_verify`: label errors of a whole data set, by the other folds."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from pictures import coarse_picture
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, scores
from trustvlm.data_quality.duplicates import DuplicatePair
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.images import find_labelled
from trustvlm.pipeline.label_errors import fold_of_images
from trustvlm.pipeline.records import encode_images
from trustvlm.scores import Evidence, PrototypeBank, apply

COLOURS = {"red": (200, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 200)}
NAMES = sorted(COLOURS)
# No pair of different pictures is nearly the same in this space.
VISION = PixelEncoder(seed=2, dim=24)


def new_model(vlm="none", **settings):
    return TrustVLM(vlm, VISION, store=EmbeddingStore.memory(), **settings)


@pytest.fixture
def data(tmp_path):
    """Rows of path and label, each fifth label wrong, in a table; and the true ones."""
    rows, truth = [], []
    for i in range(60):
        name = NAMES[i % 3]
        file = tmp_path / f"{i:02d}.png"
        coarse_picture(COLOURS[name], seed=i).save(file)
        truth.append(name)
        rows.append([file.name, NAMES[(i + 1) % 3] if i % 5 == 0 else name])
    return rows, truth


def write(folder: Path, rows, header=("path", "label")) -> Path:
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return folder / "labels.csv"


@pytest.mark.parametrize("vlm", ["none", PixelEncoder(seed=1)])
def test_errors_are_found_and_each_fold_is_judged_by_the_others_alone(vlm, data, tmp_path) -> None:
    rows, truth = data
    model = new_model(vlm)
    verdicts = model.cross_val_verify(write(tmp_path, rows), folds=4)
    assert verdicts.column("path") == [path for path, _ in rows]
    given = verdicts.column("label")
    assert given == [label for _, label in rows]
    wrong = np.array(given) != np.array(truth)
    confidence = np.array(verdicts.column("confidence"))
    assert roc_auc_score(~wrong, confidence) > 0.95
    assert [verdicts[i].runner_up for i in np.flatnonzero(wrong)] == [
        truth[i] for i in np.flatnonzero(wrong)
    ]
    # The same by hand, from arrays.
    images = encode_images(find_labelled(tmp_path / "labels.csv").refs, model.embedder)
    label = np.array([NAMES.index(name) for name in given])
    fold = fold_of_images(label, [], 4)
    expected = np.empty(60)
    for f in range(4):
        seen, kept = fold == f, fold != f
        text = {}
        if vlm != "none":
            texts = model.embedder.embed_classes(NAMES, [vlm.prompt])
            z = scores.zero_shot_logits(images.image_embeddings, texts, logit_scale=100.0)
            text = {
                "logits": z[seen],
                "support_logits": z[kept],
                "image_embeddings": images.image_embeddings[seen],
                "support_image_embeddings": images.image_embeddings[kept],
            }
        evidence = Evidence.of(
            features=images.features[seen],
            bank=PrototypeBank().fit(images.features[kept], label[kept], n_classes=3),
            support_features=images.features[kept],
            support_labels=label[kept],
            given_labels=label[seen],
            **text,
        )
        expected[seen] = apply("auto", evidence).confidence
    assert confidence == pytest.approx(expected)


def test_copies_never_speak_for_each_other(data, tmp_path) -> None:
    rows, _ = data
    # Copies with the same wrong label, and copies of which one is wrong.
    for n in range(4):
        shutil.copy(tmp_path / "01.png", tmp_path / f"copy-{n}.png")
    rows += [[f"copy-{n}.png", "red"] for n in range(3)] + [["copy-3.png", NAMES[1]]]
    rows[1][1] = "red"
    verdicts = new_model().cross_val_verify(write(tmp_path, rows))
    copies = [v for v in verdicts if v.path.startswith("copy") or v.path == "01.png"]
    assert {v.decision for v in copies} == {"review"}
    same = {round(v.confidence, 9) for v in copies if v.label == "red"}
    assert len(same) == 1
    assert same.pop() < 0
    assert "nearly the same image (1.00), is labelled 'red'" in copies[-1].reason


def test_groups_beside_the_images_are_those_of_a_column(data, tmp_path) -> None:
    rows, _ = data
    groups = [i % 7 for i in range(60)]
    grouped = [[*row, group] for row, group in zip(rows, groups, strict=True)]
    table = write(tmp_path, grouped, ("path", "label", "scene"))
    model = new_model()
    by_column = model.cross_val_verify(table, group_column="scene")
    assert by_column.to_csv() == model.cross_val_verify(table, groups=groups).to_csv()
    assert by_column.to_csv() != model.cross_val_verify(table).to_csv()
    for wrong, message in ((groups[1:], "59 groups"), ([None] * 60, "has none")):
        with pytest.raises(InputError, match=message):
            model.cross_val_verify(table, groups=wrong)
    with pytest.raises(InputError, match="the same and not of one group, but none has"):
        model.cross_val_verify(table, groups=[0] * 60)
    with pytest.raises(InputError, match="got both"):
        model.cross_val_verify(table, groups=groups, group_column="scene")


def test_every_copy_with_another_label_is_reviewed_with_one_reason(data, tmp_path) -> None:
    rows, _ = data
    picture = np.asarray(coarse_picture(COLOURS["green"], seed=1))
    for n in range(4):
        # Each is most like the one before it, which for the last ones has the same label.
        Image.fromarray(np.clip(picture.astype(int) + n, 0, 255).astype(np.uint8)).save(
            tmp_path / f"copy-{n}.png"
        )
    rows += [[f"copy-{n}.png", "red" if n == 0 else "green"] for n in range(4)]
    rows[1][1] = "red"
    verdicts = new_model().cross_val_verify(write(tmp_path, rows))
    copies = [v for v in verdicts if v.path.startswith("copy") or v.path == "01.png"]
    assert {v.decision for v in copies} == {"review"}
    assert {v.reason.count("nearly the same image") for v in copies} == {1}


def test_folds_hold_whole_groups_of_copies() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    copies = [DuplicatePair(a, a + 1, 1.0) for a in range(0, 60, 3)]
    copies += [DuplicatePair(a, a + 2, 0.97) for a in range(0, 30, 3)]
    fold = fold_of_images(labels, copies, 5)
    assert all(fold[pair.image] == fold[pair.other] for pair in copies)
    assert set(fold.tolist()) == set(range(5))
    assert np.bincount(fold).min() > 25


def test_what_nothing_can_judge_is_reviewed_or_an_error(data, tmp_path) -> None:
    rows, _ = data
    rows[7][1] = "violet"
    rows.append(["gone.png", "red"])
    verdicts = new_model().cross_val_verify(write(tmp_path, rows))
    assert verdicts[7].decision == "review"
    assert math.isnan(verdicts[7].confidence)
    assert "no other image is labelled 'violet'" in verdicts[7].reason
    assert verdicts[-1].decision == "error"
    assert not math.isnan(verdicts[0].confidence)


def test_settings_that_make_no_sense_are_refused(data, tmp_path) -> None:
    rows, _ = data
    table = write(tmp_path, rows)
    with pytest.raises(InputError, match="at least 2, but got 1"):
        new_model().cross_val_verify(table, folds=1)
    with pytest.raises(InputError, match="two classes or more, but got 1"):
        new_model().cross_val_verify(write(tmp_path, [r for r in rows if r[1] == "red"]))
    one_each = [next(row for row in rows if row[1] == label) for label in ("red", "green")]
    with pytest.raises(InputError, match="nothing to judge the labels by"):
        new_model().cross_val_verify(write(tmp_path, one_each))
    with pytest.raises(InputError, match="`trustvlm_star` cannot judge"):
        new_model(PixelEncoder(seed=1), score="trustvlm_star").cross_val_verify(table)


def test_probabilities_that_came_with_labels_count(data, tmp_path) -> None:
    rows, _ = data
    plain = new_model().cross_val_verify(write(tmp_path, rows)).column("confidence")
    p = np.random.default_rng(0).uniform(0.1, 0.9, 60).round(3)
    table = write(
        tmp_path,
        [[*row, q] for row, q in zip(rows, p, strict=True)],
        ("path", "label", "label_confidence"),
    )
    with_p = new_model().cross_val_verify(table).column("confidence")
    assert np.array(with_p) - plain == pytest.approx(0.5 * np.log(p / (1 - p)))
