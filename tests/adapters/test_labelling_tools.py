"""Verdicts out to labelling tools, answers back in, every label on its own image."""

from __future__ import annotations

import csv
import io
import json
import math
import runpy
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from trustvlm.adapters.annotations import (
    Annotation,
    Corrections,
    corrections_csv,
    decide_labels,
    on_images_of,
    random_order,
    random_sample,
    to_review,
)
from trustvlm.adapters.coco import read_coco, write_coco
from trustvlm.adapters.cvat import read_cvat, write_cvat
from trustvlm.adapters.fiftyone import read_fiftyone, write_fiftyone
from trustvlm.adapters.label_studio import read_label_studio, write_label_studio
from trustvlm.exceptions import InputError
from trustvlm.images import find_labelled
from trustvlm.pipeline.verdict import Verdict, Verdicts, error_verdict

# The names that the tools' own code is run on, by hand, and one that is no file.
TOOLS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "labelling_tools.py"))
CLASSES = TOOLS["CLASSES"]
PATHS = [*TOOLS["PATHS"], "https://host.example/pics/x%20y.jpg"]


def verdict(path, label, p=math.nan, decision="review", **others):
    values = {"confidence": 1.5, "text_score": 0.5, "image_score": math.nan, "runner_up": "cat"}
    values |= {"reason": "alike <both>", "error": ""} | others
    return Verdict(path=path, label=label, p_correct=p, decision=decision, **values)


VERDICTS = Verdicts(
    [
        verdict(path, CLASSES[i % 4], round(0.9 - i / 20, 2), "accept" if i % 3 == 0 else "review")
        for i, path in enumerate(PATHS)
    ]
    + [error_verdict("broken.jpg", "broken.jpg is empty")]
)
# Every other one is right as it was predicted.
TRUTH = {path: CLASSES[(i + i % 2) % 4] for i, path in enumerate(PATHS)}


def labels_of(corrections: Corrections):
    assert not corrections.undecided
    return {row.path: row.label for row in corrections.rows}


# Label Studio.


def answered_tasks(file, truth=TRUTH):
    """What a person makes of tasks, as Label Studio exports them in JSON."""
    tasks = json.loads(file.read_text("utf-8"))
    for number, task in enumerate(tasks):
        answer = json.loads(json.dumps(task["predictions"][0]["result"][0]))
        answer["value"]["choices"] = [truth[task["data"]["path"]]]
        annotation = {
            "id": 100 + number,
            "completed_by": 1,
            "result": [answer],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": "2025-01-01T00:00:00.000000Z",
            "updated_at": "2025-01-01T00:00:00.000000Z",
        }
        task |= {"id": number + 1, "annotations": [annotation], "drafts": [], "project": 1}
    return tasks


def minimal(tasks, name="label"):
    """The same tasks as JSON-MIN, by the rules of label-studio-converter."""
    rows = []
    for task in tasks:
        for annotation in task["annotations"]:
            if annotation["was_cancelled"]:
                continue
            choices = [c for r in annotation["result"] for c in r["value"]["choices"]]
            answers = {name: choices[0] if len(choices) == 1 else {"choices": choices}}
            rows.append(
                task["data"]
                | {"id": task["id"]}
                | (answers if choices else {})
                | {"annotator": annotation["completed_by"], "annotation_id": annotation["id"]}
                | {key: annotation[key] for key in ("created_at", "updated_at")}
            )
    return rows


def as_csv(rows):
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()})
    return text.getvalue().encode()


@pytest.mark.parametrize("prefix", ["https://host/a b/", "s3://bucket/", "/data/local-files/?d="])
def test_label_studio_and_back(tmp_path, prefix):
    tasks, _ = write_label_studio(
        VERDICTS, tmp_path / "tasks.json", url_prefix=prefix, from_name="what", to_name="picture"
    )
    exported = answered_tasks(tasks)
    assert len(exported) == len(PATHS)
    contents = {
        "json": json.dumps(exported).encode(),
        "min": json.dumps(minimal(exported, "what"), indent=1).encode(),
        "csv": as_csv(minimal(exported, "what")),
    }
    for kind, content in contents.items():
        read = read_label_studio(content, kind, from_name="what", url_prefix=prefix)
        result = decide_labels(read)
        assert labels_of(result) == TRUTH, kind
        assert {row.path: row.action for row in result.rows} == {
            path: "correct" if i % 2 else "accept" for i, path in enumerate(PATHS)
        }
        # A tool that lost our data still has the address of the image.
        assert read_label_studio(contents["json"], kind, path_column="no", url_prefix=prefix) == (
            read_label_studio(contents["json"], kind, url_prefix=prefix)
        )
    if prefix.startswith("/"):
        # It puts its own host before the address of a file on its disk.
        hosted = contents["json"].replace(prefix.encode(), b"https://tool:8080" + prefix.encode())
        read = read_label_studio(hosted, "json", path_column="no", url_prefix=prefix)
        assert labels_of(decide_labels(read)) == TRUTH


