"""Verdicts as columns are those of `predict`, whatever form the images have."""

from __future__ import annotations

import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.adapters import on_dataset
from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.pipeline.verdict import COLUMNS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    shots = write_class_folders(tmp_path_factory.mktemp("adapters") / "shots")
    return TrustVLM(vlm="offline", vision="offline").fit(shots)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = write_class_folders(tmp_path_factory.mktemp("adapters") / "new", per_class=2, seed=3)
    return sorted(folder.rglob("*.*"))


def forms(files):
    yield "path", [str(file) for file in files]
    yield "bytes", [file.read_bytes() for file in files]
    yield "decoded", [Image.open(io.BytesIO(file.read_bytes())) for file in files]
    yield "undecoded", [{"bytes": file.read_bytes(), "path": None} for file in files]
    yield "referenced", [{"bytes": None, "path": str(file)} for file in files]


def test_every_form_has_the_verdicts_of_predict(model, files):
    expected = [verdict.to_row() for verdict in model.predict([str(file) for file in files])]
    for name, images in forms(files):
        columns = on_dataset(model)({"image": images})
        assert list(columns) == [f"trust_{column}" for column in COLUMNS[1:]]
        for column in ("label", "decision", "runner_up"):
            assert columns[f"trust_{column}"] == [row[column] for row in expected], name
        np.testing.assert_allclose(
            columns["trust_confidence"], [row["confidence"] for row in expected], atol=1e-6
        )
        assert columns["trust_p_correct"] == [None] * len(files)


def test_one_bad_image_is_one_error(model, files):
    images = [b"nonsense", None, {"bytes": None, "path": "nowhere.png"}, str(files[0])]
    columns = on_dataset(model, column="picture", prefix="")({"picture": images, "other": "abcd"})
    assert columns["decision"][:3] == ["error"] * 3
    assert all(columns["error"][:3])
    assert columns["label"][3]
    assert columns["error"][3] == ""


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "F", "LAB", "YCbCr", "I;16"])
def test_pictures_of_every_mode_are_judged(model, mode):
    # Pillow makes no LAB of another mode.
    grey = Image.new("L", (40, 30), 90)
    picture = Image.new("LAB", (40, 30)) if mode == "LAB" else grey.convert(mode)
    columns = on_dataset(model)({"image": [picture]})
    assert columns["trust_error"] == [""]
    assert math.isfinite(columns["trust_confidence"][0])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"img": []}, "name it by `column`"),
        ({"image": "one.png"}, "batched=True"),
        ({"image": Image.new("RGB", (8, 8))}, "batched=True"),
        ({"image": [3]}, "got a int"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(model, batch, message):
    with pytest.raises(InputError, match=message):
        on_dataset(model)(batch)


def test_a_score_that_adapts_to_the_batch_is_refused(model, tmp_path):
    shots = write_class_folders(tmp_path / "shots")
    adapted = TrustVLM(vlm="offline", vision="offline", score="auto_adapted").fit(shots)
    with pytest.raises(InputError, match="depends on the other images"):
        on_dataset(adapted)
    with pytest.raises(InputError, match="fit"):
        on_dataset(TrustVLM(vlm="offline", vision="offline", classes=["a"]))


def test_a_saved_model_travels_by_its_path(model, files, tmp_path):
    model.save(tmp_path / "m.trust")
    add = on_dataset(tmp_path / "m.trust", prefix="p_")
    batch = {"image": [str(file) for file in files]}
    content = pickle.dumps(add)
    assert len(content) < 2000
    assert pickle.loads(content)(batch) == add(batch)
    assert content == pickle.dumps(on_dataset(str(tmp_path / "m.trust"), prefix="p_"))
    with (tmp_path / "m.trust" / "manifest.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ArtefactError, match="has changed since"):
        pickle.loads(content)


def test_datasets_takes_it(model, files, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Dataset"):
        pytest.skip("not installed (`make extras` does): `datasets` is a folder of tests")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_dict({"image": [str(file) for file in files]})
    made = made.cast_column("image", datasets.Image())
    model.save(tmp_path / "m.trust")
    added, again = (
        made.map(on_dataset(tmp_path / "m.trust"), batched=True, batch_size=2) for _ in range(2)
    )
    assert added._fingerprint == again._fingerprint
    expected = model.predict([str(file) for file in files])
    assert added["trust_label"][:] == expected.column("label")
    content = io.BytesIO()
    added[0]["image"].save(content, format="PNG")
    assert content.getvalue()
