"""`trustvlm export`, and `trustvlm corrections` of what labelling tools export."""

from __future__ import annotations

import csv
import json
import math

import pytest
from PIL import Image

from trustvlm import Verdicts
from trustvlm.pipeline.verdict import Verdict, error_verdict


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Verdicts on images in the folder `photos`, in a table beside it."""
    nan = math.nan
    rows = [
        Verdict(
            *(f"{name}/1, ü.png", "cat" if i < 2 else "dog", float(i), nan),
            *("accept" if i == 3 else "review", 0.5, nan, "cow", "why", ""),
        )
        for i, name in enumerate("abcd")
    ]
    for row in rows:
        (tmp_path / "photos" / row.path).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / row.path)
    Verdicts([*rows, error_verdict("broken.png", "broken.png is empty")]).write(
        tmp_path / "out.csv"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answers(queue, labels):
    tasks = json.loads((queue / "tasks.json").read_text("utf-8"))
    for task in tasks:
        task["annotations"] = [
            {"completed_by": who, "result": [{**task["predictions"][0]["result"][0]}]}
            for who in range(len(labels[task["data"]["path"][0]]))
        ]
        for annotation, label in zip(
            task["annotations"], labels[task["data"]["path"][0]], strict=True
        ):
            annotation["result"][0]["value"] = {"choices": [label]}
    (queue / "answers.json").write_text(json.dumps(tasks))


def table(path):
    with path.open(newline="") as stream:
        return [(row["path"], row["label"], row["action"]) for row in csv.DictReader(stream)]


def test_the_queue_goes_out_and_the_answers_come_back(trustvlm, queue):
    done = trustvlm(
        "export", "out.csv", "--format", "label-studio", "--only", "review", "-o", "tasks.json"
    )
    assert (done.code, done.err) == (
        0,
        "3 images: tasks.json and tasks.config.xml, 1 image that could not be read left out\n",
    )
    assert 'value="cow"' in (queue / "tasks.config.xml").read_text()
    answers(queue, {"a": ["cat"], "b": ["dog", "dog", "cat"], "c": ["dog", "cat"]})
    back = ("corrections", "answers.json", "-o", "new.csv", "--image-root", "photos")
    done = trustvlm(*back, "--verdicts", "out.csv")
    assert done.code == 3
    assert "2 answered images, 1 of them corrected: new.csv (1 without one label)" in done.err
    assert "left out: c/1, ü.png: its annotators disagree (cat, dog)" in done.err
    assert table(queue / "new.csv") == [
        ("photos/a/1, ü.png", "cat", "accept"),
        ("photos/b/1, ü.png", "dog", "correct"),
    ]
    # A table that is named is replaced, as everywhere; one that nobody named is not.
    (queue / "new.csv").write_text("path,label\nmine.png,cat\n")
    assert trustvlm(*back, "--verdicts", "out.csv").code == 3
    assert len(table(queue / "new.csv")) == 2
    (queue / "folder").mkdir()
    (queue / "folder" / "labels.csv").write_text("path,label\nmine.png,cat\n")
    refused = trustvlm(*back[:3], queue / "folder", *back[4:])
    assert refused.code == 1
    assert "labels.csv exists already" in refused.err
    assert "mine.png" in (queue / "folder" / "labels.csv").read_text()


@pytest.mark.parametrize(
    ("kind", "output"), [("cvat", "a.xml"), ("coco", "a.json"), ("fiftyone", "folder")]
)
def test_every_kind_of_answers_is_recognised(trustvlm, queue, kind, output):
    done = trustvlm("export", "out.csv", "--format", kind, "-o", output, "--image-root", "photos")
    assert done.code == 0, done.err
    back = ("corrections", output, "-o", "new", "--image-root", "photos", "--verdicts", "out.csv")
    refused = trustvlm(*back)
    assert refused.code == 1
    assert "4 with a label that nobody touched; --confirm-unchanged" in refused.err
    done = trustvlm(*back, "--confirm-unchanged")
    assert done.code == 0, done.err
    # Relative to the table, which is not above the images here, no path can be.
    photos = queue / "photos"
    assert sorted(table(queue / "new" / "labels.csv")) == [
        (str(photos / f"{name}/1, ü.png"), "cat" if name < "c" else "dog", "accept")
        for name in "abcd"
    ]


def test_calibration_data_are_a_random_sample(trustvlm, queue):
    trustvlm("export", "out.csv", "--format", "cvat", "--sample", 2, "--seed", 5, "-o", "a.xml")
    back = ("corrections", "a.xml", "--confirm-unchanged", "--as", "calibration", "-o", "new.csv")
    refused = trustvlm(*back)
    assert refused.code == 1
    assert "Expected --verdicts" in refused.err
    done = trustvlm(*back, "--verdicts", "out.csv", "--seed", 5)
    assert done.code == 0, done.err
    assert len(table(queue / "new.csv")) == 2
    trustvlm("export", "out.csv", "--format", "cvat", "--sample", 3, "--seed", 5, "-o", "b.xml")
    names = {path for path, *_ in table(queue / "new.csv")}
    assert all(f'name="{name}"' in (queue / "b.xml").read_text("utf-8") for name in names)


def test_what_is_wrong_is_said(trustvlm, queue):
    (queue / "x.json").write_text('{"data": []}')
    (queue / "two.csv").write_text("path,label\n1.jpg,red\n")
    for words, code, said in (
        (("export", "out.csv", "--format", "cvat", "-o", "a.json"), 2, "to end in .xml"),
        (("export", "no.csv", "--format", "cvat", "-o", "a.xml"), 1, "there is no 'no.csv'"),
        (("export", "out.csv", "--format", "coco", "-o", "a.json", "--sample", 9), 2, "at most 4"),
        (("export", "out.csv", "--format", "via", "-o", "a.json"), 2, "via"),
        (
            ("export", "out.csv", "--format", "coco", "-o", "a.json", "--sample", 1, "--only",
             "review"), 2, "no random one",
        ),
        (("export", ".", "--format", "coco", "-o", "a.json"), 1, "output of predict or verify"),
        (("export", "two.csv", "--format", "coco", "-o", "a.json"), 1, "'label'. Rename one."),
        (
            ("export", "out.csv", "--format", "coco", "-o", "a.json", "--classes", "no.trust"),
            1, "no.trust is not a .trust directory: there is no such directory",
        ),
        (("corrections", "no.json", "-o", "a.csv"), 1, "trustvlm export"),
        (("corrections", ".", "-o", "a.csv"), 1, "that FiftyOne exported"),
        (("corrections", "x.json", "-o", "a.csv"), 1, "its keys are 'data'"),
        (("corrections", "out.csv", "-o", "a.csv"), 1, "a table of predictions?"),
        (("corrections", "out.csv", "-o", "a.csv", "--from-name", "said"), 1, "called 'said'"),
    ):  # fmt: skip
        done = trustvlm(*words)
        assert done.code == code, (words, done.err)
        assert said in done.err
    assert not (queue / "a.csv").exists()


def test_pictures_are_sorted_by_predict_label_and_verify(trustvlm, fitted, photos, tmp_path):
    for words in (
        ("predict", fitted, photos),
        ("verify", fitted, photos),
        ("label", photos, "--classes", "red,green,blue", "--vlm", "offline"),
    ):
        target = tmp_path / words[0]
        done = trustvlm(*words, "-o", tmp_path / "out.csv", "--sort-into", target)
        assert done.code == 0, done.err
        with (target / "index.csv").open(newline="") as stream:
            index = {row["path"]: row for row in csv.DictReader(stream)}
        for row in Verdicts.read(tmp_path / "out.csv"):
            folder = {"accept": "accepted", "review": "review"}[row.decision]
            file = index[row.path]["file"]
            assert file.startswith(f"{folder}/{row.label}/")
            source = photos / row.path if not row.path.startswith("/") else row.path
            assert (target / file).read_bytes() == source.read_bytes()
        assert len(index) == 15
        assert f"see {target / 'index.csv'}" in done.err
    refused = trustvlm("predict", fitted, photos, "-o", f"{tmp_path}/x/", "--sort-into", "y")
    assert refused.code == 2
    assert "give -o OUT.csv" in refused.err
    refused = trustvlm("predict", fitted, photos, "--symlink")
    assert "name a folder with --sort-into" in refused.err
    refused = trustvlm("predict", fitted, photos, "--sort-into", photos)
    assert "holds other files" in refused.err
