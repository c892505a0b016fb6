"""A model whose manifest and arrays do not fit each other is refused, and the error says where."""

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.pipeline.state import ModelState


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Manifest and arrays of a calibrated model."""
    root = tmp_path_factory.mktemp("models")
    encoders = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    model = TrustVLM(**encoders, store=EmbeddingStore.memory())
    model.fit(write_class_folders(root / "shots"))
    model.calibrate(write_class_folders(root / "labelled", per_class=10, seed=5))
    model.state.save(root / "m.trust")
    return read_artefact(root / "m.trust")


def without(entry, *keys):
    return {key: value for key, value in entry.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: without(m, "score"), "`score` .*Field required"),
        (lambda m: {**m, "logit_scale": "20"}, "`logit_scale` .*valid number"),
        (lambda m: {**m, "draft": 1}, "`draft` .*valid boolean"),
        (lambda m: {**m, "classes": []}, "`classes` .*at least 1 item"),
        (lambda m: {**m, "classes": m["classes"][:2]}, "prototype_sums.*the shape"),
        (lambda m: {**m, "folders": m["folders"][:2]}, "3 `classes`, but 2 `folders`"),
        (
            lambda m: {**m, "models": {**m["models"], "vlm": without(m["models"]["vlm"], "spec")}},
            "`models.vlm.spec`",
        ),
        (
            lambda m: {
                **m,
                "shots": {
                    **m["shots"],
                    "images": [
                        without(m["shots"]["images"][0], "sha256", "path"),
                        *m["shots"]["images"][1:],
                    ],
                },
            },
            r"`shots.images.0.path` .*and 1 more field",
        ),
        (
            lambda m: {**m, "shots": {**m["shots"], "images": m["shots"]["images"][:-1]}},
            "`support_features` is expected to have the shape",
        ),
        (
            lambda m: {**m, "shots": {**m["shots"], "images": m["shots"]["images"][::-1]}},
            "`support_labels` differs from the classes",
        ),
        (
            lambda m: {**m, "shots": {**m["shots"], "counts": [4, 4, 5]}},
            "`prototype_counts` differs",
        ),
        (
            lambda m: {
                **m,
                "calibration": {
                    **m["calibration"],
                    "data": {**m["calibration"]["data"], "n": 29},
                },
            },
            "`calibration_confidence` is expected to have the shape .*29",
        ),
    ],
)
def test_a_manifest_that_lacks_or_misstates_something_is_refused(parts, tmp_path, change, field):
    manifest, arrays = parts
    write_artefact(tmp_path / "m.trust", change(without(manifest, "arrays")), arrays)
    with pytest.raises(ArtefactError, match=f"(?s){field}.*fit again") as refused:
        ModelState.load(tmp_path / "m.trust")
    assert str(tmp_path / "m.trust") in str(refused.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("text_embeddings", None, "is missing"),
        ("calibration_label", None, "is missing"),
        ("support_labels", lambda a: a.astype(float), "whole numbers, but is float64"),
        ("calibration_correct", lambda a: a.astype(int), "booleans, but is int64"),
        ("support_features", lambda a: a[:, :-1], r"the shape \(12, 9\), but has \(12, 8\)"),
        ("support_image_embeddings", lambda a: a[0], "shape"),
        ("prototype_sums", lambda a: np.where(a == a.max(), np.nan, a), "NaN or infinity"),
        ("support_labels", lambda a: a + 1, "names classes"),
        ("calibration_prediction", lambda a: a - 3, "names classes"),
        ("prototype_counts", lambda a: a + 1, "differs from the numbers of shots"),
    ],
)
def test_an_array_that_does_not_fit_is_named(parts, tmp_path, name, change, message):
    manifest, arrays = parts
    changed = without(arrays, name) if change is None else {**arrays, name: change(arrays[name])}
    write_artefact(tmp_path / "m.trust", manifest, changed)
    with pytest.raises(ArtefactError, match=f"`{name}` .*{message}.*fit again") as refused:
        ModelState.load(tmp_path / "m.trust")
    assert str(tmp_path / "m.trust" / "arrays.safetensors") in str(refused.value)


def test_fields_that_older_versions_lack_may_be_missing(parts, tmp_path):
    manifest, arrays = parts
    older = without(manifest, "draft", "decision_rule")
    older["score"] = without(manifest["score"], "selection")
    older["shots"] = without(manifest["shots"], "folder", "unreadable", "counts")
    write_artefact(tmp_path / "m.trust", older, arrays)
    state = ModelState.load(tmp_path / "m.trust")
    assert (state.draft, state.selection, state.shots_folder) == (False, None, "")
    assert state.unreadable_shots == ()
