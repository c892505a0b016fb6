"""Where model files come from: directories, a hub, and what happens without one."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub_server import Hub, serve
from tiny_models import save_tiny_clip
from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models import load_vision, load_vlm
from trustvlm.models.hub import ModelFiles, locate

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.torch

# It prints where the files are, or why there are none, as JSON.
PROGRAM = """
import json, sys
from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models.hub import locate
try:
    files = locate(sys.argv[1], revision=sys.argv[2] or None)
    values = {"source": files.source, "directory": str(files.directory)}
    values |= {"revision": files.revision, "weights": files.weights()}
    print(json.dumps(values))
except ModelUnavailableError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("hub") / "clip")


@pytest.fixture
def spoilt(clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip, tmp_path / "clip"))


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Locate a model in a process of its own, with a cache of its own."""

    def run(name: str, revision: str = "", **variables: str) -> dict[str, str]:
        environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), **variables}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, name, revision],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stderr == ""
        result: dict[str, str] = json.loads(done.stdout)
        return result

    return run


def row(directory: Path | str) -> Any:
    return load_vlm(f"hf:{directory}", device="cpu").encode_texts(["a photo of a cat."])[0]


def identity(directory: Path, **options: str) -> Any:
    return load_vlm(f"hf:{directory}", device="cpu", **options).identity


def test_the_identity_is_the_hash_of_the_weights(clip: Path) -> None:
    actual = identity(clip)
    content = (clip / "model.safetensors").read_bytes()
    assert actual.weights == hashlib.sha256(content).hexdigest()
    assert actual.spec == f"hf:{clip}"
    assert actual.source == str(clip)
    assert actual.revision == ""
    assert actual.settings["precision"] == "float32"
    assert actual.settings["pooling"] == "projection"


def test_the_same_weights_elsewhere_have_the_same_fingerprint(clip: Path, spoilt: Path) -> None:
    here, there = load_vlm(f"hf:{clip}"), load_vlm(f"hf:{spoilt}")
    assert here.identity != there.identity
    assert here.identity.fingerprint(here.preprocessing) == there.identity.fingerprint(
        there.preprocessing
    )


def test_other_weights_have_another_hash(clip: Path, tmp_path: Path) -> None:
    other = save_tiny_clip(tmp_path / "other", seed=17)
    assert identity(other).weights != identity(clip).weights


@pytest.mark.parametrize(
    ("file", "change", "key"),
    [
        ("config.json", lambda s: s["vision_config"].update(hidden_act="gelu"), "configuration"),
        ("tokenizer_config.json", lambda s: s.update(unk_token="!"), "tokenizer"),
    ],
)
def test_what_else_changes_embeddings_changes_the_identity(
    file: str, change: Callable[[Any], None], key: str, clip: Path, spoilt: Path
) -> None:
    settings = json.loads((spoilt / file).read_text())
    change(settings)
    (spoilt / file).write_text(json.dumps(settings))
    changed, unchanged = identity(spoilt), identity(clip)
    assert changed.weights == unchanged.weights
    assert changed.settings[key] != unchanged.settings[key]


def test_who_wrote_the_configuration_does_not_matter(clip: Path, spoilt: Path) -> None:
    settings = json.loads((spoilt / "config.json").read_text())
    settings |= {"transformers_version": "4.21.0", "torch_dtype": "float32", "_name_or_path": "x"}
    (spoilt / "config.json").write_text(json.dumps(dict(reversed(settings.items()))))
    assert identity(spoilt).settings == identity(clip).settings


def test_weights_in_parts(clip: Path, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(clip)
    parts = Path(shutil.copytree(clip, tmp_path / "parts"))
    (parts / "model.safetensors").unlink()
    model.save_pretrained(parts, max_shard_size="100KB")
    assert len(list(parts.glob("model-*-of-*.safetensors"))) > 1
    np.testing.assert_allclose(row(parts), row(clip), atol=1e-6)
    assert identity(parts).weights != identity(clip).weights


def test_other_formats_beside_the_weights_do_not_count(clip: Path, spoilt: Path) -> None:
    for name in ("open_clip_model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
        (spoilt / name).write_bytes(b"something else")
    assert identity(spoilt).weights == identity(clip).weights


def test_the_name_of_a_file_in_the_hubs_cache_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    snapshot = tmp_path / "snapshots" / "commit"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert ModelFiles("a/b", snapshot, "commit").weights() == blob.name
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        assert ModelFiles("a/b", snapshot, "commit").weights() == blob.name, "read once"
    status = blob.stat()
    blob.write_bytes(b"swapped")
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    swapped = hashlib.sha256(b"swapped").hexdigest()
    assert ModelFiles("a/b", snapshot, "commit").weights() == swapped


def test_bin_weights_are_read(clip: Path, spoilt: Path) -> None:
    from safetensors.torch import load_file

    (spoilt / "model.safetensors").unlink()
    torch.save(load_file(clip / "model.safetensors"), spoilt / "pytorch_model.bin")
    np.testing.assert_allclose(row(spoilt), row(clip), atol=1e-6)
    content = (spoilt / "pytorch_model.bin").read_bytes()
    assert identity(spoilt).weights == hashlib.sha256(content).hexdigest()


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"open({str(self.target)!r}, 'w').close()",))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_not_executed(legacy: bool, spoilt: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    (spoilt / "model.safetensors").unlink()
    content = {"logit_scale": Malicious(target)}
    if legacy:
        (spoilt / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, spoilt / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError, match="cannot be loaded"):
        load_vlm(f"hf:{spoilt}")
    assert not target.exists()
    pickle.loads(pickle.dumps(content))
    assert target.exists(), "the pickle was harmless"


def test_code_in_a_repository_is_not_executed(spoilt: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    settings = json.loads((spoilt / "config.json").read_text())
    settings["model_type"] = "my_own"
    settings["auto_map"] = {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}
    (spoilt / "config.json").write_text(json.dumps(settings))
    (spoilt / "mine.py").write_text(f"open({str(target)!r}, 'w').close()\nclass Mine: pass\n")
    with pytest.raises(ModelUnavailableError, match="code in its repository"):
        load_vlm(f"hf:{spoilt}")
    assert not target.exists()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("model.safetensors",), r"no weights.*model\.safetensors"),
        (("config.json",), r"config\.json is missing"),
        (("preprocessor_config.json",), r"preprocessor_config\.json is missing"),
        (("tokenizer.json", "vocab.json", "merges.txt"), "tokenizer.* is missing"),
    ],
)
def test_a_missing_file_is_named(files: tuple[str, ...], named: str, spoilt: Path) -> None:
    for name in files:
        (spoilt / name).unlink(missing_ok=True)
    with pytest.raises(ModelUnavailableError, match=named):
        load_vlm(f"hf:{spoilt}")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"[1, 2]", b"<html>"])
def test_a_broken_file_is_an_error_that_names_the_place(
    file: str, content: bytes, spoilt: Path
) -> None:
    (spoilt / file).write_bytes(content)
    with pytest.raises(ModelUnavailableError, match=str(spoilt)):
        load_vlm(f"hf:{spoilt}")


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"<html>"])
def test_a_broken_tokenizer_is_an_error(content: bytes, spoilt: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (spoilt / name).write_bytes(content)
    with pytest.raises(ModelUnavailableError, match="tokenizer"):
        load_vlm(f"hf:{spoilt}")


def test_cut_off_weights_are_an_error(spoilt: Path) -> None:
    content = (spoilt / "model.safetensors").read_bytes()
    (spoilt / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelUnavailableError, match="cannot be loaded"):
        load_vlm(f"hf:{spoilt}")


def test_the_tokenizer_of_another_model_is_refused(spoilt: Path) -> None:
    from tokenizers import Tokenizer, models

    words = {f"word{i}": i for i in range(5000)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(spoilt / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (spoilt / name).unlink(missing_ok=True)
    (spoilt / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ModelUnavailableError, match="does not belong to the model"):
        load_vlm(f"hf:{spoilt}")


@pytest.mark.parametrize("file", ["model.safetensors", "merges.txt"])
def test_a_pointer_of_git_lfs_is_named(file: str, spoilt: Path) -> None:
    (spoilt / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelUnavailableError, match=rf"{file} is a pointer of Git LFS.*lfs pull"):
        load_vlm(f"hf:{spoilt}")
    with pytest.raises(ModelUnavailableError, match="is a pointer of Git LFS"):
        load_vision(f"onnx:{spoilt / file}")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    for name in (tmp_path / "none", "./none", "~/none", "one/two/three"):
        with pytest.raises(ModelUnavailableError, match="There is no directory"):
            locate(str(name))
    with pytest.raises(ModelUnavailableError, match="no model directory"):
        locate(str(tmp_path))


def test_a_name_that_is_no_repository() -> None:
    with pytest.raises(ModelUnavailableError, match="is no repository id"):
        load_vision("hf:not a name!")


def test_the_home_directory_is_understood(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(clip.parent))
    assert locate("~/clip").directory == clip


def assert_helpful(error: str) -> None:
    assert "openai/clip-vit-base-patch16" in error
    assert "config.json" in error
    assert "model.safetensors" in error
    assert "--vlm offline" in error
    assert "hf:<directory>" in error


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_HUB_OFFLINE": "1"},
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        {"HF_ENDPOINT": "http://hub.invalid"},
    ],
    ids=["offline", "refused", "unknown host"],
)
def test_without_a_hub_the_error_comes_fast_and_helps(
    variables: dict[str, str], find: Callable[..., dict[str, str]]
) -> None:
    start = time.monotonic()
    assert_helpful(find("openai/clip-vit-base-patch16", **variables)["error"])
    assert time.monotonic() - start < 30


def test_a_hub_that_never_answers(find: Callable[..., dict[str, str]]) -> None:
    """The library's own variable says how long to wait; it is 10 seconds if not set."""
    with serve({}, silent=True) as hub:
        variables = {"HF_ENDPOINT": hub.address, "HF_HUB_ETAG_TIMEOUT": "1"}
        start = time.monotonic()
        result = find("openai/clip-vit-base-patch16", **variables)
    assert_helpful(result["error"])
    assert time.monotonic() - start < 30


