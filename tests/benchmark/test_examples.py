"""The example studies can be read, and hold what they say; the paper's weights are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from trustvlm import datasets
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import chosen_studies
from trustvlm.benchmark.studies import STUDIES
from trustvlm.models import presets

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_papers_study_has_every_set_architecture_and_encoder():
    config = read_config(EXAMPLES / "paper.toml")
    assert [dataset.name for dataset in config.datasets] == list(datasets.names())
    assert len(config.datasets) == 17
    # The paper's five architectures of CLIP, SigLIP, and SigLIP's second edition.
    vlms = {f"clip-{name}" for name in ("vit-b16", "vit-b32", "vit-l14", "rn50", "rn101")}
    vlms |= {"siglip-b16-224", "siglip2-b16-224"}
    assert vlms < {preset.name for preset in presets() if preset.role == "vlm"}
    pairs = {(pair.vlm, pair.vision.partition(":")[0]) for pair in config.models}
    assert pairs == {
        (vlm, vision) for vlm in vlms for vision in ("same", "moco-v2-r50", "dinov2-base")
    }
    assert len(config.models) == len(pairs)
    assert config.n_cells == 17 * 21 * 5 * 5
    assert config.scores == ()
    assert chosen_studies(config) == list(STUDIES.values())
    assert (config.protocols, config.preset) == (("paper",), "paper")
    weights = {d.name: config.parameters_of(d).get("trustvlm", {}) for d in config.datasets}
    assert weights["pets"] == {"weight": 0.1}
    assert weights["dtd"] == {"weight": 1.0}


def test_the_offline_study_has_every_folder_of_images(data_root):
    if EXAMPLES.parents[1] / "shared" / "data" != data_root:
        pytest.skip("the example names ../shared/data, and the image sets lie elsewhere")
    config = read_config(EXAMPLES / "offline-sets.toml")
    assert {dataset.name for dataset in config.datasets} == {
        path.parent.name for path in data_root.glob("*/train")
    }
    for dataset in config.datasets:
        folders = {p.name for p in (data_root / dataset.name).glob("test*") if p.is_dir()}
        assert set(dataset.tests) == folders
    assert {(pair.vlm, pair.vision) for pair in config.models} == {
        ("offline", "offline"), ("offline", "same")
    }  # fmt: skip
    assert (config.shots, config.draws, config.scores) == ((1, 2, 4, 8, 16), 5, ())
