"""Labels that come with images are judged by the service as `trustvlm verify` judges them."""

from __future__ import annotations

import math

import pytest

from pictures import write_class_folders
from service import client_of
from trustvlm import TrustVLM
from trustvlm.serve.served_model import ServedModel
from uploads import as_files, as_json, png

SENT = [("red", 31), ("green", 32), ("blue", 33), ("red", 34)]
LABELS = ["red", "blue", "cow", "Green"]


@pytest.fixture(scope="module")
def images():
    return [(f"{name}-{seed}.png", png(name, seed)) for name, seed in SENT]


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    for name, content in images:
        (folder / name).write_bytes(content)
    return [folder / name for name, _ in images]


@pytest.fixture(scope="module")
def no_vlm(shots):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    path = shots.parent / "examples.trust"
    TrustVLM(vlm="none", vision="offline").fit(shots).save(path)
    return path


@pytest.fixture(scope="module")
def judging(no_vlm):
    with client_of(no_vlm) as client:
        yield client


def expected(path, files, labels, p=None):
    with pytest.warns(match="spelling"):
        rows = TrustVLM.load(path).verify(files, labels, label_confidence=p)
    return [(v.label, v.decision, v.confidence, v.runner_up, v.reason) for v in rows]


def said(answer):
    assert answer.status_code == 200, answer.text
    return [
        (
            v["label"],
            v["decision"],
            math.nan if v["confidence"] is None else v["confidence"],
            v["runner_up"],
            v["reason"],
        )
        for v in answer.json()["verdicts"]
    ]


@pytest.mark.parametrize("with_vlm", [False, True])
def test_verdicts_are_those_of_verify(with_vlm, judging, client, no_vlm, colours, images, files):
    asked, path = (client, colours) if with_vlm else (judging, no_vlm)
    wanted = expected(path, files, LABELS)
    form = asked.post("/v1/predict", files=as_files(images), data={"label": LABELS})
    body = as_json(images)
    for image, label in zip(body["images"], LABELS, strict=True):
        image["label"] = label
    for answer in (form, asked.post("/v1/predict", json=body)):
        for got, want in zip(said(answer), wanted, strict=True):
            assert (got[0], got[1], got[3], got[4]) == (want[0], want[1], want[3], want[4])
            assert got[2] == pytest.approx(want[2], nan_ok=True)
    assert "cow" not in form.json()["verdicts"][2]["candidates"]
    # An unknown label is reviewed, as by default there.
    assert wanted[2][:2] == ("cow", "review")
    assert wanted[1][3] == "green"


def test_probabilities_count_in_both_forms(judging, no_vlm, images, files):
    p = [0.9, math.nan, 0.5, 0.2]
    wanted = [row[2] for row in expected(no_vlm, files, LABELS, p)]
    fields = {"label": LABELS, "label_confidence": ["0.9", "", "0.5", "0.2"]}
    form = said(judging.post("/v1/predict", files=as_files(images), data=fields))
    assert [row[2] for row in form] == pytest.approx(wanted, nan_ok=True)
    body = as_json(images)
    for image, label, value in zip(body["images"], LABELS, p, strict=True):
        image |= {"label": label, "label_confidence": None if math.isnan(value) else value}
    answer = said(judging.post("/v1/predict", json=body))
    assert [row[2] for row in answer] == pytest.approx(wanted, nan_ok=True)


def test_a_request_may_mix_images_with_labels_and_without(client, images):
    plain = client.post("/v1/predict", files=as_files(images)).json()["verdicts"]
    labels = ["", "blue", "", ""]
    mixed = client.post("/v1/predict", files=as_files(images), data={"label": labels})
    verdicts = mixed.json()["verdicts"]
    assert [v["path"] for v in verdicts] == [name for name, _ in images]
    assert [v["label"] for v in verdicts] == [
        plain[0]["label"],
        "blue",
        *(v["label"] for v in plain[2:]),
    ]
    assert verdicts[1]["confidence"] < verdicts[0]["confidence"]
    for i in (0, 2, 3):
        assert verdicts[i]["confidence"] == pytest.approx(plain[i]["confidence"])
    # The certificate is one on the model's own labels.
    assert verdicts[1]["p_correct"] is None
    assert verdicts[0]["p_correct"] is not None


