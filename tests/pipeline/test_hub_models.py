"""Tiny random models in the hub's format go through the whole way, as real ones do."""

import numpy as np
import pytest

from pictures import COLOURS, write_class_folders

pytest.importorskip("torch", reason="needs the extra torch")
pytest.importorskip("transformers", reason="needs the extra torch")

from tiny_models import save_tiny_clip, save_tiny_dinov2, save_tiny_siglip
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError
from trustvlm.images import decode

pytestmark = [
    pytest.mark.torch,
    # Random weights tell colours apart by hardly anything.
    pytest.mark.filterwarnings("ignore:classes whose texts are nearly the same"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    savers = {"clip": save_tiny_clip, "siglip": save_tiny_siglip, "dinov2": save_tiny_dinov2}
    for name, save in savers.items():
        save(root / name)
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    return write_class_folders(root / "shots"), write_class_folders(root / "photos", seed=7)


def fitted(hub, folders, vlm="clip", vision="dinov2", **settings):
    model = TrustVLM(
        vlm=f"hf:{hub / vlm}",
        vision=vision if vision == "same" else f"hf:{hub / vision}",
        store=EmbeddingStore.memory(),
        device="cpu",
        **settings,
    )
    return model.fit(folders[0])


@pytest.mark.parametrize("vlm", ["clip", "siglip"])
@pytest.mark.parametrize("vision", ["dinov2", "same"])
def test_fit_predict_save_and_load(hub, folders, tmp_path, vlm, vision):
    model = fitted(hub, folders, vlm, vision)
    verdicts = model.predict(folders[1])
    assert len(verdicts) == 12
    assert set(verdicts.column("label")) <= set(COLOURS)
    assert np.isfinite(verdicts.column("confidence")).all()
    model.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", device="cpu", store=EmbeddingStore.memory())
    assert again.predict(folders[1]).to_csv() == verdicts.to_csv()


def test_other_weights_are_noticed(hub, folders, tmp_path):
    fitted(hub, folders).save(tmp_path / "m.trust")
    save_tiny_dinov2(tmp_path / "other", seed=1)
    with pytest.raises(ArtefactError, match=r"vision encoder.*weights"):
        TrustVLM.load(tmp_path / "m.trust", vision=f"hf:{tmp_path / 'other'}", device="cpu")


@pytest.mark.slow
def test_batch_size_changes_nothing_that_matters(hub, folders):
    one = fitted(hub, folders, batch_size=1).predict(folders[1])
    many = fitted(hub, folders, batch_size=7).predict(folders[1])
    assert one.column("label") == many.column("label")
    np.testing.assert_allclose(one.column("confidence"), many.column("confidence"), atol=1e-5)


def test_the_clean_protocol_gives_each_encoder_its_own_pixels(hub, folders):
    model = fitted(hub, folders)
    assert model.encoders.vision.preprocessing != model.encoders.vlm.preprocessing


def test_the_paper_protocol_in_all_its_pieces(hub, folders):
    """Shared tensor, mean of all tokens, averaging before normalising, written out with torch."""
    import torch
    from transformers import AutoModel

    model = fitted(hub, folders, protocol="paper")
    vlm = model.encoders.vlm.preprocessing
    dinov2 = AutoModel.from_pretrained(hub / "dinov2").eval()

    def features(file):
        pixels = vlm.normalise(vlm.pixels(decode(file))[None])
        with torch.inference_mode():
            return dinov2(torch.from_numpy(pixels)).last_hidden_state.mean(dim=1)[0].numpy()

    for c, name in enumerate(sorted(COLOURS)):
        mean = np.mean([features(f) for f in sorted((folders[0] / name).iterdir())], axis=0)
        expected = mean / np.linalg.norm(mean)
        np.testing.assert_allclose(model.bank_.prototypes_[c], expected, atol=1e-5)


def test_the_paper_protocol_fixes_siglips_scale(hub, folders):
    clean = fitted(hub, folders, "siglip")
    paper = fitted(hub, folders, "siglip", protocol="paper")
    assert paper.encoders.vlm.logit_scale == 100.0
    assert clean.encoders.vlm.logit_scale != 100.0
    assert clean.prompts == paper.prompts == ("This is a photo of {}.",)
    clip = fitted(hub, folders, protocol="paper")
    assert clip.prompts == ("a photo of a {}.",)
    assert clip.encoders.vlm.logit_scale == fitted(hub, folders).encoders.vlm.logit_scale
