"""Keys, other sites, several models, reloading."""

import json
import math
import shutil
import threading
from dataclasses import replace

import pytest

from pictures import write_class_folders
from service import client_of
from trustvlm import TrustVLM
from trustvlm.exceptions import InputError, TrustVLMError
from trustvlm.pipeline.predict import Predictor
from trustvlm.serve.hosts import parse_host
from trustvlm.serve.model_registry import models_by_name
from trustvlm.serve.served_model import DriftWatch
from trustvlm.serve.settings import Keys, Settings, read_keys
from uploads import png

KEY = "a-key-of-some-length"
KEYS = [KEY, "another-key-of-some-length"]
RED = {"images": ("a.png", png("red", 1))}


@pytest.fixture(scope="module")
def locked(colours):
    with client_of(colours, keys=KEYS) as client:
        yield client


@pytest.fixture(scope="module")
def public(colours):
    hosts = "pets.example.org, *.cluster.local, bücher.example"
    with client_of(colours, host="0.0.0.0", hosts=hosts) as client:
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


def test_health_needs_no_key(locked):
    assert locked.get("/healthz").status_code == 200
    assert locked.get("/readyz").status_code == 200


def test_health_needs_no_name_either(client):
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 421), ("/", 421)):
        assert client.get(path, headers={"Host": "pets.example.org"}).status_code == status


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


@pytest.mark.parametrize("service", ["client", "public", "locked"])
def test_only_names_that_are_listed_are_answered_on_every_address(service, request):
    # A name of another site may point here (DNS rebinding); an IP address is nobody's name.
    asked = request.getfixturevalue(service)

    def status(name):
        headers = {"Host": name, "X-API-Key": KEY}
        return asked.get("/v1/model", headers=headers).status_code

    for name in ("127.0.0.1:8000", "LOCALHOST", "localhost.", "[::1]:80", "10.1.2.3", "[fd::7]"):
        assert status(name) == 200
    for name in ("pets.example.org", "Pets.Example.org.:8000", "a.b.cluster.local"):
        assert status(name) == (200 if service == "public" else 421)
    for name in (
        "evil.example.org",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "pets.example.org.evil.example",
        "evilpets.example.org",
        "cluster.local",
        "evilcluster.local",
        "user@localhost",
        "localhost:80:80",
        "2130706433",
        "0x7f.1",
        "",
    ):
        assert status(name) == 421, name


def test_a_name_to_listen_on_is_a_name_of_the_service():
    assert Settings(host="pets.internal").allowed_hosts.answer(parse_host("pets.internal:8000"))


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8000", "http://localhost:8000", 200),
        ("LOCALHOST:8000", "http://localhost:8000", 200),
        ("localhost", "http://localhost", 200),
        # A proxy with TLS in front; the usual port is named or not.
        ("pets.example.org", "https://pets.example.org", 200),
        ("pets.example.org:443", "https://pets.example.org", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("10.1.2.3:8000", "http://10.1.2.3:8000", 200),
        ("bücher.example", "https://xn--bcher-kva.example", 200),
        ("localhost:8000", None, 200),
        ("localhost:8000", "http://localhost:9000", 403),
        ("localhost:8000", "http://localhost", 403),
        ("localhost:8000", "http://127.0.0.1:8000", 403),
        ("pets.example.org", "https://evil.example", 403),
        ("pets.example.org", "https://pets.example.org.evil.example", 403),
        ("pets.example.org", "https://evil@pets.example.org", 403),
        ("10.1.2.3:8000", "http://evil.example:8000", 403),
        ("localhost:8000", "null", 403),
        ("localhost:8000", "", 403),
        ("localhost:8000", "file://", 403),
        ("localhost:8000", "chrome-extension://abcdef", 403),
    ],
)
def test_what_changes_something_is_of_the_service_s_own_origin(public, host, origin, status):
    # Browsers send `Sec-Fetch-Site` to https and localhost alone, and `Origin` everywhere.
    sent = {"Host": host.encode("idna").decode(), "Origin": origin}
    headers = {name: value for name, value in sent.items() if value is not None}
    for method, path in (
        ("POST", "/v1/reload"),
        ("POST", "/v1/feedback"),
        ("DELETE", "/v1/feedback/1"),
        ("DELETE", f"/v1/images/{'0' * 64}"),
        ("PUT", "/v1/reload"),
        ("PATCH", "/v1/reload"),
    ):
        answer = public.request(method, path, headers=headers)
        assert (answer.status_code == 403) == (status == 403), (method, path, answer.text)
    assert public.post("/v1/predict", files=RED, headers=headers).status_code == status
    assert public.get("/v1/model", headers=headers).status_code == 200


