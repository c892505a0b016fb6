"""Labels from class names alone, with encoders that see colours."""

import warnings

import numpy as np
import pytest

from pictures import COLOURS, coarse_picture, picture
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.pipeline.predict import reason_without_shots


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for name, colour in COLOURS.items():
        for i in range(12):
            picture(colour, seed=i).save(folder / f"{name}-{i:02d}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def labelled(folder, store, correct=False):
    model = TrustVLM("offline", "offline", classes=list(COLOURS), store=store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        return model.label(folder, correct=correct)


def test_every_image_has_a_row_in_order_and_broken_ones_an_error(folder, store):
    verdicts = labelled(folder, store)
    assert [v.path for v in verdicts] == sorted(p.name for p in folder.iterdir())
    assert [v.path for v in verdicts if v.decision == "error"] == ["broken.png"]
    good = [v for v in verdicts if v.decision != "error"]
    assert all(np.isfinite(v.confidence) and v.reason and v.runner_up for v in good)
    assert {v.decision for v in good} <= {"accept", "review"}


def test_correcting_follows_the_images(tmp_path):
    """Text that guesses, of colours that are plain to see: the groups outweigh it, by path."""
    encoders = {"vlm": PixelEncoder(seed=7), "vision": PixelEncoder(seed=57, dim=9)}
    model = TrustVLM(**encoders, classes=list(COLOURS), store=EmbeddingStore.memory())
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(40):
            coarse_picture(colour, 100 * c + i).save(tmp_path / f"{name}-{i:02d}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        kept, corrected = (model.label(tmp_path, correct=correct) for correct in (False, True))
    assert corrected.column("path") == kept.column("path")
    changed = [(a, b) for a, b in zip(kept, corrected, strict=True) if a.label != b.label]
    assert changed
    for before, after in changed:
        assert f"are '{after.label}', which outweighs" in after.reason
        assert f"choice of '{before.label}'" in after.reason
        assert f"resembles are '{after.label}'" in before.reason
        assert before.decision == after.decision == "review"
    assert corrected.column("vlm_label") == kept.column("vlm_label") == kept.column("label")
    assert not any(kept.column("corrected"))
    assert sum(corrected.column("corrected")) == len(changed)


def test_few_images_are_said_to_be_few(folder, store):
    model = TrustVLM("offline", "offline", classes=list(COLOURS), store=store)
    with pytest.warns(TrustVLMWarning, match="say little about each other"):
        model.label(folder / "red-00.png")


def test_copies_do_not_make_few_images_many(folder, tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.png").write_bytes((folder / "red-00.png").read_bytes())
    model = TrustVLM(PixelEncoder(seed=7), PixelEncoder(seed=57), classes=list(COLOURS))
    with pytest.warns(TrustVLMWarning, match="60 images of 3 classes, 1 of them different, say"):
        verdicts = model.label(tmp_path)
    assert len({(v.label, v.confidence) for v in verdicts}) == 1


def test_where_nothing_is_to_compare_with_the_reason_says_so(folder, tmp_path):
    for name in ("a", "copy"):
        (tmp_path / f"{name}.png").write_bytes((folder / "red-00.png").read_bytes())
    model = TrustVLM(PixelEncoder(seed=7), PixelEncoder(seed=57), classes=list(COLOURS))
    for some in (tmp_path / "a.png", tmp_path):
        with pytest.warns(TrustVLMWarning, match=r"images? of 3 classes, 1 of them different"):
            verdicts = model.label(some)
        for verdict in verdicts:
            assert "there is no other image to compare this one with" in verdict.reason
            assert "agree" not in verdict.reason
            assert verdict.label == verdict.vlm_label


def test_class_names_are_needed(folder, store):
    with pytest.raises(InputError, match="classes"):
        TrustVLM("offline", "offline", store=store).label(folder)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [((0, 0, 0), "agree"), ((0, 0, 1), "but the images"), ((1, 0, 1), "outweighs")],
)
def test_reasons_say_which_side_says_what(choices, expected):
    assert expected in reason_without_shots(*choices, np.array([0.4, 0.6]), ["a", "b"], sure=True)


def test_a_reason_says_why_an_agreement_is_not_enough():
    assert "less likely" in reason_without_shots(
        0, 0, 0, np.array([0.4, 0.6]), ["a", "b"], sure=False
    )


def test_a_single_class_is_never_accepted(folder, store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)
        verdicts = TrustVLM("offline", "offline", classes=["red"], store=store).label(folder)
    assert {v.decision for v in verdicts} == {"review", "error"}
    assert "only class" in verdicts[1].reason
