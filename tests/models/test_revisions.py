"""Revisions of hub models, and models carried to a machine without a network.

The hub is a stand-in on this machine (`hub_server`); the models are tiny and random, in the real
formats.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import Command
from hub_server import Hub, serve
from pictures import write_class_folders
from tiny_models import save_tiny_clip, save_tiny_dinov2, save_tiny_siglip
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError, InputError, ModelUnavailableError, OutputError
from trustvlm.models import fetch_model as fetch
from trustvlm.models import load_vision, load_vlm
from trustvlm.models.directories import RECORD, VARIABLE
from trustvlm.models.registry import at_commit

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [
    pytest.mark.torch,
    # Random weights tell colours apart by hardly anything.
    pytest.mark.filterwarnings("ignore:classes whose texts are nearly the same"),
]

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, save in (
        ("clip", save_tiny_clip),
        ("siglip", save_tiny_siglip),
        ("dinov2", save_tiny_dinov2),
    ):
        save(root / f"{name}-old")
        save(root / f"{name}-new", seed=5)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    write_class_folders(root / "shots")
    write_class_folders(root / "photos", seed=7)
    return root


class Machine:
    """A machine with a cache of its own, and a hub that it reaches or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self.use_cache(folder / "cache")

    def use_cache(self, folder: Path) -> None:
        self._patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))

    def reach(self, address: str) -> None:
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        self._patch.setattr("huggingface_hub.constants.ENDPOINT", address)
        self._patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)

    def cut_off(self) -> None:
        self.reach("http://127.0.0.1:9")


@pytest.fixture
def hub(saved: Path) -> Iterator[Hub]:
    """A repository of each model; `main` is the old commit, which has a tag, too."""
    names = ("clip", "siglip", "dinov2")
    with serve({f"tiny/{name}": saved / f"{name}-old" for name in names}) as running:
        for name in names:
            old = (OLD, saved / f"{name}-old")
            running.revisions[f"tiny/{name}"] = {"main": old, "v1": old, OLD: old}
        yield running


def move_on(hub: Hub, saved: Path) -> None:
    """Let every repository have a new commit."""
    for repository, revisions in hub.revisions.items():
        name = repository.removeprefix("tiny/")
        revisions["main"] = revisions[NEW] = (NEW, saved / f"{name}-new")


