import json
import os
from pathlib import Path

import numpy as np
import pytest

from processes import finished, running
from trustvlm.exceptions import ArtefactError, TrustVLMWarning
from trustvlm.pipeline import artefact
from trustvlm.pipeline.artefact import check_target, read_artefact, write_artefact
from trustvlm.pipeline.state import check_same_model

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


def folder_with(path, **files):
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("_", ".")).write_text(content)
    return path


OWN = json.dumps({"format": "trustvlm.model"})
FOREIGN = {
    "photos": ({"only_jpg": "precious"}, "only.jpg"),
    "extension": ({"manifest_json": '{"manifest_version": 3}', "popup_js": "x"}, "popup.js"),
    "bare manifest": ({"manifest_json": '{"manifest_version": 3}'}, "manifest.json"),
    "no JSON": ({"manifest_json": "{"}, "manifest.json"),
    "list": ({"manifest_json": "[]"}, "manifest.json"),
    "ours and a note": ({"manifest_json": OWN, "notes_txt": "precious"}, "notes.txt"),
    "arrays alone": ({"arrays_safetensors": "x"}, "no manifest.json"),
    "empty": ({}, "no manifest.json"),
}


def content_of(path):
    return {p.name: p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


@pytest.mark.parametrize(("files", "named"), FOREIGN.values(), ids=FOREIGN)
def test_a_folder_is_replaced_only_if_every_file_in_it_is_ours(tmp_path, files, named):
    path = folder_with(tmp_path / "out", **files)
    before = content_of(tmp_path)
    for write in (lambda: check_target(path), lambda: write_artefact(path, {}, ARRAYS)):
        with pytest.raises(
            ArtefactError, match=r"exists and is not a \.trust .*another folder"
        ) as e:
            write()
        assert named in str(e.value)
        assert str(path) in str(e.value)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_a_link_among_our_files_is_foreign(tmp_path, kind):
    path = tmp_path / "m.trust"
    write_artefact(path, {"value": 1}, ARRAYS)
    if kind == "folder":
        (path / "arrays").mkdir()
    else:
        (tmp_path / "elsewhere").write_bytes((path / "arrays.safetensors").read_bytes())
        (path / "arrays.safetensors").unlink()
        (path / "arrays.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="'arrays"):
        write_artefact(path, {"value": 2}, ARRAYS)
    assert read_artefact(path)[0]["value"] == 1


def test_a_damaged_artefact_of_ours_is_replaced(tmp_path):
    path = tmp_path / "m.trust"
    write_artefact(path, {"value": 1}, ARRAYS)
    (path / "arrays.safetensors").unlink()
    write_artefact(path, {"value": 2}, ARRAYS)
    assert read_artefact(path)[0]["value"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["m.trust"]


def test_links_files_and_closed_folders_are_named(tmp_path):
    write_artefact(tmp_path / "m.trust", {}, ARRAYS)
    (tmp_path / "link.trust").symlink_to(tmp_path / "m.trust")
    (tmp_path / "dangling.trust").symlink_to(tmp_path / "nothing")
    (tmp_path / "file.trust").write_text("precious")
    for name, message in {
        "link.trust": "symbolic link.*leads to",
        "dangling.trust": "symbolic link.*leads to",
        "file.trust": "is not a folder.*not overwritten",
        "file.trust/m.trust": "cannot be written: Not a directory.*may write to",
    }.items():
        for write in (check_target, lambda path: write_artefact(path, {}, ARRAYS)):
            with pytest.raises(ArtefactError, match=message):
                write(tmp_path / name)
    assert (tmp_path / "link.trust").is_symlink()
    assert (tmp_path / "file.trust").read_text() == "precious"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody writes to")
def test_a_folder_that_nobody_may_write_to_is_named():
    with pytest.raises(ArtefactError, match=r"/proc/a/b\.trust cannot be written.*may write to"):
        check_target("/proc/a/b.trust")


def test_what_comes_into_the_older_folder_meanwhile_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "m.trust"
    write_artefact(path, {"value": 1}, ARRAYS)
    put = artefact._put

    def late(fresh, path, older):
        (path / "late.txt").write_text("precious")
        put(fresh, path, older)

    monkeypatch.setattr(artefact, "_put", late)
    with pytest.warns(TrustVLMWarning, match="left over from the model that was replaced"):
        write_artefact(path, {"value": 2}, ARRAYS)
    assert read_artefact(path)[0]["value"] == 2
    (kept,) = tmp_path.rglob("late.txt")
    assert kept.read_text() == "precious"


def test_where_folders_cannot_change_places_a_failure_puts_the_older_one_back(
    tmp_path, monkeypatch
):
    path = tmp_path / "m.trust"
    monkeypatch.setattr(artefact, "_exchange", lambda *_: False)
    for value in (1, 2):
        write_artefact(path, {"value": value}, ARRAYS)
    rename = Path.rename

    def failing(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ArtefactError, match="No space left on device"):
        write_artefact(path, {"value": 3}, ARRAYS)
    assert read_artefact(path)[0]["value"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["m.trust"]


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from trustvlm.pipeline import artefact

if sys.argv[2] == "renames":
    artefact._exchange = lambda *_: False
arrays = {"a": np.arange(3)}
for step in range(1, 100):
    path = Path(sys.argv[1]) / str(step) / "m.trust"
    artefact.write_artefact(path, {"value": 1}, arrays)
    child = os.fork()
    if not child:
        steps = 0

        def die(event, _):
            global steps
            steps += event in ("open", "ctypes.dlsym") or event.startswith("os.")
            if steps == step:
                os.kill(os.getpid(), 9)

        sys.addaudithook(die)
        artefact.write_artefact(path, {"value": 2}, arrays)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        sys.exit(0)
sys.exit("there are more than 100 steps")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_killed_at_any_step_the_older_or_the_new_one_is_there(tmp_path, way):
    with running(KILLED, tmp_path, way) as process:
        assert finished(process) == (0, "")
    seen = set()
    for path in tmp_path.glob("*/m.trust"):
        seen.add(read_artefact(path)[0]["value"])
    without = [p for p in tmp_path.iterdir() if not (p / "m.trust").exists()]
    for folder in without:
        with pytest.raises(ArtefactError, match="rename it back") as missing:
            read_artefact(folder / "m.trust")
        (older,) = folder.glob(".m.trust.*/old")
        assert str(older) in str(missing.value)
        assert read_artefact(older)[0]["value"] == 1
    assert seen == {1, 2}
    assert len(without) == (way == "renames")