def test_label_studio_may_say_of_much_that_it_is_nothing():
    choice = {"type": "choices", "from_name": "label", "value": {"choices": ["cat"]}}
    others = [
        {"type": "relation", "from_id": "a", "to_id": "b", "from_name": None, "value": None},
        {"type": None, "value": {"text": ["a remark"]}},
    ]
    answer = {"result": [*others, choice], "was_cancelled": None, "ground_truth": None}
    tasks = [
        {"data": {"path": "1.jpg"}, "annotations": [answer]},
        {"data": {"path": "2.jpg"}, "annotations": None},
    ]
    result = decide_labels(read_label_studio(json.dumps(tasks).encode(), "tasks"))
    assert [(row.path, row.label) for row in result.rows] == [("1.jpg", "cat")]
    assert result.skipped == ("2.jpg",)


def test_label_studio_tasks_are_as_its_documentation_has_them(tmp_path):
    tasks, config = write_label_studio(
        VERDICTS, tmp_path / "tasks.json", only="review", url_prefix="https://host/",
        model_version="pets 3",
    )  # fmt: skip
    first, *others = json.loads(tasks.read_text("utf-8"))
    # The most doubtful comes first.
    assert first == {
        "data": {
            "image": "https://host.example/pics/x%20y.jpg",
            "path": "https://host.example/pics/x%20y.jpg",
            "predicted": 'the "other"',
            "confidence": 1.5,
            "p_correct": 0.55,
            "decision": "review",
            "runner_up": "cat",
            "reason": "alike <both>",
        },
        "predictions": [
            {
                "model_version": "pets 3",
                "score": 0.55,
                "result": [
                    {
                        "from_name": "label",
                        "to_name": "image",
                        "type": "choices",
                        "value": {"choices": ['the "other"']},
                    }
                ],
            }
        ],
    }
    assert {task["data"]["decision"] for task in others} == {"review"}
    assert others[-1]["data"]["image"] == "https://host/c/1.jpg"
    view = ElementTree.fromstring(config.read_text("utf-8"))
    (choices,) = view.iter("Choices")
    (image,) = view.iter("Image")
    assert (choices.get("toName"), image.get("name"), image.get("value")) == (
        "image", "image", "$image",
    )  # fmt: skip
    assert [choice.get("value") for choice in choices] == sorted(CLASSES)


def test_label_studio_with_several_annotators(tmp_path):
    def answer(who, label, when="1", **others):
        result = [{"type": "choices", "from_name": "label", "value": {"choices": label}}]
        return {"completed_by": who, "result": result, "updated_at": when, **others}

    def task(path, *annotations):
        return {"data": {"path": path}, "annotations": list(annotations)}

    tasks = [
        task("majority", answer(1, ["cat"]), answer({"id": 2}, ["dog"]), answer(3, ["dog"])),
        task("tie", answer(1, ["cat"]), answer(2, ["dog"])),
        task("truth", answer(1, ["cat"]), answer(2, ["cat"]),
             answer(3, ["dog"], ground_truth=True)),
        task("cancelled", answer(1, ["cat"], was_cancelled=True)),
        task("cancelled truth", answer(1, ["cat"]),
             answer(2, ["dog"], was_cancelled=True, ground_truth=True)),
        task("nobody"),
        task("empty", {"completed_by": 1, "result": []}),
        task("two labels", answer(1, ["cat", "dog"])),
        task("changed his mind", answer(1, ["dog"], "2025-02"), answer(1, ["cat"], "2025-01"),
             answer(2, ["dog"])),
    ]  # fmt: skip
    result = decide_labels(read_label_studio(json.dumps(tasks).encode(), "tasks"))
    assert {row.path: (row.label, row.annotators) for row in result.rows} == {
        "majority": ("dog", 3),
        "truth": ("dog", 1),
        "cancelled truth": ("cat", 1),
        "changed his mind": ("dog", 2),
    }
    assert result.rows[0].agreement == pytest.approx(2 / 3)
    assert result.skipped == ("cancelled", "nobody", "empty")
    assert set(result.undecided) == {"tie", "two labels"}


