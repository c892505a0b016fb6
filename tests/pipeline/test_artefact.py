import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from processes import finished, running
from trustvlm import files
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


def deep(levels):
    return [deep(levels - 1)] if levels else 1


def pipe(name):
    def put(path):
        (path / name).unlink()
        os.mkfifo(path / name)

    return put


def header(text, data=b"x"):
    return len(text).to_bytes(8, "little") + text.encode() + data


def arrays_are(content):
    """Put other arrays there, with the manifest's SHA-256 of them."""

    def put(path):
        (path / "arrays.safetensors").write_bytes(content)
        change_manifest(arrays={"sha256": hashlib.sha256(content).hexdigest()})(path)

    return put


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_arrays, "not the file that the manifest describes"),
        (change_manifest(format_version=99), "format version 99"),
        (change_manifest(format="other"), "not the manifest of a trustvlm model"),
        (lambda path: (path / "manifest.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "manifest.json").write_text("[]"), "not the manifest"),
        (lambda path: (path / "manifest.json").write_text("[" * 10**5), "nested too deeply"),
        (change_manifest(nested=deep(40)), "nested too deeply"),
        (change_manifest(value=float("nan")), "NaN, which is no JSON"),
        (lambda path: (path / "manifest.json").write_text('{"a": 1e999}'), "beyond all bounds"),
        (lambda path: (path / "manifest.json").write_text("9" * 5000), "cannot be read"),
        (lambda path: (path / "manifest.json").write_bytes(b"\xff"), "cannot be read"),
        (change_manifest(arrays=[]), "not the file that the manifest describes"),
        (change_manifest(arrays={"file": "../x"}), "not the file that the manifest describes"),
        (pipe("manifest.json"), "manifest.json is not an ordinary file"),
        (pipe("arrays.safetensors"), "arrays.safetensors is not an ordinary file"),
        (arrays_are(b""), "cannot be read"),
        (arrays_are(b"\xff" * 20), "cannot be read"),
        (
            arrays_are(header('{"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}')),
            "cannot be read",
        ),
        (lambda path: (path / "arrays.safetensors").unlink(), "arrays.safetensors is missing"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "m.trust"
    write_artefact(path, {}, ARRAYS)
    damage(path)
    with pytest.raises(ArtefactError, match=message):
        read_artefact(path)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_manifest_that_was_changed_is_named(tmp_path, hashed):
    path = tmp_path / "m.trust"
    write_artefact(path, {"value": 1}, ARRAYS)
    changed = json.loads((path / "manifest.json").read_text()) | {"value": 2}
    if not hashed:
        changed.pop("manifest_sha256")
    (path / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(ArtefactError, match=r"manifest\.json was changed .*fit again"):
        read_artefact(path)


def test_other_layout_of_the_same_manifest_is_no_change(tmp_path):
    path = tmp_path / "m.trust"
    write_artefact(path, {"value": 0.1, "name": "\u00e9"}, ARRAYS)
    manifest = json.loads((path / "manifest.json").read_text())
    text = json.dumps(dict(reversed(manifest.items())))
    (path / "manifest.json").write_text(text)
    assert read_artefact(path)[0] == manifest


def test_manifest_and_arrays_of_different_models_do_not_mix(tmp_path):
    for value in (1, 2):
        write_artefact(tmp_path / f"{value}.trust", {"value": value}, {"a": np.arange(value)})
    for name in ("manifest.json", "arrays.safetensors"):
        write_artefact(tmp_path / "m.trust", {"value": 1}, {"a": np.arange(1)})
        (tmp_path / "m.trust" / name).write_bytes((tmp_path / "2.trust" / name).read_bytes())
        with pytest.raises(ArtefactError, match="damaged or mixed up"):
            read_artefact(tmp_path / "m.trust")


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
    exchange = files._exchange

    def late(fresh, path):
        (path / "late.txt").write_text("precious")
        return exchange(fresh, path)

    monkeypatch.setattr(files, "_exchange", late)
    with pytest.warns(TrustVLMWarning, match="left over from the folder that was replaced"):
        write_artefact(path, {"value": 2}, ARRAYS)
    assert read_artefact(path)[0]["value"] == 2
    (kept,) = tmp_path.rglob("late.txt")
    assert kept.read_text() == "precious"


def test_where_folders_cannot_change_places_the_manifest_is_what_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "m.trust"
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for value in (1, 2, 3):
        write_artefact(path, {"value": value}, {"a": np.arange(value)})
        manifest, arrays = read_artefact(path)
        assert (manifest["value"], len(arrays["a"])) == (value, value)
        assert len(list(path.iterdir())) == 2, "the older arrays are removed"
    replace = Path.replace

    def failing(self, target):
        if self.name == "manifest.json":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(ArtefactError, match="No space left on device"):
            write_artefact(path, {"value": 4}, {"a": np.arange(4)})
    assert read_artefact(path)[0]["value"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["m.trust"]
    # The arrays that no manifest names go after an hour.
    for file in path.iterdir():
        os.utime(file, (0, 0))
    write_artefact(path, {"value": 5}, {"a": np.arange(5)})
    assert read_artefact(path)[0]["value"] == 5
    assert len(list(path.iterdir())) == 2


def test_a_model_that_is_replaced_while_it_is_read_is_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.trust"
    write_artefact(path, {"value": 1}, {"a": np.arange(1)})
    read = artefact._read

    def overtaken(folder, name, most=0):
        content = read(folder, name, most)
        if name == "manifest.json" and b'"value": 1' in content:
            monkeypatch.setattr(artefact, "_read", read)
            write_artefact(path, {"value": 2}, {"a": np.arange(2)})
        return content

    monkeypatch.setattr(artefact, "_read", overtaken)
    manifest, arrays = read_artefact(path)
    assert (manifest["value"], len(arrays["a"])) == (2, 2)


CALIBRATION = {
    "data": {"n": 300, "name": "checked", "images": [{}]},
    "statement": "accept at confidence >= 0.8; at most 5 % is wrong",
}


def test_a_calibrated_model_is_replaced_only_if_that_is_wanted(tmp_path):
    path = tmp_path / "m.trust"
    assert check_target(path) == ""
    write_artefact(path, {"value": 1, "calibration": None}, ARRAYS)
    assert check_target(path) == ""
    write_artefact(path, {"value": 2, "calibration": CALIBRATION}, ARRAYS)
    # With the same calibration nothing is lost.
    write_artefact(path, {"value": 3, "calibration": CALIBRATION}, ARRAYS)
    lost = r"holds a calibration on 300 images of checked: accept at .* 5 % is wrong"
    for write in (
        lambda: check_target(path),
        lambda: write_artefact(path, {"calibration": None}, ARRAYS),
        lambda: write_artefact(path, {"calibration": {**CALIBRATION, "looks": 2}}, ARRAYS),
    ):
        with pytest.raises(ArtefactError, match=f"{lost}.*would lose that.*--overwrite") as refused:
            write()
        assert str(path) in str(refused.value)
    assert read_artefact(path)[0]["value"] == 3
    assert "m.trust held a calibration on 300 images" in check_target(path, overwrite=True)
    write_artefact(path, {"value": 4}, ARRAYS, overwrite=True)
    assert read_artefact(path)[0]["value"] == 4


@pytest.mark.parametrize("entry", [True, "x", 5, [], {}, {"data": 7}, {"data": {"n": None}}])
def test_any_calibration_at_all_is_kept(tmp_path, entry):
    write_artefact(tmp_path / "m.trust", {"calibration": entry}, ARRAYS)
    with pytest.raises(ArtefactError, match="--overwrite"):
        check_target(tmp_path / "m.trust")


def test_what_killed_writers_left_behind_is_removed_after_an_hour(tmp_path):
    for name, age in (("aaaaaaaa", 7200), ("bbbbbbbb", 10), ("cccccccc", 7200)):
        write_artefact(tmp_path / f".m.trust.{name}" / "new", {}, ARRAYS)
        if name == "cccccccc":
            (tmp_path / f".m.trust.{name}" / "precious.txt").touch()
        then = time.time() - age
        os.utime(tmp_path / f".m.trust.{name}", (then, then))
    write_artefact(tmp_path / "m.trust", {}, ARRAYS)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".m.trust.bbbbbbbb", ".m.trust.cccccccc", "m.trust"]


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from trustvlm import files
from trustvlm.pipeline import artefact

if sys.argv[2] == "within":
    files._exchange = lambda *_: False
older, newer = {"a": np.arange(3)}, {"a": np.arange(4)}
for step in range(1, 100):
    path = Path(sys.argv[1]) / str(step) / "m.trust"
    artefact.write_artefact(path, {"value": 1}, older)
    child = os.fork()
    if not child:
        steps = 0

        def die(event, _):
            global steps
            steps += event in ("open", "ctypes.dlsym") or event.startswith("os.")
            if steps == step:
                os.kill(os.getpid(), 9)

        sys.addaudithook(die)
        artefact.write_artefact(path, {"value": 2}, newer)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        sys.exit(0)
sys.exit("there are more than 100 steps")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["exchange", "within"])
def test_killed_at_any_step_the_older_or_the_new_one_is_there(tmp_path, way):
    with running(KILLED, tmp_path, way) as process:
        assert finished(process) == (0, "")
    read = [read_artefact(path) for path in tmp_path.glob("*/m.trust")]
    assert len(read) == len(list(tmp_path.iterdir()))
    assert {(manifest["value"], len(arrays["a"])) for manifest, arrays in read} == {(1, 3), (2, 4)}


def test_in_storage_the_older_model_stands_until_the_newer_one_does(monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    files, url = fsspec.filesystem("memory"), f"memory://models-{os.urandom(4).hex()}/m.trust"
    write_artefact(url, {"value": 1, "calibration": CALIBRATION}, {"a": np.arange(1)})
    write_artefact(Path(url), {"value": 2, "calibration": CALIBRATION}, {"a": np.arange(2)})
    before = sorted(files.find(url))
    assert len(before) == 2, "the older arrays are gone"
    with pytest.raises(ArtefactError, match=r"^memory://\S+ holds a calibration on 300 images"):
        write_artefact(url, {"value": 3, "calibration": None}, {"a": np.arange(3)})
    write = artefact.RemoteFolder.write

    def fails(folder, name, content):
        if name == "manifest.json":
            raise OSError(5, "no more")
        write(folder, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(artefact.RemoteFolder, "write", fails)
        with pytest.raises(ArtefactError, match=r"cannot be reached \(no more\)"):
            write_artefact(url, {"value": 4, "calibration": CALIBRATION}, {"a": np.arange(4)})
    assert sorted(files.find(url)) == before
    manifest, arrays = read_artefact(url)
    assert (manifest["value"], len(arrays["a"])) == (2, 2)
    # Arrays that a killed writer left alone are no model, and no hindrance.
    alone = url.replace("m.trust", "alone.trust")
    files.pipe_file(f"{alone}/arrays-0123456789abcdef.safetensors", b"x")
    with pytest.raises(ArtefactError, match=r"manifest\.json is missing"):
        read_artefact(alone)
    write_artefact(alone, {"value": 5}, {"a": np.arange(5)})
    assert read_artefact(alone)[0]["value"] == 5
    files.pipe_file(f"{alone}/thesis.tex", b"mine")
    with pytest.raises(ArtefactError, match=r"'thesis\.tex' in it was not written by trustvlm"):
        check_target(alone, overwrite=True)