@pytest.fixture
def machine(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    machine = Machine(monkeypatch, tmp_path)
    machine.reach(hub.address)
    return machine


def row(spec: str, **options: Any) -> Any:
    return load_vlm(spec, device="cpu", **options).encode_texts(["a photo of a cat."])[0]


def fit(pictures: Path, target: Path, vlm: str, vision: str) -> Any:
    store = EmbeddingStore.memory()
    model = TrustVLM(vlm=vlm, vision=vision, store=store, device="cpu").fit(pictures / "shots")
    model.save(target)
    return model.predict(pictures / "photos").to_csv()


def predict(target: Path, pictures: Path, **settings: Any) -> Any:
    model = TrustVLM.load(target, store=EmbeddingStore.memory(), device="cpu", **settings)
    return model.predict(pictures / "photos").to_csv()


def recorded(target: Path) -> dict[str, Any]:
    models: dict[str, Any] = json.loads((target / "manifest.json").read_text())["models"]
    return models


# A revision in the name.


def test_a_revision_in_the_name_is_what_is_loaded(machine: Machine, hub: Hub, saved: Path) -> None:
    move_on(hub, saved)
    old, new = row(f"hf:{saved / 'clip-old'}"), row(f"hf:{saved / 'clip-new'}")
    assert not np.allclose(old, new)
    for name in (f"tiny/clip@{OLD}", "tiny/clip@v1"):
        np.testing.assert_array_equal(row(f"hf:{name}"), old)
    np.testing.assert_array_equal(row("hf:tiny/clip", revision="v1"), old)
    for name in ("tiny/clip", "tiny/clip@main", f"tiny/clip@{NEW}"):
        np.testing.assert_array_equal(row(f"hf:{name}"), new)
    identity = load_vision("hf:tiny/dinov2@v1#cls", device="cpu").identity
    assert (identity.spec, identity.source) == ("hf:tiny/dinov2@v1#cls", "tiny/dinov2")
    assert (identity.revision, identity.settings["pooling"]) == (OLD, "cls")


def test_a_directory_may_have_the_sign_in_its_name(saved: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(saved / "clip-old", tmp_path / "clip@2"))
    assert load_vlm(f"hf:{directory}", device="cpu").identity.revision == ""
    with pytest.raises(ModelUnavailableError, match=r"There is no directory .*clip@3"):
        load_vlm(f"hf:{tmp_path / 'clip@3'}")
    plain = Path(shutil.copytree(directory, tmp_path / "clip"))
    with pytest.raises(InputError, match=r"'v1', but .* is on this machine"):
        load_vlm(f"hf:{plain}", revision="v1")


@pytest.mark.parametrize(
    ("spec", "revision", "message"),
    [
        ("hf:tiny/clip@", None, "Expected a commit, tag or branch after the @"),
        ("hf:tiny/clip@v1", "v2", "Expected one revision, but got 'v1'"),
        ("offline@v1", None, "'v1', but the model 'offline' has none"),
    ],
)
def test_revisions_that_make_no_sense(spec: str, revision: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_vlm(spec, revision=revision)


def test_what_the_hub_refuses_is_named(
    machine: Machine, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailableError, match="'tiny/clip' has no revision 'v9': name"):
        load_vlm("hf:tiny/clip@v9")
    with pytest.raises(ModelUnavailableError, match=f"has no revision '{NEW}': name"):
        load_vlm(f"hf:tiny/clip@{NEW}")
    hub.gated.add("tiny/clip")
    with pytest.raises(ModelUnavailableError, match=r"is gated: accept its terms .*HF_TOKEN"):
        load_vlm("hf:tiny/clip@v1")
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert load_vlm("hf:tiny/clip@v1", device="cpu").identity.revision == OLD


# A saved model loads the commit that it was made at.

PAIRS = [("hf:tiny/clip", "hf:tiny/dinov2"), ("hf:tiny/siglip", "same")]


@pytest.mark.parametrize(("vlm", "vision"), PAIRS)
@pytest.mark.parametrize("state", ["moved on", "cut off", "gated", "deleted", "offline"])
def test_a_saved_model_loads_its_commit(
    vlm: str,
    vision: str,
    state: str,
    machine: Machine,
    hub: Hub,
    saved: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = fit(pictures, tmp_path / "m.trust", vlm, vision)
    entries = recorded(tmp_path / "m.trust")
    assert entries["vlm"]["revision"] == entries["vision"]["revision"] == OLD
    assert entries["vlm"]["spec"] == vlm
    move_on(hub, saved)
    # Somebody else has the new commit downloaded, too: `main` in the cache is not the old one.
    assert not np.allclose(row(vlm), row(f"{vlm}@{OLD}"))
    n_requests = len(hub.requests)
    if state == "cut off":
        machine.cut_off()
    elif state == "gated":
        hub.gated.update(hub.directories)
    elif state == "deleted":
        hub.directories.clear()
    elif state == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert predict(tmp_path / "m.trust", pictures) == expected
    assert len(hub.requests) == n_requests, "it was here, so that nothing was asked"
    model = TrustVLM.load(tmp_path / "m.trust", device="cpu", store=EmbeddingStore.memory())
    model.save(tmp_path / "again.trust")
    assert recorded(tmp_path / "again.trust") == entries


def test_a_commit_that_is_not_here_is_downloaded(
    machine: Machine, hub: Hub, saved: Path, pictures: Path, tmp_path: Path
) -> None:
    expected = fit(pictures, tmp_path / "m.trust", "hf:tiny/clip", "hf:tiny/dinov2")
    move_on(hub, saved)
    machine.use_cache(tmp_path / "other")
    assert predict(tmp_path / "m.trust", pictures) == expected
    machine.use_cache(tmp_path / "empty")
    machine.cut_off()
    with pytest.raises(ModelUnavailableError) as raised:
        predict(tmp_path / "m.trust", pictures)
    for part in (f"'tiny/clip' at {OLD}", str(tmp_path / "empty"), VARIABLE):
        assert part in str(raised.value)
    assert f"trustvlm models fetch hf:tiny/clip@{OLD} -o DIR" in str(raised.value)


def test_a_commit_that_is_gone_is_replaced_by_the_same_model_or_refused(
    machine: Machine, hub: Hub, saved: Path, pictures: Path, tmp_path: Path
) -> None:
    expected = fit(pictures, tmp_path / "m.trust", "hf:tiny/clip", "same")
    machine.use_cache(tmp_path / "other")
    # The history was squashed: the same files under another commit.
    hub.revisions["tiny/clip"] = {"main": (NEW, saved / "clip-old"), NEW: (NEW, saved / "clip-old")}
    assert predict(tmp_path / "m.trust", pictures) == expected
    other = ("c" * 40, saved / "clip-new")
    hub.revisions["tiny/clip"] = {"main": other, other[0]: other}
    machine.use_cache(tmp_path / "third")
    with pytest.raises(ArtefactError) as raised:
        predict(tmp_path / "m.trust", pictures)
    for part in (f"no revision '{OLD}'", "differs", "weights", f"made with tiny/clip at {OLD}"):
        assert part in str(raised.value)


def test_files_that_were_changed_in_the_cache_are_noticed(
    machine: Machine, hub: Hub, saved: Path, pictures: Path, tmp_path: Path
) -> None:
    fit(pictures, tmp_path / "m.trust", "hf:tiny/clip", "same")
    (snapshot,) = (tmp_path / "cache").glob("models--tiny--clip/snapshots/*")
    (snapshot / "model.safetensors").unlink()
    shutil.copy(saved / "clip-new" / "model.safetensors", snapshot)
    with pytest.raises(ArtefactError, match=r"weights: .*changed or damaged: remove them"):
        predict(tmp_path / "m.trust", pictures)


@pytest.mark.parametrize("lists", [True, False])
def test_a_download_that_was_interrupted_is_completed(
    lists: bool, machine: Machine, hub: Hub, tmp_path: Path
) -> None:
    """The hub's library keeps lists of what a commit holds; older versions of it do not."""
    first = row(f"hf:tiny/clip@{OLD}")
    (snapshot,) = (tmp_path / "cache").glob("models--tiny--clip/snapshots/*")
    for name in ("vocab.json", "preprocessor_config.json", "model.safetensors"):
        (snapshot / name).resolve().unlink()
        (snapshot / name).unlink()
        if not lists:
            shutil.rmtree(snapshot.parents[1] / "trees", ignore_errors=True)
        np.testing.assert_array_equal(row(f"hf:tiny/clip@{OLD}"), first)


def test_settings_of_a_model_name_its_commit(
    machine: Machine, hub: Hub, saved: Path, pictures: Path, tmp_path: Path
) -> None:
    from trustvlm.pipeline.settings import settings_of

    fit(pictures, tmp_path / "m.trust", "hf:tiny/clip", "same")
    settings = settings_of(tmp_path / "m.trust").model
    assert (settings["vlm"], settings["vision"]) == (f"hf:tiny/clip@{OLD}", "same")


@pytest.mark.parametrize(
    ("spec", "source", "expected"),
    [
        ("hf:a/b", "a/b", f"hf:a/b@{OLD}"),
        ("hf:a/b@main#cls", "a/b", f"hf:a/b@{OLD}#cls"),
        ("hf:nowhere/there", "a/b", f"hf:a/b@{OLD}"),
        ("clip-vit-b16", "openai/clip", f"clip-vit-b16@{OLD}"),
        ("openclip:RN50/openai", "RN50/openai", f"openclip:RN50/openai@{OLD}"),
        ("openclip:local-dir:./none", "hf-hub:a/b", f"openclip:hf-hub:a/b@{OLD}"),
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k", f"timm:resnet18.a1_in1k@{OLD}"),
        ("same", "a/b", "same"),
        ("offline", "x", "offline"),
        ("onnx:a@b.onnx", "a@b.onnx", "onnx:a@b.onnx"),
    ],
)
def test_the_name_of_a_commit(spec: str, source: str, expected: str) -> None:
    assert at_commit(spec, source, OLD) == expected
    assert at_commit(spec, source, "1.2.3") == spec


# Models that are carried to a machine without a network.


def carry(folder: Path, *names: str) -> Path:
    for name in names:
        fetch(f"hf:tiny/{name}", folder / name)
    return folder


def test_what_is_fetched_is_exactly_what_is_needed(
    machine: Machine, hub: Hub, saved: Path, tmp_path: Path
) -> None:
    spoilt = Path(shutil.copytree(saved / "clip-old", tmp_path / "repository"))
    (spoilt / "onnx").mkdir()
    for name in ("pytorch_model.bin", "flax_model.msgpack", "README.md", "onnx/config.json"):
        (spoilt / name).write_bytes(b"not needed")
    hub.revisions["tiny/clip"] = {"main": (OLD, spoilt), OLD: (OLD, spoilt)}
    record = fetch("hf:tiny/clip", tmp_path / "carried")
    names = {file.name for file in (tmp_path / "carried").iterdir()}
    assert names == {file.name for file in (saved / "clip-old").iterdir()} | {RECORD}
    assert names == {*record.sha256, RECORD}
    assert (record.repository, record.revision, record.asked) == ("tiny/clip", OLD, "")
    facts = json.loads((tmp_path / "carried" / RECORD).read_text())
    assert facts["sha256"] == dict(record.sha256)
    assert not any(file.is_symlink() for file in (tmp_path / "carried").iterdir())
    assert {file.name for file in tmp_path.iterdir()} == {"repository", "carried", "cache"}
    sent = list(hub.sent)
    assert fetch("hf:tiny/clip", tmp_path / "carried").sha256 == record.sha256
    assert hub.sent == sent


@pytest.mark.parametrize(("vlm", "vision"), PAIRS)
def test_a_model_made_online_loads_where_its_files_were_carried(
    vlm: str,
    vision: str,
    machine: Machine,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = fit(pictures, tmp_path / "m.trust", vlm, vision)
    names = {"vlm": vlm, "vision": vision}
    carried = {role: n.removeprefix("hf:tiny/") for role, n in names.items() if n != "same"}
    stick = carry(tmp_path / "stick", *carried.values())
    machine.use_cache(tmp_path / "empty")
    machine.cut_off()
    with pytest.raises(ModelUnavailableError):
        predict(tmp_path / "m.trust", pictures)
    # Named by the options of `load`, or found by the variable.
    settings = {role: f"hf:{stick / name}" for role, name in carried.items()}
    assert predict(tmp_path / "m.trust", pictures, **settings) == expected
    monkeypatch.setenv(VARIABLE, str(stick))
    assert predict(tmp_path / "m.trust", pictures) == expected
    # And a model is fitted there by the same names.
    assert fit(pictures, tmp_path / "there.trust", vlm, vision) == expected
    assert recorded(tmp_path / "there.trust") == recorded(tmp_path / "m.trust")


def test_a_model_made_from_a_directory_records_the_commit_and_loads_online(
    machine: Machine, hub: Hub, saved: Path, pictures: Path, tmp_path: Path
) -> None:
    stick = carry(tmp_path / "stick", "clip", "dinov2")
    vlm, vision = f"hf:{stick / 'clip'}", f"hf:{stick / 'dinov2'}"
    expected = fit(pictures, tmp_path / "m.trust", vlm, vision)
    entry = recorded(tmp_path / "m.trust")["vlm"]
    assert (entry["spec"], entry["source"], entry["revision"]) == (vlm, "tiny/clip", OLD)
    move_on(hub, saved)
    shutil.move(stick, tmp_path / "elsewhere")
    machine.use_cache(tmp_path / "other")
    assert predict(tmp_path / "m.trust", pictures) == expected


def test_several_commits_may_be_carried(
    machine: Machine,
    hub: Hub,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    move_on(hub, saved)
    fetch("hf:tiny/clip@v1", tmp_path / "stick" / "old")
    fetch("hf:tiny/clip", tmp_path / "stick" / "deep" / "new", revision=NEW)
    machine.use_cache(tmp_path / "empty")
    machine.cut_off()
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "stick"), str(saved)]))
    assert load_vlm("hf:tiny/clip@v1", device="cpu").identity.revision == OLD
    assert load_vlm(f"hf:tiny/clip@{NEW}", device="cpu").identity.revision == NEW
    with pytest.raises(InputError, match=f"holds 2 commits of tiny/clip .*@{NEW}|@{OLD}"):
        load_vlm("hf:tiny/clip")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=f"The variable {VARIABLE} names .*nowhere"):
        load_vlm("hf:tiny/clip")


