import io
import math

import numpy as np
import pytest
from PIL import Image

from hanging import decoders_that_hang_on
from pictures import COLOURS, picture, write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, datasets, metrics, scores
from trustvlm.embeddings import EmbeddingStore, encode_images
from trustvlm.exceptions import ArtefactError, InputError, LeakError, TrustVLMWarning
from trustvlm.images import InMemoryImage, Limits
from trustvlm.models.base import Preprocessing
from trustvlm.scores.arrays import zero_shot_logits


def new_model(**settings):
    options = {
        "vlm": PixelEncoder(seed=1),
        "vision": PixelEncoder(seed=2, dim=9),
        "store": EmbeddingStore.memory(),
        "batch_size": 4,
    }
    return TrustVLM(**{**options, **settings})


@pytest.fixture
def shots(tmp_path):
    return write_class_folders(tmp_path / "shots")


@pytest.fixture
def photos(tmp_path):
    return write_class_folders(tmp_path / "photos", per_class=5, seed=7)


def test_predictions_equal_the_paper_written_out(shots, photos):
    model = new_model(score="trustvlm")
    verdicts = model.fit(shots).predict(photos)
    vlm, vision = PixelEncoder(seed=1), PixelEncoder(seed=2, dim=9)

    def encode(encoder, file):
        from trustvlm.images import decode

        return encoder.encode_pixels(encoder.preprocessing.pixels(decode(file))[None])[0]

    names = sorted(COLOURS)
    texts = vlm.encode_texts([f"a photo of a {name}." for name in names])
    prototypes = []
    for name in names:
        mean = np.mean([encode(vision, f) for f in sorted((shots / name).iterdir())], axis=0)
        prototypes.append(mean / np.linalg.norm(mean))
    for verdict in verdicts:
        z = zero_shot_logits(encode(vlm, photos / verdict.path)[None], texts)[0]
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        feature = encode(vision, photos / verdict.path)
        similarity = feature @ prototypes[p.argmax()] / np.linalg.norm(feature)
        assert verdict.label == names[p.argmax()]
        assert verdict.text_score == pytest.approx(p.max(), abs=1e-6)
        assert verdict.image_score == pytest.approx(similarity, abs=1e-6)
        assert verdict.confidence == pytest.approx(p.max() + similarity, abs=1e-6)
        assert math.isnan(verdict.p_correct)
    assert [v.path for v in verdicts] == sorted(
        f"{name}/{i:02d}.png" for name in COLOURS for i in range(5)
    )


def test_what_shots_say_is_derived_once_for_the_same_shots(shots, photos):
    model = new_model().fit(shots)
    model.predict(photos)
    of_shots = model.evidence_of_shots()
    assert model.evidence_of_shots() is of_shots
    model.score = "msp"
    assert model.state.score == "msp"
    assert model.evidence_of_shots() is of_shots
    model.fit(shots)
    assert model.evidence_of_shots() is not of_shots


def test_the_second_run_needs_no_forward_pass(shots, photos):
    model = new_model().fit(shots)
    first = model.predict(photos)
    vlm, vision = model.encoders.vlm, model.encoders.vision
    counted = vlm.n_encoded, vision.n_encoded
    again = TrustVLM(vlm=vlm, vision=vision, store=model.store, score="trustvlm_star", batch_size=3)
    second = again.fit(shots).predict(photos)
    assert (vlm.n_encoded, vision.n_encoded) == counted
    assert len(vlm.text_batches) == 1
    assert [v.path for v in second] == [v.path for v in first]
    assert [v.image_score for v in model.predict(photos)] == [v.image_score for v in first]


def test_the_vlms_own_tower_verifies_without_a_second_pass(shots, photos):
    model = new_model(vision="same").fit(shots)
    model.predict(photos)
    assert model.encoders.vision is model.encoders.vlm
    assert model.encoders.vlm.n_encoded == 4 * 3 + 5 * 3


def test_unreadable_images_are_rows_in_their_place(shots, photos):
    (photos / "green" / "01.png").write_bytes(b"")
    (photos / "red" / "03.png").write_text("<html>not found</html>")
    model = new_model().fit(shots)
    verdicts = model.predict(photos)
    wrong = {v.path: v for v in verdicts if v.decision == "error"}
    assert sorted(wrong) == ["green/01.png", "red/03.png"]
    assert len(verdicts) == 15
    assert all(v.path in v.error and math.isnan(v.confidence) for v in wrong.values())
    assert [v.path for v in verdicts] == sorted(v.path for v in verdicts)


