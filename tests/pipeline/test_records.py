"""Labels, contents and vectors stay with their image, whatever is left out before it.

In every labelled folder the first class begins with an image that cannot be read and with a copy of
a shot: whoever drops them from one list and not from another shifts all that follow.
"""

import shutil

import numpy as np
import pytest

from pictures import COLOURS, write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, decisions, metrics
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import LeakError
from trustvlm.images import content_hash, find_images
from trustvlm.pipeline import advise
from trustvlm.pipeline.records import encode_images, exclude_leaked, list_labelled

pytestmark = pytest.mark.filterwarnings("ignore::trustvlm.exceptions.TrustVLMWarning")


def new_model(**settings):
    encoders = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    return TrustVLM(**encoders, **{"store": EmbeddingStore.memory(), **settings})


@pytest.fixture
def shots(tmp_path):
    folder = write_class_folders(tmp_path / "shots", per_class=5)
    (folder / "blue" / "-1_unreadable.png").write_bytes(b"")
    return folder


@pytest.fixture
def model(shots):
    return new_model(score="trustvlm_star").fit(shots)


@pytest.fixture
def clean(tmp_path):
    return write_class_folders(tmp_path / "clean", per_class=12, seed=5)


@pytest.fixture
def labelled(tmp_path, shots, clean):
    folder = shutil.copytree(clean, tmp_path / "labelled")
    (folder / "blue" / "-1_unreadable.png").write_bytes(b"\x89PNG")
    shutil.copy(shots / "blue" / "00.png", folder / "blue" / "-2_leaked.png")
    return folder


def class_of(path):
    return path.split("/")[0]


def test_fit_keeps_each_shot_with_its_class_and_vectors(model, shots):
    assert model.shot_failures_.column("path") == ["blue/-1_unreadable.png"]
    state = model.state
    assert len(state.shots) == 15
    for i, shot in enumerate(state.shots):
        alone = encode_images(find_images(shots / shot["path"]), model.embedder)
        np.testing.assert_allclose(state.support_features[i], alone.features[0], atol=1e-6)
        np.testing.assert_allclose(
            state.support_image_embeddings[i], alone.image_embeddings[0], atol=1e-6
        )
        assert shot["sha256"] == content_hash((shots / shot["path"]).read_bytes())
        names = state.classes.names
        assert names[shot["class"]] == names[state.support_labels[i]] == class_of(shot["path"])


def test_calibrate_compares_each_verdict_with_the_class_of_its_image(model, labelled):
    verdicts = {verdict.path: verdict for verdict in model.predict(labelled)}
    calibration = model.calibrate(labelled, risk=0.3, exclude_shots=True).calibration_
    names = model.classes_.names
    assert calibration.unreadable == ("blue/-1_unreadable.png",)
    assert len(calibration.images) == 36
    for i, image in enumerate(calibration.images):
        verdict = verdicts[image["path"]]
        assert image["sha256"] == content_hash((labelled / image["path"]).read_bytes())
        assert names[calibration.labels[i]] == class_of(image["path"])
        assert names[calibration.result.prediction[i]] == verdict.label
        assert calibration.result.confidence[i] == pytest.approx(verdict.confidence)
        assert calibration.correct[i] == (verdict.label == class_of(image["path"]))
    confidence, right = calibration.result.confidence, calibration.correct
    assert calibration.certificate == decisions.certify(confidence, right, 0.3, 0.95)
    prior = calibration.calibrator.prior
    again = decisions.Calibrator(prior=prior).fit(confidence, right).predict(confidence)
    np.testing.assert_array_equal(calibration.p_correct(calibration.result), again)


def test_evaluate_compares_each_verdict_with_the_class_of_its_image(model, labelled):
    verdicts = {verdict.path: verdict for verdict in model.predict(labelled)}
    result = model.evaluate(labelled, exclude_shots=True)
    assert result.excluded == ("blue/-2_leaked.png",)
    assert result.failures.column("path") == ["blue/-1_unreadable.png"]
    own = result.results["trustvlm_star"]
    assert len(result.verdicts) == 36
    for i, row in enumerate(result.verdicts):
        assert result.class_names[result.labels[i]] == class_of(row.path)
        assert result.hashes[i] == content_hash((labelled / row.path).read_bytes())
        assert result.files[i] == labelled / row.path
        assert row.label == verdicts[row.path].label == result.class_names[own.prediction[i]]
        assert row.confidence == pytest.approx(verdicts[row.path].confidence)


def test_selection_is_made_with_the_class_of_each_image(shots, labelled):
    with pytest.raises(LeakError, match=r"1 of 37 .*blue/-2_leaked\.png.*--select loo"):
        new_model(score="trustvlm").fit(shots, select_on=labelled)
    (labelled / "blue" / "-2_leaked.png").unlink()
    model = new_model(score="trustvlm_star").fit(shots, select_on=labelled)
    rows = [row for row in model.predict(labelled) if not row.error]
    right = [row.label == class_of(row.path) for row in rows]
    assert model.selection_.n == 36
    assert {image["path"] for image in model.selection_images_} == {row.path for row in rows}
    assert model.selection_.aurc == pytest.approx(
        metrics.aurc([row.confidence for row in rows], right)
    )


def test_cross_validation_judges_each_shot_by_its_class(model, shots):
    rows = [row for row in model.predict(shots) if not row.error]
    validated = model.cross_validate(["msp"])
    names = model.classes_.names
    assert [names[label] for label in validated.labels] == [class_of(row.path) for row in rows]
    # The text alone says the same of a shot in whichever fold it is.
    alone = new_model(score="msp").fit(shots).predict(shots)
    labels = [row.label for row in alone if not row.error]
    assert [names[label] for label in validated.results["msp"].prediction] == labels


def test_advice_is_the_same_without_the_images_that_are_left_out(labelled, clean, tmp_path):
    # The only example of red is green: more of them help.
    few = write_class_folders(tmp_path / "few", per_class=1)
    write_class_folders(few, per_class=1, colours={"red": COLOURS["green"]})
    model = new_model(score="trustvlm_star").fit(few)
    with_them, without = (
        advise(model, folder, risk=0.3, examples=4) for folder in (labelled, clean)
    )
    assert with_them.excluded == ("blue/-2_leaked.png",)
    assert with_them.failures.column("path") == ["blue/-1_unreadable.png"]
    assert without.advice.classes
    assert with_them.advice == without.advice


def test_selected_records_hold_together(model, labelled):
    encoded = encode_images(list_labelled(labelled, model.classes_), model.embedder)
    assert not encoded.is_readable[0]
    assert np.isnan(encoded.features[0]).all()
    chosen = encoded.select(np.array([5, 2, 30]))
    fresh, leaked = exclude_leaked(
        encoded.readable(), {"the shots": {encoded.hashes[1]}}, exclude=True, purpose="never said"
    )
    assert leaked == ("blue/-2_leaked.png",)
    for images in (chosen, fresh):
        for i, path in enumerate(images.paths):
            at = encoded.paths.index(path)
            assert images.hashes[i] == encoded.hashes[at]
            assert images.labels[i] == encoded.labels[at]
            np.testing.assert_array_equal(images.features[i], encoded.features[at])
            np.testing.assert_array_equal(images.image_embeddings[i], encoded.image_embeddings[at])
            assert model.classes_.names[images.labels[i]] == class_of(path)