def test_damage_on_the_way_is_named(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = carry(tmp_path / "stick", "clip")
    file = stick / "clip" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    for spec in (f"hf:{stick / 'clip'}", "hf:tiny/clip"):
        monkeypatch.setenv(VARIABLE, str(stick))
        with pytest.raises(ModelUnavailableError, match=r"SHA-256 differs .* Copy the directory"):
            load_vlm(spec)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ModelUnavailableError, match="SHA-256 differs"):
        fetch("hf:tiny/clip", stick / "clip")
    file.unlink()
    with pytest.raises(ModelUnavailableError, match=r"model\.safetensors is missing"):
        load_vlm(f"hf:{stick / 'clip'}")
    for content, problem in (
        ('{"format": "another"}', "format: Input should be"),
        ("[]", "not a mapping"),
        ("{", "Expecting property name"),
    ):
        (stick / "clip" / RECORD).write_text(content)
        with pytest.raises(ModelUnavailableError, match=rf"cannot be understood \(.*{problem}"):
            load_vlm(f"hf:{stick / 'clip'}")


def test_a_record_cannot_name_files_elsewhere(saved: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(saved / "clip-old", tmp_path / "clip"))
    facts = {"format": "trustvlm.model-files", "version": 1, "spec": "x", "repository": "a/b"}
    facts |= {"revision": OLD, "asked": "", "sha256": {"../secret": "0" * 64}}
    (directory / RECORD).write_text(json.dumps(facts))
    with pytest.raises(ModelUnavailableError, match="a file in another directory"):
        load_vlm(f"hf:{directory}")


