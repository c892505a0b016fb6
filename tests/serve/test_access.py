"""Keys, other sites, several models, reloading."""

import json
import shutil
import threading
from dataclasses import replace

import pytest

from pictures import write_class_folders
from service import client_of
from trustvlm import TrustVLM
from trustvlm.exceptions import InputError
from trustvlm.serve.model_registry import models_by_name
from trustvlm.serve.served_model import DriftWatch
from trustvlm.serve.settings import read_keys
from uploads import png

KEY = "a-key-of-some-length"
RED = {"images": ("a.png", png("red", 1))}


@pytest.fixture(scope="module")
def locked(colours):
    with client_of(colours, keys=[KEY, "another-key-of-some-length"]) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": b"\xff\xfe"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/feedback", "/v1/reload"])
def test_without_a_key_nothing_is_answered(locked, path, headers):
    answer = locked.post(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["kind"] == "key"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/metrics", "/v1/model", "/v1/queue", "/v1/feedback.csv"])
def test_nor_shown(locked, path):
    assert locked.get(path).status_code == 401
    assert locked.get(path, headers={"X-API-Key": KEY}).status_code == 200


def test_each_key_fits_in_both_forms(locked):
    for headers in ({"X-API-Key": KEY}, {"Authorization": "bearer another-key-of-some-length"}):
        assert locked.post("/v1/predict", files=RED, headers=headers).status_code == 200


def test_with_keys_every_name_is_answered(locked):
    headers = {"X-API-Key": KEY, "Host": "pets.example.org"}
    assert locked.get("/v1/model", headers=headers).status_code == 200


def test_health_needs_no_key(locked):
    assert locked.get("/healthz").status_code == 200
    assert locked.get("/readyz").status_code == 200


def test_keys_come_from_the_environment_and_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text("a-key-from-the-file\n\n")
    keys = read_keys(str(file), {"TRUSTVLM_SERVE_KEYS": f"{KEY}, "})
    assert keys.fit("a-key-from-the-file")
    assert keys.fit(KEY)
    assert not keys.fit("")
    assert not read_keys("", {})
    with pytest.raises(InputError, match="16 characters"):
        read_keys("", {"TRUSTVLM_SERVE_KEYS": "short"})
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(str(tmp_path / "none"), {})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_may_not_change_anything(client, site):
    # A page at another port or subdomain of this machine is of the same site.
    headers = {"Sec-Fetch-Site": site, "Origin": "http://localhost:9999"}
    body = {"image": "0" * 64, "action": "skip"}
    for response in (
        client.post("/v1/predict", files=RED, headers=headers),
        client.post("/v1/feedback", json=body, headers=headers),
        client.post("/v1/reload", headers=headers),
        client.delete("/v1/feedback/1", headers=headers),
        client.delete(f"/v1/images/{'0' * 64}", headers=headers),
    ):
        assert (response.status_code, response.json()["error"]["kind"]) == (403, "other_site")
    assert client.get("/v1/model", headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_service_s_own_page_may(client, site):
    headers = {"Sec-Fetch-Site": site, "Origin": "http://localhost"}
    assert client.post("/v1/predict", files=RED, headers=headers).status_code == 200


def test_a_service_of_this_machine_has_its_names_alone(client):
    assert client.get("/v1/model", headers={"Host": "pets.example.org"}).status_code == 403
    for host in ("127.0.0.1:8000", "LOCALHOST", "[::1]:80"):
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200


def test_origins_that_are_named_may(colours):
    with client_of(colours, cors="https://example.org", hosts="pets.example.org") as client:
        assert client.get("/v1/model", headers={"Host": "pets.example.org"}).status_code == 200
        headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://example.org"}
        answer = client.post("/v1/predict", files=RED, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"
        headers["Origin"] = "https://example.com"
        assert client.post("/v1/predict", files=RED, headers=headers).status_code == 403


def test_several_models_side_by_side(colours, tmp_path):
    other = shutil.copytree(colours, tmp_path / "other.trust")
    with client_of(colours, other) as client:
        assert client.get("/v1/models").json() == ["colours", "other"]
        for name in ("colours", "other"):
            answer = client.post(f"/v1/predict?model={name}", files=RED).json()
            assert answer["model"] == name
        assert client.post("/v1/predict", files=RED).json()["model"] == "colours"
    with pytest.raises(InputError, match="both called 'colours'"):
        models_by_name([colours, tmp_path / "colours.trust"])


def test_reloading_loses_no_request_and_refuses_what_does_not_fit(colours, tmp_path):
    path = shutil.copytree(colours, tmp_path / "m.trust")
    with client_of(path) as client:
        before = client.get("/v1/model").json()
        encoder = client.context.models["m"].model.encoders.vlm
        statuses, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                statuses.append(client.post("/v1/predict", files=RED).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        manifest = path / "manifest.json"
        good = manifest.read_text()
        stored = json.loads(good)
        stored["models"]["vision"]["fingerprint"] = "0" * 64
        stored["models"]["vision"]["weights"] = "0" * 64
        manifest.write_text(json.dumps(stored))
        refused = client.post("/v1/reload")
        manifest.write_text("{")
        assert client.post("/v1/reload").status_code == 409
        manifest.write_text(good)
        state = TrustVLM.load(path).state
        replace(state, created_at="2030-01-01T00:00:00+00:00").save(path)
        after = client.post("/v1/reload").json()
        stop.set()
        asking.join()
        assert refused.status_code == 409
        assert "vision encoder on this machine" in refused.json()["error"]["message"]
        assert client.context.models["m"].model.encoders.vlm is encoder
        assert after == {**before, "created_at": "2030-01-01T00:00:00+00:00"}
        assert client.get("/v1/model").json() == after
        assert set(statuses) == {200}
        assert statuses


def test_a_reloaded_model_decodes_large_jpegs_as_it_did(shots, tmp_path):
    path = tmp_path / "m.trust"
    TrustVLM(vlm="offline", vision="offline", draft=True).fit(shots).save(path)

    def drafts(model):
        encoders = (model.encoders.vlm, model.encoders.vision)
        return [model.draft, *(encoder.preprocessing.draft for encoder in encoders)]

    with client_of(path) as client:
        for _ in range(2):
            assert drafts(client.context.models["m"].model) == [True, True, True]
            assert client.post("/v1/reload").status_code == 200
        TrustVLM.load(path).save(path)
        assert client.post("/v1/reload").status_code == 200
        assert drafts(client.context.models["m"].model) == [True, True, True]


def watch_usual(watch, calibration, n):
    for i in range(n):
        j = i % len(calibration.labels)
        watch.see(f"usual {i}", calibration.result.confidence[j], calibration.typicality[j])


def test_drift_is_noticed_once_images_change(colours):
    model = TrustVLM.load(colours)
    watch, calibration = DriftWatch(model), model.calibration_
    lowest = calibration.result.confidence.min()
    watch_usual(watch, calibration, 60)
    assert not watch.drifted
    for _ in range(200):  # one image again and again is one image
        watch.see("the same", lowest - 1, 0.1)
    assert not watch.drifted
    for i in range(200):
        watch.see(f"new {i}", lowest - 1, 0.1)
    assert watch.drifted
    assert max(watch.evidence.values()) > 4


def test_what_was_watched_outlives_the_service(colours, tmp_path):
    model, file = TrustVLM.load(colours), tmp_path / "drift.json"
    lowest = model.calibration_.result.confidence.min()
    watch = DriftWatch(model, file)
    watch_usual(watch, model.calibration_, 50)
    watch.save()
    again = DriftWatch(model, file)
    assert again.evidence == watch.evidence
    for i in range(100):
        again.see(f"new {i}", lowest - 1, 0.1)
    # An alarm is written at once.
    assert again.drifted
    assert DriftWatch(model, file).drifted
    model.calibrate_on_shots()  # another calibration has nothing to do with it
    assert not DriftWatch(model, file).drifted


def test_an_alarm_holds_for_every_service_that_keeps_its_state_there(colours, tmp_path):
    model, file = TrustVLM.load(colours), tmp_path / "drift.json"
    one, other = DriftWatch(model, file), DriftWatch(model, file)
    for i in range(100):
        one.see(f"new {i}", model.calibration_.result.confidence.min() - 1, 0.1)
    assert one.drifted
    watch_usual(other, model.calibration_, 50)
    other.save()
    assert other.drifted
    assert DriftWatch(model, file).drifted


@pytest.mark.parametrize(
    "damage",
    [
        {"seen": None},
        {"seen": [["a"]]},
        {"streams": {}},
        {"streams": "confidence"},
        {"generator": None},
    ],
)
def test_a_damaged_state_is_replaced(colours, tmp_path, damage):
    model, file = TrustVLM.load(colours), tmp_path / "drift.json"
    watch = DriftWatch(model, file)
    watch_usual(watch, model.calibration_, 50)
    watch.save()
    stored = json.loads(file.read_text())
    for name, value in damage.items():
        (stored if name in stored else stored["monitor"])[name] = value
    file.write_text(json.dumps(stored))
    again = DriftWatch(model, file)
    assert set(again.evidence.values()) == {0.0}
    watch_usual(again, model.calibration_, 50)
    again.save()
    assert DriftWatch(model, file).evidence == watch.evidence


@pytest.fixture(scope="module")
def guaranteed(shots, tmp_path_factory):
    """A .trust directory whose threshold is certified."""
    folder = tmp_path_factory.mktemp("guaranteed")
    checked = write_class_folders(folder / "checked", per_class=20, seed=9)
    model = TrustVLM(vlm="offline", vision="offline", score="auto_star").fit(shots)
    assert model.calibrate(checked, risk=0.2).calibration_.certificate.certified
    model.save(folder / "colours.trust")
    return folder / "colours.trust"


def test_after_drift_labels_are_reviewed_unless_they_are_to_be_kept(guaranteed):
    uploads = [
        ("images", (f"{colour}{i}.png", png(colour, i)))
        for colour in ("red", "green", "blue")
        for i in range(3)
    ]

    def decisions(client):
        answer = client.post("/v1/predict", files=uploads).json()
        return [verdict["decision"] for verdict in answer["verdicts"]]

    for when_invalid in ("review", "keep"):
        with client_of(guaranteed, when_invalid=when_invalid) as client:
            before = decisions(client)
            assert "accept" in before
            assert client.get("/v1/model").json()["guarantee"] == "valid"
            served = client.context.models["colours"]
            for i in range(200):
                served.drift.see(f"new {i}", -100.0, 0.1)
            kept = before if when_invalid == "keep" else ["review"] * len(before)
            assert decisions(client) == kept
            assert client.get("/v1/model").json()["guarantee"] == "invalid"


@pytest.mark.parametrize(("per_class", "guarantee"), [(3, None), (20, "valid")])
def test_a_guarantee_of_batches_alone_is_none_for_single_images(
    shots, tmp_path, per_class, guarantee
):
    checked = write_class_folders(tmp_path / "checked", per_class=per_class, seed=9)
    model = TrustVLM(vlm="offline", vision="offline", score="auto_star").fit(shots)
    rule = model.calibrate(checked, risk=0.2, guarantee="expectation").calibration_.certificate
    assert rule.certified
    model.save(tmp_path / "colours.trust")
    with client_of(tmp_path / "colours.trust") as client:
        described = client.get("/v1/model").json()
        assert described["guarantee"] == guarantee
        assert described["calibrated"] == (guarantee is not None)
        (verdict,) = client.post("/v1/predict", files=RED).json()["verdicts"]
        assert verdict["decision"] == ("accept" if guarantee else "review")


def test_drift_is_among_the_metrics(client):
    client.post("/v1/predict", files=RED)
    text = client.get("/metrics").text
    assert 'trustvlm_drifted{model="colours"} 0.0' in text
    assert 'trustvlm_drift_evidence{model="colours",stream="confidence"}' in text