def test_unreadable_shots_are_left_out_with_a_warning(shots):
    (shots / "red" / "00.png").write_bytes(b"broken")
    with pytest.warns(TrustVLMWarning, match="shot left out.*00.png"):
        model = new_model().fit(shots)
    assert model.bank_.counts_.tolist() == [4, 4, 3]
    assert len(model.shots_) == 11


def test_a_class_without_shots_is_said_to_have_none(shots, photos):
    with pytest.warns(TrustVLMWarning, match="no example images of 'pink'"):
        model = new_model(classes=["blue", "green", "pink", "red"]).fit(shots)
    verdicts = model.predict(photos)
    for verdict in verdicts:
        if verdict.label == "pink":
            assert math.isnan(verdict.image_score)
            assert verdict.decision == "review"
            assert "no example images of 'pink'" in verdict.reason
    assert model.bank_.present_.tolist() == [True, True, False, True]


@pytest.mark.filterwarnings("ignore:'red' is the only class")
def test_shots_per_class_takes_the_papers_draw(tmp_path):
    shots = write_class_folders(tmp_path / "s", per_class=20, colours={"red": COLOURS["red"]})
    model = new_model().fit(shots, shots_per_class=3)
    import random

    random.seed(0)
    expected = [f"red/{i:02d}.png" for i in random.sample(range(20), 3)]
    assert [shot["path"] for shot in model.shots_] == expected
    with pytest.warns(TrustVLMWarning, match="fewer than 30 example images of 'red'"):
        new_model().fit(shots, shots_per_class=30)


def test_class_names_may_differ_from_folders(shots, photos):
    model = new_model(classes={"red": "ripe tomato", "green": "leaf", "blue": "sky"}).fit(shots)
    assert set(model.predict(photos).column("label")) <= {"ripe tomato", "leaf", "sky"}
    assert len(model.evaluate(photos).labels) == 15


def test_evaluation_equals_scores_and_metrics_by_hand(shots, photos):
    model = new_model(score="trustvlm").fit(shots)
    result = model.evaluate(photos)
    truth = np.repeat([0, 1, 2], 5)
    np.testing.assert_array_equal(result.labels, truth)
    verdicts = model.predict(photos)
    index = {name: i for i, name in enumerate(sorted(COLOURS))}
    right = np.array([index[v.label] for v in verdicts]) == truth
    by_hand = metrics.evaluate(verdicts.column("confidence"), right)
    assert result.metrics["trustvlm"] == by_hand
    assert set(result.metrics) == set(scores.names())
    row = result.rows()[0]
    assert row["score"] == "trustvlm"
    assert row["dataset"] == "photos"
    assert row["shots"] == 4
    assert row["n"] == 15
    np.testing.assert_array_equal(result.correct(), right)


def test_evaluating_on_shots_is_refused_by_content(shots, photos):
    (photos / "red" / "copied.png").write_bytes((shots / "red" / "00.png").read_bytes())
    model = new_model().fit(shots)
    with pytest.raises(LeakError, match=r"1 of 16 images .*red/copied\.png.*exclude"):
        model.evaluate(photos)
    result = model.evaluate(photos, exclude_shots=True)
    assert result.excluded == ("red/copied.png",)
    assert len(result.labels) == 15
    with pytest.raises(InputError, match="No labelled image is left"):
        model.evaluate(shots, exclude_shots=True)


def test_the_paper_protocol_shares_the_vlms_tensor(shots):
    own = Preprocessing(size=(8, 8), resize=10, mean=(0, 0, 0))
    vision = PixelEncoder(seed=2, preprocessing=own)
    model = new_model(vision=vision, protocol="paper").fit(shots)
    vlm = model.encoders.vlm
    assert model.encoders.vision.preprocessing == vlm.preprocessing
    assert vision.preprocessing is own, "the caller's encoder is left alone"
    with pytest.raises(InputError, match="clean or paper"):
        new_model(protocol="papper").fit(shots)


