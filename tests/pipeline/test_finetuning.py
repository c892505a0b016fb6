import numpy as np
import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import PrototypeBank, TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.pipeline.fit import finetune_on
from trustvlm.scores.finetuning import Recipe, finetune_prototypes


@pytest.mark.torch
@pytest.mark.parametrize("absent", [(), (2,)])
def test_torchs_adamw_and_autograd_give_the_same_prototypes(absent):
    pytest.importorskip("torch", reason="fine-tuning on a device needs the extra torch")
    rng = np.random.default_rng(0)
    labels = np.array([c for c in np.arange(60) % 4 if c not in absent])
    features = rng.normal(size=(4, 10))[labels] + rng.normal(size=(len(labels), 10))
    bank = PrototypeBank().fit(features, labels, n_classes=4)
    recipe = Recipe(temperature=0.1, epochs=7, learning_rate=0.01, batch_size=16, seed=4)
    ours = finetune_prototypes(bank, features, labels, recipe)
    theirs = finetune_on("cpu", bank, features, labels, recipe)
    np.testing.assert_allclose(ours.bank.prototypes_, theirs.bank.prototypes_, atol=1e-10)
    np.testing.assert_allclose(ours.losses, theirs.losses, atol=1e-10)


def test_without_shots_there_is_nothing_to_learn():
    bank = PrototypeBank().fit(np.empty((0, 3)), np.empty(0, dtype=int), n_classes=2)
    tuned = finetune_on("cpu", bank, np.empty((0, 3)), np.empty(0, dtype=int))
    assert tuned.losses.size == 0
    assert not tuned.bank.present_.any()


def models(**settings):
    return TrustVLM(
        vlm=PixelEncoder(seed=1),
        vision=PixelEncoder(seed=2, dim=9),
        store=EmbeddingStore.memory(),
        **settings,
    )


def test_a_finetuned_model_is_stored_as_it_is(tmp_path):
    folder = write_class_folders(tmp_path / "shots")
    photos = write_class_folders(tmp_path / "photos", seed=7)
    plain = models(score="trustvlm").fit(folder)
    tuned = models(score="trustvlm", finetune=True).fit(folder)
    assert len(tuned.losses_) == 20
    assert tuned.predict(photos).to_csv() != plain.predict(photos).to_csv()
    before = tuned.predict(photos).to_csv()
    encoders = {"vlm": tuned.vlm, "vision": tuned.vision}
    tuned.vlm = tuned.vision = "offline"
    tuned.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", **encoders, store=EmbeddingStore.memory())
    assert again.predict(photos).to_csv() == before
    assert again.losses_ == tuned.losses_


def test_fine_tuning_for_a_score_that_ignores_prototypes_is_pointed_out(tmp_path):
    folder = write_class_folders(tmp_path / "shots")
    with pytest.warns(TrustVLMWarning, match="do not change the score auto_star.*trustvlm_star"):
        models(finetune=True).fit(folder)


def test_star_of_a_finetuned_model_is_the_score_star_f(tmp_path):
    """At any temperature: it is that of the fine-tuning as well."""
    folder = write_class_folders(tmp_path / "shots")
    photos = write_class_folders(tmp_path / "photos", seed=7)
    settings = {"score_parameters": {"temperature": 0.2}}
    tuned = models(score="trustvlm_star", finetune=True, **settings).fit(folder)
    plain = models(score="trustvlm_star_f", **settings).fit(folder)
    a, b = tuned.predict(photos), plain.predict(photos)
    assert [v.label for v in a] == [v.label for v in b]
    assert [v.confidence for v in a] == [v.confidence for v in b]