def test_label_studio_refuses_what_it_cannot_read(tmp_path):
    def refused(value, match, **settings):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        with pytest.raises(InputError, match=match):
            read_label_studio(content, "a.json", **settings)

    result = {"type": "choices", "value": {"choices": ["cat"]}}
    two = [result | {"from_name": name} for name in ("a", "b")]
    refused([{"data": {"path": "1"}, "annotations": [{"result": two}]}], "Name one with --from")
    refused(
        [{"data": {"path": "1"}, "annotations": [{"result": two}]}], "called 'c'", from_name="c"
    )
    other = {**two[1], "value": {"choices": ["bright"]}}
    both = [{"data": {"path": "1"}, "annotations": [{"result": [two[0], other]}]}]
    (read,) = read_label_studio(json.dumps(both).encode(), "a.json", from_name="b")
    assert read.labels == ("bright",)
    refused([{"data": {"text": "1"}, "annotations": []}], "'path' or 'image' in task 1")
    refused([{"data": {"path": "1"}, "annotations": [7]}], r"at 0\.annotations\.0")
    refused([{"path": "1", "choice": "cat"}], "answers called 'label'")
    refused([1], "an export of Label Studio")
    refused(b"[" * 100_000, "to be JSON")
    refused(b"path,label\n1\n", "fewer cells")
    refused(b"\xff\xfe", "to be JSON or CSV")
    with pytest.raises(InputError, match="otherwise than data"):
        write_label_studio(VERDICTS, tmp_path / "a.json", from_name="path")


# CVAT.


@pytest.fixture
def pictures(tmp_path):
    for i, path in enumerate(PATHS[:-1]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + i, 20)).save(tmp_path / path)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (10, 20)).save(tmp_path / PATHS[0], exif=exif)
    return tmp_path


def test_cvat_and_back(pictures):
    file, labels = write_cvat(VERDICTS, pictures / "out.xml", images=pictures)
    root = ElementTree.parse(file).getroot()
    assert root.findtext("version") == "1.1"
    images = root.findall("image")
    assert [image.get("id") for image in images] == [str(i) for i in range(len(PATHS))]
    # CVAT numbers frames in the order of their names.
    assert [image.get("name") for image in images] == sorted(PATHS)
    sizes = {image.get("name"): (image.get("width"), image.get("height")) for image in images}
    assert sizes[PATHS[0]] == ("20", "10")
    assert sizes[PATHS[1]] == ("11", "20")
    assert sizes[PATHS[-1]] == (None, None)
    assert {image.find("tag").get("source") for image in images} == {"auto"}
    names = [label.findtext("name") for label in root.findall("meta/task/labels/label")]
    assert names == [label["name"] for label in json.loads(labels.read_text("utf-8"))]
    assert set(names) == set(CLASSES)

    untouched = decide_labels(read_cvat(file.read_bytes(), "out.xml"))
    assert (untouched.rows, len(untouched.unchanged)) == ((), len(PATHS))
    confirmed = decide_labels(read_cvat(file.read_bytes(), "out.xml"), confirm_unchanged=True)
    assert labels_of(confirmed) == {r.path: r.label for r in VERDICTS if r.decision != "error"}

    for image in images:
        tag = image.find("tag")
        if tag.get("label") != TRUTH[image.get("name")]:
            image.remove(tag)
            ElementTree.SubElement(image, "tag", label=TRUTH[image.get("name")], source="manual")
        ElementTree.SubElement(image, "box", label="cat", xtl="1", ytl="1", xbr="2", ybr="2")
    answered = ElementTree.tostring(root, "utf-8")
    result = decide_labels(read_cvat(answered, "answers.xml"))
    assert labels_of(result) == {p: c for i, (p, c) in enumerate(TRUTH.items()) if i % 2}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", answered)
        archive.writestr("images/a.jpg", b"")
    confirmed = decide_labels(read_cvat(packed.getvalue(), "answers.zip"), confirm_unchanged=True)
    assert labels_of(confirmed) == TRUTH


