"""What the service says about images is what `trustvlm predict` says."""

import base64
import csv
import hashlib
import io
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broken_images import write_broken_images
from hostile import many_scans
from pictures import COLOURS, write_class_folders
from service import client_of, events
from trustvlm import TrustVLM
from trustvlm.images import InMemoryImage, Limits
from trustvlm.pipeline.verdict import COLUMNS
from trustvlm.serve.schemas import VerdictAnswer
from trustvlm.serve.served_model import ServedModel
from trustvlm.text import exact_number
from uploads import as_files, as_json, png

GOOD = [("red", 1), ("green", 2), ("blue", 3), ("red", 4), ("blue", 5)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Good and broken images by name."""
    good = {f"{name}-{seed}.png": png(name, seed) for name, seed in GOOD}
    folder = tmp_path_factory.mktemp("broken")
    kinds = write_broken_images(folder)
    # Formats that are opened from the command line alone are another test's.
    files = {
        name: folder / name
        for name in kinds
        if (folder / name).is_file() and "jpeg2000" not in name and "ppm" not in name
    }
    return {**good, **{name: file.read_bytes() for name, file in files.items()}}


@pytest.fixture(scope="module")
def offline_rows(pool, colours, tmp_path_factory):
    """What `trustvlm predict` says about each."""
    folder = tmp_path_factory.mktemp("pool")
    for name, content in pool.items():
        (folder / name).write_bytes(content)
    verdicts = TrustVLM.load(colours).predict([folder / name for name in pool])
    rows = dict(zip(pool, csv.DictReader(io.StringIO(verdicts.to_csv())), strict=True))
    for name, row in rows.items():
        row["path"] = name
        row["error"] = row["error"].replace(str(folder / name), name)
    return rows


@pytest.fixture(scope="module")
def patient(colours):
    """A client of a service with the same bounds on images as `trustvlm predict`."""
    with client_of(colours, max_pixels=100_000_000) as client:
        yield client


def as_row(verdict):
    """A verdict of the service, as a row of the CSV."""
    cells = {}
    for name in COLUMNS:
        value = verdict[name]
        cells[name] = "" if value is None else f"{value:.9g}" if isinstance(value, float) else value
        if isinstance(value, bool):
            cells[name] = json.dumps(value)
    if verdict["confidence"] is not None:
        # It has as many digits as it takes to read the same number.
        cells["confidence"] = exact_number(verdict["confidence"])
    return cells


@settings(max_examples=25)
@given(data=st.data())
def test_verdicts_are_those_of_predict_in_any_company(data, patient, pool, offline_rows):
    names = data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, max_size=12))
    images = [(name, pool[name]) for name in names]
    if data.draw(st.booleans()):
        answer = patient.post("/v1/predict", files=as_files(images))
    else:
        answer = patient.post("/v1/predict", json=as_json(images))
    assert answer.status_code == 200
    verdicts = answer.json()["verdicts"]
    # The last of nine digits may differ: sums of a batch are not taken in the same order.
    for name, verdict in zip(names, verdicts, strict=True):
        row, expected = as_row(verdict), dict(offline_rows[name])
        for column in ("confidence", "p_correct", "text_score", "image_score"):
            a, b = row.pop(column), expected.pop(column)
            assert a == b or math.isclose(float(a), float(b), rel_tol=1e-7)
        row["error"] = row["error"].replace(f"{name}: ", "", 1)
        expected["error"] = expected["error"].replace(f"{name}: ", "", 1)
        assert row == expected


def test_a_score_of_the_whole_batch_never_mixes_the_images_of_two_clients(shots, tmp_path):
    path = tmp_path / "adapted.trust"
    TrustVLM(vlm="offline", vision="offline", score="auto_adapted").fit(shots).save(path)
    served = ServedModel("m", path, limits=Limits(), batch_images=32, remember=0)
    requests = [
        [InMemoryImage(f"{name}-{i}.png", png(name, 90 + i)) for i in range(4)]
        for name in ("red", "blue")
    ]

    def confidences(results):
        return [result.verdict.confidence for result in results]

    alone = [confidences(served.judge([request])[0]) for request in requests]
    both = [confidences(results) for results in served.judge(requests)]
    assert both == alone
    (mixed,) = served.judge([requests[0] + requests[1]])
    assert confidences(mixed) != alone[0] + alone[1], "the company would make a difference"


@pytest.mark.filterwarnings("ignore:12 different images to adapt to")
def test_a_model_that_adapted_once_answers_each_image_by_itself(shots, tmp_path):
    path, target = tmp_path / "adapted.trust", write_class_folders(tmp_path / "target", seed=3)
    model = TrustVLM(vlm="offline", vision="offline", score="auto_adapted")
    model.fit(shots, adapt_to=target).save(path)
    served = ServedModel("m", path, limits=Limits(), batch_images=32, remember=0)
    images = [InMemoryImage(f"{name}.png", png(name, 90)) for name in ("red", "blue")]
    together = [result.verdict.confidence for result in served.judge([images])[0]]
    alone = [served.judge([[image]])[0][0].verdict.confidence for image in images]
    assert together == pytest.approx(alone, rel=1e-6)


def test_one_bad_image_fails_alone(client):
    answer = client.post(
        "/v1/predict", files=as_files([("a.png", png("red", 1)), ("b.png", b"no image at all")])
    )
    good, bad = answer.json()["verdicts"]
    assert good["label"] in COLOURS
    assert (good["error"], good["kind"]) == ("", "")
    assert len(good["image"]) == 64
    assert (bad["decision"], bad["kind"], bad["label"]) == ("error", "not_image", "")
    assert bad["error"].startswith("b.png: ")


def test_base64_is_read_in_all_its_forms(client):
    content = next(c for i in range(99) if re.search(b"[+/]", base64.b64encode(c := png("red", i))))
    plain, safe = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()
    data = [
        plain,
        plain.rstrip("="),
        safe,
        safe.rstrip("="),
        base64.encodebytes(content).decode(),
        base64.encodebytes(content).decode().replace("\n", "\r\n"),
        f"data:image/png;base64,{plain}",
        f"DATA:image/png;name=a.png;BASE64,\n{safe}",
        f"data:;base64,{plain}",
    ]
    answer = client.post("/v1/predict", json={"images": [{"data": text} for text in data]})
    digest = hashlib.sha256(content).hexdigest()
    assert [one["image"] for one in answer.json()["verdicts"]] == [digest] * len(data)
    for text in (
        "data:image/png,abc",
        "ab!c",
        "a",
        "ab=c",
        "data:image/png;base64,é",
        "=",
        "--- a",
    ):
        (bad,) = client.post("/v1/predict", json={"images": [{"data": text}]}).json()["verdicts"]
        assert bad["decision"] == "error", text


def test_base64_that_is_none_fails_alone(client):
    body = as_json([("a.png", png("red", 1))])
    body["images"].insert(0, {"name": "x.png", "data": "%%%"})
    bad, good = client.post("/v1/predict", json=body).json()["verdicts"]
    assert bad["kind"] == "not_base64"
    assert good["label"] in COLOURS


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "content_type"),
        ({"json": {"images": []}}, 422, "bad_json"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "bad_json"),
        (
            {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
            422,
            "bad_json",
        ),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad_form"),
        ({"files": {"pictures": b"x"}}, 422, "no_images"),
        ({"files": as_files([("a", b"x")] * 65)}, 413, "too_many_images"),
        ({"json": {"images": [{"data": "eA=="}] * 65}}, 413, "too_many_images"),
        ({"params": {"model": "other"}, "files": {"images": b"x"}}, 404, "no_such_model"),
    ],
)
def test_what_is_wrong_with_a_request_has_one_shape(client, request_, status, kind):
    answer = client.post("/v1/predict", **request_)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]["kind"] == kind
    assert answer.json()["error"]["message"].endswith((".", "]"))


@pytest.mark.parametrize("path", ["/nothing", "/v1/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"])
def test_paths_that_do_not_exist_have_the_same_shape(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["kind"] == "not_found"


def test_bodies_and_pixels_are_bounded(colours):
    with client_of(colours, max_body_mib=1, max_pixels=5000) as client:
        answer = client.post("/v1/predict", files={"images": bytes(2**20)})
        assert answer.status_code == 413
        assert answer.json()["error"]["kind"] == "body_too_large"
        answer = client.post("/v1/predict", files={"images": png("red", 1, size=80)})
        (large,) = answer.json()["verdicts"]
        assert large["kind"] == "too_large"
        assert "at most 5,000 are decoded. Make it smaller" in large["error"]
        answer = client.post("/v1/predict", files={"images": png("red", 1, size=4)})
        (small,) = answer.json()["verdicts"]
        assert small["kind"] == "too_small"
        assert small["error"].endswith("at least 8. Use a larger version.")


def test_names_are_shown_and_never_used_as_paths(client):
    names = ["../../etc/passwd", "a\u202eb.png", "x" * 999]
    shown = client.post("/v1/predict", files=as_files([(n, png("red", 1)) for n in names])).json()
    assert [v["path"] for v in shown["verdicts"]] == ["../../etc/passwd", "a b.png", "x" * 255]


def test_a_verdict_kept_by_an_older_version_is_still_answered(client):
    answer = client.post("/v1/predict", files={"images": png("red", 1)}).json()["verdicts"][0]
    assert answer["vlm_label"] in ("blue", "green", "red")
    assert answer["corrected"] == (answer["label"] != answer["vlm_label"])
    older = {k: v for k, v in answer.items() if k not in ("vlm_label", "corrected")}
    read = VerdictAnswer.model_validate(older)
    assert (read.label, read.vlm_label, read.corrected) == (answer["label"], "", None)


def test_the_model_describes_itself(client, colours):
    facts = client.get("/v1/model").json()
    assert facts["name"] == "colours"
    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["score"] == "auto_star"
    assert facts["calibrated"]
    assert facts["decision_rule"].startswith("calibrated: ")
    assert client.get("/v1/models").json() == ["colours"]
    assert client.get("/v1/model?model=other").status_code == 404


def test_only_a_model_with_a_certified_threshold_is_called_calibrated(shots, tmp_path):
    model = TrustVLM(vlm="offline", vision="offline", score="trustvlm_star").fit(shots)
    labelled = write_class_folders(tmp_path / "labelled", per_class=12, seed=9)
    for learn, certified in (
        (lambda: model.calibrate_on_shots(), False),
        (lambda: model.calibrate(labelled, risk=0.3), True),
    ):
        path = tmp_path / f"{certified}.trust"
        learn().save(path)
        served = ServedModel("m", path, limits=Limits(), batch_images=32, remember=0)
        assert served.describe()["calibrated"] is certified
        assert served.describe()["decision_rule"].startswith("calibrated") is certified


def test_health_and_readiness(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"
    before = client.context.telemetry.registry.get_sample_value("trustvlm_batch_images_count")
    client.get("/readyz")  # within a second: no forward pass
    after = client.context.telemetry.registry.get_sample_value("trustvlm_batch_images_count")
    assert after == before


def test_metrics_count_requests_decisions_and_errors(client):
    client.post("/v1/predict", files=as_files([("a.png", png("red", 1)), ("b.png", b"none")]))
    text = client.get("/metrics").text
    for part in (
        'trustvlm_requests_total{method="POST",route="/v1/predict",status="200"}',
        'trustvlm_errors_total{kind="not_image"}',
        'trustvlm_decisions_total{decision="error",model="colours"}',
        "trustvlm_accept_share",
        "trustvlm_confidence_bucket",
        "trustvlm_batch_images_bucket",
        "trustvlm_request_seconds_bucket",
    ):
        assert part in text


def test_logs_are_json_and_hold_nothing_of_an_image(client):
    client.post("/v1/predict", files=as_files([("secret-name.png", png("red", 1))]))
    assert "secret-name" not in client.log.getvalue()
    last = events(client.log.getvalue())[-1]
    assert (last["event"], last["route"], last["status"]) == ("request", "/v1/predict", 200)


def test_every_answer_has_safe_headers(client):
    for answer in (client.get("/healthz"), client.get("/nothing"), client.post("/v1/predict")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_an_upload_that_takes_too_long_fails_alone_and_costs_nothing_afterwards(colours):
    slow = many_scans(490, 4000)
    with client_of(colours, image_seconds=0.3) as client:
        files = as_files([("slow.jpg", slow), ("good.png", png("red", 2))])
        bad, good = client.post("/v1/predict", files=files).json()["verdicts"]
        assert (bad["decision"], bad["kind"]) == ("error", "too_slow")
        assert "slow.jpg: decoding took longer than 0.3 s. Leave it out" in bad["error"]
        assert (good["label"] in COLOURS, good["kind"]) == (True, "")
        many = as_files([(f"slow-{i}.jpg", slow + bytes(i)) for i in range(3)])
        kinds = {v["kind"] for v in client.post("/v1/predict", files=many).json()["verdicts"]}
        assert kinds == {"too_slow"}
        client.app.state.ready = None
        assert client.get("/readyz").status_code == 200


def test_images_with_the_same_bytes_are_named_each_by_its_name(client):
    bad = png("red", 1)[:60]
    files = as_files([("a.png", bad), ("b.png", bad), ("c.png", png("red", 1))] * 2)
    verdicts = client.post("/v1/predict", files=files).json()["verdicts"]
    assert [v["kind"] for v in verdicts] == ["truncated", "truncated", ""] * 2
    assert [v["error"].split(":")[0] for v in verdicts] == ["a.png", "b.png", ""] * 2