def test_a_model_without_labels_of_its_own_wants_one_with_each(judging, images):
    assert judging.get("/v1/model").json()["needs_labels"] is True
    assert judging.get("/readyz").json()["status"] == "ready"
    for data in ({}, {"label": ["red", "red", "red", ""]}):
        refused = judging.post("/v1/predict", files=as_files(images), data=data)
        assert refused.status_code == 422
        message = refused.json()["error"]["message"]
        assert "Send a label with each" in message
        assert f"{4 if not data else 1} of 4 images" in message
    assert judging.post("/v1/predict", json=as_json(images)).status_code == 422
    broken = judging.post(
        "/v1/predict", files=as_files([("a.png", b"no picture")]), data={"label": "red"}
    )
    assert broken.json()["verdicts"][0]["decision"] == "error"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"label": ["red"]}, "for each of 4 images"),
        ({"label": ["red"] * 5}, "but got 5"),
        ({"label": LABELS, "label_confidence": ["90 %"] * 4}, "from 0 to 1"),
        ({"label": LABELS, "label_confidence": ["0.5"]}, "label_confidence"),
        ({"label": ["x" * 1001] * 4}, "at most 1000"),
        ({"label_confidence": ["0.5"] * 4}, "`label` with the `label_confidence`"),
    ],
)
def test_labels_that_do_not_fit_are_refused(judging, images, data, message):
    refused = judging.post("/v1/predict", files=as_files(images), data=data)
    assert refused.status_code == 422, refused.text
    assert message in refused.json()["error"]["message"]


def test_a_probability_without_a_label_is_refused_in_json_too(client, images):
    body = as_json(images)
    body["images"][1]["label_confidence"] = 0.5
    refused = client.post("/v1/predict", json=body)
    assert refused.status_code == 422
    assert f"`label_confidence` of {images[1][0]}" in refused.json()["error"]["message"]


@pytest.mark.parametrize("name", ["labels", "lable", "Label", "confidence", "label-confidence"])
def test_a_misspelt_label_is_no_question_about_the_model_s_own(client, images, name):
    values = ["0.5" if "conf" in name else "red"] * len(images)
    form = client.post("/v1/predict", files=as_files(images), data={name: values})
    body = as_json(images)
    for image, value in zip(body["images"], values, strict=True):
        image[name] = value
    for refused in (form, client.post("/v1/predict", json=body)):
        assert refused.status_code == 422
        message = refused.json()["error"]["message"]
        assert f"there is no field '{name}', did you mean label" in message
    address = client.post("/v1/predict", params={"label": "red"}, files=as_files(images))
    assert address.status_code == 422
    assert "beside each image" in address.json()["error"]["message"]
    # What else a form holds is its sender's affair.
    other = client.post("/v1/predict", files=as_files(images), data={"camera": "3"})
    assert other.status_code == 200


def test_as_many_labels_as_images_are_read(judging):
    many = [(f"{i}.png", png("red", 200 + i % 3)) for i in range(64)]
    fields = {"label": ["red"] * 64, "label_confidence": ["0.5"] * 64}
    assert len(said(judging.post("/v1/predict", files=as_files(many), data=fields))) == 64


def test_drift_of_given_labels_is_watched_where_the_model_is_for_them(no_vlm, tmp_path):
    photos = write_class_folders(tmp_path / "photos", per_class=30, seed=40)
    model = TrustVLM.load(no_vlm).calibrate(photos, risk=0.3, given_labels=photos)
    model.save(tmp_path / "calibrated.trust")
    with client_of(tmp_path / "calibrated.trust", max_images=64) as client:
        served: ServedModel = client.context.models[None]
        assert set(served.drift.evidence) == {"confidence", "typicality"}
        wrong = {"red": "green", "green": "blue", "blue": "red"}
        for start in range(0, 120, 60):
            sent = [(c, 9000 + start + i) for i in range(20) for c in wrong]
            uploads = [(f"{i}.png", png(c, seed)) for i, (c, seed) in enumerate(sent)]
            labels = [wrong[c] for c, _ in sent]
            client.post("/v1/predict", files=as_files(uploads), data={"label": labels})
        assert served.drift.drifted
        assert client.get("/v1/model").json()["guarantee"] in (None, "invalid")


def test_scores_that_choose_labels_judge_none(shots, tmp_path, images):
    model = TrustVLM(vlm="offline", vision="offline", score="trustvlm_star").fit(shots)
    model.save(tmp_path / "starred.trust")
    with client_of(tmp_path / "starred.trust") as client:
        assert client.post("/v1/predict", files=as_files(images)).status_code == 200
        refused = client.post("/v1/predict", files=as_files(images), data={"label": LABELS})
        assert refused.status_code == 422
        assert "cannot judge labels from elsewhere" in refused.json()["error"]["message"]


def test_a_label_that_is_no_class_waits_first_and_is_no_candidate(judging, images):
    data = {"label": LABELS}
    sent = judging.post("/v1/predict?keep=true", files=as_files(images), data=data)
    verdicts = sent.json()["verdicts"]
    assert all(verdict["kept"] for verdict in verdicts)
    assert set(verdicts[2]["candidates"]) == {"red", "green", "blue"}
    assert verdicts[1]["candidates"][:2] == ["blue", verdicts[1]["runner_up"]]
    waiting = judging.get("/v1/queue").json()["images"]
    assert waiting[0]["image"] == verdicts[2]["image"]
    said = {"image": verdicts[2]["image"], "action": "accept"}
    assert judging.post("/v1/feedback", json=said).json()["error"]["kind"] == "no_such_class"