def test_cvat_says_who_set_a_tag():
    def tagged(*sources):
        tags = "".join(f"<tag label='{label}' source='{s}'/>" for label, s in sources)
        image = f"<annotations><image name='a'>{tags}</image></annotations>"
        (annotation,) = read_cvat(image.encode(), "a.xml")
        return annotation.labels, annotation.predicted, annotation.unchanged

    assert tagged(("cat", "file")) == (("cat",), "cat", True)
    assert tagged(("cat", "manual")) == (("cat",), "", False)
    # Whoever adds a tag and leaves the predicted one means the new one.
    assert tagged(("cat", "auto"), ("dog", "manual")) == (("dog",), "cat", False)
    assert tagged() == ((), "", True)


def test_xml_is_read_within_bounds(monkeypatch):
    def refused(text, match):
        with pytest.raises(InputError, match=match):
            read_cvat(text.encode(), "a.xml")

    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    refused(f"{bomb}<annotations><image name='&b;'/></annotations>", "document type")
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    refused(f"{outside}<annotations><image name='&a;'/></annotations>", "document type")
    refused("<annotations><image name='a'/>", "no element found")
    refused("<annotations>" + "<a>" * 30, "more than 20 deep")
    refused("<dataset/>", "not 'annotations'")
    refused("<annotations><track id='1'/></annotations>", "of a video")
    refused("<annotations><image name='a'><tag/></image></annotations>", "has no label")
    refused("<annotations><image/></annotations>", "has no name")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", "<annotations>" + " " * 1_000_000)
    monkeypatch.setattr("trustvlm.adapters.cvat.MAX_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1,000 bytes"):
        read_cvat(packed.getvalue(), "a.zip")
    with pytest.raises(InputError, match="export of CVAT"):
        read_cvat(packed.getvalue()[:50], "a.zip")