def test_the_paper_protocol_reads_images_as_the_script_does_and_mixes_no_embeddings(shots):
    store = EmbeddingStore.memory()
    models = [new_model(protocol=p, store=store).fit(shots) for p in ("clean", "paper")]
    clean, paper = (m.encoders.vlm.preprocessing for m in models)
    assert (clean.plain_rgb, paper.plain_rgb) == (False, True)
    assert "plain_rgb" not in clean.to_dict(), "fingerprints from before stay valid"
    assert Preprocessing.from_dict(paper.to_dict()) == paper
    clear = Image.fromarray(np.full((20, 20, 4), 60, np.uint8), "RGBA")
    stream = io.BytesIO()
    clear.save(stream, "PNG")
    vectors = []
    for model in models:
        (chunk,) = encode_images(
            [InMemoryImage("clear.png", stream.getvalue())], {"vlm": model.encoders.vlm}, store
        )
        vectors.append(chunk.embeddings["vlm"][0])
    pixels = np.asarray(clear.convert("RGB"))
    expected = models[1].encoders.vlm.encode_pixels(paper.pixels(Image.fromarray(pixels))[None])[0]
    np.testing.assert_array_equal(vectors[1], expected)
    assert not np.array_equal(vectors[0], vectors[1])


def test_saving_needs_names_and_loading_checks_the_models(shots, photos, tmp_path):
    model = new_model().fit(shots)
    with pytest.raises(InputError, match="passed as an object"):
        model.save(tmp_path / "m.trust")
    model.vlm, model.vision = "offline", "offline"
    model.save(tmp_path / "m.trust")
    same = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    loaded = TrustVLM.load(tmp_path / "m.trust", **same, store=EmbeddingStore.memory())
    assert loaded.predict(photos).to_csv() == model.predict(photos).to_csv()
    assert loaded.shots_ == model.shots_
    assert loaded.provenance_ == model.provenance_
    other = {**same, "vision": PixelEncoder(seed=3, dim=9)}
    with pytest.raises(ArtefactError, match=r"vision encoder on this machine.*weights"):
        TrustVLM.load(tmp_path / "m.trust", **other)
    with pytest.raises(InputError, match="part of the artefact"):
        TrustVLM.load(tmp_path / "m.trust", score="msp")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "trustvml"}, "did you mean trustvlm"),
        ({"score_parameters": {"wieght": 1}}, "no parameter `wieght`"),
        ({"prompt": "a photo"}, "prompt template"),
        ({"classes": ["red", "green"]}, "blue"),
    ],
)
def test_wrong_settings_are_explained_before_images_are_read(shots, settings, message):
    model = new_model(**settings)
    with pytest.raises(InputError, match=message):
        model.fit(shots)
    assert model.vlm.n_encoded == 0


def test_using_an_unfitted_model_is_explained(photos):
    for act in (lambda m: m.predict(photos), lambda m: m.evaluate(photos)):
        with pytest.raises(InputError, match="call fit"):
            act(new_model())


def test_score_parameters_reach_the_score(shots, photos):
    options = {"score": "trustvlm", "score_parameters": {"weight": 0.0}}
    plain = new_model(**options).fit(shots).predict(photos)
    assert plain.column("confidence") == plain.column("text_score")
    with pytest.raises(InputError, match=r"`auto_star` has no parameter `weight`.*trustvlm_star"):
        new_model(score_parameters={"weight": 0.0}).fit(shots)


def test_progress_and_order_of_images(shots, photos):
    model = new_model().fit(shots)
    seen = []
    listed = sorted(photos.rglob("*.png"), reverse=True)
    verdicts = model.predict(listed, progress=lambda *state: seen.append(state))
    assert [s[0] for s in seen] == [4, 8, 12, 15]
    assert [v.path for v in verdicts] == [f.as_posix() for f in listed]
    forward = {v.path: v.confidence for v in model.predict(sorted(listed))}
    assert {v.path: v.confidence for v in verdicts} == pytest.approx(forward, abs=1e-6)


def test_one_image_is_enough(shots, tmp_path):
    picture(COLOURS["red"], seed=3).save(tmp_path / "one.png")
    verdicts = new_model().fit(shots).predict(tmp_path / "one.png")
    assert len(verdicts) == 1
    assert verdicts[0].decision in ("accept", "review")


