"""SigLIP's sigmoid on the whole way: fitted, saved, calibrated, refused where it has no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import Command
from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError

BIAS = -75.0


class Siglip(PixelEncoder):
    """An encoder that was trained with a sigmoid loss."""

    logit_bias = BIAS


ENCODERS = {"vlm": Siglip(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
SIGMOID = {"score": "msp", "score_parameters": {"link": "sigmoid"}}


def new_model(**settings: Any) -> TrustVLM:
    return TrustVLM(**{**ENCODERS, "store": EmbeddingStore.memory(), **settings})


def saved(model: TrustVLM, path: Path) -> TrustVLM:
    model.vlm = model.vision = "offline"
    model.save(path)
    return TrustVLM.load(path, **ENCODERS, store=EmbeddingStore.memory())


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("link") / "shots", per_class=4)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("link") / "photos", per_class=12, seed=5)


@pytest.fixture
def trustvlm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


def sigmoids(model: TrustVLM, folder: Path, verdicts: Any) -> Any:
    """By hand, from the embeddings of the images in the order of the verdicts."""
    from trustvlm.images import decode

    encoder = ENCODERS["vlm"]
    pixels = [
        encoder.preprocessing.pixels(decode(folder / path)) for path in verdicts.column("path")
    ]
    images = encoder.encode_pixels(np.stack(pixels)).astype(np.float64)
    texts = encoder.encode_texts([f"a photo of a {name}." for name in model.classes_.names])
    lengths = np.linalg.norm(images, axis=1)[:, None] * np.linalg.norm(texts, axis=1)
    return 1 / (1 + np.exp(-(100 * images @ texts.T / lengths + BIAS)))


def test_the_confidence_is_the_sigmoid_and_the_label_is_the_same(
    shots: Path, labelled: Path, tmp_path: Path
) -> None:
    model = new_model(**SIGMOID).fit(shots)
    verdicts = model.predict(labelled)
    expected = sigmoids(model, labelled, verdicts)
    np.testing.assert_allclose(verdicts.column("confidence"), expected.max(axis=1), atol=1e-5)
    softmax = new_model(score="msp").fit(shots).predict(labelled)
    assert softmax.column("label") == verdicts.column("label")
    assert not np.allclose(softmax.column("confidence"), verdicts.column("confidence"), atol=0.01)
    again = saved(model, tmp_path / "m.trust")
    assert again.predict(labelled).to_csv() == verdicts.to_csv()
    manifest = json.loads((tmp_path / "m.trust" / "manifest.json").read_text())
    assert manifest["score"]["parameters"] == {"link": "sigmoid"}
    assert manifest["logit_bias"] == BIAS


def test_given_labels_are_judged_by_their_own_sigmoid(shots: Path, labelled: Path) -> None:
    model = new_model(**SIGMOID).fit(shots)
    verdicts = model.verify(labelled)
    expected = sigmoids(model, labelled, verdicts)
    columns = [model.classes_.names.index(label) for label in verdicts.column("label")]
    own = expected[np.arange(len(columns)), columns]
    np.testing.assert_allclose(verdicts.column("confidence"), own, atol=1e-5)


def test_a_calibration_is_for_its_link(shots: Path, labelled: Path, tmp_path: Path) -> None:
    model = new_model(**SIGMOID).fit(shots)
    model.calibrate(labelled, risk=0.5)
    again = saved(model, tmp_path / "m.trust")
    assert again.calibration_.parameters == {"link": "sigmoid"}
    again.state.check_calibration()
    again.score_parameters = {"link": "softmax"}
    with pytest.raises(InputError, match=r"calibrated for the score `msp` .*sigmoid"):
        again.predict(labelled)


def test_other_classes_are_compared_by_the_softmax_as_before(shots: Path, labelled: Path) -> None:
    settings = {"other_classes": ["something else"]}
    labels = [
        new_model(**linked, **settings).fit(shots).predict(labelled).column("label")
        for linked in (SIGMOID, {"score": "msp"})
    ]
    assert labels[0] == labels[1]


def test_a_model_from_before_the_bias_was_recorded_is_one_of_the_softmax(
    shots: Path, labelled: Path, tmp_path: Path
) -> None:
    plain = TrustVLM(
        PixelEncoder(seed=1), ENCODERS["vision"], score="msp", store=EmbeddingStore.memory()
    ).fit(shots)
    again = saved(plain, tmp_path / "m.trust")
    assert "logit_bias" not in json.loads((tmp_path / "m.trust" / "manifest.json").read_text())
    assert again.predict(labelled).to_csv() == plain.predict(labelled).to_csv()
    again.score_parameters = {"link": "sigmoid"}
    with pytest.raises(InputError, match=r"needs the bias of a model"):
        again.predict(labelled)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vlm": PixelEncoder(seed=1)}, "needs the bias of a model"),
        ({"protocol": "paper"}, "fixes the logit scale at 100"),
        ({"score_parameters": {"link": "tanh"}}, "softmax or sigmoid, but the score .* got 'tanh'"),
        ({"score": "auto_star"}, "`auto_star` has no parameter `link`.* msp, margin"),
    ],
)
def test_where_it_has_no_sense_it_is_refused(
    settings: dict[str, Any], message: str, shots: Path
) -> None:
    with pytest.raises(InputError, match=message):
        new_model(**{**SIGMOID, **settings}).fit(shots)


def test_nothing_is_selected_for_it(shots: Path) -> None:
    with pytest.raises(InputError, match="selected for the link `softmax` alone"):
        new_model(**{**SIGMOID, "score": "trustvlm"}).fit(shots, select="loo")


def test_the_command_names_models_that_have_it(
    shots: Path, tmp_path: Path, trustvlm: Command
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    arguments = ("fit", shots, "-o", tmp_path / "m.trust", "--vlm", "offline", "--vision", "same")
    refused = trustvlm(*arguments, "--score", "msp", "--link", "sigmoid")
    assert refused.code
    assert "SigLIP" in refused.err
    refused = trustvlm(*arguments, "--link", "sigmoid")
    assert refused.code
    assert "msp, margin, trustvlm" in refused.err