def test_a_preset_asks_for_its_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailableError) as raised:
        load_vlm("clip-vit-b16")
    assert_helpful(str(raised.value))


@pytest.fixture
def hub(clip: Path) -> Iterator[Hub]:
    with serve({"tiny/clip": clip}) as running:
        yield running


def test_a_repository_is_downloaded_once_and_then_found_without_a_hub(
    hub: Hub, clip: Path, find: Callable[..., dict[str, str]]
) -> None:
    first = find("tiny/clip", HF_ENDPOINT=hub.address)
    assert first["source"] == "tiny/clip"
    assert first["revision"] == hub.commit
    assert first["weights"] == identity(clip).weights
    assert identity(Path(first["directory"])).settings == identity(clip).settings
    np.testing.assert_array_equal(row(first["directory"]), row(clip))
    assert not Path(first["directory"]).samefile(clip)
    sent = list(hub.sent)
    assert "model.safetensors" in sent
    assert find("tiny/clip", HF_ENDPOINT=hub.address) == first
    assert find("tiny/clip", HF_ENDPOINT="http://127.0.0.1:9") == first
    assert find("tiny/clip", HF_HUB_OFFLINE="1") == first
    assert find("tiny/clip", hub.commit, HF_HUB_OFFLINE="1") == first
    assert hub.sent == sent


