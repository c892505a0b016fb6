import numpy as np
import pytest
from scipy.special import log_softmax

from pictures import write_class_folders
from pixel_encoder import PixelEncoder

pytest.importorskip("torch", reason="fine-tuning needs the extra torch")

from trustvlm import PrototypeBank, TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.pipeline.finetuning import finetune_prototypes

pytestmark = pytest.mark.torch


def shots(seed=0, m=60, n_classes=4, d=10, absent=()):
    rng = np.random.default_rng(seed)
    labels = np.array([c for c in np.arange(m) % n_classes if c not in absent])
    features = rng.normal(size=(n_classes, d))[labels] + rng.normal(size=(len(labels), d))
    return features, labels, PrototypeBank().fit(features, labels, n_classes=n_classes)


def cross_entropy(bank, features, labels, temperature):
    logits = np.nan_to_num(bank.similarities(features), nan=-np.inf) / temperature
    return -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1).mean()


def test_it_starts_at_the_means_and_lowers_the_loss():
    features, labels, bank = shots()
    tuned = finetune_prototypes(bank, features, labels, temperature=0.1)
    assert len(tuned.losses) == 20
    # One batch an epoch: the first loss is that of the plain prototypes.
    assert tuned.losses[0] == pytest.approx(cross_entropy(bank, features, labels, 0.1), abs=1e-9)
    assert cross_entropy(tuned.bank, features, labels, 0.1) < tuned.losses[0]
    np.testing.assert_allclose(np.linalg.norm(tuned.bank.prototypes_, axis=1), 1)
    np.testing.assert_array_equal(tuned.bank.counts_, bank.counts_)


def test_the_first_step_follows_the_gradient():
    """AdamW's first step is lr * sign(gradient), nearly; checked by finite differences."""
    features, labels, bank = shots(m=12, d=3)
    tuned = finetune_prototypes(bank, features, labels, temperature=0.5, epochs=1)
    moved = tuned.bank.prototypes_ - bank.prototypes_
    for c in range(4):
        for j in range(3):
            ahead, behind = bank.prototypes_.copy(), bank.prototypes_.copy()
            ahead[c, j] += 1e-5
            behind[c, j] -= 1e-5
            slope = cross_entropy(bank.with_prototypes(ahead), features, labels, 0.5)
            slope -= cross_entropy(bank.with_prototypes(behind), features, labels, 0.5)
            if abs(slope / 2e-5) > 0.01 and abs(moved[c, j]) > 5e-4:
                assert np.sign(moved[c, j]) == -np.sign(slope)


def test_the_same_seed_gives_the_same_prototypes():
    features, labels, bank = shots()
    a, b, c = (
        finetune_prototypes(bank, features, labels, batch_size=16, seed=s).bank.prototypes_
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_classes_without_shots_stay_absent():
    features, labels, bank = shots(absent=(2,))
    tuned = finetune_prototypes(bank, features, labels)
    assert not tuned.bank.prototypes_[2].any()
    assert tuned.bank.present_.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"temperature": 0.0}, {"learning_rate": -1}, {"batch_size": 0}]
)
def test_parameters_out_of_range_are_explained(change):
    features, labels, bank = shots()
    with pytest.raises(InputError, match="positive"):
        finetune_prototypes(bank, features, labels, **change)
    with pytest.raises(InputError, match="fitted on"):
        finetune_prototypes(bank, features[:, :5], labels)


def test_a_finetuned_model_is_stored_as_it_is(tmp_path):
    folder = write_class_folders(tmp_path / "shots")
    photos = write_class_folders(tmp_path / "photos", seed=7)
    encoders = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    settings = {"store": EmbeddingStore.memory()}
    plain = TrustVLM(**encoders, **settings).fit(folder)
    tuned = TrustVLM(**encoders, **settings, finetune=True).fit(folder)
    assert len(tuned.losses_) == 20
    assert tuned.predict(photos).to_csv() != plain.predict(photos).to_csv()
    before = tuned.predict(photos).to_csv()
    tuned.vlm = tuned.vision = "offline"
    tuned.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", **encoders, **settings)
    assert again.predict(photos).to_csv() == before
    assert again.losses_ == tuned.losses_
