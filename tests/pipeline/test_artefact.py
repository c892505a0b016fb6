import json

import numpy as np
import pytest

from trustvlm.exceptions import ArtefactError
from trustvlm.pipeline.artefact import check_same_model, read_artefact, write_artefact

ARRAYS = {"a": np.arange(6.0).reshape(2, 3)[:, ::-1], "b": np.array([1, 2])}


def test_round_trip_holds_no_pickle(tmp_path):
    write_artefact(tmp_path / "m.trust", {"classes": ["naïve"]}, ARRAYS)
    manifest, arrays = read_artefact(tmp_path / "m.trust")
    assert manifest["classes"] == ["naïve"]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    names = sorted(path.name for path in (tmp_path / "m.trust").iterdir())
    assert names == ["arrays.safetensors", "manifest.json"]


def test_an_older_artefact_is_replaced_and_nothing_is_left_over(tmp_path):
    for value in (1, 2):
        write_artefact(tmp_path / "m.trust", {"value": value}, ARRAYS)
    assert read_artefact(tmp_path / "m.trust")[0]["value"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m.trust"]


def test_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "only.jpg").write_text("precious")
    with pytest.raises(ArtefactError, match="not overwritten"):
        write_artefact(tmp_path / "photos", {}, ARRAYS)
    assert (tmp_path / "photos" / "only.jpg").read_text() == "precious"


def test_a_failed_write_leaves_the_old_artefact(tmp_path):
    write_artefact(tmp_path / "m.trust", {"value": 1}, ARRAYS)
    with pytest.raises(ValueError, match="JSON"):
        write_artefact(tmp_path / "m.trust", {"value": float("nan")}, ARRAYS)
    assert read_artefact(tmp_path / "m.trust")[0]["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.trust"]


def damage_arrays(path):
    content = bytearray((path / "arrays.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "arrays.safetensors").write_bytes(content)


def change_manifest(**changes):
    def change(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_arrays, "not the file that the manifest describes"),
        (change_manifest(format_version=99), "format version 99"),
        (change_manifest(format="other"), "not the manifest of a trustvlm model"),
        (lambda path: (path / "manifest.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "manifest.json").write_text("[]"), "not the manifest"),
        (lambda path: (path / "arrays.safetensors").unlink(), "arrays.safetensors is missing"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "m.trust"
    write_artefact(path, {}, ARRAYS)
    damage(path)
    with pytest.raises(ArtefactError, match=message):
        read_artefact(path)


def test_a_missing_artefact_says_how_to_make_one(tmp_path):
    with pytest.raises(ArtefactError, match="trustvlm fit"):
        read_artefact(tmp_path / "nothing.trust")


def test_a_different_model_is_named_with_the_side_that_differs():
    stored = {"fingerprint": "x", "spec": "clip-vit-b16", "weights": "a" * 64, "revision": "r1"}
    here = {"fingerprint": "y", "spec": "clip-vit-b16", "weights": "b" * 64, "revision": "r1"}
    with pytest.raises(ArtefactError) as caught:
        check_same_model("VLM", stored, here)
    message = str(caught.value)
    assert "weights: aaaaaaaaaaaa... in the artefact, bbbbbbbbbbbb... here" in message
    assert "revision" not in message
