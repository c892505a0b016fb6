"""Revisions of models that open_clip and timm run, and such models without a network.

The hub is a stand-in on this machine (`hub_server`); the models are small and random.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub_server import Hub, serve
from pictures import write_class_folders
from torchvision_schemas import declare_schemas
from trustvlm import TrustVLM, models
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ModelUnavailableError
from trustvlm.models import fetch_model as fetch
from trustvlm.models.directories import RECORD, VARIABLE

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:classes whose texts are nearly the same"),
]

OLD, NEW = "a" * 40, "b" * 40
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
# A tag of timm whose repository the stand-in has.
TAG = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    declare_schemas()
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("models")
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}}
    for seed, name in enumerate(("old", "new")):
        torch.manual_seed(seed)
        folder = root / f"clip-{name}"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        clip = open_clip.CLIP(**config["model_cfg"])
        save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
        folder = root / f"timm-{name}"
        folder.mkdir()
        network = timm.create_model(TAG, pretrained=False)
        settings = {k: v for k, v in network.pretrained_cfg.items() if k != "hf_hub_id"}
        facts = {"architecture": TAG.split(".")[0], "num_classes": 1000, "pretrained_cfg": settings}
        (folder / "config.json").write_text(json.dumps(facts, default=str))
        save_file(network.state_dict(), folder / "model.safetensors")
        for other in ("README.md", "pytorch_model.bin", "open_clip_pytorch_model.bin"):
            (root / f"clip-{name}" / other).write_bytes(b"not needed")
    return root


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import open_clip

    config = json.loads((saved / "clip-old" / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-vit.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    paths = list(open_clip.factory._MODEL_CONFIG_PATHS)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", paths)
    open_clip.add_model_config(tmp_path / "tiny-vit.json")
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, "tiny-vit", {"tag": {"hf_hub": "tiny/clip/"}}
    )
    monkeypatch.delenv(VARIABLE, raising=False)
    kinds = {"tiny/clip": "clip", "tiny/timm": "timm", f"timm/{TAG}": "timm"}
    with serve({name: saved / f"{kind}-old" for name, kind in kinds.items()}) as running:
        for name, kind in kinds.items():
            old = (OLD, saved / f"{kind}-old")
            running.revisions[name] = {"main": old, "v1": old, OLD: old}
        reach(monkeypatch, running.address)
        use_cache(monkeypatch, tmp_path / "cache")
        yield running


def reach(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)


def use_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))


def move_on(hub: Hub, saved: Path) -> None:
    for revisions in hub.revisions.values():
        kind = revisions["main"][1].name.partition("-")[0]
        revisions["main"] = revisions[NEW] = (NEW, saved / f"{kind}-new")


SPECS = ["openclip:hf-hub:tiny/clip", "openclip:tiny-vit/tag", "timm:hf-hub:tiny/timm"]
SPECS.append(f"timm:{TAG}")


def local(spec: str, saved: Path, name: str) -> str:
    library = spec.partition(":")[0]
    kind = "clip" if library == "openclip" else "timm"
    return f"{library}:local-dir:{saved / f'{kind}-{name}'}"


def features(spec: str) -> Any:
    encoder = models.load_vision(spec, device="cpu")
    height, width = encoder.preprocessing.size
    rng = np.random.default_rng(0)
    return encoder.encode_pixels(rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("spec", SPECS)
def test_a_revision_in_the_name_is_what_is_loaded(spec: str, hub: Hub, saved: Path) -> None:
    move_on(hub, saved)
    old, new = (features(local(spec, saved, name)) for name in ("old", "new"))
    assert not np.allclose(old, new)
    for revision in ("@v1", f"@{OLD}"):
        np.testing.assert_array_equal(features(f"{spec}{revision}"), old)
    np.testing.assert_array_equal(features(spec), new)
    identity = models.load_vision(f"{spec}@v1", device="cpu").identity
    assert (identity.spec, identity.revision) == (f"{spec}@v1", OLD)
    with pytest.raises(ModelUnavailableError, match="has no revision 'v9'"):
        models.load_vision(f"{spec}@v9")


@pytest.mark.parametrize("spec", SPECS)
def test_a_saved_model_loads_its_commit_and_what_was_carried(
    spec: str, hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = write_class_folders(tmp_path / "shots", per_class=2)
    vlm = spec if spec.startswith("openclip") else "openclip:hf-hub:tiny/clip"
    vision = "same" if spec == vlm else spec
    settings: dict[str, Any] = {"store": EmbeddingStore.memory(), "device": "cpu"}
    model = TrustVLM(vlm=vlm, vision=vision, **settings).fit(shots)
    model.save(tmp_path / "m.trust")
    expected = model.predict(shots).to_csv()

    def predicted(**encoders: str) -> Any:
        fresh = {"store": EmbeddingStore.memory(), "device": "cpu"}
        return TrustVLM.load(tmp_path / "m.trust", **fresh, **encoders).predict(shots).to_csv()

    record = fetch(vlm, tmp_path / "stick" / "vlm")
    assert record.revision == OLD
    assert {file.name for file in (tmp_path / "stick" / "vlm").iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        RECORD,
    }
    if vision != "same":
        fetch(vision, tmp_path / "stick" / "vision")
        assert {file.name for file in (tmp_path / "stick" / "vision").iterdir()} == {
            "config.json",
            "model.safetensors",
            RECORD,
        }
    move_on(hub, saved)
    features(spec)
    assert predicted() == expected, "moved on"
    reach(monkeypatch, "http://127.0.0.1:9")
    assert predicted() == expected, "cut off"
    use_cache(monkeypatch, tmp_path / "empty")
    with pytest.raises(ModelUnavailableError, match=f"trustvlm models fetch {vlm}@{OLD} -o DIR"):
        predicted()
    monkeypatch.setenv(VARIABLE, os.fspath(tmp_path / "stick"))
    assert predicted() == expected, "carried"
    monkeypatch.delenv(VARIABLE)
    # Directories as the two libraries themselves name them; a tag's architecture is open_clip's.
    if vlm != "openclip:tiny-vit/tag":
        named = {"vlm": f"openclip:local-dir:{tmp_path / 'stick' / 'vlm'}"}
        if vision != "same":
            named["vision"] = f"timm:local-dir:{tmp_path / 'stick' / 'vision'}"
        assert predicted(**named) == expected, "named"


def test_a_directory_records_where_it_is_from(hub: Hub, tmp_path: Path) -> None:
    for spec in ("openclip:hf-hub:tiny/clip", "timm:hf-hub:tiny/timm"):
        library = spec.partition(":")[0]
        fetch(spec, tmp_path / library)
        encoder = models.load_vision(f"{library}:local-dir:{tmp_path / library}", device="cpu")
        identity = encoder.identity
        assert f"{library}:{identity.source}" == spec
        assert identity.revision == OLD


def test_a_text_tower_of_another_repository_comes_along(
    hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BiomedCLIP names the settings of its text tower, and its tokenizer, by a repository."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "."]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = BertConfig(vocab_size=len(words), intermediate_size=32, **sizes)
    tower.save_pretrained(tmp_path / "tower")
    (tmp_path / "tower" / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tower" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer"}'
    )
    hub.directories["tiny/tower"] = tmp_path / "tower"
    text = {"hf_tokenizer_name": "tiny/tower", "hf_proj_type": "linear", "context_length": 16}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_model_name": "tiny/tower"}
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": text}}
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    # A repository may be in the format of transformers besides.
    (folder / "config.json").write_text('{"model_type": "clip"}')
    torch.manual_seed(3)
    here = {**text, "hf_model_name": str(tmp_path / "tower"), "hf_model_pretrained": False}
    network = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VIT, text_cfg=here).eval()
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    hub.revisions["tiny/clip"] = {"main": (OLD, folder), OLD: (OLD, folder)}

    spec, texts = "openclip:hf-hub:tiny/clip", ["a photo of a cat.", "dog"]
    tokens = open_clip.tokenizer.HFTokenizer(str(tmp_path / "tower"), context_length=16)(texts)
    with torch.inference_mode():
        expected = network.encode_text(tokens).numpy()
    actual = models.load_vlm(spec, device="cpu").encode_texts(texts)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    record = fetch(spec, tmp_path / "stick")
    assert set(record.sha256) == {
        "config.json",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    }
    use_cache(monkeypatch, tmp_path / "empty")
    reach(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv(VARIABLE, os.fspath(tmp_path / "stick"))
    for name in (spec, f"openclip:local-dir:{tmp_path / 'stick'}"):
        again = models.load_vlm(name, device="cpu").encode_texts(texts)
        np.testing.assert_array_equal(again, actual)


def test_a_tokenizer_from_another_repository_comes_along(
    hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_models import save_tiny_clip

    named = save_tiny_clip(tmp_path / "tokenizer")
    folder = Path(shutil.copytree(saved / "clip-old", tmp_path / "repository"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "tiny/tokenizer"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    hub.revisions["tiny/clip"] = {"main": (OLD, folder), OLD: (OLD, folder)}
    hub.directories["tiny/tokenizer"] = named
    spec, texts = "openclip:hf-hub:tiny/clip", ["a photo of a cat.", "dog"]
    expected = models.load_vlm(spec, device="cpu").encode_texts(texts)
    record = fetch(spec, tmp_path / "stick")
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= set(record.sha256)
    assert "config.json" not in record.sha256
    use_cache(monkeypatch, tmp_path / "empty")
    reach(monkeypatch, "http://127.0.0.1:9")
    for name in (f"openclip:local-dir:{tmp_path / 'stick'}", spec):
        monkeypatch.setenv(VARIABLE, os.fspath(tmp_path / "stick"))
        actual = models.load_vlm(name, device="cpu").encode_texts(texts)
        np.testing.assert_array_equal(actual, expected)
