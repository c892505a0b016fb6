"""Adapting once to unlabelled images of the target: `fit(adapt_to=...)`."""

import json
import math

import numpy as np
import pytest

from pictures import COLOURS, coarse_picture
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import ArtefactError, InputError, LeakError, TrustVLMWarning
from trustvlm.pipeline.artefact import read_artefact, write_artefact
from trustvlm.pipeline.state import ModelState

ENCODERS = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=24)}
SCORES = ("auto_adapted", "auto_adapted_star")


def new_model(score="auto_adapted_star", **settings):
    return TrustVLM(**ENCODERS, score=score, **{"store": EmbeddingStore.memory(), **settings})


def write_varied(folder, per_class, seed, tint=(0, 0, 0)):
    """Write pictures that differ much, by colour; a tint makes another domain of them."""
    for c, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            tinted = tuple(map(sum, zip(colour, tint, strict=True)))
            image = coarse_picture(tinted, seed=1000 * seed + 100 * c + i)
            image.save(folder / name / f"{i:02d}.png")
    return folder


TINT = (60, -30, 50)


@pytest.fixture
def shots(tmp_path):
    return write_varied(tmp_path / "shots", 4, seed=0)


@pytest.fixture
def target(tmp_path):
    return write_varied(tmp_path / "target", 12, 3, TINT)


@pytest.fixture
def labelled(tmp_path):
    return write_varied(tmp_path / "labelled", 15, 5, TINT)


@pytest.fixture
def photos(tmp_path):
    return write_varied(tmp_path / "photos", 5, 7, TINT)


@pytest.fixture
def adapted(shots, target):
    return new_model().fit(shots, adapt_to=target)


def numbers(verdicts):
    return [(v.label, v.confidence, v.decision) for v in verdicts]


@pytest.mark.parametrize("score", SCORES)
def test_each_image_is_then_judged_by_itself(shots, target, photos, score):
    model = new_model(score).fit(shots, adapt_to=target)
    assert not model.state.whole_batch
    whole = model.predict(photos)
    for path in sorted(photos.rglob("*.png"))[:3]:
        (alone,) = model.predict(path)
        (same,) = [v for v in whole if v.path == f"{path.parent.name}/{path.name}"]
        assert alone.label == same.label
        assert alone.confidence == pytest.approx(same.confidence, abs=1e-6)
    each_batch = new_model(score).fit(shots)
    assert each_batch.state.whole_batch
    plain = new_model(score.replace("_adapted", "")).fit(shots).predict(photos)
    assert [v.confidence for v in plain] != [v.confidence for v in whole]


def test_it_can_be_calibrated_and_certified_and_kept(adapted, labelled, photos, tmp_path):
    adapted.calibrate(labelled, risk=0.3, confidence_level=0.8)
    assert adapted.calibration_.certificate.certified
    expected = adapted.predict(photos)
    assert {"accept"} <= {v.decision for v in expected}
    adapted.vlm = adapted.vision = "offline"
    adapted.save(tmp_path / "m.trust")
    state = ModelState.load(tmp_path / "m.trust")
    assert state.target.images == adapted.state.target.images
    assert state.target.features.dtype == np.float32
    again = new_model()
    again._learned = state  # the encoders of these tests have no name to be loaded by
    assert numbers(again.predict(photos)) == numbers(expected)
    from_shots = again.calibrate_on_shots()
    assert from_shots.calibration_.certificate is None


def test_what_was_adapted_to_stands_in_the_manifest(adapted, target, tmp_path):
    adapted.vlm = adapted.vision = "offline"
    adapted.save(tmp_path / "m.trust")
    manifest = json.loads((tmp_path / "m.trust" / "manifest.json").read_text())
    assert len(manifest["adaptation"]["images"]) == len(list(target.rglob("*.png")))
    stored, arrays = read_artefact(tmp_path / "m.trust")
    for broken in (
        {k: v for k, v in arrays.items() if k != "target_features"},
        {**arrays, "target_features": arrays["target_features"][:-1]},
        {**arrays, "target_image_embeddings": arrays["target_image_embeddings"][:, :-1]},
    ):
        write_artefact(
            tmp_path / "m.trust", {k: stored[k] for k in stored if k != "arrays"}, broken
        )
        with pytest.raises(ArtefactError, match="target_"):
            ModelState.load(tmp_path / "m.trust")