def test_origins_that_are_named_may(colours):
    with client_of(colours, cors="https://Example.org:443/", hosts="pets.example.org") as client:
        assert client.get("/v1/model", headers={"Host": "pets.example.org"}).status_code == 200
        headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://example.org"}
        answer = client.post("/v1/predict", files=RED, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"
        headers["Origin"] = "https://example.com"
        assert client.post("/v1/predict", files=RED, headers=headers).status_code == 403


def test_every_origin_may_where_all_are_named(colours):
    with client_of(colours, cors="*", keys=[KEY]) as client:
        headers = {"Origin": "https://example.com"}
        assert client.post("/v1/predict", files=RED, headers=headers).status_code == 401
        headers["X-API-Key"] = KEY
        answer = client.post("/v1/predict", files=RED, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    "values",
    [
        {"hosts": "https://pets.example.org"},
        {"hosts": "pets.example.org:8000"},
        {"hosts": "pets.*.org"},
        {"cors": "pets.example.org"},
        {"cors": "https://pets.example.org/page"},
        {"cors": "null"},
    ],
)
def test_what_is_no_name_or_origin_is_refused(values):
    ((name, _),) = values.items()
    with pytest.raises(InputError, match=f"Expected `{name}` to be"):
        Settings(**values)


@pytest.mark.parametrize(
    ("values", "open_to"),
    [
        ({}, None),
        ({"host": "localhost"}, None),
        ({"host": "::1"}, None),
        ({"host": "127.1.2.3"}, None),
        ({"host": "0.0.0.0"}, "`host` 0.0.0.0"),
        ({"host": "::"}, "`host` ::"),
        ({"host": ""}, "`host`"),
        ({"host": "192.168.1.2"}, "`host` 192.168.1.2"),
        ({"host": "pets.internal"}, "`host` pets.internal"),
        ({"cors": "*"}, "`cors`"),
        ({"hosts": "*"}, "`hosts`"),
    ],
)
def test_nobody_lets_everyone_in_without_saying_so(values, open_to):
    Settings(**values, no_auth=True).require_keys(Keys([]))
    Settings(**values).require_keys(Keys([KEY]))
    if open_to is None:
        Settings(**values).require_keys(Keys([]))
    else:
        with pytest.raises(InputError, match=f"{open_to}.*TRUSTVLM_SERVE_KEYS.*--no-auth"):
            Settings(**values).require_keys(Keys([]))


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
        state = TrustVLM.load(path).state
        zeros = {"fingerprint": "0" * 64, "weights": "0" * 64}
        vision = {**state.encoders["vision"], **zeros}
        replace(state, encoders={**state.encoders, "vision": vision}).save(path)
        refused = client.post("/v1/reload")
        (path / "manifest.json").write_text("{")
        assert client.post("/v1/reload").status_code == 409
        shutil.rmtree(path)
        assert client.post("/v1/reload").status_code == 409
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


class Panic(BaseException):
    """As libraries raise that are written in Rust."""


@pytest.fixture
def two(colours, tmp_path):
    other = shutil.copytree(colours, tmp_path / "other.trust")
    with client_of(colours, other) as client:
        yield client


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), RecursionError(), MemoryError(), KeyError("x"), Panic("!")]
)
def test_whatever_goes_wrong_at_reloading_the_old_model_goes_on(client, monkeypatch, error):
    def fail(*_, **__):
        raise error

    before = client.get("/v1/model").json()
    with monkeypatch.context() as broken:
        broken.setattr(TrustVLM, "load", fail)
        answer = client.post("/v1/reload")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "unfit")
    assert type(error).__name__ in answer.json()["error"]["message"]
    assert client.get("/v1/model").json() == before
    assert client.post("/v1/predict", files=RED).status_code == 200


@pytest.mark.parametrize("fault", ["nan", "raises", "panics"])
def test_a_new_model_judges_a_picture_before_it_serves(client, monkeypatch, fault):
    old, judge = client.context.models["colours"], Predictor.judge

    def broken_judge(self, *arguments):
        if self is old._own:
            return judge(self, *arguments)
        if fault == "nan":
            return [replace(one, confidence=math.nan) for one in judge(self, *arguments)]
        raise {"raises": ValueError, "panics": Panic}[fault]("not today")

    monkeypatch.setattr(Predictor, "judge", broken_judge)
    answer = client.post("/v1/reload")
    assert answer.status_code == 409
    expected = {"nan": "gives no verdict", "raises": "ValueError", "panics": "Panic"}[fault]
    assert expected in answer.json()["error"]["message"]
    assert client.context.models["colours"] is old
    assert client.post("/v1/predict", files=RED).status_code == 200