def test_classes_that_share_a_name_are_told_apart_by_their_examples(tmp_path):
    """As two pairs of ImageNet's classes do, under the names published with CLIP."""
    colours = {"n04355933": (200, 40, 40), "n04356056": (40, 60, 200), "n01440764": (40, 190, 60)}
    folder = write_class_folders(tmp_path / "train", colours=colours)
    photos = write_class_folders(tmp_path / "val", per_class=5, seed=7, colours=colours)
    classes = datasets.imagenet_class_list("imagenet")
    model = new_model(classes=classes, score="trustvlm_star", score_parameters={"weight": 100.0})
    with (
        pytest.warns(TrustVLMWarning, match="no example images of"),
        pytest.warns(TrustVLMWarning, match="nearly the same to the model"),  # in 6 dimensions
        pytest.warns(TrustVLMWarning, match=r"share a name: 'missile \(n03773504\)'"),
    ):
        model.fit(folder)
    np.testing.assert_array_equal(model.text_embeddings_[836], model.text_embeddings_[837])
    verdicts = model.predict(photos)
    named = {"n04355933": "sunglasses (n04355933)", "n04356056": "sunglasses (n04356056)"}
    assert [v.label for v in verdicts] == [
        named.get(v.path.split("/")[0], "tench") for v in verdicts
    ]
    assert model.evaluate(photos, scores=["msp"]).metrics["trustvlm_star"].accuracy == 1
    # What was predicted can be evaluated against, and the model is stored as it is.
    pairs = [photos / v.path for v in verdicts], [v.label for v in verdicts]
    assert model.evaluate(pairs, scores=["msp"]).metrics["trustvlm_star"].accuracy == 1
    encoders = {"vlm": model.vlm, "vision": model.vision}
    model.vlm = model.vision = "offline"
    model.save(tmp_path / "m.trust")
    again = TrustVLM.load(tmp_path / "m.trust", **encoders, store=EmbeddingStore.memory())
    assert again.predict(photos).to_csv() == verdicts.to_csv()


def test_an_image_that_never_decodes_is_a_row_in_its_place(shots, photos):
    model = new_model(limits=Limits(seconds=0.5)).fit(shots)
    expected = {v.path: v for v in model.predict(photos)}
    picture(COLOURS["green"], 99).save(photos / "green" / "hangs.png")
    with decoders_that_hang_on("hangs"):
        verdicts = model.predict(photos)
    wrong = {v.path: v.error for v in verdicts if v.decision == "error"}
    assert wrong == {
        "green/hangs.png": "green/hangs.png: decoding took longer than 0.5 s. Leave it out, "
        "save it anew, or allow more time with --image-seconds."
    }
    good = [v for v in verdicts if not v.error]
    assert [v.to_row() for v in good] == [expected[v.path].to_row() for v in good]
    assert len(verdicts) == 16


@pytest.mark.parametrize("act", ["fit", "label"])
def test_a_missing_input_is_said_before_any_model_is_loaded(act, tmp_path):
    model = TrustVLM(vlm="hf:org/not-there", classes=["a", "b"])
    with pytest.raises(InputError, match=r"there is no '.*gone'"):
        getattr(model, act)(tmp_path / "gone")


def test_the_default_score_corrects_and_says_what_the_vlm_said(shots, photos):
    model = new_model().fit(shots)
    assert model.score == model.state.score == "auto_star"
    by_vlm = {v.path: v.label for v in new_model(score="auto").fit(shots).predict(photos)}
    verdicts = model.predict(photos)
    assert {v.path: v.vlm_label for v in verdicts} == by_vlm
    assert [v.corrected for v in verdicts] == [v.label != v.vlm_label for v in verdicts]
    corrected = [v for v in verdicts if v.corrected]
    # Random encoders: the text is no better than chance, the examples tell colours apart.
    assert len(corrected) >= 5
    assert all(v.vlm_label in v.reason for v in corrected)
    kept = new_model(score="auto").fit(shots).predict(photos)
    assert [v.corrected for v in kept] == [False] * len(kept)


def test_no_readable_example_is_an_error_at_once_for_a_score_that_learns_from_them(tmp_path):
    for name in COLOURS:
        (tmp_path / "shots" / name).mkdir(parents=True)
        (tmp_path / "shots" / name / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"the score auto_star learns from them.*empty.*msp"):
        new_model().fit(tmp_path / "shots")
    with pytest.warns(TrustVLMWarning):
        model = new_model(score="trustvlm").fit(tmp_path / "shots")
    assert not model.bank_.counts_.any()


def test_the_papers_star_is_warned_of_where_it_spoils_labels(tmp_path, shots):
    few = write_class_folders(tmp_path / "few", per_class=3)
    with pytest.warns(TrustVLMWarning, match="3 example images per class.*auto_star"):
        new_model(score="trustvlm_star").fit(few)
    new_model(score="trustvlm_star").fit(shots)  # four: a warning would be an error
    new_model().fit(few)