def test_images_adapted_to_are_none_to_calibrate_or_evaluate_on(
    adapted, shots, target, labelled, tmp_path
):
    with pytest.raises(LeakError, match=r"36 of 36 images are also among the images adapted to"):
        adapted.calibrate(target)
    with pytest.raises(LeakError, match="the images adapted to"):
        adapted.evaluate(target)
    moved = labelled / "red" / "other name.png"
    moved.write_bytes(next(target.glob("red/*.png")).read_bytes())
    with pytest.raises(LeakError, match=r"1 of 46 .* the images adapted to"):
        adapted.calibrate(labelled, risk=0.3)
    adapted.calibrate(labelled, risk=0.3, exclude_shots=True)
    assert len(adapted.calibration_.labels) == 45
    # The other way round: shots, and images that settings were selected on, are no target.
    with pytest.raises(LeakError, match="also among the shots"):
        new_model().fit(shots, adapt_to=shots)


def test_a_calibration_is_of_one_adaptation(adapted, shots, labelled, photos, target):
    """Fitting again, with other images, forgets what was calibrated before."""
    adapted.calibrate(labelled, risk=0.3)
    other = write_varied(photos.parent / "other", 12, 11, TINT)
    before = numbers(adapted.predict(photos))
    adapted.fit(shots, adapt_to=other)
    assert adapted.calibration_ is None
    assert [n[:2] for n in numbers(adapted.predict(photos))] != [n[:2] for n in before]


def test_copies_and_unreadable_images_are_no_target(shots, target, photos):
    expected = numbers(new_model().fit(shots, adapt_to=target).predict(photos))
    copy = target / "red" / "copy.png"
    copy.write_bytes(next(target.glob("red/*.png")).read_bytes())
    (target / "red" / "broken.png").write_bytes(b"no image")
    with pytest.warns(TrustVLMWarning, match="left out of the adaptation: .*broken.png"):
        model = new_model().fit(shots, adapt_to=target)
    assert len(model.state.target.images) == 36
    assert numbers(model.predict(photos)) == expected


def test_only_scores_that_adapt_take_a_target(shots, target, tmp_path):
    with pytest.raises(InputError, match=r"`auto_adapted` or `auto_adapted_star`.*got `auto_star`"):
        new_model("auto_star").fit(shots, adapt_to=target)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    with (
        pytest.warns(TrustVLMWarning, match="a.png"),
        pytest.raises(InputError, match="No image to adapt to can be read"),
    ):
        new_model().fit(shots, adapt_to=tmp_path / "broken")


def test_few_images_to_adapt_to_are_said_to_be_few(shots, target):
    some = sorted(target.rglob("*.png"))[:29]
    with pytest.warns(TrustVLMWarning, match="29 different images to adapt to .* give 30 or more"):
        new_model().fit(shots, adapt_to=[*some, some[0]])
    with pytest.warns(TrustVLMWarning, match="1 different image to adapt to"):
        new_model().fit(shots, adapt_to=some[:1])


def test_embeddings_of_the_target_come_from_the_store(shots, target):
    store, counted = EmbeddingStore.memory(), []
    for _ in range(2):
        new_model(store=store).fit(
            shots, adapt_to=target, progress=lambda done, total, hits: counted.append((done, hits))
        )
    assert counted[-1] == (36, 36)


def test_cross_validation_keeps_the_target(adapted, shots):
    frozen = adapted.cross_validate(["auto_adapted_star"]).results["auto_adapted_star"]
    batch = new_model().fit(shots).cross_validate(["auto_adapted_star"])
    other = batch.results["auto_adapted_star"]
    assert not np.allclose(frozen.confidence, other.confidence)
    assert all(map(math.isfinite, frozen.confidence))
