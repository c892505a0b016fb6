"""Tables whose columns have names of their own, by every command that takes images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pictures import write_class_folders
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import list_set
from trustvlm.exceptions import InputError
from trustvlm.images import find_labelled

SQUARES = ("--vlm", "squares:1", "--vision", "squares:1")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same labelled pictures as class folders, CSV and Parquet with odd columns."""
    top = tmp_path_factory.mktemp("columns")
    folder = write_class_folders(top / "folders", per_class=12, seed=9)
    images = find_labelled(folder).refs
    with (top / "rows.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "species", "path"])
        rows.writerows((f"folders/{image.path}", image.label, "x") for image in images)
    tables = {"folder": folder, "csv": top / "rows.csv"}
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    classes = sorted({image.label for image in images})
    table = pa.table(
        {
            "picture": pa.array([image.read() for image in images], pa.binary()),
            "thumbnail": pa.array([b""] * len(images), pa.binary()),
            "species": [classes.index(image.label) for image in images],
            "file": [image.path for image in images],
        }
    )
    features = {"species": {"names": classes, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), top / "rows.parquet")
    return tables | {"parquet": top / "rows.parquet"}


PATH, LABEL, IMAGE = "--path-column file", "--label-column species", "--image-column picture"


@pytest.mark.parametrize(
    ("command", "labelled"),
    [
        ("fit {data} -o {out}", True),
        ("calibrate {model} {data} -o {out} --risk 0.4", True),
        ("evaluate {model} {data} --json {out}", True),
        ("advise {model} {data} --json {out}", True),
        ("predict {model} {data} -o {out}", False),
        ("label {data} --classes red,green,blue -o {out}", False),
        ("monitor {model} {data} --json {out} --false-alarm 1e-9", False),
    ],
)
def test_columns_have_any_name(command, labelled, odd_model, tables, tmp_path, trustvlm):
    outcomes = {}
    for kind, data in tables.items():
        out = tmp_path / (kind + (".csv" if "predict" in command or "label" in command else ""))
        out = out.with_suffix(".trust") if command.startswith(("fit", "calibrate")) else out
        named = command.format(data=data, out=out, model=odd_model[0]).split()
        named += [*SQUARES] if command.startswith(("fit", "label")) else []
        if kind != "folder":
            named += f"{PATH} {IMAGE}".split() + (LABEL.split() if labelled else [])
        done = trustvlm(*named, "--plugin", odd_model[1], "--quiet")
        assert done.code == 0, done.err
        if out.suffix == ".trust":
            manifest = json.loads((out / "manifest.json").read_text())
            outcomes[kind] = (manifest["classes"], len(manifest["shots"]))
        elif out.suffix == ".csv" and out.is_file():
            with out.open(newline="") as stream:
                outcomes[kind] = [row["label"] for row in csv.DictReader(stream)]
        else:
            # A title begins with the name of the input.
            outcomes[kind] = "".join(done.out.partition(":")[2].split())
    assert outcomes["csv"] == outcomes["folder"] == outcomes["parquet"]


@pytest.mark.parametrize(
    ("species", "problem"), [([0, None], "got None"), ([0, -1], "got -1"), ([0, 7], "got 7")]
)
def test_rows_without_a_label_are_refused(species, problem, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": pa.array([b"a", b"b"], pa.binary()), "label": species})
    file = tmp_path / "rows.parquet"
    features = {"label": {"names": ["cat", "dog"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(InputError, match=problem):
        find_labelled(file)
    with pytest.raises(InputError, match=r"column 'what', but its columns are 'image', 'label'"):
        find_labelled(file, label_column="what")


def test_a_study_names_its_columns(tables, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        scores = ["msp"]
        [[models]]
        vlm = "offline"
        vision = "offline"
        [[datasets]]
        train = "{tables["csv"]}"
        test = ["{tables["parquet"]}"]
        path_column = "file"
        label_column = "species"
        image_column = "picture"
        """
    )
    listed = list_set(read_config(study).datasets[0])
    assert sorted(listed.class_names) == ["blue", "green", "red"]
    assert listed.tests["rows"].labels.tolist() == listed.train.labels.tolist()
