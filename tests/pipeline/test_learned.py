"""What `auto` learns is stored with the model, and used for the shots it was learned from alone."""

from dataclasses import replace

import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.pipeline.state import ModelState
from trustvlm.scores import auto, get, names, prepare
from trustvlm.scores.compute import Packed

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}


@pytest.fixture
def saved(tmp_path):
    model = TrustVLM(**ENCODERS, store=EmbeddingStore.memory(), score="auto_star")
    model.fit(write_class_folders(tmp_path / "shots", per_class=5)).state.save(tmp_path / "m.trust")
    return model, tmp_path / "m.trust"


@pytest.fixture
def lessons(monkeypatch):
    """How often something is learned."""
    count, learn = [], auto._fitted

    def counted(evidence):
        count.append(evidence)
        return learn(evidence)

    monkeypatch.setattr(auto, "_fitted", counted)
    return count


def images(state, n=40):
    rng = np.random.default_rng(0)
    d, e = state.support_features.shape[1], state.support_image_embeddings.shape[1]
    rows = rng.integers(len(state.support_labels), size=n)
    return (
        state.support_image_embeddings[rows] + 0.1 * rng.normal(size=(n, e)).astype(np.float32),
        state.support_features[rows] + 0.1 * rng.normal(size=(n, d)).astype(np.float32),
    )


def confidence(state, score="auto_star"):
    evidence = state.evidence(*images(state))
    return prepare(score, state.evidence_of_shots())(evidence).confidence


def test_a_loaded_model_judges_to_the_bit_as_before_and_learns_nothing(tmp_path, lessons):
    model = TrustVLM(**ENCODERS, store=EmbeddingStore.memory(), score="auto_star")
    model.fit(write_class_folders(tmp_path / "shots", per_class=5)).state.save(tmp_path / "m.trust")
    before = {score: confidence(model.state, score) for score in ("auto", "auto_star")}
    assert len(lessons) == 1
    state = ModelState.load(tmp_path / "m.trust")
    for score, expected in before.items():
        np.testing.assert_array_equal(confidence(state, score), expected)
    loaded = TrustVLM.load(tmp_path / "m.trust", **ENCODERS, store=EmbeddingStore.memory())
    loaded.calibrate(write_class_folders(tmp_path / "labelled", per_class=8, seed=4))
    loaded.state.save(tmp_path / "again.trust")
    assert len(lessons) == 1
    expected, arrays = (read_artefact(tmp_path / f"{name}.trust")[1] for name in ("m", "again"))
    assert all((arrays[name] == array).all() for name, array in expected.items())


def test_calibrating_learns_no_second_time(tmp_path, lessons):
    model = TrustVLM(**ENCODERS, store=EmbeddingStore.memory(), score="auto")
    model.fit(write_class_folders(tmp_path / "shots", per_class=4))
    model.calibrate(write_class_folders(tmp_path / "labelled", per_class=8, seed=4))
    model.predict(tmp_path / "labelled")
    model.state.save(tmp_path / "m.trust")
    assert len(lessons) == 1


def test_other_shots_texts_or_bank_are_learned_from_anew(saved, lessons):
    state = ModelState.load(saved[1])
    before = confidence(state)
    other = replace(state, support_features=state.support_features * np.float32(1.0) ** 2 + 1)
    assert np.abs(confidence(other) - before).max() > 0
    assert len(lessons) == 1
    texts = replace(state, text_embeddings=state.text_embeddings[::-1].copy())
    confidence(texts)
    assert len(lessons) == 2
    np.testing.assert_array_equal(confidence(replace(state, draw=3)), before)
    assert len(lessons) == 2


def test_a_model_without_it_or_of_another_version_learns_anew(saved, lessons):
    model, path = saved
    expected = confidence(model.state)
    manifest, arrays = read_artefact(path)
    own = {n: a for n, a in arrays.items() if not n.startswith("learned_of_score_")}
    assert len(own) < len(arrays)
    write_artefact(path, {k: v for k, v in manifest.items() if k != "learned"}, own)
    np.testing.assert_array_equal(confidence(ModelState.load(path)), expected)
    assert len(lessons) == 1
    for change in ({"version": 99}, {"name": "another"}, {"key": "auto k=3"}):
        learned = {**manifest["learned"], **change}
        write_artefact(path, {**manifest, "learned": learned}, arrays)
        np.testing.assert_array_equal(confidence(ModelState.load(path)), expected)
    assert len(lessons) == 4


@pytest.mark.parametrize("score", ["trustvlm", "msp", "gda"])
def test_scores_that_have_nothing_to_store_store_nothing(saved, score):
    model, path = saved
    model.score = score
    model.state.save(path)
    manifest, arrays = read_artefact(path)
    assert "learned" not in manifest
    assert not [name for name in arrays if name.startswith("learned")]


def test_what_does_not_fit_the_shots_is_refused(saved):
    _, path = saved
    manifest, arrays = read_artefact(path)
    prefix = "learned_of_score_"
    for name, array in arrays.items():
        if name.startswith(prefix):
            cut = {**arrays, name: array[:-1]}
            write_artefact(path, manifest, cut)
            with pytest.raises(ArtefactError):
                ModelState.load(path)
            gone = {other: a for other, a in arrays.items() if other != name}
            write_artefact(path, manifest, gone)
            with pytest.raises(ArtefactError):
                ModelState.load(path)
    values = manifest["learned"]["values"]
    for wrong in (
        {"spaces": []},
        {"spaces": ["elsewhere"]},
        {"text": None},
        {"text": "much"},
        {"text": "nan"},
    ):
        learned = {**manifest["learned"], "values": {**values, **wrong}}
        write_artefact(path, {**manifest, "learned": learned}, arrays)
        with pytest.raises(ArtefactError):
            ModelState.load(path)
    for name, array in arrays.items():
        if name.startswith(prefix) and array.dtype == np.float64:
            wrong = array.copy()
            wrong.flat[-1] = np.nan
            write_artefact(path, manifest, {**arrays, name: wrong})
            with pytest.raises(ArtefactError):
                ModelState.load(path)
    flat = {**arrays, prefix + "features_scale": 0.0 * arrays[prefix + "features_scale"]}
    write_artefact(path, manifest, flat)
    with pytest.raises(ArtefactError, match="above 0"):
        ModelState.load(path)
    counts = arrays[prefix + "counts"].copy()
    counts[0] = 6  # of 5
    write_artefact(path, manifest, {**arrays, prefix + "counts": counts})
    with pytest.raises(
        ArtefactError, match=r"does not fit together: .* those of the shots\. Fit again"
    ):
        ModelState.load(path)


def test_every_storage_packs_what_it_unpacks(saved):
    state = saved[0].state
    evidence = state.evidence_of_shots()
    stored = {s.name: s for s in map(get, names()) if s.storage is not None}
    assert {"auto", "auto_star"} <= set(stored)
    for score in stored.values():
        if not all(map(evidence.has, (n for n in score.needs if n.startswith("support")))):
            continue
        learned = prepare(score.name, evidence).learned
        packed = score.storage.pack(learned)
        again = score.storage.pack(
            score.storage.unpack(evidence, Packed(packed.arrays, packed.values))
        )
        assert again.values == packed.values
        assert all((again.arrays[n] == a).all() for n, a in packed.arrays.items())