def test_names_that_xml_cannot_hold_are_refused(tmp_path):
    rows = [verdict("a\x01.jpg", "cat")]
    with pytest.raises(InputError, match="control characters"):
        write_cvat(rows, tmp_path / "a.xml")
    with pytest.raises(InputError, match="control characters"):
        write_label_studio([verdict("a.jpg", "c\x01t")], tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


# COCO and FiftyOne.


def test_coco_and_back(pictures):
    file = write_coco(VERDICTS, pictures / "out.json", classes=CLASSES, images=pictures)
    coco = json.loads(file.read_text("utf-8"))
    assert [category["name"] for category in coco["categories"]] == CLASSES
    assert min(category["id"] for category in coco["categories"]) == 1
    first = next(image for image in coco["images"] if image["file_name"] == PATHS[0])
    assert (first["width"], first["height"]) == (20, 10)
    annotations = {one["image_id"]: one for one in coco["annotations"]}
    of_first = annotations[first["id"]]
    assert (of_first["category_id"], of_first["score"]) == (1, 0.9)
    assert of_first["attributes"]["reason"] == "alike <both>"

    untouched = decide_labels(read_coco(file.read_bytes(), "out.json"))
    assert (untouched.rows, len(untouched.unchanged)) == ((), len(PATHS))
    numbers = {category["name"]: category["id"] for category in coco["categories"]}
    for image in coco["images"]:
        one = annotations[image["id"]]
        if one["category_id"] != numbers[TRUTH[image["file_name"]]]:
            one["category_id"] = numbers[TRUTH[image["file_name"]]]
            del one["score"]
    coco["annotations"].reverse()
    answers = json.dumps(coco).encode()
    confirmed = decide_labels(read_coco(answers, "answers.json"), confirm_unchanged=True)
    assert labels_of(confirmed) == TRUTH
    assert len(decide_labels(read_coco(answers, "answers.json")).rows) == len(PATHS) // 2


def test_coco_refuses_what_does_not_fit_together():
    image, category = {"id": 1, "file_name": "a.jpg"}, {"id": 1, "name": "cat"}
    for images, label, match in (
        ([image], {"image_id": 2, "category_id": 1}, "an image 2"),
        ([image], {"image_id": 1, "category_id": 7}, "category 7"),
        ([image, {"id": 1, "file_name": "b.jpg"}], {"image_id": 1, "category_id": 1}, "twice"),
        ([{"id": 1}], {"image_id": 1, "category_id": 1}, r"images\.0\.file_name"),
    ):
        coco = {"images": images, "categories": [category], "annotations": [label]}
        with pytest.raises(InputError, match=match):
            read_coco(json.dumps(coco).encode(), "a.json")


@pytest.mark.parametrize("keys", ["manifest", "absolute", "copies"])
def test_fiftyone_and_back(pictures, keys):
    here = Verdicts(row for row in VERDICTS if not row.path.startswith("https"))
    folder = write_fiftyone(here, pictures / "out", images=pictures, classes=CLASSES)
    data = json.loads((folder / "data.json").read_text("utf-8"))
    content = json.loads((folder / "labels.json").read_text("utf-8"))
    truth = {str(pictures / path): label for path, label in TRUTH.items()}
    # FiftyOne writes names of classes unless it is given a list of them.
    labels = {
        name: {
            "label": truth[data[name]],
            "attributes": {"predicted": content["classes"][label["label"]]},
        }
        for name, label in content["labels"].items()
    }
    if keys == "absolute":
        labels = {data[name]: label for name, label in labels.items()}
        (folder / "data.json").unlink()
    elif keys == "copies":
        (folder / "data").mkdir()
        for name in labels:
            (folder / "data" / f"{name}.jpg").write_bytes(b"x")
        (folder / "data.json").unlink()
        truth = {str(folder / "data" / f"{n}.jpg"): truth[data[n]] for n in labels}
    (folder / "labels.json").write_text(json.dumps({"classes": None, "labels": labels}))
    expected = {path: truth[path] for path in truth if not path.endswith("x%20y.jpg")}
    for source in (folder, folder / "labels.json"):
        result = decide_labels(read_fiftyone(source), confirm_unchanged=True)
        assert labels_of(result) == expected
        assert len(decide_labels(read_fiftyone(source)).unchanged) == 4
    if keys == "copies":
        (folder / "data" / "00000000.png").write_bytes(b"y")
        with pytest.raises(InputError, match="there twice"):
            read_fiftyone(folder)
        for file in (folder / "data").iterdir():
            file.unlink()
        with pytest.raises(InputError, match="abs_paths"):
            read_fiftyone(folder)


# What all have in common.


def test_what_could_not_be_judged_comes_first_and_errors_never(tmp_path):
    nan = math.nan
    strange = verdict("strange.jpg", "cow", confidence=nan)
    rows = to_review([*VERDICTS, strange])
    assert rows[0] == strange
    decisions = [row.decision for row in rows]
    assert decisions == sorted(decisions, reverse=True)
    assert {"review", "accept"} == set(decisions)
    # A label that is no class is not offered, and predicts nothing.
    file, config = write_label_studio([*VERDICTS, strange], tmp_path / "a.json")
    assert "cow" not in config.read_text("utf-8")
    assert "predictions" not in json.loads(file.read_text("utf-8"))[0]
    for write in (write_cvat, write_coco, write_fiftyone):
        write([strange, *VERDICTS], tmp_path / write.__name__)
    with pytest.raises(InputError, match="at least one image for accept"):
        to_review([strange], "accept")


def test_an_image_that_two_labellers_labelled_is_looked_at_once(tmp_path):
    def by(labeller, path, label, confidence, decision="accept"):
        row = Verdict(path, label, confidence, math.nan, decision, 0.5, math.nan, "", "", "")
        return replace(row, labeller=labeller)

    rows = [by("ann", "1.jpg", "cat", 3.0), by("ann", "2.jpg", "dog", 2.0)]
    rows += [by("bob", "1.jpg", "dog", -1.0, "review"), by("bob", "2.jpg", "dog", 4.0)]
    write_cvat(rows, tmp_path / "a.xml")
    read = read_cvat((tmp_path / "a.xml").read_bytes(), "a.xml")
    assert [(one.path, one.labels) for one in read] == [("1.jpg", ("dog",)), ("2.jpg", ("dog",))]
    result = decide_labels(on_images_of(read, rows), confirm_unchanged=True)
    assert [(row.path, row.annotators) for row in result.rows] == [("1.jpg", 1), ("2.jpg", 1)]
    assert [row.path for row in to_review(rows, "accept")] == ["2.jpg"]
    assert len(random_order(rows, 0)) == 2


def test_answers_find_their_images_by_folders_from_the_end():
    renamed = on_images_of(
        [Annotation(f"upload/{path}", ("cat",)) for path in PATHS if "https" not in path]
        + [Annotation("x y.jpg", ("cat",)), Annotation("d/1.jpg", ("cat",))],
        VERDICTS,
    )
    assert [one.path for one in renamed] == [*PATHS, "c/d/1.jpg"]
    assert renamed[0].predicted == "cat"
    for path, match in (("1.jpg", "that of 3 images"), ("no.jpg", "that of no image")):
        with pytest.raises(InputError, match=match):
            on_images_of([Annotation(path, ("cat",))], VERDICTS)
    twins = [verdict("a/1.jpg", "cat"), verdict("./a/1.jpg", "dog")]
    with pytest.raises(InputError, match="that of 2 images"):
        on_images_of([Annotation("up/a/1.jpg", ("cat",))], twins)
    with pytest.raises(InputError, match="no image"):
        on_images_of([Annotation("other/1.jpg", ("cat",))], VERDICTS)


def test_a_random_sample_ends_where_an_answer_is_missing():
    rows = [verdict(f"{i}.jpg", "cat") for i in range(200)]
    order = random_order(rows, 3)
    assert order == random_order(rows[::-1], 3) != random_order(rows, 4)
    # No more of the first half of the list than chance would have.
    assert 30 < sum(int(row.path[:-4]) < 100 for row in order[:100]) < 70
    answers = [Annotation(row.path, ("dog",)) for i, row in enumerate(order) if i != 50]
    sample = random_sample(decide_labels(answers), rows, 3)
    assert [row.path for row in sample.rows] == [row.path for row in order[:50]]
    assert random_sample(decide_labels(answers[50:]), rows, 3).rows == ()


def test_the_table_of_corrections_leads_to_the_images(pictures):
    result = decide_labels(Annotation(path, (label,)) for path, label in TRUTH.items())
    table = pictures / "corrections.csv"
    table.write_text(
        corrections_csv(result, root=pictures, beside=pictures, shots=[(pictures / "s.jpg", "cat")])
    )
    images = find_labelled(table)
    assert dict(zip((i.path for i in images.refs), images.labels, strict=True)) == {
        str(pictures / "s.jpg"): "cat",
        **TRUTH,
    }
    assert all(image.file.is_file() for image in images.refs[1:] if image.file is not None)
    elsewhere = corrections_csv(result, root=pictures / "a, b", beside=pictures / "c")
    assert str(pictures / "a, b" / PATHS[1]) in elsewhere
    assert corrections_csv(result).count(str(pictures)) == 0


def test_verdicts_are_read_as_they_were_written(tmp_path):
    pytest.importorskip("pyarrow")
    rows = Verdicts(
        [*VERDICTS, verdict(" end ", "cat", prediction_set=("cat", "a, b"), corrected=True)]
    )
    for ending in ("csv", "jsonl", "parquet"):
        rows.write(tmp_path / f"a.{ending}")
        assert Verdicts.read(tmp_path / f"a.{ending}").to_jsonl() == rows.to_jsonl()
    (tmp_path / "folder").mkdir()
    VERDICTS[:3].write(tmp_path / "folder/1.parquet")
    VERDICTS[3:].write(tmp_path / "folder/2.parquet")
    assert Verdicts.read(tmp_path / "folder").to_csv() == VERDICTS.to_csv()
    for text, match in (
        ("path,decision,confidence\na,accept,high\n", "confidence to be a number in row 1"),
        ("path,decision\na,maybe\n", "accept, review or error"),
        ("path,decision\na,pending\n", "complete run"),
        ("path,decision,prediction_set\na,review,3\n", "a list of labels"),
        ("path,label\na,cat\n", "'decision'"),
    ):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(InputError, match=match):
            Verdicts.read(tmp_path / "b.csv")
    with pytest.raises(InputError, match="there is no"):
        Verdicts.read(tmp_path / "no.csv")


def test_a_category_that_a_person_added_goes_before_the_predicted_one():
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    labels = [
        {"image_id": 1, "category_id": 1, "score": 0.9},
        {"image_id": 1, "category_id": 2},
        {"image_id": 2, "category_id": 1, "score": 0.8},
    ]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)]
    content = json.dumps({"images": images, "categories": names, "annotations": labels})
    one, two = read_coco(content.encode(), "x.json")
    assert (one.labels, one.predicted, one.unchanged) == (("dog",), "cat", False)
    assert (two.labels, two.predicted, two.unchanged) == (("cat",), "cat", True)
