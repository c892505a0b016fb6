"""A model whose manifest and arrays do not fit each other is refused, and the error says where."""

from dataclasses import replace

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError
from trustvlm.monitoring.ood import OODGate
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.pipeline.predict import explain, verdicts_with_shots
from trustvlm.pipeline.state import ModelState
from trustvlm.scores import ScoreResult


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Manifest and arrays of a calibrated model."""
    root = tmp_path_factory.mktemp("models")
    encoders = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    model = TrustVLM(**encoders, store=EmbeddingStore.memory())
    model.fit(write_class_folders(root / "shots"))
    model.calibrate(write_class_folders(root / "labelled", per_class=10, seed=5), risk=0.4)
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
        (lambda m: {**m, "logit_scale": -20.0}, "`logit_scale` .*greater than 0"),
        (lambda m: {**m, "logit_scale": 10**400}, "`logit_scale` "),
        (lambda m: {**m, "logit_scale": 1e300}, "`logit_scale` .*less than"),
        (lambda m: {**m, "protocol": "other"}, "`protocol` "),
        (lambda m: {**m, "classes": {"a": 1}}, "`classes` "),
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
        ("prototype_sums", lambda a: a * 2, "differs from the sums"),
        ("text_embeddings", lambda a: a * 1e6, "rows of length 1"),
        ("calibration_correct", lambda a: ~a, "differs from predictions and labels"),
        ("calibration_typicality", lambda a: a + 5, "cosines"),
        ("calibrator_weights", lambda a: a * np.nan, "NaN or infinity"),
        ("calibrator_shares", lambda a: a * np.inf, "NaN or infinity"),
    ],
)
def test_an_array_that_does_not_fit_is_named(parts, tmp_path, name, change, message):
    manifest, arrays = parts
    changed = without(arrays, name) if change is None else {**arrays, name: change(arrays[name])}
    write_artefact(tmp_path / "m.trust", manifest, changed)
    with pytest.raises(ArtefactError, match=f"`{name}` .*{message}.*fit again") as refused:
        ModelState.load(tmp_path / "m.trust")
    assert str(tmp_path / "m.trust" / "arrays.safetensors") in str(refused.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda a: -a),
        ("weights", lambda a: a[0]),
        ("shares", lambda a: a * 2),
        ("shares", lambda a: a[:0]),
        ("prior", lambda a: a[:-1]),
        ("images", lambda a: -a),
        ("confidence", lambda a: a[::-1]),
        ("confidence", lambda a: a[:-1]),
        ("probability", lambda a: a + 1),
        ("own_prior", lambda a: np.empty(0)),
        ("shots_shots_weights", lambda a: np.ones(2)),
    ],
)
def test_a_calibrator_that_fitting_cannot_give_is_refused(parts, tmp_path, name, change):
    manifest, arrays = parts
    stored = arrays.get(f"calibrator_{name}", np.empty(0))
    changed = {**arrays, f"calibrator_{name}": np.ascontiguousarray(change(stored))}
    write_artefact(tmp_path / "m.trust", manifest, changed)
    with pytest.raises(ArtefactError, match=r"m\.trust does not fit together: .*Fit again"):
        ModelState.load(tmp_path / "m.trust")


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": -1e300},
        {"threshold": 0.0, "accepted": 30, "errors": 0},
        {"threshold": "0.5"},
        {"threshold": True},
        {"errors": -1},
        {"accepted": 10**6},
        {"n": 29},
        {"n": 30.0},
        {"risk": 0.0},
        {"risk": 7.0},
        {"risk_bound": None},
        {"risk_bound": 1.5},
        {"coverage": -0.1},
        {"confidence_level": 1.0},
        {"confidence_level": None},
        {"kind": "other"},
        {"kind": []},
        {"kind": "risk_per_class", "simultaneous": True, "classes": []},
        {"kind": "expectation", "wrong": [1e9] * 40},
        {"kind": "cost"},
    ],
    ids=repr,
)
def test_a_rule_that_calibrating_cannot_give_is_refused(parts, tmp_path, changes):
    manifest, arrays = parts
    assert manifest["calibration"]["certificate"]["certified"]
    certificate = {**manifest["calibration"]["certificate"], **changes}
    changed = {**manifest, "calibration": {**manifest["calibration"], "certificate": certificate}}
    write_artefact(tmp_path / "m.trust", changed, arrays)
    with pytest.raises(ArtefactError, match=r"m\.trust (does not fit|is not complete).*Fit again"):
        ModelState.load(tmp_path / "m.trust")


@pytest.mark.parametrize(
    ("score", "parameters"),
    [
        ("trustvlm_star", {"weight": None}),
        ("trustvlm_star", {"weight": "1"}),
        ("trustvlm_star", {"temperature": 0}),
        ("trustvlm_star", {"temperature": -1.0}),
        ("trustvlm_star", {"temperature": True}),
        ("trustvlm_star", {"weight": [1.0]}),
        ("knn", {"k": 2.5}),
        ("knn", {"unheard": 2}),
    ],
    ids=repr,
)
def test_parameters_that_no_score_can_have_are_refused(parts, tmp_path, score, parameters):
    manifest, arrays = parts
    entry = {"name": score, "parameters": parameters, "selection": None}
    write_artefact(tmp_path / "m.trust", {**manifest, "score": entry}, arrays)
    with pytest.raises(ArtefactError, match=r"m\.trust does not fit together: .*Fit again"):
        ModelState.load(tmp_path / "m.trust")


def test_what_is_no_number_is_never_accepted(parts, tmp_path):
    manifest, arrays = parts
    write_artefact(tmp_path / "m.trust", manifest, arrays)
    state = ModelState.load(tmp_path / "m.trust")
    evidence = state.evidence(state.support_image_embeddings[:3], state.support_features[:3])
    prediction = evidence.logits.argmax(axis=1)
    shown = explain(evidence, prediction, OODGate())
    for calibration in (state.calibration, None):
        result = ScoreResult(prediction, np.array([np.nan, np.inf, -np.inf]))
        verdicts = verdicts_with_shots(
            result, replace(shown, nearest=prediction), "abc", state.classes.names, calibration
        )
        assert [v.decision for v in verdicts] == ["review"] * 3


def test_fields_that_older_versions_lack_may_be_missing(parts, tmp_path):
    manifest, arrays = parts
    older = without(manifest, "draft", "decision_rule")
    older["score"] = without(manifest["score"], "selection")
    older["shots"] = without(manifest["shots"], "folder", "unreadable", "counts")
    write_artefact(tmp_path / "m.trust", older, arrays)
    state = ModelState.load(tmp_path / "m.trust")
    assert (state.draft, state.selection, state.shots_folder) == (False, None, "")
    assert state.unreadable_shots == ()
