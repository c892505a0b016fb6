"""Whatever fitting and calibrating record is still there after loading and saving again."""

from dataclasses import replace

import numpy as np
import pytest

from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.pipeline.artefact import read_artefact


@pytest.fixture(scope="module")
def store():
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    return EmbeddingStore.memory()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    write_class_folders(root / "shots")
    write_class_folders(root / "broken")
    (root / "broken" / "red" / "00.png").write_bytes(b"broken")
    (root / "broken" / "blue" / "zz.png").write_bytes(b"")
    for seed, name in enumerate(("checked", "selected"), start=7):
        write_class_folders(root / name, per_class=10, seed=seed)
    (root / "checked" / "red" / "unreadable.png").write_bytes(b"\x89PNG")
    (root / "checked" / "red" / "shot.png").write_bytes(
        (root / "shots" / "red" / "01.png").read_bytes()
    )
    return root


CASES = {
    "plain": {},
    "unreadable shots": {"shots": "broken"},
    "draft": {"settings": {"draft": True, "protocol": "paper", "precision": "float32"}},
    "names and prompts": {
        "settings": {
            "classes": {"red": "ripe tomato", "green": "leaf", "blue": "sky", "pink": "peony"},
            "prompt": ["a photo of a {}.", "a drawing of {}."],
        }
    },
    "draw": {"fit": {"shots_per_class": 2, "draw": 3}},
    "parameters": {"settings": {"score": "trustvlm", "score_parameters": {"weight": 0.5}}},
    "fine-tuned": {"settings": {"score": "trustvlm_star_f", "finetune": True}},
    "selected on the shots": {"settings": {"score": "trustvlm_star"}, "fit": {"select": "loo"}},
    "selected elsewhere": {"settings": {"score": "trustvlm_star"}, "select_on": "selected"},
    "selected and fine-tuned": {
        "settings": {"score": "trustvlm_star_f", "finetune": True},
        "select_on": "selected",
        "shots": "broken",
        "calibrate": {"min_coverage": 0.5},
    },
    "risk": {"calibrate": {"risk": 0.3}},
    "risk by class": {"calibrate": {"risk": 0.4, "per_class": True, "calibrator": "platt"}},
    "coverage": {"calibrate": {"min_coverage": 0.5, "calibrator": "beta"}},
    "cost": {"calibrate": {"cost_error": 5.0, "cost_review": 1.0, "calibrator": "isotonic"}},
    "nothing certified": {"calibrate": {"risk": 0.001, "calibrator": "venn_abers"}},
    "calibrated on shots": {"shots": "broken", "from_shots": True},
}


def test_a_model_of_the_papers_protocol_from_before_reads_images_as_it_did(
    folders, store, tmp_path
):
    fitted = TrustVLM("offline", "offline", store=store, protocol="paper").fit(folders / "shots")
    fitted.save(tmp_path / "new.trust")
    assert TrustVLM.load(tmp_path / "new.trust").encoders.vision.preprocessing.plain_rgb
    for encoder in (fitted.encoders.vlm, fitted.encoders.vision):
        encoder.preprocessing = replace(encoder.preprocessing, plain_rgb=False)
    fitted.fit(folders / "shots").save(tmp_path / "old.trust")
    manifest, _ = read_artefact(tmp_path / "old.trust")
    assert "plain_rgb" not in manifest["models"]["vlm"]["preprocessing"]
    loaded = TrustVLM.load(tmp_path / "old.trust", store=store)
    assert not loaded.encoders.vlm.preprocessing.plain_rgb
    loaded.save(tmp_path / "again.trust")
    assert read_artefact(tmp_path / "again.trust")[0] == manifest


@pytest.mark.filterwarnings("ignore::trustvlm.exceptions.TrustVLMWarning")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loading_and_saving_loses_nothing(case, folders, store, tmp_path):
    model = TrustVLM("offline", "offline", store=store, **case.get("settings", {}))
    select_on = {"select_on": folders / case["select_on"]} if "select_on" in case else {}
    model.fit(folders / case.get("shots", "shots"), **case.get("fit", {}), **select_on)
    if "calibrate" in case:
        model.calibrate(folders / "checked", exclude_shots=True, **case["calibrate"])
    if case.get("from_shots"):
        model.calibrate_on_shots()
    model.save(tmp_path / "once.trust")
    TrustVLM.load(tmp_path / "once.trust", store=store).save(tmp_path / "twice.trust")
    once, twice = tmp_path / "once.trust", tmp_path / "twice.trust"
    for name in ("manifest.json", "arrays.safetensors"):
        assert (twice / name).read_bytes() == (once / name).read_bytes(), name


def test_calibrating_a_loaded_model_keeps_what_fitting_recorded(folders, store, tmp_path):
    with pytest.warns(TrustVLMWarning, match="shot left out"):
        model = TrustVLM("offline", "offline", store=store).fit(folders / "broken")
    assert model.bank_.counts_.tolist() == [4, 4, 3]
    model.save(tmp_path / "fitted.trust")
    loaded = TrustVLM.load(tmp_path / "fitted.trust", store=store)
    assert [(v.path, v.decision) for v in loaded.shot_failures_] == [
        ("blue/zz.png", "error"),
        ("red/00.png", "error"),
    ]
    assert all(
        "could not be read when the model was made" in v.error for v in loaded.shot_failures_
    )
    with pytest.warns(TrustVLMWarning, match=r"left out|also among the shots"):
        loaded.calibrate(folders / "checked", risk=0.3, exclude_shots=True)
    loaded.save(tmp_path / "calibrated.trust")
    before, arrays = read_artefact(tmp_path / "fitted.trust")
    after, more = read_artefact(tmp_path / "calibrated.trust")
    assert before["shots"]["unreadable"] == ["blue/zz.png", "red/00.png"]
    assert after["calibration"]["data"]["unreadable"] == ["red/unreadable.png"]
    for changed in ("calibration", "looked_at", "decision_rule", "arrays", "manifest_sha256"):
        assert before.pop(changed) != after.pop(changed)
    assert after == before
    for name, array in arrays.items():
        np.testing.assert_array_equal(more[name], array)