def test_a_model_that_fails_does_no_harm_to_another(two, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(two.context.models["other"], "judge", fail)
    answer = two.post("/v1/predict?model=other", files=RED)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "model_failed")
    assert "secret" not in answer.text
    assert "the secret reason" in caplog.text
    assert two.post("/v1/predict", files=RED).status_code == 200
    ready = two.get("/readyz")
    assert ready.status_code == 200
    assert list(ready.json()["seconds"]) == ["colours"]
    assert list(ready.json()["failed"]) == ["other"]
    # Nor does one whose reload does not come to an end.
    with two.context.models._turns["other"]:
        assert two.post("/v1/reload?model=colours").status_code == 200
    assert two.post("/v1/reload?model=other").status_code == 200
    assert two.post("/v1/predict?model=other", files=RED).status_code == 200


def test_a_model_that_cannot_be_loaded_does_no_harm_to_another(colours, tmp_path, caplog):
    other = shutil.copytree(colours, tmp_path / "other.trust")
    good = (other / "manifest.json").read_bytes()
    (other / "manifest.json").write_text("[" * 100_000)
    with client_of(other, colours) as client:
        assert "The model other does not serve" in caplog.text
        for path in ("/v1/predict", "/v1/predict?model=other"):
            answer = client.post(path, files=RED)
            assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "model_failed")
        assert client.get("/v1/model").status_code == 503
        assert client.post("/v1/predict?model=colours", files=RED).status_code == 200
        assert client.get("/v1/models").json() == ["other", "colours"]
        assert list(client.get("/readyz").json()["failed"]) == ["other"]
        assert client.post("/v1/reload").status_code == 409
        (other / "manifest.json").write_bytes(good)
        assert client.post("/v1/reload").status_code == 200
        assert client.post("/v1/predict", files=RED).status_code == 200
    (other / "manifest.json").write_text("{")
    with pytest.raises(TrustVLMError), client_of(other):
        pass


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


@pytest.mark.slow
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


def test_behind_a_proxy_that_is_named_clients_are_told_apart(colours, monkeypatch):
    """By the last address that no trusted proxy has, and by none that anyone else writes."""
    seen = []
    with client_of(colours, trusted_proxies="10.0.0.0/8,192.0.2.7") as client:
        submit = client.context.models.submit

        def noted(*arguments, **named):
            seen.append(named["client"])
            return submit(*arguments, **named)

        monkeypatch.setattr(client.context.models, "submit", noted)
        for proxy, forwarded in (
            ("192.0.2.7", "203.0.113.1"),
            ("10.1.2.3", "198.51.100.9, 203.0.113.2, 192.0.2.7"),
            ("10.1.2.3", "2001:db8::1"),
            ("203.0.113.3", "198.51.100.9"),
        ):
            client._transport.client = (proxy, 50000)
            headers = {"X-Forwarded-For": forwarded}
            assert client.post("/v1/predict", files=RED, headers=headers).status_code == 200
    assert seen == ["203.0.113.1", "203.0.113.2", "2001:db8::/64", "203.0.113.3"]


@pytest.mark.parametrize("n_keys", [0, 1, 2])
def test_several_keys_are_as_many_clients(colours, monkeypatch, n_keys):
    keys, seen = KEYS[:n_keys], []
    with client_of(colours, keys=keys) as client:
        submit = client.context.models.submit

        def noted(*arguments, **named):
            seen.append(named["client"])
            return submit(*arguments, **named)

        monkeypatch.setattr(client.context.models, "submit", noted)
        for address in ("203.0.113.1", "203.0.113.2"):
            client._transport.client = (address, 50000)
            for key in keys or [""]:
                headers = {"X-API-Key": key} if key else {}
                assert client.post("/v1/predict", files=RED, headers=headers).status_code == 200
    assert len(set(seen)) == 2
    # Two keys, at two addresses each; and else two addresses.
    assert seen == (seen[:2] * 2 if n_keys == 2 else ["203.0.113.1", "203.0.113.2"])
    assert not any(key in name for key in keys for name in seen)


@pytest.mark.parametrize("value", ["*", "0.0.0.0/0", "::/0", "proxy.example.org", "10.0.0.1/8"])
def test_who_is_trusted_is_an_address(value):
    with pytest.raises(InputError, match="Expected `trusted_proxies` to be IP addresses"):
        Settings(trusted_proxies=value)