def test_nothing_of_the_users_is_replaced(
    machine: Machine, hub: Hub, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(OutputError, match="exists, and is no directory that"):
            fetch("hf:tiny/clip", tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert fetch("hf:tiny/clip", tmp_path / "empty").revision == OLD
    move_on(hub, saved)
    with pytest.raises(OutputError, match=f"holds tiny/clip at {OLD}, not tiny/clip at {NEW}"):
        fetch("hf:tiny/clip", tmp_path / "empty")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_fetch_that_is_interrupted_leaves_nothing_and_goes_on(
    machine: Machine, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def interrupted(source: Path, target: Path) -> None:
        if source.name == "model.safetensors":
            raise KeyboardInterrupt
        copyfile(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("hf:tiny/clip", tmp_path / "stick" / "clip")
    assert not any((tmp_path / "stick").iterdir())
    # What a kill leaves.
    (tmp_path / "stick" / ".clip.12345678" / "new").mkdir(parents=True)
    (tmp_path / "stick" / ".clip.12345678" / "new" / "model.safetensors").write_text("half")
    sent = list(hub.sent)
    record = fetch("hf:tiny/clip", tmp_path / "stick" / "clip")
    assert hub.sent == sent
    assert [file.name for file in (tmp_path / "stick").iterdir()] == ["clip"]
    assert {file.name for file in record.directory.iterdir()} == {*record.sha256, RECORD}


def test_a_directory_is_for_the_library_that_its_files_are_for(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one repository open_clip and transformers read other files."""
    stick = carry(tmp_path / "stick", "clip")
    facts = json.loads((stick / "clip" / RECORD).read_text())
    facts |= {"sha256": {"open_clip_config.json": "0" * 64, "open_clip_model.safetensors": OLD}}
    (stick / "other").mkdir()
    (stick / "other" / RECORD).write_text(json.dumps(facts))
    machine.use_cache(tmp_path / "empty")
    machine.cut_off()
    monkeypatch.setenv(VARIABLE, str(stick))
    assert load_vlm("hf:tiny/clip", device="cpu").identity.revision == OLD
    shutil.rmtree(stick / "clip")
    with pytest.raises(ModelUnavailableError, match=r"Cannot get config\.json"):
        load_vlm("hf:tiny/clip")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("offline", "has no files in a hub"),
        ("same", "has no files in a hub"),
        ("none", "has no files in a hub"),
        ("moco-v2-r50", "has no files in a hub"),
        ("dinov3", "There is no vision encoder named 'dinov3'. Did you mean dinov3-small"),
        ("org/a--b", "There is no VLM named 'org/a--b'"),
        ("clip-vit-b61", "There is no VLM named 'clip-vit-b61'. Did you mean"),
    ],
)
def test_what_cannot_be_fetched(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        fetch(spec, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_directory_is_not_fetched_but_copied(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory on this machine: copy it"):
        fetch(f"hf:{saved / 'clip-old'}", tmp_path / "new")


# What could not be read is not downloaded.


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "jina_clip", "auto_map": {}}, "is a network of code in its"),
        ("config.json", {"model_type": "of_2030"}, "does not know; a newer one may"),
        ("preprocessor_config.json", {"image_processor_type": "BlipImageProcessor"}, "BlipImage"),
    ],
)
def test_a_model_that_cannot_be_read_is_refused_before_its_weights_are_downloaded(
    file: str,
    change: dict[str, Any],
    message: str,
    machine: Machine,
    hub: Hub,
    saved: Path,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(saved / "clip-old", tmp_path / "other")
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(settings | change))
    hub.revisions["tiny/clip"] = dict.fromkeys(("main", NEW), (NEW, folder))
    with pytest.raises(ModelUnavailableError, match=message):
        load_vlm("hf:tiny/clip", device="cpu")
    with pytest.raises(ModelUnavailableError, match=message):
        fetch("hf:tiny/clip", tmp_path / "new")
    assert "config.json" in hub.sent
    assert "model.safetensors" not in hub.sent


def test_a_repository_in_open_clips_format_is_named_with_it(
    machine: Machine, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / "other" / name).write_text("{}")
    hub.revisions["tiny/clip"]["main"] = (NEW, tmp_path / "other")
    with pytest.raises(ModelUnavailableError, match="name it as openclip:hf-hub:tiny/clip"):
        load_vlm("hf:tiny/clip", device="cpu")
    assert not hub.sent
    with pytest.raises(ModelUnavailableError, match=r"name it as openclip:local-dir:.*other"):
        load_vlm(f"hf:{tmp_path / 'other'}", device="cpu")


def test_an_empty_revision_is_none_of_a_repository(machine: Machine, hub: Hub) -> None:
    for revision in ("", " main"):
        with pytest.raises(InputError, match=rf"as the revision of .* but got '{revision}'"):
            load_vlm("hf:tiny/clip", revision=revision)
    with pytest.raises(ModelUnavailableError, match="by all its 40 digits"):
        load_vlm(f"hf:tiny/clip@{OLD[:7]}")


# What is not there is said at once, before images are listed: here there are none.

MISSING = [
    ("hf:./nowhere", "same", "There is no directory nowhere"),
    ("clip-vit-b16", "hf:./nowhere", "models fetch NAME"),
    ("openclip:ViT-B-32/none.pt", "same", "There is no file none.pt"),
    ("openclip:local-dir:none", "same", "There is no directory none"),
    ("clip-vit-b16", "onnx:none.onnx", "There is no file none.onnx"),
    ("clip-vit-b16", "timm:local-dir:none", "There is no directory none"),
    ("clip-vit-b16", "moco-v2-r50:none.pth", "There is no file none.pth"),
    ("clip-vit-b16", "dinov2-bsae", "Did you mean dinov2-base"),
]
PROGRAM = """
import json, sys
from trustvlm import TrustVLM
from trustvlm.exceptions import TrustVLMError
for vlm, vision, named in json.loads(sys.argv[1]):
    model = TrustVLM(vlm, vision, ["cat", "dog"])
    for use in (model.fit, model.label, model.cross_val_verify):
        try:
            use("nowhere/")
        except TrustVLMError as error:
            assert named in str(error), error
        else:
            raise AssertionError("it was loaded")
    libraries = {"torch", "transformers", "onnxruntime", "open_clip", "timm"}
    assert not libraries & set(sys.modules), vlm
"""


def test_a_missing_file_is_named_before_torch_is_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(MISSING)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_takes_a_revision_of_the_vlm(
    machine: Machine,
    hub: Hub,
    saved: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Command(capsys, monkeypatch)
    move_on(hub, saved)
    shots, target = str(pictures / "shots"), tmp_path / "m.trust"
    options = ["-o", str(target), "--vision", "same", "--device", "cpu", "--revision", "v1"]
    done = run("fit", shots, "--vlm", "hf:tiny/clip", *options)
    assert done.code == 0, done.err
    entry = recorded(target)["vlm"]
    assert (entry["spec"], entry["revision"]) == ("hf:tiny/clip@v1", OLD)
    for vlm in ("offline", "hf:tiny/clip@main"):
        done = run("fit", shots, "--vlm", vlm, *options)
        assert done.code == 2
        assert "--revision is of --vlm" in " ".join(done.err.split())
    done = run("models", "fetch", "hf:tiny/clip", "-o", str(tmp_path / "new"), "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts == json.loads((tmp_path / "new" / RECORD).read_text())
    assert facts["revision"] == NEW