def test_only_what_is_needed_is_downloaded(
    hub: Hub, spoilt: Path, find: Callable[..., dict[str, str]]
) -> None:
    (spoilt / "onnx").mkdir()
    for name in ("pytorch_model.bin", "flax_model.msgpack", "README.md", "onnx/config.json"):
        (spoilt / name).write_bytes(b"not needed")
    hub.directories["tiny/clip"] = spoilt
    find("tiny/clip", HF_ENDPOINT=hub.address)
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} <= set(hub.sent)
    unneeded = {"pytorch_model.bin", "flax_model.msgpack", "README.md", "onnx/config.json"}
    assert not unneeded & set(hub.sent)


def test_a_repository_with_bin_weights_alone(
    hub: Hub, spoilt: Path, clip: Path, find: Callable[..., dict[str, str]]
) -> None:
    from safetensors.torch import load_file

    (spoilt / "model.safetensors").unlink()
    torch.save(load_file(clip / "model.safetensors"), spoilt / "pytorch_model.bin")
    hub.directories["tiny/clip"] = spoilt
    answer = find("tiny/clip", HF_ENDPOINT=hub.address)
    np.testing.assert_allclose(row(answer["directory"]), row(clip), atol=1e-6)
    content = (spoilt / "pytorch_model.bin").read_bytes()
    assert answer["weights"] == hashlib.sha256(content).hexdigest()


def test_what_the_hub_does_not_have(
    hub: Hub, spoilt: Path, find: Callable[..., dict[str, str]]
) -> None:
    def error(name: str, revision: str = "") -> str:
        return find(name, revision, HF_ENDPOINT=hub.address)["error"]

    assert "no model repository 'tiny/absent'" in error("tiny/absent")
    assert "'tiny/clip' has no revision 'v9'" in error("tiny/clip", "v9")
    (spoilt / "model.safetensors").unlink()
    hub.directories["tiny/empty"] = spoilt
    assert "tiny/empty holds no weights" in error("tiny/empty")
    hub.gated.add("tiny/clip")
    assert "'tiny/clip' is gated" in error("tiny/clip")


def test_an_interrupted_download_is_not_taken_for_a_model(
    hub: Hub, clip: Path, find: Callable[..., dict[str, str]]
) -> None:
    answer = find("tiny/clip", HF_ENDPOINT=hub.address)
    (Path(answer["directory"]) / "model.safetensors").unlink()
    assert "--vlm offline" in find("tiny/clip", HF_HUB_OFFLINE="1")["error"]
    assert find("tiny/clip", HF_ENDPOINT=hub.address) == answer
