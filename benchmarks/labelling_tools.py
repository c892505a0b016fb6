"""Run labelling tools' own code on what `trustvlm export` writes, and read back what they write.

Each tool wants an environment of its own, beside the one of trustvlm:

    python benchmarks/labelling_tools.py make WORK
    LS/bin/python benchmarks/labelling_tools.py label-studio WORK   # with label-studio-sdk
    DM/bin/python benchmarks/labelling_tools.py datumaro WORK       # with datumaro
    FO/bin/python benchmarks/labelling_tools.py fiftyone WORK       # with fiftyone and mongomock
    python benchmarks/labelling_tools.py read WORK

FiftyOne keeps its data in MongoDB; mongomock stands for it where there is none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

CLASSES = ["cat", "salt, pepper", "Köter & <1>", 'the "other"']
PATHS = [
    "a, b/1.jpg",
    "c/1.jpg",
    "c/d/1.jpg",
    "späte Äpfel/ü 1#2%20?.jpg",
    "=1+1.jpg",
    "'quoted' \"twice\".jpg",
    "a;b|c.tar.jpg",
]


def answer(path: str, predicted: str) -> str:
    """Every image whose path has an odd number of letters is a cat."""
    return "cat" if len(path) % 2 else predicted


def make(work: Path) -> None:
    from PIL import Image

    from trustvlm import Verdicts
    from trustvlm.adapters import write_coco, write_cvat, write_fiftyone, write_label_studio
    from trustvlm.pipeline.verdict import Verdict

    rows = []
    for i, path in enumerate(PATHS):
        for photos in ("photos", "cvat/images", "coco/images/default"):
            (work / photos / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10 + i, 20)).save(work / photos / path)
        rows.append(
            Verdict(
                *(path, CLASSES[i % 4], 1.5, round(0.9 - i / 20, 2), "review", 0.5, 0.3, "cat"),
                *("alike <both>", ""),
            )
        )
    Verdicts(rows).write(work / "out.csv")
    write_label_studio(rows, work / "tasks.json", url_prefix="https://host/")
    write_cvat(rows, work / "cvat/annotations.xml", images=work / "photos")
    write_coco(rows, work / "coco/annotations/labels_default.json", images=work / "photos")
    write_fiftyone(rows, work / "fiftyone", images=work / "photos")


def label_studio(work: Path) -> None:
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    config = (work / "tasks.config.xml").read_text("utf-8")
    tasks = json.loads((work / "tasks.json").read_text("utf-8"))
    interface = LabelInterface(config)
    interface.validate()
    for number, task in enumerate(tasks):
        assert interface.validate_task({"data": task["data"]})
        (prediction,) = task["predictions"]
        assert not interface.validate_prediction(prediction, return_errors=True)
        choice = answer(task["data"]["path"], task["data"]["predicted"])
        result = {**prediction["result"][0], "value": {"choices": [choice]}}
        annotation = {"id": number, "completed_by": {"id": 1}, "result": [result]}
        task |= {"id": number, "annotations": [annotation]}
    print(f"label-studio-sdk: set-up, {len(tasks)} tasks and predictions are valid")
    (work / "ls.json").write_text(json.dumps(tasks))
    converter = Converter(config, "", download_resources=False)
    converter.convert_to_json_min(str(work / "ls.json"), str(work / "ls_min"), is_dir=False)
    converter.convert_to_csv(
        str(work / "ls.json"), str(work / "ls_csv"), is_dir=False, sep=",", header=True
    )


def datumaro(work: Path) -> None:
    import datumaro

    for folder, kind in (("cvat", "cvat"), ("coco", "coco_labels")):
        data = datumaro.Dataset.import_from(str(work / folder), kind)
        names = data.categories()[datumaro.AnnotationType.label]
        for item in data:
            (label,) = item.annotations
            name = answer(f"{item.id}.jpg", names[label.label].name)
            index = names.find(name)[0]
            item.annotations = [datumaro.Label(index, id=label.id)]
            data.put(item)
        data.export(str(work / f"datumaro_{folder}"), kind)
        print(f"datumaro: {kind}, {len(data)} images, {len(names)} classes")


def fiftyone(work: Path) -> None:
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    try:
        import mongoengine.connection
        import mongomock
        import pymongo
        from mongomock.store import ServerStore

        store = ServerStore()

        class Client(mongomock.MongoClient):
            _closed = False

            def __init__(self, *positional: object, **named: object) -> None:
                super().__init__(*positional, **{**named, "_store": store})

        os.environ |= {
            "FIFTYONE_DATABASE_URI": "mongodb://localhost:27017",
            "FIFTYONE_DATABASE_VALIDATION": "false",
            "FIFTYONE_DISABLE_SERVICES": "1",
        }
        pymongo.MongoClient = mongoengine.connection.MongoClient = Client
    except ImportError:
        print("mongomock is not installed: FiftyOne starts a MongoDB of its own")
    import fiftyone

    kind = fiftyone.types.FiftyOneImageClassificationDataset
    data = fiftyone.Dataset.from_dir(
        str(work / "fiftyone"), dataset_type=kind, data_path="data.json"
    )
    for sample in data:
        label = sample.ground_truth
        assert Path(sample.filepath).is_file()
        assert all(label[name] for name in ("decision", "p_correct", "reason", "runner_up"))
        path = Path(sample.filepath).relative_to((work / "photos").absolute())
        label.label = answer(path.as_posix(), label.label)
        sample.save()
    print(f"fiftyone: {len(data)} samples, confidence {data.bounds('ground_truth.confidence')}")
    data.export(
        str(work / "fiftyone_answers"),
        dataset_type=kind,
        label_field="ground_truth",
        export_media=False,
        abs_paths=True,
        include_attributes=True,
    )


def read(work: Path) -> None:
    from trustvlm import Verdicts
    from trustvlm.adapters.annotations import decide_labels, on_images_of
    from trustvlm.cli.corrections import read_annotations

    verdicts = Verdicts.read(work / "out.csv")
    expected = {row.path: answer(row.path, row.label) for row in verdicts}
    for name in (
        *("ls.json", "ls_min/result.json", "ls_csv/result.csv", "datumaro_cvat/annotations.xml"),
        *("datumaro_coco/annotations/labels_default.json", "fiftyone_answers"),
    ):
        if not (work / name).exists():
            print(f"{name}: not there")
            continue
        annotations = on_images_of(read_annotations(work / name), verdicts)
        result = decide_labels(annotations, confirm_unchanged=True)
        labels = {row.path: row.label for row in result.rows}
        assert labels == expected, (name, labels)
        print(f"{name}: {len(labels)} labels, each on its image")


if __name__ == "__main__":
    steps = {
        "make": make,
        "label-studio": label_studio,
        "datumaro": datumaro,
        "fiftyone": fiftyone,
        "read": read,
    }
    steps[sys.argv[1]](Path(sys.argv[2]))
