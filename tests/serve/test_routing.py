"""Behind a prefix, and `HEAD`."""

import re

import pytest

from service import client_of
from trustvlm.exceptions import InputError
from trustvlm.serve.settings import Settings
from uploads import png

RED = {"images": ("a.png", png("red", 1))}


@pytest.fixture(scope="module")
def behind(colours):
    with client_of(colours, root_path="trust/") as client:
        yield client


@pytest.mark.parametrize("stripped", [True, False])
def test_a_proxy_may_strip_the_prefix_or_keep_it(behind, stripped):
    prefix = "" if stripped else "/trust"
    page = behind.get(f"{prefix}/")
    assert page.status_code == 200
    for file in ("index.html", "page.js", "style.css", "icon.svg"):
        assert behind.get(f"{prefix}/static/{file}").status_code == 200
    assert behind.get(f"{prefix}/healthz", headers={"Host": "pets.internal"}).status_code == 200
    assert behind.get(f"{prefix}/v1/model", headers={"Host": "pets.internal"}).status_code == 421
    assert behind.post(f"{prefix}/v1/predict", files=RED).status_code == 200
    assert behind.get(f"{prefix}/v1/nothing").status_code == 404
    document = behind.get(f"{prefix}/openapi.json").json()
    assert document["servers"] == [{"url": "/trust"}]
    assert "/v1/predict" in document["paths"]
    metrics = behind.get(f"{prefix}/metrics").text
    assert re.search(r'requests_total{method="POST",route="/v1/predict",status="200"}', metrics)


def test_the_prefix_alone_leads_to_the_page(behind):
    answer = behind.get("/trust", follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (308, "/trust/")
    assert behind.get("/trusted/v1/model").status_code == 404


def test_every_address_of_the_page_is_relative(client):
    scripts = [f"static/{name}.js" for name in ("api", "check", "dom", "page", "review")]
    scripts += ["static/threshold.js", "static/verdict.js", "static/style.css"]
    for path in ("", *scripts):
        text = client.get(f"/{path}").text
        assert not re.findall(r"""(?:[\s(=]["'`]|url\()/\w[^"'`]*""", text), path


@pytest.mark.parametrize("root_path", ["/a b", "/trust/../x", "/trust?x", "/a//b", "http://x/"])
def test_a_prefix_that_is_none_is_refused(root_path):
    with pytest.raises(InputError, match="Expected `root_path` to be"):
        Settings(root_path=root_path)


@pytest.mark.parametrize(
    "path", ["/", "/static/page.js", "/healthz", "/readyz", "/openapi.json", "/v1/model"]
)
def test_head_is_get_without_the_body(client, path):
    answer, whole = client.head(path), client.get(path)
    assert answer.status_code == whole.status_code == 200
    assert answer.content == b""
    assert answer.headers["Content-Type"] == whole.headers["Content-Type"]
    if path != "/readyz":  # whose answer says how long it took
        assert answer.headers["Content-Length"] == str(len(whole.content))


def test_head_changes_nothing_and_is_counted_as_such(client):
    assert client.head("/v1/predict").status_code == 405
    assert client.head("/v1/model", headers={"Host": "pets.internal"}).status_code == 421
    client.head("/healthz")
    counted = client.get("/metrics").text
    assert 'trustvlm_requests_total{method="HEAD",route="/healthz",status="200"}' in counted
